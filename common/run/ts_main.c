#include "common/run/ts_main.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "proto/ts_wire.h"

int ts_main_fail(const char *service, int code, const struct ts_error *err)
{
    fprintf(stderr, "ts-%s: %s\n", service, err->text);
    return code;
}

enum ts_status ts_main_log(const char *service, const char *level, struct ts_error *err)
{
    enum ts_log_level parsed;
    if (ts_log_level_parse(level, &parsed) != TS_OK)
        return ts_error_set(err, TS_EINVAL, "log_level \"%s\": expected error, warn, info or debug", level);
    ts_log_init(service, parsed);
    return TS_OK;
}

struct blob {
    char *data;
    size_t count, capacity;
};

static void append(struct blob *b, const void *data, size_t bytes)
{
    ts_array_reserve((void **)&b->data, &b->capacity, b->count + bytes + 1, 1);
    if (bytes)
        memcpy(b->data + b->count, data, bytes);
    b->count += bytes;
}

static void append_part(struct blob *b, const void *data, size_t bytes)
{
    uint32_t length = (uint32_t)bytes;
    append(b, &length, sizeof length);
    append(b, data, bytes);
}

static void append_msg(struct blob *b, const struct ts_msg *msg)
{
    const struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION};
    struct ts_arena arena;
    struct ts_bytes bytes = {.count = 0};
    ts_arena_init(&arena);
    if (msg && ts_wire_pack(&envelope, msg, &arena, &bytes) != TS_OK)
        bytes.count = 0;
    append_part(b, bytes.data, bytes.count);
    ts_arena_fini(&arena);
}

void *ts_main_pack(uint32_t pid, const char *flags, size_t flag_bytes, const struct ts_msg *hello,
                   const struct ts_msg *pool, size_t *bytes)
{
    struct blob b = {.data = NULL};
    append(&b, &pid, sizeof pid);
    append_part(&b, flags, flag_bytes);
    append_msg(&b, hello);
    append_msg(&b, pool);
    *bytes = b.count;
    return b.data;
}

struct cursor {
    const char *data;
    size_t left;
};

static bool take(struct cursor *c, void *out, size_t bytes)
{
    if (bytes > c->left)
        return false;
    memcpy(out, c->data, bytes);
    c->data += bytes;
    c->left -= bytes;
    return true;
}

static bool take_part(struct cursor *c, const char **data, size_t *bytes)
{
    uint32_t length;
    if (!take(c, &length, sizeof length) || length > c->left)
        return false;
    *data = c->data;
    *bytes = length;
    c->data += length;
    c->left -= length;
    return true;
}

static bool take_msg(struct cursor *c, enum ts_channel channel, struct ts_arena *arena, struct ts_msg *out)
{
    struct ts_envelope envelope;
    const char *data;
    size_t bytes;
    *out = (struct ts_msg){.kind = TS_MSG_NONE};
    if (!take_part(c, &data, &bytes))
        return false;
    return bytes == 0 || ts_wire_unpack(data, bytes, channel, arena, &envelope, out, NULL, NULL) == TS_OK;
}

static bool split_flags(const char *service, const char *flags, size_t bytes, struct ts_arena *arena,
                        struct ts_main_settings *out)
{
    size_t count = 1, at = 0;
    if (bytes && flags[bytes - 1] != '\0')
        return false;
    for (size_t i = 0; i < bytes; i++)
        count += flags[i] == '\0';
    out->argv = ts_arena_zalloc(arena, (count + 1) * sizeof *out->argv);
    out->argv[out->argc++] = ts_arena_printf(arena, "%s", service);
    while (at < bytes) {
        out->argv[out->argc] = ts_arena_printf(arena, "%s", flags + at);
        at += strlen(out->argv[out->argc++]) + 1;
    }
    return true;
}

enum ts_status ts_main_unpack(const char *service, const void *data, size_t bytes, struct ts_arena *arena,
                              struct ts_main_settings *out)
{
    struct cursor c = {data, bytes};
    const char *flags;
    size_t flag_bytes;
    *out = (struct ts_main_settings){.argc = 0};
    if (take(&c, &out->pid, sizeof out->pid) && take_part(&c, &flags, &flag_bytes) &&
        split_flags(service, flags, flag_bytes, arena, out) &&
        take_msg(&c, TS_CHANNEL_WORKER, arena, &out->hello) &&
        take_msg(&c, TS_CHANNEL_POOL, arena, &out->pool))
        return TS_OK;
    return TS_ECORRUPT;
}
