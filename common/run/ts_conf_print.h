/*
 * How settings are shown: as a configuration file that names where each value came from and can be loaded
 * again
 * (--print-conf), and as a list of flags (--help). Writes to stdout; owns nothing.
 */
#ifndef TS_RUN_CONF_PRINT_H
#define TS_RUN_CONF_PRINT_H

#include "common/run/ts_conf.h"

/* `origins[i]`: where option i of the struct at `from` came from, in words. */
void ts_conf_print(const char *service, const struct ts_option *options, size_t option_count,
                   const void *from, const char *const *origins);
void ts_conf_print_help(const char *program, const struct ts_option *options, size_t option_count);

#endif
