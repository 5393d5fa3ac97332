/*
 * The codec's divisions. Of a range by 15 or 127 in three operations: where its result could round to another
 * fp16 than IEEE's, which is a few units of the last place around the middle of two neighbours; `--all` goes
 * through all x instead. The inverse of each step from what a device may say of it, 1 ulp off.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/cuda/codec/codec_encode.cuh"

static bool same(float x, float divisor, float reciprocal)
{
    uint32_t is = quotient_f16(x, divisor, reciprocal), want = codec_f32_to_f16(x / divisor);
    if (is != want)
        printf("%a / %g: %04x, not %04x\n", (double)x, (double)divisor, is, want);
    return is == want;
}

static bool around(float x, float divisor, float reciprocal)
{
    uint32_t bits = kernel_bits_of(x);
    bool good = true;
    for (uint32_t i = bits < 16 ? 0 : bits - 16; i <= bits + 16; i++)
        good &= same(kernel_float_of(i), divisor, reciprocal);
    return good;
}

static bool near_middles(float divisor, float reciprocal)
{
    bool good = true;
    for (uint32_t half = 0; half < 0x7c00; half++) {
        float low = codec_f16_to_f32((uint16_t)half),
              high = half == 0x7bff ? 65536 : codec_f16_to_f32((uint16_t)(half + 1));
        good &= around((low + high) / 2 * divisor, divisor, reciprocal);
    }
    return good;
}

static bool inverses(void)
{
    for (uint32_t half = 1; half < 0x7c00; half++) {
        float step = codec_f16_to_f32((uint16_t)half), want = 1 / step;
        for (uint32_t ulp = 0; ulp < 3; ulp++) {
            float is = inverse_of(step, kernel_float_of(kernel_bits_of(want) + ulp - 1));
            if (is != want) {
                printf("1 / %a: %a, not %a\n", (double)step, (double)is, (double)want);
                return false;
            }
        }
    }
    return inverse_of(0, INFINITY) == 0;
}

int main(int argc, char **argv)
{
    bool good = near_middles(15, 1.0f / 15) && near_middles(127, 1.0f / 127) && inverses();
    if (argc > 1 && strcmp(argv[1], "--all") == 0) {
        for (uint32_t bits = 0; bits < 0x7f800000u && good; bits++)
            good = same(kernel_float_of(bits), 15, 1.0f / 15) && same(kernel_float_of(bits), 127, 1.0f / 127);
    }
    return !good;
}
