/*
 * A counted buffer of raw bytes and the table that gives cores handles to it. Frames may be released on
 * another thread (ZeroMQ's, a job's), so the count is atomic; the table belongs to the loop thread.
 */
#ifndef TS_RUN_FRAME_H
#define TS_RUN_FRAME_H

#include <stdatomic.h>

#include "common/core/ts_msg.h"

struct ts_frame {
    atomic_uint refs;
    uint8_t *data;
    size_t bytes;
    void (*release)(struct ts_frame *frame); /* frees data and frame */
};

struct ts_frame *ts_frame_new(size_t bytes); /* 64-byte aligned, not zeroed, one reference */
struct ts_frame *ts_frame_ref(struct ts_frame *frame);
void ts_frame_unref(struct ts_frame **frame); /* null-safe */

struct ts_bulk_table;

struct ts_bulk_table *ts_bulk_table_new(void);
void ts_bulk_table_destroy(struct ts_bulk_table **table);
/* Takes the caller's reference; the handle stands for it until ts_bulk_drop. */
struct ts_bulk ts_bulk_put(struct ts_bulk_table *table, struct ts_frame **frame);
/* The frame behind a handle (borrowed), or NULL for a stale or empty one. */
struct ts_frame *ts_bulk_frame(const struct ts_bulk_table *table, struct ts_bulk bulk);
enum ts_status ts_bulk_drop(struct ts_bulk_table *table,
                            struct ts_bulk bulk); /* TS_ENOTFOUND: dropped twice */

#endif
