#include "common/run/ts_frame.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

static void release_heap(struct ts_frame *frame)
{
    ts_free(frame->data);
    ts_free(frame);
}

struct ts_frame *ts_frame_new(size_t bytes)
{
    struct ts_frame *frame = ts_xcalloc(1, sizeof *frame);
    atomic_init(&frame->refs, 1);
    frame->data = ts_xaligned(64, bytes ? bytes : 64);
    frame->bytes = bytes;
    frame->release = release_heap;
    return frame;
}

struct ts_frame *ts_frame_ref(struct ts_frame *frame)
{
    atomic_fetch_add_explicit(&frame->refs, 1, memory_order_relaxed);
    return frame;
}

void ts_frame_unref(struct ts_frame **frame)
{
    struct ts_frame *f = *frame;
    *frame = NULL;
    if (f && atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) == 1)
        f->release(f);
}

struct bulk_slot {
    struct ts_frame *frame;
    uint32_t generation;
    uint32_t next_free;
};

struct ts_bulk_table {
    struct bulk_slot *slots; /* slot 0 is never used */
    size_t capacity;
    uint32_t used; /* slots ever used, slot 0 included */
    uint32_t free_head;
};

struct ts_bulk_table *ts_bulk_table_new(void)
{
    struct ts_bulk_table *table = ts_xcalloc(1, sizeof *table);
    table->used = 1;
    return table;
}

void ts_bulk_table_destroy(struct ts_bulk_table **table)
{
    struct ts_bulk_table *t = *table;
    if (!t)
        return;
    for (uint32_t i = 1; i < t->used; i++)
        ts_frame_unref(&t->slots[i].frame);
    ts_free(t->slots);
    ts_free(t);
    *table = NULL;
}

struct ts_bulk ts_bulk_put(struct ts_bulk_table *table, struct ts_frame **frame)
{
    uint32_t slot = table->free_head;
    if (slot) {
        table->free_head = table->slots[slot].next_free;
    } else {
        ts_array_reserve((void **)&table->slots, &table->capacity, table->used + 1, sizeof *table->slots);
        slot = table->used++;
        table->slots[slot] = (struct bulk_slot){.generation = 0};
    }
    struct bulk_slot *s = &table->slots[slot];
    s->frame = *frame;
    s->generation++;
    *frame = NULL;
    return (struct ts_bulk){.slot = slot, .generation = s->generation, .bytes = s->frame->bytes};
}

static struct bulk_slot *find(const struct ts_bulk_table *table, struct ts_bulk bulk)
{
    if (bulk.slot == 0 || bulk.slot >= table->used)
        return NULL;
    struct bulk_slot *s = &table->slots[bulk.slot];
    return s->frame && s->generation == bulk.generation ? s : NULL;
}

struct ts_frame *ts_bulk_frame(const struct ts_bulk_table *table, struct ts_bulk bulk)
{
    struct bulk_slot *s = find(table, bulk);
    return s ? s->frame : NULL;
}

enum ts_status ts_bulk_drop(struct ts_bulk_table *table, struct ts_bulk bulk)
{
    struct bulk_slot *s = find(table, bulk);
    if (!s)
        return TS_ENOTFOUND;
    ts_frame_unref(&s->frame);
    s->next_free = table->free_head;
    table->free_head = bulk.slot;
    return TS_OK;
}
