#include "common/base/ts_arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define ARENA_ALIGN       ((size_t)16)
#define ARENA_BLOCK_BYTES ((size_t)1024) /* of the first block: thousands of requests own an arena each */
/* A block kept over a reset is at most this large, so that one big turn does not pin its memory for ever. */
#define ARENA_KEEP_BYTES ((size_t)256 * 1024)

struct ts_arena_block {
    struct ts_arena_block *next;
    size_t size_bytes;
    size_t used_bytes;
    _Alignas(16) unsigned char data[];
};

void ts_arena_init(struct ts_arena *arena)
{
    *arena = (struct ts_arena){0};
}

void ts_arena_fini(struct ts_arena *arena)
{
    struct ts_arena_block *block = arena->head;
    while (block) {
        struct ts_arena_block *next = block->next;
        ts_free(block);
        block = next;
    }
    *arena = (struct ts_arena){0};
}

static struct ts_arena_block *push_block(struct ts_arena *arena, size_t need)
{
    /* Doubling keeps the number of blocks logarithmic; the newest block is the head and the only one with
     * room. */
    size_t size = arena->head ? arena->head->size_bytes * 2 : ARENA_BLOCK_BYTES;
    if (size > ARENA_KEEP_BYTES) {
        size = ARENA_KEEP_BYTES;
    }
    if (size < need) {
        size = need;
    }
    struct ts_arena_block *block = ts_xmalloc(sizeof *block + size);
    *block = (struct ts_arena_block){.next = arena->head, .size_bytes = size};
    arena->head = block;
    return block;
}

void *ts_arena_alloc(struct ts_arena *arena, size_t size)
{
    TS_ASSERT(size <= SIZE_MAX / 2);
    size_t need = size ? (size + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1) : ARENA_ALIGN;
    struct ts_arena_block *block = arena->head;
    if (!block || block->size_bytes - block->used_bytes < need) {
        block = push_block(arena, need);
    }
    void *ptr = block->data + block->used_bytes;
    block->used_bytes += need;
    arena->used_bytes += need;
    return ptr;
}

void *ts_arena_zalloc(struct ts_arena *arena, size_t size)
{
    return memset(ts_arena_alloc(arena, size), 0, size);
}

void *ts_arena_copy(struct ts_arena *arena, const void *data, size_t size)
{
    void *ptr = ts_arena_alloc(arena, size);
    if (size) {
        memcpy(ptr, data, size);
    }
    return ptr;
}

char *ts_arena_printf(struct ts_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    TS_ASSERT(length >= 0);
    char *text = ts_arena_alloc(arena, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void ts_arena_reset(struct ts_arena *arena)
{
    struct ts_arena_block *keep = NULL;
    struct ts_arena_block *block = arena->head;
    while (block) {
        struct ts_arena_block *next = block->next;
        if (!keep && block->size_bytes <= ARENA_KEEP_BYTES) {
            keep = block;
        } else {
            ts_free(block);
        }
        block = next;
    }
    if (keep) {
        keep->next = NULL;
        keep->used_bytes = 0;
    }
    arena->head = keep;
    arena->used_bytes = 0;
}
