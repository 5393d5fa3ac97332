/* The codec's kernels against the codec of the CPU: one grid of shapes and values, for any device. */
#ifndef TS_TESTS_GPU_KERNEL_FIXTURE_H
#define TS_TESTS_GPU_KERNEL_FIXTURE_H

#include "gpu/cuda/device/ts_cuda.h"

/* The device of the tests that follow, kept; and what they call before each codec and type, or NULL. */
void kernel_use(struct ts_cuda *cuda, void (*before)(void));

/* cmocka tests. */
void kernel_test_shapes(
    void **state); /* encodes and restores: every codec, type, head_dim, part of a chunk */
void kernel_test_values(void **state);  /* subnormals, both zeros, bounds, ties, what is not finite */
void kernel_test_escapes(void **state); /* few, many and all tiles escaped, their order */
void kernel_test_means(void **state);   /* of centred keys: offsets, spans that are lost, no rotation */
void kernel_test_layers(void **state);  /* several in a launch */
void kernel_test_crowd(
    void **state); /* so many that warps have tiles of their own; for a GPU: it takes long */
void kernel_test_refusals(void **state); /* damaged payloads: refused where the CPU refuses, and no others */
void kernel_test_numbers(void **state);  /* all 16-bit values: restored from a group that holds them */

#endif
