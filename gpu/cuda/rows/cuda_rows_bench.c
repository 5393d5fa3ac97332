/*
 * ts-cuda-rows-bench [--device N] [--rounds N]: speed of the kernels between the products, and of sampling,
 * on a device, for the shapes of Llama-3.1-8B and bf16. CSV on stdout. Launches follow each other in a graph,
 * each in memory of its own, so that those of large batches come from memory and those of small ones, as
 * between products, mostly from the cache. The median round counts, by events.
 *
 *     what        embed, norm, qkv, silu (cuda_rows.h); greedy, draw (temperature alone), top (top-k 50,
 * top-p 0.9), logprobs (greedy, with the 5 best) (cuda_sample.h, both launches) batch       tokens, or rows
 * of logits us          of a call gb_per_s    of what must be read and written; of logits: read once ratio of
 * that to the device's copies, read and written
 *
 * An emulated device goes through once with a few tokens: its figures mean nothing.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cuda/cuda_bench.h"
#include "gpu/cuda/rows/cuda_rows.h"
#include "gpu/cuda/sample/cuda_sample.h"

#define LAUNCHES   16u
#define SAMPLE_MAX 128u

enum what { EMBED, NORM, QKV, SILU, GREEDY, DRAW, TOP, LOGPROBS, KINDS };

static const char *const names[] = {"embed", "norm", "qkv", "silu", "greedy", "draw", "top", "logprobs"};

struct bench {
    struct ts_cuda *cuda;
    struct ts_cuda_event *begin, *end;
    struct ts_model model;
    uint32_t rounds, launches, context;
    bool tiny;
    size_t arena_bytes;
    ts_cuda_address arena, numbers, table, weight;
    struct cuda_sample *sample;
    double copy; /* GB/s, read and written */
};

/* Nanoseconds of the median launch of the graph that was captured. */
static double end_and_measure(struct bench *b)
{
    const struct bench_clock clock = {b->cuda, b->begin, b->end, b->rounds};
    struct ts_cuda_graph *graph;
    struct ts_error err = {0};
    bench_must(ts_cuda_capture_end(b->cuda, &graph, &err), &err);
    double ns = bench_median_graph(&clock, graph);
    ts_cuda_graph_free(&graph);
    return ns;
}

/* --- the kernels ---------------------------------------------------------------------------------------- */

static uint32_t qkv_width(const struct ts_model *m)
{
    return (m->heads + 2 * m->kv_heads) * m->head_dim;
}

/* Bytes that a launch has in the arena: what it reads first, then what it writes. */
static size_t read_bytes(const struct ts_model *m, enum what what, size_t batch)
{
    const size_t each[KINDS] = {0, (size_t)4 * m->hidden, (size_t)2 * qkv_width(m),
                                (size_t)4 * m->intermediate};
    return what < GREEDY ? batch * each[what] : batch * 4 * m->vocab;
}

static size_t written_bytes(const struct ts_model *m, enum what what, size_t batch)
{
    const size_t each[KINDS] = {(size_t)4 * m->hidden, (size_t)2 * m->hidden,
                                (size_t)2 * m->heads * m->head_dim, (size_t)2 * m->intermediate};
    return what < GREEDY ? batch * each[what] : 0;
}

/* What is moved besides: rows of the table of embeddings; keys and values. */
static size_t other_bytes(const struct ts_model *m, enum what what, size_t batch)
{
    return what == EMBED ? batch * 2 * m->hidden : what == QKV ? batch * 4 * m->kv_heads * m->head_dim : 0;
}

static void launch_qkv(struct bench *b, ts_cuda_address in, ts_cuda_address out, uint32_t batch,
                       struct ts_error *err)
{
    const struct ts_model *m = &b->model;
    size_t numbers = (size_t)batch * sizeof(uint32_t);
    struct cuda_qkv p = {.qkv = in,
                         .cos = b->weight,
                         .sin = b->weight,
                         .position = b->numbers,
                         .row_of = b->numbers + (numbers + 255) / 256 * 256, /* all zeros */
                         .table = b->numbers,
                         .q = out,
                         .pool_layer = b->table,
                         .table_step = b->context / TS_KV_BLOCK_TOKENS,
                         .q_heads = m->heads,
                         .kv_heads = m->kv_heads,
                         .head_dim = m->head_dim,
                         .tokens = batch,
                         .eps = 1e-5f,
                         .bf16 = true};
    bench_must(cuda_qkv_post(b->cuda, &p, err), err);
}

static void launch(struct bench *b, enum what what, ts_cuda_address in, ts_cuda_address out, uint32_t batch)
{
    const struct ts_model *m = &b->model;
    struct ts_error err = {0};
    if (what == EMBED) {
        struct cuda_embedding e = {b->table, TS_DTYPE_BF16, b->numbers, out, m->hidden, batch};
        bench_must(cuda_embed(b->cuda, &e, &err), &err);
    } else if (what == NORM) {
        struct cuda_norm n = {in, 0, b->weight, out, 1e-5f, m->hidden, batch, true};
        bench_must(cuda_rms_norm(b->cuda, &n, &err), &err);
    } else if (what == QKV) {
        launch_qkv(b, in, out, batch, &err);
    } else if (what == SILU) {
        struct cuda_silu s = {in, out, m->intermediate, batch, true};
        bench_must(cuda_silu_mul(b->cuda, &s, &err), &err);
    } else {
        bench_must(cuda_sample_run(b->sample, b->cuda, in, batch, &err), &err);
    }
}

/* --- what they work on ---------------------------------------------------------------------------------- */

/* 0, 1, 2 .. as ids, positions and blocks; and zeros behind them. */
static void put_numbers(struct bench *b, uint32_t batch)
{
    struct ts_error err = {0};
    uint32_t *numbers = ts_xcalloc(batch, sizeof *numbers);
    for (uint32_t i = 0; i < batch; i++)
        numbers[i] = i;
    bench_must(ts_cuda_clear(b->cuda, b->numbers, (size_t)3 * 4 * b->context, &err), &err);
    bench_must(ts_cuda_upload(b->cuda, b->numbers, numbers, batch * sizeof *numbers, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    ts_free(numbers);
}

static void put_rows(struct bench *b, enum what what, uint32_t batch)
{
    struct ts_error err = {0};
    struct ts_sampling p = ts_sampling_defaults();
    struct ts_engine_row row = {.sample = true, .sampling = &p};
    p.temperature = what == DRAW || what == TOP ? 0.8f : 0;
    p.top_k = what == TOP ? 50 : 0;
    p.top_p = what == TOP ? 0.9f : 1;
    p.logprobs = what == LOGPROBS ? 5 : 0;
    cuda_sample_begin(b->sample);
    for (uint32_t i = 0; i < batch; i++, p.seed++)
        cuda_sample_set(b->sample, i, &row);
    bench_must(cuda_sample_upload(b->sample, b->cuda, batch, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
}

/* The arena as rows of logits, all alike. */
static void put_logits(struct bench *b)
{
    struct ts_error err = {0};
    struct ts_rng rng;
    size_t bytes = (size_t)4 * b->model.vocab;
    float *logits = ts_xmalloc(bytes);
    ts_rng_init(&rng, 1);
    for (uint32_t i = 0; i < b->model.vocab; i++)
        logits[i] = (float)(3 * ts_rng_normal(&rng));
    bench_must(ts_cuda_upload(b->cuda, b->arena, logits, bytes, &err), &err);
    for (size_t at = bytes; at + bytes <= b->arena_bytes; at += bytes)
        bench_must(ts_cuda_copy(b->cuda, b->arena + at, b->arena, bytes, &err), &err);
    bench_must(ts_cuda_wait(b->cuda, &err), &err);
    ts_free(logits);
}

static void measure(struct bench *b, enum what what, uint32_t batch)
{
    struct ts_error err = {0};
    size_t read = read_bytes(&b->model, what, batch), written = written_bytes(&b->model, what, batch);
    size_t each = what < GREEDY ? (read + 255) / 256 * 256 + (written + 255) / 256 * 256 : read;
    if (what < GREEDY)
        put_numbers(b, batch);
    else
        put_rows(b, what, batch);
    bench_must(ts_cuda_capture_begin(b->cuda, &err), &err);
    for (uint32_t i = 0; i < b->launches; i++) {
        ts_cuda_address at = b->arena + i % (b->arena_bytes / each) * each;
        launch(b, what, at, at + each - (written + 255) / 256 * 256, batch);
    }
    double ns = end_and_measure(b) / b->launches;
    double moved = (double)(read + written + other_bytes(&b->model, what, batch)) / ns;
    printf("%s,%u,%.2f,%.1f,%.3f,%.1f\n", names[what], batch, ns / 1000, moved, moved / b->copy, b->copy);
    fflush(stdout);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static ts_cuda_address take(struct bench *b, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address address;
    bench_must(ts_cuda_alloc(b->cuda, bytes, &address, &err), &err);
    bench_must(ts_cuda_clear(b->cuda, address, bytes, &err), &err);
    return address;
}

static void measure_copy(struct bench *b)
{
    size_t piece = b->arena_bytes / 4;
    struct ts_error err = {0};
    bench_must(ts_cuda_capture_begin(b->cuda, &err), &err);
    for (size_t at = 0; at < b->arena_bytes; at += 2 * piece)
        bench_must(ts_cuda_copy(b->cuda, b->arena + at + piece, b->arena + at, piece, &err), &err);
    b->copy = (double)b->arena_bytes / end_and_measure(b);
}

static void bench_init(struct bench *b, uint32_t ordinal)
{
    struct ts_error err = {0};
    bench_must(ts_cuda_open(ordinal, &b->cuda, &err), &err);
    b->tiny = ts_cuda_properties(b->cuda)->emulated;
    b->model = (struct ts_model){.hidden = 4096,
                                 .intermediate = 14336,
                                 .heads = 32,
                                 .kv_heads = 8,
                                 .head_dim = 128,
                                 .vocab = b->tiny ? 2048 : 128256};
    b->rounds = b->tiny ? 1 : b->rounds;
    b->launches = b->tiny ? 1 : LAUNCHES;
    b->context = b->tiny ? 64 : 2048;
    b->arena_bytes = b->tiny ? (size_t)2 << 20 : (size_t)1 << 30;
    bench_must(ts_cuda_event_new(b->cuda, &b->begin, &err), &err);
    bench_must(ts_cuda_event_new(b->cuda, &b->end, &err), &err);
    b->arena = take(b, b->arena_bytes);
    b->numbers = take(b, (size_t)3 * 4 * b->context);
    b->table = take(b, (size_t)b->context * 2 * b->model.hidden);
    b->weight = take(b, (size_t)b->context * 4 * (b->model.head_dim / 2));
    struct cuda_sample_options options = {.model = &b->model, .rows_max = SAMPLE_MAX};
    bench_must(cuda_sample_new(b->cuda, &options, &b->sample, &err), &err);
    measure_copy(b);
}

static void bench_fini(struct bench *b)
{
    cuda_sample_free(b->cuda, &b->sample);
    ts_cuda_free(b->cuda, &b->arena);
    ts_cuda_free(b->cuda, &b->numbers);
    ts_cuda_free(b->cuda, &b->table);
    ts_cuda_free(b->cuda, &b->weight);
    ts_cuda_event_free(&b->begin);
    ts_cuda_event_free(&b->end);
    ts_cuda_close(&b->cuda);
}

int main(int argc, char **argv)
{
    static const uint32_t tokens[] = {1, 32, 2048}, rows[] = {1, 32, SAMPLE_MAX}, few[] = {1, 2, 3};
    struct bench b = {.rounds = 7};
    uint32_t ordinal = 0;
    argc--, argv++;
    while (argc > 0) {
        if (strcmp(*argv, "--device") == 0)
            ordinal = bench_number(&argc, &argv, 0, 1023);
        else if (strcmp(*argv, "--rounds") == 0)
            b.rounds = bench_number(&argc, &argv, 1, BENCH_ROUNDS_MAX);
        else
            return fprintf(stderr, "usage: ts-cuda-rows-bench [--device N] [--rounds N]\n"), 2;
    }
    bench_init(&b, ordinal);
    fprintf(stderr, "device: %s\n", ts_cuda_name(b.cuda));
    printf("what,batch,us,gb_per_s,ratio,copy_gb_per_s\n");
    for (enum what what = EMBED; what < KINDS; what++) {
        if (what == GREEDY)
            put_logits(&b);
        for (size_t i = 0; i < 3; i++)
            measure(&b, what, b.tiny ? few[i] : what < GREEDY ? tokens[i] : rows[i]);
    }
    bench_fini(&b);
    return 0;
}
