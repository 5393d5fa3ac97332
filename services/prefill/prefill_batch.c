#include "services/prefill/prefill_batch.h"

#include "common/core/ts_model.h"

int64_t prefill_due(int64_t accepted_ns, uint32_t prompt_tokens, uint64_t patience_ns)
{
    return accepted_ns + (int64_t)(prompt_tokens * patience_ns);
}

void prefill_batch(const struct prefill_candidate *candidates, size_t count, uint32_t budget_tokens,
                   uint32_t budget_rows, uint32_t *take)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t left = candidates[i].total - candidates[i].done,
                 n = left < budget_tokens ? left : budget_tokens;
        if (n < left) {
            uint32_t end = (candidates[i].done + n) / TS_KV_BLOCK_TOKENS * TS_KV_BLOCK_TOKENS;
            n = end > candidates[i].done ? end - candidates[i].done : 0;
        }
        take[i] = budget_rows > 0 ? n : 0;
        budget_tokens -= take[i];
        budget_rows -= take[i] > 0;
    }
}
