#include "services/tsctl/tsctl_record.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define COLUMNS_MAX 64

enum column_kind {
    COLUMN_U64,
    COLUMN_U32,
    COLUMN_S,  /* a double, in seconds */
    COLUMN_MS, /* a float in seconds, in milliseconds in the file; negative: empty */
    COLUMN_NAME,
    COLUMN_FINISH,
    COLUMN_REASON
};

struct column {
    const char *name;
    enum column_kind kind;
    size_t offset;
};

#define COLUMN(name, kind, member)                                                                           \
    {                                                                                                        \
        name, kind, offsetof(struct tsctl_record, member)                                                    \
    }

static const struct column columns[] = {
    COLUMN("request", COLUMN_U64, number),
    COLUMN("at_s", COLUMN_S, at_s),
    COLUMN("prompt_tokens", COLUMN_U32, prompt_tokens),
    COLUMN("output_tokens", COLUMN_U32, output_tokens),
    COLUMN("finish", COLUMN_FINISH, finish),
    COLUMN("reason", COLUMN_REASON, reason),
    COLUMN("attempts", COLUMN_U32, attempts),
    COLUMN("ttft_ms", COLUMN_MS, ttft_s),
    COLUMN("tpot_ms", COLUMN_MS, tpot_s),
    COLUMN("gap01_ms", COLUMN_MS, gap01_s),
    COLUMN("max_gap_ms", COLUMN_MS, max_gap_s),
    COLUMN("e2e_ms", COLUMN_MS, e2e_s),
    COLUMN("want_ttft_ms", COLUMN_MS, want_ttft_s),
    COLUMN("want_tpot_ms", COLUMN_MS, want_tpot_s),
    COLUMN("want_e2e_ms", COLUMN_MS, want_e2e_s),
    COLUMN("assigned_ms", COLUMN_MS, assigned_s),
    COLUMN("prefill_begin_ms", COLUMN_MS, prefill_begin_s),
    COLUMN("prefill_end_ms", COLUMN_MS, prefill_end_s),
    COLUMN("first_token_ms", COLUMN_MS, first_token_s),
    COLUMN("kv_open_ms", COLUMN_MS, kv_open_s),
    COLUMN("kv_commit_ms", COLUMN_MS, kv_commit_s),
    COLUMN("decode_begin_ms", COLUMN_MS, decode_begin_s),
    COLUMN("end_ms", COLUMN_MS, end_s),
    COLUMN("prefill", COLUMN_NAME, prefill),
    COLUMN("relay", COLUMN_NAME, relay),
    COLUMN("decode", COLUMN_NAME, decode),
    COLUMN("codec", COLUMN_NAME, codec),
    COLUMN("kv_bytes_raw", COLUMN_U64, kv_bytes_raw),
    COLUMN("kv_bytes_sent", COLUMN_U64, kv_bytes_sent),
};

/* --- The table --- */

void tsctl_records_init(struct tsctl_records *records)
{
    *records = (struct tsctl_records){.index = ts_map_new()};
    (void)tsctl_records_name(records, "", 0);
}

void tsctl_records_fini(struct tsctl_records *records)
{
    for (size_t i = 0; i < records->name_count; i++)
        ts_free(records->names[i]);
    ts_free(records->names);
    ts_free(records->items);
    ts_map_destroy(&records->index);
    *records = (struct tsctl_records){.count = 0};
}

struct tsctl_record *tsctl_records_add(struct tsctl_records *records)
{
    void *items = records->items;
    ts_array_reserve(&items, &records->capacity, records->count + 1, sizeof *records->items);
    records->items = items;
    struct tsctl_record *r = &records->items[records->count++];
    *r = (struct tsctl_record){.number = 0};
    return r;
}

uint16_t tsctl_records_name(struct tsctl_records *records, const char *name, size_t bytes)
{
    uintptr_t found = (uintptr_t)ts_map_get(records->index, name, bytes);
    if (found)
        return (uint16_t)(found - 1);
    if (records->name_count > UINT16_MAX) /* no cluster has that many services; their names are lost */
        return 0;
    void *names = records->names;
    ts_array_reserve(&names, &records->name_capacity, records->name_count + 1, sizeof *records->names);
    records->names = names;
    records->names[records->name_count++] = ts_xstrndup(name, bytes);
    ts_map_put(records->index, name, bytes, (void *)(uintptr_t)records->name_count);
    return (uint16_t)(records->name_count - 1);
}

static int by_time(const void *a, const void *b)
{
    const struct tsctl_record *x = a, *y = b;
    if (x->at_s != y->at_s)
        return x->at_s < y->at_s ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

void tsctl_records_sort(struct tsctl_records *records)
{
    if (records->count > 0)
        qsort(records->items, records->count, sizeof *records->items, by_time);
}

double tsctl_records_end(const struct tsctl_records *records)
{
    double end = 0;
    for (size_t i = 0; i < records->count; i++) {
        const struct tsctl_record *r = &records->items[i];
        end = fmax(end, r->at_s + fmax(0, (double)r->e2e_s));
    }
    return end;
}

/* --- Writing --- */

static void write_cell(const struct tsctl_records *records, const struct tsctl_record *r,
                       const struct column *c, FILE *to)
{
    const void *at = (const char *)r + c->offset;
    switch (c->kind) {
    case COLUMN_U64:
        fprintf(to, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case COLUMN_U32:
        fprintf(to, "%u", *(const uint32_t *)at);
        break;
    case COLUMN_S:
        fprintf(to, "%.9f", *(const double *)at);
        break;
    case COLUMN_MS:
        if (*(const float *)at >= 0)
            fprintf(to, "%.6f", (double)*(const float *)at * 1e3);
        break;
    case COLUMN_NAME:
        fputs(records->names[*(const uint16_t *)at], to);
        break;
    case COLUMN_FINISH:
        fputs(ts_finish_name(*(const uint8_t *)at), to);
        break;
    case COLUMN_REASON:
        fputs(ts_reason_name(*(const uint8_t *)at), to);
        break;
    }
}

/* FILE errors are left in the stream. */
static void write_all(const struct tsctl_records *records, FILE *to)
{
    for (size_t c = 0; c < TS_ARRAY_SIZE(columns); c++)
        fprintf(to, "%s%s", c > 0 ? "," : "", columns[c].name);
    fputc('\n', to);
    for (size_t i = 0; i < records->count; i++) {
        for (size_t c = 0; c < TS_ARRAY_SIZE(columns); c++) {
            if (c > 0)
                fputc(',', to);
            write_cell(records, &records->items[i], &columns[c], to);
        }
        fputc('\n', to);
    }
}

enum ts_status tsctl_records_save(const struct tsctl_records *records, const char *path, struct ts_error *err)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return ts_error_set(err, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    write_all(records, file);
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return ts_error_set(err, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    return TS_OK;
}

/* --- Reading --- */

static bool read_whole(const char *cell, uint64_t most, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(cell, &end, 10);
    return *cell >= '0' && *cell <= '9' && !*end && !errno && *out <= most;
}

static bool read_number(const char *cell, double *out)
{
    char *end;
    *out = strtod(cell, &end);
    return end != cell && !*end && isfinite(*out) && fabs(*out) < 1e15;
}

/* The number whose name it is, of those up to `last`; -1 = none. */
static int read_term(const char *cell, int last, const char *(*name)(int))
{
    for (int i = 0; i <= last; i++)
        if (strcmp(cell, name(i)) == 0)
            return i;
    return -1;
}

static const char *finish_name(int i)
{
    return ts_finish_name((enum ts_finish)i);
}

static const char *reason_name(int i)
{
    return ts_reason_name((enum ts_reason)i);
}

uint8_t tsctl_record_finish(const char *name)
{
    int term = read_term(name, TS_FINISH_LAST, finish_name);
    return (uint8_t)(term < 0 ? TS_FINISH_NONE : term);
}

uint8_t tsctl_record_reason(const char *name)
{
    int term = read_term(name, TS_REASON_LAST, reason_name);
    return (uint8_t)(term < 0 ? TS_REASON_NONE : term);
}

static bool read_cell(struct tsctl_records *records, struct tsctl_record *r, const struct column *c,
                      const char *cell)
{
    void *at = (char *)r + c->offset;
    uint64_t whole = 0;
    double number = -1e-3;
    int term;
    switch (c->kind) {
    case COLUMN_U64:
        return read_whole(cell, UINT64_MAX, at);
    case COLUMN_U32:
        if (!read_whole(cell, UINT32_MAX, &whole))
            return false;
        *(uint32_t *)at = (uint32_t)whole;
        return true;
    case COLUMN_S:
        return read_number(cell, at);
    case COLUMN_MS:
        if (*cell && !(read_number(cell, &number) && number >= 0))
            return false;
        *(float *)at = (float)(number * 1e-3);
        return true;
    case COLUMN_NAME:
        *(uint16_t *)at = tsctl_records_name(records, cell, strlen(cell));
        return true;
    case COLUMN_FINISH:
    case COLUMN_REASON:
        term = c->kind == COLUMN_FINISH ? read_term(cell, TS_FINISH_LAST, finish_name)
                                        : read_term(cell, TS_REASON_LAST, reason_name);
        *(uint8_t *)at = (uint8_t)term;
        return term >= 0;
    }
    return false;
}

/* Cuts a line, without its end, at its commas; 0 when there are too many. */
static size_t split(char *line, char *cells[COLUMNS_MAX])
{
    size_t count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *at = line; at; count++) {
        char *comma = strchr(at, ',');
        if (count == COLUMNS_MAX)
            return 0;
        if (comma)
            *comma = '\0';
        cells[count] = at;
        at = comma ? comma + 1 : NULL;
    }
    return count;
}

static enum ts_status read_header(char *line, const char *path, const struct column **order, size_t *count,
                                  struct ts_error *err)
{
    char *cells[COLUMNS_MAX];
    *count = split(line, cells);
    for (size_t i = 0; i < *count; i++) {
        order[i] = NULL;
        for (size_t c = 0; c < TS_ARRAY_SIZE(columns); c++)
            if (strcmp(cells[i], columns[c].name) == 0)
                order[i] = &columns[c];
        if (!order[i])
            return ts_error_set(err, TS_EINVAL,
                                "%s:1: \"%.40s\" is no column of the records of requests: is it a file that "
                                "tsctl simulate --csv or generate --csv wrote?",
                                path, cells[i]);
    }
    return TS_OK;
}

static void set_unset(struct tsctl_record *r)
{
    for (size_t c = 0; c < TS_ARRAY_SIZE(columns); c++) {
        void *at = (char *)r + columns[c].offset;
        if (columns[c].kind == COLUMN_MS)
            *(float *)at = -1;
    }
    r->want_ttft_s = r->want_tpot_s = r->want_e2e_s = 0;
}

static enum ts_status read_line(struct tsctl_records *records, char *line, const char *path, size_t number,
                                const struct column **order, size_t count, struct ts_error *err)
{
    char *cells[COLUMNS_MAX];
    if (split(line, cells) != count)
        return ts_error_set(err, TS_EINVAL, "%s:%zu: expected %zu cells, as in line 1", path, number, count);
    struct tsctl_record *r = tsctl_records_add(records);
    r->number = records->count - 1;
    set_unset(r);
    for (size_t i = 0; i < count; i++)
        if (!read_cell(records, r, order[i], cells[i]))
            return ts_error_set(err, TS_EINVAL, "%s:%zu: %s = \"%.40s\": not a value of this column", path,
                                number, order[i]->name, cells[i]);
    return TS_OK;
}

enum ts_status tsctl_records_load(struct tsctl_records *records, const char *path, struct ts_error *err)
{
    const struct column *order[COLUMNS_MAX];
    size_t count = 0, size = 0;
    char *line = NULL;
    FILE *file = fopen(path, "r");
    if (!file)
        return ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", path, strerror(errno));
    enum ts_status status = TS_OK;
    for (size_t number = 1; status == TS_OK && getline(&line, &size, file) >= 0; number++)
        status = number == 1 ? read_header(line, path, order, &count, err)
                             : read_line(records, line, path, number, order, count, err);
    if (status == TS_OK && ferror(file))
        status = ts_error_set(err, TS_EIO, "cannot read %s: %s", path, strerror(errno));
    if (status == TS_OK && count == 0)
        status = ts_error_set(err, TS_EINVAL, "%s holds no records of requests", path);
    free(line); /* NOLINT: getline's */
    fclose(file);
    return status;
}
