#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"

static struct ts_json *parse(const char *text)
{
    struct ts_json *root = NULL;
    struct ts_error err = {0};
    if (ts_json_parse(text, strlen(text), "test", &root, &err) != TS_OK)
        fail_msg("%s", err.text);
    return root;
}

static void values_have_types(void **state)
{
    (void)state;
    struct ts_json *root = parse("{\"i\":-7,\"n\":2.5,\"whole\":1e3,\"s\":\"a\\u0000b\",\"b\":true,\"z\":"
                                 "null,\"a\":[1,[2]],\"o\":{}}");
    int64_t integer;
    double number;
    bool flag;
    size_t bytes;
    assert_true(ts_json_integer(ts_json_get(root, "i"), &integer));
    assert_int_equal(integer, -7);
    assert_false(ts_json_integer(ts_json_get(root, "n"), &integer));
    assert_true(ts_json_integer(ts_json_get(root, "whole"), &integer));
    assert_int_equal(integer, 1000);
    assert_true(ts_json_number(ts_json_get(root, "i"), &number));
    assert_true(number == -7.0);
    assert_memory_equal(ts_json_string(ts_json_get(root, "s"), &bytes), "a\0b", 3);
    assert_int_equal(bytes, 3);
    assert_true(ts_json_bool(ts_json_get(root, "b"), &flag) && flag);
    assert_true(ts_json_is_null(ts_json_get(root, "z")) && ts_json_is_null(ts_json_get(root, "absent")));
    assert_int_equal(ts_json_count(ts_json_get(root, "a")), 2);
    assert_int_equal(ts_json_type(ts_json_at(ts_json_get(root, "a"), 1)), TS_JSON_ARRAY);
    assert_int_equal(ts_json_type(ts_json_get(root, "o")), TS_JSON_OBJECT);
    ts_json_destroy(&root);
    assert_null(root);
}

/* A chain of lookups needs one check at its end. */
static void wrong_shapes_answer_nothing(void **state)
{
    (void)state;
    struct ts_json *root = parse("[\"text\"]");
    int64_t integer;
    double number;
    bool flag;
    void *cursor = NULL;
    const char *key;
    size_t bytes;
    assert_null(ts_json_get(root, "x"));
    assert_null(ts_json_at(root, 1));
    assert_null(ts_json_at(ts_json_get(ts_json_at(root, 0), "x"), 3));
    assert_null(ts_json_string(root, NULL));
    assert_false(ts_json_integer(NULL, &integer));
    assert_false(ts_json_number(ts_json_at(root, 0), &number));
    assert_false(ts_json_bool(ts_json_at(root, 0), &flag));
    assert_null(ts_json_next(root, &cursor, &key, &bytes));
    assert_int_equal(ts_json_count(NULL), 0);
    assert_int_equal(ts_json_type(NULL), TS_JSON_NONE);
    ts_json_destroy(&root);
}

static void members_come_in_the_order_of_the_file(void **state)
{
    (void)state;
    struct ts_json *root = parse("{\"z\":0,\"a\":1,\"m\":2,\"b\":3}");
    static const char *const expected[] = {"z", "a", "m", "b"};
    void *cursor = NULL;
    const char *key;
    size_t bytes, count = 0;
    const struct ts_json *value;
    while ((value = ts_json_next(root, &cursor, &key, &bytes)) != NULL) {
        int64_t integer = -1;
        assert_true(count < TS_ARRAY_SIZE(expected));
        assert_string_equal(key, expected[count]);
        assert_int_equal(bytes, 1);
        assert_true(ts_json_integer(value, &integer));
        assert_int_equal(integer, count++);
    }
    assert_int_equal(count, 4);
    ts_json_destroy(&root);
}

static void broken_documents_are_refused_with_a_place(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "line 1"},           {"{\n\"a\": }", "here line 2"}, {"{\"a\":1,\"a\":2}", "duplicate"},
        {"[1] x", "end of file"}, {"\"\xFF\"", "decode"},         {"{\"a\\u0000\":1}", "NUL"},
        {"[1e400]", "overflow"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_json *root = NULL;
        struct ts_error err = {0};
        assert_int_equal(ts_json_parse(cases[i].text, strlen(cases[i].text), "here", &root, &err), TS_EINVAL);
        assert_null(root);
        if (!strstr(err.text, cases[i].words) || !strstr(err.text, "here"))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].words);
    }
}

static void depth_and_size_are_bounded(void **state)
{
    (void)state;
    struct ts_json *root = NULL;
    struct ts_error err = {0};
    char *deep = ts_xmalloc(100000);
    memset(deep, '[', 100000);
    assert_int_equal(ts_json_parse(deep, 100000, "deep", &root, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, "depth"));
    assert_int_equal(ts_json_parse(deep, TS_JSON_BYTES_MAX + 1, "big", &root, &err), TS_ELIMIT);
    ts_free(deep);
}

static void a_text_needs_no_terminator(void **state)
{
    (void)state;
    struct ts_json *root = NULL;
    char *exact = ts_xmalloc(3); /* a read past the end is seen by AddressSanitizer */
    memcpy(exact, "[7]", 3);
    assert_int_equal(ts_json_parse(exact, 3, "exact", &root, NULL), TS_OK);
    ts_json_destroy(&root);
    ts_free(exact);
}

/* Python writes "no limit" as 10^30. */
static void huge_integers_become_numbers(void **state)
{
    (void)state;
    struct ts_json *root = parse("{\"limit\":1000000000000000019884624838656,\"n\":5}");
    double number = 0;
    int64_t integer = 0;
    assert_true(ts_json_number(ts_json_get(root, "limit"), &number));
    assert_true(number == 1e30);
    assert_false(ts_json_integer(ts_json_get(root, "limit"), &integer));
    assert_true(ts_json_integer(ts_json_get(root, "n"), &integer));
    assert_int_equal(integer, 5);
    ts_json_destroy(&root);
}

static void read_checks_type_and_range(void **state)
{
    (void)state;
    struct ts_json *root = parse("{\"i\":5,\"n\":0.5,\"s\":\"x\",\"b\":false,\"z\":null}");
    struct ts_error err = {0};
    int64_t integer = 42;
    double number = 42;
    bool flag = true;
    const char *text = NULL;
    assert_int_equal(ts_json_read_integer(root, "i", 1, 5, &integer, &err), TS_OK);
    assert_int_equal(integer, 5);
    assert_int_equal(ts_json_read_integer(root, "i", 6, 9, &integer, &err), TS_EINVAL);
    assert_string_equal(err.text, "key \"i\" is 5; expected an integer from 6 to 9");
    assert_int_equal(ts_json_read_integer(root, "s", 0, 9, &integer, &err), TS_EINVAL);
    assert_string_equal(err.text, "key \"s\" is \"x\"; expected an integer from 0 to 9");
    assert_int_equal(ts_json_read_integer(root, "z", 0, 9, &integer, &err), TS_ENOTFOUND);
    assert_int_equal(ts_json_read_integer(root, "absent", 0, 9, &integer, &err), TS_ENOTFOUND);
    assert_string_equal(err.text, "key \"absent\" is missing");
    assert_int_equal(integer, 5);
    assert_int_equal(ts_json_read_number(root, "n", 0, 1, &number, &err), TS_OK);
    assert_true(number == 0.5);
    assert_int_equal(ts_json_read_number(root, "n", 1, 2, &number, &err), TS_EINVAL);
    assert_int_equal(ts_json_read_bool(root, "b", &flag, &err), TS_OK);
    assert_false(flag);
    assert_int_equal(ts_json_read_bool(root, "i", &flag, &err), TS_EINVAL);
    assert_int_equal(ts_json_read_string(root, "s", &text, NULL, &err), TS_OK);
    assert_string_equal(text, "x");
    assert_int_equal(ts_json_read_string(root, "b", &text, NULL, &err), TS_EINVAL);
    ts_json_destroy(&root);
}

static void description_is_cut_to_fit(void **state)
{
    (void)state;
    struct ts_json *root = parse("{\"key\":[1,2,3,4,5,6,7,8,9]}");
    char small[16], large[64];
    assert_string_equal(ts_json_describe(root, large, sizeof large), "{\"key\":[1,2,3,4,5,6,7,8,9]}");
    assert_string_equal(ts_json_describe(root, small, sizeof small), "{\"key\":[1,2,...");
    assert_string_equal(ts_json_describe(NULL, small, sizeof small), "");
    ts_json_destroy(&root);
}

static void built_documents_read_back(void **state)
{
    (void)state;
    struct ts_json *root = ts_json_new_object(), *list = ts_json_new_array();
    ts_json_put_string(list, NULL, "a\"\xFFz", 4);
    ts_json_put_number(list, NULL, NAN);
    ts_json_put_number(list, NULL, 0.1);
    ts_json_put_bool(list, NULL, true);
    ts_json_put(root, "list", &list);
    assert_null(list);
    ts_json_put_integer(root, "big", INT64_MIN);
    ts_json_put_null(root, "none");
    char *text = ts_json_dump(root, false), *pretty = ts_json_dump(root, true);
    assert_null(strchr(text, '\n'));
    assert_non_null(strchr(pretty, '\n'));
    ts_json_destroy(&root);
    root = parse(text);
    const struct ts_json *items = ts_json_get(root, "list");
    double number = 0;
    int64_t integer = 0;
    assert_string_equal(ts_json_string(ts_json_at(items, 0), NULL), "a\"\xEF\xBF\xBDz");
    assert_int_equal(ts_json_type(ts_json_at(items, 1)), TS_JSON_NULL);
    assert_true(ts_json_number(ts_json_at(items, 2), &number) && number == 0.1);
    assert_int_equal(ts_json_count(items), 4);
    assert_true(ts_json_integer(ts_json_get(root, "big"), &integer) && integer == INT64_MIN);
    ts_json_destroy(&root);
    ts_free(text);
    ts_free(pretty);
}

static void files_are_named_in_errors(void **state)
{
    (void)state;
    char path[] = "/tmp/ts_test_json_XXXXXX";
    struct ts_json *root = NULL;
    struct ts_error err = {0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"a\":\n\n]", 8), 8);
    close(fd);
    assert_int_equal(ts_json_load(path, &root, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "line 3"));
    unlink(path);
    assert_int_equal(ts_json_load(path, &root, &err), TS_ENOTFOUND);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(ts_json_load("/", &root, &err), TS_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_types),
        cmocka_unit_test(wrong_shapes_answer_nothing),
        cmocka_unit_test(members_come_in_the_order_of_the_file),
        cmocka_unit_test(broken_documents_are_refused_with_a_place),
        cmocka_unit_test(depth_and_size_are_bounded),
        cmocka_unit_test(a_text_needs_no_terminator),
        cmocka_unit_test(huge_integers_become_numbers),
        cmocka_unit_test(read_checks_type_and_range),
        cmocka_unit_test(description_is_cut_to_fit),
        cmocka_unit_test(built_documents_read_back),
        cmocka_unit_test(files_are_named_in_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
