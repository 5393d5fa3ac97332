/*
 * What a KV codec does to a model: the KV of a prompt passes the codec as a transfer does, then tokens that
 * follow are scored on both copies. Logits are compared by the divergence KL(reference || other) in nats, by
 * the probability of the text's own next token, and by the best token.
 *
 * The scores are pure functions; what takes an engine calls it from the caller's thread and waits, with
 * nothing else under way. Equal engines give equal numbers, whatever their threads.
 */
#ifndef TS_GPU_QUALITY_H
#define TS_GPU_QUALITY_H

#include <stddef.h>
#include <stdint.h>

#include "gpu/codec/ts_codec.h"
#include "gpu/ts_engine.h"

struct ts_score {     /* of one position */
    double kl;        /* 0 where the logits are equal */
    double reference; /* negative logarithms of the next token's probability */
    double other;
    bool same_best;
};

struct ts_quality {
    size_t positions;
    double kl_mean, kl_p99, kl_max;        /* p99 is the nearest rank */
    double perplexity, perplexity_percent; /* of the other, and how much more it is than the reference's */
    double top1;                           /* share of positions whose best token is the same */
};

struct ts_score ts_score_of(const float *reference, const float *other, uint32_t vocab, uint32_t next);
/* `count` >= 1; sorts the scores. */
void ts_quality_of(struct ts_score *scores, size_t count, struct ts_quality *out);

/* One prompt's KV from blocks to blocks of the engine's pool, which may be the same: each layer is encoded
 * and its payload decoded, by the codec that a prompt of that length gets, keys without their rotation where
 * the codec centres them. Adds the payloads to *bytes. TS_EUNSUPPORTED of a modelled engine. */
struct ts_kv_pass {
    struct ts_codec codec; /* as asked for */
    const uint32_t *from, *to;
    uint32_t tokens;
};
enum ts_status ts_kv_pass(const struct ts_engine *engine, const struct ts_kv_pass *pass, uint64_t *bytes,
                          struct ts_error *err);

/* Computes tokens 0 .. count-1 into the blocks, `batch_tokens` at a time. */
enum ts_status ts_quality_prefill(struct ts_engine *engine, const uint32_t *tokens, uint32_t count,
                                  uint32_t batch_tokens, const uint32_t *blocks, struct ts_error *err);
/* Computes a batch to its end. */
enum ts_status ts_quality_batch(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                struct ts_error *err);

#endif
