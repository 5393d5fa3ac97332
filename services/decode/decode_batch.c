#include "services/decode/decode_batch.h"

#include <stdbool.h>

void decode_batch(const uint32_t *pending, size_t count, uint32_t budget_tokens, uint32_t budget_rows,
                  uint32_t *take)
{
    for (int replay = 0; replay < 2; replay++) {
        for (size_t i = 0; i < count; i++) {
            if ((pending[i] > 1) != (bool)replay)
                continue;
            uint32_t n = pending[i] < budget_tokens ? pending[i] : budget_tokens;
            take[i] = budget_rows > 0 ? n : 0;
            budget_tokens -= take[i];
            budget_rows -= take[i] > 0;
        }
    }
}
