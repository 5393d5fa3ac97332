#include "gpu/engine/engine_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/rows/cuda_rows.h"

static enum ts_status cuda_submit(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                  struct ts_error *err)
{
    return engine_runner_submit(&((struct cuda_engine *)engine)->runner, batch, err);
}

static enum ts_status cuda_poll(struct ts_engine *engine, struct ts_engine_event *out)
{
    return engine_runner_poll(&((struct cuda_engine *)engine)->runner, out);
}

static void cuda_close(struct ts_engine *engine)
{
    struct cuda_engine *e = (struct cuda_engine *)engine;
    engine_runner_fini(&e->runner);
    cuda_space_free(e);
    cuda_weights_free(e);
    ts_cuda_close(&e->cuda);
    ts_free(e);
}

static const struct ts_engine_kind cuda_kind = {cuda_close, cuda_submit, cuda_poll};

static enum ts_status read_weights_option(struct cuda_engine *e, struct ts_error *err)
{
    const char *wish = e->options.weights && *e->options.weights ? e->options.weights : "16";
    e->int8 = strcmp(wish, "int8") == 0;
    if (e->int8 || strcmp(wish, "16") == 0)
        return TS_OK;
    return ts_error_set(err, TS_EINVAL, "weights \"%s\": expected 16 or int8", wish);
}

/* Whether the kernels compute this model. */
static enum ts_status check_model(const struct cuda_engine *e, struct ts_error *err)
{
    const struct ts_model *m = &e->base.info.model;
    const struct cuda_attention_shape shape = cuda_shape_of(e, 0);
    if (!cuda_rows_take(m))
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "%s: hidden %u, intermediate %u and head_dim %u on a CUDA device: the first two must "
            "be multiples of 8, head_dim of 16 and at most 256; take device = cpu",
            m->name, m->hidden, m->intermediate, m->head_dim);
    if (e->int8 && (m->hidden % 16 != 0 || m->intermediate % 16 != 0))
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "%s: weights = int8 need hidden %u and intermediate %u to be multiples of 16: take 16", m->name,
            m->hidden, m->intermediate);
    return cuda_attention_check(&shape, err);
}

static enum ts_status take_model(struct cuda_engine *e, const struct ts_hf *hf, struct ts_error *err)
{
    struct ts_engine_info *info = &e->base.info;
    info->model = hf->model;
    info->defaults = hf->defaults;
    enum ts_status status = engine_shard(&hf->model, &e->options.shard, &info->shard, err);
    if (status != TS_OK)
        return status;
    e->kv_heads = info->shard.head_end - info->shard.head_begin;
    e->q_heads = e->kv_heads * (hf->model.heads / hf->model.kv_heads);
    e->layer_count = info->shard.layer_end - info->shard.layer_begin;
    e->first = info->shard.layer_begin == 0;
    e->last = info->shard.layer_end == hf->model.layers;
    e->rms_eps = (float)hf->rms_eps;
    return check_model(e, err);
}

static enum ts_status open_model(struct cuda_engine *e, struct ts_error *err)
{
    struct ts_hf *hf = NULL;
    enum ts_status status = e->options.random_weights ? ts_hf_open_config(e->options.model_dir, &hf, err)
                                                      : ts_hf_open(e->options.model_dir, &hf, err);
    if (status == TS_OK)
        status = take_model(e, hf, err);
    if (status == TS_OK)
        status = cuda_weights_load(e, hf, err);
    ts_hf_close(&hf);
    return status;
}

enum ts_status ts_cuda_engine_open_on(const struct ts_engine_options *options, struct ts_cuda *cuda,
                                      struct ts_engine **out, struct ts_error *err)
{
    struct cuda_engine *e = ts_xcalloc(1, sizeof *e);
    struct ts_engine_info *info = &e->base.info;
    e->base.kind = &cuda_kind;
    e->options = *options;
    e->cuda = info->device = cuda;
    info->pool_fd = -1;
    snprintf(e->kind, sizeof e->kind, "cuda %s", ts_cuda_name(cuda));
    info->kind = e->kind;
    engine_runner_init(&e->runner, &e->base, &e->options, cuda_run);
    enum ts_status status = read_weights_option(e, err);
    if (status == TS_OK)
        status = open_model(e, err);
    if (status == TS_OK)
        status = cuda_space_new(e, err);
    if (status == TS_OK)
        status = cuda_graphs_new(e, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status == TS_OK)
        status = engine_runner_start(&e->runner, err);
    if (status != TS_OK) {
        cuda_close(&e->base);
        return status;
    }
    *out = &e->base;
    return TS_OK;
}

/* "cuda:N" */
static bool read_ordinal(const char *device, uint32_t *ordinal)
{
    char *end = NULL;
    if (strncmp(device, "cuda:", 5) != 0 || device[5] < '0' || device[5] > '9')
        return false;
    unsigned long n = strtoul(device + 5, &end, 10);
    *ordinal = (uint32_t)n;
    return *end == '\0' && n < 1024;
}

enum ts_status ts_cuda_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                   struct ts_error *err)
{
    struct ts_cuda *cuda = NULL;
    uint32_t ordinal = 0;
    if (!read_ordinal(options->device, &ordinal))
        return ts_error_set(err, TS_EINVAL, "device \"%s\": expected auto, cpu, cuda:N or modelled",
                            options->device);
    enum ts_status status = ts_cuda_open(ordinal, &cuda, err);
    if (status != TS_OK) {
        ts_error_prefix(err, "device \"%s\" is not to be had, take auto or cpu", options->device);
        return status;
    }
    return ts_cuda_engine_open_on(options, cuda, out, err);
}
