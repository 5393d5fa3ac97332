/*
 * AVX2 and F16C. Plain sides are restored by looking values up instead of computing them: a group has
 * sixteen, held as two byte tables for pshufb.
 */
#include "gpu/codec/codec_simd.inc"

typedef __m256 vec;
typedef struct {
    vec zero, step;
} table;

#define LANES 8u

static inline vec vec_load(const float *at)
{
    return _mm256_loadu_ps(at);
}

static inline void vec_store(float *at, vec x)
{
    _mm256_storeu_ps(at, x);
}

static inline vec vec_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

static inline vec vec_widen(const uint16_t *in, enum ts_dtype dtype)
{
    return codec_widen8(_mm_loadu_si128((const __m128i *)in), dtype);
}

/* Vector at element `at` of 16-bit elements or (F32) of floats. */
static inline vec vec_from(const void *from, enum ts_dtype dtype, size_t at)
{
    return dtype == TS_DTYPE_F32 ? vec_load((const float *)from + at)
                                 : vec_widen((const uint16_t *)from + at, dtype);
}

static inline void vec_narrow(vec x, enum ts_dtype dtype, uint16_t *out)
{
    __m128i bits;
    if (dtype == TS_DTYPE_F16) {
        bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    } else {
        __m256i r = codec_round_bf16(x);
        bits = _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
    }
    _mm_stream_si128((__m128i *)out, bits);
}

/* Of each pair the sum, then the difference: the partner plus oneself, oneself negated in the second place.
 */
static inline vec vec_butterflies(vec x)
{
    const vec odd = _mm256_setr_ps(0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f);
    const vec upper = _mm256_setr_ps(0.0f, 0.0f, -0.0f, -0.0f, 0.0f, 0.0f, -0.0f, -0.0f);
    const vec high = _mm256_setr_ps(0.0f, 0.0f, 0.0f, 0.0f, -0.0f, -0.0f, -0.0f, -0.0f);
    x = _mm256_add_ps(_mm256_permute_ps(x, 0xb1), _mm256_xor_ps(x, odd));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0x4e), _mm256_xor_ps(x, upper));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, x, 1), _mm256_xor_ps(x, high));
}

static inline vec extreme(vec a, vec b, bool most)
{
    return most ? _mm256_max_ps(a, b) : _mm256_min_ps(a, b);
}

static inline vec vec_reduce(const vec *in, bool most)
{
    vec r[4];
    for (int i = 0; i < 4; i++)
        r[i] = extreme(_mm256_permute2f128_ps(in[i], in[i + 4], 0x20),
                       _mm256_permute2f128_ps(in[i], in[i + 4], 0x31), most);
    for (int i = 0; i < 2; i++)
        r[i] = extreme(_mm256_unpacklo_ps(r[i], r[i + 2]), _mm256_unpackhi_ps(r[i], r[i + 2]), most);
    return extreme(_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]), most);
}

static inline __m256i integers(const float *x, vec zero, vec inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x), zero), inverse));
}

/* Eight bytes of two codes. */
static inline void store_pairs(__m256i low, __m256i high, int bias, uint8_t *out)
{
    __m256i both = _mm256_packs_epi32(low, high);
    both = _mm256_adds_epi16(both, _mm256_set1_epi16((short)bias));
    both = _mm256_min_epu8(_mm256_packus_epi16(both, both), _mm256_set1_epi8(15));
    both =
        _mm256_or_si256(both, _mm256_srli_epi64(both, 28)); /* four low codes, four high ones beside them */
    __m128i bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    _mm_storel_epi64((__m128i *)out, bytes);
}

static inline void vec_codes(const float *x, uint32_t half, vec zero, vec inverse, int bias, uint8_t *out)
{
    store_pairs(integers(x, zero, inverse), integers(x + half, zero, inverse), bias, out);
}

static inline __m256i codes_of(vec x, vec zero, vec inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(x, zero), inverse));
}

/* Thirty-two codes as bytes, their fours interleaved as the packs leave them. */
static inline __m256i bytes_of(const __m256i *c, int bias)
{
    const __m256i shift = _mm256_set1_epi16((short)bias);
    __m256i a = _mm256_adds_epi16(_mm256_packs_epi32(c[0], c[1]), shift);
    __m256i b = _mm256_adds_epi16(_mm256_packs_epi32(c[2], c[3]), shift);
    return _mm256_min_epu8(_mm256_packus_epi16(a, b), _mm256_set1_epi8(15));
}

static inline void store_codes(const __m256i *low, const __m256i *high, int bias, uint8_t *out)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i both = _mm256_or_si256(bytes_of(low, bias), _mm256_slli_epi16(bytes_of(high, bias), 4));
    _mm256_storeu_si256((__m256i *)out, _mm256_permutevar8x32_epi32(both, order));
}

static inline void codes_64(const void *from, enum ts_dtype dtype, const float *zero, const float *inverse,
                            uint8_t *out)
{
    __m256i low[4], high[4];
    for (uint32_t g = 0; g < 2; g++) {
        vec z = vec_set(zero[g]), v = vec_set(inverse[g]);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t at = g * 64 + i * 8;
            low[i] = codes_of(vec_from(from, dtype, at), z, v);
            high[i] = codes_of(vec_from(from, dtype, at + 32), z, v);
        }
        store_codes(low, high, 0, out + (size_t)g * 32);
    }
}

/* Two groups at a time: sixteen bytes each. */
static inline void codes_32(const float *x, const float *inverse, uint8_t *out)
{
    __m256i low[4], high[4];
    for (uint32_t g = 0; g < 4; g += 2) {
        for (uint32_t i = 0; i < 4; i++) {
            const float *at = x + (size_t)(g + i / 2) * 32 + i % 2 * 8;
            vec v = vec_set(inverse[g + i / 2]);
            low[i] = codes_of(vec_load(at), vec_set(0), v);
            high[i] = codes_of(vec_load(at + 16), vec_set(0), v);
        }
        store_codes(low, high, 8, out + (size_t)g * 16);
    }
}

static inline void vec_bytes(const float *x, vec inverse, uint8_t *out)
{
    __m256i c = integers(x, _mm256_setzero_ps(), inverse);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
    words = _mm_max_epi16(_mm_min_epi16(words, _mm_set1_epi16(127)), _mm_set1_epi16(-127));
    _mm_storel_epi64((__m128i *)out, _mm_packs_epi16(words, words));
}

static inline table vec_table(float zero, float step)
{
    return (table){_mm256_set1_ps(zero), _mm256_set1_ps(step)};
}

static inline vec vec_restore(const uint8_t *codes, table t, bool high)
{
    __m256i c = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    c = high ? _mm256_srli_epi32(c, 4) : _mm256_and_si256(c, _mm256_set1_epi32(15));
    return _mm256_add_ps(t.zero, _mm256_mul_ps(_mm256_cvtepi32_ps(c), t.step));
}

static inline vec vec_restore_bytes(const uint8_t *codes, vec step)
{
    __m256i c = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)codes));
    return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(c), step), _mm256_setzero_ps());
}

/* --- groups of 64 in whole numbers (codec_rows.inc says when) ---------------------------------------------
 * Bytes first: a code for each byte, four of a doubleword that differ in two bits of the index, and these
 * last. For fp16 they are bits 4 and 5, so that each vector of the result has 8 elements that follow each
 * other; for bf16 bits 0 and 5, so that two vectors make pairs of elements. The other four bits are a bit of
 * the vector (x or y) and the lane; each stage adds and subtracts x and y and swaps what it had there for the
 * next bit. */

#define WHOLE_BIAS 0.0f /* none remains */

struct bytes {
    __m256i x, y;
};

static inline struct bytes stage(struct bytes b)
{
    return (struct bytes){_mm256_add_epi8(b.x, b.y), _mm256_sub_epi8(b.x, b.y)};
}

static inline struct bytes swap_lanes(struct bytes b)
{
    __m256 x = _mm256_castsi256_ps(b.x), y = _mm256_castsi256_ps(b.y);
    return (struct bytes){_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)),
                          _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd))};
}

static inline struct bytes swap_halves(struct bytes b)
{
    return (struct bytes){_mm256_permute2x128_si256(b.x, b.y, 0x20),
                          _mm256_permute2x128_si256(b.x, b.y, 0x31)};
}

/* Low codes in the lower words, high ones in the upper words. */
static inline __m256i spread(__m256i codes, __m256i order)
{
    __m256i c = _mm256_shuffle_epi8(codes, order);
    c = _mm256_blend_epi16(c, _mm256_srli_epi16(c, 4), 0xaa);
    return _mm256_and_si256(c, _mm256_set1_epi8(15));
}

/* Sums of sixteen codes, less 128 but for the sum of all. That comes from 8 taken off each code, and 128
 * added to the first one. */
INLINE struct bytes sums_of_16(const uint8_t *codes, enum whole_out to)
{
    const __m128i f16 = _mm_setr_epi32(0x08000800, 0x0a020a02, 0x0c040c04, 0x0e060e06);
    const __m128i bf16 = _mm_setr_epi32(0x01000100, 0x05040504, 0x09080908, 0x0d0c0d0c);
    const __m256i order = _mm256_broadcastsi128_si256(to == TO_F16 ? f16 : bf16);
    const __m256i other = _mm256_add_epi8(order, _mm256_set1_epi8(to == TO_F16 ? 1 : 2));
    const __m256i less = _mm256_set1_epi8(-8);
    const __m256i first = _mm256_blend_epi32(less, _mm256_set1_epi8(120), 1);
    __m256i c = _mm256_loadu_si256((const __m256i *)codes);
    if (to == TO_F16)
        c = _mm256_permute4x64_epi64(c, 0xd8);
    struct bytes b = {_mm256_add_epi8(spread(c, order), first), _mm256_add_epi8(spread(c, other), less)};
    b = swap_lanes(stage(b));
    b = swap_lanes(stage(b));
    b = swap_halves(stage(b));
    return stage(b);
}

/* The last two stages: vectors of doublewords, for each of their two bits. */
INLINE void sums_of_64(__m256i bytes, __m256i bias, __m256i *n)
{
    const __m256i plus = _mm256_set1_epi16(0x0101), minus = _mm256_set1_epi16((short)0xff01);
    const __m256i sum = _mm256_set1_epi32(0x00010001), difference = _mm256_set1_epi32((int)0xffff0001);
    __m256i even = _mm256_maddubs_epi16(bytes, plus), odd = _mm256_maddubs_epi16(bytes, minus);
    n[0] = _mm256_sub_epi32(_mm256_madd_epi16(even, sum), bias);
    n[1] = _mm256_madd_epi16(odd, sum);
    n[2] = _mm256_madd_epi16(even, difference);
    n[3] = _mm256_madd_epi16(odd, difference);
}

/* Vectors in the order of x and y, then of the bits of doublewords. Every step is exact. */
INLINE void values_of_64(const uint8_t *codes, float scale, float all, enum whole_out to, vec *x)
{
    const __m256i bias = _mm256_set1_epi32(4 * 128);
    __m256i n[8];
    struct bytes b = sums_of_16(codes, to);
    sums_of_64(b.x, _mm256_blend_epi32(bias, _mm256_setzero_si256(), 1), n);
    sums_of_64(b.y, bias, n + 4);
    for (int i = 0; i < 8; i++)
        x[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(n[i]), vec_set(scale));
    x[0] = _mm256_add_ps(x[0], _mm256_blend_ps(_mm256_setzero_ps(), vec_set(all), 1));
}

/* To nearest even: elements of `even` and `odd` in turn. An upper half goes up by one where the lower half,
 * less one if the upper one is even, has its first bit. */
INLINE __m256i narrow_pairs(vec even, vec odd)
{
    __m256i e = _mm256_castps_si256(even), o = _mm256_castps_si256(odd);
    __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(e, 16), o, 0xaa);
    __m256i lower = _mm256_blend_epi16(e, _mm256_slli_epi32(o, 16), 0xaa);
    lower = _mm256_subs_epu16(lower, _mm256_andnot_si256(upper, _mm256_set1_epi16(1)));
    return _mm256_sub_epi16(upper, _mm256_srai_epi16(lower, 15));
}

INLINE void store_64(const vec *x, enum whole_out to, uint16_t *out)
{
    for (int i = 0; to == TO_F16 && i < 8; i++) /* index i: b5 b4 b3 */
        vec_narrow(x[i % 2 * 4 + i / 2], TS_DTYPE_F16, out + 8 * i);
    for (int i = 0; to != TO_F16 && i < 4; i++) { /* b5 b4 */
        const vec *from = x + i % 2 * 4 + i / 2 * 2;
        _mm256_stream_si256((__m256i *)(out + 16 * i), narrow_pairs(from[0], from[1]));
    }
}

/* Two groups: of one transform of 128, or each of one of its own. */
INLINE void decode_pair(const struct codec_steps *s, uint32_t g, const uint8_t *codes, bool joined,
                        enum whole_out to, uint16_t *out)
{
    vec x[16];
    values_of_64(codes, s->scale[g], s->all[g], to, x);
    values_of_64(codes + 32, s->scale[g + 1], s->all[g + 1], to, x + 8);
    for (int i = 0; joined && i < 8; i++) {
        vec sum = vec_add(x[i], x[i + 8]);
        x[i + 8] = vec_sub(x[i], x[i + 8]);
        x[i] = sum;
    }
    store_64(x, to, out);
    store_64(x + 8, to, out + 64);
}

/* `count` is a multiple of 16. */
static bool within(const uint16_t *in, uint32_t count, uint16_t limit)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    __m256i most = _mm256_setzero_si256();
    for (uint32_t i = 0; i < count; i += 16) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(in + i));
        most = _mm256_max_epu16(most, _mm256_and_si256(v, magnitude));
    }
    __m256i over = _mm256_cmpgt_epi16(most, _mm256_set1_epi16((short)(limit - 1))); /* both below 0x8000 */
    return _mm256_testz_si256(over, over);
}

#include "gpu/codec/codec_rows.inc"

/* --- plain sides ---------------------------------------------------------------------------------------- */

/* Groups of other sizes than 64. */
static inline void encode_group(const uint16_t *in, enum ts_dtype dtype, uint32_t group, float zero,
                                float inverse, uint8_t *codes)
{
    vec z = vec_set(zero), v = vec_set(inverse);
    for (uint32_t i = 0; i < group / 2; i += 8) {
        __m256i low = codes_of(vec_widen(in + i, dtype), z, v);
        __m256i high = codes_of(vec_widen(in + group / 2 + i, dtype), z, v);
        store_pairs(low, high, 0, codes + i);
    }
}

static inline bool encode_as(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                             enum ts_dtype dtype, uint32_t group, uint16_t *scales, uint16_t *minima,
                             uint8_t *codes)
{
    struct codec_groups g;
    codec_plain_extremes(side, in, next, group, &g);
    if (!codec_asymmetric(&g, dtype, side->groups, scales, minima))
        return false;
    for (uint32_t i = 0; group == 64 && i < side->groups; i += 2)
        codes_64(in + (size_t)i * 64, dtype, g.zero + i, g.inverse + i, codes + (size_t)i * 32);
    for (uint32_t i = 0; group != 64 && i < side->groups; i++)
        encode_group(in + (size_t)i * group, dtype, group, g.zero[i], g.inverse[i],
                     codes + (size_t)i * (group / 2));
    return true;
}

static bool encode_tile(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                        const struct codec_centre *centre, uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    if (!codec_is_plain(side))
        return encode_moved(side, in, next, centre, scales, minima, codes);
    if (side->dtype == TS_DTYPE_F16 && side->group == 64) /* the common ones with their loops unrolled */
        return encode_as(side, in, next, TS_DTYPE_F16, 64, scales, minima, codes);
    if (side->dtype == TS_DTYPE_BF16 && side->group == 64)
        return encode_as(side, in, next, TS_DTYPE_BF16, 64, scales, minima, codes);
    return encode_as(side, in, next, side->dtype, side->group, scales, minima, codes);
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
        _mm_stream_si128((__m128i *)out, a);
        look_up(t, _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), &a, &b);
        _mm_stream_si128((__m128i *)(out + 8), a);
        return;
    }
    for (uint32_t i = 0; i < half; i += 16) {
        __m128i pairs = _mm_loadu_si128((const __m128i *)(codes + i));
        look_up(t, _mm_and_si128(pairs, nibble), &a, &b);
        _mm_stream_si128((__m128i *)(out + i), a);
        _mm_stream_si128((__m128i *)(out + i + 8), b);
        look_up(t, _mm_and_si128(_mm_srli_epi16(pairs, 4), nibble), &a, &b);
        _mm_stream_si128((__m128i *)(out + half + i), a);
        _mm_stream_si128((__m128i *)(out + half + i + 8), b);
    }
}

static void decode_tile(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                        const uint8_t *codes, const struct codec_centre *centre, uint32_t rows, uint16_t *out)
{
    const __m128i byte = _mm_set1_epi16(255);
    uint32_t group = side->group, count = rows * (side->head_dim / group);
    if (!codec_is_plain(side)) {
        decode_moved(side, scales, minima, codes, centre, rows, false, out);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        __m256i values = codec_table(codec_load16(scales + 2 * i), codec_load16(minima + 2 * i), side->dtype);
        __m128i a = _mm256_castsi256_si128(values), b = _mm256_extracti128_si256(values, 1);
        struct byte_tables t = {
            .low = _mm_packus_epi16(_mm_and_si128(a, byte), _mm_and_si128(b, byte)),
            .high = _mm_packus_epi16(_mm_srli_epi16(a, 8), _mm_srli_epi16(b, 8)),
        };
        decode_group(t, codes + (size_t)i * (group / 2), group, out + (size_t)i * group);
    }
}

#include "gpu/codec/codec_lossless.inc"

/* Of a row of n = 64 or 128 elements of a lossless side, the nibbles of 32. */
INLINE __m256i nibbles_of(const uint8_t *row, uint32_t n, uint32_t at)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(row + n + at % (n / 2)));
    return _mm256_and_si256(at < n / 2 ? x : _mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
}

/* And, of fp16, bits 8 and 9. */
INLINE __m256i upper_of(const uint8_t *row, uint32_t n, uint32_t at)
{
    const uint8_t *upper = row + n + n / 2;
    const __m256i two = _mm256_set1_epi8(3),
                  halves = _mm256_setr_epi64x(at / 8, at / 8, at / 8 + 2, at / 8 + 2);
    if (n == 128)
        return _mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)upper), (int)(at / 16)),
                                two);
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)upper));
    return _mm256_and_si256(_mm256_srlv_epi64(both, halves), two);
}

static inline void stream_bytes(__m256i low, __m256i high, uint16_t *out)
{
    low = _mm256_permute4x64_epi64(low, 0xd8);
    high = _mm256_permute4x64_epi64(high, 0xd8);
    _mm256_stream_si256((__m256i *)out, _mm256_unpacklo_epi8(low, high));
    _mm256_stream_si256((__m256i *)(out + 16), _mm256_unpackhi_epi8(low, high));
}

/* Puts the listed exponents in the place of those that are lost. */
static inline __m256i replace(__m256i exponents, uint32_t lost, const uint8_t *exceptions)
{
    uint8_t bytes[32] __attribute__((aligned(32)));
    _mm256_store_si256((__m256i *)bytes, exponents);
    for (; lost; lost &= lost - 1)
        bytes[__builtin_ctz(lost)] = *exceptions++;
    return _mm256_load_si256((const __m256i *)bytes);
}

/* 32 elements; returns their number of exceptions. */
INLINE uint32_t unpack_32(const uint8_t *row, uint32_t n, uint32_t at, uint8_t base, bool f16,
                          const uint8_t *exceptions, uint16_t *out)
{
    const __m256i sign = _mm256_set1_epi8((char)0x80), window = _mm256_set1_epi8(f16 ? 7 : 15);
    __m256i low = _mm256_loadu_si256((const __m256i *)(row + at)), nibbles = nibbles_of(row, n, at), high;
    __m256i codes = _mm256_and_si256(nibbles, window);
    uint32_t lost = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(codes, window));
    __m256i exponents = _mm256_sub_epi8(_mm256_set1_epi8((char)base), codes);
    if (lost)
        exponents = replace(exponents, lost, exceptions);
    if (f16) {
        high = _mm256_or_si256(_mm256_slli_epi16(exponents, 2), upper_of(row, n, at));
        high = _mm256_or_si256(high, _mm256_and_si256(_mm256_slli_epi16(nibbles, 4), sign));
    } else {
        high = _mm256_or_si256(_mm256_and_si256(low, sign),
                               _mm256_andnot_si256(sign, _mm256_srli_epi16(exponents, 1)));
        low = _mm256_or_si256(_mm256_andnot_si256(sign, low),
                              _mm256_and_si256(_mm256_slli_epi16(exponents, 7), sign));
    }
    stream_bytes(low, high, out);
    return (uint32_t)__builtin_popcount(lost);
}

INLINE uint32_t unpack_rows(const uint8_t *bases, const uint8_t *row, const uint8_t *exceptions,
                            uint32_t rows, uint32_t n, bool f16, uint16_t *out)
{
    const uint8_t *begin = exceptions;
    for (uint32_t i = 0; i < rows; i++, row += f16 ? n + n / 2 + n / 4 : n + n / 2) {
        for (uint32_t at = 0; at < n; at += 32, out += 32)
            exceptions += unpack_32(row, n, at, bases[i], f16, exceptions, out);
    }
    return (uint32_t)(exceptions - begin);
}

/* The rules of check_any(): CODEC_INSANE, or the number of exceptions. */
INLINE uint32_t check_rows(const uint8_t *bases, const uint8_t *row, const uint8_t *exceptions, size_t most,
                           uint32_t rows, uint32_t n, bool f16)
{
    const __m256i window = _mm256_set1_epi8(f16 ? 7 : 15);
    uint32_t total = 0, limit = f16 ? 7 : 15;
    __m256i bad = _mm256_setzero_si256();
    for (uint32_t i = 0; i < rows; i++, row += f16 ? n + n / 2 + n / 4 : n + n / 2) {
        __m256i base = _mm256_set1_epi8((char)bases[i]);
        uint32_t count = 0;
        for (uint32_t at = 0; at < n; at += 32) {
            __m256i codes = _mm256_and_si256(nibbles_of(row, n, at), window);
            __m256i lost = _mm256_cmpeq_epi8(codes, window);
            __m256i below = _mm256_xor_si256(_mm256_max_epu8(codes, base), base); /* not 0: code > base */
            bad = _mm256_or_si256(bad, _mm256_andnot_si256(lost, below));
            count += (uint32_t)__builtin_popcount((uint32_t)_mm256_movemask_epi8(lost));
        }
        if (count > most - total || (f16 && bases[i] > 31))
            return CODEC_INSANE;
        for (; count > 0; count--) {
            if (exceptions[total++] + limit > bases[i])
                return CODEC_INSANE;
        }
    }
    return _mm256_testz_si256(bad, bad) ? total : CODEC_INSANE;
}

#include "gpu/codec/codec_planes.inc"

const struct codec_level codec_avx2 = {"avx2",      within,    encode_tile, decode_tile, add_rows,
                                       read_halves, pack_tile, unpack_tile, check_planes};
