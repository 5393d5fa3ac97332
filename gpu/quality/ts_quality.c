#include "gpu/quality/ts_quality.h"

#include <math.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/pool/ts_pool.h"

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

/* One layer of it. */
static enum ts_status pass_layer(struct ts_pool *pool, struct ts_pool_piece *piece, const uint32_t *to,
                                 uint64_t *bytes, struct ts_error *err)
{
    size_t room = ts_pool_give_bytes(pool, piece);
    void *payload = ts_xaligned(64, room);
    uint64_t *digests = ts_xcalloc(piece->head_count, sizeof *digests);
    struct ts_pool_given given;
    enum ts_status status = ts_pool_give(pool, piece, payload, digests, &given, err);
    if (status == TS_OK) {
        struct ts_pool_piece there = *piece;
        there.blocks = to;
        *bytes += given.bytes;
        status = ts_pool_take(pool, &there, payload, given.bytes, given.crc, digests, err);
    }
    if (status != TS_OK)
        ts_error_prefix(err, "layer %u", piece->layer);
    ts_free(payload);
    ts_free(digests);
    return status;
}

static enum ts_status pass_all(const struct ts_engine_info *info, const struct ts_kv_pass *pass,
                               struct ts_pool *pool, uint64_t *bytes, struct ts_error *err)
{
    const struct ts_codec codec = ts_codec_for_prompt(&pass->codec, pass->tokens);
    const struct ts_shard *shard = &info->shard;
    uint32_t count = ts_kv_blocks_for(pass->tokens);
    uint32_t *generations = ts_xcalloc(count + 1, sizeof *generations);
    struct ts_pool_piece piece = {.head_begin = shard->head_begin,
                                  .head_count = shard->head_end - shard->head_begin,
                                  .token_count = pass->tokens,
                                  .blocks = pass->from,
                                  .generations = generations,
                                  .block_count = count};
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < count; i++)
        generations[i] = info->generations[pass->from[i]];
    for (piece.layer = shard->layer_begin; status == TS_OK && piece.layer < shard->layer_end; piece.layer++) {
        piece.codec = ts_codec_for_layer(&codec, piece.layer);
        status = pass_layer(pool, &piece, pass->to, bytes, err);
    }
    ts_free(generations);
    return status;
}

enum ts_status ts_kv_pass(const struct ts_engine *engine, const struct ts_kv_pass *pass, uint64_t *bytes,
                          struct ts_error *err)
{
    const struct ts_engine_info *info = ts_engine_info(engine);
    struct ts_pool *pool = NULL;
    if (info->modelled)
        return ts_error_set(err, TS_EUNSUPPORTED, "engine \"%s\" has no KV", info->kind);
    enum ts_status status = ts_codec_check(&pass->codec, info->model.head_dim, err);
    if (status == TS_OK)
        status = ts_pool_of_engine(info, 1, &pool, err);
    if (status == TS_OK)
        status = pass_all(info, pass, pool, bytes, err);
    ts_pool_close(&pool);
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
