/*
 * AVX-512 with VBMI, VBMI2 and VNNI: Ice Lake, Zen 4 and later. With BF16, one instruction more. Groups of 16
 * go to AVX2: half of one does not fill a vector.
 */
#include "gpu/codec/codec_simd.inc"

typedef __m512 vec;
typedef __m512 table;

#define LANES 16u

static inline vec vec_load(const float *at)
{
    return _mm512_loadu_ps(at);
}

static inline void vec_store(float *at, vec x)
{
    _mm512_storeu_ps(at, x);
}

static inline vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

static inline vec vec_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}

static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

static inline vec vec_widen(const uint16_t *in, enum ts_dtype dtype)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)in);
    if (dtype == TS_DTYPE_F16)
        return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/* Vector at element `at` of 16-bit elements or (F32) of floats. */
static inline vec vec_from(const void *from, enum ts_dtype dtype, size_t at)
{
    return dtype == TS_DTYPE_F32 ? vec_load((const float *)from + at)
                                 : vec_widen((const uint16_t *)from + at, dtype);
}

static inline void vec_narrow(vec x, enum ts_dtype dtype, uint16_t *out)
{
    __m256i bits;
    if (dtype == TS_DTYPE_F16) {
        bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
    } else {
        __m512i v = _mm512_castps_si512(x);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
        v = _mm512_add_epi32(v, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        bits = _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16));
    }
    _mm256_stream_si256((__m256i *)out, bits);
}

/* Of each pair the sum, then the difference: the partner plus oneself times 1 or -1. The product is exact, so
 * the fused operation rounds as a sum does. */
static inline vec vec_butterflies(vec x)
{
    const vec odd = _mm512_setr_ps(1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1);
    const vec upper = _mm512_setr_ps(1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1);
    const vec second = _mm512_setr_ps(1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1);
    const vec high = _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1);
    x = _mm512_fmadd_ps(x, odd, _mm512_permute_ps(x, 0xb1));
    x = _mm512_fmadd_ps(x, upper, _mm512_permute_ps(x, 0x4e));
    x = _mm512_fmadd_ps(x, second, _mm512_shuffle_f32x4(x, x, 0xb1));
    return _mm512_fmadd_ps(x, high, _mm512_shuffle_f32x4(x, x, 0x4e));
}

static inline vec extreme(vec a, vec b, bool most)
{
    return most ? _mm512_max_ps(a, b) : _mm512_min_ps(a, b);
}

static inline vec vec_reduce(const vec *in, bool most)
{
    vec r[8];
    for (int i = 0; i < 8; i++)
        r[i] = extreme(_mm512_shuffle_f32x4(in[i], in[i + 8], 0x44),
                       _mm512_shuffle_f32x4(in[i], in[i + 8], 0xee), most);
    for (int i = 0; i < 4; i++)
        r[i] = extreme(_mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd),
                       most);
    for (int i = 0; i < 2; i++)
        r[i] = extreme(_mm512_unpacklo_ps(r[i], r[i + 2]), _mm512_unpackhi_ps(r[i], r[i + 2]), most);
    r[0] = extreme(_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]), most);
    return _mm512_shuffle_f32x4(r[0], r[0], 0xd8); /* fours 0, 8, 4, 12 in order */
}

static inline __m512i integers(const float *x, vec zero, vec inverse, int bias)
{
    __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x), zero), inverse));
    c = bias ? _mm512_add_epi32(c, _mm512_set1_epi32(bias)) : c;
    return _mm512_min_epi32(_mm512_max_epi32(c, _mm512_setzero_si512()), _mm512_set1_epi32(15));
}

static inline void vec_codes(const float *x, uint32_t half, vec zero, vec inverse, int bias, uint8_t *out)
{
    __m512i low = integers(x, zero, inverse, bias), high = integers(x + half, zero, inverse, bias);
    _mm_storeu_si128((__m128i *)out, _mm512_cvtepi32_epi8(_mm512_or_si512(low, _mm512_slli_epi32(high, 4))));
}

/* Codes of four vectors as bytes, fours of them interleaved; below 32768 where there is no bias. */
static inline __m512i bytes_of(const __m512i *c, int bias)
{
    __m512i a, b, shift = _mm512_set1_epi16((short)bias);
    if (bias == 0) { /* negative ones become 0 */
        a = _mm512_packus_epi32(c[0], c[1]);
        b = _mm512_packus_epi32(c[2], c[3]);
    } else {
        a = _mm512_adds_epi16(_mm512_packs_epi32(c[0], c[1]), shift);
        b = _mm512_adds_epi16(_mm512_packs_epi32(c[2], c[3]), shift);
    }
    return _mm512_min_epu8(_mm512_packus_epi16(a, b), _mm512_set1_epi8(15));
}

/* Low codes `low`, high codes `high`, in order. */
static inline void store_codes(const __m512i *low, const __m512i *high, int bias, uint8_t *out)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i both = _mm512_or_si512(bytes_of(low, bias), _mm512_slli_epi16(bytes_of(high, bias), 4));
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, both));
}

static inline __m512i codes_of(vec x, float zero, float inverse)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, _mm512_set1_ps(zero)), _mm512_set1_ps(inverse)));
}

static inline void codes_64(const void *from, enum ts_dtype dtype, const float *zero, const float *inverse,
                            uint8_t *out)
{
    __m512i low[4], high[4];
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t group = i / 2, at = group * 64 + i % 2 * 16;
        low[i] = codes_of(vec_from(from, dtype, at), zero[group], inverse[group]);
        high[i] = codes_of(vec_from(from, dtype, at + 32), zero[group], inverse[group]);
    }
    store_codes(low, high, 0, out);
}

static inline void codes_32(const float *x, const float *inverse, uint8_t *out)
{
    __m512i low[4], high[4];
    for (uint32_t i = 0; i < 4; i++) {
        low[i] = codes_of(vec_load(x + i * 32), 0, inverse[i]);
        high[i] = codes_of(vec_load(x + i * 32 + 16), 0, inverse[i]);
    }
    store_codes(low, high, 8, out);
}

static inline void vec_bytes(const float *x, vec inverse, uint8_t *out)
{
    __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inverse));
    _mm_storeu_si128((__m128i *)out, _mm512_cvtsepi32_epi8(_mm512_max_epi32(c, _mm512_set1_epi32(-127))));
}

static inline table vec_table(float zero, float step)
{
    const vec codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_ps(_mm512_set1_ps(zero), _mm512_mul_ps(codes, _mm512_set1_ps(step)));
}

/* The look-up reads only the low four bits of an index. */
static inline vec vec_restore(const uint8_t *codes, table t, bool high)
{
    __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(c, 4) : c, t);
}

static inline vec vec_restore_bytes(const uint8_t *codes, vec step)
{
    __m512i c = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes));
    return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(c), step), _mm512_setzero_ps());
}

/* --- groups of 64 in whole numbers ------------------------------------------------------------------------
 * (codec_rows.inc says when.) Bytes first: a code for each byte, four of a doubleword that differ in two bits
 * of the index, and these last. For fp16 they are bits 4 and 5, so that each vector of the result has 16
 * elements that follow each other; for bf16 bits 0 and 5, so that two vectors make pairs of elements. The
 * other four bits and the group are a bit of the vector (x or y) and the lane; each stage adds and subtracts
 * x and y and swaps what it had there for the next bit. */

#define WHOLE_BIAS -0x1.8p23f

struct bytes {
    __m512i x, y;
};

static inline struct bytes stage(struct bytes b)
{
    return (struct bytes){_mm512_add_epi8(b.x, b.y), _mm512_sub_epi8(b.x, b.y)};
}

static inline __m512i pick(__m512i a, __m512i b, int odd)
{
    __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_castps_si512(odd ? _mm512_shuffle_ps(x, y, 0xdd) : _mm512_shuffle_ps(x, y, 0x88));
}

static inline struct bytes swap_lanes(struct bytes b)
{
    return (struct bytes){pick(b.x, b.y, 0), pick(b.x, b.y, 1)};
}

static inline struct bytes swap_quarters(struct bytes b)
{
    return (struct bytes){_mm512_shuffle_i32x4(b.x, b.y, 0x88), _mm512_shuffle_i32x4(b.x, b.y, 0xdd)};
}

#define EACH(x)                                                                                              \
    {                                                                                                        \
        x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x                                                       \
    }
#define FIRST(x, y)                                                                                          \
    {                                                                                                        \
        x, y, y, y, y, y, y, y, y, y, y, y, y, y, y, y                                                       \
    }
#define BASE_BITS 0x4b400000u /* 3 x 2^22 */

/* In memory, where the compiler would make each anew for every pair: that takes the port of the shuffles. */
static const struct constants {
    uint32_t order[2][2][16]; /* bytes of a code: fp16, bf16; x, y */
    uint32_t upper[16], nibble[16], less[16], less_first[16];
    uint32_t base[16], base_all[16], plus[16], signs[3][16];
    uint32_t half[16], odd[16], one[16];
} constants __attribute__((aligned(64))) = {
    .order =
        {{{0x10001000, 0x12021202, 0x14041404, 0x16061606, 0x18081808, 0x1a0a1a0a, 0x1c0c1c0c, 0x1e0e1e0e,
           0x30203020, 0x32223222, 0x34243424, 0x36263626, 0x38283828, 0x3a2a3a2a, 0x3c2c3c2c, 0x3e2e3e2e},
          {0x11011101, 0x13031303, 0x15051505, 0x17071707, 0x19091909, 0x1b0b1b0b, 0x1d0d1d0d, 0x1f0f1f0f,
           0x31213121, 0x33233323, 0x35253525, 0x37273727, 0x39293929, 0x3b2b3b2b, 0x3d2d3d2d, 0x3f2f3f2f}},
         {{0x01000100, 0x05040504, 0x09080908, 0x0d0c0d0c, 0x11101110, 0x15141514, 0x19181918, 0x1d1c1d1c,
           0x21202120, 0x25242524, 0x29282928, 0x2d2c2d2c, 0x31303130, 0x35343534, 0x39383938, 0x3d3c3d3c},
          {0x03020302, 0x07060706, 0x0b0a0b0a, 0x0f0e0f0e, 0x13121312, 0x17161716, 0x1b1a1b1a, 0x1f1e1f1e,
           0x23222322, 0x27262726, 0x2b2a2b2a, 0x2f2e2f2e, 0x33323332, 0x37363736, 0x3b3a3b3a, 0x3f3e3f3e}}},
    .upper = EACH(4 << 16),
    .nibble = EACH(0x0f0f0f0f),
    .less = EACH(0xf8f8f8f8),
    .less_first = {0x78787878, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8,
                   0xf8f8f8f8, 0x78787878, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8, 0xf8f8f8f8,
                   0xf8f8f8f8, 0xf8f8f8f8},
    .base = EACH(BASE_BITS),
    .base_all = FIRST(BASE_BITS, BASE_BITS - 4 * 128),
    .plus = EACH(0x01010101),
    .signs = {EACH(0xff01ff01), EACH(0xffff0101), EACH(0x01ffff01)},
    .half = EACH(0x7fff),
    .odd = EACH(0x10000),
    .one = EACH(1),
};

static inline __m512i load(const uint32_t *at)
{
    return _mm512_load_si512(at);
}

/* Codes of two groups, one of x and one of y after it; sums of sixteen, less 128 but for the sum of all. That
 * comes from 8 taken off each code, and 128 added to the first one. */
INLINE struct bytes sums_of_16(const struct constants *k, const uint8_t *codes, enum whole_out to)
{
    const uint32_t(*order)[16] = k->order[to == TO_BF16];
    __m512i c = _mm512_loadu_si512(codes);
    __m512i x = _mm512_srlv_epi16(_mm512_permutexvar_epi8(load(order[0]), c), load(k->upper));
    __m512i y = _mm512_srlv_epi16(_mm512_permutexvar_epi8(load(order[1]), c), load(k->upper));
    struct bytes b = {_mm512_add_epi8(_mm512_and_si512(x, load(k->nibble)), load(k->less_first)),
                      _mm512_add_epi8(_mm512_and_si512(y, load(k->nibble)), load(k->less))};
    b = swap_lanes(stage(b));
    b = swap_lanes(stage(b));
    b = swap_quarters(stage(b));
    return swap_quarters(stage(b));
}

/* The last two stages, and the values: integers are added to the bits of 3 x 2^22, so that they are the
 * fraction of a float, and the fused operation takes that off again. Every step is exact. */
INLINE void values_of_64(const struct constants *k, __m512i sums, const struct codec_steps *s, uint32_t g,
                         vec *x)
{
    vec scale = vec_set(s->scale[g]), less = vec_set(s->less[g]);
    __m512i n[4] = {_mm512_dpbusd_epi32(load(k->base_all), sums, load(k->plus)),
                    _mm512_dpbusd_epi32(load(k->base), sums, load(k->signs[0])),
                    _mm512_dpbusd_epi32(load(k->base), sums, load(k->signs[1])),
                    _mm512_dpbusd_epi32(load(k->base), sums, load(k->signs[2]))};
    for (int i = 0; i < 4; i++)
        x[i] = _mm512_fmadd_ps(_mm512_castsi512_ps(n[i]), scale, less);
    x[0] = _mm512_add_ps(x[0], _mm512_zextps128_ps512(_mm_load_ss(&s->all[g])));
}

/* To nearest even, in the upper halves. */
static inline __m512i round_bf16(const struct constants *k, vec x)
{
    __m512i v = _mm512_castps_si512(x), r = _mm512_add_epi32(v, load(k->half));
    return _mm512_mask_add_epi32(r, _mm512_test_epi32_mask(v, load(k->odd)), r, load(k->one));
}

static inline void stream_32(__m512i x, uint16_t *out)
{
    _mm256_stream_si256((__m256i *)out, _mm512_castsi512_si256(x));
    _mm256_stream_si256((__m256i *)(out + 16), _mm512_extracti64x4_epi64(x, 1));
}

/* The instruction takes subnormals for zeros: there are none in multiples of 2^-28. */
INLINE void store_64(const struct constants *k, const vec *x, enum whole_out to, uint16_t *out)
{
    for (int i = 0; to == TO_F16 && i < 4; i++)
        vec_narrow(x[i], TS_DTYPE_F16, out + 16 * i);
    for (int i = 0; to == TO_BF16_PAIRS && i < 4; i += 2)
        stream_32((__m512i)_mm512_cvtne2ps_pbh(x[i + 1], x[i]), out + 16 * i);
    for (int i = 0; to == TO_BF16 && i < 4; i += 2) {
        __m512i even = _mm512_srli_epi32(round_bf16(k, x[i]), 16), odd = round_bf16(k, x[i + 1]);
        stream_32(_mm512_mask_blend_epi16(0xaaaaaaaa, even, odd), out + 16 * i);
    }
}

/* Two groups: of one transform of 128, or each of one of its own. */
INLINE void decode_pair(const struct codec_steps *s, uint32_t g, const uint8_t *codes, bool joined,
                        enum whole_out to, uint16_t *out)
{
    const struct constants *k = &constants;
    __asm__("" : "+r"(k)); /* nothing is known of what lies there */
    struct bytes b = sums_of_16(k, codes, to);
    vec x[8];
    values_of_64(k, b.x, s, g, x);
    values_of_64(k, b.y, s, g + 1, x + 4);
    for (int i = 0; joined && i < 4; i++) {
        vec sum = vec_add(x[i], x[i + 4]);
        x[i + 4] = vec_sub(x[i], x[i + 4]);
        x[i] = sum;
    }
    store_64(k, x, to, out);
    store_64(k, x + 4, to, out + 64);
}

/* `count` is a multiple of 64: sixteen rows of sixteen elements or more. */
static bool within(const uint16_t *in, uint32_t count, uint16_t limit)
{
    const __m512i magnitude = _mm512_set1_epi16(0x7fff);
    __m512i a = _mm512_setzero_si512(), b = a;
    for (uint32_t i = 0; i < count; i += 64) {
        a = _mm512_max_epu16(a, _mm512_and_si512(_mm512_loadu_si512(in + i), magnitude));
        b = _mm512_max_epu16(b, _mm512_and_si512(_mm512_loadu_si512(in + i + 32), magnitude));
    }
    return _mm512_cmpge_epu16_mask(_mm512_max_epu16(a, b), _mm512_set1_epi16((short)limit)) == 0;
}

#include "gpu/codec/codec_rows.inc"

/* --- plain sides ---------------------------------------------------------------------------------------- */

static inline __m512i codes16(const uint16_t *in, enum ts_dtype dtype, __m512 zero, __m512 inverse)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)in);
    __m512 x = dtype == TS_DTYPE_F16
                   ? _mm512_cvtph_ps(bits)
                   : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, zero), inverse));
    return _mm512_min_epi32(_mm512_max_epi32(c, _mm512_setzero_si512()), _mm512_set1_epi32(15));
}

static inline bool encode_as(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                             enum ts_dtype dtype, uint32_t group, uint16_t *scales, uint16_t *minima,
                             uint8_t *codes)
{
    struct codec_groups g;
    uint32_t half = group / 2;
    codec_plain_extremes(side, in, next, group, &g);
    if (!codec_asymmetric(&g, dtype, side->groups, scales, minima))
        return false;
    for (uint32_t i = 0; group == 64 && i < side->groups; i += 2)
        codes_64(in + (size_t)i * 64, dtype, g.zero + i, g.inverse + i, codes + (size_t)i * 32);
    for (uint32_t i = 0; group != 64 && i < side->groups; i++) {
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

static bool encode_tile(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                        const struct codec_centre *centre, uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    if (side->bits == 4 && side->group < 32)
        return codec_avx2.encode_tile(side, in, next, centre, scales, minima, codes);
    if (!codec_is_plain(side))
        return encode_moved(side, in, next, centre, scales, minima, codes);
    if (side->dtype == TS_DTYPE_F16 && side->group == 64) /* the common ones with their loops unrolled */
        return encode_as(side, in, next, TS_DTYPE_F16, 64, scales, minima, codes);
    if (side->dtype == TS_DTYPE_BF16 && side->group == 64)
        return encode_as(side, in, next, TS_DTYPE_BF16, 64, scales, minima, codes);
    return encode_as(side, in, next, side->dtype, side->group, scales, minima, codes);
}

static void restore_tile(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                         const uint8_t *codes, const struct codec_centre *centre, uint32_t rows, bool at_once,
                         uint16_t *out)
{
    uint32_t group = side->group, count = rows * (side->head_dim / group), half = group / 2;
    if (side->bits == 4 && group < 32) {
        codec_avx2.decode_tile(side, scales, minima, codes, centre, rows, out);
        return;
    }
    if (!codec_is_plain(side)) {
        decode_moved(side, scales, minima, codes, centre, rows, at_once, out);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        __m256i values = codec_table(codec_load16(scales + 2 * i), codec_load16(minima + 2 * i), side->dtype);
        uint16_t *to = out + (size_t)i * group;
        for (uint32_t j = 0; j < half; j += 16) {
            /* The look-up reads only the low four bits of an index. */
            __m256i pairs =
                _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + (size_t)i * half + j)));
            _mm256_stream_si256((__m256i *)(to + j), _mm256_permutexvar_epi16(pairs, values));
            _mm256_stream_si256((__m256i *)(to + half + j),
                                _mm256_permutexvar_epi16(_mm256_srli_epi16(pairs, 4), values));
        }
    }
}

static void decode_tile(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                        const uint8_t *codes, const struct codec_centre *centre, uint32_t rows, uint16_t *out)
{
    restore_tile(side, scales, minima, codes, centre, rows, false, out);
}

static void decode_tile_bf16(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                             const uint8_t *codes, const struct codec_centre *centre, uint32_t rows,
                             uint16_t *out)
{
    restore_tile(side, scales, minima, codes, centre, rows, true, out);
}

#include "gpu/codec/codec_lossless.inc"

/* Where a row of 64 or 128 elements of a lossless side lies, and 64 of its elements: their nibbles, and in
 * fp16 their bits 8 and 9. */
struct planes {
    __m512i nibbles, upper;
};

INLINE struct planes planes_of(const uint8_t *row, uint32_t n, uint32_t at, bool f16)
{
    const __m512i halves = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    const __m512i quarters =
        n == 64 ? _mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6)
                : _mm512_add_epi64(_mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2), _mm512_set1_epi64(at / 16));
    const uint8_t *nibbles = row + n, *upper = nibbles + n / 2;
    struct planes p = {.upper = _mm512_setzero_si512()};
    if (n == 64)
        p.nibbles =
            _mm512_srlv_epi64(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)nibbles)), halves);
    else
        p.nibbles = _mm512_srli_epi16(_mm512_loadu_si512(nibbles), at / 16);
    p.nibbles = _mm512_and_si512(p.nibbles, _mm512_set1_epi8(15));
    if (f16 && n == 64)
        p.upper = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)upper));
    else if (f16)
        p.upper = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)upper));
    if (f16)
        p.upper = _mm512_and_si512(_mm512_srlv_epi64(p.upper, quarters), _mm512_set1_epi8(3));
    return p;
}

/* `count` bytes, zeros behind them; nothing beyond is touched. */
static inline __m512i load_some(const uint8_t *at, uint32_t count)
{
    return _mm512_maskz_loadu_epi8(count < 64 ? ((__mmask64)1 << count) - 1 : ~(__mmask64)0, at);
}

/* Low and high bytes of 64 elements. */
static inline void stream_64(__m512i low, __m512i high, uint16_t *out)
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    low = _mm512_permutexvar_epi64(order, low);
    high = _mm512_permutexvar_epi64(order, high);
    stream_32(_mm512_unpacklo_epi8(low, high), out);
    stream_32(_mm512_unpackhi_epi8(low, high), out + 32);
}

/* 64 elements; returns their number of exceptions. */
INLINE uint32_t unpack_64(__m512i low, struct planes p, uint8_t base, bool f16, const uint8_t *exceptions,
                          uint16_t *out)
{
    const __m512i sign = _mm512_set1_epi8((char)0x80), window = _mm512_set1_epi8(f16 ? 7 : 15);
    __m512i codes = f16 ? _mm512_and_si512(p.nibbles, window) : p.nibbles;
    __mmask64 lost = _mm512_cmpeq_epi8_mask(codes, window);
    uint32_t count = (uint32_t)__builtin_popcountll(lost);
    __m512i exponents = _mm512_sub_epi8(_mm512_set1_epi8((char)base), codes), high;
    if (lost)
        exponents = _mm512_mask_expand_epi8(exponents, lost, load_some(exceptions, count));
    if (f16) {
        high = _mm512_or_si512(_mm512_slli_epi16(exponents, 2), p.upper);
        high = _mm512_ternarylogic_epi64(sign, _mm512_slli_epi16(p.nibbles, 4), high, 0xca);
    } else {
        high = _mm512_ternarylogic_epi64(sign, low, _mm512_srli_epi16(exponents, 1), 0xca);
        low = _mm512_ternarylogic_epi64(sign, _mm512_slli_epi16(exponents, 7), low, 0xca);
    }
    stream_64(low, high, out);
    return count;
}

INLINE uint32_t unpack_rows(const uint8_t *bases, const uint8_t *row, const uint8_t *exceptions,
                            uint32_t rows, uint32_t n, bool f16, uint16_t *out)
{
    const uint8_t *begin = exceptions;
    for (uint32_t i = 0; i < rows; i++, row += f16 ? n + n / 2 + n / 4 : n + n / 2) {
        for (uint32_t at = 0; at < n; at += 64, out += 64)
            exceptions += unpack_64(_mm512_loadu_si512(row + at), planes_of(row, n, at, f16), bases[i], f16,
                                    exceptions, out);
    }
    return (uint32_t)(exceptions - begin);
}

/* The rules of check_any(): CODEC_INSANE, or the number of exceptions. */
INLINE uint32_t check_rows(const uint8_t *bases, const uint8_t *row, const uint8_t *exceptions, size_t most,
                           uint32_t rows, uint32_t n, bool f16)
{
    const __m512i window = _mm512_set1_epi8(f16 ? 7 : 15);
    uint32_t total = 0, limit = f16 ? 7 : 15;
    __mmask64 bad = 0;
    for (uint32_t i = 0; i < rows; i++, row += f16 ? n + n / 2 + n / 4 : n + n / 2) {
        __m512i base = _mm512_set1_epi8((char)bases[i]);
        bad |= (__mmask64)(f16 && bases[i] > 31);
        for (uint32_t at = 0; at < n; at += 64) {
            __m512i codes = _mm512_and_si512(planes_of(row, n, at, false).nibbles, window);
            __mmask64 lost = _mm512_cmpeq_epi8_mask(codes, window);
            uint32_t count = (uint32_t)__builtin_popcountll(lost);
            bad |= _mm512_mask_cmpgt_epu8_mask(~lost, codes, base);
            if (count > most - total || (count > 0 && bases[i] < limit))
                return CODEC_INSANE;
            bad |=
                _mm512_cmpgt_epu8_mask(load_some(exceptions + total, count), _mm512_sub_epi8(base, window));
            total += count;
        }
    }
    return bad ? CODEC_INSANE : total;
}

#include "gpu/codec/codec_planes.inc"

const struct codec_level codec_avx512 = {"avx512",    within,    encode_tile, decode_tile, add_rows,
                                         read_halves, pack_tile, unpack_tile, check_planes};

const struct codec_level codec_avx512bf16 = {"avx512bf16", within,    encode_tile, decode_tile_bf16, add_rows,
                                             read_halves,  pack_tile, unpack_tile, check_planes};
