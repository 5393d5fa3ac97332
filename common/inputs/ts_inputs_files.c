#include "common/inputs/ts_inputs_files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_mem.h"
#include "common/run/ts_conf_text.h"

static const char suffix[] = ".conf";

static const char *skip_marks(const char *at)
{
    while (*at == ' ' || *at == '-' || *at == '_')
        at++;
    return at;
}

bool inputs_same_name(const char *a, const char *b)
{
    if ((*a == '-') != (*b == '-'))
        return false;
    for (a = skip_marks(a), b = skip_marks(b); *a && *b; a = skip_marks(a + 1), b = skip_marks(b + 1)) {
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
    }
    return *a == *b;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum ts_status inputs_files_list(const char *conf_dir, const char *kind, struct inputs_files *out,
                                 struct ts_error *err)
{
    *out = (struct inputs_files){.count = 0};
    char *folder = ts_xasprintf("%s/%s", conf_dir, kind);
    DIR *dir = opendir(folder);
    enum ts_status status = TS_OK;
    if (!dir)
        status = ts_error_set(err, TS_ENOTFOUND,
                              "cannot read the folder %s: %s; give the folder of settings that holds %s",
                              folder, strerror(errno), kind);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t bytes = strlen(entry->d_name);
        if (bytes < sizeof suffix || strcmp(entry->d_name + bytes - strlen(suffix), suffix) != 0)
            continue;
        ts_array_reserve((void **)&out->paths, &out->capacity, out->count + 1, sizeof *out->paths);
        out->paths[out->count++] = ts_xasprintf("%s/%s", folder, entry->d_name);
    }
    if (dir)
        closedir(dir);
    ts_free(folder);
    if (out->count > 0)
        qsort(out->paths, out->count, sizeof *out->paths, compare_paths);
    return status;
}

void inputs_files_free(struct inputs_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        ts_free(files->paths[i]);
    ts_free(files->paths);
    *files = (struct inputs_files){.count = 0};
}

void inputs_stem(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t bytes = strlen(base);
    if (bytes > strlen(suffix) && strcmp(base + bytes - strlen(suffix), suffix) == 0)
        bytes -= strlen(suffix);
    snprintf(out, size, "%.*s", (int)bytes, base);
}

enum ts_status inputs_find(const char *conf_dir, const char *kind, const char *name, char **path,
                           struct ts_error *err)
{
    struct stat st;
    struct inputs_files files;
    *path = NULL;
    if (strchr(name, '/') || (stat(name, &st) == 0 && S_ISREG(st.st_mode))) {
        *path = ts_xstrdup(name);
        return TS_OK;
    }
    enum ts_status status = inputs_files_list(conf_dir, kind, &files, err);
    struct ts_nearest nearest = ts_nearest_to(name);
    char stem[128], best[128] = "";
    for (size_t i = 0; status == TS_OK && !*path && i < files.count; i++) {
        inputs_stem(files.paths[i], stem, sizeof stem);
        if (inputs_same_name(stem, name))
            *path = ts_xstrdup(files.paths[i]);
        size_t least = nearest.least;
        ts_nearest_offer(&nearest, stem);
        if (nearest.least < least)
            snprintf(best, sizeof best, "%s", stem);
    }
    if (status == TS_OK && !*path)
        status =
            ts_error_set(err, TS_ENOTFOUND,
                         "%s \"%.100s\": no such file in %s/%s%s%s%s; give a path or "
                         "the name of a file there",
                         kind, name, conf_dir, kind, *best ? "; did you mean " : "", best, *best ? "?" : "");
    inputs_files_free(&files);
    return status;
}
