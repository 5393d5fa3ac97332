/* The codec that is found for models whose keys are known to be well or badly made. */
#include "gpu/quality/ts_calibrate.h"

#include <string.h>

#include "tests/gpu/engine_fixture.h"
#include "tests/gpu/model_fixture.h"

#define BLOCKS 64

static const struct ts_random_model plain = {.type = "qwen2",
                                             .hidden = 256,
                                             .intermediate = 512,
                                             .layers = 4,
                                             .heads = 4,
                                             .kv_heads = 2,
                                             .head_dim = 64,
                                             .vocab = 512,
                                             .context = 1024,
                                             .dtype = TS_DTYPE_F16,
                                             .gain = 1.5,
                                             .seed = 1,
                                             .rope_theta = 1e6,
                                             .sharpness = 1.5};

static struct ts_calibration calibrate(struct ts_engine *engine, uint32_t tokens, uint32_t rows)
{
    struct ts_calibration found;
    struct ts_error err;
    if (ts_calibrate(engine, (struct ts_calibrate_room){tokens, rows}, &found, &err) != TS_OK)
        fail_msg("%s", err.text);
    ts_engine_close(&engine);
    if (found.tokens > 0)
        print_message("%s: %s, %u batches, %lld us\n", found.codec, found.why, found.batches,
                      (long long)(found.ns / TS_US));
    return found;
}

static struct ts_calibration of_random(const struct ts_random_model *model)
{
    char dir[64];
    fixture_model(model, dir);
    struct ts_engine *engine = model_open(dir, (struct ts_shard){0}, 128, 16, BLOCKS);
    ts_random_model_remove(dir);
    return calibrate(engine, 128, 16);
}

static void tame_keys_bear_i4h(void **state)
{
    struct ts_calibration demo =
        calibrate(model_open("demo", (struct ts_shard){0}, 128, 16, BLOCKS), 128, 16);
    struct ts_calibration found = of_random(&plain);
    (void)state;
    assert_string_equal(demo.codec, "i4h");
    assert_true(demo.kl > 0 && demo.kl <= TS_CALIBRATE_KL_GOOD && demo.tokens == 128);
    assert_string_equal(found.codec, "i4h");
    assert_true(found.offset > 0 && found.offset < TS_CALIBRATE_OFFSET_MAX && *found.why);
}

/* Channels that are large, but lie around zero as the others do: the transform is what helps. */
static void outliers_bear_i4h(void **state)
{
    struct ts_random_model model = plain;
    model.type = "llama";
    model.outliers = 4;
    struct ts_calibration found = of_random(&model);
    (void)state;
    assert_string_equal(found.codec, "i4h");
    assert_true(found.kl > 0 && found.kl <= TS_CALIBRATE_KL_MAX);
}

static void biased_keys_need_centring(void **state)
{
    struct ts_random_model model = plain;
    model.key_bias = 150;
    struct ts_calibration found = of_random(&model);
    (void)state;
    assert_string_equal(found.codec, "i4hc");
    assert_true(found.offset > 10 * TS_CALIBRATE_OFFSET_MAX);
    assert_true(found.kl > 10 * found.kl_centred && found.kl > TS_CALIBRATE_KL_MAX);
}

/* Attention so sharp that four bits decide what it looks at. */
static void the_doubtful_keep_8_bits(void **state)
{
    struct ts_random_model model = plain;
    model.type = "llama";
    model.sharpness = 3;
    struct ts_calibration found = of_random(&model);
    (void)state;
    assert_string_equal(found.codec, "k8v4h");
    assert_true(found.kl > TS_CALIBRATE_KL_MAX);
}

static void room_does_not_matter(void **state)
{
    struct ts_calibration wide =
        calibrate(model_open("demo", (struct ts_shard){0}, 256, 32, BLOCKS), 256, 32);
    struct ts_calibration narrow = calibrate(model_open("demo", (struct ts_shard){0}, 48, 3, BLOCKS), 48, 3);
    (void)state;
    assert_true(wide.kl == narrow.kl && wide.offset == narrow.offset);
    assert_string_equal(wide.why, narrow.why);
    assert_int_equal(wide.batches, 3);
    assert_int_equal(narrow.batches, 3 + 2 * 6);
}

/* A small pool takes a shorter text; what cannot be measured is no error. */
static void what_cannot_be_measured(void **state)
{
    struct ts_engine_options options = {
        .device = "modelled", .kv_blocks = BLOCKS, .max_batch_tokens = 64, .max_batch_rows = 1};
    struct ts_engine *modelled;
    struct ts_error err;
    (void)state;
    assert_int_equal(ts_engine_open(&options, &modelled, &err), TS_OK);
    assert_int_equal(calibrate(model_open("demo", (struct ts_shard){0}, 64, 4, 24), 64, 4).tokens, 64);
    struct ts_calibration found[3] = {
        calibrate(modelled, 64, 1), calibrate(model_open("demo", (struct ts_shard){0}, 64, 4, 16), 64, 4),
        calibrate(model_open("demo", (struct ts_shard){0, 2, 0, 0}, 64, 4, 64), 64, 4)};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(found[i].codec, "i4h");
        assert_true(found[i].tokens == 0 && !*found[i].why);
    }
}

static void heads_that_codecs_do_not_know(void **state)
{
    struct ts_calibration found =
        calibrate(model_open("qwen2-bias", (struct ts_shard){0}, 64, 4, BLOCKS), 64, 4);
    (void)state;
    assert_string_equal(found.codec, "none");
    assert_string_equal(found.why, "4 bits do not fit heads of 4 elements");
    assert_int_equal(found.tokens, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tame_keys_bear_i4h),
        cmocka_unit_test(outliers_bear_i4h),
        cmocka_unit_test(biased_keys_need_centring),
        cmocka_unit_test(the_doubtful_keep_8_bits),
        cmocka_unit_test(room_does_not_matter),
        cmocka_unit_test(what_cannot_be_measured),
        cmocka_unit_test(heads_that_codecs_do_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
