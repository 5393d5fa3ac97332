#include "services/cloud/cloud_site_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define KV_PARTS_LEAST 8
#define CHUNK_BYTES    ((uint64_t)48 << 20) /* workers take 64 MiB */
#define LARGE_GROUPS   128                  /* beyond, heartbeats are rarer and samples fewer */
#define KV_SILENCE_MS  60000
#define SLICE          (250 * TS_MS)
#define SLICE_LARGE    TS_S

struct cloud_site_settings cloud_site_defaults(void)
{
    struct cloud_site_settings s = {.cloud = cloud_settings_defaults(),
                                    .router = router_settings_defaults(),
                                    .worker = worker_settings_defaults(),
                                    .relay = relay_settings_defaults(),
                                    .load_bytes_per_s = 1e9};
    s.cloud.checks = false;
    s.cloud.codec_bytes_per_s = 100e9;
    s.router.heartbeat_ms = s.worker.heartbeat_ms = s.relay.heartbeat_ms = 0;
    s.router.queue_max = s.router.per_client_max = 1u << 20;
    s.router.held_bytes_max = UINT64_C(1) << 40;
    s.router.prefill_inflight_max = 256;
    s.router.decode_inflight_max = 8192;
    s.worker.max_rows = 2048;
    s.worker.max_batch_tokens = 2048;
    s.worker.requests_max = 16384;
    s.worker.credit_bytes = UINT64_C(256) << 20;
    s.relay.encoded_bytes_max = UINT64_C(64) << 30;
    s.relay.encode_jobs_max = 16;
    s.relay.chunk_tokens_max = 0;
    s.router.measure_links = false;
    s.relay.probe_every_ms = s.relay.link_report_ms = 0;
    return s;
}

static uint32_t default_parts(uint32_t layers)
{
    uint32_t parts = layers < KV_PARTS_LEAST ? layers : KV_PARTS_LEAST;
    while (layers % parts != 0)
        parts++;
    return parts;
}

/* As large as chunks may be, at most what the engine computes at once. */
static uint32_t default_chunk(const struct ts_model *model, uint32_t parts, uint32_t batch_tokens)
{
    uint64_t tokens = CHUNK_BYTES / (ts_model_kv_token_bytes(model) / parts);
    tokens = tokens / TS_KV_BLOCK_TOKENS * TS_KV_BLOCK_TOKENS;
    return tokens < TS_KV_BLOCK_TOKENS ? TS_KV_BLOCK_TOKENS
           : tokens < batch_tokens     ? (uint32_t)tokens
                                       : batch_tokens;
}

/* --- its nodes --------------------------------------------------------------------------------------- */

static const char *relay_of(struct cloud_site *site, uint32_t node)
{
    char *id = site->relays[node];
    struct relay_settings s = site->settings.relay;
    if (*id)
        return id;
    snprintf(id, sizeof site->relays[node], "relay-%u", node);
    s.id = id;
    s.host = site->settings.cluster->nodes[node].name;
    struct cloud_node *relay = cloud_add_relay(site->cloud, &s);
    if (cloud_now(site->cloud) > 0)
        cloud_start(relay);
    return id;
}

static void describe_stages(const struct ts_cluster *cluster, struct replica *r)
{
    for (uint32_t i = 0; i < r->group.stage_count; i++) {
        const struct ts_stage *stage = &r->group.stages[i];
        const struct ts_gpu *gpu = &cluster->gpus[stage->gpus[0]];
        r->stages[i] = (struct ts_stage_item){.device = ts_str_of(cluster->types[gpu->type].name),
                                              .host = ts_str_of(cluster->nodes[gpu->node].name),
                                              .tp = stage->tp,
                                              .layers = stage->layers};
    }
}

/* Activations must have a way from stage to stage. */
static bool connected(const struct ts_cluster *cluster, const struct ts_group *group)
{
    for (uint32_t i = 0; i < group->stage_count; i++) {
        uint32_t a = cluster->gpus[group->stages[i].gpus[0]].node;
        uint32_t b = cluster->gpus[group->stages[(i + 1) % group->stage_count].gpus[0]].node;
        if (a != b && !(ts_cluster_link(cluster, a, b)->bytes_per_s > 0))
            return false;
    }
    return true;
}

enum ts_status site_add_replica(struct cloud_site *site, uint32_t group, struct ts_error *err)
{
    const struct ts_cluster *cluster = site->settings.cluster;
    struct worker_settings s = site->settings.worker;
    struct replica *r = ts_xcalloc(1, sizeof *r);
    void *replicas = site->replicas;
    ts_array_reserve(&replicas, &site->replica_capacity, site->replica_count + 1, sizeof(struct replica *));
    site->replicas = replicas;
    snprintf(r->id, sizeof r->id, "g%zu", site->replica_count);
    site->replicas[site->replica_count++] = r;
    r->group = site->plan->groups[group];
    r->index = group;
    r->died_at = TS_TIME_NEVER;
    r->born_at = cloud_now(site->cloud) > SITE_START ? cloud_now(site->cloud) : SITE_START;
    describe_stages(cluster, r);
    if (!connected(cluster, &r->group))
        return ts_error_set(err, TS_EINVAL, "group %u: two of its stages are not connected", group);
    r->device = cloud_replica_new(cluster, site->settings.model, &r->group, site->settings.noise,
                                  ts_splitmix64(site->settings.cloud.seed + site->replica_count));
    if (cloud_replica_kv_blocks(r->device) == 0)
        return ts_error_set(err, TS_EINVAL, "group %u: its weights leave no memory for KV", group);
    /* A batch with a large chunk among small decode batches leaves the other stages idle while it passes
     * (Agrawal et al., Sarathi-Serve, OSDI 2024, section 3.3), so the chunks of all batches under way share
     * the budget. */
    if (r->group.phase == TS_PHASE_BOTH)
        s.max_batch_tokens /= r->group.stage_count;
    s.id = r->id;
    s.host = cluster->nodes[cluster->gpus[r->group.stages[0].gpus[0]].node].name;
    s.profile.device = r->stages[0].device;
    s.profile.stages = (struct ts_stage_items){r->stages, r->group.stage_count};
    r->node = cloud_add_replica(site->cloud, &s, r->group.phase, r->device,
                                relay_of(site, cluster->gpus[r->group.stages[0].gpus[0]].node));
    site->of_group[group] = r;
    site->workers[group] = r->id;
    if (cloud_now(site->cloud) > 0)
        cloud_start(r->node);
    return TS_OK;
}

/* --- requests: the caller's clock starts at SITE_START ----------------------------------------------- */

static bool next_request(void *context, struct cloud_request *out)
{
    struct cloud_site *site = context;
    if (!site->source.next(site->source.context, out))
        return false;
    out->at += SITE_START;
    if (out->cancel_at != TS_TIME_NEVER)
        out->cancel_at += SITE_START;
    return true;
}

static void request_ended(void *context, const struct cloud_request *request,
                          const struct cloud_outcome *outcome)
{
    struct cloud_site *site = context;
    struct cloud_request theirs = *request;
    theirs.at -= SITE_START;
    if (theirs.cancel_at != TS_TIME_NEVER)
        theirs.cancel_at -= SITE_START;
    if (site->source.ended)
        site->source.ended(site->source.context, &theirs, outcome);
}

/* --- the site ---------------------------------------------------------------------------------------- */

/* Workers and relays are patient with each other: a chunk on a crowded link may take seconds, and heartbeats
 * wait behind it. */
static void fill_heartbeats(struct cloud_site_settings *s)
{
    uint32_t beat = s->plan->group_count > LARGE_GROUPS ? 5000 : 500;
    uint32_t *beats[] = {&s->router.heartbeat_ms, &s->worker.heartbeat_ms, &s->relay.heartbeat_ms};
    uint32_t *timeouts[] = {&s->router.timeout_ms, &s->worker.timeout_ms, &s->relay.timeout_ms};
    for (size_t i = 0; i < sizeof beats / sizeof *beats; i++) {
        if (*beats[i] > 0)
            continue;
        *beats[i] = beat;
        *timeouts[i] = i == 0 ? 6 * beat : KV_SILENCE_MS;
    }
}

static enum ts_status fill(struct cloud_site *site, struct ts_error *err)
{
    const struct cloud_site_settings *s = &site->settings;
    const struct cloud_source source = {
        .context = site, .next = next_request, .ended = request_ended, .retries = site->source.retries};
    enum ts_status status = ts_plan_check(s->plan, s->cluster, s->model, s->demand, err);
    if (status == TS_OK)
        status = cloud_new(&s->cloud, &site->cloud, err);
    if (status != TS_OK)
        return status;
    site->router = cloud_add_router(site->cloud, &s->router);
    site->relays = ts_xcalloc(s->cluster->node_count, sizeof *site->relays);
    site_adopt(site, s->plan);
    for (uint32_t g = 0; g < s->plan->group_count && status == TS_OK; g++)
        status = site_add_replica(site, g, err);
    if (status != TS_OK)
        return status;
    if (s->planner)
        site->planner = cloud_add_planner(site->cloud, s->planner);
    else
        site->planner = cloud_add_publisher(site->cloud, "publisher");
    site_publish(site);
    site->client = cloud_add_source(site->cloud, "clients", &source);
    return TS_OK;
}

enum ts_status cloud_site_new(const struct cloud_site_settings *settings, const struct cloud_source *source,
                              struct cloud_site **out, struct ts_error *err)
{
    struct cloud_site *site = ts_xcalloc(1, sizeof *site);
    struct cloud_site_settings *s = &site->settings;
    site->settings = *settings;
    site->source = *source;
    if (s->kv_parts == 0)
        s->kv_parts = default_parts(s->model->layers);
    if (s->relay.chunk_tokens_max == 0)
        s->relay.chunk_tokens_max = default_chunk(s->model, s->kv_parts, s->worker.max_batch_tokens);
    if (!(s->load_bytes_per_s > 0))
        s->load_bytes_per_s = 1e9;
    s->cloud.model = s->model;
    s->cloud.cluster = s->cluster;
    site->links = site_links_new();
    s->cloud.kv_parts = s->kv_parts;
    fill_heartbeats(s);
    enum ts_status status = fill(site, err);
    if (status != TS_OK)
        cloud_site_destroy(&site);
    *out = site;
    return status;
}

void cloud_site_destroy(struct cloud_site **site)
{
    struct cloud_site *s = *site;
    if (!s)
        return;
    cloud_destroy(&s->cloud);
    for (size_t i = 0; i < s->replica_count; i++) {
        cloud_replica_destroy(&s->replicas[i]->device);
        ts_free(s->replicas[i]);
    }
    site_changes_free(s);
    site_links_destroy(&s->links);
    ts_free(s->replicas);
    ts_free(s->relays);
    ts_free(s->workers);
    ts_free(s->of_group);
    ts_free(s->joining);
    ts_free(s);
    *site = NULL;
}

struct cloud *cloud_site_cloud(const struct cloud_site *site)
{
    return site->cloud;
}

/* --- the run ----------------------------------------------------------------------------------------- */

static void look_at(struct replica *r, ts_time now)
{
    if (r->died_at != TS_TIME_NEVER)
        return;
    if (!cloud_node_alive(r->node)) {
        r->died_at = r->leaving ? now : TS_TIME_NEVER;
        return;
    }
    double share =
        (double)worker_core_blocks_used(cloud_node_core(r->node)) / r->node->settings.worker.pool.kv_blocks;
    r->group.phase = worker_core_phase(cloud_node_core(r->node)); /* a planner may have turned it */
    r->kv_sum += share;
    r->kv_max = fmax(r->kv_max, share);
    r->samples++;
}

enum ts_status cloud_site_run(struct cloud_site *site, ts_time until, struct ts_error *err)
{
    ts_time slice = site->plan->group_count > LARGE_GROUPS ? SLICE_LARGE : SLICE;
    ts_time end = until > TS_TIME_NEVER - SITE_START ? TS_TIME_NEVER : until + SITE_START;
    enum ts_status status = TS_OK;
    while (status == TS_OK && cloud_now(site->cloud) < end) {
        ts_time next = cloud_now(site->cloud) + slice;
        status = cloud_run(site->cloud, next < end ? next : end, err);
        for (size_t i = 0; i < site->replica_count; i++)
            look_at(site->replicas[i], cloud_now(site->cloud));
        site_join(site);
        if (cloud_source_over(site->client))
            break;
    }
    return status;
}

/* --- what it counted --------------------------------------------------------------------------------- */

static double seconds_of(ts_time at)
{
    return at == TS_TIME_NEVER ? INFINITY : (double)(at - SITE_START) / 1e9;
}

size_t cloud_site_replica_count(const struct cloud_site *site)
{
    return site->replica_count;
}

struct cloud_site_replica cloud_site_replica_at(const struct cloud_site *site, size_t i)
{
    const struct replica *r = site->replicas[i];
    const struct cloud_work *work = &r->node->work;
    struct cloud_site_replica out = {.group = r->index,
                                     .shape = &r->group,
                                     .phase = r->group.phase,
                                     .prompt_tokens = work->prompt_tokens,
                                     .output_tokens = work->output_tokens,
                                     .batches = work->batches,
                                     .kv_used_mean = r->samples ? r->kv_sum / (double)r->samples : 0,
                                     .kv_used_max = r->kv_max,
                                     .born_s = seconds_of(r->born_at),
                                     .died_s = seconds_of(r->died_at)};
    for (uint32_t s = 0; s < r->group.stage_count; s++)
        out.busy_s[s] = cloud_replica_busy_s(r->device, s);
    return out;
}
