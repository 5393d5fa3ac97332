/*
 * AVX2 and F16C. Decoding looks values up instead of computing them: a group has sixteen, held as two byte
 * tables for pshufb.
 */
#include "gpu/codec/codec_simd.inc"

static inline __m256i codes8(const uint16_t *in, enum ts_dtype dtype, __m256 zero, __m256 inverse)
{
    __m256 x = codec_widen8(_mm_loadu_si128((const __m128i *)in), dtype);
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(x, zero), inverse));
}

/* Eight codes as 16-bit integers, clamped. */
static inline __m128i clamped8(const uint16_t *in, enum ts_dtype dtype, __m256 zero, __m256 inverse)
{
    __m256i c = codes8(in, dtype, zero, inverse);
    __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    return _mm_min_epi16(_mm_max_epi16(packed, _mm_setzero_si128()), _mm_set1_epi16(15));
}

/* Thirty-two codes as bytes, clamped, their fours interleaved as the packs leave them. */
static inline __m256i clamped32(const uint16_t *in, enum ts_dtype dtype, __m256 zero, __m256 inverse)
{
    __m256i a = _mm256_packs_epi32(codes8(in, dtype, zero, inverse), codes8(in + 8, dtype, zero, inverse));
    __m256i b =
        _mm256_packs_epi32(codes8(in + 16, dtype, zero, inverse), codes8(in + 24, dtype, zero, inverse));
    return _mm256_min_epu8(_mm256_packus_epi16(a, b), _mm256_set1_epi8(15));
}

static inline void encode_group(const uint16_t *in, enum ts_dtype dtype, uint32_t group, float zero_value,
                                float inverse_value, uint8_t *codes)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 zero = _mm256_set1_ps(zero_value), inverse = _mm256_set1_ps(inverse_value);
    uint32_t half = group / 2, i = 0;
    for (; i + 32 <= half; i += 32) {
        __m256i low = clamped32(in + i, dtype, zero, inverse);
        __m256i high = clamped32(in + half + i, dtype, zero, inverse);
        __m256i both = _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
        _mm256_storeu_si256((__m256i *)(codes + i), _mm256_permutevar8x32_epi32(both, order));
    }
    for (; i < half; i += 8) {
        __m128i low = clamped8(in + i, dtype, zero, inverse);
        __m128i high = clamped8(in + half + i, dtype, zero, inverse);
        __m128i both = _mm_or_si128(low, _mm_slli_epi16(high, 4));
        _mm_storel_epi64((__m128i *)(codes + i), _mm_packus_epi16(both, both));
    }
}

static inline bool encode_as(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                             uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    struct codec_groups g;
    uint32_t count = TS_KV_BLOCK_TOKENS * (head_dim / group);
    for (uint32_t i = 0; i < count; i++)
        codec_extremes(in + (size_t)i * group, group, &g.low[i], &g.high[i]);
    if (!codec_parameters(&g, dtype, count, scales, minima))
        return false;
    for (uint32_t i = 0; i < count; i++)
        encode_group(in + (size_t)i * group, dtype, group, g.zero[i], g.inverse[i],
                     codes + (size_t)i * (group / 2));
    return true;
}

static bool encode_tile(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                        uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    if (dtype == TS_DTYPE_F16 && group == 64) /* the common ones with their loops unrolled */
        return encode_as(in, TS_DTYPE_F16, head_dim, 64, scales, minima, codes);
    if (dtype == TS_DTYPE_BF16 && group == 64)
        return encode_as(in, TS_DTYPE_BF16, head_dim, 64, scales, minima, codes);
    return encode_as(in, dtype, head_dim, group, scales, minima, codes);
}

struct byte_tables {
    __m128i low, high;
};

static inline void look_up(struct byte_tables t, __m128i index, __m128i *first, __m128i *second)
{
    __m128i low = _mm_shuffle_epi8(t.low, index), high = _mm_shuffle_epi8(t.high, index);
    *first = _mm_unpacklo_epi8(low, high);
    *second = _mm_unpackhi_epi8(low, high);
}

static inline void decode_group(struct byte_tables t, const uint8_t *codes, uint32_t group, uint16_t *out)
{
    const __m128i nibble = _mm_set1_epi8(15);
    uint32_t half = group / 2;
    __m128i a, b;
    if (half == 8) {
        __m128i pairs = _mm_loadl_epi64((const __m128i *)codes);
        look_up(t, _mm_and_si128(pairs, nibble), &a, &b);
        _mm_storeu_si128((__m128i *)out, a);
        look_up(t, _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), &a, &b);
        _mm_storeu_si128((__m128i *)(out + 8), a);
        return;
    }
    for (uint32_t i = 0; i < half; i += 16) {
        __m128i pairs = _mm_loadu_si128((const __m128i *)(codes + i));
        look_up(t, _mm_and_si128(pairs, nibble), &a, &b);
        _mm_storeu_si128((__m128i *)(out + i), a);
        _mm_storeu_si128((__m128i *)(out + i + 8), b);
        look_up(t, _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), &a, &b);
        _mm_storeu_si128((__m128i *)(out + half + i), a);
        _mm_storeu_si128((__m128i *)(out + half + i + 8), b);
    }
}

static void decode_tile(const uint16_t *scales, const uint16_t *minima, const uint8_t *codes,
                        enum ts_dtype dtype, uint32_t rows, uint32_t head_dim, uint32_t group, uint16_t *out)
{
    const __m128i byte = _mm_set1_epi16(255);
    uint32_t count = rows * (head_dim / group);
    for (uint32_t i = 0; i < count; i++) {
        __m256i table = codec_table(scales[i], minima[i], dtype);
        __m128i a = _mm256_castsi256_si128(table), b = _mm256_extracti128_si256(table, 1);
        struct byte_tables t = {
            .low = _mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte)),
            .high = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8)),
        };
        decode_group(t, codes + (size_t)i * (group / 2), group, out + (size_t)i * group);
    }
}

const struct codec_level codec_avx2 = {"avx2", encode_tile, decode_tile};
