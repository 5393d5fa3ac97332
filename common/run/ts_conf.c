#include "common/run/ts_conf.h"

#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_mem.h"

struct ts_conf {
    struct ts_arena arena;
};

struct loader {
    const char *service;
    const struct ts_option *options;
    size_t count;
    char *into;
    struct ts_conf *conf;
    struct ts_error *err;
};

static void *slot(const struct loader *l, const struct ts_option *o)
{
    return l->into + o->offset;
}

static const struct ts_option *find_option(const struct loader *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->options[i].name, name) == 0)
            return &l->options[i];
    }
    return NULL;
}

/* Levenshtein distance, small strings: to name the key that was probably meant. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(b), row[128];
    if (n >= 127)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static const char *nearest(const struct loader *l, const char *name)
{
    const char *best = "--help lists all";
    size_t least = strlen(name) / 2 + 1;
    for (size_t i = 0; i < l->count; i++) {
        size_t d = distance(name, l->options[i].name);
        if (d < least) {
            least = d;
            best = l->options[i].name;
        }
    }
    return best;
}

static enum ts_status bad_value(const struct loader *l, const struct ts_option *o, const char *value,
                                const char *where, const char *expected)
{
    return ts_error_set(l->err, TS_EINVAL, "%s: %s = \"%s\" (%s): expected %s", l->service, o->name, value,
                        where, expected);
}

static enum ts_status set_number(const struct loader *l, const struct ts_option *o, const char *value,
                                 const char *where)
{
    char expected[96], *end;
    errno = 0;
    double number = strtod(value, &end);
    bool whole = o->type == TS_OPTION_F64 || number == floor(number);
    bool bounded = o->min != 0 || o->max != 0;
    double max = bounded ? o->max : (o->type == TS_OPTION_U32 ? (double)UINT32_MAX : 9e15);
    snprintf(expected, sizeof expected, "a %snumber from %g to %g", o->type == TS_OPTION_F64 ? "" : "whole ",
             o->min, max);
    if (end == value || *end || errno || !isfinite(number) || !whole || number < o->min || number > max)
        return bad_value(l, o, value, where, expected);
    if (o->type == TS_OPTION_U32)
        *(uint32_t *)slot(l, o) = (uint32_t)number;
    else if (o->type == TS_OPTION_U64)
        *(uint64_t *)slot(l, o) = (uint64_t)number;
    else
        *(double *)slot(l, o) = number;
    return TS_OK;
}

static enum ts_status set_strings(const struct loader *l, const struct ts_option *o, const char *value,
                                  const char *where)
{
    struct ts_conf_strings *list = slot(l, o);
    char *copy = ts_arena_printf(&l->conf->arena, "%s", value), *save = NULL;
    list->count = 0;
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        if (list->count == TS_CONF_STRINGS_MAX)
            return bad_value(l, o, value, where, "at most 64 items");
        list->items[list->count++] = item;
    }
    return TS_OK;
}

static enum ts_status set_value(const struct loader *l, const struct ts_option *o, const char *value,
                                const char *where)
{
    switch (o->type) {
    case TS_OPTION_STRING:
        *(const char **)slot(l, o) = ts_arena_printf(&l->conf->arena, "%s", value);
        return TS_OK;
    case TS_OPTION_STRINGS:
        return set_strings(l, o, value, where);
    case TS_OPTION_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return bad_value(l, o, value, where, "true or false");
        *(bool *)slot(l, o) = strcmp(value, "true") == 0;
        return TS_OK;
    default:
        return set_number(l, o, value, where);
    }
}

static enum ts_status set_fallbacks(const struct loader *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct ts_option *o = &l->options[i];
        if (o->type == TS_OPTION_STRING)
            *(const char **)slot(l, o) = "";
        if (o->fallback && set_value(l, o, o->fallback, "default") != TS_OK)
            return TS_EINVAL;
    }
    return TS_OK;
}

/* The text of a scalar setting, so that file, environment and command line go through one parser. NULL: not a
 * scalar. */
static const char *scalar_text(struct ts_conf *conf, const config_setting_t *setting)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return ts_arena_printf(&conf->arena, "%lld", config_setting_get_int64(setting));
    case CONFIG_TYPE_FLOAT:
        return ts_arena_printf(&conf->arena, "%.17g", config_setting_get_float(setting));
    case CONFIG_TYPE_BOOL:
        return config_setting_get_bool(setting) ? "true" : "false";
    case CONFIG_TYPE_STRING:
        return config_setting_get_string(setting);
    default:
        return NULL;
    }
}

static const char *list_text(struct ts_conf *conf, const config_setting_t *setting)
{
    const char *text = "";
    for (int i = 0; i < config_setting_length(setting); i++) {
        const char *item = scalar_text(conf, config_setting_get_elem(setting, (unsigned)i));
        if (!item)
            return NULL;
        text = ts_arena_printf(&conf->arena, "%s%s%s", text, i ? "," : "", item);
    }
    return text;
}

static enum ts_status set_from_file(const struct loader *l, const char *path, const config_setting_t *setting)
{
    const char *name = config_setting_name(setting);
    const struct ts_option *o = find_option(l, name);
    unsigned line = config_setting_source_line(setting);
    if (!o)
        return ts_error_set(l->err, TS_EINVAL, "%s:%u: unknown key \"%s\" in group %s; did you mean %s?",
                            path, line, name, l->service, nearest(l, name));
    int type = config_setting_type(setting);
    bool list = type == CONFIG_TYPE_ARRAY || type == CONFIG_TYPE_LIST;
    const char *value =
        list && o->type == TS_OPTION_STRINGS ? list_text(l->conf, setting) : scalar_text(l->conf, setting);
    char *where = ts_arena_printf(&l->conf->arena, "%s:%u", path, line);
    if (!value)
        return bad_value(l, o, "(a group or list)", where, "a single value");
    return set_value(l, o, value, where);
}

static enum ts_status read_file(config_t *file, const char *path, struct ts_error *err)
{
    config_init(file);
    if (config_read_file(file, path))
        return TS_OK;
    enum ts_status status;
    if (config_error_type(file) == CONFIG_ERR_FILE_IO)
        status = ts_error_set(err, TS_ENOTFOUND,
                              "cannot read the configuration file %s: %s; give an existing --config", path,
                              strerror(errno));
    else
        status = ts_error_set(err, TS_EINVAL,
                              "%s:%d: %s; a file is groups of key = value; lines (libconfig syntax)", path,
                              config_error_line(file), config_error_text(file));
    config_destroy(file);
    return status;
}

static enum ts_status load_file(const struct loader *l, const char *path)
{
    config_t file;
    enum ts_status status = read_file(&file, path, l->err);
    if (status != TS_OK)
        return status;
    const config_setting_t *group = config_lookup(&file, l->service);
    if (group && !config_setting_is_group(group))
        status = ts_error_set(l->err, TS_EINVAL, "%s:%u: \"%s\" must be a group: %s = { key = value; };",
                              path, config_setting_source_line(group), l->service, l->service);
    for (int i = 0; status == TS_OK && group && i < config_setting_length(group); i++)
        status = set_from_file(l, path, config_setting_get_elem(group, (unsigned)i));
    config_destroy(&file);
    return status;
}

static enum ts_status load_environment(const struct loader *l)
{
    for (size_t i = 0; i < l->count; i++) {
        char name[128] = "TS_";
        const char *from = l->options[i].name;
        for (size_t j = 0; from[j] && j + 4 < sizeof name; j++)
            name[3 + j] = (char)toupper((unsigned char)from[j]);
        const char *value = getenv(name);
        if (value && set_value(l, &l->options[i], value, name) != TS_OK)
            return TS_EINVAL;
    }
    return TS_OK;
}

struct flags {
    const char *config;
    bool check, print, help;
};

/* Splits "--name=value" or "--name value"; gives the option's name with underscores. */
static const char *flag_value(int argc, char **argv, int *i, char *name, size_t size, bool is_bool)
{
    const char *equals = strchr(argv[*i], '=');
    snprintf(name, size, "%.*s", equals ? (int)(equals - argv[*i] - 2) : (int)size - 1, argv[*i] + 2);
    for (char *p = name; *p; p++)
        *p = *p == '-' ? '_' : *p;
    if (equals)
        return equals + 1;
    if (is_bool &&
        (*i + 1 >= argc || (strcmp(argv[*i + 1], "true") != 0 && strcmp(argv[*i + 1], "false") != 0)))
        return "true";
    if (*i + 1 >= argc)
        return NULL;
    return argv[++*i];
}

static bool is_bool_flag(const struct loader *l, const char *arg)
{
    char name[128];
    snprintf(name, sizeof name, "%s", arg + 2);
    for (char *p = name; *p; p++)
        *p = *p == '-' ? '_' : *p;
    const struct ts_option *o = find_option(l, name);
    return o && o->type == TS_OPTION_BOOL;
}

static enum ts_status load_flag(const struct loader *l, int argc, char **argv, int *i, struct flags *flags,
                                bool apply)
{
    char name[128];
    const char *arg = argv[*i];
    bool plain = is_bool_flag(l, arg);
    if (strcmp(arg, "--check-conf") == 0)
        flags->check = true;
    else if (strcmp(arg, "--print-conf") == 0)
        flags->print = true;
    else if (strcmp(arg, "--help") == 0)
        flags->help = true;
    else {
        const char *value = flag_value(argc, argv, i, name, sizeof name, plain);
        const struct ts_option *o = find_option(l, name);
        if (!o && strcmp(name, "config") != 0)
            return ts_error_set(l->err, TS_EINVAL, "%s: unknown flag %s; did you mean --%s?", l->service, arg,
                                nearest(l, name));
        if (!value)
            return ts_error_set(l->err, TS_EINVAL, "%s: flag %s needs a value", l->service, arg);
        if (!o)
            flags->config = value;
        else if (apply)
            return set_value(l, o, value, "command line");
    }
    return TS_OK;
}

static enum ts_status load_arguments(const struct loader *l, int argc, char **argv, struct flags *flags,
                                     bool apply, struct ts_conf_strings *arguments)
{
    if (arguments)
        arguments->count = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2]) {
            enum ts_status status = load_flag(l, argc, argv, &i, flags, apply);
            if (status != TS_OK)
                return status;
        } else if (arguments && arguments->count < TS_CONF_STRINGS_MAX) {
            arguments->items[arguments->count++] = argv[i];
        } else {
            return ts_error_set(l->err, TS_EINVAL,
                                "%s: unexpected argument \"%s\"; settings are given as --name value",
                                l->service, argv[i]);
        }
    }
    return TS_OK;
}

static void write_plain(FILE *to, const struct ts_option *o, const void *at)
{
    const struct ts_conf_strings *list = at;
    switch (o->type) {
    case TS_OPTION_STRING:
        fputs(*(const char *const *)at, to);
        break;
    case TS_OPTION_STRINGS:
        for (size_t i = 0; i < list->count; i++)
            fprintf(to, "%s%s", i ? "," : "", list->items[i]);
        break;
    case TS_OPTION_U32:
        fprintf(to, "%u", *(const uint32_t *)at);
        break;
    case TS_OPTION_U64:
        fprintf(to, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case TS_OPTION_F64:
        fprintf(to, "%#.17g", *(const double *)at);
        break;
    case TS_OPTION_BOOL:
        fputs(*(const bool *)at ? "true" : "false", to);
        break;
    }
}

char *ts_conf_flags(const struct ts_option *options, size_t option_count, const void *from, size_t *bytes)
{
    char *text = NULL;
    FILE *to = open_memstream(&text, bytes);
    for (size_t i = 0; i < option_count; i++) {
        fprintf(to, "--%s=", options[i].name);
        write_plain(to, &options[i], (const char *)from + options[i].offset);
        fputc('\0', to);
    }
    fclose(to);
    return text;
}

static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void print_option(const struct loader *l, const struct ts_option *o)
{
    const struct ts_conf_strings *list = slot(l, o);
    printf("    %s = ", o->name);
    if (o->type == TS_OPTION_STRING) {
        print_quoted(*(const char **)slot(l, o));
    } else if (o->type == TS_OPTION_STRINGS) {
        printf("[");
        for (size_t i = 0; i < list->count; i++) {
            printf(i ? ", " : "");
            print_quoted(list->items[i]);
        }
        printf("]");
    } else {
        write_plain(stdout, o, slot(l, o));
        if (o->type == TS_OPTION_U64 && *(const uint64_t *)slot(l, o) > INT32_MAX)
            printf("L");
    }
    printf(";\n");
}

static void print_conf(const struct loader *l)
{
    printf("%s = {\n", l->service);
    for (size_t i = 0; i < l->count; i++)
        print_option(l, &l->options[i]);
    printf("};\n");
}

static void print_help(const struct loader *l, const char *program)
{
    printf("usage: %s [--config FILE] [--check-conf] [--print-conf] [--NAME VALUE ...]\n\n", program);
    for (size_t i = 0; i < l->count; i++) {
        const struct ts_option *o = &l->options[i];
        char flag[128];
        snprintf(flag, sizeof flag, "--%s", o->name);
        for (char *p = flag; *p; p++)
            *p = *p == '_' ? '-' : *p;
        printf("  %-28s %s%s%s%s\n", flag, o->help, o->fallback ? " [" : "", o->fallback ? o->fallback : "",
               o->fallback ? "]" : "");
    }
}

static enum ts_status load_all(const struct loader *l, int argc, char **argv, struct flags *flags,
                               struct ts_conf_strings *arguments)
{
    enum ts_status status = load_arguments(l, argc, argv, flags, false, arguments);
    if (status == TS_OK)
        status = set_fallbacks(l);
    if (status == TS_OK && flags->config)
        status = load_file(l, flags->config);
    if (status == TS_OK)
        status = load_environment(l);
    if (status == TS_OK)
        status = load_arguments(l, argc, argv, flags, true, arguments);
    return status;
}

enum ts_conf_outcome ts_conf_load(const char *service, const struct ts_option *options, size_t option_count,
                                  int argc, char **argv, void *into, struct ts_conf_strings *arguments,
                                  struct ts_conf **out, struct ts_error *err)
{
    struct ts_conf *conf = ts_xcalloc(1, sizeof *conf);
    ts_arena_init(&conf->arena);
    struct loader l = {.service = service,
                       .options = options,
                       .count = option_count,
                       .into = into,
                       .conf = conf,
                       .err = err};
    struct flags flags = {0};
    enum ts_status status = load_all(&l, argc, argv, &flags, arguments);
    if (status != TS_OK) {
        ts_conf_destroy(&conf);
        return TS_CONF_ERROR;
    }
    *out = conf;
    if (flags.help)
        print_help(&l, argv[0]);
    if (flags.print)
        print_conf(&l);
    if (flags.check)
        printf("%s: configuration ok\n", service);
    return flags.help || flags.print || flags.check ? TS_CONF_EXIT : TS_CONF_RUN;
}

void ts_conf_destroy(struct ts_conf **conf)
{
    if (!*conf)
        return;
    ts_arena_fini(&(*conf)->arena);
    ts_free(*conf);
    *conf = NULL;
}

enum ts_status ts_conf_groups(const char *path, struct ts_conf **out, struct ts_conf_strings *names,
                              struct ts_error *err)
{
    config_t file;
    enum ts_status status = read_file(&file, path, err);
    if (status != TS_OK)
        return status;
    struct ts_conf *conf = ts_xcalloc(1, sizeof *conf);
    ts_arena_init(&conf->arena);
    const config_setting_t *root = config_root_setting(&file);
    names->count = 0;
    for (int i = 0; i < config_setting_length(root) && names->count < TS_CONF_STRINGS_MAX; i++) {
        const char *name = config_setting_name(config_setting_get_elem(root, (unsigned)i));
        names->items[names->count++] = ts_arena_printf(&conf->arena, "%s", name);
    }
    config_destroy(&file);
    *out = conf;
    return TS_OK;
}
