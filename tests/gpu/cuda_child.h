/*
 * The other process of tests that need two: the test's own program, started anew, since a context of the
 * driver does not survive a fork.
 */
#ifndef TS_TESTS_GPU_CUDA_CHILD_H
#define TS_TESTS_GPU_CUDA_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/cuda/device/ts_cuda.h"

#define CUDA_CHILD_BYTES (((size_t)3 << 20) + 5) /* of the memory that is shared */

void cuda_child_fill(uint8_t *bytes, uint32_t seed); /* so many */

/* At the beginning of main: whether this is the child. It has then done what it was told, *status is its
 * exit. */
bool cuda_child_main(int argc, char **argv, int *status);

/* Imports the memory twice, demands the bytes of seed 1 in it, and leaves those of seed 2. The status of what
 * failed there; TS_ECORRUPT: other bytes. `variables`: "NAME=value" for its environment, the last one NULL.
 */
enum ts_status cuda_child_import(const struct ts_cuda_share *share, const char *const *variables);

/* ts_cuda_open of the first device: what its error said. */
enum ts_status cuda_child_open(const char *const *variables, char *said, size_t size);

#endif
