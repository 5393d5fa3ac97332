/*
 * What all readers of settings files share, whatever they make of a file: its text with the limits on it,
 * and the known name nearest to a wrong one. Files are libconfig; their text is read here and not by
 * libconfig, which would end the process over a folder and follow @include anywhere. No state; any thread.
 */
#ifndef TS_RUN_CONF_TEXT_H
#define TS_RUN_CONF_TEXT_H

#include <stddef.h>

#include "common/base/ts_error.h"

#define TS_CONF_FILE_BYTES_MAX (1 << 20)

/* The whole file, NUL-terminated; the caller owns it (ts_free). Errors name the file and the remedy. */
enum ts_status ts_conf_text_read(const char *path, char **out, struct ts_error *err);

/* Search for the candidate that was probably meant. Names within half of its length come into question. */
struct ts_nearest {
    const char *name, *best; /* best: NULL while none is near */
    size_t least;            /* edits between them */
};

struct ts_nearest ts_nearest_to(const char *name);
void ts_nearest_offer(struct ts_nearest *nearest, const char *candidate);

#endif
