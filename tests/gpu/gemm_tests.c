#include "tests/gpu/gemm_tests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/products/cuda_skinny.h"
#include "gpu/cuda/products/cuda_tile.h"
#include "tests/gpu/gemm_fixture.h"

static struct ts_cuda *cuda;
static void (*before_case)(void);

void gemm_use(struct ts_cuda *device, void (*before)(void))
{
    cuda = device;
    before_case = before;
}

static void next_order(void)
{
    if (before_case)
        before_case();
}

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static void try_variant(struct gemm_case *c, struct cuda_skinny_choice choice)
{
    struct ts_error err = {0};
    char who[64];
    snprintf(who, sizeof who, "%s %s variant %u, %u warps", c->bf16 ? "bf16" : "f16",
             c->w.type == CUDA_MATRIX_I8 ? "int8" : "", choice.variant, choice.warps);
    gemm_case_reset(c);
    next_order();
    ok(cuda_skinny_launch(cuda, choice, c->bf16, &c->w, c->x, c->m, c->y, c->kind, &err), &err);
    gemm_case_check(c, who);
}

/* Outputs and inputs that end within tiles and pieces, and within neither. */
static const struct {
    uint32_t outputs, inputs;
} shapes[] = {{1, 16}, {13, 48}, {16, 512}, {70, 176}, {33, 1056}};

void gemm_test_variants(void **state)
{
    uint32_t turn = 0;
    (void)state;
    for (uint32_t type = 0; type < 4; type++) {
        for (uint32_t v = 0; v < CUDA_SKINNY_VARIANTS; v++) {
            if (!cuda_skinny_fits(v, type / 2, ts_cuda_properties(cuda)->shared_bytes_max))
                continue;
            const uint32_t tokens = cuda_skinny_variants[v].tokens, some[] = {1, tokens, tokens / 2 + 1};
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                for (enum cuda_gemm_y kind = CUDA_GEMM_Y_16; kind <= CUDA_GEMM_SWIGLU; kind++, turn++) {
                    struct gemm_case c;
                    uint32_t outputs =
                        kind == CUDA_GEMM_SWIGLU ? (shapes[s].outputs + 15) / 16 * 16 : shapes[s].outputs;
                    gemm_case_init(&c, cuda, type % 2, type / 2, outputs, shapes[s].inputs, some[turn % 3],
                                   kind);
                    try_variant(&c, (struct cuda_skinny_choice){v, 1u << turn % 4});
                    gemm_case_fini(&c);
                }
            }
        }
    }
}

/* What an engine calls: any number of rows, also more than a kernel takes at a time. */
void gemm_test_rows(void **state)
{
    static const uint32_t counts[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                      12, 13, 14, 15, 16, 17, 33, 64, 70, 137};
    struct ts_error err = {0};
    (void)state;
    for (uint32_t bf16 = 0; bf16 < 2; bf16++) {
        struct cuda_gemm_options options = {.activations = bf16 ? TS_DTYPE_BF16 : TS_DTYPE_F16,
                                            .cache_folder = ""};
        struct cuda_gemm *gemm;
        ok(cuda_gemm_new(cuda, &options, &gemm, &err), &err);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            enum cuda_gemm_y kind = (enum cuda_gemm_y)((i + bf16) % 4);
            struct gemm_case c;
            gemm_case_init(&c, cuda, bf16, i % 3 == 2, 48, 80, counts[i], kind);
            gemm_case_reset(&c);
            next_order();
            if (kind == CUDA_GEMM_SWIGLU)
                ok(cuda_gemm_swiglu(gemm, cuda, &c.w, c.x, c.m, c.y, c.scratch, &err), &err);
            else
                ok(cuda_gemm_run(gemm, cuda, &c.w, c.x, c.m, c.y, kind, &err), &err);
            gemm_case_check(&c, "cuda_gemm");
            gemm_case_fini(&c);
        }
        cuda_gemm_free(&gemm);
    }
}

/* All variants on tensor cores give the rows of a batch the same bits as its first rows alone. */
void gemm_test_invariance(void **state)
{
    struct gemm_case c;
    void *first[2][16] = {{NULL}};
    size_t bytes[16];
    (void)state;
    gemm_case_init(&c, cuda, true, false, 40, 1200, 64, CUDA_GEMM_Y_F32);
    for (uint32_t v = 0; v < CUDA_SKINNY_VARIANTS; v++) {
        const struct cuda_skinny_choice choice = {v, CUDA_SKINNY_INVARIANT_WARPS};
        bool gemv = cuda_skinny_variants[v].gemv;
        struct ts_error err = {0};
        for (uint32_t m = 1; m <= 64; m = m < 16 ? m + 3 : m * 2) {
            gemm_case_reset(&c);
            next_order();
            ok(cuda_skinny_launch(cuda, choice, true, &c.w, c.x, m, c.y, c.kind, &err), &err);
            for (uint32_t row = 0; row < 16 && row < m; row++) {
                uint8_t *rows = gemm_case_rows(&c, row + 1, &bytes[row]);
                size_t row_bytes = bytes[row] / (row + 1);
                if (!first[gemv][row])
                    first[gemv][row] = ts_xmemdup((const char *)rows + row * row_bytes, row_bytes);
                if (memcmp(first[gemv][row], rows + row * row_bytes, row_bytes) != 0)
                    fail_msg("variant %u: row %u of %u differs from that of a smaller batch", v, row, m);
                ts_free(rows);
            }
        }
    }
    for (uint32_t i = 0; i < 32; i++)
        ts_free(first[i / 16][i % 16]);
    gemm_case_fini(&c);
}

/* What y has after a launch of the kernels for few rows, in slices, as bytes. */
static uint8_t *by_skinny(struct gemm_case *c, size_t *bytes)
{
    struct ts_error err = {0};
    gemm_case_reset(c);
    ok(cuda_skinny_launch(cuda,
                          cuda_skinny_guess(c->w.outputs, c->m, c->w.type == CUDA_MATRIX_I8, 132,
                                            ts_cuda_properties(cuda)->shared_bytes_max),
                          c->bf16, &c->w, c->x, c->m, c->y, c->kind, &err),
       &err);
    return gemm_case_rows(c, c->m, bytes);
}

static void try_tile(struct gemm_case *c, uint32_t variant)
{
    struct ts_error err = {0};
    char who[64];
    size_t bytes;
    uint8_t *expected = by_skinny(c, &bytes);
    snprintf(who, sizeof who, "%s %s tile of %u", c->bf16 ? "bf16" : "f16",
             c->w.type == CUDA_MATRIX_I8 ? "int8" : "", cuda_tile_outputs(variant));
    gemm_case_reset(c);
    next_order();
    ok(cuda_tile_launch(cuda, variant, c->bf16, &c->w, c->x, c->m, c->y, c->kind, &err), &err);
    gemm_case_check(c, who);
    uint8_t *got = gemm_case_rows(c, c->m, &bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (got[i] != expected[i])
            fail_msg("%s, kind %d, %u x %u, m %u: byte %zu differs from that of slices", who, (int)c->kind,
                     c->w.outputs, c->w.inputs, c->m, i);
    }
    ts_free(expected);
    ts_free(got);
}

/* Outputs, inputs and rows that end within tiles, pieces and stages, and bands of outputs that are full. */
void gemm_test_tiles(void **state)
{
    static const struct {
        uint32_t outputs, inputs, m;
    } cases[] = {{1, 16, 1},      {13, 48, 3},    {70, 176, 130}, {160, 560, 17},  {33, 1056, 65},
                 {144, 2080, 31}, {64, 512, 129}, {16, 1600, 8},  {1168, 16, 140}, {128, 1024, 128}};
    uint32_t turn = 0;
    (void)state;
    for (uint32_t type = 0; type < 4; type++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++, turn++) {
            enum cuda_gemm_y kind = (enum cuda_gemm_y)((i + type) % 4);
            struct gemm_case c;
            gemm_case_init(&c, cuda, type % 2, type / 2,
                           kind == CUDA_GEMM_SWIGLU ? (cases[i].outputs + 15) / 16 * 16 : cases[i].outputs,
                           cases[i].inputs, cases[i].m, kind);
            try_tile(&c, turn % CUDA_TILE_VARIANTS);
            gemm_case_fini(&c);
        }
    }
}

void gemm_test_large_tiles(void **state)
{
    static const struct {
        uint32_t outputs, inputs, m;
    } cases[] = {{1040, 2064, 300}, {2304, 1024, 129}, {136, 14336, 200}, {4096, 512, 130}};
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        struct gemm_case c;
        gemm_case_init(&c, cuda, i / 4 == i % 2, i % 2, cases[i % 4].outputs / 16 * 16, cases[i % 4].inputs,
                       cases[i % 4].m, (enum cuda_gemm_y)((i + i / 4) % 4));
        for (uint32_t v = 0; v < CUDA_TILE_VARIANTS; v++)
            try_tile(&c, v);
        gemm_case_fini(&c);
    }
}

/* The first rows of a large batch, of smaller ones, and of one row by the kernels for few, are the same. */
void gemm_test_tile_rows(void **state)
{
    static const uint32_t counts[] = {1, 16, 17, 65, 130};
    struct gemm_case c;
    size_t bytes, some;
    (void)state;
    gemm_case_init(&c, cuda, true, false, 72, 1200, 130, CUDA_GEMM_Y_F32);
    uint8_t *expected = by_skinny(&c, &bytes);
    for (uint32_t v = 0; v < CUDA_TILE_VARIANTS; v++) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct ts_error err = {0};
            gemm_case_reset(&c);
            next_order();
            ok(cuda_tile_launch(cuda, v, true, &c.w, c.x, counts[i], c.y, c.kind, &err), &err);
            uint8_t *got = gemm_case_rows(&c, counts[i], &some);
            if (memcmp(got, expected, some) != 0)
                fail_msg("a tile of %u outputs, %u rows: other bits than of slices", cuda_tile_outputs(v),
                         counts[i]);
            ts_free(got);
        }
    }
    ts_free(expected);
    gemm_case_fini(&c);
}

void gemm_test_widen(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct ts_error err = {0};
        struct gemm_case c;
        ts_cuda_address wide;
        gemm_case_init(&c, cuda, bf16 != 0, true, 13, 176, 5, CUDA_GEMM_Y_F32);
        ok(ts_cuda_alloc(cuda, (size_t)13 * 176 * 2, &wide, &err), &err);
        gemm_case_reset(&c);
        next_order();
        ok(cuda_skinny_widen(cuda, bf16 != 0, &c.w, wide, &err), &err);
        const struct cuda_matrix w = {
            .type = bf16 ? CUDA_MATRIX_BF16 : CUDA_MATRIX_F16, .data = wide, .outputs = 13, .inputs = 176};
        ok(cuda_skinny_launch(cuda, (struct cuda_skinny_choice){0, 4}, bf16 != 0, &w, c.x, 5, c.y, c.kind,
                              &err),
           &err);
        c.rms *= 64; /* weights were rounded to T */
        gemm_case_check(&c, "widened");
        ts_cuda_free(cuda, &wide);
        gemm_case_fini(&c);
    }
}
