#include "services/tsctl/tsctl_csv.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t split(char *line, char **cells)
{
    size_t count = 0;
    for (char *at = line; at && count < TSCTL_CSV_CELLS_MAX; count++) {
        cells[count] = at;
        char *comma = strchr(at, ',');
        if (comma)
            *comma = '\0';
        at = comma ? comma + 1 : NULL;
    }
    return count;
}

/* The next line that is not empty, without its end. TS_ENOTFOUND at the end of the file. */
static enum ts_status next_line(struct tsctl_csv *csv, char *into, struct ts_error *err)
{
    while (fgets(into, TSCTL_CSV_LINE_MAX, csv->file)) {
        size_t bytes = strlen(into);
        csv->line++;
        if (bytes + 1 == TSCTL_CSV_LINE_MAX && into[bytes - 1] != '\n')
            return ts_error_set(err, TS_EINVAL, "%s:%u: a line of more than %d bytes is not a row", csv->path,
                                csv->line, TSCTL_CSV_LINE_MAX - 2);
        while (bytes > 0 && strchr("\r\n \t", into[bytes - 1]))
            into[--bytes] = '\0';
        if (bytes > 0)
            return TS_OK;
    }
    return ts_error_set(err, TS_ENOTFOUND, "%s: no more lines", csv->path);
}

enum ts_status tsctl_csv_open(struct tsctl_csv *csv, const char *path, struct ts_error *err)
{
    *csv = (struct tsctl_csv){.path = path};
    csv->file = fopen(path, "r");
    if (!csv->file)
        return ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", path, strerror(errno));
    enum ts_status status = next_line(csv, csv->header, err);
    if (status == TS_ENOTFOUND)
        return ts_error_set(err, TS_EINVAL, "%s: the file is empty", path);
    bool marked = strncmp(csv->header, "\xef\xbb\xbf", 3) == 0;
    csv->name_count = split(csv->header + (marked ? 3 : 0), csv->names);
    return status;
}

void tsctl_csv_close(struct tsctl_csv *csv)
{
    if (csv->file)
        (void)fclose(csv->file);
    csv->file = NULL;
}

enum ts_status tsctl_csv_next(struct tsctl_csv *csv, struct ts_error *err)
{
    enum ts_status status = next_line(csv, csv->text, err);
    if (status == TS_ENOTFOUND && ferror(csv->file))
        return ts_error_set(err, TS_EIO, "cannot read %s: %s", csv->path, strerror(errno));
    size_t count = status == TS_OK ? split(csv->text, csv->cells) : 0;
    if (status == TS_OK && count != csv->name_count)
        return ts_error_set(err, TS_EINVAL, "%s:%u: %zu cells where the header has %zu", csv->path, csv->line,
                            count, csv->name_count);
    return status;
}

const char *tsctl_csv_cell(const struct tsctl_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->name_count; i++)
        if (strcmp(csv->names[i], name) == 0)
            return csv->cells[i];
    return NULL;
}

bool tsctl_csv_has(const struct tsctl_csv *csv, const char *const *names)
{
    for (; *names; names++) {
        size_t i = 0;
        while (i < csv->name_count && strcmp(csv->names[i], *names) != 0)
            i++;
        if (i == csv->name_count)
            return false;
    }
    return true;
}

enum ts_status tsctl_csv_number(const struct tsctl_csv *csv, const char *name, double min, double max,
                                double *out, struct ts_error *err)
{
    const char *text = tsctl_csv_cell(csv, name);
    char *end = NULL;
    *out = text ? strtod(text, &end) : NAN;
    if (!text || end == text || *end || !(*out >= min && *out <= max))
        return ts_error_set(err, TS_EINVAL, "%s:%u: %s = \"%.40s\": expected a number from %g to %g",
                            csv->path, csv->line, name, text ? text : "", min, max);
    return TS_OK;
}

enum ts_status tsctl_csv_whole(const struct tsctl_csv *csv, const char *name, double max, uint32_t *out,
                               struct ts_error *err)
{
    double value;
    enum ts_status status = tsctl_csv_number(csv, name, 1, max, &value, err);
    if (status == TS_OK && value != floor(value))
        status = ts_error_set(err, TS_EINVAL, "%s:%u: %s = \"%.40s\": expected a whole number", csv->path,
                              csv->line, name, tsctl_csv_cell(csv, name));
    *out = status == TS_OK ? (uint32_t)value : 0;
    return status;
}
