/*
 * The modelled engine: computes nothing, takes the time that its coefficients say. It lets real processes
 * play a cloud of devices nobody has: tokens are a pure function of (seed, index), KV is declared and not
 * moved. Coefficients and shapes come from a JSON file (conf/devices/modelled.json) or are the same built in.
 */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "gpu/engine/ts_engine_impl.h"
#include "gpu/sim/ts_sim_model.h"

struct sim_engine {
    struct ts_engine base;
    struct ts_engine_options options;
    struct ts_sim_costs costs;
    struct ts_engine_batch batch;
    struct ts_engine_sample *samples;
    bool busy;
    ts_time began, ends;
    uint32_t layers_told;
};

static double batch_ns(const struct sim_engine *e)
{
    double ns = e->costs.step;
    for (uint32_t i = 0; i < e->batch.row_count; i++)
        ns += ts_sim_row_ns(&e->costs, e->batch.rows[i].position, e->batch.rows[i].token_count);
    return ns;
}

static void arm(struct sim_engine *e, ts_time at)
{
    ts_time now = ts_clock_now(), wait = at > now ? at - now : 1;
    struct itimerspec spec = {.it_value = {wait / TS_S, wait % TS_S}};
    int rc = timerfd_settime(e->base.event_fd, 0, &spec, NULL);
    TS_ASSERT(rc == 0);
}

/* When the next thing of the batch happens: its layers one after the other, then its end. */
static ts_time next_at(const struct sim_engine *e)
{
    uint32_t layers = e->batch.report_layers ? e->base.info.model.layers : 0;
    if (e->layers_told >= layers)
        return e->ends;
    return e->began + (e->ends - e->began) * (e->layers_told + 1) / layers;
}

static enum ts_status sim_submit(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                 struct ts_error *err)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    enum ts_status status = ts_engine_check(&engine->info, &e->options, batch, err);
    if (status != TS_OK || e->busy)
        return status != TS_OK ? status : TS_EAGAIN;
    e->batch = *batch;
    e->busy = true;
    e->layers_told = 0;
    e->began = ts_clock_now();
    e->ends = e->began + (ts_time)batch_ns(e);
    arm(e, next_at(e));
    return TS_OK;
}

static uint32_t draw_all(struct sim_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    uint32_t count = 0;
    for (uint32_t i = 0; i < e->batch.row_count; i++) {
        const struct ts_engine_row *r = &e->batch.rows[i];
        if (!r->sample)
            continue;
        e->samples[count++] = (struct ts_engine_sample){
            .tag = r->tag, .token = ts_modelled_token(0, r->sampling->seed, r->sample_index, m->vocab)};
    }
    return count;
}

static enum ts_status sim_poll(struct ts_engine *engine, struct ts_engine_event *out)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    uint64_t expirations;
    ssize_t n = read(engine->event_fd, &expirations, sizeof expirations);
    (void)n; /* EAGAIN: not yet, or read before */
    if (!e->busy || ts_clock_now() < next_at(e)) {
        if (e->busy)
            arm(e, next_at(e));
        return TS_EAGAIN;
    }
    if (e->batch.report_layers && e->layers_told < engine->info.model.layers) {
        *out = (struct ts_engine_event){
            .kind = TS_ENGINE_LAYER_DONE, .batch = e->batch.id, .layer = e->layers_told++};
        arm(e, next_at(e));
        return TS_OK;
    }
    e->busy = false;
    *out = (struct ts_engine_event){.kind = TS_ENGINE_BATCH_DONE,
                                    .batch = e->batch.id,
                                    .samples = e->samples,
                                    .sample_count = draw_all(e),
                                    .compute_ns = e->ends - e->began};
    return TS_OK;
}

static void sim_close(struct ts_engine *engine)
{
    struct sim_engine *e = (struct sim_engine *)engine;
    close(engine->event_fd);
    ts_free(e->samples);
    ts_free(e);
}

static const struct ts_engine_kind sim_kind = {sim_close, sim_submit, sim_poll};

enum ts_status ts_sim_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                  struct ts_error *err)
{
    struct sim_engine *e = ts_xcalloc(1, sizeof *e);
    struct ts_sim_model device;
    e->base.kind = &sim_kind;
    e->options = *options;
    e->base.event_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    enum ts_status status = ts_sim_model_load(options->modelled_conf, &device, err);
    if (status != TS_OK) {
        sim_close(&e->base);
        return status;
    }
    struct ts_engine_info *info = &e->base.info;
    info->model = device.model;
    e->costs = device.costs;
    uint64_t block = ts_model_kv_token_bytes(&info->model) * TS_KV_BLOCK_TOKENS;
    info->shard = (struct ts_shard){0, info->model.layers, 0, info->model.kv_heads};
    info->kv_blocks = options->kv_blocks ? options->kv_blocks : (uint32_t)(options->kv_bytes / block);
    info->pool_bytes = info->kv_blocks * block;
    info->pool_fd = -1;
    info->modelled = true;
    info->kind = "modelled";
    e->samples = ts_xcalloc(options->max_batch_rows, sizeof *e->samples);
    *out = &e->base;
    return TS_OK;
}
