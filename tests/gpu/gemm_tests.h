/* Products on any device: the grids of kernel_gemm (CPU) and test_cuda_gemm (GPU). */
#ifndef TS_TESTS_GPU_GEMM_TESTS_H
#define TS_TESTS_GPU_GEMM_TESTS_H

#include "gpu/cuda/device/ts_cuda.h"

/* The device of the tests that follow, kept; and what they call before each product, or NULL. */
void gemm_use(struct ts_cuda *cuda, void (*before)(void));

/* cmocka tests. */
void gemm_test_variants(void **state);    /* every own kernel, type and kind of result, over tails */
void gemm_test_rows(void **state);        /* what an engine calls, for any number of rows, not prepared */
void gemm_test_invariance(void **state);  /* rows have the bits that they have in a smaller batch */
void gemm_test_tiles(void **state);       /* kernels for many rows: the same, and the bits of those for few */
void gemm_test_large_tiles(void **state); /* shapes of models, several bands and stages: for a GPU */
void gemm_test_tile_rows(void **state);   /* the bits of a row, however many there are */
void gemm_test_widen(void **state);       /* int8 as 16 bits, for the library */

#endif
