/*
 * The batch policy of the prefill phase: chunked, first come first served by age of acceptance. A pure
 * function.
 */
#ifndef PREFILL_BATCH_H
#define PREFILL_BATCH_H

#include <stddef.h>
#include <stdint.h>

struct prefill_candidate {
    uint32_t done, total; /* prompt tokens computed, and in all */
};

/* Gives candidate i `take[i]` tokens (0 = not in this batch) within `budget_tokens` and `budget_rows`.
 * Candidates are in order of age. A chunk ends at an absolute multiple of 16 unless it ends the prompt, so
 * that KV blocks and codec groups are never cut. */
void prefill_batch(const struct prefill_candidate *candidates, size_t count, uint32_t budget_tokens,
                   uint32_t budget_rows, uint32_t *take);

#endif
