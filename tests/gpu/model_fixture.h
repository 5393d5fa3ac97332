/*
 * What tests of models share: an engine over a folder of tests/data/models, with blocks handed out one after
 * the other, and a way to run a batch that fails instead of hanging.
 */
#ifndef TS_TESTS_MODEL_FIXTURE_H
#define TS_TESTS_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/ts_engine.h"

/* Opens tests/data/models/NAME, or the folder of that absolute path, or fails the test. `blocks` 0 = one
 * sequence of `batch_tokens` and a block. */
struct ts_engine *model_open(const char *name, struct ts_shard shard, uint32_t batch_tokens,
                             uint32_t batch_rows, uint32_t blocks);
/* Runs a batch and waits a minute at most; returns its last event. */
struct ts_engine_event model_run(struct ts_engine *engine, const struct ts_engine_batch *batch);

/* A file of tests/data, NUL-terminated; ts_free it. */
char *model_file(const char *name, size_t *bytes);

/* The tile [token][head_dim] of one layer, block and head in the engine's pool, in the engine's own indices.
 */
const uint16_t *model_tile(const struct ts_engine *engine, uint32_t layer, uint32_t block, uint32_t kv,
                           uint32_t head);

#endif
