/*
 * Settings of a program: one typed struct, described by a table of options. A setting comes from, in rising
 * order: the table's default, the file (libconfig; a group named after the service), the environment (TS_ +
 * name in capitals), the command line (--name with '-' for '_'). Unknown keys, groups and flags are errors
 * that name the file, line and nearest known key; types and ranges are checked. Every service understands
 * --config FILE, --check-conf (exit 0 when all is well), --print-conf (the effective settings in file syntax,
 * each with its origin) and --help. One thread, at start. Files that are not settings of a program are read
 * through ts_conf_tree.h.
 */
#ifndef TS_RUN_CONF_H
#define TS_RUN_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

enum ts_option_type {
    TS_OPTION_STRING,  /* const char * ; lives as long as the struct ts_conf */
    TS_OPTION_STRINGS, /* struct ts_conf_strings: a list, or one string with commas */
    TS_OPTION_U32,
    TS_OPTION_U64,
    TS_OPTION_F64,
    TS_OPTION_BOOL,
    TS_OPTION_CHOICE /* const char *; its fallback lists what it may be, the default first: "info|warn"; of
                        one that ends in ":N", "cuda:N", with any number for the N */
};

#define TS_CONF_STRINGS_MAX 64

struct ts_conf_strings {
    const char *items[TS_CONF_STRINGS_MAX];
    size_t count;
};

struct ts_option {
    const char *name; /* lower snake case, units included: heartbeat_ms */
    enum ts_option_type type;
    size_t offset;
    const char *fallback; /* default in text form; NULL = empty, of a number: unset (ts_conf_given) */
    double min, max;      /* of numbers, of the bytes of a string; both 0 = any */
    const char *help;
};

struct ts_conf; /* owns the strings of the loaded struct */

enum ts_conf_outcome {
    TS_CONF_RUN,  /* go on */
    TS_CONF_EXIT, /* --check-conf, --print-conf or --help was served: exit 0 */
    TS_CONF_ERROR /* err says why: exit 2 */
};

/* Fills `*into` for `service` (its group in the file). `*out` must outlive `into`. Positional arguments are
 * an error unless `arguments` is given, which receives them. */
enum ts_conf_outcome ts_conf_load(const char *service, const struct ts_option *options, size_t option_count,
                                  int argc, char **argv, void *into, struct ts_conf_strings *arguments,
                                  struct ts_conf **out, struct ts_error *err);
void ts_conf_destroy(struct ts_conf **conf);
/* After what the program itself has to check: says that all is well where --check-conf asked. `service` of
 * the load must still be there. */
void ts_conf_well(const struct ts_conf *conf);
/* Whether file, environment or command line gave this setting. */
bool ts_conf_given(const struct ts_conf *conf, const char *name);
/* A peer must be able to beat twice before its silence counts as death. */
enum ts_status ts_conf_check_clocks(uint32_t heartbeat_ms, uint32_t timeout_ms, struct ts_error *err);
/* The effective settings as flags "--name=value", one after the other, each with its NUL: what a recording
 * keeps so that the same settings can be loaded again (an unset number as 0, so not for those). The caller
 * owns the text (ts_free). */
char *ts_conf_flags(const struct ts_option *options, size_t option_count, const void *from, size_t *bytes);

#endif
