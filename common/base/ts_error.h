/*
 * Words for a person beside a status. Used where somebody will read the reason: configuration, model loading,
 * command lines. The text names the thing, the offending value and the remedy. Callers may prefix context on
 * the way up. A text is one line: control characters become blanks. Every `err` parameter may be NULL. No
 * allocation; thread-compatible (one object, one thread).
 */
#ifndef TS_BASE_ERROR_H
#define TS_BASE_ERROR_H

#include "common/base/ts_status.h"

struct ts_error {
    enum ts_status status;
    char text[600];
};

/* Fills `err` (if not NULL) and returns `status`, so that `return ts_error_set(err, TS_EINVAL, ...)` is one
 * line. */
enum ts_status ts_error_set(struct ts_error *err, enum ts_status status, const char *format, ...)
    TS_PRINTF(3, 4);

/* Puts "prefix: " before the text that is already there. Returns err->status (TS_OK when err is NULL). */
enum ts_status ts_error_prefix(struct ts_error *err, const char *format, ...) TS_PRINTF(2, 3);

#endif
