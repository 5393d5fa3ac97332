/* The kernels of rows.cu against the same formulas in double precision: one grid of shapes for any device. */
#ifndef TS_TESTS_GPU_ROWS_FIXTURE_H
#define TS_TESTS_GPU_ROWS_FIXTURE_H

#include <stdbool.h>

#include "gpu/cuda/device/ts_cuda.h"

/* The device of the tests that follow, kept; what they call before each case, or NULL; and whether shapes of
 * real models are tried too. */
void rows_use(struct ts_cuda *cuda, void (*before)(void), bool large);

/* cmocka tests. */
void rows_test_embed(void **state); /* exact */
void rows_test_norm(void **state);
void rows_test_qkv(void **state); /* queries, pages, and all that must stay as it was */
void rows_test_silu(void **state);

#endif
