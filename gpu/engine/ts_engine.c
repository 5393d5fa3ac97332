#include "gpu/ts_engine.h"

#include <poll.h>
#include <string.h>

#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/engine/ts_engine_impl.h"

/* The first CUDA device, or the CPU where there is none or where it does not compute this model. */
static enum ts_status open_auto(const struct ts_engine_options *options, struct ts_engine **out,
                                struct ts_error *err)
{
    struct ts_error why = {0};
    struct ts_cuda *cuda = NULL;
    enum ts_status status = ts_cuda_open(0, &cuda, &why);
    bool here = status != TS_EUNSUPPORTED && status != TS_ENOTFOUND;
    if (status == TS_OK)
        status = ts_cuda_engine_open_on(options, cuda, out, &why);
    if (!here || status == TS_EUNSUPPORTED) {
        status = ts_cpu_engine_open(options, out, err);
        if (status == TS_OK) {
            (*out)->why_cpu = why;
            (*out)->info.why_cpu = (*out)->why_cpu.text;
        }
        return status;
    }
    if (err)
        *err = why;
    if (status != TS_OK)
        ts_error_prefix(err, "device \"auto\" is cuda:0 here, take cpu to do without it");
    return status;
}

enum ts_status ts_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                              struct ts_error *err)
{
    const char *device = options->device && *options->device ? options->device : "auto";
    if (strcmp(device, "modelled") == 0)
        return ts_sim_engine_open(options, out, err);
    if (strcmp(device, "cpu") == 0)
        return ts_cpu_engine_open(options, out, err);
    if (strcmp(device, "auto") == 0)
        return open_auto(options, out, err);
    return ts_cuda_engine_open(options, out, err);
}

void ts_engine_close(struct ts_engine **engine)
{
    if (!*engine)
        return;
    (*engine)->kind->close(*engine);
    *engine = NULL;
}

const struct ts_engine_info *ts_engine_info(const struct ts_engine *engine)
{
    return &engine->info;
}

enum ts_status ts_engine_submit(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                struct ts_error *err)
{
    return engine->kind->submit(engine, batch, err);
}

enum ts_status ts_engine_poll(struct ts_engine *engine, struct ts_engine_event *out)
{
    return engine->kind->poll(engine, out);
}

int ts_engine_event_fd(const struct ts_engine *engine)
{
    return engine->event_fd;
}

const char *ts_engine_fault(const struct ts_engine *engine)
{
    return engine->fault.text[0] ? engine->fault.text : NULL;
}

enum ts_status ts_engine_wait(struct ts_engine *engine, struct ts_engine_event *out)
{
    enum ts_status status;
    while ((status = ts_engine_poll(engine, out)) == TS_EAGAIN) {
        struct pollfd fd = {.fd = engine->event_fd, .events = POLLIN};
        poll(&fd, 1, -1);
    }
    return status;
}

static enum ts_status check_row(const struct ts_engine_info *info, const struct ts_engine_row *row,
                                uint32_t index, struct ts_error *err)
{
    uint64_t end = (uint64_t)row->position + row->token_count;
    if (row->token_count == 0 || end > info->model.context_tokens)
        return ts_error_set(err, TS_EINVAL, "row %u: positions %u..%llu do not fit a context of %u", index,
                            row->position, (unsigned long long)end, info->model.context_tokens);
    if (row->block_count < ts_kv_blocks_for((uint32_t)end))
        return ts_error_set(err, TS_EINVAL, "row %u: %u KV blocks do not cover %llu positions", index,
                            row->block_count, (unsigned long long)end);
    for (uint32_t i = 0; i < row->block_count; i++) {
        if (row->blocks[i] >= info->kv_blocks)
            return ts_error_set(err, TS_EINVAL, "row %u: block %u is outside of the pool of %u", index,
                                row->blocks[i], info->kv_blocks);
    }
    for (uint32_t i = 0; info->shard.layer_begin == 0 && i < row->token_count; i++) {
        if (row->tokens[i] >= info->model.vocab)
            return ts_error_set(err, TS_EINVAL, "row %u: token %u is outside of the vocabulary of %u", index,
                                row->tokens[i], info->model.vocab);
    }
    if (row->sample && !row->sampling)
        return ts_error_set(err, TS_EINVAL, "row %u samples without sampling parameters", index);
    return TS_OK;
}

enum ts_status ts_engine_check(const struct ts_engine_info *info, const struct ts_engine_options *options,
                               const struct ts_engine_batch *batch, struct ts_error *err)
{
    uint64_t tokens = 0;
    if (batch->row_count == 0 || batch->row_count > options->max_batch_rows)
        return ts_error_set(err, TS_EINVAL, "a batch of %u rows: expected 1 to %u", batch->row_count,
                            options->max_batch_rows);
    for (uint32_t i = 0; i < batch->row_count; i++) {
        enum ts_status status = check_row(info, &batch->rows[i], i, err);
        if (status != TS_OK)
            return status;
        tokens += batch->rows[i].token_count;
    }
    if (tokens > options->max_batch_tokens)
        return ts_error_set(err, TS_EINVAL, "a batch of %llu tokens: expected at most %u",
                            (unsigned long long)tokens, options->max_batch_tokens);
    return TS_OK;
}
