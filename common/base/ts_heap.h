/*
 * Binary min-heap of (time, sequence) with a payload pointer: event queues and deadlines. Equal times come
 * out in the order of insertion, which makes simulations deterministic. Payloads are borrowed. One thread.
 */
#ifndef TS_BASE_HEAP_H
#define TS_BASE_HEAP_H

#include <stddef.h>

#include "common/base/ts_clock.h"

struct ts_heap_item {
    ts_time at;
    uint64_t seq;
    void *value;
};

struct ts_heap {
    struct ts_heap_item *items;
    size_t count, capacity;
    uint64_t next_seq;
};

void ts_heap_init(struct ts_heap *heap);
void ts_heap_fini(struct ts_heap *heap);
void ts_heap_push(struct ts_heap *heap, ts_time at, void *value);
ts_time ts_heap_next(const struct ts_heap *heap);     /* TS_TIME_NEVER when empty */
void *ts_heap_pop(struct ts_heap *heap, ts_time *at); /* NULL when empty */

#endif
