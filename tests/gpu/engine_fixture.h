/*
 * An engine over a random or stored model, and sequences of random tokens to be computed in pieces. Each
 * fixture makes its model in a temporary folder and removes it.
 */
#ifndef TS_TESTS_GPU_ENGINE_FIXTURE_H
#define TS_TESTS_GPU_ENGINE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cpu/cpu_level.h"
#include "gpu/engine/random_model.h"
#include "gpu/ts_engine.h"

#define FIXTURE_TOKENS 64u /* per batch */
#define FIXTURE_ROWS   8u

struct fixture_sequence {
    uint32_t *tokens, *blocks;
    uint32_t length, block_count;
    uint32_t done; /* tokens computed */
};

/* Opens an engine with room for FIXTURE_ROWS sequences of the whole context. */
static inline struct ts_engine *fixture_open(const char *dir, uint32_t threads, uint32_t context)
{
    struct ts_error err;
    struct ts_engine *engine = NULL;
    struct ts_engine_options options = {.model_dir = dir,
                                        .device = "cpu",
                                        .kv_blocks = FIXTURE_ROWS * ts_kv_blocks_for(context),
                                        .threads = threads,
                                        .max_batch_tokens = FIXTURE_TOKENS,
                                        .max_batch_rows = FIXTURE_ROWS};
    if (ts_engine_open(&options, &engine, &err) != TS_OK)
        fail_msg("%s", err.text);
    return engine;
}

static inline void fixture_model(const struct ts_random_model *model, char dir[64])
{
    struct ts_error err;
    snprintf(dir, 64, "/tmp/ts-engine-XXXXXX");
    assert_non_null(mkdtemp(dir));
    if (ts_random_model_write(model, dir, &err) != TS_OK)
        fail_msg("%s", err.text);
}

/* Runs one batch of rows; fills logits [row_count][vocab] when not NULL. */
static inline void fixture_run(struct ts_engine *engine, const struct ts_engine_row *rows, uint32_t count,
                               float *logits, struct ts_engine_event *done)
{
    struct ts_error err;
    struct ts_engine_batch batch = {.rows = rows, .row_count = count, .logits_out = logits};
    struct ts_engine_event event;
    if (ts_engine_submit(engine, &batch, &err) != TS_OK)
        fail_msg("%s", err.text);
    do {
        assert_int_equal(ts_engine_wait(engine, &event), TS_OK);
    } while (event.kind != TS_ENGINE_BATCH_DONE);
    assert_int_equal(event.status, TS_OK);
    if (done)
        *done = event;
}

static inline struct ts_engine_row fixture_row(const struct fixture_sequence *s, uint32_t count)
{
    return (struct ts_engine_row){.position = s->done,
                                  .token_count = count,
                                  .tokens = s->tokens + s->done,
                                  .blocks = s->blocks,
                                  .block_count = s->block_count};
}

static inline void fixture_sequence_init(struct fixture_sequence *s, struct ts_rng *rng, uint32_t vocab,
                                         uint32_t length)
{
    *s = (struct fixture_sequence){.length = length, .block_count = ts_kv_blocks_for(length)};
    s->tokens = ts_xcalloc(length, sizeof *s->tokens);
    s->blocks = ts_xcalloc(s->block_count, sizeof *s->blocks);
    for (uint32_t i = 0; i < length; i++)
        s->tokens[i] = (uint32_t)ts_rng_below(rng, vocab);
}

static inline void fixture_sequence_fini(struct fixture_sequence *s)
{
    ts_free(s->tokens);
    ts_free(s->blocks);
}

/* Gives the sequences scattered blocks and fills the pool with NaNs, so that whoever reads what was not
 * written is seen. */
static inline void fixture_scatter(struct ts_engine *engine, struct fixture_sequence *s, uint32_t count,
                                   struct ts_rng *rng)
{
    const struct ts_engine_info *info = ts_engine_info(engine);
    uint32_t n = info->kv_blocks, *ids = ts_xcalloc(n, sizeof *ids), used = 0;
    memset(info->pool, 0xff, info->pool_bytes);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)ts_rng_below(rng, i + 1);
        ids[i] = ids[j];
        ids[j] = i;
    }
    for (uint32_t i = 0; i < count; i++) {
        s[i].done = 0;
        for (uint32_t b = 0; b < s[i].block_count; b++)
            s[i].blocks[b] = ids[used++];
    }
    assert_true(used <= n);
    ts_free(ids);
}

/* cmocka test bodies call this first: skips when TS_CPU_LEVEL names a level that this processor lacks. */
static inline void fixture_need_level(void)
{
    const char *wish = getenv("TS_CPU_LEVEL");
    if (wish && strcmp(cpu_level_pick()->name, wish) != 0) {
        printf("SKIP: no-kernel-feature %s\n", wish);
        skip();
    }
}

#endif
