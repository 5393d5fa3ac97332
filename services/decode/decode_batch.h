/*
 * The batch policy of the decode phase: continuous batching, every sequence that is given gets a row, oldest
 * first. A pure function.
 */
#ifndef DECODE_BATCH_H
#define DECODE_BATCH_H

#include <stddef.h>
#include <stdint.h>

/* pending[i] = tokens sequence i must compute before it can draw the next one (1, or more when produced
 * tokens are replayed). Gives it `take[i]` of them (0 = not in this batch). Single steps come before replays,
 * so that a replay does not stall streams. */
void decode_batch(const uint32_t *pending, size_t count, uint32_t budget_tokens, uint32_t budget_rows,
                  uint32_t *take);

#endif
