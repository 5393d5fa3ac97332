#include "common/run/ts_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "proto/ts_wire.h"

struct ts_recorder {
    FILE *file;
    struct ts_arena arena;
};

static bool write_entry(struct ts_recorder *r, const struct ts_record_entry *entry)
{
    struct ts_bytes bytes;
    ts_arena_reset(&r->arena);
    if (ts_wire_pack_record(entry, &r->arena, &bytes) != TS_OK)
        return false;
    uint8_t length[4] = {(uint8_t)bytes.count, (uint8_t)(bytes.count >> 8), (uint8_t)(bytes.count >> 16),
                         (uint8_t)(bytes.count >> 24)};
    return fwrite(length, 1, sizeof length, r->file) == sizeof length &&
           fwrite(bytes.data, 1, bytes.count, r->file) == bytes.count;
}

static void ended(void)
{
    ts_log(TS_LOG_ERROR, "event=recording_ended reason=write_failed errno=%d", errno);
}

enum ts_status ts_recorder_open(const char *path, const char *kind, uint64_t incarnation,
                                const void *settings, size_t settings_bytes, struct ts_recorder **out,
                                struct ts_error *err)
{
    struct ts_recorder *r = ts_xcalloc(1, sizeof *r);
    ts_arena_init(&r->arena);
    r->file = fopen(path, "wb");
    struct ts_record_entry entry = {.kind = TS_RECORD_HEADER,
                                    .header = {.kind = ts_str_of(kind),
                                               .incarnation = incarnation,
                                               .settings = {settings, (uint32_t)settings_bytes}}};
    if (!r->file || !write_entry(r, &entry)) {
        ts_error_set(err, TS_EIO, "cannot write the recording %s: %s; give another --record", path,
                     strerror(errno));
        ts_recorder_close(&r);
        return TS_EIO;
    }
    *out = r;
    return TS_OK;
}

void ts_recorder_close(struct ts_recorder **recorder)
{
    struct ts_recorder *r = *recorder;
    if (!r)
        return;
    if (r->file && fclose(r->file) != 0)
        ended();
    ts_arena_fini(&r->arena);
    ts_free(r);
    *recorder = NULL;
}

void ts_recorder_write(struct ts_recorder *recorder, ts_time now, const struct ts_event *event,
                       const struct ts_actions *actions)
{
    if (!recorder->file)
        return;
    struct ts_record_entry entry = {
        .kind = TS_RECORD_STEP,
        .step = {.now = now, .event = *event, .actions = {actions->items, (uint32_t)actions->count}}};
    if (write_entry(recorder, &entry))
        return;
    ended();
    fclose(recorder->file);
    recorder->file = NULL;
}

struct ts_record_reader {
    FILE *file;
    struct ts_arena arena, header_arena, pack_arena;
    uint8_t *data;
    size_t capacity, bytes;
    struct ts_record_entry entry;
    const char *path;
};

/* TS_ECLOSED: no further whole entry. */
static enum ts_status read_entry(struct ts_record_reader *r, struct ts_arena *arena, struct ts_error *err)
{
    uint8_t length[4];
    if (fread(length, 1, sizeof length, r->file) != sizeof length)
        return TS_ECLOSED;
    r->bytes = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
    if (r->bytes > TS_WIRE_RECORD_BYTES_MAX)
        return ts_error_set(err, TS_ECORRUPT, "%s is not a recording: an entry claims %zu bytes", r->path,
                            r->bytes);
    ts_array_reserve((void **)&r->data, &r->capacity, r->bytes + 1, 1);
    if (fread(r->data, 1, r->bytes, r->file) != r->bytes)
        return TS_ECLOSED;
    enum ts_status status = ts_wire_unpack_record(r->data, r->bytes, arena, &r->entry, err);
    if (status != TS_OK)
        ts_error_prefix(err, "%s is not a recording of this version", r->path);
    return status;
}

enum ts_status ts_record_open(const char *path, struct ts_record_reader **out,
                              struct ts_record_header *header, struct ts_error *err)
{
    struct ts_record_reader *r = ts_xcalloc(1, sizeof *r);
    enum ts_status status = TS_OK;
    ts_arena_init(&r->arena);
    ts_arena_init(&r->header_arena);
    ts_arena_init(&r->pack_arena);
    r->path = path;
    r->file = fopen(path, "rb");
    if (!r->file)
        status = ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", path, strerror(errno));
    else
        status = read_entry(r, &r->header_arena, err);
    if (status == TS_ECLOSED || (status == TS_OK && r->entry.kind != TS_RECORD_HEADER))
        status = ts_error_set(err, TS_ECORRUPT, "%s is not a recording: it has no header", path);
    if (status != TS_OK) {
        ts_record_close(&r);
        return status;
    }
    const struct ts_record_begin *h = &r->entry.header;
    *header = (struct ts_record_header){
        .incarnation = h->incarnation, .settings = h->settings.data, .settings_bytes = h->settings.count};
    snprintf(header->kind, sizeof header->kind, "%.*s", (int)h->kind.count, h->kind.data);
    *out = r;
    return TS_OK;
}

void ts_record_close(struct ts_record_reader **reader)
{
    struct ts_record_reader *r = *reader;
    if (!r)
        return;
    if (r->file)
        fclose(r->file);
    ts_arena_fini(&r->arena);
    ts_arena_fini(&r->header_arena);
    ts_arena_fini(&r->pack_arena);
    ts_free(r->data);
    ts_free(r);
    *reader = NULL;
}

enum ts_status ts_record_next(struct ts_record_reader *reader, ts_time *now, struct ts_event *event,
                              struct ts_error *err)
{
    ts_arena_reset(&reader->arena);
    enum ts_status status = read_entry(reader, &reader->arena, err);
    if (status != TS_OK)
        return status;
    if (reader->entry.kind != TS_RECORD_STEP)
        return ts_error_set(err, TS_ECORRUPT, "%s has a second header", reader->path);
    *now = reader->entry.step.now;
    *event = reader->entry.step.event;
    return TS_OK;
}

static void describe(const struct ts_action *action, char *out, size_t capacity)
{
    if (action)
        ts_schema_print(&ts_action_schema, action, out, capacity);
    else
        snprintf(out, capacity, "(none)");
}

static void first_difference(const struct ts_record_step *step, const struct ts_actions *actions, char *out,
                             size_t capacity)
{
    char was[1024], is[1024];
    size_t i = 0;
    while (i < step->actions.count && i < actions->count &&
           ts_schema_equal(&ts_action_schema, &step->actions.data[i], &actions->items[i]))
        i++;
    describe(i < step->actions.count ? &step->actions.data[i] : NULL, was, sizeof was);
    describe(i < actions->count ? &actions->items[i] : NULL, is, sizeof is);
    snprintf(out, capacity, "action %zu of %u: recorded %s; now %s", i, step->actions.count, was, is);
}

bool ts_record_same(struct ts_record_reader *reader, const struct ts_actions *actions, char *difference,
                    size_t capacity)
{
    struct ts_record_entry entry = reader->entry;
    struct ts_bytes bytes;
    entry.step.actions = (struct ts_record_actions){actions->items, (uint32_t)actions->count};
    ts_arena_reset(&reader->pack_arena);
    if (ts_wire_pack_record(&entry, &reader->pack_arena, &bytes) == TS_OK && bytes.count == reader->bytes &&
        memcmp(bytes.data, reader->data, reader->bytes) == 0)
        return true;
    if (difference)
        first_difference(&reader->entry.step, actions, difference, capacity);
    return false;
}
