/*
 * KV between owners that cut the model differently: the plan of parts covers everything once, and KV whose
 * every value says which layer, head and token it is of arrives where it belongs, through the codec.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_reshard.h"
#include "gpu/codec/ts_codec.h"

#define LAYERS   8
#define HEADS    4
#define HEAD_DIM 32
#define TOKENS   40
#define BLOCKS   3
#define PARTS    16

static const struct ts_shard_rect whole = {0, LAYERS, 0, HEADS};

struct partition {
    const char *name;
    size_t count;
    struct ts_shard_rect rects[8];
};

static const struct partition partitions[] = {
    {"1x1", 1, {{0, 8, 0, 4}}},
    {"2x1", 2, {{0, 4, 0, 4}, {4, 8, 0, 4}}},
    {"1x2", 2, {{0, 8, 0, 2}, {0, 8, 2, 4}}},
    {"2x2", 4, {{0, 4, 0, 2}, {0, 4, 2, 4}, {4, 8, 0, 2}, {4, 8, 2, 4}}},
    {"4x1", 4, {{0, 2, 0, 4}, {2, 4, 0, 4}, {4, 6, 0, 4}, {6, 8, 0, 4}}},
    {"1x4", 4, {{0, 8, 0, 1}, {0, 8, 1, 2}, {0, 8, 2, 3}, {0, 8, 3, 4}}},
    {"layers 5+3", 2, {{0, 5, 0, 4}, {5, 8, 0, 4}}},
    {"heads 1+3", 2, {{0, 8, 0, 1}, {0, 8, 1, 4}}},
    {"stages of other widths", 3, {{0, 5, 0, 4}, {5, 8, 0, 2}, {5, 8, 2, 4}}},
};

struct part {
    uint32_t sender, receiver; /* indices */
    struct ts_shard_rect rect;
};

/* What each sender has for each receiver: where they meet. Writes the first `most`; returns how many there
 * are. */
static size_t plan(const struct ts_shard_rect *senders, size_t sender_count,
                   const struct ts_shard_rect *receivers, size_t receiver_count, struct part *parts,
                   size_t most)
{
    size_t count = 0;
    for (size_t s = 0; s < sender_count; s++) {
        for (size_t r = 0; r < receiver_count; r++) {
            const struct ts_shard_rect rect = ts_rect_meet(senders[s], receivers[r]);
            if (ts_rect_empty(rect))
                continue;
            if (count < most)
                parts[count] = (struct part){(uint32_t)s, (uint32_t)r, rect};
            count++;
        }
    }
    return count;
}

struct owner { /* blocks of the sequence lie in an order of its own */
    struct ts_shard_rect rect;
    uint16_t *pool;
    uint32_t blocks[BLOCKS];
};

static size_t values_of(struct ts_shard_rect r)
{
    return (size_t)ts_rect_area(r) * BLOCKS * 2 * TS_KV_BLOCK_TOKENS * HEAD_DIM;
}

static struct owner owner_new(struct ts_shard_rect rect, uint32_t turn)
{
    struct owner o = {.rect = rect, .pool = ts_xaligned(64, values_of(rect) * sizeof(uint16_t))};
    memset(o.pool, 0xEE, values_of(rect) * sizeof(uint16_t));
    for (uint32_t i = 0; i < BLOCKS; i++)
        o.blocks[i] = (i + turn) % BLOCKS;
    return o;
}

static uint16_t *row_of(const struct owner *o, uint32_t layer, uint32_t side, uint32_t head, uint32_t token)
{
    uint32_t heads = o->rect.head_end - o->rect.head_begin;
    size_t tile =
        ((size_t)(layer - o->rect.layer_begin) * BLOCKS + o->blocks[token / TS_KV_BLOCK_TOKENS]) * 2;
    tile = (tile + side) * heads + (head - o->rect.head_begin);
    return o->pool + (tile * TS_KV_BLOCK_TOKENS + token % TS_KV_BLOCK_TOKENS) * HEAD_DIM;
}

/* A bf16 that says it: the exponent has the layer, the mantissa token and head in turn. */
static uint16_t tag_of(uint32_t layer, uint32_t side, uint32_t head, uint32_t token, uint32_t element)
{
    uint32_t word = element % 2 ? token : head << 1 | side;
    return (uint16_t)((120 + layer) << 7 | (word & 63) << 1 | (element >> 1 & 1));
}

static void fill(const struct owner *o)
{
    for (uint32_t layer = o->rect.layer_begin; layer < o->rect.layer_end; layer++)
        for (uint32_t head = o->rect.head_begin; head < o->rect.head_end; head++)
            for (uint32_t at = 0; at < 2 * TOKENS * HEAD_DIM; at++) {
                uint32_t side = at / (TOKENS * HEAD_DIM), token = at / HEAD_DIM % TOKENS, i = at % HEAD_DIM;
                row_of(o, layer, side, head, token)[i] = tag_of(layer, side, head, token, i);
            }
}

static struct ts_codec_view view_of(const struct owner *o)
{
    return (struct ts_codec_view){.pool = (uint8_t *)o->pool,
                                  .pool_blocks = BLOCKS,
                                  .pool_heads = o->rect.head_end - o->rect.head_begin,
                                  .head_dim = HEAD_DIM,
                                  .dtype = TS_DTYPE_BF16,
                                  .blocks = o->blocks,
                                  .block_count = BLOCKS};
}

static struct ts_codec_chunk chunk_of(const struct owner *o, struct ts_shard_rect rect, uint32_t layer)
{
    return (struct ts_codec_chunk){.layer = layer - o->rect.layer_begin,
                                   .head_begin = rect.head_begin - o->rect.head_begin,
                                   .head_count = rect.head_end - rect.head_begin,
                                   .token_count = TOKENS};
}

/* Each layer of the part, encoded from the one pool and restored into the other; both ends' digests agree. */
static void move(const struct ts_codec *codec, const struct owner *from, const struct owner *to,
                 struct ts_shard_rect rect)
{
    const struct ts_codec_view in = view_of(from), out = view_of(to);
    for (uint32_t layer = rect.layer_begin; layer < rect.layer_end; layer++) {
        const struct ts_codec_chunk theirs = chunk_of(from, rect, layer), ours = chunk_of(to, rect, layer);
        uint64_t given[HEADS] = {0}, taken[HEADS] = {0};
        struct ts_codec_sums sums = {.digest = given};
        uint32_t escapes;
        void *payload = ts_xaligned(
            64, ts_codec_bytes_max(codec, (struct ts_codec_cache){HEAD_DIM, TS_DTYPE_BF16}, &theirs));
        size_t bytes = ts_codec_give(codec, &in, &theirs, payload, &escapes, &sums);
        sums.digest = taken;
        assert_int_equal(ts_codec_take(codec, payload, bytes, &ours, &out, &sums), TS_OK);
        assert_memory_equal(given, taken, sizeof given);
        ts_free(payload);
    }
}

static void compare(const struct owner *got, const struct owner *want, const char *from, const char *to)
{
    for (uint32_t layer = got->rect.layer_begin; layer < got->rect.layer_end; layer++)
        for (uint32_t head = got->rect.head_begin; head < got->rect.head_end; head++)
            for (uint32_t at = 0; at < 2 * TOKENS; at++) {
                uint32_t side = at / TOKENS, token = at % TOKENS;
                if (memcmp(row_of(got, layer, side, head, token), row_of(want, layer, side, head, token),
                           HEAD_DIM * sizeof(uint16_t)) != 0)
                    fail_msg("from %s to %s: layer %u, head %u, token %u, %s", from, to, layer, head, token,
                             side ? "values" : "keys");
            }
}

static void between(const struct ts_codec *codec, const struct partition *from, const struct partition *to,
                    const struct owner *want)
{
    struct owner senders[8], receivers[8];
    struct part parts[PARTS];
    for (size_t i = 0; i < from->count; i++) {
        senders[i] = owner_new(from->rects[i], (uint32_t)i);
        fill(&senders[i]);
    }
    for (size_t i = 0; i < to->count; i++)
        receivers[i] = owner_new(to->rects[i], (uint32_t)i + 1);
    size_t count = plan(from->rects, from->count, to->rects, to->count, parts, PARTS);
    assert_true(count > 0 && count <= PARTS);
    for (size_t i = 0; i < count; i++)
        move(codec, &senders[parts[i].sender], &receivers[parts[i].receiver], parts[i].rect);
    for (size_t i = 0; i < to->count; i++) {
        struct ts_shard_rect mine[PARTS];
        size_t own = 0;
        for (size_t k = 0; k < count; k++) {
            if (parts[k].receiver == i)
                mine[own++] = parts[k].rect;
        }
        assert_true(ts_rects_tile(mine, own, to->rects[i]));
        compare(&receivers[i], want, from->name, to->name);
        ts_free(receivers[i].pool);
    }
    for (size_t i = 0; i < from->count; i++)
        ts_free(senders[i].pool);
}

static void test_tagged(void **state)
{
    static const char *const names[] = {"none", "i4", "i4h", "lz16"};
    (void)state;
    for (size_t c = 0; c < TS_ARRAY_SIZE(names); c++) {
        struct ts_codec codec;
        struct owner from = owner_new(whole, 0), want = owner_new(whole, 2);
        assert_int_equal(ts_codec_parse(names[c], &codec, NULL), TS_OK);
        fill(&from);
        move(&codec, &from, &want, whole);
        if (c == 0) /* as it was: what the others are measured by is right itself */
            compare(&want, &from, "itself", "itself");
        for (size_t a = 0; a < TS_ARRAY_SIZE(partitions); a++) {
            for (size_t b = 0; b < TS_ARRAY_SIZE(partitions); b++)
                between(&codec, &partitions[a], &partitions[b], &want);
        }
        ts_free(from.pool);
        ts_free(want.pool);
    }
}

/* Random cuts: layers first, then the heads of each range. */
static size_t cut(struct ts_rng *rng, struct ts_shard_rect *rects)
{
    size_t count = 0;
    for (uint32_t layer = 0, next; layer < LAYERS; layer = next) {
        next = layer + 1 + (uint32_t)ts_rng_below(rng, LAYERS - layer);
        for (uint32_t head = 0, end; head < HEADS; head = end) {
            end = head + 1 + (uint32_t)ts_rng_below(rng, HEADS - head);
            rects[count++] = (struct ts_shard_rect){layer, next, head, end};
        }
    }
    return count;
}

/* Each (layer, head) goes once; what is cut short is seen. */
static void test_once(void **state)
{
    struct ts_rng rng;
    (void)state;
    ts_rng_init(&rng, 5);
    for (int round = 0; round < 2000; round++) {
        struct ts_shard_rect from[LAYERS * HEADS], to[LAYERS * HEADS];
        struct part parts[LAYERS * HEADS];
        size_t a = cut(&rng, from), b = cut(&rng, to);
        size_t count = plan(from, a, to, b, parts, LAYERS * HEADS);
        struct ts_shard_rect rects[LAYERS * HEADS];
        assert_true(ts_rects_tile(from, a, whole) && count <= LAYERS * HEADS);
        for (size_t i = 0; i < count; i++) {
            rects[i] = parts[i].rect;
            assert_int_equal(ts_rect_area(ts_rect_meet(rects[i], from[parts[i].sender])),
                             ts_rect_area(rects[i]));
            assert_int_equal(ts_rect_area(ts_rect_meet(rects[i], to[parts[i].receiver])),
                             ts_rect_area(rects[i]));
        }
        assert_true(ts_rects_tile(rects, count, whole));
        assert_false(ts_rects_tile(rects, count - 1, whole));
        rects[0].layer_end++; /* now it meets another one, or leaves the whole */
        assert_false(ts_rects_tile(rects, count, whole));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tagged), cmocka_unit_test(test_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
