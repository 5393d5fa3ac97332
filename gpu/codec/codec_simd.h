/*
 * What both vector levels share: the parameters of eight groups at once, from their extremes. Extremes are
 * kept as 16-bit integers in the order of the values they stand for, which is one transform for fp16 and bf16
 * and puts NaN outside of the infinities, so that one pass finds minimum, maximum and what must escape.
 * Included by files that are built with AVX2 and F16C.
 */
#ifndef TS_GPU_CODEC_SIMD_H
#define TS_GPU_CODEC_SIMD_H

#include <immintrin.h>

#include "gpu/codec/codec_impl.h"

#define CODEC_TILE_GROUPS 1024u /* 16 tokens of head_dim 1024 in groups of 16 */

struct codec_groups {
    int16_t low[CODEC_TILE_GROUPS], high[CODEC_TILE_GROUPS]; /* ordered */
    float zero[CODEC_TILE_GROUPS], inverse[CODEC_TILE_GROUPS];
};

static inline int16_t codec_least(__m128i v)
{
    __m128i m = _mm_minpos_epu16(_mm_xor_si128(v, _mm_set1_epi16((short)0x8000)));
    return (int16_t)(_mm_cvtsi128_si32(m) ^ 0x8000);
}

static inline int16_t codec_greatest(__m128i v)
{
    __m128i m = _mm_minpos_epu16(_mm_xor_si128(v, _mm_set1_epi16(0x7fff)));
    return (int16_t)(_mm_cvtsi128_si32(m) ^ 0x7fff);
}

static inline __m256i codec_ordered(__m256i v) /* its own inverse */
{
    __m256i flip = _mm256_and_si256(_mm256_srai_epi16(v, 15), _mm256_set1_epi16(0x7fff));
    return _mm256_xor_si256(v, flip);
}

static inline void codec_extremes(const uint16_t *in, uint32_t group, int16_t *low, int16_t *high)
{
    __m256i least = codec_ordered(_mm256_loadu_si256((const __m256i *)in)), most = least;
    for (uint32_t i = 16; i < group; i += 16) {
        __m256i v = codec_ordered(_mm256_loadu_si256((const __m256i *)(in + i)));
        least = _mm256_min_epi16(least, v);
        most = _mm256_max_epi16(most, v);
    }
    *low = codec_least(_mm_min_epi16(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1)));
    *high = codec_greatest(_mm_max_epi16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1)));
}

static inline __m256 codec_widen8(__m128i bits, enum ts_dtype dtype)
{
    if (dtype == TS_DTYPE_F16)
        return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* fp32 to bf16 in the low halves; for finite values. */
static inline __m256i codec_round_bf16(__m256 value)
{
    __m256i v = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
    v = _mm256_add_epi32(v, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_srli_epi32(v, 16);
}

static inline __m256 codec_finite8(__m256 v)
{
    const __m256 infinity = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
    return _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v), infinity, _CMP_LT_OQ);
}

/* Eight values from ordered integers; +0 is added so that -0 and +0 are one. */
static inline __m256 codec_extremes8(const int16_t *at, enum ts_dtype dtype)
{
    __m256i bits = codec_ordered(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)));
    return _mm256_add_ps(codec_widen8(_mm256_castsi256_si128(bits), dtype), _mm256_setzero_ps());
}

/* The rules of group_parameters() in codec_scalar.c. In bf16 neither zero nor top can overflow: both are
 * below 2^20. `count` is a multiple of 8. */
static inline bool codec_parameters(struct codec_groups *g, enum ts_dtype dtype, uint32_t count,
                                    uint16_t *scales, uint16_t *minima)
{
    __m256 finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (uint32_t i = 0; i < count; i += 8) {
        __m256 low = codec_extremes8(g->low + i, dtype), high = codec_extremes8(g->high + i, dtype);
        __m128i minimum = _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT);
        __m256 zero = _mm256_cvtph_ps(minimum);
        __m128i scale = _mm256_cvtps_ph(_mm256_div_ps(_mm256_sub_ps(high, zero), _mm256_set1_ps(15.0f)),
                                        _MM_FROUND_TO_NEAREST_INT);
        scale = _mm_andnot_si128(_mm_cmpeq_epi16(scale, _mm_set1_epi16((short)0x8000)), scale);
        __m256 step = _mm256_cvtph_ps(scale);
        __m256 top = _mm256_add_ps(zero, _mm256_mul_ps(_mm256_set1_ps(15.0f), step));
        if (dtype == TS_DTYPE_F16)
            top = _mm256_cvtph_ps(_mm256_cvtps_ph(top, _MM_FROUND_TO_NEAREST_INT));
        finite = _mm256_and_ps(finite, _mm256_and_ps(codec_finite8(low), codec_finite8(high)));
        finite = _mm256_and_ps(finite, _mm256_and_ps(codec_finite8(zero), codec_finite8(step)));
        finite = _mm256_and_ps(finite, codec_finite8(top));
        __m256 flat = _mm256_cmp_ps(step, _mm256_setzero_ps(), _CMP_EQ_OQ);
        __m256 inverse = _mm256_andnot_ps(flat, _mm256_div_ps(_mm256_set1_ps(1.0f), step));
        _mm_storeu_si128((__m128i *)(scales + i), scale);
        _mm_storeu_si128((__m128i *)(minima + i), minimum);
        _mm256_storeu_ps(g->zero + i, zero);
        _mm256_storeu_ps(g->inverse + i, inverse);
    }
    return _mm256_movemask_ps(finite) == 0xff;
}

/* The sixteen values that one group can restore to, in code order. */
static inline __m256i codec_table(uint16_t scale, uint16_t minimum, enum ts_dtype dtype)
{
    const __m256 low = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), high = _mm256_add_ps(low, _mm256_set1_ps(8));
    __m256 step = _mm256_cvtph_ps(_mm_set1_epi16((short)scale));
    __m256 zero = _mm256_cvtph_ps(_mm_set1_epi16((short)minimum));
    __m256 a = _mm256_add_ps(zero, _mm256_mul_ps(low, step));
    __m256 b = _mm256_add_ps(zero, _mm256_mul_ps(high, step));
    if (dtype == TS_DTYPE_F16)
        return _mm256_set_m128i(_mm256_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT),
                                _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    __m256i mixed = _mm256_packus_epi32(codec_round_bf16(a), codec_round_bf16(b));
    return _mm256_permute4x64_epi64(mixed, 0xd8);
}

#endif
