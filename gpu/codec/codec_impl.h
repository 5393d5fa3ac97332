/*
 * Inside the codec: what one dispatch level provides, and the layout of a payload. A level works on one tile:
 * 16 tokens of one KV head, keys or values, contiguous.
 */
#ifndef TS_GPU_CODEC_IMPL_H
#define TS_GPU_CODEC_IMPL_H

#include <stdbool.h>

#include "gpu/codec/ts_codec.h"

#define CODEC_TILE_GROUPS 1024u /* 16 tokens of head_dim 1024 in groups of 16 */

struct codec_level {
    const char *name;
    /* Quantises 16 x head_dim 16-bit elements in groups of 16 .. 256; scales and minima are [row][group] fp16
     * bits, codes [row][group][group/2]. False: the tile must escape (see ts_codec.h); the output is then
     * unspecified. */
    bool (*encode_tile)(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                        uint16_t *scales, uint16_t *minima, uint8_t *codes);
    /* Scales and minima are finite. */
    void (*decode_tile)(const uint16_t *scales, const uint16_t *minima, const uint8_t *codes,
                        enum ts_dtype dtype, uint32_t rows, uint32_t head_dim, uint32_t group, uint16_t *out);
};

extern const struct codec_level codec_scalar;
#if defined(__x86_64__)
extern const struct codec_level codec_avx2;
extern const struct codec_level codec_avx512;
#endif

float codec_f16_to_f32(uint16_t bits);
uint16_t codec_f32_to_f16(float value); /* round to nearest even; overflow gives infinity */
uint16_t codec_f32_to_bf16(float value);

static inline float codec_bf16_to_f32(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)bits << 16};
    return v.f;
}

#endif
