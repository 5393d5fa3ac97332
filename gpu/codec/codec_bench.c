/*
 * ts-codec-bench: throughput of the codec at each dispatch level against one-thread memcpy from DRAM. Pieces
 * of both alternate, so that a neighbour on the machine slows both alike. Bytes are those of the 16-bit
 * cache.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"

#define TOKENS 65536u
#define HEADS  4u
#define PIECE  1024u /* tokens between turns */
#define ROUNDS 3

struct bench {
    struct ts_codec codec;
    struct ts_codec_view view;
    uint8_t *payload, *copy;
    size_t bytes;
};

static void bench_init(struct bench *b, enum ts_dtype dtype, uint32_t head_dim)
{
    uint32_t count = TOKENS / TS_KV_BLOCK_TOKENS, *blocks = ts_xcalloc(count, sizeof *blocks);
    struct ts_rng rng;
    ts_codec_parse("i4", &b->codec, NULL);
    for (uint32_t i = 0; i < count; i++)
        blocks[i] = i;
    b->bytes = (size_t)TOKENS * HEADS * head_dim * 2 * 2;
    b->view = (struct ts_codec_view){ts_xaligned(64, b->bytes), count, HEADS, head_dim, dtype, blocks, count};
    b->copy = ts_xaligned(64, b->bytes);
    b->payload = ts_xaligned(64, b->bytes);
    memset(b->copy, 1, b->bytes);
    memset(b->payload, 1, b->bytes);
    ts_rng_init(&rng, 1);
    for (size_t i = 0; i < b->bytes / 8; i++)
        ((uint64_t *)b->view.pool)[i] = ts_rng_u64(&rng) & 0xbbffbbffbbffbbff;
}

static void bench_fini(struct bench *b)
{
    ts_free((void *)b->view.blocks);
    ts_free(b->view.pool);
    ts_free(b->copy);
    ts_free(b->payload);
}

static void bench_line(struct bench *b, const char *level)
{
    ts_time spent[3] = {0}; /* encode, decode, copy */
    uint32_t pieces = TOKENS / PIECE, escapes;
    size_t step = b->bytes / pieces, used;
    for (uint32_t i = 0; i < (ROUNDS + 1) * pieces; i++) {
        struct ts_codec_chunk chunk = {
            .head_count = HEADS, .token_begin = i % pieces * PIECE, .token_count = PIECE};
        size_t at = i % pieces * step, far = (i + pieces / 2) % pieces * step;
        /* Decodes what was encoded a round of 3/4 before, so that neither lies in a cache. */
        size_t old = (i + pieces / 4) % pieces * step;
        struct ts_codec_chunk other = chunk;
        other.token_begin = (i + pieces / 4) % pieces * PIECE;
        ts_time t0 = ts_clock_now();
        used = ts_codec_encode(&b->codec, &b->view, &chunk, b->payload + at, &escapes);
        ts_time t1 = ts_clock_now();
        memcpy(b->copy + far, b->view.pool + far, step);
        ts_time t2 = ts_clock_now();
        if (i < pieces) /* the first round only fills the payloads */
            continue;
        ts_codec_decode(&b->codec, b->payload + old, used, &other, &b->view);
        ts_time t3 = ts_clock_now();
        spent[0] += t1 - t0, spent[2] += t2 - t1, spent[1] += t3 - t2;
    }
    double copy = (double)b->bytes * ROUNDS / (double)spent[2];
    for (int what = 0; what < 2; what++) {
        double rate = (double)b->bytes * ROUNDS / (double)spent[what];
        printf("%s,%s,%s,%u,%zu,%.2f,%.2f,%.2f\n", what ? "decode" : "encode", level,
               b->view.dtype == TS_DTYPE_F16 ? "f16" : "bf16", b->view.head_dim, b->bytes, rate, copy,
               rate / copy);
    }
}

int main(void)
{
    static const char *const levels[] = {"scalar", "avx2", "avx512"};
    static const enum ts_dtype dtypes[] = {TS_DTYPE_F16, TS_DTYPE_BF16};
    printf("what,level,dtype,head_dim,bytes,gb_per_s,memcpy_gb_per_s,ratio\n");
    for (size_t d = 0; d < 2; d++) {
        for (uint32_t head_dim = 64; head_dim <= 128; head_dim *= 2) {
            struct bench b;
            bench_init(&b, dtypes[d], head_dim);
            for (size_t l = 0; l < 3; l++) {
                if (ts_codec_set_level(levels[l]) == TS_OK)
                    bench_line(&b, levels[l]);
            }
            bench_fini(&b);
        }
    }
    return 0;
}
