/*
 * The reference. Written to be read; every other level must give the same bytes (kernels.md 1.7):
 * widen exactly; zero = RN16(min); scale = RN16((max - zero) / 15); inv = 1 / scale from the rounded scale;
 * code = RNE((x - zero) * inv) clamped to 0..15; restored value = zero + code * scale, rounded to the cache
 * type to nearest even. Built with -ffp-contract=off.
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

/* False: the tile must escape. The last test covers the restored values between, which lie in order. */
static bool group_parameters(const float *x, enum ts_dtype dtype, uint32_t group, uint16_t *scale,
                             uint16_t *minimum)
{
    float low = x[0], high = x[0];
    for (uint32_t i = 0; i < group; i++) {
        if (!isfinite(x[i]))
            return false;
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *minimum = codec_f32_to_f16(low + 0.0f);
    float zero = codec_f16_to_f32(*minimum);
    if (!isfinite(zero))
        return false;
    *scale = codec_f32_to_f16((high + 0.0f - zero) / 15.0f);
    float step = codec_f16_to_f32(*scale), top = zero + 15.0f * step;
    return isfinite(step) && isfinite(widen(narrow(zero, dtype), dtype)) &&
           isfinite(widen(narrow(top, dtype), dtype));
}

static uint8_t code_of(float x, float zero, float inverse)
{
    float scaled = nearbyintf((x - zero) * inverse);
    return (uint8_t)(scaled < 0 ? 0 : scaled > 15 ? 15 : scaled);
}

static bool encode_group(const uint16_t *in, enum ts_dtype dtype, uint32_t group, uint16_t *scale,
                         uint16_t *minimum, uint8_t *codes)
{
    float x[256] = {0};
    for (uint32_t i = 0; i < group; i++)
        x[i] = widen(in[i], dtype);
    if (!group_parameters(x, dtype, group, scale, minimum))
        return false;
    if ((*scale & 0x7fff) == 0) {
        *scale = 0;
        memset(codes, 0, group / 2);
        return true;
    }
    float zero = codec_f16_to_f32(*minimum), inverse = 1.0f / codec_f16_to_f32(*scale);
    for (uint32_t i = 0; i < group / 2; i++)
        codes[i] = (uint8_t)(code_of(x[i], zero, inverse) | code_of(x[i + group / 2], zero, inverse) << 4);
    return true;
}

static bool encode_tile(const uint16_t *in, enum ts_dtype dtype, uint32_t head_dim, uint32_t group,
                        uint16_t *scales, uint16_t *minima, uint8_t *codes)
{
    uint32_t groups = TS_KV_BLOCK_TOKENS * (head_dim / group);
    for (uint32_t g = 0; g < groups; g++) {
        if (!encode_group(in + (size_t)g * group, dtype, group, &scales[g], &minima[g],
                          codes + (size_t)g * (group / 2)))
            return false;
    }
    return true;
}

static void decode_tile(const uint16_t *scales, const uint16_t *minima, const uint8_t *codes,
                        enum ts_dtype dtype, uint32_t rows, uint32_t head_dim, uint32_t group, uint16_t *out)
{
    uint32_t groups = rows * (head_dim / group), half = group / 2;
    for (uint32_t g = 0; g < groups; g++) {
        float scale = codec_f16_to_f32(scales[g]), zero = codec_f16_to_f32(minima[g]);
        for (uint32_t i = 0; i < half; i++) {
            uint8_t pair = codes[(size_t)g * half + i];
            float low = zero + (float)(pair & 15) * scale, high = zero + (float)(pair >> 4) * scale;
            uint16_t *at = out + (size_t)g * group + i;
            at[0] = narrow(low, dtype);
            at[half] = narrow(high, dtype);
        }
    }
}

const struct codec_level codec_scalar = {"scalar", encode_tile, decode_tile};
