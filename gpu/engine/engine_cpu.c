#include "gpu/engine/engine_cpu.h"

#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/engine/engine_pool.h"
#include "gpu/engine/engine_tensors.h"

#define LOGITS_ROWS 32u /* the output matrix is read once for so many rows */

static enum ts_status cpu_run(struct ts_engine *engine, const struct ts_engine_batch *batch,
                              struct engine_result *out, struct ts_error *err)
{
    struct cpu_engine *e = (struct cpu_engine *)engine;
    (void)err;
    e->batch = batch;
    out->sample_count = cpu_forward(e);
    out->samples = e->samples;
    return TS_OK;
}

static enum ts_status cpu_submit(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                 struct ts_error *err)
{
    return engine_runner_submit(&((struct cpu_engine *)engine)->runner, batch, err);
}

static enum ts_status cpu_poll(struct ts_engine *engine, struct ts_engine_event *out)
{
    return engine_runner_poll(&((struct cpu_engine *)engine)->runner, out);
}

static void free_workspace(struct cpu_engine *e)
{
    ts_free(e->hidden);
    ts_free(e->input);
    ts_free(e->qkv);
    ts_free(e->gate_up);
    ts_free(e->product);
    ts_free(e->logits);
    ts_free(e->scratch);
    ts_free(e->attention_work);
    ts_free(e->token_row);
    ts_free(e->token_position);
    ts_free(e->spans);
    ts_free(e->last_token);
    ts_free(e->wanting);
    ts_free(e->samples);
    for (uint32_t i = 0; e->samplers && i < cpu_threads_count(e->threads); i++)
        ts_sampler_destroy(&e->samplers[i]);
    ts_free(e->samplers);
}

static void cpu_close(struct ts_engine *engine)
{
    struct cpu_engine *e = (struct cpu_engine *)engine;
    engine_runner_fini(&e->runner);
    engine_pool_unmap(&engine->info);
    cpu_weights_free(e);
    free_workspace(e);
    cpu_threads_destroy(&e->threads);
    ts_hf_close(&e->hf);
    ts_free(e);
}

static const struct ts_engine_kind cpu_kind = {cpu_close, cpu_submit, cpu_poll};

static float *floats(uint64_t count)
{
    float *p = cpu_alloc(count * sizeof *p);
    memset(p, 0, count * sizeof *p);
    return p;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void alloc_workspace(struct cpu_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    uint64_t tokens = e->options.max_batch_tokens, rows = e->options.max_batch_rows;
    uint64_t q = (uint64_t)e->q_heads * m->head_dim, kv = (uint64_t)e->kv_heads * m->head_dim;
    uint64_t widest = most(most(q, m->intermediate), m->hidden);
    uint32_t threads = cpu_threads_count(e->threads), group = e->q_heads / e->kv_heads;
    e->hidden = floats(tokens * m->hidden);
    e->input = (uint8_t *)floats(most(tokens, rows) * (widest + CPU_DEPTH + CPU_PANEL));
    e->qkv = floats(tokens * cpu_y_step((uint32_t)(q + 2 * kv)));
    e->gate_up = floats(tokens * cpu_y_step(2 * m->intermediate));
    e->product = floats(tokens * cpu_y_step(m->hidden));
    e->logits_rows = rows < LOGITS_ROWS ? (uint32_t)rows : LOGITS_ROWS;
    e->logits = floats(e->logits_rows * cpu_y_step(m->vocab));
    e->scratch_step = most(widest, most(group, CPU_ATTENTION_ROWS) * m->head_dim) + CPU_PANEL;
    e->scratch = floats(threads * e->scratch_step);
    e->attention_step = (cpu_attention_work(m->head_dim, group) + CPU_PANEL - 1) / CPU_PANEL * CPU_PANEL;
    e->attention_work = floats(threads * e->attention_step);
    e->token_row = ts_xcalloc(tokens, sizeof *e->token_row);
    e->token_position = ts_xcalloc(tokens, sizeof *e->token_position);
    e->spans = ts_xcalloc(tokens, sizeof *e->spans);
    e->last_token = ts_xcalloc(rows, sizeof *e->last_token);
    e->wanting = ts_xcalloc(rows, sizeof *e->wanting);
    e->samples = ts_xcalloc(rows, sizeof *e->samples);
    e->samplers = ts_xcalloc(threads, sizeof *e->samplers);
    for (uint32_t i = 0; i < threads; i++)
        e->samplers[i] = ts_sampler_new(m);
}

static enum ts_status alloc_pool(struct cpu_engine *e, struct ts_error *err)
{
    struct ts_engine_info *info = &e->base.info;
    enum ts_status status = engine_pool_size(info, e->options.kv_blocks, e->options.kv_bytes, err);
    return status == TS_OK ? engine_pool_map(info, info->pool_bytes, err) : status;
}

static enum ts_status set_shard(struct cpu_engine *e, struct ts_error *err)
{
    const struct ts_model *m = &e->base.info.model;
    struct ts_shard *s = &e->base.info.shard;
    enum ts_status status = engine_shard(m, &e->options.shard, s, err);
    e->kv_heads = s->head_end - s->head_begin;
    e->q_heads = e->kv_heads * (m->heads / m->kv_heads);
    return status;
}

static enum ts_status check_options(const struct ts_engine_options *o, struct ts_error *err)
{
    if (o->weights && *o->weights && strcmp(o->weights, "16") != 0)
        return ts_error_set(err, TS_EUNSUPPORTED, "weights \"%s\" on the CPU: expected 16, or a CUDA device",
                            o->weights);
    if (o->random_weights)
        return ts_error_set(err, TS_EUNSUPPORTED, "random weights on the CPU: they need a CUDA device");
    return TS_OK;
}

enum ts_status ts_cpu_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                  struct ts_error *err)
{
    struct cpu_engine *e = ts_xcalloc(1, sizeof *e);
    e->base.kind = &cpu_kind;
    e->options = *options;
    e->base.info.pool_fd = -1;
    engine_runner_init(&e->runner, &e->base, &e->options, cpu_run);
    enum ts_status status = check_options(options, err);
    if (status == TS_OK)
        status = ts_hf_open(options->model_dir, &e->hf, err);
    if (status == TS_OK) {
        e->base.info.model = e->hf->model;
        e->base.info.defaults = e->hf->defaults;
        status = set_shard(e, err);
    }
    if (status == TS_OK) {
        e->level = cpu_level_pick();
        e->base.info.kind = e->level->kind;
        e->threads = cpu_threads_new(options->threads);
        status = cpu_weights_load(e, err);
    }
    if (status == TS_OK)
        status = alloc_pool(e, err);
    if (status == TS_OK) {
        alloc_workspace(e);
        status = engine_runner_start(&e->runner, err);
    }
    if (status != TS_OK) {
        cpu_close(&e->base);
        return status;
    }
    *out = &e->base;
    return TS_OK;
}
