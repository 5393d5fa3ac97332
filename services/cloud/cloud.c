#include "services/cloud/cloud_impl.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/ts_mem.h"
#include "services/cloud/cloud_copy.h"
#include "services/cloud/cloud_flow.h"

struct cloud_settings cloud_settings_defaults(void)
{
    return (struct cloud_settings){.seed = 1,
                                   .checks = true,
                                   .codec_bytes_per_s = 2e9,
                                   .tokenise_ns = 500,
                                   .restart_max = 2 * TS_S,
                                   .network = {.latency_min = 20 * TS_US,
                                               .latency_mean = 60 * TS_US,
                                               .bytes_per_s = 1.25e9,
                                               .cut_after_max = 4 * TS_S,
                                               .stall_max = 4 * TS_S,
                                               .reconnect_max = 300 * TS_MS}};
}

/* The same bytes of a token, in so many layers of one head. */
static struct ts_model kv_of(const struct ts_model *model, uint32_t parts)
{
    struct ts_model kv = *model;
    if (parts > 0) {
        kv.layers = parts;
        kv.head_dim = model->layers / parts * model->kv_heads * model->head_dim;
        kv.kv_heads = 1;
    }
    return kv;
}

enum ts_status cloud_new(const struct cloud_settings *settings, struct cloud **out, struct ts_error *err)
{
    struct ts_sim_model device;
    enum ts_status status = ts_sim_model_load(settings->device_conf, &device, err);
    if (status != TS_OK)
        return status;
    struct ts_model model = settings->model ? *settings->model : device.model;
    if (settings->kv_parts > 0 && model.layers % settings->kv_parts != 0)
        return ts_error_set(err, TS_EINVAL, "%u layers do not divide into %u equal parts", model.layers,
                            settings->kv_parts);
    struct cloud *cloud = ts_xcalloc(1, sizeof *cloud);
    cloud->settings = *settings;
    cloud->settings.model = NULL;
    cloud->costs = device.costs;
    cloud->model = model;
    if (settings->context_tokens)
        cloud->model.context_tokens = settings->context_tokens;
    cloud->kv = kv_of(&cloud->model, settings->kv_parts);
    ts_rng_init(&cloud->rng, settings->seed);
    ts_rng_init(&cloud->faults, ts_splitmix64(settings->seed));
    ts_heap_init(&cloud->heap);
    cloud->endpoints = ts_map_new();
    cloud->copier = copier_new();
    cloud->flows = settings->cluster ? flows_new(settings->cluster) : NULL;
    *out = cloud;
    return TS_OK;
}

void cloud_destroy(struct cloud **cloud)
{
    struct cloud *c = *cloud;
    struct occurrence *o;
    if (!c)
        return;
    net_close(c);
    while ((o = ts_heap_pop(&c->heap, NULL)))
        o->forget(o);
    packets_fini(c);
    flows_destroy(&c->flows);
    for (size_t i = 0; i < c->node_count; i++)
        cloud_node_free(c->nodes[i]);
    copier_destroy(&c->copier);
    ts_map_destroy(&c->endpoints);
    ts_heap_fini(&c->heap);
    ts_free(c->nodes);
    ts_free(c->zeros);
    ts_free(c);
    *cloud = NULL;
}

void cloud_fail(struct cloud *cloud, const char *format, ...)
{
    char text[500];
    va_list args;
    if (cloud->failure.status != TS_OK)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ts_error_set(&cloud->failure, TS_ECORRUPT, "at %.6f s, step %llu: %s", (double)cloud->now / 1e9,
                 (unsigned long long)cloud->steps, text);
}

bool cloud_failed(const struct cloud *cloud)
{
    return cloud->failure.status != TS_OK;
}

void cloud_push(struct cloud *cloud, ts_time at, struct occurrence *o)
{
    o->life = o->node ? o->node->life : 0;
    ts_heap_push(&cloud->heap, at > cloud->now ? at : cloud->now, o);
}

ts_time cloud_draw_time(struct ts_rng *rng, ts_time max)
{
    return (ts_time)(ts_rng_unit(rng) * (double)max);
}

bool cloud_chance(struct cloud *cloud, double chance)
{
    return chance > 0 && cloud->now < cloud->settings.network.faults_until &&
           ts_rng_unit(&cloud->faults) < chance;
}

struct call {
    struct occurrence o;
    void (*call)(void *context);
    void *context;
};

static void call_happens(struct cloud *cloud, struct occurrence *o)
{
    struct call *c = (struct call *)o;
    (void)cloud;
    c->call(c->context);
    ts_free(c);
}

static void forget(struct occurrence *o)
{
    ts_free(o);
}

void cloud_at(struct cloud *cloud, ts_time at, void (*call)(void *context), void *context)
{
    struct call *c = ts_xcalloc(1, sizeof *c);
    *c = (struct call){.o = {.happen = call_happens, .forget = forget}, .call = call, .context = context};
    cloud_push(cloud, at, &c->o);
}

enum ts_status cloud_run(struct cloud *cloud, ts_time until, struct ts_error *err)
{
    for (; cloud->started < cloud->node_count; cloud->started++)
        cloud_start(cloud->nodes[cloud->started]);
    while (cloud->failure.status == TS_OK && ts_heap_next(&cloud->heap) <= until) {
        struct occurrence *o = ts_heap_pop(&cloud->heap, &cloud->now);
        if (o->node && o->life != o->node->life)
            o->forget(o);
        else if (o->node && cloud_node_frozen(o->node))
            ts_heap_push(&cloud->heap, o->node->frozen_until, o);
        else
            o->happen(cloud, o);
    }
    if (cloud->failure.status == TS_OK) {
        cloud->now = until > cloud->now ? until : cloud->now;
        return TS_OK;
    }
    return ts_error_set(err, cloud->failure.status, "%s", cloud->failure.text);
}

ts_time cloud_now(const struct cloud *cloud)
{
    return cloud->now;
}

uint64_t cloud_digest(const struct cloud *cloud)
{
    return cloud->digest;
}

uint64_t cloud_steps(const struct cloud *cloud)
{
    return cloud->steps;
}

size_t cloud_node_count(const struct cloud *cloud)
{
    return cloud->node_count;
}

struct cloud_node *cloud_node_at(const struct cloud *cloud, size_t i)
{
    return cloud->nodes[i];
}

struct cloud_counts cloud_counts(const struct cloud *cloud)
{
    return cloud->counts;
}
