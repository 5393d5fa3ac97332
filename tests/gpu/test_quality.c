#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/quality/ts_quality.h"
#include "tests/gpu/model_fixture.h"

enum { ROWS = 200 };

static void near(double got, double expected)
{
    if (!(fabs(got - expected) < 1e-7)) /* the logits are floats */
        fail_msg("%.12f, not %.12f", got, expected);
}

static void equal_logits_differ_by_nothing(void **state)
{
    const float logits[2][3] = {{1.5f, -2.0f, 0.25f}, {0.0f, 88.0f, -INFINITY}};
    struct ts_score scores[2];
    struct ts_quality q;
    (void)state;
    for (uint32_t i = 0; i < 2; i++)
        scores[i] = ts_score_of(logits[i], logits[i], 3, i);
    ts_quality_of(scores, 2, &q);
    assert_int_equal(q.positions, 2);
    assert_true(q.kl_mean == 0 && q.kl_p99 == 0 && q.kl_max == 0 && q.top1 == 1);
    assert_true(q.perplexity_percent == 0);
}

/* (1/2, 1/2) against (3/4, 1/4): ln(4/3) / 2, and the second one comes half as often. A constant added to a
 * row changes nothing. */
static void divergence_is_the_known_one(void **state)
{
    const float reference[2] = {7.0f, 7.0f}, other[2] = {logf(3.0f), 0.0f};
    struct ts_score score = ts_score_of(reference, other, 2, 1);
    struct ts_quality q;
    (void)state;
    near(score.kl, log(4.0 / 3) / 2);
    near(score.reference, log(2.0));
    near(score.other, log(4.0));
    assert_true(score.same_best);
    ts_quality_of(&score, 1, &q);
    near(q.kl_mean, score.kl);
    near(q.kl_p99, score.kl);
    near(q.perplexity / 100, 0.04);
    near(q.perplexity_percent / 100, 1);
}

/* One row in 200 is far off, one other is a little off and has another best token: the first is the maximum,
 * the 198th of the sorted ones, nearest rank to 99 %, is neither. */
static void ranks_and_shares(void **state)
{
    const float plain[2] = {1, 0}, far[2] = {20, 0}, little[2] = {1, 1.25f}, third[2] = {3, 0};
    struct ts_score scores[ROWS];
    struct ts_quality q;
    (void)state;
    for (size_t i = 0; i < ROWS; i++)
        scores[i] = ts_score_of(plain, i == 17 ? far : i == 60 ? little : plain, 2, 0);
    ts_quality_of(scores, ROWS, &q);
    near(q.top1, 199.0 / 200);
    assert_true(q.kl_p99 == 0);
    assert_true(q.kl_max > 4 && q.kl_mean > q.kl_max / ROWS && q.kl_mean < 2 * q.kl_max / ROWS);
    scores[0] = ts_score_of(plain, third, 2, 0);
    ts_quality_of(scores, ROWS, &q);
    assert_true(q.kl_p99 > 0 && q.kl_p99 < q.kl_max);
}

static void fill(const struct ts_engine_info *info, uint8_t byte)
{
    memset(info->pool, byte, info->pool_bytes);
}

/* From blocks to blocks, each layer and head of a prompt arrives, and nothing else is touched. */
static void a_prompt_passes_whole(void **state)
{
    const uint32_t from[3] = {4, 1, 6}, to[3] = {2, 7, 0}, ids[40] = {5, 9, 300, 2};
    struct ts_engine *engine = model_open("demo", (struct ts_shard){0}, 64, 1, 8);
    const struct ts_engine_info *info = ts_engine_info(engine);
    const struct ts_model *m = &info->model;
    size_t row = (size_t)m->head_dim, tile = row * TS_KV_BLOCK_TOKENS * sizeof(uint16_t);
    struct ts_kv_pass pass = {.from = from, .to = to, .tokens = 40};
    struct ts_error err;
    uint64_t bytes = 0;
    (void)state;
    fill(info, 0xff);
    assert_int_equal(ts_codec_parse("none", &pass.codec, &err), TS_OK);
    assert_int_equal(ts_quality_prefill(engine, ids, 40, 24, from, &err), TS_OK);
    assert_int_equal(ts_kv_pass(engine, &pass, &bytes, &err), TS_OK);
    assert_true(bytes >= 40 * ts_model_kv_token_bytes(m));
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        for (uint32_t i = 0; i < 6 * m->kv_heads; i++) {
            uint32_t b = i / (2 * m->kv_heads), kv = i / m->kv_heads % 2, head = i % m->kv_heads;
            const uint16_t *got = model_tile(engine, layer, to[b], kv, head);
            const uint16_t *want = model_tile(engine, layer, from[b], kv, head);
            assert_memory_equal(got, want, b < 2 ? tile : tile / 2);
            assert_true(b < 2 || got[8 * row] == 0xffff); /* behind the prompt's end */
            assert_true(*model_tile(engine, layer, 3, kv, head) == 0xffff);
        }
    }
    ts_engine_close(&engine);
}

static void what_the_modelled_engine_cannot(void **state)
{
    struct ts_engine_options options = {
        .device = "modelled", .kv_blocks = 8, .max_batch_tokens = 64, .max_batch_rows = 1};
    struct ts_engine *engine;
    struct ts_error err;
    const uint32_t block = 0;
    struct ts_kv_pass pass = {.from = &block, .to = &block, .tokens = 4};
    uint64_t bytes = 0;
    (void)state;
    assert_int_equal(ts_engine_open(&options, &engine, &err), TS_OK);
    assert_int_equal(ts_codec_parse("i4", &pass.codec, &err), TS_OK);
    assert_int_equal(ts_kv_pass(engine, &pass, &bytes, &err), TS_EUNSUPPORTED);
    ts_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_logits_differ_by_nothing),
        cmocka_unit_test(divergence_is_the_known_one),
        cmocka_unit_test(ranks_and_shares),
        cmocka_unit_test(a_prompt_passes_whole),
        cmocka_unit_test(what_the_modelled_engine_cannot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
