/*
 * ts-codec-bench [CODEC ...]: throughput of encoding and of restoring into scattered blocks, alone and (give,
 * take) with checksum and digests, for each preset and dispatch level, against one-thread memcpy from DRAM.
 * Pieces of all alternate, so that a neighbour on the machine slows all alike, and the median piece counts.
 * Bytes are those of the 16-bit cache.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_crc32c.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"

#define HEADS  4u
#define PIECE  1024u /* tokens between turns */
#define PIECES 64u
#define TOKENS (PIECE * PIECES)
#define ROUNDS 3u

enum { ENCODE, DECODE, GIVE, TAKE, COPY, KINDS };
static const char *const kind_names[] = {"encode", "decode", "give", "take"};

struct bench {
    struct ts_codec codec;
    struct ts_codec_view view;
    struct ts_codec_rope *rope;
    uint8_t *payload, *copy;
    size_t bytes, used[PIECES];
    uint32_t crc[PIECES];
    ts_time spent[KINDS][ROUNDS * PIECES];
};

static uint16_t element(struct ts_rng *rng, enum ts_dtype dtype)
{
    float x = (float)ts_rng_normal(rng);
    return dtype == TS_DTYPE_F16 ? codec_f32_to_f16(x) : codec_f32_to_bf16(x);
}

static void bench_init(struct bench *b, enum ts_dtype dtype, uint32_t head_dim)
{
    uint32_t count = TOKENS / TS_KV_BLOCK_TOKENS, *blocks = ts_xcalloc(count, sizeof *blocks);
    float frequencies[CODEC_DIM_MAX / 2];
    uint16_t values[4096];
    struct ts_rng rng;
    ts_rng_init(&rng, 1);
    for (uint32_t i = 0; i < count; i++)
        blocks[i] = (uint32_t)((uint64_t)i * 1237 % count); /* scattered; 1237 is odd, count a power of two */
    for (uint32_t i = 0; i < head_dim / 2; i++)
        frequencies[i] = (float)pow(10000, -2.0 * i / head_dim);
    b->rope = ts_codec_rope_new(frequencies, head_dim);
    b->bytes = (size_t)TOKENS * HEADS * head_dim * 2 * 2;
    b->view = (struct ts_codec_view){.pool = ts_xaligned(64, b->bytes),
                                     .pool_blocks = count,
                                     .pool_heads = HEADS,
                                     .head_dim = head_dim,
                                     .dtype = dtype,
                                     .blocks = blocks,
                                     .block_count = count,
                                     .rope = b->rope};
    b->copy = ts_xaligned(64, b->bytes);
    b->payload = ts_xaligned(64, 2 * b->bytes);
    memset(b->copy, 1, b->bytes);
    memset(b->payload, 1, 2 * b->bytes);
    for (size_t i = 0; i < 4096; i++)
        values[i] = element(&rng, dtype);
    for (size_t i = 0; i < b->bytes / 2; i++)
        ((uint16_t *)(void *)b->view.pool)[i] = values[ts_rng_u64(&rng) % 4096];
}

static void bench_fini(struct bench *b)
{
    ts_codec_rope_destroy(&b->rope);
    ts_free((void *)b->view.blocks);
    ts_free(b->view.pool);
    ts_free(b->copy);
    ts_free(b->payload);
}

static struct ts_codec_chunk piece_of(uint32_t i)
{
    return (struct ts_codec_chunk){.head_count = HEADS, .token_begin = i * PIECE, .token_count = PIECE};
}

/* One piece of each kind, far enough apart that none lies in a cache. Payloads are the same ones each time.
 */
static ts_time run_piece(struct bench *b, int kind, uint32_t turn)
{
    uint32_t i = (turn + (uint32_t)kind * (PIECES / KINDS)) % PIECES, escapes;
    size_t step = b->bytes / PIECES;
    uint8_t *payload = b->payload + i * 2 * step;
    struct ts_codec_chunk chunk = piece_of(i);
    uint64_t digest[HEADS];
    struct ts_codec_sums sums = {.crc = b->crc[i], .digest = digest};
    enum ts_status status = TS_OK;
    ts_time begin = ts_clock_now();
    if (kind == ENCODE)
        b->used[i] = ts_codec_encode(&b->codec, &b->view, &chunk, payload, &escapes);
    else if (kind == DECODE)
        status = ts_codec_decode(&b->codec, payload, b->used[i], &chunk, &b->view);
    else if (kind == GIVE)
        b->used[i] = ts_codec_give(&b->codec, &b->view, &chunk, payload, &escapes, &sums);
    else if (kind == TAKE)
        status = ts_codec_take(&b->codec, payload, b->used[i], &chunk, &b->view, &sums);
    else
        memcpy(b->copy + i * step, b->view.pool + i * step, step);
    ts_time spent = ts_clock_now() - begin;
    b->crc[i] = kind == ENCODE ? ts_crc32c(0, payload, b->used[i]) : sums.crc;
    if (status != TS_OK)
        abort();
    return spent;
}

static int by_time(const void *a, const void *b)
{
    const ts_time *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(ts_time *times, size_t count)
{
    qsort(times, count, sizeof *times, by_time);
    ts_time middle = times[count / 2];
    return (double)middle;
}

static void bench_line(struct bench *b, const char *level)
{
    uint32_t turns = strcmp(level, "scalar") == 0 ? 8 : ROUNDS * PIECES; /* the reference is slow */
    double time[KINDS], step = (double)b->bytes / PIECES;
    for (uint32_t i = 0; i < turns; i++) {
        for (int kind = 0; kind < KINDS; kind++)
            b->spent[kind][i] = run_piece(b, kind, i);
    }
    for (int kind = 0; kind < KINDS; kind++)
        time[kind] = median(b->spent[kind], turns);
    for (int kind = 0; kind < COPY; kind++)
        printf("%s,%s,%s,%s,%u,%.2f,%.2f,%.2f\n", kind_names[kind], ts_codec_name(&b->codec), level,
               ts_dtype_name(b->view.dtype), b->view.head_dim, step / time[kind], step / time[COPY],
               time[COPY] / time[kind]);
    fflush(stdout);
}

static bool wanted(const char *name, int argc, char **argv)
{
    bool found = argc < 2;
    for (int i = 1; i < argc; i++)
        found |= strcmp(argv[i], name) == 0;
    return found;
}

static void bench_codec(struct bench *b, const char *codec)
{
    static const char *const levels[] = {"avx512bf16", "avx512", "avx2", "scalar"};
    bool filled = false;
    ts_codec_parse(codec, &b->codec, NULL);
    for (size_t l = 0; l < 4; l++) {
        if (ts_codec_set_level(levels[l]) != TS_OK)
            continue;
        for (uint32_t i = 0; !filled && i < PIECES; i++)
            run_piece(b, GIVE, i);
        filled = true;
        bench_line(b, levels[l]);
    }
}

int main(int argc, char **argv)
{
    static const enum ts_dtype dtypes[] = {TS_DTYPE_F16, TS_DTYPE_BF16};
    static struct bench b;
    printf("what,codec,level,dtype,head_dim,gb_per_s,memcpy_gb_per_s,ratio\n");
    for (size_t d = 0; d < 2; d++) {
        for (uint32_t head_dim = 64; head_dim <= 128; head_dim *= 2) {
            bench_init(&b, dtypes[d], head_dim);
            for (size_t c = 0; ts_codec_preset(c); c++) {
                if (wanted(ts_codec_preset(c), argc, argv))
                    bench_codec(&b, ts_codec_preset(c));
            }
            bench_fini(&b);
        }
    }
    return 0;
}
