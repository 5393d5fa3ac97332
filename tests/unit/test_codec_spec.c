/* Descriptions of codecs as text: presets, bits of single layers, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/core/ts_codec_spec.h"

static struct ts_arena arena;

static struct ts_codec parsed(const char *text)
{
    struct ts_codec codec;
    struct ts_error err;
    if (ts_codec_parse_text(ts_str_of(text), &arena, &codec, &err) != TS_OK)
        fail_msg("%s: %s", text, err.text);
    return codec;
}

static void test_layers_of_text(void **state)
{
    (void)state;
    struct ts_codec codec = parsed("i4h,0=8/16,31=4"), none;
    assert_int_equal(codec.layers.count, 2);
    assert_int_equal(codec.layers.data[0].layer, 0);
    assert_int_equal(codec.layers.data[0].key_bits, 8);
    assert_int_equal(codec.layers.data[0].value_bits, 16);
    assert_int_equal(codec.layers.data[1].layer, 31);
    assert_int_equal(codec.layers.data[1].key_bits, 4);
    assert_int_equal(codec.layers.data[1].value_bits, 4);
    assert_string_equal(ts_codec_name(&codec), "custom");
    struct ts_codec first = ts_codec_for_layer(&codec, 0), other = ts_codec_for_layer(&codec, 1);
    assert_int_equal(first.key.bits, 8);
    assert_int_equal(first.value.bits, 16);
    assert_string_equal(ts_codec_name(&other), "i4h");
    none = parsed("none");
    assert_int_equal(none.layers.count, 0);
    assert_int_equal(ts_codec_check(&none, 100, NULL), TS_OK);
    none = parsed("none,3=8");
    assert_int_equal(ts_codec_check(&none, 100, NULL), TS_EUNSUPPORTED); /* its groups need 16 */
    assert_int_equal(ts_codec_check(&none, 96, NULL), TS_OK);
}

static void test_refused_text(void **state)
{
    static const char *const bad[] = {
        "",         "I4",       "i5",           "i4,",       "i4h,0",
        "i4h,0=",   "i4h,0=5",  "i4h,=8",       "i4h,0=8/",  "i4h,0=8/3",
        "i4h,0=8;", "i4h,-1=8", "i4h,0=8,,1=8", "i4h,0 = 8", "i4h,0000000000=8"};
    struct ts_error err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ts_codec_check_option(bad[i], &err), TS_EINVAL);
        assert_non_null(strstr(err.text, "expected") ? err.text : strstr(err.text, "LAYER=BITS"));
        assert_ptr_equal(strstr(err.text, "codec = "), err.text);
    }
    char many[TS_CODEC_OVERRIDES_MAX * 4 + 8] = "i4";
    for (uint32_t i = 0; i < TS_CODEC_OVERRIDES_MAX; i++)
        strcat(many, ",0=8");
    assert_int_equal(ts_codec_check_option(many, &err), TS_OK);
    strcat(many, ",0=8");
    assert_int_equal(ts_codec_check_option(many, &err), TS_EINVAL);
}

/* Both workers make the same of it; a stream of another is refused. */
static void test_equal(void **state)
{
    (void)state;
    struct ts_codec a = parsed("i4h,2=8"), b = parsed("i4h,2=8/8"), c = parsed("i4h"), d = parsed("i4hs");
    assert_true(ts_schema_equal(&ts_codec_schema, &a, &b));
    assert_false(ts_schema_equal(&ts_codec_schema, &a, &c));
    assert_false(ts_schema_equal(&ts_codec_schema, &c, &d));
    struct ts_codec brief = ts_codec_for_prompt(&a, 31), i8 = parsed("i8");
    assert_true(ts_schema_equal(&ts_codec_schema, &brief, &i8));
}

static void test_bits(void **state)
{
    static const struct {
        const char *name;
        uint32_t head_dim;
        double bits;
    } table[] = {{"none", 64, 16},   {"lz16", 64, 12.125},
                 {"i8", 64, 8.25},   {"i4", 64, 4.5},
                 {"i4", 128, 4.5},   {"i4h", 32, 5},
                 {"i4hs", 128, 4.5}, {"i4hc", 128, 4.53125},
                 {"i8", 128, 8.125}, {"k8v4h", 64, (8.25 + 4.5) / 2}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct ts_codec codec = parsed(table[i].name);
        assert_float_equal(ts_codec_bits(&codec, table[i].head_dim), table[i].bits, 1e-12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers_of_text),
                                       cmocka_unit_test(test_refused_text), cmocka_unit_test(test_equal),
                                       cmocka_unit_test(test_bits)};
    ts_arena_init(&arena);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_arena_fini(&arena);
    return failed;
}
