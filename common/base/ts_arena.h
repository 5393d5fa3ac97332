/*
 * Bump allocator: many small allocations released together. Owns its blocks. One thread. A turn arena is
 * reset after each turn of a loop; it never owns bulk frames.
 */
#ifndef TS_BASE_ARENA_H
#define TS_BASE_ARENA_H

#include <stddef.h>

struct ts_arena_block;

struct ts_arena {
    struct ts_arena_block *head;
    size_t used_bytes; /* handed out since the last reset */
};

void ts_arena_init(struct ts_arena *arena);
void ts_arena_fini(struct ts_arena *arena);
void *ts_arena_alloc(struct ts_arena *arena,
                     size_t size); /* 16-byte aligned, not zeroed; size 0 gives a valid pointer */
void *ts_arena_zalloc(struct ts_arena *arena, size_t size);
void *ts_arena_copy(struct ts_arena *arena, const void *data, size_t size);
char *ts_arena_printf(struct ts_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
void ts_arena_reset(struct ts_arena *arena); /* keeps one block for reuse, returns the rest */

#endif
