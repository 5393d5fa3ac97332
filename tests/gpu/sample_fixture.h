/* The kernels of sample.cu against the sampler of the CPU: one grid of logits and parameters for any device.
 */
#ifndef TS_TESTS_GPU_SAMPLE_FIXTURE_H
#define TS_TESTS_GPU_SAMPLE_FIXTURE_H

#include <stdbool.h>

#include "gpu/cuda/device/ts_cuda.h"

/* The device of the tests that follow, kept; what they call before each batch, or NULL; and whether
 * vocabularies of real models are tried too, and more draws. */
void sample_use(struct ts_cuda *cuda, void (*before)(void), bool large);

/* cmocka tests. */
void sample_test_greedy(void **state);       /* ties, zeros of both signs, infinities, what is no number */
void sample_test_draws(void **state);        /* 10^4 draws with drawn parameters: each as the CPU's */
void sample_test_crowded(void **state);      /* many equal or nearly equal logits */
void sample_test_distribution(void **state); /* chi-square */
void sample_test_bounds(void **state);       /* just enough for min-p; minus infinity */
void sample_test_room(void **state);         /* a list of edits that is too short declines a row */
void sample_test_graph(void **state);        /* captured once, launched with other parameters */

#endif
