#include "common/base/ts_log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/ts_clock.h"

/* Below PIPE_BUF, so that lines of several processes on one pipe never mix. */
#define LINE_BYTES_MAX 2048

static const char *const level_names[] = {
    [TS_LOG_ERROR] = "error", [TS_LOG_WARN] = "warn", [TS_LOG_INFO] = "info", [TS_LOG_DEBUG] = "debug"};

static const char *_Atomic log_service = "-";
static _Atomic int log_level = TS_LOG_INFO;

void ts_log_init(const char *service, enum ts_log_level level)
{
    log_service = service;
    log_level = (int)level;
}

enum ts_status ts_log_level_parse(const char *name, enum ts_log_level *out)
{
    for (int i = 0; i < (int)(sizeof level_names / sizeof level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum ts_log_level)i;
            return TS_OK;
        }
    }
    return TS_EINVAL;
}

static size_t format_prefix(char *line, size_t size, enum ts_log_level level)
{
    ts_time now = ts_clock_wall_ns();
    time_t seconds = (time_t)(now / TS_S);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t used = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int length = snprintf(line + used, size - used, ".%03dZ %s %s ", (int)(now % TS_S / TS_MS),
                          level_names[level], log_service);
    if (length < 0) {
        return used;
    }
    used += (size_t)length;
    return used < size ? used : size - 1;
}

static void write_line(const char *line, size_t length)
{
    /* A line that stderr refuses is lost on purpose: logging never stops or slows serving. */
    while (write(STDERR_FILENO, line, length) < 0 && errno == EINTR) {
    }
}

void ts_log(enum ts_log_level level, const char *format, ...)
{
    if ((int)level > log_level) {
        return;
    }
    int saved_errno = errno;
    char line[LINE_BYTES_MAX + 1];
    size_t start = format_prefix(line, LINE_BYTES_MAX, level);
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line + start, LINE_BYTES_MAX - start, format, args);
    va_end(args);
    size_t end = start + (length < 0 ? 0 : (size_t)length);
    if (end >= LINE_BYTES_MAX) {
        end = LINE_BYTES_MAX - 1;
        memcpy(line + end - 3, "...", 3);
    }
    /* One fact is one line, also where a value came from a peer. */
    for (size_t i = start; i < end; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = ' ';
        }
    }
    line[end++] = '\n';
    write_line(line, end);
    errno = saved_errno;
}
