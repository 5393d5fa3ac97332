/* Settings: where a value comes from, and what is refused with which words. */
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
#include "common/run/ts_conf.h"

const char *__lsan_default_suppressions(void); /* NOLINT: the sanitizer's name */

/* libconfig 1.5 loses the text of a string that no closing quote follows. */
const char *__lsan_default_suppressions(void) /* NOLINT */
{
    return "leak:libconfig";
}

struct settings {
    const char *name;
    struct ts_conf_strings router;
    uint32_t max_num_seqs, big, limit;
    uint64_t seed;
    double top_p;
    bool json;
    const char *log_level, *codec;
};

#define O(field, kind, fallback, lo, hi)                                                                     \
    {                                                                                                        \
#field, kind, offsetof(struct settings, field), fallback, lo, hi, "words"                            \
    }

static const struct ts_option options[] = {
    O(name, TS_OPTION_STRING, "plain", 0, 0),
    O(router, TS_OPTION_STRINGS, "a,b", 0, 0),
    O(max_num_seqs, TS_OPTION_U32, "128", 1, 65536),
    O(big, TS_OPTION_U32, "7", 0, 0),
    O(limit, TS_OPTION_U32, NULL, 0, 9),
    O(seed, TS_OPTION_U64, "0", 0, 9e15),
    O(top_p, TS_OPTION_F64, "0.5", 1e-6, 1),
    O(json, TS_OPTION_BOOL, "false", 0, 0),
    O(log_level, TS_OPTION_CHOICE, "info|warn", 0, 0),
    O(codec, TS_OPTION_CHOICE, "|none|i4|cuda:N", 0, 0),
};

struct loaded {
    struct settings s;
    struct ts_conf *conf;
    struct ts_error err;
    enum ts_conf_outcome outcome;
};

static char path[] = "/tmp/thunderserve-conf-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *text, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
}

static void load_with(struct loaded *l, int argc, char **argv, struct ts_conf_strings *arguments)
{
    *l = (struct loaded){.conf = NULL};
    l->outcome = ts_conf_load("router", options, TS_ARRAY_SIZE(options), argc, argv, &l->s, arguments,
                              &l->conf, &l->err);
}

/* Loads the flags given, up to NULL. */
static void load(struct loaded *l, ...)
{
    char *argv[16] = {(char *)"ts-router"};
    int argc = 1;
    va_list list;
    va_start(list, l);
    for (char *item; (item = va_arg(list, char *));)
        argv[argc++] = item;
    va_end(list);
    load_with(l, argc, argv, NULL);
}

static void load_text(struct loaded *l, const char *text)
{
    write_file(text, strlen(text));
    load(l, "--config", path, NULL);
}

static void unload(struct loaded *l)
{
    ts_conf_destroy(&l->conf);
}

static void expect_words(struct loaded *l, const char *words)
{
    if (l->outcome != TS_CONF_ERROR || !strstr(l->err.text, words))
        fail_msg("outcome %d, expected an error with \"%s\", got \"%s\"", (int)l->outcome, words,
                 l->err.text);
    assert_null(strchr(l->err.text, '\n'));
    assert_null(l->conf);
}

/* The file, loaded alone, is refused with these words, after its path. */
static void refused(const char *text, const char *words)
{
    struct loaded l;
    load_text(&l, text);
    expect_words(&l, words);
    assert_non_null(strstr(l.err.text, path));
}

static void test_defaults(void **state)
{
    (void)state;
    struct loaded l;
    load(&l, NULL);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    assert_string_equal(l.s.name, "plain");
    assert_int_equal(l.s.router.count, 2);
    assert_string_equal(l.s.router.items[1], "b");
    assert_int_equal(l.s.max_num_seqs, 128);
    assert_true(l.s.top_p == 0.5);
    assert_false(l.s.json);
    unload(&l);
}

static void test_file_beats_default(void **state)
{
    (void)state;
    struct loaded l;
    load_text(&l,
              "decode = { whatever = 1; };\n"
              "router = { name = \"x\"; router = [\"p,q\", \"r\"]; max_num_seqs = 65536; big = 4000000000L;\n"
              "  seed = 9000000000000000L; top_p = 1; json = true; };");
    assert_int_equal(l.outcome, TS_CONF_RUN);
    assert_string_equal(l.s.name, "x");
    assert_int_equal(l.s.router.count, 2);
    assert_string_equal(l.s.router.items[0], "p,q");
    assert_int_equal(l.s.max_num_seqs, 65536);
    assert_int_equal(l.s.big, 4000000000u);
    assert_true(l.s.seed == 9000000000000000u);
    assert_true(l.s.top_p == 1);
    assert_true(l.s.json);
    unload(&l);
}

static void test_command_line_beats_environment_beats_file(void **state)
{
    (void)state;
    struct loaded l;
    setenv("TS_MAX_NUM_SEQS", "64", 1);
    setenv("TS_NAME", "environment", 1);
    load_text(&l, "router = { name = \"file\"; max_num_seqs = 32; router = \"one\"; };");
    assert_int_equal(l.s.max_num_seqs, 64);
    assert_string_equal(l.s.name, "environment");
    assert_int_equal(l.s.router.count, 1);
    unload(&l);
    load(&l, "--max-num-seqs", "16", "--config", path, "--name=flag", NULL);
    assert_int_equal(l.s.max_num_seqs, 16);
    assert_string_equal(l.s.name, "flag");
    assert_string_equal(l.s.router.items[0], "one");
    unload(&l);
    setenv("TS_MAX_NUM_SEQS", "many", 1);
    load(&l, NULL);
    expect_words(&l,
                 "environment TS_MAX_NUM_SEQS: max_num_seqs = many: expected a whole number from 1 to 65536");
    unsetenv("TS_MAX_NUM_SEQS");
    unsetenv("TS_NAME");
}

static void test_flags(void **state)
{
    (void)state;
    struct loaded l;
    load(&l, "--json", "--max_num_seqs=3", "--router", "u,v,w", NULL);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    assert_true(l.s.json);
    assert_int_equal(l.s.max_num_seqs, 3);
    assert_int_equal(l.s.router.count, 3);
    unload(&l);
    load(&l, "--json", "false", "--name=--dashes", NULL);
    assert_false(l.s.json);
    assert_string_equal(l.s.name, "--dashes");
    unload(&l);
    load(&l, "--max-num-seq", "3", NULL);
    expect_words(&l, "unknown flag --max-num-seq; did you mean --max-num-seqs?");
    load(&l, "--zzzzzzzz", "3", NULL);
    expect_words(&l, "unknown flag --zzzzzzzz; --help lists all");
    load(&l, "--name", NULL);
    expect_words(&l, "flag --name needs a value");
    load(&l, "--name", "--json", NULL);
    expect_words(&l, "flag --name needs a value");
    load(&l, "stray", NULL);
    expect_words(&l, "unexpected argument \"stray\"");
    load(&l, "--max-num-seqs", "1\n2", NULL);
    expect_words(&l, "command line: max_num_seqs = 1 2: expected");
}

static void test_arguments(void **state)
{
    (void)state;
    struct loaded l;
    struct ts_conf_strings arguments;
    char *argv[] = {(char *)"x", (char *)"one", (char *)"--json", (char *)"two"};
    load_with(&l, 4, argv, &arguments);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    assert_int_equal(arguments.count, 2);
    assert_string_equal(arguments.items[1], "two");
    unload(&l);
}

static void test_unknown_names(void **state)
{
    (void)state;
    refused("router = {\n  name = \"x\";\n  max_num_seq = 3;\n};",
            ":3: unknown key \"max_num_seq\" in group router; did you mean max_num_seqs?");
    refused("router = { qqqqqqqqqqqq = 3; };",
            "unknown key \"qqqqqqqqqqqq\" in group router; --help lists all");
    refused("\nrooter = { };", ":2: unknown group \"rooter\"; did you mean router?");
    refused("router = 3;", ":1: \"router\" must be a group");
}

static void test_ranges(void **state)
{
    (void)state;
    static const char *const bad[] = {"0", "65537", "-1", "1.5", "3L0", "99999999999999999999"};
    struct loaded l;
    load(&l, "--max-num-seqs", "1", "--top-p", "1e-6", "--seed", "9000000000000000", NULL);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    unload(&l);
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        load(&l, "--max-num-seqs", bad[i], NULL);
        expect_words(&l, "expected a whole number from 1 to 65536");
    }
    load(&l, "--max-num-seqs", "", NULL);
    expect_words(&l, "max_num_seqs = (nothing): expected");
    load(&l, "--big", "4294967296", NULL);
    expect_words(&l, "expected a whole number from 0 to 4294967295");
    load(&l, "--seed", "9000000000000001", NULL);
    expect_words(&l, "expected a whole number from 0 to 9000000000000000");
    load(&l, "--top-p", "nan", NULL);
    expect_words(&l, "expected a number from 1e-06 to 1");
    load(&l, "--top-p", "1e400", NULL);
    expect_words(&l, "expected a number from 1e-06 to 1");
    load(&l, "--json=yes", NULL);
    expect_words(&l, "json = yes: expected true or false");
    refused("router = { max_num_seqs = 0; };",
            ":1: max_num_seqs = 0: expected a whole number from 1 to 65536");
}

static void test_types(void **state)
{
    (void)state;
    char many[1024] = "router = { router = [";
    for (int i = 0; i < 65; i++)
        strcat(many, i ? ",\"x\"" : "\"x\"");
    strcat(many, "]; };");
    refused("router = { max_num_seqs = \"64\"; };", "max_num_seqs = \"64\": expected a whole number");
    refused("router = { max_num_seqs = 64.0; };", "expected a whole number");
    refused("router = { name = 5; };", "name = 5: expected a text in quotes");
    refused("router = { json = 1; };", "json = 1: expected true or false");
    refused("router = { json = \"true\"; };", "json = \"true\": expected true or false");
    refused("router = { name = [\"a\"]; };", "name = ( ... ): expected a text in quotes");
    refused("router = { name = { a = 1; }; };", "name = { ... }: expected a text in quotes");
    refused("router = { router = [1, 2]; };", "router = 1: expected a text in quotes, or a list");
    refused("router = { router = (\"a\", (\"b\")); };",
            "router = ( ... ): expected a text in quotes, or a list");
    refused(many, "a list of at most 64");
}

static void test_choices(void **state)
{
    (void)state;
    struct loaded l;
    load(&l, NULL);
    assert_string_equal(l.s.log_level, "info");
    assert_string_equal(l.s.codec, "");
    unload(&l);
    load(&l, "--log-level", "warn", "--codec", "i4", NULL);
    assert_string_equal(l.s.log_level, "warn");
    assert_string_equal(l.s.codec, "i4");
    unload(&l);
    load(&l, "--codec=", NULL);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    unload(&l);
    load(&l, "--codec", "cuda:12", NULL);
    assert_string_equal(l.s.codec, "cuda:12");
    unload(&l);
    load(&l, "--codec", "cuda:", NULL);
    expect_words(&l, "codec = cuda:: expected one of none|i4|cuda:N");
    load(&l, "--codec", "cuda:1x", NULL);
    expect_words(&l, "codec = cuda:1x: expected one of none|i4|cuda:N");
    load(&l, "--codec", "cuda:N", NULL);
    expect_words(&l, "codec = cuda:N: expected one of none|i4|cuda:N");
    load(&l, "--log-level", "war", NULL);
    expect_words(&l, "log_level = war: expected one of info|warn");
    load(&l, "--log-level=", NULL);
    expect_words(&l, "log_level = (nothing): expected one of info|warn");
    load(&l, "--codec", "none|i4", NULL);
    expect_words(&l, "codec = none|i4: expected one of none|i4|cuda:N");
    refused("router = { codec = 4; };", "codec = 4: expected one of none|i4|cuda:N");
}

static void test_malformed_files(void **state)
{
    (void)state;
    struct loaded l;
    refused("router = {\n  name = \"x\"\n  json = ;\n};", ":3: syntax error");
    refused("router = { name = \"a\"; name = \"b\"; };", "duplicate setting name");
    refused("router = { name = \"never closed; };", "syntax error");
    refused("\n  @include \"/dev/zero\"\n", "@include is not supported");
    write_file("router = {};\0", 13);
    load(&l, "--config", path, NULL);
    expect_words(&l, "holds NUL bytes");
    load(&l, "--config", "/tmp", NULL);
    expect_words(&l, "cannot read the configuration file /tmp: it is a folder");
    load(&l, "--config", "/nonexistent.conf", NULL);
    expect_words(&l, "cannot read the configuration file /nonexistent.conf: No such file");
    char *large = ts_xmalloc((1 << 20) + 1);
    memset(large, ' ', (1 << 20) + 1);
    write_file(large, (1 << 20) + 1);
    load(&l, "--config", path, NULL);
    expect_words(&l, "has more than 1048576 bytes");
    write_file(large, 1 << 20);
    load(&l, "--config", path, NULL);
    assert_int_equal(l.outcome, TS_CONF_RUN);
    unload(&l);
    ts_free(large);
}

/* Runs a load with stdout in the file. */
static void load_printing(struct loaded *l, int argc, char **argv)
{
    fflush(stdout);
    int kept = dup(1);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    dup2(fileno(file), 1);
    load_with(l, argc, argv, NULL);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    fclose(file);
}

static void test_print_names_origins_and_loads_again(void **state)
{
    (void)state;
    char *argv[] = {(char *)"x",
                    (char *)"--print-conf",
                    (char *)"--name",
                    (char *)"a \"b\"\\\n\t\x01z",
                    (char *)"--big",
                    (char *)"4000000000",
                    (char *)"--top-p",
                    (char *)"0.1",
                    (char *)"--json",
                    (char *)"--router",
                    (char *)"",
                    (char *)"--seed",
                    (char *)"9000000000000000"};
    struct loaded first, second;
    char text[4096];
    setenv("TS_MAX_NUM_SEQS", "77", 1);
    load_printing(&first, TS_ARRAY_SIZE(argv), argv);
    unsetenv("TS_MAX_NUM_SEQS");
    assert_int_equal(first.outcome, TS_CONF_EXIT);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(text, "    max_num_seqs = 77; # environment TS_MAX_NUM_SEQS\n"));
    assert_non_null(strstr(text, "    big = 4000000000L; # command line\n"));
    assert_non_null(strstr(text, "    top_p = 0.1; # command line\n"));
    load(&second, "--config", path, NULL);
    if (second.outcome != TS_CONF_RUN)
        fail_msg("%s", second.err.text);
    assert_string_equal(second.s.name, first.s.name);
    assert_int_equal(second.s.router.count, 0);
    assert_int_equal(second.s.max_num_seqs, 77);
    assert_int_equal(second.s.big, first.s.big);
    assert_true(second.s.seed == first.s.seed && second.s.top_p == first.s.top_p && second.s.json);
    unload(&first);
    unload(&second);
}

/* A number without a default is unset until somebody gives it, be it as zero; then nothing is printed as its
 * value. */
static void test_unset(void **state)
{
    (void)state;
    static const struct {
        const char *flag, *line;
    } cases[] = {{"--json", "    # limit is unset\n"}, {"--limit=0", "    limit = 0; # command line\n"}};
    for (int given = 0; given < 2; given++) {
        char *argv[] = {(char *)"x", (char *)cases[given].flag, (char *)"--print-conf"}, text[4096];
        struct loaded l;
        load_with(&l, 2, argv, NULL);
        assert_int_equal(l.outcome, TS_CONF_RUN);
        assert_int_equal(ts_conf_given(l.conf, "limit"), given);
        assert_int_equal(ts_conf_given(l.conf, "json"), !given);
        assert_false(ts_conf_given(l.conf, "big"));
        assert_int_equal(l.s.limit, 0);
        unload(&l);
        load_printing(&l, 3, argv);
        unload(&l);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        assert_non_null(strstr(text, cases[given].line));
    }
}

static void test_print_names_the_line_of_the_file(void **state)
{
    (void)state;
    char *argv[] = {(char *)"x", (char *)"--print-conf", (char *)"--config", path};
    struct loaded l;
    char copy[] = "router = {\n\n  max_num_seqs = 5; };", want[128], text[4096];
    char other[] = "/tmp/thunderserve-conf-other-XXXXXX";
    int fd = mkstemp(other);
    assert_int_equal(write(fd, copy, strlen(copy)), strlen(copy));
    close(fd);
    argv[3] = other;
    load_printing(&l, TS_ARRAY_SIZE(argv), argv);
    unload(&l);
    unlink(other);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    snprintf(want, sizeof want, "max_num_seqs = 5; # %s:3\n", other);
    assert_non_null(strstr(text, want));
    assert_non_null(strstr(text, "big = 7; # default\n"));
}

static void test_flags_of_a_recording_load_again(void **state)
{
    (void)state;
    struct loaded first, second;
    size_t bytes;
    load(&first, "--name", "x=y", "--router", "p,q", "--top-p", "0.3", "--json", NULL);
    char *flags = ts_conf_flags(options, TS_ARRAY_SIZE(options), &first.s, &bytes), *argv[16] = {(char *)"x"};
    int argc = 1;
    for (char *at = flags; at < flags + bytes; at += strlen(at) + 1)
        argv[argc++] = at;
    assert_int_equal(argc, 1 + TS_ARRAY_SIZE(options));
    load_with(&second, argc, argv, NULL);
    assert_int_equal(second.outcome, TS_CONF_RUN);
    assert_string_equal(second.s.name, "x=y");
    assert_string_equal(second.s.router.items[1], "q");
    assert_true(second.s.top_p == 0.3 && second.s.json);
    unload(&first);
    unload(&second);
    ts_free(flags);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_file_beats_default),
        cmocka_unit_test(test_command_line_beats_environment_beats_file),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_malformed_files),
        cmocka_unit_test(test_print_names_origins_and_loads_again),
        cmocka_unit_test(test_unset),
        cmocka_unit_test(test_print_names_the_line_of_the_file),
        cmocka_unit_test(test_flags_of_a_recording_load_again),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
