/*
 * Logits of each level against those of the scalar one, over models of each weight type. Where both compute
 * in fp32 they differ by rounding alone; a level that rounds activations to bf16 is held to what that costs.
 */
#include <math.h>

#include "tests/gpu/engine_fixture.h"

#define TOKENS 100u

/* Logits of every tenth position. */
static float *logits_at(const char *level, const char *dir, uint32_t *count, uint32_t *vocab)
{
    struct fixture_sequence s;
    struct ts_rng rng;
    setenv("TS_CPU_LEVEL", level, 1);
    struct ts_engine *engine = fixture_open(dir, 2, TOKENS);
    ts_rng_init(&rng, 11);
    *vocab = ts_engine_info(engine)->model.vocab;
    *count = TOKENS / 10;
    assert_string_equal(strrchr(ts_engine_info(engine)->kind, ' ') + 1, level);
    fixture_sequence_init(&s, &rng, *vocab, TOKENS);
    fixture_scatter(engine, &s, 1, &rng);
    float *logits = ts_xcalloc((size_t)*count * *vocab, sizeof *logits);
    for (uint32_t i = 0; i < *count; i++, s.done += 10) {
        struct ts_engine_row row = fixture_row(&s, 10);
        fixture_run(engine, &row, 1, logits + (size_t)i * *vocab, NULL);
    }
    fixture_sequence_fini(&s);
    ts_engine_close(&engine);
    return logits;
}

static double deviation(const float *a, size_t count)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += a[i];
        squares += (double)a[i] * a[i];
    }
    return sqrt(squares / (double)count - sum / (double)count * (sum / (double)count));
}

/* Root mean square of the difference over the deviation of the logits. */
static void check_level(const struct cpu_level *level, const char *dir, enum ts_dtype dtype)
{
    uint32_t count, vocab;
    float *expected = logits_at("scalar", dir, &count, &vocab);
    float *got = logits_at(level->name, dir, &count, &vocab);
    size_t n = (size_t)count * vocab;
    double squares = 0, spread = deviation(expected, n);
    double tolerance = dtype == TS_DTYPE_BF16 ? (level->bf16_inputs ? 0.03 : 3e-3) : 2e-4;
    assert_true(spread > 0.5);
    for (size_t i = 0; i < n; i++)
        squares += pow((double)got[i] - expected[i], 2);
    double error = sqrt(squares / (double)n) / spread;
    printf("%s %s: %.2g of the deviation %.2f\n", level->name, ts_dtype_name(dtype), error, spread);
    assert_true(error > 0 && error <= tolerance);
    ts_free(expected);
    ts_free(got);
}

static void check_levels(const struct ts_random_model *model)
{
    char dir[64];
    fixture_model(model, dir);
    for (size_t i = 0; cpu_level_at(i); i++) {
        if (cpu_level_supported(cpu_level_at(i)) && strcmp(cpu_level_at(i)->name, "scalar") != 0)
            check_level(cpu_level_at(i), dir, model->dtype);
    }
    ts_random_model_remove(dir);
}

static void test_bf16(void **state)
{
    (void)state;
    check_levels(&(struct ts_random_model){.type = "llama",
                                           .hidden = 128,
                                           .intermediate = 352,
                                           .layers = 4,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .head_dim = 64,
                                           .vocab = 300,
                                           .context = 128,
                                           .dtype = TS_DTYPE_BF16,
                                           .gain = 1.3,
                                           .seed = 5});
}

static void test_f16(void **state)
{
    (void)state;
    check_levels(&(struct ts_random_model){.type = "qwen3",
                                           .hidden = 96,
                                           .intermediate = 200,
                                           .layers = 3,
                                           .heads = 6,
                                           .kv_heads = 2,
                                           .head_dim = 32,
                                           .vocab = 300,
                                           .context = 128,
                                           .dtype = TS_DTYPE_F16,
                                           .gain = 1.3,
                                           .seed = 6});
}

static void test_f32(void **state)
{
    (void)state;
    check_levels(&(struct ts_random_model){.type = "qwen2",
                                           .hidden = 80,
                                           .intermediate = 176,
                                           .layers = 3,
                                           .heads = 5,
                                           .kv_heads = 1,
                                           .head_dim = 16,
                                           .vocab = 300,
                                           .context = 128,
                                           .dtype = TS_DTYPE_F32,
                                           .gain = 1.3,
                                           .seed = 7});
}

/* What a name above the processor's means, and an unknown one: the best level there is. */
static void test_pick(void **state)
{
    (void)state;
    unsetenv("TS_CPU_LEVEL");
    const struct cpu_level *best = cpu_level_pick();
    setenv("TS_CPU_LEVEL", "avx1024", 1);
    assert_ptr_equal(cpu_level_pick(), best);
    setenv("TS_CPU_LEVEL", cpu_level_at(0)->name, 1);
    assert_ptr_equal(cpu_level_pick(), best);
    setenv("TS_CPU_LEVEL", "scalar", 1);
    assert_string_equal(cpu_level_pick()->name, "scalar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16), cmocka_unit_test(test_f16),
                                       cmocka_unit_test(test_f32), cmocka_unit_test(test_pick)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
