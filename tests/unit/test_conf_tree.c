/* The strict reader of data files: values arrive in their units, and everything else is refused with words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/run/ts_conf_tree.h"

const char *__lsan_default_suppressions(void); /* NOLINT: the sanitizer's name */

/* libconfig 1.5 loses the text of a string that no closing quote follows. */
const char *__lsan_default_suppressions(void) /* NOLINT */
{
    return "leak:libconfig";
}

struct thing {
    char name[8];
    double bytes;
    uint32_t count;
    bool big;
    struct ts_conf_node words, inner, rows;
};

static const struct ts_field fields[] = {
    {.name = "name", TS_FIELD_TEXT, offsetof(struct thing, name), .size = 8, .needed = true},
    {.name = "size_gb", TS_FIELD_F64, offsetof(struct thing, bytes), .min = 0.5, .max = 100, .scale = 1e9},
    {.name = "count", TS_FIELD_U32, offsetof(struct thing, count), .min = 1, .max = 9},
    {.name = "big", TS_FIELD_BOOL, offsetof(struct thing, big)},
    {.name = "words", TS_FIELD_TEXTS, offsetof(struct thing, words)},
    {.name = "inner", TS_FIELD_GROUP, offsetof(struct thing, inner)},
    {.name = "rows", TS_FIELD_GROUPS, offsetof(struct thing, rows)},
};

static enum ts_status read_thing(const char *text, struct ts_conf_tree **tree, struct thing *into,
                                 struct ts_error *err)
{
    *into = (struct thing){.count = 7};
    enum ts_status status = ts_conf_tree_parse(text, "file.conf", tree, err);
    return status == TS_OK
               ? ts_conf_node_fill(ts_conf_tree_root(*tree), fields, TS_ARRAY_SIZE(fields), into, err)
               : status;
}

static void test_values(void **state)
{
    struct ts_conf_tree *tree = NULL;
    struct thing thing;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(read_thing("name = \"a\"; size_gb = 2; big = true; words = ( \"x\", \"y\" );\n"
                                "inner = { name = \"b\"; }; rows = ( { name = \"c\"; }, { name = \"d\"; } );",
                                &tree, &thing, &err),
                     TS_OK);
    assert_string_equal(thing.name, "a");
    assert_true(thing.bytes == 2e9 && thing.big);
    assert_int_equal(thing.count, 7);
    assert_int_equal(ts_conf_node_count(thing.words), 2);
    assert_string_equal(ts_conf_node_text(thing.words, 1), "y");
    struct thing inner = {.count = 0}, row = {.count = 0};
    assert_int_equal(ts_conf_node_fill(thing.inner, fields, TS_ARRAY_SIZE(fields), &inner, &err), TS_OK);
    assert_string_equal(inner.name, "b");
    assert_int_equal(ts_conf_node_count(inner.rows), 0);
    assert_int_equal(ts_conf_node_count(thing.rows), 2);
    assert_int_equal(
        ts_conf_node_fill(ts_conf_node_at(thing.rows, 1), fields, TS_ARRAY_SIZE(fields), &row, &err), TS_OK);
    assert_string_equal(row.name, "d");
    assert_true(ts_conf_node_has(thing.inner, "name"));
    assert_false(ts_conf_node_has(thing.inner, "count"));
    ts_conf_tree_destroy(&tree);
}

static void test_one_text_is_a_list(void **state)
{
    struct ts_conf_tree *tree = NULL;
    struct thing thing;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(read_thing("name = \"a\"; words = \"alone\";", &tree, &thing, &err), TS_OK);
    assert_int_equal(ts_conf_node_count(thing.words), 1);
    assert_string_equal(ts_conf_node_text(thing.words, 0), "alone");
    ts_conf_tree_destroy(&tree);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"name = \"a\";\nsize_bg = 2;", "file.conf:2: size_bg = 2: unknown key; did you mean size_gb?"},
        {"name = \"a\"; entirely_else = 2;", "entirely_else = 2: unknown key; keys are name, size_gb, count"},
        {"size_gb = 2;", "the key name is missing"},
        {"name = \"a\"; inner = ( 1 );", "inner = ( ... ): expected a group"},
        {"name = \"a\"; rows = { name = \"b\"; };", "rows = { ... }: expected a list of groups"},
        {"name = \"a\"; rows = ( 1 );", "rows = ( ... ): expected a list of groups"},
        {"name = \"\";", "name = \"\": expected a text in quotes of 1 to 7 bytes"},
        {"name = \"12345678\";", "name = \"12345678\": expected a text in quotes of 1 to 7 bytes"},
        {"name = 7;", "name = 7: expected a text"},
        {"name = \"a\"; size_gb = -1;", "size_gb = -1: expected a number from 0.5 to 100"},
        {"name = \"a\"; size_gb = 1e30;", "size_gb = 1e+30: expected a number from 0.5 to 100"},
        {"name = \"a\"; size_gb = 1e999;", "size_gb = inf: expected a number"},
        {"name = \"a\"; size_gb = nan;", "file.conf:1: syntax error"},
        {"name = \"a\"; size_gb = \"2\";", "size_gb = \"2\": expected a number"},
        {"name = \"a\"; count = 2.0;", "count = 2: expected a whole number from 1 to 9"},
        {"name = \"a\"; count = 0;", "count = 0: expected a whole number from 1 to 9"},
        {"name = \"a\"; big = 1;", "big = 1: expected true or false"},
        {"name = \"a\"; words = ( 1, 2 );", "words = ( ... ): expected a text in quotes, or a list of texts"},
        {"name = \"a\"; words = ( \"\" );", "words = ( ... ): expected a text"},
        {"name = \"a\"; name = \"b\";", "file.conf:1: duplicate setting name"},
        {"name = \"a", "file.conf:1: "},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_conf_tree *tree = NULL;
        struct thing thing;
        struct ts_error err = {0};
        enum ts_status status = read_thing(cases[i].text, &tree, &thing, &err);
        if (status == TS_OK || !strstr(err.text, cases[i].words))
            fail_msg("%s gave \"%s\", expected \"%s\"", cases[i].text, err.text, cases[i].words);
        ts_conf_tree_destroy(&tree);
    }
}

static void test_no_file(void **state)
{
    struct ts_conf_tree *tree = NULL;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_conf_tree_load("/nowhere/x.conf", &tree, &err), TS_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/x.conf"));
    assert_int_equal(ts_conf_tree_load("/tmp", &tree, &err), TS_ENOTFOUND);
    assert_non_null(strstr(err.text, "it is a folder"));
    assert_null(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_one_text_is_a_list),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
