#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_utf8.h"

static void every_scalar_value_survives(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char text[4];
        uint32_t back;
        if (code >= 0xD800 && code < 0xE000)
            continue;
        size_t length = ts_utf8_put(code, text);
        assert_int_equal(ts_utf8_next(text, length, &back), length);
        assert_int_equal(back, code);
        for (size_t cut = 1; cut < length; cut++) {
            assert_int_equal(ts_utf8_next(text, cut, &back), cut);
            assert_int_equal(back, TS_UTF8_CUT);
        }
    }
}

/* The examples of Unicode 15, table 3-8 and its neighbours. */
static void ill_formed_parts_become_one_replacement_each(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"a\xFF"
         "b",
         "a\xEF\xBF\xBD"
         "b"},
        {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                                 /* overlong: each byte */
        {"\xE0\x80\xBF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},                 /* overlong */
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},                 /* surrogate */
        {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}, /* beyond U+10FFFF */
        {"\xE1\x80", "\xEF\xBF\xBD"},                                             /* cut off */
        {"\xF1\x80\x80\xE1\x80\xC2x", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx"},   /* three maximal parts */
        {"\xE2\x82\xAC", "\xE2\x82\xAC"},                                         /* well-formed */
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        size_t bytes;
        char *out = ts_utf8_lossy(cases[i].text, strlen(cases[i].text), &bytes);
        assert_string_equal(out, cases[i].expected);
        assert_int_equal(bytes, strlen(cases[i].expected));
        assert_true(ts_utf8_valid(out, bytes));
        assert_int_equal(ts_utf8_valid(cases[i].text, strlen(cases[i].text)),
                         strcmp(cases[i].text, cases[i].expected) == 0);
        ts_free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value_survives),
        cmocka_unit_test(ill_formed_parts_become_one_replacement_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
