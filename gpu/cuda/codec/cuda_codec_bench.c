/*
 * ts-cuda-codec-bench [--full] [--device N] [--mib N] [--rounds N] [CODEC ...]: throughput of encoding and
 * restoring KV on a device, for chunks of several sizes, a launch for each and a launch for those of all
 * layers. CSV on stdout. Launches follow each other in one stream, each for other chunks of a pool (and of
 * payloads) that no cache holds; the median round counts, by events.
 *
 *     layers            chunks in a launch
 *     kv_gb_per_s       bytes of the 16-bit cache in the time
 *     traffic_gb_per_s  bytes read and written: those of the cache and of the payload
 *     copy_gb_per_s     read and written by the driver's copies on the device, in pieces of `chunk_kib`
 *     ratio             traffic to copies of as many bytes
 *     peak_gb_per_s     copies of 64 MiB
 *     ratio_to_peak     traffic to those
 *
 * Without --full: bf16 alone, chunks of 1 and 16 MiB. An emulated device goes through once with a tiny pool:
 * its figures mean nothing.
 */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cuda/codec/ts_cuda_codec.h"
#include "gpu/cuda/cuda_bench.h"

#define HEADS      8u
#define PEAK_BYTES ((size_t)64 << 20)

struct bench {
    struct ts_cuda *cuda;
    struct ts_cuda_event *begin, *end;
    size_t pool_bytes;
    uint32_t rounds, layers;
    ts_cuda_address pool, payload, blocks, workspace;
    size_t payload_bytes;
    const size_t *sizes; /* of chunks, bytes of cache; ends with 0 */
    struct ts_cuda_codec_view view;
    double peak;
};

/* --- time ----------------------------------------------------------------------------------------------- */

struct turn {
    struct bench *b;
    void (*run)(struct bench *b, void *context);
    void *context;
};

static void run_turn(void *context)
{
    const struct turn *t = context;
    t->run(t->b, t->context);
}

/* Nanoseconds of the median round of `run(b, context)`. */
static double median_of(struct bench *b, void (*run)(struct bench *b, void *context), void *context)
{
    const struct bench_clock clock = {b->cuda, b->begin, b->end, b->rounds};
    struct turn t = {b, run, context};
    return bench_median(&clock, run_turn, &t);
}

/* --- copies --------------------------------------------------------------------------------------------- */

static void run_copies(struct bench *b, void *context)
{
    size_t piece = *(const size_t *)context;
    struct ts_error err = {0};
    for (size_t at = 0; at + piece <= b->pool_bytes; at += piece)
        bench_must(ts_cuda_copy(b->cuda, b->payload + at, b->pool + at, piece, &err), &err);
}

/* GB/s, read and written. */
static double copy_rate(struct bench *b, size_t piece)
{
    piece = piece < b->pool_bytes ? piece : b->pool_bytes;
    TS_ASSERT(piece > 0);
    size_t copied = b->pool_bytes - b->pool_bytes % piece;
    return 2 * (double)copied / median_of(b, run_copies, &piece);
}

/* --- the codec ------------------------------------------------------------------------------------------ */

struct job {
    const struct ts_codec *codec;
    uint32_t tokens; /* of a chunk */
    size_t *bytes;   /* [chunks x layers of the pool] of their payloads */
    uint32_t chunks; /* of a layer, each in a place of its own */
    size_t step;     /* from payload to payload */
    uint32_t layers; /* in a launch */
    bool decode;
};

/* From chunk `first` on: those of a launch are of one place in several layers. */
static void run_launch(struct bench *b, const struct job *j, uint32_t first)
{
    struct ts_error err = {0};
    struct ts_cuda_codec_part parts[TS_CUDA_CODEC_PARTS_MAX];
    const struct ts_codec_chunk chunk = {
        .head_count = HEADS, .token_begin = first / b->layers * j->tokens, .token_count = j->tokens};
    for (uint32_t k = 0; k < j->layers; k++)
        parts[k] = (struct ts_cuda_codec_part){.layer = first % b->layers + k,
                                               .payload = b->payload + (first + k) * j->step,
                                               .bytes = j->bytes[first + k]};
    bench_must(j->decode ? ts_cuda_codec_decode_layers(b->cuda, j->codec, parts, j->layers, &chunk, &b->view,
                                                       b->workspace, &err)
                         : ts_cuda_codec_encode_layers(b->cuda, j->codec, &b->view, &chunk, parts, j->layers,
                                                       b->workspace, &err),
               &err);
}

static void run_codec(struct bench *b, void *context)
{
    const struct job *j = context;
    for (uint32_t i = 0; i < j->chunks * b->layers; i += j->layers)
        run_launch(b, j, i);
}

/* The last launch went well, and no tile has escaped. Returns the exceptions of its first chunk. */
static size_t check_answer(struct bench *b, uint32_t layers)
{
    struct ts_error err = {0};
    struct ts_cuda_codec_result results[TS_CUDA_CODEC_PARTS_MAX];
    bench_must(ts_cuda_codec_answers(b->cuda, b->workspace, layers, results, &err), &err);
    for (uint32_t i = 0; i < layers; i++) {
        if (results[i].escapes) {
            fprintf(stderr, "ts-cuda-codec-bench: %u tiles of ordinary numbers have escaped\n",
                    results[i].escapes);
            exit(1);
        }
    }
    return results[0].exceptions;
}

/* Encodes all chunks: their payloads, how long these are, and the bytes of all. */
static size_t prepare(struct bench *b, struct job *j, size_t least)
{
    size_t sum = 0;
    j->layers = 1;
    j->decode = false;
    for (uint32_t i = 0; i < j->chunks * b->layers; i++) {
        run_launch(b, j, i);
        j->bytes[i] = least + codec_align16(check_answer(b, 1));
        sum += j->bytes[i];
    }
    return sum;
}

static void print_line(const struct bench *b, const struct job *j, const char *codec, size_t chunk_bytes,
                       size_t payload_bytes, double ns, double copy)
{
    double chunks = (double)j->chunks * b->layers, kv = chunks * (double)chunk_bytes / ns;
    double traffic = kv + (double)payload_bytes / ns;
    printf("%s,%s,%s,%u,%zu,%u,%.2f,%.1f,%.1f,%.1f,%.3f,%.1f,%.3f\n", j->decode ? "decode" : "encode", codec,
           ts_dtype_name(b->view.dtype), b->view.head_dim, chunk_bytes >> 10, j->layers, ns / 1000 / chunks,
           kv, traffic, copy, traffic / copy, b->peak, traffic / b->peak);
    fflush(stdout);
}

static void measure_codec(struct bench *b, const struct ts_codec *codec, size_t chunk_bytes)
{
    struct ts_codec_cache cache = {b->view.head_dim, b->view.dtype};
    /* Not the beginning of a sequence: there chunks differ in size by what first tokens take. */
    struct ts_codec plain = *codec;
    plain.raw_tokens = 0;
    struct job j = {.codec = &plain, .tokens = (uint32_t)(chunk_bytes / (HEADS * b->view.head_dim * 4))};
    if (j.tokens % ts_codec_span(codec) != 0)
        return;
    struct ts_codec_chunk chunk = {.head_count = HEADS, .token_count = j.tokens};
    j.step = (ts_codec_bytes_max(&plain, cache, &chunk) + 255) & ~(size_t)255;
    j.chunks = (uint32_t)(b->pool_bytes / b->layers / chunk_bytes);
    TS_ASSERT(j.chunks * b->layers * j.step <= b->payload_bytes);
    j.bytes = ts_xcalloc(j.chunks * b->layers, sizeof *j.bytes);
    size_t payload_bytes = prepare(b, &j, ts_codec_bytes(&plain, cache, &chunk, 0));
    double copy = copy_rate(b, chunk_bytes);
    for (uint32_t i = 0; i < 4; i++) {
        j.layers = i & 2 ? b->layers : 1;
        j.decode = (i & 1) != 0;
        double ns = median_of(b, run_codec, &j);
        check_answer(b, j.layers);
        print_line(b, &j, ts_codec_name(codec), chunk_bytes, payload_bytes, ns, copy);
    }
    ts_free(j.bytes);
}

/* --- the pool ------------------------------------------------------------------------------------------- */

static uint16_t element(struct ts_rng *rng, enum ts_dtype dtype)
{
    float x = (float)ts_rng_normal(rng);
    return dtype == TS_DTYPE_F16 ? codec_f32_to_f16(x) : codec_f32_to_bf16(x);
}

/* The same piece of drawn numbers again and again: what matters is where they lie. */
static void fill_pool(struct bench *b, enum ts_dtype dtype)
{
    size_t piece = (size_t)4 << 20;
    struct ts_error err = {0};
    struct ts_rng rng;
    piece = piece < b->pool_bytes ? piece : b->pool_bytes;
    uint16_t *values = ts_xmalloc(piece);
    ts_rng_init(&rng, 1);
    for (size_t i = 0; i < piece / 2; i++)
        values[i] = i < 4096 ? element(&rng, dtype) : values[ts_rng_u64(&rng) % 4096];
    for (size_t at = 0; at < b->pool_bytes; at += piece)
        bench_must(ts_cuda_upload(b->cuda, b->pool + at, values, piece, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    ts_free(values);
}

/* Of keys that turn as models have it. */
static ts_cuda_address upload_rope(struct bench *b, uint32_t head_dim)
{
    float frequencies[CODEC_DIM_MAX / 2];
    struct ts_error err = {0};
    ts_cuda_address turns;
    for (uint32_t i = 0; i < head_dim / 2; i++)
        frequencies[i] = (float)pow(10000, -2.0 * i / head_dim);
    struct ts_codec_rope *rope = ts_codec_rope_new(frequencies, head_dim);
    bench_must(ts_cuda_codec_upload_rope(b->cuda, rope, head_dim, &turns, &err), &err);
    ts_codec_rope_destroy(&rope);
    return turns;
}

/* Blocks of a sequence lie scattered. */
static void set_view(struct bench *b, enum ts_dtype dtype, uint32_t head_dim)
{
    struct ts_error err = {0};
    TS_ASSERT(b->layers > 0);
    uint32_t count =
        (uint32_t)(b->pool_bytes / b->layers / ((size_t)TS_KV_BLOCK_TOKENS * HEADS * head_dim * 4));
    uint32_t *blocks = ts_xcalloc(count, sizeof *blocks);
    for (uint32_t i = 0; i < count; i++)
        blocks[i] = (uint32_t)((uint64_t)i * 1237 % count); /* 1237 is odd, a prime */
    bench_must(ts_cuda_upload(b->cuda, b->blocks, blocks, count * sizeof *blocks, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    ts_free(blocks);
    b->view = (struct ts_cuda_codec_view){.pool = b->pool,
                                          .turns = upload_rope(b, head_dim),
                                          .pool_blocks = count,
                                          .pool_heads = HEADS,
                                          .head_dim = head_dim,
                                          .dtype = dtype,
                                          .blocks = b->blocks,
                                          .block_count = count};
}

static void bench_init(struct bench *b, uint32_t ordinal, size_t mib, bool full)
{
    static const size_t all[] = {256 << 10, 1 << 20, 4 << 20, 16 << 20, 0}, few[] = {1 << 20, 16 << 20, 0},
                        tiny[] = {(size_t)16 << 10, (size_t)64 << 10, 0};
    struct ts_error err = {0};
    bench_must(ts_cuda_open(ordinal, &b->cuda, &err), &err);
    bool emulated = ts_cuda_properties(b->cuda)->emulated;
    b->pool_bytes = emulated ? (size_t)128 << 10 : mib << 20;
    b->rounds = emulated ? 1 : b->rounds;
    b->layers = emulated ? 2 : 16;
    b->sizes = emulated ? tiny : full ? all : few;
    b->payload_bytes = 2 * b->pool_bytes;
    bench_must(ts_cuda_event_new(b->cuda, &b->begin, &err), &err);
    bench_must(ts_cuda_event_new(b->cuda, &b->end, &err), &err);
    bench_must(ts_cuda_alloc(b->cuda, b->pool_bytes, &b->pool, &err), &err);
    bench_must(ts_cuda_alloc(b->cuda, b->payload_bytes, &b->payload, &err), &err);
    bench_must(ts_cuda_alloc(b->cuda, b->pool_bytes / 1024, &b->blocks, &err), &err);
    size_t workspace = ts_cuda_codec_workspace_bytes((uint32_t)(b->pool_bytes / 2048));
    bench_must(ts_cuda_alloc(b->cuda, workspace, &b->workspace, &err), &err);
    bench_must(ts_cuda_clear(b->cuda, b->workspace, workspace, &err), &err);
    b->peak = copy_rate(b, PEAK_BYTES);
}

static void bench_fini(struct bench *b)
{
    ts_cuda_free(b->cuda, &b->pool);
    ts_cuda_free(b->cuda, &b->payload);
    ts_cuda_free(b->cuda, &b->blocks);
    ts_cuda_free(b->cuda, &b->workspace);
    ts_cuda_event_free(&b->begin);
    ts_cuda_event_free(&b->end);
    ts_cuda_close(&b->cuda);
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return true;
    }
    return argc == 0;
}

static void bench_run(struct bench *b, enum ts_dtype dtype, int argc, char **argv)
{
    fill_pool(b, dtype);
    for (uint32_t head_dim = 64; head_dim <= 128; head_dim *= 2) {
        set_view(b, dtype, head_dim);
        for (size_t c = 0; ts_codec_preset(c); c++) {
            struct ts_codec codec;
            ts_codec_parse(ts_codec_preset(c), &codec, NULL);
            for (const size_t *size = b->sizes; *size && wanted(ts_codec_preset(c), argc, argv); size++)
                measure_codec(b, &codec, *size);
        }
        ts_cuda_free(b->cuda, &b->view.turns);
    }
}

int main(int argc, char **argv)
{
    static struct bench b = {.rounds = 5};
    uint32_t ordinal = 0, mib = 512;
    bool full = false;
    argc--, argv++;
    while (argc > 0 && argv[0][0] == '-') {
        if (strcmp(*argv, "--full") == 0)
            full = true, argc--, argv++;
        else if (strcmp(*argv, "--device") == 0)
            ordinal = bench_number(&argc, &argv, 0, 1023);
        else if (strcmp(*argv, "--mib") == 0)
            mib = bench_number(&argc, &argv, 64, 16384);
        else if (strcmp(*argv, "--rounds") == 0)
            b.rounds = bench_number(&argc, &argv, 1, BENCH_ROUNDS_MAX);
        else
            return fprintf(stderr, "usage: ts-cuda-codec-bench [--full] [--device N] [--mib N] [--rounds N] "
                                   "[CODEC ...]\n"),
                   2;
    }
    bench_init(&b, ordinal, mib, full);
    fprintf(stderr, "device: %s\n", ts_cuda_name(b.cuda));
    printf("what,codec,dtype,head_dim,chunk_kib,layers,us_per_chunk,kv_gb_per_s,traffic_gb_per_s,copy_gb_per_"
           "s,ratio,"
           "peak_gb_per_s,ratio_to_peak\n");
    bench_run(&b, TS_DTYPE_BF16, argc, argv);
    if (full)
        bench_run(&b, TS_DTYPE_F16, argc, argv);
    bench_fini(&b);
    return 0;
}
