#include "gpu/quality/ts_quality.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

static uint32_t best_of(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static double log_sum(const float *logits, uint32_t vocab, uint32_t best)
{
    double top = logits[best], sum = 1; /* of the best one itself */
    for (uint32_t i = 0; i < vocab; i++)
        sum += i == best ? 0 : exp(logits[i] - top);
    return top + log(sum);
}

struct ts_score ts_score_of(const float *reference, const float *other, uint32_t vocab, uint32_t next)
{
    uint32_t p_best = best_of(reference, vocab), q_best = best_of(other, vocab);
    double p_sum = log_sum(reference, vocab, p_best), q_sum = log_sum(other, vocab, q_best), kl = 0;
    TS_ASSERT(next < vocab);
    for (uint32_t i = 0; i < vocab; i++) {
        double p = reference[i] - p_sum;
        if (isfinite(p)) /* a token that cannot come adds nothing */
            kl += exp(p) * (p - (other[i] - q_sum));
    }
    return (struct ts_score){.kl = kl < 0 ? 0 : kl, /* rounding; equal rows give 0, as every difference is */
                             .reference = p_sum - reference[next],
                             .other = q_sum - other[next],
                             .same_best = p_best == q_best};
}

static int by_kl(const void *a, const void *b)
{
    double x = ((const struct ts_score *)a)->kl, y = ((const struct ts_score *)b)->kl;
    return (x > y) - (x < y);
}

void ts_quality_of(struct ts_score *scores, size_t count, struct ts_quality *out)
{
    double kl = 0, reference = 0, other = 0;
    size_t same = 0;
    TS_ASSERT(count > 0);
    for (size_t i = 0; i < count; i++) {
        kl += scores[i].kl;
        reference += scores[i].reference;
        other += scores[i].other;
        same += scores[i].same_best;
    }
    qsort(scores, count, sizeof *scores, by_kl);
    *out = (struct ts_quality){.positions = count,
                               .kl_mean = kl / (double)count,
                               .kl_p99 = scores[(count * 99 + 99) / 100 - 1].kl,
                               .kl_max = scores[count - 1].kl,
                               .perplexity = exp(other / (double)count),
                               .perplexity_percent = 100 * expm1((other - reference) / (double)count),
                               .top1 = (double)same / (double)count};
}

enum ts_status ts_kv_pass(const struct ts_engine *engine, const struct ts_kv_pass *pass, uint64_t *bytes,
                          struct ts_error *err)
{
    const struct ts_engine_info *info = ts_engine_info(engine);
    const struct ts_model *m = &info->model;
    const struct ts_codec codec = ts_codec_for_prompt(&pass->codec, pass->tokens);
    const struct ts_codec_cache cache = {m->head_dim, m->kv_dtype};
    struct ts_codec_chunk chunk = {.head_count = info->shard.head_end - info->shard.head_begin,
                                   .token_count = pass->tokens};
    if (!info->pool)
        return ts_error_set(err, TS_EUNSUPPORTED, "the KV of engine \"%s\" is out of reach", info->kind);
    enum ts_status status = ts_codec_check(&codec, m->head_dim, err);
    if (status != TS_OK)
        return status;
    struct ts_codec_rope *rope = ts_codec_rope_new(info->inverse_frequencies, m->head_dim);
    struct ts_codec_view from = {.pool = info->pool,
                                 .pool_blocks = info->kv_blocks,
                                 .pool_heads = chunk.head_count,
                                 .head_dim = m->head_dim,
                                 .dtype = m->kv_dtype,
                                 .blocks = pass->from,
                                 .block_count = ts_kv_blocks_for(pass->tokens),
                                 .rope = rope};
    struct ts_codec_view to = from;
    to.blocks = pass->to;
    uint32_t layers = info->shard.layer_end - info->shard.layer_begin, escapes;
    for (; status == TS_OK && chunk.layer < layers; chunk.layer++) {
        const struct ts_codec own = ts_codec_for_layer(&codec, info->shard.layer_begin + chunk.layer);
        void *payload = ts_xaligned(64, ts_codec_bytes_max(&own, cache, &chunk));
        size_t size = ts_codec_encode(&own, &from, &chunk, payload, &escapes);
        *bytes += size;
        status = ts_codec_decode(&own, payload, size, &chunk, &to);
        if (status != TS_OK)
            ts_error_set(err, status, "layer %u: what was encoded does not decode", chunk.layer);
        ts_free(payload);
    }
    ts_codec_rope_destroy(&rope);
    return status;
}

enum ts_status ts_quality_batch(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                struct ts_error *err)
{
    struct ts_engine_event done = {.status = TS_OK};
    enum ts_status status = ts_engine_submit(engine, batch, err);
    if (status == TS_OK)
        status = ts_engine_wait(engine, &done);
    if (status == TS_OK && done.status != TS_OK)
        status = ts_error_set(err, done.status, "the engine failed on a batch of %u rows", batch->row_count);
    return status;
}

enum ts_status ts_quality_prefill(struct ts_engine *engine, const uint32_t *tokens, uint32_t count,
                                  uint32_t batch_tokens, const uint32_t *blocks, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t at = 0, n; status == TS_OK && at < count; at += n) {
        n = count - at < batch_tokens ? count - at : batch_tokens;
        struct ts_engine_row row = {.position = at,
                                    .token_count = n,
                                    .tokens = tokens + at,
                                    .blocks = blocks,
                                    .block_count = ts_kv_blocks_for(at + n)};
        status = ts_quality_batch(engine, &(struct ts_engine_batch){.rows = &row, .row_count = 1}, err);
    }
    return status;
}
