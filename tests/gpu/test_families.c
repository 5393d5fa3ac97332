/*
 * Each family against the logits that Hugging Face transformers gives for the same folder (float32, eager),
 * and cut into pipeline stages against itself.
 */
#include "tests/gpu/families_fixture.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/model/ts_hf.h"

/* Our roundings beside float32's own are those of keys and values, to 11 or 8 significant bits, and at one
 * level those of the inputs of bf16 products. */
#define TOLERANCE_F16  0.02
#define TOLERANCE_BF16 0.12
#define SPREAD_MIN     1.0

/* Logits of the family's positions, teacher-forced: one batch from each position to the next. */
static float *logits_of(struct ts_engine *engine, const struct family *f)
{
    float *logits = ts_xcalloc((size_t)f->position_count * f->vocab, sizeof *logits);
    uint32_t at = 0;
    for (uint32_t i = 0; i < f->position_count; i++) {
        struct ts_engine_row row = family_row(f, at, f->positions[i] + 1);
        struct ts_engine_batch batch = {
            .rows = &row, .row_count = 1, .logits_out = logits + (size_t)i * f->vocab};
        model_run(engine, &batch);
        at = f->positions[i] + 1;
    }
    return logits;
}

static double spread(const float *logits, uint32_t count)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += logits[i];
        squares += (double)logits[i] * logits[i];
    }
    return sqrt(squares / count - (sum / count) * (sum / count));
}

/* The largest difference, checked; where the best token of `want` leads by more than twice the tolerance, it
 * is the best of `got`. */
static double compare(const struct family *f, const float *got, const float *want, double tolerance)
{
    double worst = 0;
    uint32_t best = 0, second = 1, best_got = 0;
    for (uint32_t i = 0; i < f->vocab; i++) {
        double difference = fabs((double)got[i] - want[i]);
        if (!(difference <= tolerance))
            fail_msg("%s: logit %u is %g, expected %g", f->name, i, (double)got[i], (double)want[i]);
        worst = difference > worst ? difference : worst;
        best_got = got[i] > got[best_got] ? i : best_got;
        if (want[i] > want[best]) {
            second = best;
            best = i;
        } else if (i != best && want[i] > want[second]) {
            second = i;
        }
    }
    if (want[best] - want[second] > 2 * tolerance)
        assert_int_equal(best_got, best);
    return worst;
}

static void check_logits(const struct family *f)
{
    struct ts_engine *engine = model_open(f->name, (struct ts_shard){0}, f->token_count, 1, 0);
    const struct ts_model *m = &ts_engine_info(engine)->model;
    double tolerance = m->kv_dtype == TS_DTYPE_BF16 ? TOLERANCE_BF16 : TOLERANCE_F16, worst = 0;
    assert_int_equal(m->vocab, f->vocab);
    assert_int_equal(f->positions[f->position_count - 1], f->token_count - 1);
    float *got = logits_of(engine, f);
    for (uint32_t i = 0; i < f->position_count; i++) {
        const float *want = f->logits + (size_t)i * f->vocab;
        assert_true(spread(want, f->vocab) >= SPREAD_MIN);
        double difference = compare(f, got + (size_t)i * f->vocab, want, tolerance);
        worst = difference > worst ? difference : worst;
    }
    print_message("%-20s differs by at most %.4f\n", f->name, worst);
    ts_free(got);
    ts_engine_close(&engine);
}

static void logits(void **state)
{
    (void)state;
    families_each(check_logits);
}

/* Runs the whole text through `stages` engines that hand on hidden states; compares the logits of the last
 * position and every stage's part of the pool with those of the whole model. */
static void check_stages(const struct family *f, struct ts_engine *whole, const float *want, uint32_t stages)
{
    const struct ts_engine_info *info = ts_engine_info(whole);
    uint32_t layers = info->model.layers;
    size_t elements = (size_t)f->token_count * info->model.hidden;
    size_t pool_layer = info->pool_bytes / layers;
    float *in = ts_xcalloc(elements, sizeof *in), *out = ts_xcalloc(elements, sizeof *out);
    float *got = ts_xcalloc(f->vocab, sizeof *got);
    for (uint32_t s = 0; s < stages; s++) {
        struct ts_shard shard = {.layer_begin = s * layers / stages, .layer_end = (s + 1) * layers / stages};
        struct ts_engine *engine = model_open(f->name, shard, f->token_count, 1, 0);
        struct ts_engine_row row = family_row(f, 0, f->token_count);
        struct ts_engine_batch batch = {.rows = &row,
                                        .row_count = 1,
                                        .hidden_in = s > 0 ? in : NULL,
                                        .hidden_out = s + 1 < stages ? out : NULL,
                                        .logits_out = s + 1 < stages ? NULL : got};
        if (s > 0)
            row.tokens = NULL; /* a later stage has no use for them */
        model_run(engine, &batch);
        assert_int_equal(ts_engine_info(engine)->pool_bytes,
                         pool_layer * (shard.layer_end - shard.layer_begin));
        assert_memory_equal(ts_engine_info(engine)->pool,
                            (const uint8_t *)info->pool + shard.layer_begin * pool_layer,
                            ts_engine_info(engine)->pool_bytes);
        memcpy(in, out, elements * sizeof *in);
        ts_engine_close(&engine);
    }
    assert_memory_equal(got, want, f->vocab * sizeof *got);
    ts_free(in);
    ts_free(out);
    ts_free(got);
}

static void check_two_and_three_stages(const struct family *f)
{
    struct ts_engine *whole = model_open(f->name, (struct ts_shard){0}, f->token_count, 1, 0);
    float *want = ts_xcalloc(f->vocab, sizeof *want);
    struct ts_engine_row row = family_row(f, 0, f->token_count);
    struct ts_engine_batch batch = {.rows = &row, .row_count = 1, .logits_out = want};
    assert_true(ts_engine_info(whole)->model.layers >= 3);
    model_run(whole, &batch);
    check_stages(f, whole, want, 2);
    check_stages(f, whole, want, 3);
    ts_free(want);
    ts_engine_close(&whole);
}

static void stages_are_bit_equal(void **state)
{
    (void)state;
    families_each(check_two_and_three_stages);
}

/* The first layer's key of a token depends on the token and its position alone. So a text of one token has
 * one key, turned by the engine's frequencies; the last three are turned back here. */
static void check_frequencies(const struct family *f)
{
    struct ts_engine *engine = model_open(f->name, (struct ts_shard){0}, TS_KV_BLOCK_TOKENS, 1, 0);
    const struct ts_engine_info *info = ts_engine_info(engine);
    uint32_t d = info->model.head_dim, half = d / 2, tokens[TS_KV_BLOCK_TOKENS], block = 0;
    for (uint32_t i = 0; i < TS_KV_BLOCK_TOKENS; i++)
        tokens[i] = f->tokens[0];
    struct ts_engine_row row = {
        .token_count = TS_KV_BLOCK_TOKENS, .tokens = tokens, .blocks = &block, .block_count = 1};
    model_run(engine, &(struct ts_engine_batch){.rows = &row, .row_count = 1});
    const struct ts_hf_tensor keys = {.dtype = info->model.kv_dtype,
                                      .data = (const uint8_t *)model_tile(engine, 0, 0, 0, 0)};
    for (uint32_t t = TS_KV_BLOCK_TOKENS - 3; t < TS_KV_BLOCK_TOKENS; t++) {
        for (uint32_t i = 0; i < half; i++) {
            double angle = t * (double)info->inverse_frequencies[i];
            double x = (double)ts_hf_element(&keys, t * d + i),
                   y = (double)ts_hf_element(&keys, t * d + i + half);
            double first = (double)ts_hf_element(&keys, i), second = (double)ts_hf_element(&keys, i + half);
            double room = 0.01 * (fabs(first) + fabs(second));
            assert_true(fabs(x * cos(angle) + y * sin(angle) - first) <= room);
            assert_true(fabs(y * cos(angle) - x * sin(angle) - second) <= room);
        }
    }
    ts_engine_close(&engine);
}

static void keys_turn_by_the_frequencies(void **state)
{
    (void)state;
    families_each(check_frequencies);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(logits), cmocka_unit_test(stages_are_bit_equal),
                                       cmocka_unit_test(keys_turn_by_the_frequencies)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
