/* From logits to a token: against hand values, and the distribution of 100,000 draws by chi-square. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/engine/ts_sampler.h"
#include "tests/gpu/chi_square.h"

#define VOCAB 40u
#define DRAWS 100000u

static struct ts_model model = {.vocab = VOCAB, .eos = {2, 5}, .eos_count = 2};
static struct ts_sampler *sampler;

static int setup(void **state)
{
    (void)state;
    sampler = ts_sampler_new(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ts_sampler_destroy(&sampler);
    return 0;
}

static struct ts_sampling plain(float temperature)
{
    struct ts_sampling s = ts_sampling_defaults();
    s.temperature = temperature;
    return s;
}

/* Leaves the caller's logits as they are. */
static struct ts_engine_sample sample(const float *logits, const struct ts_sampling *sampling, uint32_t index)
{
    float copy[VOCAB];
    struct ts_engine_sample out;
    struct ts_engine_row row = {.tag = 9, .sample = true, .sample_index = index, .sampling = sampling};
    memcpy(copy, logits, sizeof copy);
    ts_sample(sampler, copy, &row, &out);
    assert_int_equal(out.tag, 9);
    return out;
}

/* Probabilities .5 .3 .15 .05 of tokens 7, 3, 11, 1; others next to nothing. */
static void four(float logits[VOCAB])
{
    for (uint32_t i = 0; i < VOCAB; i++)
        logits[i] = -60;
    logits[7] = logf(0.5f);
    logits[3] = logf(0.3f);
    logits[11] = logf(0.15f);
    logits[1] = logf(0.05f);
}

/* What has probability 0 is never drawn. */
static void check_draws(const float *logits, const struct ts_sampling *sampling, const double expected[VOCAB])
{
    uint32_t counts[VOCAB] = {0};
    for (uint32_t i = 0; i < DRAWS; i++)
        counts[sample(logits, sampling, i).token]++;
    chi_square_check(counts, expected, VOCAB, DRAWS);
}

static void test_greedy(void **state)
{
    float logits[VOCAB] = {0};
    struct ts_sampling s = plain(0);
    (void)state;
    assert_int_equal(sample(logits, &s, 0).token, 0);
    logits[17] = logits[9] = logits[30] = 2;
    struct ts_engine_sample out = sample(logits, &s, 0);
    assert_int_equal(out.token, 9);
    assert_true(fabs(out.logprob - (2 - log(3 * exp(2) + VOCAB - 3))) < 1e-5);
    assert_int_equal(out.top_count, 0);
}

static void test_distribution(void **state)
{
    float logits[VOCAB];
    double expected[VOCAB], sum = 0;
    struct ts_sampling s = plain(0.7f);
    (void)state;
    s.seed = 42;
    for (uint32_t i = 0; i < VOCAB; i++) {
        logits[i] = (float)(i * 7 % VOCAB) * 0.07f - 1;
        sum += expected[i] = exp((double)logits[i] / 0.7f);
    }
    for (uint32_t i = 0; i < VOCAB; i++)
        expected[i] /= sum;
    check_draws(logits, &s, expected);
}

static void test_top_k(void **state)
{
    float logits[VOCAB];
    double expected[VOCAB] = {[7] = 0.5 / 0.95, [3] = 0.3 / 0.95, [11] = 0.15 / 0.95};
    struct ts_sampling s = plain(1);
    (void)state;
    four(logits);
    s.top_k = 3;
    check_draws(logits, &s, expected);
    double one[VOCAB] = {[7] = 1};
    s.top_k = 1;
    check_draws(logits, &s, one);
}

/* The fewest tokens that reach top_p: 0.6 takes .5 and .3; 0.45 only .5; 0.85 takes three. */
static void test_top_p(void **state)
{
    float logits[VOCAB];
    double one[VOCAB] = {[7] = 1}, two[VOCAB] = {[7] = 0.625, [3] = 0.375};
    double three[VOCAB] = {[7] = 0.5 / 0.95, [3] = 0.3 / 0.95, [11] = 0.15 / 0.95};
    struct ts_sampling s = plain(1);
    (void)state;
    four(logits);
    s.top_p = 0.6f;
    check_draws(logits, &s, two);
    s.top_p = 0.45f;
    check_draws(logits, &s, one);
    s.top_p = 0.85f;
    check_draws(logits, &s, three);
    s.top_k = 2; /* 0.85 of the two that are left takes both */
    check_draws(logits, &s, two);
}

/* At least 0.25 of the best: .5 and .3 and .15; at 0.5 two; after the temperature. */
static void test_min_p(void **state)
{
    float logits[VOCAB];
    double two[VOCAB] = {[7] = 0.625, [3] = 0.375};
    double hot[VOCAB] = {[7] = sqrt(0.5), [3] = sqrt(0.3), [11] = sqrt(0.15)};
    struct ts_sampling s = plain(1);
    (void)state;
    four(logits);
    s.min_p = 0.5f;
    check_draws(logits, &s, two);
    s.temperature = 2; /* square roots: 1, .775, .548, .316 of the best */
    double sum = hot[7] + hot[3] + hot[11];
    for (uint32_t i = 0; i < VOCAB; i++)
        hot[i] /= sum;
    check_draws(logits, &s, hot);
}

static void test_penalties(void **state)
{
    float logits[VOCAB] = {0}, copy[VOCAB];
    uint32_t prompt[] = {4, 6, 4}, output[] = {6, 8, 8, 8};
    struct ts_sampling s = plain(0);
    struct ts_engine_sample out;
    struct ts_engine_row row = {.sample = true,
                                .sampling = &s,
                                .prompt_ids = prompt,
                                .prompt_count = 3,
                                .output_ids = output,
                                .output_count = 4};
    (void)state;
    logits[4] = 3, logits[6] = -2, logits[8] = 6, logits[10] = 1;
    s.repetition_penalty = 1.5f;
    s.presence_penalty = 0.25f;
    s.frequency_penalty = 0.5f;
    s.logprobs = 20;
    /* seen: 3 / 1.5 = 2; -2 * 1.5 - 0.25 - 0.5 = -3.75; 6 / 1.5 - 0.25 - 3 * 0.5 = 2.25 */
    double norm = log(exp(2) + exp(-3.75) + exp(2.25) + exp(1) + VOCAB - 4);
    for (int twice = 0; twice < 2; twice++) { /* nothing is left over from the call before */
        memcpy(copy, logits, sizeof copy);
        ts_sample(sampler, copy, &row, &out);
        assert_int_equal(out.token, 8);
        assert_int_equal(out.top_count, 20);
        static const struct {
            uint32_t token;
            double logit;
        } best[] = {{8, 2.25}, {4, 2}, {10, 1}, {0, 0}, {1, 0}, {2, 0}};
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(out.top[i].token, best[i].token);
            assert_true(fabs(out.top[i].logprob - (best[i].logit - norm)) < 1e-5);
        }
        assert_true(fabs(out.logprob - (2.25 - norm)) < 1e-5);
    }
}

static void test_min_tokens(void **state)
{
    float logits[VOCAB] = {0};
    struct ts_sampling s = plain(0);
    (void)state;
    logits[5] = 9, logits[2] = 8, logits[20] = 7;
    s.min_tokens = 3;
    assert_int_equal(sample(logits, &s, 0).token, 20);
    assert_int_equal(sample(logits, &s, 2).token, 20);
    assert_int_equal(sample(logits, &s, 3).token, 5);
    s.temperature = 1;
    for (uint32_t i = 0; i < 3; i++) {
        for (s.seed = 0; s.seed < 300; s.seed++) {
            uint32_t token = sample(logits, &s, i).token;
            assert_true(token != 2 && token != 5);
        }
    }
}

/* A token is a function of logits, parameters, seed and index: not of what was drawn before. */
static void test_reproducible(void **state)
{
    float logits[VOCAB];
    uint32_t first[200], changed = 0;
    struct ts_sampling s = plain(1.3f);
    (void)state;
    for (uint32_t i = 0; i < VOCAB; i++)
        logits[i] = sinf((float)i);
    s.seed = 77;
    for (uint32_t i = 0; i < 200; i++)
        first[i] = sample(logits, &s, i).token;
    for (uint32_t i = 200; i-- > 0;)
        assert_int_equal(sample(logits, &s, i).token, first[i]);
    s.seed = 78;
    for (uint32_t i = 0; i < 200; i++)
        changed += sample(logits, &s, i).token != first[i];
    assert_true(changed > 150);
}

/* Log-probabilities are those before temperature and truncation, also over a vocabulary of several blocks. */
static void test_logprobs(void **state)
{
    static float logits[1000];
    struct ts_model wide = {.vocab = 1000};
    struct ts_sampler *big = ts_sampler_new(&wide);
    struct ts_sampling s = plain(3);
    struct ts_engine_row row = {.sample = true, .sampling = &s};
    struct ts_engine_sample out;
    double sum = 0;
    (void)state;
    s.logprobs = 3;
    s.top_k = 1;
    for (uint32_t i = 0; i < 1000; i++) {
        logits[i] = (float)(i * 331 % 1000) * 0.02f - 15;
        sum += exp(logits[i]);
    }
    ts_sample(big, logits, &row, &out);
    assert_int_equal(out.top_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t token = out.top[i].token;
        assert_int_equal(token * 331 % 1000, 999 - i);
        assert_true(fabs(out.top[i].logprob - (logits[token] - log(sum))) < 1e-5);
    }
    assert_int_equal(out.token, out.top[0].token);
    ts_sampler_destroy(&big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),     cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_top_k),      cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),      cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_min_tokens), cmocka_unit_test(test_reproducible),
        cmocka_unit_test(test_logprobs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
