/*
 * AVX-512 F, BW and VL. Groups of 16 go to AVX2: half of one does not fill a vector.
 */
#include "gpu/codec/codec_simd.inc"

static inline __m512i codes16(const uint16_t *in, enum ts_dtype dtype, __m512 zero, __m512 inverse)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)in);
    __m512 x = dtype == TS_DTYPE_F16
                   ? _mm512_cvtph_ps(bits)
                   : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, zero), inverse));
    return _mm512_min_epi32(_mm512_max_epi32(c, _mm512_setzero_si512()), _mm512_set1_epi32(15));
}

static inline bool encode_as(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                             uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    struct codec_groups g;
    uint32_t count = TS_KV_BLOCK_TOKENS * (head_dim / group), half = group / 2;
    for (uint32_t i = 0; i < count; i++)
        codec_extremes(in + (size_t)i * group, group, &g.low[i], &g.high[i]);
    if (!codec_parameters(&g, dtype, count, scales, minima))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t *from = in + (size_t)i * group;
        __m512 zero = _mm512_set1_ps(g.zero[i]), inverse = _mm512_set1_ps(g.inverse[i]);
        for (uint32_t j = 0; j < half; j += 16) {
            __m512i low = codes16(from + j, dtype, zero, inverse);
            __m512i high = codes16(from + half + j, dtype, zero, inverse);
            __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
            _mm_storeu_si128((__m128i *)(codes + (size_t)i * half + j), _mm512_cvtepi32_epi8(both));
        }
    }
    return true;
}

static bool encode_tile(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                        uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    if (group < 32)
        return codec_avx2.encode_tile(in, dtype, head_dim, group, scales, minima, codes);
    if (dtype == TS_DTYPE_F16 && group == 64) /* the common ones with their loops unrolled */
        return encode_as(in, TS_DTYPE_F16, head_dim, 64, scales, minima, codes);
    if (dtype == TS_DTYPE_BF16 && group == 64)
        return encode_as(in, TS_DTYPE_BF16, head_dim, 64, scales, minima, codes);
    return encode_as(in, dtype, head_dim, group, scales, minima, codes);
}

static void decode_tile(const uint16_t *scales, const uint16_t *minima, const uint8_t *codes,
                        enum ts_dtype dtype, uint32_t rows, uint32_t head_dim, uint32_t group, uint16_t *out)
{
    uint32_t count = rows * (head_dim / group), half = group / 2;
    if (group < 32) {
        codec_avx2.decode_tile(scales, minima, codes, dtype, rows, head_dim, group, out);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        __m256i table = codec_table(scales[i], minima[i], dtype);
        uint16_t *to = out + (size_t)i * group;
        for (uint32_t j = 0; j < half; j += 16) {
            /* The look-up reads only the low four bits of an index. */
            __m256i pairs =
                _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + (size_t)i * half + j)));
            _mm256_storeu_si256((__m256i *)(to + j), _mm256_permutexvar_epi16(pairs, table));
            _mm256_storeu_si256((__m256i *)(to + half + j),
                                _mm256_permutexvar_epi16(_mm256_srli_epi16(pairs, 4), table));
        }
    }
}

const struct codec_level codec_avx512 = {"avx512", encode_tile, decode_tile};
