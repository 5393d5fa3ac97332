/* What a request names, what the model names, and what is left: which of them counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/core/ts_sampling.h"

static struct ts_sampling five(float temperature, uint32_t top_k, float top_p, float min_p, float penalty,
                               uint32_t given)
{
    return (struct ts_sampling){.temperature = temperature,
                                .top_k = top_k,
                                .top_p = top_p,
                                .min_p = min_p,
                                .repetition_penalty = penalty,
                                .given = given};
}

/* Each of the 32 x 32 masks: bit by bit the request's value, else the model's, else the neutral one. */
static void test_each_mask(void **state)
{
    (void)state;
    for (uint32_t mask = 0; mask < 32 * 32; mask++) {
        uint32_t r = mask % 32, m = mask / 32;
        struct ts_sampling request = five(0.25f, 3, 0.5f, 0.125f, 2, r);
        struct ts_sampling model = five(0.75f, 7, 0.875f, 0.0625f, 1.5f, m);
        struct ts_sampling out = ts_sampling_apply(&request, &model);
#define WANT(bit, own, models, neutral)                                                                      \
    (r & TS_SAMPLING_##bit ? (own) : m & TS_SAMPLING_##bit ? (models) : (neutral))
        assert_true(out.temperature == WANT(TEMPERATURE, 0.25f, 0.75f, 1));
        assert_int_equal(out.top_k, WANT(TOP_K, 3, 7, 0));
        assert_true(out.top_p == WANT(TOP_P, 0.5f, 0.875f, 1));
        assert_true(out.min_p == WANT(MIN_P, 0.125f, 0.0625f, 0));
        assert_true(out.repetition_penalty == WANT(REPETITION_PENALTY, 2, 1.5f, 1));
#undef WANT
        assert_int_equal(out.given, TS_SAMPLING_ALL);
    }
}

static void test_the_rest_is_the_requests(void **state)
{
    (void)state;
    struct ts_sampling request = {.presence_penalty = 1,
                                  .frequency_penalty = -1,
                                  .seed = 5,
                                  .max_tokens = 6,
                                  .min_tokens = 2,
                                  .ignore_eos = true,
                                  .logprobs = 4};
    struct ts_sampling model = five(0, 1, 1, 0, 1, TS_SAMPLING_ALL);
    model.presence_penalty = 2;
    model.seed = 9;
    model.max_tokens = 100;
    struct ts_sampling out = ts_sampling_apply(&request, &model);
    assert_true(out.temperature == 0 && out.top_k == 1);
    assert_true(out.presence_penalty == 1 && out.frequency_penalty == -1 && out.ignore_eos);
    assert_int_equal(out.seed, 5);
    assert_int_equal(out.max_tokens, 6);
    assert_int_equal(out.min_tokens, 2);
    assert_int_equal(out.logprobs, 4);
}

/* Who applies again, with whatever defaults, changes nothing. */
static void test_twice_is_once(void **state)
{
    (void)state;
    struct ts_sampling request = {.temperature = 0.5f, .given = TS_SAMPLING_TEMPERATURE};
    struct ts_sampling model = five(0, 40, 0.9f, 0.1f, 1.25f, TS_SAMPLING_TOP_K | TS_SAMPLING_TOP_P);
    struct ts_sampling other = five(1, 1, 1, 1, 3, TS_SAMPLING_ALL);
    struct ts_sampling once = ts_sampling_apply(&request, &model), twice = ts_sampling_apply(&once, &other);
    assert_true(twice.temperature == 0.5f && twice.top_p == 0.9f && twice.min_p == 0);
    assert_true(twice.repetition_penalty == 1);
    assert_int_equal(twice.top_k, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_mask),
        cmocka_unit_test(test_the_rest_is_the_requests),
        cmocka_unit_test(test_twice_is_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
