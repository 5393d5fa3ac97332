#include "common/inputs/ts_trace.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"

#define TOKENS_MAX 100000000u

/* --- Reading --- */

static bool read_digits(const char **at, int count, int *out)
{
    *out = 0;
    for (int i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        *out = *out * 10 + ((*at)[i] - '0');
    }
    *at += count;
    return true;
}

static bool read_mark(const char **at, const char *marks)
{
    if (!**at || !strchr(marks, **at))
        return false;
    (*at)++;
    return true;
}

/* Days since a fixed day, in the proleptic Gregorian calendar; years begin in March here. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month > 2 ? year : year - 1, m = month > 2 ? month - 3 : month + 9;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day;
}

/* "YYYY-MM-DD HH:MM:SS.fraction" with a blank or T between. */
static bool read_date(const char **at, double *seconds)
{
    const char *p = *at;
    int year, month, day, hour, minute, second;
    bool good = read_digits(&p, 4, &year) && read_mark(&p, "-") && read_digits(&p, 2, &month) &&
                read_mark(&p, "-") && read_digits(&p, 2, &day) && read_mark(&p, " T") &&
                read_digits(&p, 2, &hour) && read_mark(&p, ":") && read_digits(&p, 2, &minute) &&
                read_mark(&p, ":") && read_digits(&p, 2, &second);
    if (!good || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
        return false;
    *seconds = (double)(((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second);
    for (double unit = 0.1; p > *at && *p && (*p == '.' || (*p >= '0' && *p <= '9')); p++) {
        if (*p == '.' && unit != 0.1)
            return false;
        if (*p != '.') {
            *seconds += (*p - '0') * unit;
            unit /= 10;
        }
    }
    *at = p;
    return true;
}

static bool read_time(const char **at, double *seconds)
{
    char *end;
    if (read_date(at, seconds))
        return true;
    *seconds = strtod(*at, &end);
    bool good = end > *at && isfinite(*seconds) && fabs(*seconds) < 1e15;
    *at = end;
    return good;
}

static bool read_tokens(const char **at, uint32_t *tokens)
{
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    unsigned long value = strtoul(*at, &end, 10);
    *at = end;
    *tokens = (uint32_t)value;
    return !errno && value >= 1 && value <= TOKENS_MAX;
}

static bool read_row(const char *line, struct ts_trace_row *row)
{
    return read_time(&line, &row->at_s) && read_mark(&line, ",") && read_tokens(&line, &row->prompt_tokens) &&
           read_mark(&line, ",") && read_tokens(&line, &row->output_tokens) && *line == '\0';
}

static enum ts_status take_csv(const char *line, size_t number, const char *path, struct ts_trace_row *row,
                               struct ts_error *err)
{
    if (read_row(line, row))
        return TS_OK;
    return ts_error_set(err, TS_EINVAL,
                        "%s:%zu: \"%.60s\": expected TIMESTAMP,ContextTokens,GeneratedTokens: a date-time "
                        "or seconds, and two whole numbers from 1 to %u",
                        path, number, line, TOKENS_MAX);
}

static enum ts_status take_object(const char *line, size_t number, const char *path, struct ts_trace_row *row,
                                  struct ts_error *err)
{
    struct ts_json *json = NULL;
    double ms = 0;
    int64_t prompt = 0, output = 0;
    char where[400];
    (void)snprintf(where, sizeof where, "%.300s:%zu", path, number);
    enum ts_status status = ts_json_parse(line, strlen(line), where, &json, err);
    if (status != TS_OK)
        return status;
    status = ts_json_read_number(json, "timestamp", -1e15, 1e15, &ms, err);
    if (status == TS_OK)
        status = ts_json_read_integer(json, "input_length", 1, TOKENS_MAX, &prompt, err);
    if (status == TS_OK)
        status = ts_json_read_integer(json, "output_length", 1, TOKENS_MAX, &output, err);
    if (status != TS_OK)
        status = ts_error_set(err, TS_EINVAL,
                              "%s: \"%.60s\": expected {\"timestamp\": MS, \"input_length\": N, "
                              "\"output_length\": N, ...} with N from 1 to %u",
                              where, line, TOKENS_MAX);
    *row = (struct ts_trace_row){ms * 1e-3, (uint32_t)prompt, (uint32_t)output};
    ts_json_destroy(&json);
    return status;
}

/* A line without its end; empty ones and a header in the first are no rows. */
static enum ts_status take_line(struct ts_trace *trace, size_t *capacity, const char *line, size_t number,
                                const char *path, struct ts_error *err)
{
    size_t bytes = strlen(path);
    bool objects = bytes > 6 && strcasecmp(path + bytes - 6, ".jsonl") == 0;
    struct ts_trace_row row;
    if (*line == '\0' || (number == 1 && strcmp(line, "TIMESTAMP,ContextTokens,GeneratedTokens") == 0))
        return TS_OK;
    enum ts_status status =
        objects ? take_object(line, number, path, &row, err) : take_csv(line, number, path, &row, err);
    if (status != TS_OK)
        return status;
    if (trace->count == TS_TRACE_ROWS_MAX)
        return ts_error_set(err, TS_ELIMIT, "%s:%zu: more than %d requests: cut the trace", path, number,
                            TS_TRACE_ROWS_MAX);
    ts_array_reserve((void **)&trace->rows, capacity, trace->count + 1, sizeof *trace->rows);
    trace->rows[trace->count++] = row;
    return TS_OK;
}

static enum ts_status read_lines(FILE *file, struct ts_trace *trace, const char *path, struct ts_error *err)
{
    char *line = NULL;
    size_t line_capacity = 0, capacity = 0;
    enum ts_status status = TS_OK;
    ssize_t bytes;
    for (size_t number = 1; status == TS_OK && (bytes = getline(&line, &line_capacity, file)) >= 0;
         number++) {
        bool cut = memchr(line, '\0', (size_t)bytes) != NULL;
        while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r'))
            line[--bytes] = '\0';
        status = cut ? ts_error_set(err, TS_EINVAL, "%s:%zu: a NUL byte: is it a text file?", path, number)
                     : take_line(trace, &capacity, line, number, path, err);
    }
    if (status == TS_OK && ferror(file))
        status = ts_error_set(err, TS_EIO, "cannot read %s: %s", path, strerror(errno));
    free(line); /* NOLINT: getline's */
    return status;
}

static int by_time(const void *a, const void *b)
{
    const struct ts_trace_row *x = a, *y = b;
    if (x->at_s != y->at_s)
        return x->at_s < y->at_s ? -1 : 1;
    if (x->prompt_tokens != y->prompt_tokens)
        return x->prompt_tokens < y->prompt_tokens ? -1 : 1;
    return (x->output_tokens > y->output_tokens) - (x->output_tokens < y->output_tokens);
}

enum ts_status ts_trace_load(const char *path, struct ts_trace *out, struct ts_error *err)
{
    *out = (struct ts_trace){.count = 0};
    FILE *file = fopen(path, "re");
    if (!file)
        return ts_error_set(err, TS_ENOTFOUND,
                            "cannot read the trace %s: %s; give an existing CSV or JSONL file", path,
                            strerror(errno));
    enum ts_status status = read_lines(file, out, path, err);
    (void)fclose(file);
    if (status == TS_OK && out->count == 0)
        status = ts_error_set(err, TS_EINVAL, "the trace %s holds no request", path);
    if (status != TS_OK) {
        ts_trace_fini(out);
        return status;
    }
    qsort(out->rows, out->count, sizeof *out->rows, by_time);
    for (size_t i = out->count; i-- > 0;)
        out->rows[i].at_s -= out->rows[0].at_s;
    return TS_OK;
}

void ts_trace_fini(struct ts_trace *trace)
{
    ts_free(trace->rows);
    *trace = (struct ts_trace){.count = 0};
}

/* --- Cutting --- */

#define PROMPT_END 1e8 /* of the last band: no prompt is longer */

static double dispersion(const struct ts_trace *trace)
{
    double windows = floor(trace->rows[trace->count - 1].at_s), sum = 0, sum_sq = 0;
    if (windows < 2)
        return 1;
    for (size_t i = 0; i < trace->count;) {
        double window = floor(trace->rows[i].at_s), inside = 0;
        for (; i < trace->count && floor(trace->rows[i].at_s) == window; i++)
            inside++;
        if (window < windows) { /* the last one is not full */
            sum += inside;
            sum_sq += inside * inside;
        }
    }
    double mean = sum / windows;
    return (sum_sq / windows - mean * mean) / mean;
}

static int by_prompt(const void *a, const void *b)
{
    const struct ts_trace_row *x = a, *y = b;
    return (x->prompt_tokens > y->prompt_tokens) - (x->prompt_tokens < y->prompt_tokens);
}

static int by_output(const void *a, const void *b)
{
    const struct ts_trace_row *x = a, *y = b;
    return (x->output_tokens > y->output_tokens) - (x->output_tokens < y->output_tokens);
}

/* The end of band `band` of sorted rows that begins at `begin`: near the quantile, equal rows stay together.
 */
static size_t band_end(const struct ts_trace_row *rows, size_t count, size_t begin, uint32_t band,
                       uint32_t bands, int (*order)(const void *, const void *))
{
    size_t end = (size_t)((double)count * (band + 1) / bands);
    if (band + 1 == bands || end > count)
        end = count;
    if (end < begin)
        end = begin;
    while (end > begin && end < count && order(&rows[end - 1], &rows[end]) == 0)
        end++;
    return end;
}

static struct ts_class class_of(const struct ts_trace_row *rows, size_t count, double span_s)
{
    struct ts_class c = {.rate = (double)count / span_s};
    double n = (double)count;
    for (size_t i = 0; i < count; i++) {
        double prompt = rows[i].prompt_tokens, output = rows[i].output_tokens;
        c.prompt_tokens += prompt; /* whole numbers: these sums are exact in any order */
        c.prompt_tokens_sq += prompt * prompt;
        c.output_tokens += output;
        c.output_tokens_sq += output * output;
    }
    c.prompt_tokens /= n;
    c.prompt_tokens_sq /= n;
    c.output_tokens /= n;
    c.output_tokens_sq /= n;
    return c;
}

static void cut(struct ts_trace_row *rows, size_t count, uint32_t prompt_bands, uint32_t output_bands,
                double span_s, struct ts_demand *out)
{
    qsort(rows, count, sizeof *rows, by_prompt);
    size_t begin = 0;
    double from = 0;
    for (uint32_t p = 0; p < prompt_bands; p++) {
        size_t end = band_end(rows, count, begin, p, prompt_bands, by_prompt), inside = end - begin, at = 0;
        struct ts_trace_row *band = rows + begin;
        double to = end < count ? rows[end].prompt_tokens : PROMPT_END;
        if (inside > 0)
            qsort(band, inside, sizeof *band, by_output);
        for (uint32_t o = 0; o < output_bands && inside > 0; o++) {
            size_t stop = band_end(band, inside, at, o, output_bands, by_output);
            if (stop > at) {
                struct ts_class *c = &out->classes[out->class_count++];
                *c = class_of(band + at, stop - at, span_s);
                c->prompt_begin = from;
                c->prompt_end = to;
            }
            at = stop;
        }
        from = inside > 0 ? to : from;
        begin = end;
    }
}

enum ts_status ts_trace_demand(const struct ts_trace *trace, uint32_t prompt_bands, uint32_t output_bands,
                               struct ts_demand *out, struct ts_error *err)
{
    double span_s = trace->count > 0 ? trace->rows[trace->count - 1].at_s : 0;
    *out = (struct ts_demand){.burst = 1};
    if (prompt_bands == 0 || output_bands == 0 || prompt_bands > TS_CLASSES_MAX ||
        output_bands > TS_CLASSES_MAX || prompt_bands * output_bands > TS_CLASSES_MAX)
        return ts_error_set(err, TS_EINVAL, "%u x %u length classes: expected 1 to %d in all", prompt_bands,
                            output_bands, TS_CLASSES_MAX);
    if (!(span_s > 0))
        return ts_error_set(err, TS_EINVAL,
                            "the trace has %zu requests at one time: a rate needs two at different times",
                            trace->count);
    struct ts_trace_row *rows = ts_xmalloc(trace->count * sizeof *rows);
    memcpy(rows, trace->rows, trace->count * sizeof *rows);
    out->burst = dispersion(trace);
    cut(rows, trace->count, prompt_bands, output_bands, span_s, out);
    ts_free(rows);
    return TS_OK;
}
