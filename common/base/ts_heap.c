#include "common/base/ts_heap.h"

#include "common/base/ts_mem.h"

void ts_heap_init(struct ts_heap *heap)
{
    *heap = (struct ts_heap){0};
}

void ts_heap_fini(struct ts_heap *heap)
{
    ts_free(heap->items);
    *heap = (struct ts_heap){0};
}

/* The single comparator: time, then order of insertion. */
static int item_before(const struct ts_heap_item *a, const struct ts_heap_item *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void ts_heap_push(struct ts_heap *heap, ts_time at, void *value)
{
    void *items = heap->items;
    ts_array_reserve(&items, &heap->capacity, heap->count + 1, sizeof *heap->items);
    heap->items = items;
    struct ts_heap_item item = {.at = at, .seq = heap->next_seq++, .value = value};
    size_t hole = heap->count++;
    while (hole > 0) {
        size_t parent = (hole - 1) / 2;
        if (!item_before(&item, &heap->items[parent])) {
            break;
        }
        heap->items[hole] = heap->items[parent];
        hole = parent;
    }
    heap->items[hole] = item;
}

ts_time ts_heap_next(const struct ts_heap *heap)
{
    return heap->count ? heap->items[0].at : TS_TIME_NEVER;
}

void *ts_heap_pop(struct ts_heap *heap, ts_time *at)
{
    if (heap->count == 0) {
        return NULL;
    }
    struct ts_heap_item top = heap->items[0];
    struct ts_heap_item last = heap->items[--heap->count];
    size_t hole = 0;
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count && item_before(&heap->items[child + 1], &heap->items[child])) {
            child++;
        }
        if (!item_before(&heap->items[child], &last)) {
            break;
        }
        heap->items[hole] = heap->items[child];
        hole = child;
    }
    heap->items[hole] = last;
    if (at) {
        *at = top.at;
    }
    return top.value;
}
