#include "tests/gpu/model_fixture.h"

#include <poll.h>
#include <stdio.h>

#include "common/base/ts_mem.h"

struct ts_engine *model_open(const char *name, struct ts_shard shard, uint32_t batch_tokens,
                             uint32_t batch_rows, uint32_t blocks)
{
    char dir[1024];
    struct ts_engine *engine = NULL;
    struct ts_error err = {0};
    snprintf(dir, sizeof dir, "%s%s", *name == '/' ? "" : TS_TEST_DATA "/models/", name);
    struct ts_engine_options options = {.model_dir = dir,
                                        .device = "cpu",
                                        .kv_blocks = blocks ? blocks : ts_kv_blocks_for(batch_tokens) + 1,
                                        .max_batch_tokens = batch_tokens,
                                        .max_batch_rows = batch_rows,
                                        .shard = shard};
    if (ts_engine_open(&options, &engine, &err) != TS_OK)
        fail_msg("%s: %s", name, err.text);
    return engine;
}

struct ts_engine_event model_run(struct ts_engine *engine, const struct ts_engine_batch *batch)
{
    struct ts_engine_event event = {.kind = TS_ENGINE_LAYER_DONE};
    struct ts_error err = {0};
    if (ts_engine_submit(engine, batch, &err) != TS_OK)
        fail_msg("submit: %s", err.text);
    while (event.kind != TS_ENGINE_BATCH_DONE) {
        if (ts_engine_poll(engine, &event) != TS_EAGAIN)
            continue;
        struct pollfd fd = {.fd = ts_engine_event_fd(engine), .events = POLLIN};
        if (poll(&fd, 1, 60000) == 0)
            fail_msg("the engine gave no event for a minute");
    }
    assert_int_equal(event.status, TS_OK);
    return event;
}

char *model_file(const char *name, size_t *bytes)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", TS_TEST_DATA, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *data = ts_xmalloc(*bytes + 1);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    data[*bytes] = 0;
    fclose(file);
    return data;
}

const uint16_t *model_tile(const struct ts_engine *engine, uint32_t layer, uint32_t block, uint32_t kv,
                           uint32_t head)
{
    const struct ts_engine_info *info = ts_engine_info(engine);
    size_t heads = info->shard.head_end - info->shard.head_begin;
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * info->model.head_dim;
    size_t index = (((size_t)layer * info->kv_blocks + block) * 2 + kv) * heads + head;
    return (const uint16_t *)info->pool + index * tile;
}
