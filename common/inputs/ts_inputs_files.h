/*
 * Inner to common/inputs: names and the files that they stand for. Names are the same when they differ only
 * by case, blanks, '-' and '_'.
 */
#ifndef TS_INPUTS_FILES_H
#define TS_INPUTS_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/ts_error.h"

/* Whatever their case, blanks, '-' and '_'; but a sign in front, as of "-5Gbit", counts. */
bool inputs_same_name(const char *a, const char *b);

/* The paths of all files CONF_DIR/KIND/?*.conf, sorted. */
struct inputs_files {
    char **paths;
    size_t count, capacity;
};

enum ts_status inputs_files_list(const char *conf_dir, const char *kind, struct inputs_files *out,
                                 struct ts_error *err);
void inputs_files_free(struct inputs_files *files);
/* The file's name without folder and ".conf", into `out`. */
void inputs_stem(const char *path, char *out, size_t size);

/* NAME as a path that exists or has a slash, else as the stem of a file of CONF_DIR/KIND; the caller owns
 * `*path` (ts_free). TS_ENOTFOUND names the nearest stem. */
enum ts_status inputs_find(const char *conf_dir, const char *kind, const char *name, char **path,
                           struct ts_error *err);

#endif
