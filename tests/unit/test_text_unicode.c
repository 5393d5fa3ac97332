#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_unicode.h"
#include "text_fixture.h"

static void classes_of_known_code_points(void **state)
{
    static const struct {
        uint32_t code;
        unsigned classes;
    } cases[] = {
        {'A', TS_UC_LETTER | TS_UC_UPPER | TS_UC_WORD},
        {'z', TS_UC_LETTER | TS_UC_LOWER | TS_UC_WORD},
        {'7', TS_UC_NUMBER | TS_UC_NUMERIC | TS_UC_WORD},
        {'_', TS_UC_WORD},
        {' ', TS_UC_SPACE},
        {'\n', TS_UC_SPACE | TS_UC_NEWLINE},
        {'\r', TS_UC_SPACE | TS_UC_NEWLINE},
        {0x0B, TS_UC_SPACE},
        {0x1C, 0}, /* Python takes the separators U+001C to U+001F for space; Unicode does not */
        {0x85, TS_UC_SPACE},
        {0xA0, TS_UC_SPACE},
        {0x200B, 0},
        {0x200D, TS_UC_WORD},
        {0x3000, TS_UC_SPACE},
        {'!', 0},
        {0xBD, TS_UC_NUMBER | TS_UC_NUMERIC},                /* one half: a number, not part of a word */
        {0x2167, TS_UC_NUMBER | TS_UC_NUMERIC | TS_UC_WORD}, /* roman eight */
        {0x24B6, TS_UC_WORD},                                /* circled A: a symbol that is alphabetic */
        {0x01C5, TS_UC_LETTER | TS_UC_UPPER | TS_UC_WORD},   /* title case */
        {0x02B0, TS_UC_LETTER | TS_UC_UPPER | TS_UC_LOWER | TS_UC_WORD},  /* modifier letter */
        {0x4E2D, TS_UC_LETTER | TS_UC_UPPER | TS_UC_LOWER | TS_UC_WORD},  /* other letter */
        {0x0301, TS_UC_UPPER | TS_UC_LOWER | TS_UC_WORD},                 /* mark */
        {0x1C89, TS_UC_LETTER | TS_UC_UPPER | TS_UC_WORD},                /* Unicode 16 */
        {0x2EBF0, TS_UC_LETTER | TS_UC_UPPER | TS_UC_LOWER | TS_UC_WORD}, /* Unicode 15.1 */
        {0x11DE0, TS_UC_NUMERIC},                                         /* Unicode 17 */
        {0x10FFFF, 0},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++)
        if (ts_unicode_class(cases[i].code) != cases[i].classes)
            fail_msg("U+%04X: classes %u, not %u", cases[i].code, ts_unicode_class(cases[i].code),
                     cases[i].classes);
}

static void composes(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"plain", "plain"},
        {"", ""},
        {"e\xCC\x81", "\xC3\xA9"},
        {"\xE2\x84\xAB", "\xC3\x85"},                  /* Angstrom sign */
        {"a\xCC\x81\xCC\xA3", "\xE1\xBA\xA1\xCC\x81"}, /* acute, dot below: reordered, then composed */
        {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"}, /* Hangul */
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},             /* excluded from composition */
        {"\xCC\x81\xCC\xA3", "\xCC\xA3\xCC\x81"},                 /* marks without a base are reordered too */
        {"a\xE0\xA3\x93\xCC\x81",
         "a\xE0\xA3\x93\xCC\x81"}, /* U+08D3, younger than Unicode 9, stands between */
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        size_t bytes;
        char *out = ts_unicode_nfc(cases[i].text, strlen(cases[i].text), &bytes);
        assert_int_equal(bytes, strlen(cases[i].expected));
        assert_memory_equal(out, cases[i].expected, bytes);
        ts_free(out);
    }
    size_t bytes;
    char *zeros = ts_unicode_nfc("a\0b", 3, &bytes);
    assert_int_equal(bytes, 3);
    assert_memory_equal(zeros, "a\0b", 3);
    ts_free(zeros);
}

/* Marks in the worst order: an exchange sort would need 10^11 steps. */
static void a_megabyte_of_marks_is_sorted_quickly(void **state)
{
    (void)state;
    size_t pairs = (size_t)1 << 18, bytes;
    char *text = ts_xmalloc(pairs * 4);
    for (size_t i = 0; i < pairs; i++)
        memcpy(text + i * 4, "\xCC\x81\xCC\xA3", 4); /* classes 230, 220 */
    ts_time start = fixture_cpu_now();
    char *out = ts_unicode_nfc(text, pairs * 4, &bytes);
    assert_true(fixture_cpu_now() - start < FIXTURE_SLOWDOWN * TS_S);
    assert_int_equal(bytes, pairs * 4);
    assert_memory_equal(out, "\xCC\xA3\xCC\xA3", 4);
    assert_memory_equal(out + bytes - 4, "\xCC\x81\xCC\x81", 4);
    ts_free(out);
    ts_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_of_known_code_points),
        cmocka_unit_test(composes),
        cmocka_unit_test(a_megabyte_of_marks_is_sorted_quickly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
