/* The twins of the PTX wrappers against the PTX manual, element by element. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/kernel_words_args.h"

extern const struct kernel_host_entry words_host_kernels[];

static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 7};

static void launch(uint32_t kernel, const struct words_args *args)
{
    const struct ts_cuda_dim one = {1, 1, 1}, warp = {32, 1, 1};
    kernel_host_launch(words_host_kernels[kernel].kernel, args, one, warp);
}

static float widen(uint16_t bits, bool bf16)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return bf16 ? value : codec_f16_to_f32(bits);
}

static uint16_t narrow(float value, bool bf16)
{
    return bf16 ? codec_f32_to_bf16(value) : codec_f32_to_f16(value);
}

static void multiply(bool bf16, struct ts_rng *rng)
{
    uint16_t a[16 * 16], b[16 * 8];
    float d[16 * 8];
    double want[16 * 8];
    for (uint32_t i = 0; i < 16 * 16; i++)
        a[i] = narrow((float)ts_rng_unit(rng) - 0.5f, bf16);
    for (uint32_t i = 0; i < 16 * 8; i++) {
        b[i] = narrow((float)ts_rng_unit(rng) - 0.5f, bf16);
        d[i] = (float)ts_rng_unit(rng);
        want[i] = (double)d[i];
    }
    for (uint32_t i = 0; i < 16 * 8; i++) {
        for (uint32_t k = 0; k < 16; k++)
            want[i] += (double)widen(a[i / 8 * 16 + k], bf16) * (double)widen(b[k * 8 + i % 8], bf16);
    }
    launch(0, &(struct words_args){.a = a, .b = b, .d = d, .bf16 = bf16});
    for (uint32_t i = 0; i < 16 * 8; i++)
        assert_true(fabs((double)d[i] - want[i]) <= 1e-6);
}

static void test_multiply(void **state)
{
    struct ts_rng rng;
    (void)state;
    ts_rng_init(&rng, 3);
    for (uint32_t i = 0; i < 3; i++) {
        kernel_host_set_order(orders[i]);
        multiply(false, &rng);
        multiply(true, &rng);
    }
}

static uint32_t pair_of(const uint16_t *rows, uint32_t matrix, uint32_t lane, bool trans)
{
    uint32_t low = lane / 4 * 8 + 2 * (lane % 4), high = low + 1;
    if (trans) {
        low = 2 * (lane % 4) * 8 + lane / 4;
        high = low + 8;
    }
    return rows[matrix * 64 + low] | (uint32_t)rows[matrix * 64 + high] << 16;
}

static void test_load(void **state)
{
    _Alignas(16) uint16_t rows[32 * 8];
    uint32_t out[32 * 12];
    (void)state;
    for (uint32_t i = 0; i < 32 * 8; i++)
        rows[i] = (uint16_t)(i * 257 + 1);
    for (uint32_t o = 0; o < 3; o++) {
        kernel_host_set_order(orders[o]);
        memset(out, 0, sizeof out);
        launch(1, &(struct words_args){.a = rows, .out = out});
        for (uint32_t lane = 0; lane < 32; lane++) {
            for (uint32_t i = 0; i < 4; i++) {
                assert_int_equal(out[lane * 12 + i], pair_of(rows, i, lane, false));
                assert_int_equal(out[lane * 12 + 4 + i], pair_of(rows, i, lane, true));
            }
            for (uint32_t i = 0; i < 2; i++) {
                assert_int_equal(out[lane * 12 + 8 + i], pair_of(rows, i, lane, false));
                assert_int_equal(out[lane * 12 + 10 + i], pair_of(rows, i, lane, true));
            }
        }
    }
}

static void test_copy(void **state)
{
    _Alignas(16) uint32_t from[32 * 4], out[WORDS_ROWS * 4];
    (void)state;
    for (uint32_t i = 0; i < 32 * 4; i++)
        from[i] = i + 1;
    for (uint32_t o = 0; o < 3; o++) {
        kernel_host_set_order(orders[o]);
        memset(out, 0xff, sizeof out);
        launch(2, &(struct words_args){.a = (const uint16_t *)from, .out = out});
        for (uint32_t row = 0; row < 32; row++) {
            uint32_t source = row ^ 1;
            for (uint32_t i = 0; i < 4; i++) {
                assert_int_equal(out[row * 4 + i], source < 16 ? from[source * 4 + i] : 0);
                assert_int_equal(out[(32 + row) * 4 + i], source < 16 ? from[(31 - source) * 4 + i] : 0);
            }
        }
    }
}

/* --- a b + c of 16-bit halves --------------------------------------------------------------------------- */

struct halves {
    uint16_t a[64], b[64], c[64]; /* words' halves, the lower one first; c becomes the sums */
};

static void fma_halves(struct halves *h, bool bf16)
{
    _Alignas(4) struct halves aligned = *h;
    launch(3, &(struct words_args){
                  .a = aligned.a, .b = aligned.b, .out = (uint32_t *)(void *)aligned.c, .bf16 = bf16});
    *h = aligned;
}

/* No number is nearer to `exact` than `bits`, and none as near is more even. */
static void assert_nearest(uint16_t bits, double exact, bool bf16)
{
    double off = fabs((double)widen(bits, bf16) - exact);
    for (int step = -1; step <= 1; step += 2) {
        double other = fabs((double)widen((uint16_t)(bits + step), bf16) - exact);
        assert_true(off < other || (off <= other && bits % 2 == 0));
    }
}

static void test_fma(void **state)
{
    struct halves h, before;
    struct ts_rng rng;
    (void)state;
    ts_rng_init(&rng, 11);
    for (uint32_t round = 0; round < 400; round++) {
        bool bf16 = round % 2 != 0;
        for (uint32_t i = 0; i < 64; i++) { /* sums have 53 places or less */
            h.a[i] = narrow((float)(ts_rng_normal(&rng) + 0.01), bf16);
            h.b[i] = narrow((float)(ts_rng_normal(&rng) + 0.01), bf16);
            h.c[i] = narrow((float)ts_rng_below(&rng, 2000) / 256 + 0.25f, bf16);
        }
        before = h;
        fma_halves(&h, bf16);
        for (uint32_t i = 0; i < 64; i++) {
            double product = (double)widen(before.a[i], bf16) * (double)widen(before.b[i], bf16);
            double sum = product + (double)widen(before.c[i], bf16);
            if (fabs(sum) > 1e-3)
                assert_nearest(h.c[i], sum, bf16);
        }
    }
}

/* What int8 weights need of it: a byte as bits is a subnormal number, or one of the least. Half way between
 * two numbers the least one decides; and what is no number stays none. */
static void test_fma_ends(void **state)
{
    (void)state;
    for (uint32_t bf16 = 0; bf16 < 2; bf16++) {
        struct halves h;
        for (uint32_t first = 0; first < 256; first += 64) {
            for (uint32_t i = 0; i < 64; i++) {
                h.a[i] = (uint16_t)(first + i);
                h.b[i] = bf16 ? 0x7f00 : 0x7800;
                h.c[i] = bf16 ? 0xc000 : 0xb400;
            }
            fma_halves(&h, bf16);
            for (uint32_t i = 0; i < 64; i++) {
                float x = (float)((int)(first + i) - 128);
                assert_true(widen(h.c[i], bf16) == x / (bf16 ? 64.0f : 512.0f) && h.c[i] != 0x8000);
            }
        }
        /* 3 x 91 = 273 of bf16, 3 x 683 = 2049 of fp16: one place too many */
        const uint16_t none = bf16 ? 0x7f80 : 0x7c00, least[] = {0, 1, 0x8001};
        const float want[] = {bf16 ? 272 : 2048, bf16 ? 274 : 2050, bf16 ? 272 : 2048};
        memset(&h, 0, sizeof h);
        for (uint32_t i = 0; i < 3; i++) {
            h.a[i] = narrow(3, bf16);
            h.b[i] = narrow(bf16 ? 91 : 683, bf16);
            h.c[i] = least[i];
        }
        h.a[3] = none;
        h.b[3] = narrow(2, bf16);
        h.a[4] = none; /* times 0 */
        fma_halves(&h, bf16);
        for (uint32_t i = 0; i < 3; i++)
            assert_true(widen(h.c[i], bf16) == want[i]);
        assert_int_equal(h.c[3], none);
        assert_true((h.c[4] & 0x7fff) > none);
        assert_int_equal(h.c[5], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_multiply), cmocka_unit_test(test_load),
                                       cmocka_unit_test(test_copy), cmocka_unit_test(test_fma),
                                       cmocka_unit_test(test_fma_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
