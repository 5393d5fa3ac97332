/*
 * What the mains of all services do alike: report a failed start in one line, start the log, pack what a
 * recording needs to build an equal core.
 */
#ifndef TS_RUN_MAIN_H
#define TS_RUN_MAIN_H

#include "common/core/ts_msg.h"
#include "common/run/ts_conf.h"

/* Prints "ts-SERVICE: TEXT" on stderr; returns `code`. */
int ts_main_fail(const char *service, int code, const struct ts_error *err);
enum ts_status ts_main_log(const char *service, const char *level, struct ts_error *err);

/* Settings of a recording: pid, flags, and for workers the Hello and the pool layout that came from the
 * engine (NULL otherwise). */
struct ts_main_settings {
    uint32_t pid;
    int argc; /* argv[0] = service */
    char **argv;
    struct ts_msg hello, pool; /* kind 0 = absent */
};

void *ts_main_pack(uint32_t pid, const char *flags, size_t flag_bytes, const struct ts_msg *hello,
                   const struct ts_msg *pool, size_t *bytes);
enum ts_status ts_main_unpack(const char *service, const void *data, size_t bytes, struct ts_arena *arena,
                              struct ts_main_settings *out);

#endif
