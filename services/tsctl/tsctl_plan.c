#include <errno.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_make.h"

/* What `show` and `diff` are told. */
struct file_flags {
    struct ts_conf *conf;
    bool json, by_class;
    const char *svg;
};

static const struct ts_option show_options[] = {
    {"json", TS_OPTION_BOOL, offsetof(struct file_flags, json), "false", 0, 0, "print the plan as JSON"},
    {"by_class", TS_OPTION_BOOL, offsetof(struct file_flags, by_class), "false", 0, 0,
     "the routing matrix of each length class too"},
    {"svg", TS_OPTION_STRING, offsetof(struct file_flags, svg), NULL, 0, 0, "draw the plan into this file"},
};

static const struct ts_option diff_options[] = {
    {"json", TS_OPTION_BOOL, offsetof(struct file_flags, json), "false", 0, 0,
     "print the differences as JSON"},
};

FILE *tsctl_plan_open(const char *path, struct ts_error *err)
{
    FILE *file = fopen(path, "w");
    if (!file)
        ts_error_set(err, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    return file;
}

enum ts_status tsctl_plan_close(FILE *file, const char *path, struct ts_error *err)
{
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return ts_error_set(err, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    return TS_OK;
}

enum ts_status tsctl_plan_write_svg(const struct tsctl_plan_doc *doc, const char *path, struct ts_error *err)
{
    FILE *to = tsctl_plan_open(path, err);
    if (!to)
        return err->status;
    tsctl_plan_svg(doc, to);
    return tsctl_plan_close(to, path, err);
}

enum ts_status tsctl_plan_write_json(struct ts_json **json, const char *path, struct ts_error *err)
{
    char *text = ts_json_dump(*json, true);
    FILE *to = path ? tsctl_plan_open(path, err) : stdout;
    enum ts_status status = to ? TS_OK : err->status;
    if (to && (fprintf(to, "%s\n", text) < 0 || fflush(to) != 0))
        status = ts_error_set(err, TS_EIO, "cannot write %s: %s", path ? path : "to stdout", strerror(errno));
    if (to && path && tsctl_plan_close(to, path, err) != TS_OK)
        status = err->status;
    ts_free(text);
    ts_json_destroy(json);
    return status;
}

static int show(const struct file_flags *f, const struct ts_conf_strings *arguments, struct ts_error *err)
{
    struct tsctl_plan_doc *doc = NULL;
    enum ts_status status;
    if (arguments->count != 1) {
        ts_error_set(err, TS_EINVAL,
                     "usage: tsctl plan show PLAN.json [--json] [--by-class] [--svg FILE]; tsctl plan --out "
                     "writes such a file");
        return 2;
    }
    status = tsctl_plan_read(arguments->items[0], &doc, err);
    if (status == TS_OK && *f->svg)
        status = tsctl_plan_write_svg(doc, f->svg, err);
    if (status == TS_OK && f->json) {
        struct ts_json *json = tsctl_plan_json(doc);
        status = tsctl_plan_write_json(&json, NULL, err);
    } else if (status == TS_OK) {
        tsctl_plan_table(doc, f->by_class, stdout);
    }
    tsctl_plan_doc_destroy(&doc);
    return status == TS_OK ? 0 : 1;
}

static int diff(const struct file_flags *f, const struct ts_conf_strings *arguments, struct ts_error *err)
{
    struct tsctl_plan_doc *a = NULL, *b = NULL;
    enum ts_status status;
    if (arguments->count != 2) {
        ts_error_set(err, TS_EINVAL,
                     "usage: tsctl plan diff A.json B.json [--json]: what changes from A to B");
        return 2;
    }
    status = tsctl_plan_read(arguments->items[0], &a, err);
    if (status == TS_OK)
        status = tsctl_plan_read(arguments->items[1], &b, err);
    if (status == TS_OK && f->json) {
        struct ts_json *json = tsctl_plan_diff(a, b);
        status = tsctl_plan_write_json(&json, NULL, err);
    } else if (status == TS_OK) {
        tsctl_plan_diff_table(a, b, stdout);
    }
    tsctl_plan_doc_destroy(&a);
    tsctl_plan_doc_destroy(&b);
    return status == TS_OK ? 0 : 1;
}

static const struct subverb {
    const char *name;
    const struct ts_option *options;
    size_t option_count;
    int (*run)(const struct file_flags *, const struct ts_conf_strings *, struct ts_error *);
} subverbs[] = {
    {"show", show_options, TS_ARRAY_SIZE(show_options), show},
    {"diff", diff_options, TS_ARRAY_SIZE(diff_options), diff},
};

static int run_subverb(const struct subverb *verb, int argc, char **argv)
{
    struct file_flags f = {.conf = NULL, .svg = ""};
    struct ts_conf_strings arguments;
    struct ts_error err = {0};
    char program[32];
    const char *name = program + strlen("tsctl ");
    int code = 0;
    snprintf(program, sizeof program, "tsctl plan %s", verb->name);
    argv[0] = program;
    switch (
        ts_conf_load("plan", verb->options, verb->option_count, argc, argv, &f, &arguments, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail(name, 2, err.text);
    case TS_CONF_RUN:
        code = verb->run(&f, &arguments, &err);
    }
    ts_conf_destroy(&f.conf);
    return code ? tsctl_fail(name, code, err.text) : 0;
}

/* Verbs that take the flags of `tsctl plan` itself. */
static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} flag_verbs[] = {{"explain", tsctl_plan_explain}, {"adopt", tsctl_plan_adopt}};

int tsctl_plan(int argc, char **argv)
{
    char program[32];
    for (size_t i = 0; argc > 1 && i < TS_ARRAY_SIZE(subverbs); i++)
        if (strcmp(argv[1], subverbs[i].name) == 0)
            return run_subverb(&subverbs[i], argc - 1, argv + 1);
    for (size_t i = 0; argc > 1 && i < TS_ARRAY_SIZE(flag_verbs); i++) {
        if (strcmp(argv[1], flag_verbs[i].name) != 0)
            continue;
        snprintf(program, sizeof program, "tsctl plan %s", flag_verbs[i].name);
        argv[1] = program; /* as help names it */
        return flag_verbs[i].run(argc - 1, argv + 1);
    }
    if (argc > 1 && argv[1][0] != '-')
        return tsctl_fail(
            "plan", 2,
            "it is followed by flags, or by explain, adopt, diff or show; tsctl plan --help lists "
            "them");
    return tsctl_plan_main(argc, argv);
}
