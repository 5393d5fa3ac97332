/* weights.cu on the CPU: random weights, int8 with scales, biases. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cpu/cpu_level.h"
#include "gpu/cuda/host/kernel_host.h"
#include "gpu/cuda/weights/cuda_weights.h"

static float widen(uint16_t bits, enum ts_dtype dtype)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return dtype == TS_DTYPE_BF16 ? value : codec_f16_to_f32(bits);
}

static ts_cuda_address make(struct ts_cuda *cuda, size_t bytes)
{
    ts_cuda_address at = 0;
    assert_int_equal(ts_cuda_alloc(cuda, bytes, &at, NULL), TS_OK);
    return at;
}

static const enum ts_dtype dtypes[] = {TS_DTYPE_F16, TS_DTYPE_BF16};

/* Mean 0, the deviation asked for, no zeros, nothing written beyond the end; another seed is another draw. */
static void fills(void **state)
{
    struct ts_cuda *cuda = *state;
    enum { COUNT = 20008 };
    static uint16_t first[COUNT + 8], second[COUNT + 8];
    ts_cuda_address at = make(cuda, sizeof first);
    for (size_t d = 0; d < 2; d++) {
        double sum = 0, squares = 0;
        assert_int_equal(ts_cuda_clear(cuda, at, sizeof first, NULL), TS_OK);
        assert_int_equal(cuda_weights_fill(cuda, at, COUNT, 7, 0.02, dtypes[d], NULL), TS_OK);
        assert_int_equal(ts_cuda_download(cuda, first, at, sizeof first, NULL), TS_OK);
        assert_int_equal(cuda_weights_fill(cuda, at, COUNT, 8, 0.02, dtypes[d], NULL), TS_OK);
        assert_int_equal(ts_cuda_download(cuda, second, at, sizeof second, NULL), TS_OK);
        assert_int_equal(ts_cuda_wait(cuda, NULL), TS_OK);
        size_t equal = 0;
        for (size_t i = 0; i < COUNT; i++) {
            double x = widen(first[i], dtypes[d]);
            assert_true(x != 0);
            sum += x;
            squares += x * x;
            equal += first[i] == second[i];
        }
        assert_true(fabs(sum / COUNT) < 0.0006);
        assert_true(fabs(sqrt(squares / COUNT) - 0.02) < 0.0004);
        assert_true(equal < COUNT / 50);
        for (size_t i = COUNT; i < COUNT + 8; i++)
            assert_int_equal(first[i], 0);
    }
    ts_cuda_free(cuda, &at);
}

static void check_row(const uint16_t *from, const int8_t *to, float scale, uint32_t inputs,
                      enum ts_dtype dtype)
{
    float most = 0;
    for (uint32_t i = 0; i < inputs; i++)
        most = fmaxf(most, fabsf(widen(from[i], dtype)));
    float expected = codec_f16_to_f32(codec_f32_to_f16(most / 127));
    assert_true(scale == expected);
    for (uint32_t i = 0; i < inputs; i++) {
        float x = scale > 0 ? widen(from[i], dtype) * (1 / scale) : 0;
        assert_int_equal(to[i], (int)nearbyintf(x > 127 ? 127 : x < -127 ? -127 : x));
    }
}

static void quantises(void **state)
{
    struct ts_cuda *cuda = *state;
    static const uint32_t widths[] = {16, 64, 2064, 4096};
    enum { ROWS = 5 };
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    for (size_t w = 0; w < 4; w++) {
        uint32_t inputs = widths[w];
        size_t count = (size_t)ROWS * inputs;
        uint16_t *from = ts_xcalloc(count, 2);
        int8_t *to = ts_xcalloc(count, 1);
        float scales[ROWS];
        ts_cuda_address a = make(cuda, count * 2), b = make(cuda, count), s = make(cuda, sizeof scales);
        for (size_t d = 0; d < 2; d++) {
            for (size_t i = 0; i < count; i++) /* row 1 is zeros, the largest of row 3 is its last element */
                from[i] = cpu_to_16(i / inputs == 1        ? 0.0f
                                    : i == 4 * inputs - 1u ? -9.0f
                                                           : (float)ts_rng_unit(&rng) - 0.5f,
                                    dtypes[d]);
            assert_int_equal(ts_cuda_upload(cuda, a, from, count * 2, NULL), TS_OK);
            assert_int_equal(cuda_weights_quantise(cuda, a, ROWS, inputs, dtypes[d], b, s, NULL), TS_OK);
            assert_int_equal(ts_cuda_download(cuda, to, b, count, NULL), TS_OK);
            assert_int_equal(ts_cuda_download(cuda, scales, s, sizeof scales, NULL), TS_OK);
            assert_int_equal(ts_cuda_wait(cuda, NULL), TS_OK);
            for (uint32_t r = 0; r < ROWS; r++)
                check_row(from + (size_t)r * inputs, to + (size_t)r * inputs, scales[r], inputs, dtypes[d]);
            assert_true(scales[1] == 0 && scales[3] > 0);
        }
        ts_cuda_free(cuda, &a);
        ts_cuda_free(cuda, &b);
        ts_cuda_free(cuda, &s);
        ts_free(from);
        ts_free(to);
    }
}

static void adds_biases(void **state)
{
    struct ts_cuda *cuda = *state;
    enum { TOKENS = 3, WIDTH = 100 };
    float bias[WIDTH], wide[TOKENS * WIDTH];
    uint16_t narrow[TOKENS * WIDTH];
    ts_cuda_address b = make(cuda, sizeof bias), w = make(cuda, sizeof wide), n = make(cuda, sizeof narrow);
    for (uint32_t i = 0; i < TOKENS * WIDTH; i++) {
        wide[i] = (float)i;
        narrow[i] = cpu_to_16((float)(i % 50), TS_DTYPE_BF16);
    }
    for (uint32_t i = 0; i < WIDTH; i++)
        bias[i] = 0.25f * (float)i;
    assert_int_equal(ts_cuda_upload(cuda, b, bias, sizeof bias, NULL), TS_OK);
    assert_int_equal(ts_cuda_upload(cuda, w, wide, sizeof wide, NULL), TS_OK);
    assert_int_equal(ts_cuda_upload(cuda, n, narrow, sizeof narrow, NULL), TS_OK);
    assert_int_equal(cuda_weights_bias(cuda, w, b, TOKENS, WIDTH, TS_DTYPE_F32, NULL), TS_OK);
    assert_int_equal(cuda_weights_bias(cuda, n, b, TOKENS, WIDTH, TS_DTYPE_BF16, NULL), TS_OK);
    assert_int_equal(ts_cuda_download(cuda, wide, w, sizeof wide, NULL), TS_OK);
    assert_int_equal(ts_cuda_download(cuda, narrow, n, sizeof narrow, NULL), TS_OK);
    assert_int_equal(ts_cuda_wait(cuda, NULL), TS_OK);
    for (uint32_t i = 0; i < TOKENS * WIDTH; i++) {
        assert_true(wide[i] == (float)i + 0.25f * (float)(i % WIDTH));
        assert_int_equal(narrow[i], cpu_to_16((float)(i % 50) + 0.25f * (float)(i % WIDTH), TS_DTYPE_BF16));
    }
    ts_cuda_free(cuda, &b);
    ts_cuda_free(cuda, &w);
    ts_cuda_free(cuda, &n);
}

int main(void)
{
    struct ts_cuda *cuda = kernel_host_open(NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(fills, cuda),
                                       cmocka_unit_test_prestate(quantises, cuda),
                                       cmocka_unit_test_prestate(adds_biases, cuda)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
