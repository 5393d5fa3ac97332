/*
 * Records what a core saw and did: a header (which core, its incarnation and settings), then for each step
 * `now`, the event and the actions. An entry is a little-endian 32-bit length and that many bytes of protobuf
 * (proto/ts_record.proto). A reader feeds the events to a fresh core and compares what it does, byte for
 * byte.
 */
#ifndef TS_RUN_RECORD_H
#define TS_RUN_RECORD_H

#include "common/core/ts_event.h"

struct ts_recorder;

/* Truncates the file and writes the header. */
enum ts_status ts_recorder_open(const char *path, const char *kind, uint64_t incarnation,
                                const void *settings, size_t settings_bytes, struct ts_recorder **out,
                                struct ts_error *err);
void ts_recorder_close(struct ts_recorder **recorder); /* null-safe */
/* A step that cannot be written (disk full) ends the recording with one error line; the service goes on. */
void ts_recorder_write(struct ts_recorder *recorder, ts_time now, const struct ts_event *event,
                       const struct ts_actions *actions);

struct ts_record_header {
    char kind[32];
    uint64_t incarnation;
    const void *settings; /* lives as long as the reader */
    size_t settings_bytes;
};

struct ts_record_reader;

enum ts_status ts_record_open(const char *path, struct ts_record_reader **out,
                              struct ts_record_header *header, struct ts_error *err);
void ts_record_close(struct ts_record_reader **reader); /* null-safe */
/* The next step: what the core saw. Spans live until the next call. TS_ECLOSED at the end; a last entry cut
 * short by a kill counts as the end. */
enum ts_status ts_record_next(struct ts_record_reader *reader, ts_time *now, struct ts_event *event,
                              struct ts_error *err);
/* Whether these actions are, packed, the bytes that the step of the last call was recorded with. Otherwise
 * `difference` (if not NULL) gets one line about the first action that differs. */
bool ts_record_same(struct ts_record_reader *reader, const struct ts_actions *actions, char *difference,
                    size_t capacity);

#endif
