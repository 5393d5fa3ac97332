/*
 * Nodes: one per process, or modelled client. What common/run/ts_service.c does for a process, under virtual
 * time: step the core, perform its actions in order, tell it of sends that failed, tick it when its deadline
 * has come.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/cloud/cloud_impl.h"
#include "services/cloud/cloud_publisher.h"
#include "services/cloud/cloud_replica.h"

/* Ticks of one node at one instant. A search may want a few; a core that always asks again would spin. */
#define SPINS_MAX 10000

static struct cloud_node *add(struct cloud *cloud, enum cloud_kind kind, const char *id)
{
    struct cloud_node *node = ts_xcalloc(1, sizeof *node);
    node->cloud = cloud;
    node->kind = kind;
    node->id = ts_xstrdup(id);
    node->endpoint = ts_xasprintf("cloud://%s", id);
    node->index = (uint32_t)cloud->node_count;
    node->tick_at = TS_TIME_NEVER;
    node->next_peer = 1;
    node->restart_stopped = true;
    node->conns = ts_map_new();
    ts_actions_init(&node->actions);
    TS_ASSERT(!cloud_find(cloud, ts_str_of(node->endpoint)));
    ts_map_put(cloud->endpoints, node->endpoint, strlen(node->endpoint), node);
    void *nodes = cloud->nodes;
    ts_array_reserve(&nodes, &cloud->node_capacity, cloud->node_count + 1, sizeof(struct cloud_node *));
    cloud->nodes = nodes;
    cloud->nodes[cloud->node_count++] = node;
    return node;
}

struct cloud_node *cloud_find(const struct cloud *cloud, struct ts_str endpoint)
{
    return ts_map_get(cloud->endpoints, endpoint.data, endpoint.count);
}

/* Endpoints of all routers there are so far. */
static size_t dial_routers(const struct cloud *cloud, const char **routers, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < cloud->node_count && count < max; i++) {
        if (cloud->nodes[i]->kind == CLOUD_ROUTER)
            routers[count++] = cloud->nodes[i]->endpoint;
    }
    return count;
}

struct cloud_node *cloud_add_router(struct cloud *cloud, const struct router_settings *settings)
{
    struct cloud_node *node = add(cloud, CLOUD_ROUTER, settings->id);
    node->settings.router = *settings;
    return node;
}

struct cloud_node *cloud_add_planner(struct cloud *cloud, const struct planner_settings *settings)
{
    struct cloud_node *node = add(cloud, CLOUD_PLANNER, settings->id);
    struct planner_settings *s = &node->settings.planner;
    *s = *settings;
    s->router_count = dial_routers(cloud, s->routers, PLANNER_ROUTERS_MAX);
    return node;
}

struct cloud_node *cloud_add_relay(struct cloud *cloud, const struct relay_settings *settings)
{
    struct cloud_node *node = add(cloud, CLOUD_RELAY, settings->id);
    struct relay_settings *s = &node->settings.relay;
    *s = *settings;
    s->router_count = dial_routers(cloud, s->routers, RELAY_ROUTERS_MAX);
    return node;
}

static void fill_profile(struct cloud_node *node, enum ts_phase phase, uint32_t kv_blocks)
{
    struct worker_settings *s = &node->settings.worker;
    const struct ts_model *m = &node->cloud->model, *kv = &node->cloud->kv;
    s->profile = (struct ts_profile){.phases = phase,
                                     .phase = phase,
                                     .model = ts_str_of(m->name),
                                     .device = ts_str_of("modelled"),
                                     .fingerprint = m->fingerprint,
                                     .layers = m->layers,
                                     .hidden = node->cloud->settings.shapes_unsaid ? 0 : m->hidden,
                                     .intermediate = m->intermediate,
                                     .heads = m->heads,
                                     .kv_heads = m->kv_heads,
                                     .head_dim = m->head_dim,
                                     .vocab = m->vocab,
                                     .context_tokens = m->context_tokens,
                                     .kv_dtype = m->kv_dtype,
                                     .layer_end = m->layers,
                                     .head_end = m->kv_heads,
                                     .kv_blocks = kv_blocks,
                                     .max_rows = s->max_rows,
                                     .max_batch_tokens = s->max_batch_tokens,
                                     .modelled = true,
                                     .kv_endpoint = ts_str_of(node->endpoint)};
    s->pool = (struct ts_msg_pool){.path = ts_str_of(node->pool_path),
                                   .bytes = ts_model_kv_token_bytes(kv) * TS_KV_BLOCK_TOKENS * kv_blocks,
                                   .fingerprint = m->fingerprint,
                                   .layer_end = kv->layers,
                                   .head_end = kv->kv_heads,
                                   .kv_blocks = kv_blocks,
                                   .head_dim = kv->head_dim,
                                   .kv_dtype = kv->kv_dtype,
                                   .layers = kv->layers,
                                   .kv_heads = kv->kv_heads,
                                   .encodes = true};
}

struct cloud_node *cloud_add_worker(struct cloud *cloud, const struct worker_settings *settings,
                                    enum ts_phase phase, uint32_t kv_blocks, const char *relay)
{
    struct cloud_node *node = add(cloud, CLOUD_WORKER, settings->id), *host = NULL;
    struct worker_settings *s = &node->settings.worker;
    *s = *settings;
    if (!cloud->settings.checks) /* prompts are zeros: what they have in common is not known */
        s->prefix_blocks_max = 0;
    s->router_count = dial_routers(cloud, s->routers, WORKER_ROUTERS_MAX);
    fill_profile(node, phase, kv_blocks);
    for (size_t i = 0; relay && i < cloud->node_count; i++) {
        if (strcmp(cloud->nodes[i]->id, relay) == 0)
            host = cloud->nodes[i];
    }
    s->relay_endpoint = host ? host->endpoint : "";
    s->profile.relay = host ? ts_str_of(host->id) : (struct ts_str){.count = 0};
    return node;
}

struct cloud_node *cloud_add_replica(struct cloud *cloud, const struct worker_settings *settings,
                                     enum ts_phase phase, struct cloud_replica *replica, const char *relay)
{
    struct cloud_node *node =
        cloud_add_worker(cloud, settings, phase, cloud_replica_kv_blocks(replica), relay);
    struct ts_profile *p = &node->settings.worker.profile;
    node->replica = replica;
    p->phases = TS_PHASE_BOTH;
    p->device = settings->profile.device;
    p->stages = settings->profile.stages;
    node->settings.worker.batches_max = p->batches_max = p->stages.count;
    return node;
}

uint32_t cloud_node_place(const struct cloud_node *node, uint32_t part)
{
    return node->replica ? cloud_replica_node(node->replica, part, node->cloud->kv.layers) : UINT32_MAX;
}

void cloud_worker_willing(struct cloud_node *worker, uint32_t phases)
{
    worker->settings.worker.profile.phases |= phases;
}

struct cloud_node *cloud_add_client(struct cloud *cloud, const char *id)
{
    struct cloud_node *node = add(cloud, CLOUD_CLIENT, id);
    node->core = client_new(node);
    return node;
}

struct cloud_node *cloud_add_publisher(struct cloud *cloud, const char *id)
{
    struct cloud_node *node = add(cloud, CLOUD_PUBLISHER, id);
    node->core = publisher_new(node);
    return node;
}

static void destroy_core(struct cloud_node *node)
{
    void *core = node->core;
    switch (node->kind) {
    case CLOUD_ROUTER:
        router_core_destroy((struct router_core **)&core);
        break;
    case CLOUD_PLANNER:
        planner_core_destroy((struct planner_core **)&core);
        break;
    case CLOUD_WORKER:
        worker_core_destroy((struct worker_core **)&core);
        break;
    case CLOUD_RELAY:
        relay_core_destroy((struct relay_core **)&core);
        break;
    case CLOUD_CLIENT: /* a person behind it: remembers */
    case CLOUD_PUBLISHER:
        return;
    }
    node->core = NULL;
}

void cloud_node_free(struct cloud_node *node)
{
    device_destroy(&node->device);
    if (node->kind == CLOUD_CLIENT)
        client_destroy((struct cloud_client **)&node->core);
    else if (node->kind == CLOUD_PUBLISHER)
        publisher_destroy((struct cloud_publisher **)&node->core);
    else
        destroy_core(node);
    bulk_fini(&node->bulks);
    ts_actions_fini(&node->actions);
    ts_map_destroy(&node->conns);
    ts_free(node->failed);
    ts_free(node->id);
    ts_free(node->endpoint);
    ts_free(node);
}

/* --- steps ------------------------------------------------------------------------------------------- */

static void step_core(struct cloud_node *node, const struct ts_event *event)
{
    ts_time now = node->cloud->now;
    switch (node->kind) {
    case CLOUD_ROUTER:
        router_core_step(node->core, now, event, &node->actions);
        break;
    case CLOUD_PLANNER:
        planner_core_step(node->core, now, event, &node->actions);
        break;
    case CLOUD_WORKER:
        worker_core_step(node->core, now, event, &node->actions);
        break;
    case CLOUD_RELAY:
        relay_core_step(node->core, now, event, &node->actions);
        break;
    case CLOUD_CLIENT:
        client_step(node->core, now, event, &node->actions);
        break;
    case CLOUD_PUBLISHER:
        publisher_step(node->core, now, event, &node->actions);
        break;
    }
}

static ts_time deadline_of(const struct cloud_node *node)
{
    switch (node->kind) {
    case CLOUD_ROUTER:
        return router_core_deadline(node->core);
    case CLOUD_PLANNER:
        return planner_core_deadline(node->core);
    case CLOUD_WORKER:
        return worker_core_deadline(node->core);
    case CLOUD_RELAY:
        return relay_core_deadline(node->core);
    case CLOUD_CLIENT:
        return client_deadline(node->core);
    case CLOUD_PUBLISHER:
        return publisher_deadline(node->core);
    }
    return TS_TIME_NEVER;
}

void cloud_unreachable(struct cloud_node *node, enum ts_channel channel, uint64_t peer)
{
    for (size_t i = 0; i < node->failed_count; i++) {
        if (node->failed[i].channel == channel && node->failed[i].peer == peer)
            return;
    }
    void *failed = node->failed;
    ts_array_reserve(&failed, &node->failed_capacity, node->failed_count + 1, sizeof *node->failed);
    node->failed = failed;
    node->failed[node->failed_count++] = (struct unreachable){channel, peer};
}

static void perform(struct cloud_node *node, struct ts_action *action)
{
    const struct cloud_hooks *hooks = &node->cloud->settings.hooks;
    if (hooks->before && !hooks->before(hooks->context, node, action))
        return;
    switch (action->kind) {
    case TS_ACTION_SEND:
        net_send(node, &action->send);
        break;
    case TS_ACTION_CONNECT:
        net_connect(node, &action->connect);
        break;
    case TS_ACTION_DISCONNECT:
        net_disconnect(node, &action->disconnect);
        break;
    case TS_ACTION_DROP:
        if (!bulk_drop(&node->bulks, action->drop.bulk))
            cloud_fail(node->cloud, "%s drops a handle it does not hold", node->id);
        break;
    case TS_ACTION_TRACE:
    case TS_ACTION_LOG:
        break;
    case TS_ACTION_STOP:
        node->stopping = true;
        break;
    default:
        if (!device_perform(node, action))
            cloud_fail(node->cloud, "%s asks for work that it has no device for", node->id);
    }
}

static void add_to_digest(struct cloud_node *node, const struct ts_event *event)
{
    struct cloud *cloud = node->cloud;
    uint64_t digest = digest_mix(digest_mix(cloud->digest, (uint64_t)cloud->now), node->index);
    digest = digest_struct(digest, &ts_event_schema, event);
    for (size_t i = 0; i < node->actions.count; i++)
        digest = digest_struct(digest, &ts_action_schema, &node->actions.items[i]);
    cloud->digest = digest;
}

static void step_once(struct cloud_node *node, const struct ts_event *event)
{
    struct cloud *cloud = node->cloud;
    const struct cloud_hooks *hooks = &cloud->settings.hooks;
    cloud->steps++;
    ts_actions_clear(&node->actions);
    step_core(node, event);
    if (cloud->settings.checks && !cloud->settings.undigested)
        add_to_digest(node, event);
    for (size_t i = 0; i < node->actions.count; i++)
        perform(node, &node->actions.items[i]);
    if (hooks->stepped)
        hooks->stepped(hooks->context, node, event, &node->actions);
}

static void forget(struct occurrence *o)
{
    ts_free(o);
}

struct tick {
    struct occurrence o;
    ts_time at;
};

static void tick_happens(struct cloud *cloud, struct occurrence *o)
{
    struct tick *tick = (struct tick *)o;
    struct cloud_node *node = o->node;
    const struct ts_event event = {.kind = TS_EVENT_TICK};
    bool due = node->tick_at == tick->at;
    ts_free(tick);
    if (!due) /* an earlier one took its place */
        return;
    node->tick_at = TS_TIME_NEVER;
    if (++node->spins > SPINS_MAX)
        cloud_fail(cloud, "%s wants to be ticked for ever at one instant", node->id);
    else
        cloud_step(node, &event);
}

static void schedule_tick(struct cloud_node *node)
{
    struct cloud *cloud = node->cloud;
    ts_time at = deadline_of(node);
    if (at == TS_TIME_NEVER)
        return;
    if (at <= cloud->now)
        at = cloud->now;
    else
        node->spins = 0;
    if (at >= node->tick_at)
        return;
    struct tick *tick = ts_xcalloc(1, sizeof *tick);
    *tick = (struct tick){.o = {.node = node, .happen = tick_happens, .forget = forget}, .at = at};
    node->tick_at = at;
    cloud_push(cloud, at, &tick->o);
}

static void die(struct cloud_node *node, bool abrupt);

void cloud_step(struct cloud_node *node, const struct ts_event *event)
{
    step_once(node, event);
    while (node->failed_count > 0) {
        struct unreachable u = node->failed[0];
        node->failed_count--;
        memmove(node->failed, node->failed + 1, node->failed_count * sizeof *node->failed);
        struct ts_event failed = {.kind = TS_EVENT_SEND_FAILED, .send_failed = {u.channel, u.peer}};
        step_once(node, &failed);
    }
    if (node->stopping) {
        if (node->bulks.held > 0)
            cloud_fail(node->cloud, "%s stops and holds %zu handles", node->id, node->bulks.held);
        die(node, false);
    } else {
        schedule_tick(node);
    }
}

/* --- life -------------------------------------------------------------------------------------------- */

static void *new_core(struct cloud_node *node, uint64_t incarnation)
{
    switch (node->kind) {
    case CLOUD_ROUTER:
        return router_core_new(&node->settings.router, incarnation);
    case CLOUD_PLANNER:
        return planner_core_new(&node->settings.planner, incarnation);
    case CLOUD_WORKER:
        snprintf(node->pool_path, sizeof node->pool_path, "/pool/%u/%llu", node->index,
                 (unsigned long long)node->life);
        node->settings.worker.pool.path = ts_str_of(node->pool_path);
        return worker_core_new(&node->settings.worker, incarnation);
    case CLOUD_RELAY:
        return relay_core_new(&node->settings.relay, incarnation);
    case CLOUD_CLIENT:
    case CLOUD_PUBLISHER:
        break;
    }
    return node->core;
}

static void start_happens(struct cloud *cloud, struct occurrence *o)
{
    struct cloud_node *node = o->node;
    (void)cloud;
    ts_free(o);
    cloud_start(node);
}

static void die(struct cloud_node *node, bool abrupt)
{
    struct cloud *cloud = node->cloud;
    bool comes_back = (abrupt || node->restart_stopped) && !node->retired;
    net_node_died(node, abrupt);
    destroy_core(node);
    device_destroy(&node->device);
    bulk_fini(&node->bulks);
    node->failed_count = 0;
    node->tick_at = TS_TIME_NEVER;
    node->frozen_until = node->frozen_again = 0;
    node->jobs_to_fail = 0;
    node->alive = node->stopping = false;
    node->life++;
    if (!comes_back)
        return;
    struct occurrence *o = ts_xcalloc(1, sizeof *o);
    *o = (struct occurrence){.node = node, .happen = start_happens, .forget = forget};
    cloud_push(cloud, cloud->now + cloud_draw_time(&cloud->rng, cloud->settings.restart_max), o);
}

void cloud_start(struct cloud_node *node)
{
    const struct ts_event start = {.kind = TS_EVENT_START};
    if (node->alive || node->retired)
        return;
    node->life++;
    node->core = new_core(node, ts_rng_u64(&node->cloud->rng) | 1);
    if (node->kind == CLOUD_WORKER || node->kind == CLOUD_RELAY)
        node->device = device_new(node);
    node->alive = true;
    net_node_started(node);
    cloud_step(node, &start);
}

void cloud_retire(struct cloud_node *node)
{
    node->retired = true;
}

void cloud_kill(struct cloud_node *node)
{
    TS_ASSERT(node->kind != CLOUD_CLIENT && node->kind != CLOUD_PUBLISHER);
    if (!node->alive)
        return;
    node->cloud->counts.kills++;
    die(node, true);
}

void cloud_drain(struct cloud_node *node)
{
    const struct ts_event drain = {.kind = TS_EVENT_DRAIN};
    if (node->alive)
        cloud_step(node, &drain);
}

/* What was put off to the end of one freeze stays ahead of what comes during the next. */
bool cloud_node_frozen(struct cloud_node *node)
{
    ts_time now = node->cloud->now;
    if (node->frozen_until <= now && node->frozen_again > now)
        node->frozen_until = node->frozen_again;
    return node->frozen_until > now;
}

void cloud_freeze(struct cloud_node *node, ts_time until)
{
    if (!node->alive)
        return;
    if (!cloud_node_frozen(node))
        node->frozen_until = until;
    else if (until > node->frozen_until && until > node->frozen_again)
        node->frozen_again = until;
}

void cloud_fail_jobs(struct cloud_node *node, uint32_t count)
{
    if (node->alive)
        node->jobs_to_fail = count;
}

bool cloud_job_fails(struct cloud_node *node, double chance)
{
    if (node->jobs_to_fail == 0)
        return cloud_chance(node->cloud, chance);
    node->jobs_to_fail--;
    return true;
}

void cloud_admin(struct cloud_node *router, const struct ts_msg *msg)
{
    const struct ts_event event = {.kind = TS_EVENT_MESSAGE,
                                   .message = {.channel = TS_CHANNEL_ADMIN,
                                               .peer = UINT64_MAX,
                                               .envelope = {.version = TS_PROTOCOL_VERSION},
                                               .msg = *msg}};
    if (router->alive)
        cloud_step(router, &event);
}

void cloud_restart_stopped(struct cloud_node *node, bool restart)
{
    node->restart_stopped = restart;
}

const char *cloud_node_id(const struct cloud_node *node)
{
    return node->id;
}

enum cloud_kind cloud_node_kind(const struct cloud_node *node)
{
    return node->kind;
}

bool cloud_node_alive(const struct cloud_node *node)
{
    return node->alive;
}

void *cloud_node_core(const struct cloud_node *node)
{
    bool core = node->kind != CLOUD_CLIENT && node->kind != CLOUD_PUBLISHER;
    return core ? node->core : NULL;
}

size_t cloud_node_handles(const struct cloud_node *node)
{
    return node->bulks.held;
}
