/*
 * ts-cuda-attention-bench [--device N] [--rounds N] [--processors N]: speed of attention on a device. CSV on
 * stdout, of random keys and values of bf16 in a pool of 2 GiB whose blocks lie scattered; launches follow
 * each other in a graph, each for other blocks, so that no cache holds them (rows of a large batch may share
 * some). The median round counts, by events. --processors: what the plans are made for, instead of the
 * device's number.
 *
 *     batch, tokens  rows and what each has: in prefill from the begin, in decoding behind one another
 *     parts          spans, or the pairs of a tile, of the plan
 *     us             of a launch
 *     tflop_per_s    prefill: both products, what is masked not counted
 *     gb_per_s       decoding: keys and values read
 *     floor_us       decoding: as long as the device's copies take to read and write as many bytes
 *     ratio          floor to time
 *
 * An emulated device goes through once with a few tokens: its figures mean nothing.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_model.h"
#include "gpu/cuda/attention/cuda_attention.h"
#include "gpu/cuda/cuda_bench.h"

#define BATCH_MAX    128u
#define LAUNCHES_MAX 128u
#define COLD_BYTES   ((size_t)256 << 20) /* that a round reads at least: more than caches hold */
#define COPY_BYTES   ((size_t)256 << 20)

struct bench {
    struct ts_cuda *cuda;
    struct ts_cuda_event *begin, *end;
    uint32_t rounds, processors;
    bool tiny;
    size_t pool_bytes;
    ts_cuda_address pool;
    double copy; /* GB/s, read and written */
};

/* Nanoseconds of the median launch of a graph. */
static double median_of(const struct bench *b, struct ts_cuda_graph *graph)
{
    const struct bench_clock clock = {b->cuda, b->begin, b->end, b->rounds};
    return bench_median_graph(&clock, graph);
}

/* --- what is measured ----------------------------------------------------------------------------------- */

struct job {
    struct cuda_attention_shape shape;
    struct cuda_attention_limits limits;
    uint32_t batch, tokens, launches;
    bool decode;
    struct cuda_attention_plan plan;
    struct cuda_attention_io io;
    size_t table_bytes; /* of a launch */
};

static size_t block_bytes(const struct cuda_attention_shape *s)
{
    return (size_t)2 * TS_KV_BLOCK_TOKENS * s->kv_heads * s->head_dim * 2;
}

static ts_cuda_address take(struct bench *b, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address address;
    bench_must(ts_cuda_alloc(b->cuda, bytes, &address, &err), &err);
    bench_must(ts_cuda_clear(b->cuda, address, bytes, &err), &err);
    return address;
}

static ts_cuda_address take_copy(struct bench *b, const void *from, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address address = take(b, bytes);
    bench_must(ts_cuda_upload(b->cuda, address, from, bytes, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    return address;
}

/* A table for each launch; blocks are taken in one row through the pool, at odd steps. */
static void make_tables(struct bench *b, struct job *j)
{
    uint32_t step = ts_kv_blocks_for(j->tokens), count = j->launches * j->batch * step;
    uint64_t blocks = b->pool_bytes / block_bytes(&j->shape);
    uint32_t *table = ts_xcalloc(count, sizeof *table);
    for (uint32_t i = 0; i < count; i++)
        table[i] = (uint32_t)((uint64_t)i * 1237 % blocks); /* 1237 is odd, a prime */
    j->io.table_step = step;
    j->io.table = take_copy(b, table, count * sizeof *table);
    j->table_bytes = (size_t)j->batch * step * sizeof *table;
    ts_free(table);
}

static void make_plan(struct bench *b, struct job *j)
{
    uint32_t first[BATCH_MAX], count[BATCH_MAX] = {0}, start[BATCH_MAX];
    for (uint32_t r = 0; r < j->batch; r++) {
        count[r] = j->decode ? 1 : j->tokens;
        first[r] = r * count[r];
        start[r] = j->tokens - count[r];
    }
    j->limits = (struct cuda_attention_limits){.rows = j->batch,
                                               .tokens = j->batch * count[0],
                                               .context = j->tokens,
                                               .multiprocessors = b->processors};
    void *array = ts_xcalloc(cuda_attention_plan_bytes(&j->shape, &j->limits), 1);
    struct cuda_attention_rows rows = {.rows = j->batch, .first = first, .count = count, .start = start};
    cuda_attention_plan_make(&j->shape, &j->limits, &rows, array, &j->plan);
    j->io.plan = take_copy(b, array, j->plan.bytes);
    j->io.workspace = take(b, cuda_attention_workspace_bytes(&j->shape, &j->limits));
    ts_free(array);
}

static struct ts_cuda_graph *capture(struct bench *b, const struct job *j)
{
    struct ts_error err = {0};
    struct ts_cuda_graph *graph;
    struct cuda_attention_io io = j->io;
    bench_must(ts_cuda_capture_begin(b->cuda, &err), &err);
    for (uint32_t i = 0; i < j->launches; i++, io.table += j->table_bytes)
        bench_must(j->decode ? cuda_decode_attention(b->cuda, &j->shape, &j->limits, &io, j->batch, &err)
                             : cuda_prefill_attention(b->cuda, &j->shape, &io, &j->plan, &err),
                   &err);
    bench_must(ts_cuda_capture_end(b->cuda, &graph, &err), &err);
    return graph;
}

static void print(const struct bench *b, const struct job *j, double ns)
{
    const struct cuda_attention_shape *s = &j->shape;
    double read = (double)j->batch * j->tokens / TS_KV_BLOCK_TOKENS * (double)block_bytes(s);
    double pairs = (double)j->batch * j->tokens * (j->tokens + 1.0) / 2 * s->q_heads;
    printf("%s,%u,%u,%u,%u,%u,%u,%.1f,", j->decode ? "decode" : "prefill", s->q_heads, s->kv_heads,
           s->head_dim, j->batch, j->tokens, j->decode ? j->plan.spans : j->plan.tile_rows, ns / 1000);
    if (j->decode)
        printf(",%.1f,%.1f,%.3f,%.1f\n", read / ns, read / b->copy / 1000, read / b->copy / ns, b->copy);
    else
        printf("%.1f,,,,%.1f\n", 4 * pairs * s->head_dim / ns / 1000, b->copy);
    fflush(stdout);
}

static void measure(struct bench *b, const struct cuda_attention_shape *shape, bool decode, uint32_t batch,
                    uint32_t tokens)
{
    struct job j = {.shape = *shape, .batch = batch, .tokens = tokens, .decode = decode};
    size_t read = (size_t)batch * ts_kv_blocks_for(tokens) * block_bytes(shape);
    size_t launches = b->tiny ? 1 : COLD_BYTES / read + 4;
    j.launches = launches > LAUNCHES_MAX ? LAUNCHES_MAX : (uint32_t)launches;
    if (!decode)
        j.launches = b->tiny ? 1 : 4;
    make_tables(b, &j);
    make_plan(b, &j);
    size_t q_bytes = (size_t)j.limits.tokens * shape->q_heads * shape->head_dim * 2;
    j.io.pool = b->pool;
    j.io.q = take(b, q_bytes);
    j.io.out = take(b, q_bytes);
    struct ts_error err = {0};
    bench_must(
        ts_cuda_copy(b->cuda, j.io.q, b->pool, q_bytes < b->pool_bytes ? q_bytes : b->pool_bytes, &err),
        &err);
    struct ts_cuda_graph *graph = capture(b, &j);
    print(b, &j, median_of(b, graph) / j.launches);
    ts_cuda_graph_free(&graph);
    ts_cuda_free(b->cuda, &j.io.q);
    ts_cuda_free(b->cuda, &j.io.out);
    ts_cuda_free(b->cuda, &j.io.table);
    ts_cuda_free(b->cuda, &j.io.plan);
    ts_cuda_free(b->cuda, &j.io.workspace);
}

/* --- the device ----------------------------------------------------------------------------------------- */

/* Numbers of a normal distribution, as bf16: one piece, copied until the pool is full. */
static void fill_pool(struct bench *b)
{
    size_t piece = b->tiny ? b->pool_bytes : (size_t)8 << 20;
    uint16_t *values = ts_xmalloc(piece);
    struct ts_error err = {0};
    struct ts_rng rng;
    ts_rng_init(&rng, 1);
    for (size_t i = 0; i < piece / 2; i++) {
        float x = i < 65536 ? (float)ts_rng_normal(&rng) : 0;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        values[i] = i < 65536 ? (uint16_t)(bits >> 16) : values[ts_rng_u64(&rng) % 65536];
    }
    bench_must(ts_cuda_upload(b->cuda, b->pool, values, piece, &err), &err);
    for (size_t at = piece; at < b->pool_bytes; at += piece)
        bench_must(ts_cuda_copy(b->cuda, b->pool + at, b->pool, piece, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    ts_free(values);
}

static void measure_copy(struct bench *b)
{
    size_t piece = b->tiny ? b->pool_bytes / 2 : COPY_BYTES, done = 0;
    struct ts_error err = {0};
    struct ts_cuda_graph *graph;
    bench_must(ts_cuda_capture_begin(b->cuda, &err), &err);
    for (size_t at = 0; at + 2 * piece <= b->pool_bytes; at += 2 * piece, done += 2 * piece)
        bench_must(ts_cuda_copy(b->cuda, b->pool + at + piece, b->pool + at, piece, &err), &err);
    bench_must(ts_cuda_capture_end(b->cuda, &graph, &err), &err);
    b->copy = (double)done / median_of(b, graph);
    ts_cuda_graph_free(&graph);
}

static void bench_init(struct bench *b, uint32_t ordinal)
{
    struct ts_error err = {0};
    bench_must(ts_cuda_open(ordinal, &b->cuda, &err), &err);
    const struct ts_cuda_properties *p = ts_cuda_properties(b->cuda);
    b->tiny = p->emulated;
    b->rounds = b->tiny ? 1 : b->rounds;
    b->processors = b->processors ? b->processors : p->multiprocessors;
    b->pool_bytes = b->tiny ? (size_t)1 << 20 : (size_t)2 << 30;
    bench_must(ts_cuda_event_new(b->cuda, &b->begin, &err), &err);
    bench_must(ts_cuda_event_new(b->cuda, &b->end, &err), &err);
    bench_must(ts_cuda_alloc(b->cuda, b->pool_bytes, &b->pool, &err), &err);
    fill_pool(b);
    measure_copy(b);
}

static void bench_run(struct bench *b)
{
    static const struct cuda_attention_shape shapes[] = {{32, 8, 128, 0, true}, {32, 4, 64, 0, true}};
    static const uint32_t lengths[] = {512, 2048, 8192}, batches[] = {1, 8, 32, 128},
                          tiny_lengths[] = {16, 32, 48};
    const uint32_t *tokens = b->tiny ? tiny_lengths : lengths;
    printf("what,q_heads,kv_heads,head_dim,batch,tokens,parts,us,tflop_per_s,gb_per_s,floor_us,ratio,copy_gb_"
           "per_s\n");
    for (size_t s = 0; s < 2; s++) {
        for (size_t i = 0; i < 3; i++)
            measure(b, &shapes[s], false, 1, tokens[i]);
        for (size_t batch = 0; batch < (b->tiny ? 2 : 4); batch++) {
            for (size_t i = 0; i < 3; i++)
                measure(b, &shapes[s], true, b->tiny ? 1 + (uint32_t)batch : batches[batch], tokens[i]);
        }
    }
}

int main(int argc, char **argv)
{
    struct bench b = {.rounds = 5};
    uint32_t ordinal = 0;
    argc--, argv++;
    while (argc > 0) {
        if (strcmp(*argv, "--device") == 0)
            ordinal = bench_number(&argc, &argv, 0, 1023);
        else if (strcmp(*argv, "--rounds") == 0)
            b.rounds = bench_number(&argc, &argv, 1, BENCH_ROUNDS_MAX);
        else if (strcmp(*argv, "--processors") == 0)
            b.processors = bench_number(&argc, &argv, 1, 1024);
        else
            return fprintf(stderr,
                           "usage: ts-cuda-attention-bench [--device N] [--rounds N] [--processors N]\n"),
                   2;
    }
    bench_init(&b, ordinal);
    fprintf(stderr, "device: %s\n", ts_cuda_name(b.cuda));
    bench_run(&b);
    ts_cuda_free(b.cuda, &b.pool);
    ts_cuda_event_free(&b.begin);
    ts_cuda_event_free(&b.end);
    ts_cuda_close(&b.cuda);
    return 0;
}
