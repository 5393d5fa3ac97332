/*
 * The reference. Written to be read; every other level must give the same bytes. The arithmetic is that of
 * README.md, step by step in this order. Built with -ffp-contract=off.
 */
#include <math.h>
#include <string.h>

#include "gpu/codec/codec_impl.h"

float codec_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
    union {
        uint32_t u;
        float f;
    } v;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in fp32 */
        v.f = (float)fraction * 0x1p-24f;
        v.u |= sign;
        return v.f;
    }
    v.u =
        exponent == 31 ? sign | 0x7f800000 | fraction << 13 : sign | (exponent + 112) << 23 | fraction << 13;
    return v.f;
}

/* Shifts right by `shift` bits, rounding to nearest even. */
static uint32_t shift_rne(uint32_t value, uint32_t shift)
{
    uint32_t kept = value >> shift, rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (rest > half || (rest == half && (kept & 1)));
}

uint16_t codec_f32_to_f16(float value)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = value};
    uint32_t sign = (v.u >> 16) & 0x8000, magnitude = v.u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000000) /* below half of the least subnormal */
        return (uint16_t)sign;
    if (magnitude < 0x38800000) { /* subnormal result */
        uint32_t exponent = magnitude >> 23, fraction = (magnitude & 0x7fffff) | 0x800000;
        return (uint16_t)(sign | shift_rne(fraction, 126 - exponent));
    }
    return (uint16_t)(sign | (shift_rne(magnitude, 13) - (112u << 10)));
}

uint16_t codec_f32_to_bf16(float value)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = value};
    if ((v.u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(v.u >> 16 | 0x40);
    return (uint16_t)((v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16);
}

static float widen(uint16_t bits, enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_F16 ? codec_f16_to_f32(bits) : codec_bf16_to_f32(bits);
}

static uint16_t narrow(float value, enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_F16 ? codec_f32_to_f16(value) : codec_f32_to_bf16(value);
}

static bool within(const uint16_t *in, uint32_t count, uint16_t limit)
{
    for (uint32_t i = 0; i < count; i++) {
        if ((in[i] & 0x7fff) >= limit)
            return false;
    }
    return true;
}

/* --- transforms of one row ------------------------------------------------------------------------------ */

/* Back by the rotation of its position: each product and sum is rounded. */
static void turn_back(float *x, const float *turns, uint32_t half)
{
    for (uint32_t i = 0; turns && i < half; i++) {
        float c = turns[i], s = turns[half + i], a = x[i], b = x[half + i];
        float ac = a * c, bs = b * s, bc = b * c, as = a * s;
        x[i] = ac + bs;
        x[half + i] = bc - as;
    }
}

static void turn(float *x, const float *turns, uint32_t half)
{
    for (uint32_t i = 0; turns && i < half; i++) {
        float c = turns[i], s = turns[half + i], a = x[i], b = x[half + i];
        float ac = a * c, bs = b * s, bc = b * c, as = a * s;
        x[i] = ac - bs;
        x[half + i] = bc + as;
    }
}

/* Stages in the order of the bits of the index; its own inverse but for the factor. */
static void hadamard(float *x, uint32_t head_dim, uint32_t n, float factor)
{
    for (uint32_t block = 0; block < head_dim; block += n) {
        for (uint32_t step = 1; step < n; step *= 2) {
            for (uint32_t i = 0; i < n; i++) {
                float *a = x + block + i, *b = a + step, sum, difference;
                if (i & step)
                    continue;
                sum = *a + *b, difference = *a - *b;
                *a = sum, *b = difference;
            }
        }
        for (uint32_t i = 0; i < n; i++)
            x[block + i] *= factor;
    }
}

/* --- one group ------------------------------------------------------------------------------------------ */

struct group {
    float zero, inverse; /* code = round((x - zero) * inverse) + bias */
    int bias, least, most;
};

/* False: the tile must escape. The test of the top covers the restored values between, which lie in order. */
static bool asymmetric(const struct codec_side *side, float low, float high, uint16_t *scale,
                       uint16_t *minimum, struct group *g)
{
    *minimum = codec_f32_to_f16(low);
    float zero = codec_f16_to_f32(*minimum);
    if (!isfinite(zero))
        return false;
    float range = high - zero > 0 ? high - zero : 0; /* zero may have been rounded up beyond all of them */
    *scale = codec_f32_to_f16(range / 15.0f);
    float step = codec_f16_to_f32(*scale), top = zero + 15.0f * step;
    *g = (struct group){zero, step == 0 ? 0 : 1.0f / step, 0, 0, 15};
    return isfinite(step) && isfinite(widen(narrow(zero, side->dtype), side->dtype)) &&
           isfinite(widen(narrow(top, side->dtype), side->dtype));
}

/* 4 bits: the value that lies farther from zero gets code 0, with its sign in the scale. */
static bool symmetric(const struct codec_side *side, float low, float high, uint16_t *scale, struct group *g)
{
    float extreme = side->bits == 8 ? (high >= -low ? high : -low) : high >= -low ? high : low;
    *scale = codec_f32_to_f16(side->bits == 8 ? extreme / 127.0f : extreme / -8.0f);
    *scale = *scale == 0x8000 ? 0 : *scale;
    float step = codec_f16_to_f32(*scale), inverse = step == 0 ? 0 : 1.0f / step;
    *g = side->bits == 8 ? (struct group){0, inverse, 0, -127, 127} : (struct group){0, inverse, 8, 0, 15};
    return isfinite(step);
}

static uint8_t code_of(const struct group *g, float x)
{
    float scaled = nearbyintf((x - g->zero) * g->inverse) + (float)g->bias;
    return (uint8_t)(int)(scaled < (float)g->least  ? (float)g->least
                          : scaled > (float)g->most ? (float)g->most
                                                    : scaled);
}

static bool encode_group(const struct codec_side *side, const float *x, uint16_t *scale, uint16_t *minimum,
                         uint8_t *codes)
{
    struct group g;
    float low = x[0], high = x[0];
    uint32_t half = side->group / 2;
    for (uint32_t i = 0; i < side->group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    low += 0.0f, high += 0.0f; /* -0 and +0 are one */
    if (side->asym ? !asymmetric(side, low, high, scale, minimum, &g)
                   : !symmetric(side, low, high, scale, &g))
        return false;
    if (side->bits == 8) {
        for (uint32_t i = 0; i < side->group; i++)
            codes[i] = code_of(&g, x[i]);
        return true;
    }
    for (uint32_t i = 0; i < half; i++)
        codes[i] = (uint8_t)(code_of(&g, x[i]) | code_of(&g, x[i + half]) << 4);
    return true;
}

static void decode_group(const struct codec_side *side, uint16_t scale_bits, uint16_t minimum,
                         const uint8_t *codes, float *x)
{
    float scale = codec_f16_to_f32(scale_bits);
    uint32_t half = side->group / 2;
    if (side->bits == 8) {
        for (uint32_t i = 0; i < side->group; i++)
            x[i] = (float)(int8_t)codes[i] * scale + 0.0f;
        return;
    }
    float zero = side->asym ? codec_f16_to_f32(minimum) : -8.0f * scale;
    for (uint32_t i = 0; i < half; i++) {
        x[i] = zero + (float)(codes[i] & 15) * scale;
        x[i + half] = zero + (float)(codes[i] >> 4) * scale;
    }
}

/* --- tiles ---------------------------------------------------------------------------------------------- */

static void load_row(const struct codec_side *side, const uint16_t *in, const struct codec_centre *c,
                     uint32_t row, float *x)
{
    in += (size_t)row * side->head_dim;
    for (uint32_t i = 0; i < side->head_dim; i++)
        x[i] = widen(in[i], side->dtype);
    if (c)
        turn_back(x, c->turns ? c->turns + (size_t)row * side->head_dim : NULL, side->head_dim / 2);
}

static bool encode_tile(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                        const struct codec_centre *c, uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    (void)next;
    float x[CODEC_DIM_MAX] = {0};
    uint32_t per_row = side->head_dim / side->group, code_bytes = side->group * side->bits / 8;
    if (!within(in, CODEC_ROWS * side->head_dim, side->limit))
        return false;
    for (uint32_t row = 0; row < CODEC_ROWS; row++) {
        load_row(side, in, c, row, x);
        for (uint32_t i = 0; c && i < side->head_dim; i++)
            x[i] = row >= c->row_begin && row < c->row_end ? x[i] - c->mean[i] : 0;
        if (side->hadamard)
            hadamard(x, side->head_dim, side->hadamard, codec_factor_in(side->hadamard));
        for (uint32_t i = 0; i < per_row; i++) {
            uint32_t g = row * per_row + i;
            if (!encode_group(side, x + i * side->group, &scales[g], side->asym ? &minima[g] : NULL,
                              codes + (size_t)g * code_bytes))
                return false;
        }
    }
    return true;
}

static void decode_tile(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                        const uint8_t *codes, const struct codec_centre *c, uint32_t rows, uint16_t *out)
{
    float x[CODEC_DIM_MAX] = {0};
    uint32_t per_row = side->head_dim / side->group, code_bytes = side->group * side->bits / 8;
    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < per_row; i++) {
            uint32_t g = row * per_row + i;
            decode_group(side, codec_load16(scales + 2 * (size_t)g),
                         side->asym ? codec_load16(minima + 2 * (size_t)g) : 0,
                         codes + (size_t)g * code_bytes, x + i * side->group);
        }
        if (side->hadamard)
            hadamard(x, side->head_dim, side->hadamard, codec_factor_out(side->hadamard));
        for (uint32_t i = 0; c && i < side->head_dim; i++)
            x[i] += c->mean[i];
        if (c)
            turn(x, c->turns ? c->turns + (size_t)row * side->head_dim : NULL, side->head_dim / 2);
        for (uint32_t i = 0; i < side->head_dim; i++)
            out[(size_t)row * side->head_dim + i] = narrow(x[i], side->dtype);
    }
}

static void read_halves(const uint8_t *from, uint32_t count, float *to)
{
    for (uint32_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, from + 2 * (size_t)i, 2);
        to[i] = codec_f16_to_f32(bits);
    }
}

static void add_rows(const struct codec_side *side, const uint16_t *in, const struct codec_centre *c,
                     float *sums)
{
    float x[CODEC_DIM_MAX] = {0};
    for (uint32_t row = c->row_begin; row < c->row_end; row++) {
        for (uint32_t i = 0; i < side->head_dim; i++)
            x[i] = widen(in[(size_t)row * side->head_dim + i], side->dtype);
        codec_add_turned(x, c->turns ? c->turns + (size_t)row * side->head_dim : NULL, side->head_dim / 2,
                         sums);
    }
}

/* Bits of the bytes whose bits of `mask` are all set. */
static uint32_t match16(const uint8_t *at, uint8_t mask)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 16; i++)
        bits |= (uint32_t)((at[i] & mask) == mask) << i;
    return bits;
}

#include "gpu/codec/codec_lossless.inc"

const struct codec_level codec_scalar = {"scalar",    within,    encode_tile, decode_tile, add_rows,
                                         read_halves, pack_tile, unpack_any,  check_any};
