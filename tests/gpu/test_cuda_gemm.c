/*
 * Products on a GPU: the grid of kernel_gemm with nvcc's kernels, larger shapes, cuBLASLt's algorithms, and
 * what an engine does: prepare, capture, any number of rows. Where the toolkit is installed our declarations
 * of cuBLASLt are compared with its header.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(TS_CUBLASLT_HEADER)
#include <cublasLt.h>
#endif
#include "gpu/cuda/products/cuda_blaslt_api.h"
#include "gpu/cuda/products/cuda_gemm_impl.h"
#include "tests/gpu/cuda_open.h"
#include "tests/gpu/gemm_fixture.h"
#include "tests/gpu/gemm_tests.h"

#if defined(TS_CUBLASLT_HEADER)
#define SAME(function, member)                                                                               \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&function),                                       \
                                                __typeof__(((struct cuda_blaslt_api *)0)->member)),          \
                   #function " is declared as in cublasLt.h");
CUDA_BLASLT_FUNCTIONS(SAME)
_Static_assert((int)BLASLT_R_32F == (int)CUDA_R_32F && (int)BLASLT_R_16F == (int)CUDA_R_16F &&
                   (int)BLASLT_R_16BF == (int)CUDA_R_16BF &&
                   (int)BLASLT_COMPUTE_32F == (int)CUBLAS_COMPUTE_32F &&
                   (int)BLASLT_OP_T == (int)CUBLAS_OP_T &&
                   (int)BLASLT_DESC_TRANSA == (int)CUBLASLT_MATMUL_DESC_TRANSA &&
                   (int)BLASLT_PREF_WORKSPACE == (int)CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                   (int)BLASLT_PREF_REDUCTION == (int)CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
                   (int)BLASLT_PREF_ALIGNMENT_A == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
                   (int)BLASLT_PREF_ALIGNMENT_A + 3 == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES &&
                   (int)BLASLT_REDUCTION_COMPUTE_TYPE == (int)CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
               "numbers are those of cublasLt.h");
_Static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cudaDataType_t) == sizeof(int) &&
                   sizeof(cublasComputeType_t) == sizeof(int) &&
                   sizeof(cublasLtMatmulDescAttributes_t) == sizeof(int) &&
                   sizeof(cublasLtMatmulPreferenceAttributes_t) == sizeof(int) &&
                   sizeof(cublasLtMatmulAlgo_t) == sizeof(struct cuda_blaslt_algorithm) &&
                   sizeof(cublasLtMatmulHeuristicResult_t) == 96,
               "types are as large as cuda_blaslt_api.h has them without cublasLt.h");
#endif

static struct ts_cuda *cuda;

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static struct cuda_gemm *open_gemm(bool bf16, bool no_library)
{
    struct cuda_gemm_options options = {
        .activations = bf16 ? TS_DTYPE_BF16 : TS_DTYPE_F16, .no_library = no_library, .cache_folder = ""};
    struct ts_error err = {0};
    struct cuda_gemm *gemm;
    ok(cuda_gemm_new(cuda, &options, &gemm, &err), &err);
    return gemm;
}

static void multiply(struct cuda_gemm *gemm, struct gemm_case *c)
{
    struct ts_error err = {0};
    if (c->kind == CUDA_GEMM_SWIGLU)
        ok(cuda_gemm_swiglu(gemm, cuda, &c->w, c->x, c->m, c->y, c->scratch, &err), &err);
    else
        ok(cuda_gemm_run(gemm, cuda, &c->w, c->x, c->m, c->y, c->kind, &err), &err);
}

/* Shapes of real models, as the rule of thumb does them. */
static void test_large(void **state)
{
    static const uint32_t counts[] = {1, 2, 7, 16, 33, 64};
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct cuda_gemm *gemm = open_gemm(bf16 != 0, true);
        for (uint32_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct gemm_case c;
            gemm_case_init(&c, cuda, bf16 != 0, i % 2, i % 3 == 0 ? 2048 : 1000, i % 3 == 1 ? 4096 : 2064,
                           counts[i], (enum cuda_gemm_y)(i % 3));
            gemm_case_reset(&c);
            multiply(gemm, &c);
            gemm_case_check(&c, "large");
            gemm_case_fini(&c);
        }
        cuda_gemm_free(&gemm);
    }
}

static void try_algorithms(struct cuda_gemm *gemm, struct gemm_case *c)
{
    struct cuda_blaslt_algorithm found[4];
    struct cuda_blaslt_product product = gemm_library_product(gemm, &c->w, c->m, c->kind);
    struct ts_error err = {0};
    uint32_t count;
    ok(cuda_blaslt_query(gemm->blaslt, &product, found, 4, &count, &err), &err);
    for (uint32_t i = 0; i < count; i++) {
        const struct gemm_choice choice = {.way = GEMM_LIBRARY, .algorithm = found[i]};
        const struct gemm_product p = {
            .w = &c->w, .x = c->x, .y = c->y, .scratch = c->scratch, .m = c->m, .kind = c->kind};
        assert_true(cuda_blaslt_takes(gemm->blaslt, &product, &found[i]));
        gemm_case_reset(c);
        ok(gemm_do(gemm, cuda, &choice, &p, &err), &err);
        gemm_case_check(c, "cuBLASLt");
    }
}

static void test_library(void **state)
{
    static const uint32_t counts[] = {1, 8, 33, 128, 200, 513};
    struct ts_error err = {0};
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct cuda_gemm *gemm = open_gemm(bf16 != 0, false);
        printf("%s\n", cuda_gemm_library(gemm));
        for (uint32_t i = 0; i < sizeof counts / sizeof *counts * 4 && gemm->blaslt; i++) {
            struct gemm_case c;
            gemm_case_init(&c, cuda, bf16 != 0, i % 5 == 4, i % 2 ? 1008 : 256, i % 3 ? 272 : 512,
                           counts[i / 4], (enum cuda_gemm_y)(i % 4));
            ok(gemm_make_widened(gemm, &c.w, &err), &err);
            if (c.w.type == CUDA_MATRIX_I8 && c.kind != CUDA_GEMM_Y_16)
                c.rms *= 64; /* its weights are rounded to T */
            try_algorithms(gemm, &c);
            gemm_case_fini(&c);
        }
        cuda_gemm_free(&gemm);
    }
}

/* Prepared, then captured as a decode step is, and run for numbers of rows that were never asked for. */
static void test_prepared(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 5, 8, 13, 16, 31, 50, 64, 100, 128, 129, 300, 700};
    (void)state;
    for (enum cuda_gemm_y kind = CUDA_GEMM_Y_16; kind <= CUDA_GEMM_SWIGLU; kind++) {
        struct cuda_gemm *gemm = open_gemm(true, false);
        struct ts_error err = {0};
        struct gemm_case large;
        gemm_case_init(&large, cuda, true, false, 1024, 512, 1, kind);
        const struct cuda_gemm_use uses[] = {{large.w, kind}, {large.w, kind}};
        ok(cuda_gemm_prepare(gemm, cuda, uses, 2, 300, &err), &err);
        for (uint32_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct ts_cuda_graph *graph = NULL;
            struct gemm_case c;
            gemm_case_init(&c, cuda, true, false, 1024, 512, counts[i], kind);
            gemm_case_reset(&c);
            if (c.m <= 128) {
                ok(ts_cuda_capture_begin(cuda, &err), &err);
                multiply(gemm, &c);
                ok(ts_cuda_capture_end(cuda, &graph, &err), &err);
                ok(ts_cuda_graph_launch(cuda, graph, &err), &err);
            } else {
                multiply(gemm, &c);
            }
            gemm_case_check(&c, "prepared");
            ts_cuda_graph_free(&graph);
            gemm_case_fini(&c);
        }
        gemm_case_fini(&large);
        cuda_gemm_free(&gemm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_test_variants),   cmocka_unit_test(gemm_test_rows),
        cmocka_unit_test(gemm_test_invariance), cmocka_unit_test(gemm_test_tiles),
        cmocka_unit_test(gemm_test_tile_rows),  cmocka_unit_test(gemm_test_large_tiles),
        cmocka_unit_test(gemm_test_widen),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_library),         cmocka_unit_test(test_prepared),
    };
    int status = cuda_open_or_skip(&cuda);
    if (status != 0)
        return status;
    gemm_use(cuda, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
