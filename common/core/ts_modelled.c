#include "common/core/ts_modelled.h"

#include "common/base/ts_hash.h"

uint64_t ts_modelled_digest(uint32_t layer, uint32_t head, uint32_t token_begin, uint32_t token_count)
{
    uint32_t words[4] = {layer, head, token_begin, token_count};
    return ts_hash64(words, sizeof words, 0x4d4f44454c4b56ULL);
}

uint32_t ts_modelled_token(uint64_t prompt_hash, uint64_t seed, uint32_t index, uint32_t vocab)
{
    uint64_t words[3] = {prompt_hash, seed, index};
    return (uint32_t)(ts_hash64(words, sizeof words, 0x4d4f44454c54ULL) % vocab);
}
