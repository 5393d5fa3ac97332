#include "gpu/quality/ts_calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/model/ts_hf.h"
#include "gpu/pool/ts_pool.h"
#include "gpu/quality/ts_quality.h"

#define TOKENS_MAX 128u
#define TOKENS_MIN 32u
#define FOLLOWERS  16u /* tokens that may follow the text, each scored by itself */

_Static_assert(TS_CALIBRATE_BLOCKS == 2 * TOKENS_MAX / TS_KV_BLOCK_TOKENS + FOLLOWERS,
               "the text twice, and a block for each follower");

struct calibrating {
    struct ts_engine *engine;
    const struct ts_engine_info *info;
    struct ts_calibrate_room room;
    uint32_t tokens, text_blocks;
    uint32_t ids[TOKENS_MAX + FOLLOWERS];
    uint32_t blocks[2 * TOKENS_MAX / TS_KV_BLOCK_TOKENS]; /* of the text as computed, and behind the codec */
    uint32_t batches;
};

/* Whatever the pool and the context hold; false when that is too little to say anything. */
static bool plan(struct calibrating *c)
{
    const struct ts_shard *s = &c->info->shard;
    const struct ts_model *m = &c->info->model;
    struct ts_rng rng;
    if (c->info->modelled || s->layer_begin > 0 || s->layer_end < m->layers || s->head_begin > 0 ||
        s->head_end < m->kv_heads)
        return false;
    for (c->tokens = TOKENS_MAX; c->tokens >= TOKENS_MIN; c->tokens /= 2) {
        c->text_blocks = c->tokens / TS_KV_BLOCK_TOKENS;
        if (c->tokens < m->context_tokens && 2 * c->text_blocks + FOLLOWERS <= c->info->kv_blocks)
            break;
    }
    ts_rng_init(&rng, 1);
    for (uint32_t i = 0; i < TOKENS_MAX + FOLLOWERS; i++)
        c->ids[i] = (uint32_t)ts_rng_below(&rng, m->vocab);
    for (uint32_t i = 0; i < 2 * TOKENS_MAX / TS_KV_BLOCK_TOKENS; i++)
        c->blocks[i] = i;
    return c->tokens >= TOKENS_MIN;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One layer of the text as it lies in the pool, in 16 bits: [K, V][head][token][head_dim]. */
static enum ts_status read_layer(const struct calibrating *c, struct ts_pool *pool, uint32_t layer,
                                 uint8_t **out, struct ts_error *err)
{
    uint32_t generations[TS_ARRAY_SIZE(c->blocks)];
    struct ts_pool_given given;
    struct ts_pool_piece piece = {.layer = layer,
                                  .head_count = c->info->model.kv_heads,
                                  .token_count = c->tokens,
                                  .blocks = c->blocks,
                                  .generations = generations,
                                  .block_count = c->text_blocks};
    for (uint32_t i = 0; i < c->text_blocks; i++)
        generations[i] = c->info->generations[c->blocks[i]];
    enum ts_status status = ts_codec_parse("none", &piece.codec, err);
    if (status != TS_OK)
        return status;
    uint64_t *digests = ts_xcalloc(piece.head_count, sizeof *digests);
    *out = ts_xaligned(64, ts_pool_give_bytes(pool, &piece));
    status = ts_pool_give(pool, &piece, *out, digests, &given, err);
    ts_free(digests);
    return status;
}

/* Keys of one head with their rotation taken back, [token][head_dim], without the first token: it is sent in
 * 16 bits, and many models give it keys like no other. */
static void unrotate(const struct calibrating *c, const uint8_t *rows, uint32_t head, double *keys)
{
    const struct ts_model *m = &c->info->model;
    uint32_t d = m->head_dim, half = d / 2;
    for (uint32_t t = 1; t < c->tokens; t++, keys += d) {
        const struct ts_hf_tensor key = {.dtype = m->kv_dtype,
                                         .data = rows + ((size_t)head * c->tokens + t) * d * 2};
        for (uint32_t i = 0; i < half; i++) {
            double angle = t * (double)c->info->inverse_frequencies[i];
            double x = (double)ts_hf_element(&key, i), y = (double)ts_hf_element(&key, i + half);
            keys[i] = x * cos(angle) + y * sin(angle);
            keys[i + half] = y * cos(angle) - x * sin(angle);
        }
    }
}

/* The largest |mean| of a channel over the median of their standard deviations. */
static double offset_of(const struct calibrating *c, const double *keys, double *deviations)
{
    uint32_t d = c->info->model.head_dim, n = c->tokens - 1;
    double largest = 0;
    for (uint32_t i = 0; i < d; i++) {
        double mean = 0, squares = 0;
        for (uint32_t t = 0; t < n; t++)
            mean += keys[(size_t)t * d + i];
        mean /= n;
        for (uint32_t t = 0; t < n; t++)
            squares += (keys[(size_t)t * d + i] - mean) * (keys[(size_t)t * d + i] - mean);
        deviations[i] = sqrt(squares / n);
        largest = fmax(largest, fabs(mean));
    }
    qsort(deviations, d, sizeof *deviations, by_value);
    double median = deviations[d / 2];
    return largest == 0 ? 0 : largest / median; /* keys that do not vary have an infinite offset */
}

static enum ts_status look_at_keys(const struct calibrating *c, struct ts_calibration *out,
                                   struct ts_error *err)
{
    const struct ts_model *m = &c->info->model;
    struct ts_pool *pool = NULL;
    enum ts_status status = ts_pool_of_engine(c->info, 1, &pool, err);
    if (status != TS_OK)
        return status;
    double *keys = ts_xcalloc((size_t)c->tokens * m->head_dim, sizeof *keys);
    double *deviations = ts_xcalloc(m->head_dim, sizeof *deviations);
    out->offset = -1;
    for (uint32_t layer = 0; status == TS_OK && layer < m->layers; layer++) {
        uint8_t *rows = NULL;
        status = read_layer(c, pool, layer, &rows, err);
        for (uint32_t head = 0; status == TS_OK && head < m->kv_heads; head++) {
            unrotate(c, rows, head, keys);
            double offset = offset_of(c, keys, deviations);
            if (offset > out->offset) {
                out->offset = offset;
                out->layer = layer;
                out->head = head;
            }
        }
        ts_free(rows);
    }
    ts_free(keys);
    ts_free(deviations);
    ts_pool_close(&pool);
    return status;
}

/* Logits of the followers behind the text in `text`: each is a sequence of its own, with the text's blocks
 * and one more. */
static enum ts_status follow(struct calibrating *c, const uint32_t *text, float *logits, struct ts_error *err)
{
    uint32_t blocks[FOLLOWERS][TOKENS_MAX / TS_KV_BLOCK_TOKENS + 1], n = c->room.batch_rows;
    struct ts_engine_row rows[FOLLOWERS];
    enum ts_status status = TS_OK;
    n = n > c->room.batch_tokens ? c->room.batch_tokens : n;
    n = n > FOLLOWERS ? FOLLOWERS : n;
    for (uint32_t i = 0; i < FOLLOWERS; i++) {
        for (uint32_t b = 0; b < c->text_blocks; b++)
            blocks[i][b] = text[b];
        blocks[i][c->text_blocks] = 2 * c->text_blocks + i;
        rows[i] = (struct ts_engine_row){.position = c->tokens,
                                         .token_count = 1,
                                         .tokens = &c->ids[TOKENS_MAX + i],
                                         .blocks = blocks[i],
                                         .block_count = c->text_blocks + 1};
    }
    for (uint32_t at = 0; status == TS_OK && at < FOLLOWERS; at += n, c->batches++) {
        struct ts_engine_batch batch = {.rows = rows + at,
                                        .row_count = FOLLOWERS - at < n ? FOLLOWERS - at : n,
                                        .logits_out = logits + (size_t)at * c->info->model.vocab};
        status = ts_quality_batch(c->engine, &batch, err);
    }
    return status;
}

/* Mean divergence of the followers' logits behind that codec from those in front of it. */
static enum ts_status score(struct calibrating *c, const char *codec, const float *reference, double *kl,
                            struct ts_error *err)
{
    uint32_t vocab = c->info->model.vocab;
    float *behind = ts_xcalloc((size_t)FOLLOWERS * vocab, sizeof *behind);
    struct ts_score scores[FOLLOWERS];
    struct ts_quality quality;
    struct ts_kv_pass pass = {.from = c->blocks, .to = c->blocks + c->text_blocks, .tokens = c->tokens};
    uint64_t bytes = 0;
    enum ts_status status = ts_codec_parse(codec, &pass.codec, err);
    if (status == TS_OK)
        status = ts_kv_pass(c->engine, &pass, &bytes, err);
    if (status == TS_OK)
        status = follow(c, pass.to, behind, err);
    if (status == TS_OK) {
        for (uint32_t i = 0; i < FOLLOWERS; i++)
            scores[i] = ts_score_of(reference + (size_t)i * vocab, behind + (size_t)i * vocab, vocab, 0);
        ts_quality_of(scores, FOLLOWERS, &quality);
        *kl = quality.kl_mean;
    }
    ts_free(behind);
    return status;
}

static void say(struct ts_calibration *out, bool tried)
{
    int n =
        snprintf(out->why, sizeof out->why, "key offset %.1f of %.0f (layer %u head %u), KL %.2g with i4h",
                 out->offset, TS_CALIBRATE_OFFSET_MAX, out->layer, out->head, out->kl);
    if (tried)
        snprintf(out->why + n, sizeof out->why - (size_t)n, ", %.2g with i4hc", out->kl_centred);
}

/* Comparisons are such that keys that are no numbers end at the safe choice. */
static enum ts_status decide(struct calibrating *c, struct ts_calibration *out, struct ts_error *err)
{
    float *reference = ts_xcalloc((size_t)FOLLOWERS * c->info->model.vocab, sizeof *reference);
    bool tried = false;
    enum ts_status status = follow(c, c->blocks, reference, err);
    if (status == TS_OK)
        status = score(c, "i4h", reference, &out->kl, err);
    if (status == TS_OK && !(out->kl <= TS_CALIBRATE_KL_GOOD) && !(out->offset <= TS_CALIBRATE_OFFSET_MAX)) {
        status = score(c, "i4hc", reference, &out->kl_centred, err);
        tried = true;
    }
    ts_free(reference);
    if (status != TS_OK)
        return status;
    bool centred = tried && out->kl > TS_CALIBRATE_GAIN * out->kl_centred;
    double kl = centred ? out->kl_centred : out->kl;
    out->codec = !(kl <= TS_CALIBRATE_KL_MAX) ? "k8v4h" : centred ? "i4hc" : "i4h";
    say(out, tried);
    return TS_OK;
}

enum ts_status ts_calibrate(struct ts_engine *engine, struct ts_calibrate_room room,
                            struct ts_calibration *out, struct ts_error *err)
{
    struct calibrating c = {.engine = engine, .info = ts_engine_info(engine), .room = room};
    ts_time begin = ts_clock_now();
    struct ts_codec codec;
    struct ts_error unfit;
    *out = (struct ts_calibration){.codec = "i4h"};
    enum ts_status status = ts_codec_parse(out->codec, &codec, err);
    if (status == TS_OK && ts_codec_check(&codec, c.info->model.head_dim, &unfit) != TS_OK) {
        out->codec = "none";
        snprintf(out->why, sizeof out->why, "4 bits do not fit heads of %u elements", c.info->model.head_dim);
        return TS_OK;
    }
    if (status != TS_OK || !plan(&c))
        return status;
    status = ts_quality_prefill(engine, c.ids, c.tokens, room.batch_tokens, c.blocks, err);
    if (status != TS_OK)
        return status;
    c.batches = (c.tokens + room.batch_tokens - 1) / room.batch_tokens;
    status = look_at_keys(&c, out, err);
    if (status == TS_OK)
        status = decide(&c, out, err);
    out->tokens = c.tokens;
    out->batches = c.batches;
    out->ns = ts_clock_now() - begin;
    return status;
}
