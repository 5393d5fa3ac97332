/*
 * ts-cuda-gemm-bench [--device N] [--quick]: products of an 8B model's shapes on a device, by the best own
 * kernel and by cuBLASLt's best algorithm, beside the device's own copies. CSV on stdout; device, library and
 * the rate of copies on stderr.
 *
 *     way       own (rows of weights x rows of x, warps of a block; tile: rows of weights), library; SwiGLU
 *               included
 *     us        of one product; weights take turns, so that no cache holds them
 *     gb_s      bytes of weights, x and y in the time; tflop_s: 2 x outputs x inputs x m
 *     floor_us  those bytes at the rate of copies (read and written); ratio: floor to time
 *
 * Up to 128 rows launches are captured in a graph, as in a decode step. An emulated device goes through once
 * with tiny shapes: its figures mean nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_bench.h"
#include "gpu/cuda/products/cuda_gemm_impl.h"
#include "gpu/cuda/weights/cuda_weights.h"

#define COPY_BYTES   ((size_t)512 << 20)
#define COPIES_BYTES ((size_t)512 << 20) /* weights of one shape together, at least */
#define MATRICES_MAX 32u

struct shape {
    const char *name;
    uint32_t outputs, inputs;
    enum cuda_gemm_y kind;
};

/* Llama 3.1 8B: hidden 4096, 32 and 8 heads of 128, intermediate 14336, 128256 words. */
static const struct shape shapes_8b[] = {
    {"qkv", 6144, 4096, CUDA_GEMM_Y_16},        {"o", 4096, 4096, CUDA_GEMM_Y_ADD_F32},
    {"gate_up", 28672, 4096, CUDA_GEMM_SWIGLU}, {"down", 4096, 14336, CUDA_GEMM_Y_ADD_F32},
    {"lm_head", 128256, 4096, CUDA_GEMM_Y_F32}, {NULL, 0, 0, CUDA_GEMM_Y_16}};
static const struct shape shapes_tiny[] = {{"tiny", 64, 128, CUDA_GEMM_SWIGLU}, {NULL, 0, 0, CUDA_GEMM_Y_16}};
static const uint32_t rows_8b[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192, 0};
static const uint32_t rows_quick[] = {1, 8, 32, 2048, 0};
static const uint32_t rows_int8[] = {1, 8, 16, 32, 64, 2048, 0};
static const uint32_t rows_tiny[] = {1, 8, 192, 0};

struct bench {
    struct ts_cuda *cuda;
    struct cuda_gemm *gemm;
    double copy; /* bytes read and written in a nanosecond */
    struct cuda_matrix matrices[MATRICES_MAX];
    uint32_t count;
    ts_cuda_address pool;
};

/* Copies of 512 MiB: the best of five. */
static double copy_rate(struct ts_cuda *cuda, size_t bytes)
{
    ts_cuda_address from, to;
    struct ts_cuda_event *begin, *end;
    struct ts_error err = {0};
    uint64_t best = UINT64_MAX, ns;
    bench_must(ts_cuda_alloc(cuda, bytes, &from, &err), &err);
    bench_must(ts_cuda_alloc(cuda, bytes, &to, &err), &err);
    bench_must(ts_cuda_clear(cuda, from, bytes, &err), &err);
    bench_must(ts_cuda_event_new(cuda, &begin, &err), &err);
    bench_must(ts_cuda_event_new(cuda, &end, &err), &err);
    for (int round = 0; round < 6; round++) {
        bench_must(ts_cuda_record(cuda, begin, &err), &err);
        bench_must(ts_cuda_copy(cuda, to, from, bytes, &err), &err);
        bench_must(ts_cuda_record(cuda, end, &err), &err);
        bench_must(ts_cuda_elapsed(begin, end, &ns, &err), &err);
        if (round > 0 && ns < best)
            best = ns;
    }
    ts_cuda_event_free(&begin);
    ts_cuda_event_free(&end);
    ts_cuda_free(cuda, &from);
    ts_cuda_free(cuda, &to);
    return 2 * (double)bytes / (double)(best > 0 ? best : 1);
}

static size_t weights_bytes(const struct shape *s, bool int8)
{
    return (size_t)s->outputs * s->inputs * (int8 ? 1 : 2);
}

/* Matrices of one shape, random. int8: random bytes and scales, whatever they are. */
static void take_weights(struct bench *b, const struct shape *s, bool int8, size_t bytes_least)
{
    struct ts_error err = {0};
    size_t bytes = weights_bytes(s, int8), step = (bytes + 255) / 256 * 256, scales = 0;
    b->count = (uint32_t)(bytes_least / bytes + 1);
    b->count = b->count < 2 ? 2 : b->count > MATRICES_MAX ? MATRICES_MAX : b->count;
    if (int8)
        scales = ((size_t)s->outputs * 4 + 255) / 256 * 256;
    bench_must(ts_cuda_alloc(b->cuda, b->count * step + scales, &b->pool, &err), &err);
    bench_must(ts_cuda_clear(b->cuda, b->pool, b->count * step + scales, &err), &err);
    bench_must(cuda_weights_fill(b->cuda, b->pool, b->count * step / 2, 7, 0.02, TS_DTYPE_BF16, &err), &err);
    for (uint32_t i = 0; i < b->count; i++)
        b->matrices[i] = (struct cuda_matrix){.type = int8 ? CUDA_MATRIX_I8 : CUDA_MATRIX_BF16,
                                              .data = b->pool + i * step,
                                              .scales = int8 ? b->pool + b->count * step : 0,
                                              .outputs = s->outputs,
                                              .inputs = s->inputs};
}

static void print_line(const struct bench *b, const struct shape *s, bool int8, uint32_t m,
                       const struct gemm_choice *choice, const char *way)
{
    double ns = (double)choice->ns;
    double y = s->kind == CUDA_GEMM_Y_16        ? 2.0 * s->outputs
               : s->kind == CUDA_GEMM_SWIGLU    ? 1.0 * s->outputs
               : s->kind == CUDA_GEMM_Y_ADD_F32 ? 8.0 * s->outputs
                                                : 4.0 * s->outputs;
    double bytes = (double)weights_bytes(s, int8) + m * (2.0 * s->inputs + y), floor = bytes / b->copy;
    printf("%s,%s,%u,%u,%u,%s", s->name, int8 ? "int8" : "bf16", s->outputs, s->inputs, m, way);
    if (choice->way == GEMM_OWN) {
        const struct cuda_skinny_variant *v = &cuda_skinny_variants[choice->own.variant];
        printf(" %s%ux%u/%u", v->gemv ? "gemv" : "mma", v->rows, v->tokens, choice->own.warps);
    }
    if (choice->way == GEMM_TILE)
        printf(" tile%u", cuda_tile_outputs(choice->tile));
    printf(",%.2f,%.0f,%.1f,%.2f,%.3f\n", ns / 1000, bytes / ns, 2.0 * s->outputs * s->inputs * m / ns / 1000,
           floor / 1000, floor / ns);
    fflush(stdout);
}

static void measure(struct bench *b, const struct shape *s, bool int8, uint32_t m)
{
    struct gemm_choice own, library;
    struct ts_error err = {0};
    bench_must(gemm_measure(b->gemm, b->cuda, b->matrices, b->count, s->kind, m, &own, &library, &err), &err);
    if (own.way != GEMM_UNKNOWN)
        print_line(b, s, int8, m, &own, "own");
    if (library.way != GEMM_UNKNOWN)
        print_line(b, s, int8, m, &library, "library");
}

static void measure_all(struct bench *b, const struct shape *shapes, const uint32_t *rows, bool int8,
                        size_t bytes_least)
{
    for (const struct shape *s = shapes; s->name; s++) {
        take_weights(b, s, int8, bytes_least);
        for (const uint32_t *m = rows; *m; m++)
            measure(b, s, int8, *m);
        ts_cuda_free(b->cuda, &b->pool);
    }
}

int main(int argc, char **argv)
{
    struct cuda_gemm_options options = {
        .activations = TS_DTYPE_BF16, .cache_folder = "", .measure_always = true};
    struct ts_error err = {0};
    struct bench b = {.count = 0};
    uint32_t device = 0;
    bool quick = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
            device = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "ts-cuda-gemm-bench [--device N] [--quick]\n");
            return 2;
        }
    }
    bench_must(ts_cuda_open(device, &b.cuda, &err), &err);
    bench_must(cuda_gemm_new(b.cuda, &options, &b.gemm, &err), &err);
    bool emulated = ts_cuda_properties(b.cuda)->emulated;
    b.copy = copy_rate(b.cuda, emulated ? 1 << 16 : COPY_BYTES);
    fprintf(stderr, "%s; %s; copies of %zu MiB: %.0f GB/s read and written\n", ts_cuda_name(b.cuda),
            cuda_gemm_library(b.gemm), COPY_BYTES >> 20, b.copy);
    printf("name,weights,outputs,inputs,m,way,us,gb_s,tflop_s,floor_us,ratio\n");
    const uint32_t *rows = emulated ? rows_tiny : quick ? rows_quick : rows_8b;
    measure_all(&b, emulated ? shapes_tiny : shapes_8b, rows, false, emulated ? 1 : COPIES_BYTES);
    measure_all(&b, emulated ? shapes_tiny : shapes_8b, emulated ? rows_tiny : rows_int8, true,
                emulated ? 1 : COPIES_BYTES);
    cuda_gemm_free(&b.gemm);
    ts_cuda_close(&b.cuda);
    return 0;
}
