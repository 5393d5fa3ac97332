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
#include "gpu/cuda/kernel_host.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_multiply), cmocka_unit_test(test_load),
                                       cmocka_unit_test(test_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
