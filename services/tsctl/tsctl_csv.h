/*
 * A table in a CSV file: a header that names the columns, then rows of as many cells; no quotes. Errors name
 * file, line and column. One thread.
 */
#ifndef TSCTL_CSV_H
#define TSCTL_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/ts_error.h"

#define TSCTL_CSV_CELLS_MAX 64
#define TSCTL_CSV_LINE_MAX  4096

struct tsctl_csv {
    const char *path;
    FILE *file;
    unsigned line;
    char header[TSCTL_CSV_LINE_MAX], text[TSCTL_CSV_LINE_MAX];
    char *names[TSCTL_CSV_CELLS_MAX], *cells[TSCTL_CSV_CELLS_MAX];
    size_t name_count;
};

/* Reads the header. To be closed even after an error. */
enum ts_status tsctl_csv_open(struct tsctl_csv *csv, const char *path, struct ts_error *err);
void tsctl_csv_close(struct tsctl_csv *csv);
/* The next row that is not empty. TS_ENOTFOUND: there is none. */
enum ts_status tsctl_csv_next(struct tsctl_csv *csv, struct ts_error *err);

bool tsctl_csv_has(const struct tsctl_csv *csv, const char *const *names); /* all columns up to NULL */
const char *tsctl_csv_cell(const struct tsctl_csv *csv, const char *name); /* NULL: no such column */
enum ts_status tsctl_csv_number(const struct tsctl_csv *csv, const char *name, double min, double max,
                                double *out, struct ts_error *err);
/* From 1 on. */
enum ts_status tsctl_csv_whole(const struct tsctl_csv *csv, const char *name, double max, uint32_t *out,
                               struct ts_error *err);

#endif
