#include "common/run/ts_conf_text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_mem.h"

static bool includes_others(const char *text)
{
    for (const char *at = text; (at = strstr(at, "@include")); at++) {
        const char *line = at;
        while (line > text && (line[-1] == ' ' || line[-1] == '\t'))
            line--;
        if (line == text || line[-1] == '\n')
            return true;
    }
    return false;
}

static enum ts_status read_into(const char *path, char text[TS_CONF_FILE_BYTES_MAX + 1], struct ts_error *err)
{
    struct stat st;
    FILE *file = fopen(path, "re");
    bool folder = file && fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode);
    const char *trouble = folder ? "it is a folder" : file ? NULL : strerror(errno);
    size_t bytes = !file || folder ? 0 : fread(text, 1, TS_CONF_FILE_BYTES_MAX + 1, file);
    if (file)
        fclose(file);
    if (trouble)
        return ts_error_set(err, TS_ENOTFOUND,
                            "cannot read the configuration file %s: %s; give an existing file", path,
                            trouble);
    if (bytes > TS_CONF_FILE_BYTES_MAX)
        return ts_error_set(err, TS_ELIMIT, "the configuration file %s has more than %d bytes: is it one?",
                            path, TS_CONF_FILE_BYTES_MAX);
    if (memchr(text, '\0', bytes))
        return ts_error_set(err, TS_EINVAL, "the configuration file %s holds NUL bytes: is it a text file?",
                            path);
    text[bytes] = '\0';
    if (includes_others(text))
        return ts_error_set(err, TS_EUNSUPPORTED, "%s: @include is not supported: put all groups in one file",
                            path);
    return TS_OK;
}

enum ts_status ts_conf_text_read(const char *path, char **out, struct ts_error *err)
{
    char *text = ts_xmalloc(TS_CONF_FILE_BYTES_MAX + 1);
    enum ts_status status = read_into(path, text, err);
    if (status == TS_OK)
        *out = text;
    else
        ts_free(text);
    return status;
}

/* Levenshtein distance, small strings. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(b), row[128];
    if (n >= 127)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

struct ts_nearest ts_nearest_to(const char *name)
{
    return (struct ts_nearest){.name = name, .least = strlen(name) / 2 + 1};
}

void ts_nearest_offer(struct ts_nearest *nearest, const char *candidate)
{
    size_t d = distance(nearest->name, candidate);
    if (d < nearest->least) {
        nearest->least = d;
        nearest->best = candidate;
    }
}
