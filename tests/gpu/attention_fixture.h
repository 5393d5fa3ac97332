/*
 * The attention kernels against a softmax in double precision: one grid of shapes and batches, for any
 * device. Pools have their blocks at random places and NaN wherever a query must not look; entries of block
 * tables that nobody may follow lead out of the pool.
 */
#ifndef TS_TESTS_GPU_ATTENTION_FIXTURE_H
#define TS_TESTS_GPU_ATTENTION_FIXTURE_H

#include "gpu/cuda/attention/cuda_attention.h"

#define ATTENTION_ROWS_MAX 160

struct attention_row {
    uint32_t start, count;
};

struct attention_case {
    struct cuda_attention_shape shape;
    struct attention_row rows[ATTENTION_ROWS_MAX];
    uint32_t row_count;
    uint32_t multiprocessors; /* for the plan: 0 = 8 */
    uint32_t span_tokens;
    bool batch_invariant;
    bool wide_plan;   /* planned for layers without a window too */
    uint32_t sampled; /* tokens of a row that are compared, about; 0 = all */
    uint64_t seed;    /* of the values: of a row it depends on its index and the position alone */
};

/* The device of the tests that follow, kept; and what they call before each case, or NULL. */
void attention_use(struct ts_cuda *cuda, void (*before)(void));

/* Plans and runs the case; compares with double precision. Returns the result, T [tokens][q_heads][head_dim],
 * which the caller frees. */
uint16_t *attention_run(const struct attention_case *c);

/* Relative distance, in the L2 norm, of two results of so many elements. */
double attention_distance(const uint16_t *a, const uint16_t *b, size_t count, bool bf16);

/* cmocka tests. */
void attention_test_groups(void **state);  /* query heads of a KV head: 1 to 17 */
void attention_test_widths(void **state);  /* head_dim: 4 to 256 */
void attention_test_windows(void **state); /* windows, at and beside the ends of blocks and tiles */
void attention_test_tiles(void **state);   /* tiles of 128 pairs, ragged batches */
void attention_test_cuts(void **state);    /* chunks, neighbours, batch_invariant: the same bits */
void attention_test_spans(void **state);   /* any number of spans; the workspace is left as it was */

#endif
