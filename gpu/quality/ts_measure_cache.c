/*
 * What was measured, in a file: a line of what it is of, a line for each figure as C writes a double in
 * hexadecimal, and the hash of all that. Written beside its place and moved there, so that it is whole or not
 * there; whatever else it may be, it does not count.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/ts_hash.h"
#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/quality/ts_measure.h"

#define FORMAT     1 /* and of how it is measured: another one, and all is measured anew */
#define FILE_BYTES 2048u
#define PATH_BYTES 4096u
#define TURN_WAIT  (20 * TS_S)
#define TURN_STEP  (20 * TS_MS)

#define FIGURE(name)                                                                                         \
    {                                                                                                        \
#name, offsetof(struct ts_measured, name)                                                            \
    }

static const struct {
    const char *name;
    size_t offset;
} figures[] = {FIGURE(memory_bytes),
               FIGURE(product_flops),
               FIGURE(attention_flops),
               FIGURE(weight_bytes_per_s),
               FIGURE(context_bytes_per_s),
               FIGURE(layer_s),
               FIGURE(step_s),
               FIGURE(tokens_half),
               FIGURE(upload_bytes_per_s),
               FIGURE(download_bytes_per_s),
               FIGURE(error)};

#define FIGURES (sizeof figures / sizeof *figures)

static double *figure_of(struct ts_measured *m, size_t i)
{
    return (double *)(void *)((char *)m + figures[i].offset);
}

/* Device, driver, model, settings and version: what must be the same. One line. */
static void write_key(const struct ts_engine_info *info, const char *settings, char *out, size_t bytes)
{
    const struct ts_cuda_properties *p = info->device ? ts_cuda_properties(info->device) : NULL;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    snprintf(out, bytes,
             "measured %d version=0.1.0 device=\"%.100s\" uuid=%s driver=%u processors=%ld "
             "model=%016" PRIx64 " layers=%u..%u kv_blocks=%u settings=\"%.300s\"",
             FORMAT, info->kind, p ? p->uuid : "none", p ? p->driver_version : 0, processors,
             info->model.fingerprint, info->shard.layer_begin, info->shard.layer_end, info->kv_blocks,
             settings);
}

/* The name is made of the key, so that several devices and models have their files. False: nothing is kept.
 */
static bool path_of(const char *folder, const char *key, char *out, size_t bytes)
{
    const char *home = getenv("HOME"), *cache = getenv("XDG_CACHE_HOME");
    char made[PATH_BYTES];
    int used;
    if (folder)
        used = snprintf(made, sizeof made, "%s", folder);
    else if (cache && *cache == '/')
        used = snprintf(made, sizeof made, "%s/thunderserve", cache);
    else
        used = home && *home == '/' ? snprintf(made, sizeof made, "%s/.cache/thunderserve", home) : 0;
    if (used <= 0 || (size_t)used >= sizeof made)
        return false;
    used = snprintf(out, bytes, "%s/measured-%016" PRIx64, made, ts_hash64(key, strlen(key), 1));
    return used > 0 && (size_t)used < bytes;
}

static size_t write_text(const char *key, struct ts_measured m, char *out, size_t bytes)
{
    int used = snprintf(out, bytes, "%s\n", key);
    for (size_t i = 0; i < FIGURES; i++)
        used += snprintf(out + used, bytes - (size_t)used, "%s %a\n", figures[i].name, *figure_of(&m, i));
    uint64_t hash = ts_hash64(out, (size_t)used, 0);
    used += snprintf(out + used, bytes - (size_t)used, "%016" PRIx64 "\n", hash);
    return (size_t)used;
}

/* Reads the figures, writes them again, and compares. */
static bool read_text(const char *key, const char *text, struct ts_measured *out)
{
    char again[FILE_BYTES];
    struct ts_device_type unused = {.memory_bytes = 0};
    const char *at = text;
    *out = (struct ts_measured){.memory_bytes = 0};
    for (size_t i = 0; at && i < FIGURES; i++) {
        at = strchr(at, '\n');
        at = at ? strchr(at, ' ') : NULL;
        if (at)
            *figure_of(out, i) = strtod(at, NULL);
    }
    size_t bytes = write_text(key, *out, again, sizeof again);
    return strlen(text) == bytes && memcmp(text, again, bytes) == 0 && ts_cost_measured(out, &unused);
}

static bool load(const char *path, const char *key, struct ts_measured *out)
{
    char text[FILE_BYTES];
    FILE *file = fopen(path, "rbe");
    if (!file)
        return false;
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[bytes] = '\0';
    return read_text(key, text, out);
}

/* The folder and the one above it. */
static void make_folder(const char *path)
{
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", path);
    char *last = strrchr(folder, '/');
    if (!last)
        return;
    *last = '\0';
    if (mkdir(folder, 0777) == 0 || errno != ENOENT)
        return;
    char *above = strrchr(folder, '/');
    if (!above)
        return;
    *above = '\0';
    mkdir(folder, 0777);
    *above = '/';
    mkdir(folder, 0777);
}

static bool save(const char *path, const char *key, const struct ts_measured *m)
{
    char text[FILE_BYTES], beside[PATH_BYTES + 32];
    size_t bytes = write_text(key, *m, text, sizeof text);
    make_folder(path);
    snprintf(beside, sizeof beside, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(beside, "wbe");
    if (!file)
        return false;
    bool whole = fwrite(text, 1, bytes, file) == bytes;
    whole &= fclose(file) == 0;
    if (whole && rename(beside, path) == 0)
        return true;
    remove(beside);
    return false;
}

/* Workers that start together on a device would measure each other: they take turns, by a lock on a file of
 * the device beside the others. -1: it is not to be had, and who waited so long measures all the same. */
static int take_turn(const struct ts_engine_info *info, const char *path)
{
    char lock[PATH_BYTES + 64];
    const struct timespec step = {.tv_nsec = TURN_STEP};
    const char *last = strrchr(path, '/');
    make_folder(path);
    snprintf(lock, sizeof lock, "%.*s/measuring-%s", last ? (int)(last - path) : 0, path,
             info->device ? ts_cuda_properties(info->device)->uuid : "cpu");
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    for (ts_time waited = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0; waited += TURN_STEP) {
        if (errno != EWOULDBLOCK || waited >= TURN_WAIT) {
            close(fd);
            return -1;
        }
        nanosleep(&step, NULL);
    }
    return fd;
}

enum ts_status ts_measure_cached(struct ts_engine *engine, struct ts_measure_room room, const char *folder,
                                 const char *settings, struct ts_measured *out, enum ts_measure_from *from,
                                 struct ts_error *err)
{
    char key[1024], path[PATH_BYTES];
    write_key(ts_engine_info(engine), settings, key, sizeof key);
    bool wanted = !folder || *folder, kept = wanted && path_of(folder, key, path, sizeof path);
    *from = TS_MEASURE_CACHE;
    if (kept && load(path, key, out))
        return TS_OK;
    int turn = kept ? take_turn(ts_engine_info(engine), path) : -1;
    enum ts_status status = TS_OK;
    if (turn < 0 || !load(path, key, out)) {
        status = ts_measure(engine, room, out, err);
        bool lost = status == TS_OK && wanted && !(kept && save(path, key, out));
        *from = lost ? TS_MEASURE_LOST : TS_MEASURE_NOW;
    }
    if (turn >= 0)
        close(turn);
    return status;
}
