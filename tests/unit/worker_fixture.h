/*
 * A worker core w0 (incarnation 800) of a model with 2 layers and 2 KV heads, 8 blocks and a context of 100,
 * joined with its router (worker:1) and the relay of its host (pool:1). Relays that bring KV are kv:N.
 */
#ifndef WORKER_FIXTURE_H
#define WORKER_FIXTURE_H

#include "core_fixture.h"
#include "services/worker/worker_core.h"

#define PREFILL(rid)                                                                                         \
    "assign role=prefill rid=" rid " fingerprint=7 prompt_kind=tokens codec=i4 sampling.max_tokens=50 "      \
    "decode=d0 decode_endpoint=tcp://d0 decode_incarnation=9 "
#define DECODE(rid)                                                                                          \
    "assign role=decode rid=" rid " fingerprint=7 prompt_kind=tokens codec=i4 sampling.max_tokens=50 "
#define BOTH(rid) "assign role=both rid=" rid " fingerprint=7 prompt_kind=tokens sampling.max_tokens=50 "

/* What a prompt of 32 tokens or more goes as, behind OPEN. */
#define I4                                                                                                   \
    "codec.key.bits=4 codec.key.flags=1 codec.key.group=64 codec.value.bits=4 codec.value.flags=1 "          \
    "codec.value.group=64 codec.short_tokens=32 "

/* A prompt of 20 tokens: two blocks. */
#define OPEN(rid)                                                                                            \
    "kv_open rid=" rid " fingerprint=7 decode_incarnation=800 " I8 " layers=2 layer_end=2 kv_heads=2 "       \
    "head_end=2 head_dim=64 kv_dtype=3 block_tokens=16 token_count=20 "

struct worker_settings worker_test_settings(enum ts_phase phase);
struct core_fixture *worker_begin(const struct worker_settings *settings); /* nobody has answered yet */
struct core_fixture *worker_begin_joined(const struct worker_settings *settings);
struct core_fixture *worker_begin_alone(
    const struct worker_settings *settings); /* no relay; its router is there */
struct worker_core *worker_of(const struct core_fixture *f);
void worker_end(struct core_fixture **f); /* no task and no block may be left */

#define WORKER_CASE(begun, name, steps) CORE_CASE(begun, name, steps, worker_end)

#endif
