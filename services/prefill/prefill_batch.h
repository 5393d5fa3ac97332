/*
 * The batch policy of the prefill phase: chunked, earliest due first. Pure functions.
 */
#ifndef PREFILL_BATCH_H
#define PREFILL_BATCH_H

#include <stddef.h>
#include <stdint.h>

struct prefill_candidate {
    uint32_t done, total; /* prompt tokens computed, and in all */
};

/* When a prompt is due that was accepted at `accepted_ns`: the longer it is, the longer it may wait for
 * shorter ones. So a short prompt does not wait for a long one that came a little earlier, and no prompt
 * waits for ever. With `patience_ns` per token 0 it is first come, first served. */
int64_t prefill_due(int64_t accepted_ns, uint32_t prompt_tokens, uint64_t patience_ns);

/* Gives candidate i `take[i]` tokens (0 = not in this batch) within `budget_tokens` and `budget_rows`.
 * Candidates are in order of their due times. A chunk ends at an absolute multiple of 16 unless it ends the
 * prompt, so that KV blocks and codec groups are never cut. */
void prefill_batch(const struct prefill_candidate *candidates, size_t count, uint32_t budget_tokens,
                   uint32_t budget_rows, uint32_t *take);

#endif
