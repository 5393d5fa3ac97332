#include "common/run/ts_conf.h"

#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/run/ts_conf_print.h"
#include "common/run/ts_conf_text.h"

#define VALUE_SHOWN_BYTES 100

/* All services of a machine share one file; a group that nobody reads would be ignored in silence. */
static const char *const known_groups[] = {"up", "router", "planner", "relay", "prefill", "decode"};

static const char default_origin[] = "default";

struct ts_conf {
    struct ts_arena arena;
    const char *service;
    bool check; /* --check-conf */
    const struct ts_option *options;
    size_t count;
    const char **origins; /* of each option's value, in words */
};

struct loader {
    const char *service;
    const struct ts_option *options;
    size_t count;
    char *into;
    const char **origins; /* those of conf */
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

/* The valid key that was probably meant, with dashes if `flag`; words for a person if none is near. */
static const char *nearest_key(const struct loader *l, const char *name, bool flag)
{
    struct ts_nearest n = ts_nearest_to(name);
    for (size_t i = 0; i < l->count; i++)
        ts_nearest_offer(&n, l->options[i].name);
    if (!n.best)
        return "--help lists all";
    char *words = ts_arena_printf(&l->conf->arena, "did you mean %s%s?", flag ? "--" : "", n.best);
    for (char *p = words + strlen("did you mean "); flag && *p; p++)
        *p = *p == '_' ? '-' : *p;
    return words;
}

static const char *expected(const struct ts_option *o, char *words, size_t size)
{
    bool bounded = o->min != 0 || o->max != 0;
    double max = bounded ? o->max : (o->type == TS_OPTION_U32 ? (double)UINT32_MAX : 9e15);
    switch (o->type) {
    case TS_OPTION_STRING:
        if (!bounded)
            return "a text in quotes";
        snprintf(words, size, "a text of %.16g to %.16g bytes, in a file in quotes", o->min, o->max);
        return words;
    case TS_OPTION_STRINGS:
        return "a text in quotes, or a list of at most 64 of them";
    case TS_OPTION_BOOL:
        return "true or false";
    case TS_OPTION_CHOICE:
        if (o->fallback)
            snprintf(words, size, "one of %s", o->fallback + strspn(o->fallback, "|"));
        return words;
    default:
        snprintf(words, size, "a %snumber from %.16g to %.16g", o->type == TS_OPTION_F64 ? "" : "whole ",
                 o->min, max);
        return words;
    }
}

static enum ts_status bad_value(const struct loader *l, const struct ts_option *o, const char *value,
                                const char *where)
{
    char words[96];
    return ts_error_set(l->err, TS_EINVAL, "%s: %s = %.*s%s: expected %s", where, o->name, VALUE_SHOWN_BYTES,
                        *value ? value : "(nothing)", strlen(value) > VALUE_SHOWN_BYTES ? "..." : "",
                        expected(o, words, sizeof words));
}

static enum ts_status set_number(const struct loader *l, const struct ts_option *o, const char *value,
                                 const char *where)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    bool whole = o->type == TS_OPTION_F64 || number == floor(number);
    bool bounded = o->min != 0 || o->max != 0;
    double max = bounded ? o->max : (o->type == TS_OPTION_U32 ? (double)UINT32_MAX : 9e15);
    if (end == value || *end || errno || !isfinite(number) || !whole || number < o->min || number > max)
        return bad_value(l, o, value, where);
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
            return bad_value(l, o, value, where);
        list->items[list->count++] = item;
    }
    return TS_OK;
}

/* Whether a value is the alternative of `length` bytes: itself, or, where that ends in ":N", with a number
 * for the N. */
static bool is_choice(const char *value, const char *alternative, size_t length)
{
    if (length < 2 || memcmp(alternative + length - 2, ":N", 2) != 0)
        return strlen(value) == length && memcmp(alternative, value, length) == 0;
    size_t digits =
        strncmp(value, alternative, length - 1) == 0 ? strspn(value + length - 1, "0123456789") : 0;
    return digits > 0 && digits < 5 && value[length - 1 + digits] == '\0';
}

static enum ts_status set_choice(const struct loader *l, const struct ts_option *o, const char *value,
                                 const char *where)
{
    for (const char *at = o->fallback; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
        if (is_choice(value, at, strcspn(at, "|"))) {
            *(const char **)slot(l, o) = ts_arena_printf(&l->conf->arena, "%s", value);
            return TS_OK;
        }
    }
    return bad_value(l, o, value, where);
}

static enum ts_status set_string(const struct loader *l, const struct ts_option *o, const char *value,
                                 const char *where)
{
    double bytes = (double)strlen(value);
    if (o->max != 0 && (bytes < o->min || bytes > o->max))
        return bad_value(l, o, value, where);
    *(const char **)slot(l, o) = ts_arena_printf(&l->conf->arena, "%s", value);
    return TS_OK;
}

static enum ts_status set_value(const struct loader *l, const struct ts_option *o, const char *value,
                                const char *where)
{
    l->origins[o - l->options] = where;
    switch (o->type) {
    case TS_OPTION_STRING:
        return set_string(l, o, value, where);
    case TS_OPTION_STRINGS:
        return set_strings(l, o, value, where);
    case TS_OPTION_BOOL:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return bad_value(l, o, value, where);
        *(bool *)slot(l, o) = strcmp(value, "true") == 0;
        return TS_OK;
    case TS_OPTION_CHOICE:
        return set_choice(l, o, value, where);
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
        l->origins[i] = default_origin;
        if (o->type == TS_OPTION_CHOICE)
            *(const char **)slot(l, o) =
                ts_arena_printf(&l->conf->arena, "%.*s", (int)strcspn(o->fallback, "|"), o->fallback);
        else if (o->fallback && set_value(l, o, o->fallback, default_origin) != TS_OK)
            return TS_EINVAL;
    }
    return TS_OK;
}

static bool is_list(const config_setting_t *setting)
{
    return config_setting_type(setting) == CONFIG_TYPE_ARRAY ||
           config_setting_type(setting) == CONFIG_TYPE_LIST;
}

/* The text of a setting, so that file, environment and command line go through one parser. */
static const char *text_of(struct ts_conf *conf, const config_setting_t *setting)
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
    case CONFIG_TYPE_GROUP:
        return "{ ... }";
    default:
        return "( ... )";
    }
}

/* Whether the file wrote it as its type wants: 64 is a number and "64" is a text. */
static bool written_well(const struct ts_option *o, const config_setting_t *setting)
{
    int type = config_setting_type(setting);
    bool whole = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    switch (o->type) {
    case TS_OPTION_STRING:
    case TS_OPTION_STRINGS:
    case TS_OPTION_CHOICE:
        return type == CONFIG_TYPE_STRING;
    case TS_OPTION_BOOL:
        return type == CONFIG_TYPE_BOOL;
    case TS_OPTION_F64:
        return whole || type == CONFIG_TYPE_FLOAT;
    default:
        return whole;
    }
}

static enum ts_status set_list(const struct loader *l, const struct ts_option *o,
                               const config_setting_t *setting, const char *where)
{
    struct ts_conf_strings *list = slot(l, o);
    int count = config_setting_length(setting);
    list->count = 0;
    l->origins[o - l->options] = where;
    for (int i = 0; i < count; i++) {
        const config_setting_t *item = config_setting_get_elem(setting, (unsigned)i);
        if (!written_well(o, item) || count > TS_CONF_STRINGS_MAX)
            return bad_value(l, o, text_of(l->conf, count > TS_CONF_STRINGS_MAX ? setting : item), where);
        list->items[list->count++] = ts_arena_printf(&l->conf->arena, "%s", config_setting_get_string(item));
    }
    return TS_OK;
}

static enum ts_status set_from_file(const struct loader *l, const char *path, const config_setting_t *setting)
{
    const char *name = config_setting_name(setting);
    const struct ts_option *o = find_option(l, name);
    unsigned line = config_setting_source_line(setting);
    if (!o)
        return ts_error_set(l->err, TS_EINVAL, "%s:%u: unknown key \"%s\" in group %s; %s", path, line, name,
                            l->service, nearest_key(l, name, false));
    char *where = ts_arena_printf(&l->conf->arena, "%s:%u", path, line);
    if (is_list(setting) && o->type == TS_OPTION_STRINGS)
        return set_list(l, o, setting, where);
    const char *value = text_of(l->conf, setting);
    if (!written_well(o, setting)) {
        bool quoted = config_setting_type(setting) == CONFIG_TYPE_STRING;
        return bad_value(l, o, quoted ? ts_arena_printf(&l->conf->arena, "\"%s\"", value) : value, where);
    }
    return set_value(l, o, value, where);
}

static enum ts_status read_file(config_t *file, const char *path, struct ts_error *err)
{
    char *text;
    enum ts_status status = ts_conf_text_read(path, &text, err);
    if (status != TS_OK)
        return status;
    config_init(file);
    if (!config_read_string(file, text)) {
        status = ts_error_set(err, TS_EINVAL, "%s:%d: %s; a file is made of groups, NAME = { key = value; };",
                              path, config_error_line(file), config_error_text(file));
        config_destroy(file);
    }
    ts_free(text);
    return status;
}

static enum ts_status check_group(const struct loader *l, const config_setting_t *group, const char *path)
{
    const char *name = config_setting_name(group);
    unsigned line = config_setting_source_line(group);
    struct ts_nearest n = {.name = name, .least = SIZE_MAX};
    for (size_t i = 0; i < TS_ARRAY_SIZE(known_groups); i++)
        ts_nearest_offer(&n, known_groups[i]);
    ts_nearest_offer(&n, l->service);
    if (n.least != 0)
        return ts_error_set(
            l->err, TS_EINVAL,
            "%s:%u: unknown group \"%s\"; did you mean %s? Groups are up, router, planner, relay, "
            "prefill and decode",
            path, line, name, n.best ? n.best : "router");
    if (!config_setting_is_group(group))
        return ts_error_set(l->err, TS_EINVAL, "%s:%u: \"%s\" must be a group: %s = { key = value; };", path,
                            line, name, name);
    return TS_OK;
}

static enum ts_status load_file(const struct loader *l, const char *path)
{
    config_t file;
    enum ts_status status = read_file(&file, path, l->err);
    if (status != TS_OK)
        return status;
    const config_setting_t *root = config_root_setting(&file);
    for (int i = 0; status == TS_OK && i < config_setting_length(root); i++)
        status = check_group(l, config_setting_get_elem(root, (unsigned)i), path);
    const config_setting_t *group = status == TS_OK ? config_lookup(&file, l->service) : NULL;
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
        const char *where = value ? ts_arena_printf(&l->conf->arena, "environment %s", name) : NULL;
        if (value && set_value(l, &l->options[i], value, where) != TS_OK)
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
    if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
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
            return ts_error_set(l->err, TS_EINVAL, "unknown flag %.*s; %s", VALUE_SHOWN_BYTES, arg,
                                nearest_key(l, name, true));
        if (!value)
            return ts_error_set(l->err, TS_EINVAL, "flag %s needs a value: %s VALUE, or %s=VALUE", arg, arg,
                                arg);
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
                                "unexpected argument \"%.*s\"; settings are given as --name value",
                                VALUE_SHOWN_BYTES, argv[i]);
        }
    }
    return TS_OK;
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
    conf->options = options;
    conf->count = option_count;
    conf->origins = ts_arena_zalloc(&conf->arena, option_count * sizeof *conf->origins);
    struct loader l = {.service = service,
                       .options = options,
                       .count = option_count,
                       .into = into,
                       .origins = conf->origins,
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
        ts_conf_print_help(argv[0], options, option_count);
    if (flags.print)
        ts_conf_print(service, options, option_count, into, l.origins);
    conf->service = service;
    conf->check = flags.check;
    return flags.help || flags.print || flags.check ? TS_CONF_EXIT : TS_CONF_RUN;
}

void ts_conf_well(const struct ts_conf *conf)
{
    if (conf->check)
        printf("%s: configuration ok\n", conf->service);
}

bool ts_conf_given(const struct ts_conf *conf, const char *name)
{
    size_t i = 0;
    while (i < conf->count && strcmp(conf->options[i].name, name) != 0)
        i++;
    TS_ASSERT(i < conf->count);
    return conf->origins[i] != default_origin;
}

void ts_conf_destroy(struct ts_conf **conf)
{
    if (!*conf)
        return;
    ts_arena_fini(&(*conf)->arena);
    ts_free(*conf);
    *conf = NULL;
}

enum ts_status ts_conf_check_clocks(uint32_t heartbeat_ms, uint32_t timeout_ms, struct ts_error *err)
{
    if (timeout_ms / 2 >= heartbeat_ms)
        return TS_OK;
    return ts_error_set(
        err, TS_EINVAL,
        "timeout_ms = %u with heartbeat_ms = %u: expected at least twice as much, or every peer "
        "would be taken for dead",
        timeout_ms, heartbeat_ms);
}
