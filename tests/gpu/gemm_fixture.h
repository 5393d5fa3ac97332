/* Products of matrices on any device against sums in double: one grid of shapes, kinds and types. */
#ifndef TS_TESTS_GPU_GEMM_FIXTURE_H
#define TS_TESTS_GPU_GEMM_FIXTURE_H

#include "gpu/cuda/products/cuda_gemm.h"

/* Random matrices in the device's memory, and on the host what is expected. */
struct gemm_case {
    struct ts_cuda *cuda;
    bool bf16;
    struct cuda_matrix w;
    uint32_t m;
    enum cuda_gemm_y kind;
    ts_cuda_address x, y, scratch;
    double *expected; /* [m][outputs]; SWIGLU: [m][outputs / 2] */
    float *before;    /* what y held, ADD_F32 */
    size_t y_bytes;
    double rms; /* of what was expected without what y held */
};

void gemm_case_init(struct gemm_case *c, struct ts_cuda *cuda, bool bf16, bool int8, uint32_t outputs,
                    uint32_t inputs, uint32_t m, enum cuda_gemm_y kind);

/* y as it is before the product, with bytes on either side that must stay. */
void gemm_case_reset(struct gemm_case *c);

/* Fails the test with the words of `who` when y is not what is expected (kernels.md, 6: within 4 x 2^-8 of
 * the root mean square with bf16, 4 x 2^-11 with fp16), or when bytes around it have changed. */
void gemm_case_check(struct gemm_case *c, const char *who);

/* The bytes of y's first `rows` rows, in memory that the caller frees. */
void *gemm_case_rows(struct gemm_case *c, uint32_t rows, size_t *bytes);

void gemm_case_fini(struct gemm_case *c);

#endif
