#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/text/ts_scan.h"

struct scan_case {
    const char *text;
    const char *pieces; /* separated by | */
};

static void check(enum ts_scan scan, const struct scan_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char got[256];
        size_t used = 0, bytes = strlen(cases[i].text);
        for (size_t at = 0; at < bytes;) {
            size_t length = ts_scan_next(scan, cases[i].text + at, bytes - at);
            assert_true(length > 0 && length <= bytes - at);
            used += (size_t)snprintf(got + used, sizeof got - used, "%s%.*s", at ? "|" : "", (int)length,
                                     cases[i].text + at);
            at += length;
        }
        got[used] = '\0';
        assert_string_equal(got, cases[i].pieces);
    }
}

static void gpt2(void **state)
{
    static const struct scan_case cases[] = {
        {"Hello world", "Hello| world"},
        {"don't DON'T we'll 'x", "don|'t| DON|'|T| we|'ll| '|x"},
        {"a  b", "a| | b"},
        {"a   ", "a|   "},
        {"a \n b", "a| \n| b"},
        {"x1234 5", "x|1234| 5"},
        {" !?a", " !?|a"},
        {"a\xCC\x81z", "a|\xCC\x81|z"}, /* a mark is neither letter nor number */
        {"\xE4\xB8\xAD\xE6\x96\x87 \xC2\xBD", "\xE4\xB8\xAD\xE6\x96\x87| \xC2\xBD"},
        {"a\xC2\xA0\xC2\xA0z", "a|\xC2\xA0|\xC2\xA0|z"},
    };
    (void)state;
    check(TS_SCAN_GPT2, cases, TS_ARRAY_SIZE(cases));
}

static void llama3(void **state)
{
    static const struct scan_case cases[] = {
        {"Hello world", "Hello| world"},
        {"DON'T we'Ll 'sX", "DON|'T| we|'Ll| '|sX"},
        {"\tfoo\"bar", "\tfoo|\"bar"},
        {"1234567", "123|456|7"},
        {" 12", " |12"},
        {"!\n\nb", "!\n\n|b"},
        {" \n \n b", " \n \n| b"},
        {"a \r\n", "a| \r\n"},
        {"a   b", "a|  | b"},
        {"a  \n  ", "a|  \n|  "},
        {"\nfoo", "\n|foo"},
        {"'\xC5\xBFt", "'\xC5\xBF|t"}, /* the long s folds to s */
        {" '", " '"},
    };
    (void)state;
    check(TS_SCAN_LLAMA3, cases, TS_ARRAY_SIZE(cases));
}

static void qwen2(void **state)
{
    static const struct scan_case cases[] = {
        {"1234", "1|2|3|4"},
        {"abc12 x", "abc|1|2| x"},
        {"it'S ok", "it|'S| ok"},
    };
    (void)state;
    check(TS_SCAN_QWEN2, cases, TS_ARRAY_SIZE(cases));
}

static void tekken(void **state)
{
    static const struct scan_case cases[] = {
        {"HelloWorld", "Hello|World"},
        {"HTTPServer ABC", "HTTPServer| ABC"},
        {"aB", "a|B"},
        {"don't", "don|'t"},
        {"//\n/x", "//\n/|x"},
        {"12", "1|2"},
        {"\xCC\x81"
         "AB",
         "\xCC\x81|AB"}, /* a mark alone is a word; as an opener it would need lower case after it */
        {"A\xE4\xB8\xAD"
         "B",
         "A\xE4\xB8\xAD|B"},
        {"  ab \n c", " | ab| \n| c"},
    };
    (void)state;
    check(TS_SCAN_TEKKEN, cases, TS_ARRAY_SIZE(cases));
}

static void patterns_are_found_by_spelling(void **state)
{
    static const char known[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                                "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    enum ts_scan scan;
    (void)state;
    assert_true(ts_scan_find(known, sizeof known - 1, &scan));
    assert_int_equal(scan, TS_SCAN_LLAMA3);
    assert_false(ts_scan_find(known, sizeof known - 2, &scan));
    assert_false(ts_scan_find("\\s+", 3, &scan));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),
        cmocka_unit_test(llama3),
        cmocka_unit_test(qwen2),
        cmocka_unit_test(tekken),
        cmocka_unit_test(patterns_are_found_by_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
