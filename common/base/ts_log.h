/*
 * One fact per line: `2026-11-24T12:00:00.123Z info router event=worker_joined id=p0 ...` on stderr. Write
 * the message as key=value pairs beginning with event=. Error means that a person must act. No line per
 * token. Safe from any thread.
 */
#ifndef TS_BASE_LOG_H
#define TS_BASE_LOG_H

#include "common/base/ts_status.h"

enum ts_log_level { TS_LOG_ERROR, TS_LOG_WARN, TS_LOG_INFO, TS_LOG_DEBUG };

/* `service` is kept as the second column (borrowed: must outlive the process's logging). */
void ts_log_init(const char *service, enum ts_log_level level);
enum ts_status ts_log_level_parse(const char *name, enum ts_log_level *out);
void ts_log(enum ts_log_level level, const char *format, ...) TS_PRINTF(2, 3);

#endif
