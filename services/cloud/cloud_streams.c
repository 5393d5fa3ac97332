#include "services/cloud/cloud_streams.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"

static void free_stream(struct client_stream *s)
{
    payload_unref(s->prompt);
    ts_free(s->tokens);
    ts_free(s->arrivals);
    ts_free(s);
}

/* --- numbers ----------------------------------------------------------------------------------------- */

/* Drops the forgotten ones at the front, once they are half of all: linear in what is added. */
static void compact(struct client_streams *streams)
{
    while (streams->head < streams->count && !streams->items[streams->head])
        streams->head++;
    if (streams->head == 0 || streams->head * 2 < streams->count)
        return;
    size_t left = streams->count - streams->head;
    memmove(streams->items, streams->items + streams->head, left * sizeof(struct client_stream *));
    streams->base += streams->head;
    streams->count = left;
    streams->head = 0;
}

struct client_stream *streams_add(struct client_streams *streams)
{
    struct client_stream *s = ts_xcalloc(1, sizeof *s);
    compact(streams);
    s->number = streams->base + streams->count;
    s->due = TS_TIME_NEVER;
    snprintf(s->id, sizeof s->id, "r%llu", (unsigned long long)s->number);
    void *items = streams->items;
    ts_array_reserve(&items, &streams->capacity, streams->count + 1, sizeof(struct client_stream *));
    streams->items = items;
    streams->items[streams->count++] = s;
    return s;
}

struct client_stream *streams_at(const struct client_streams *streams, uint64_t number)
{
    if (number < streams->base || number - streams->base >= streams->count)
        return NULL;
    return streams->items[number - streams->base];
}

struct client_stream *streams_find(const struct client_streams *streams, struct ts_str id)
{
    uint64_t number = 0;
    if (id.count < 2 || id.count >= sizeof((struct client_stream *)0)->id || id.data[0] != 'r')
        return NULL;
    for (uint32_t i = 1; i < id.count; i++) {
        if (id.data[i] < '0' || id.data[i] > '9')
            return NULL;
        number = number * 10 + (uint64_t)(id.data[i] - '0');
    }
    return streams_at(streams, number);
}

struct client_stream *streams_next(const struct client_streams *streams, size_t *cursor)
{
    size_t i = *cursor < streams->head ? streams->head : *cursor;
    while (i < streams->count && !streams->items[i])
        i++;
    *cursor = i + 1;
    return i < streams->count ? streams->items[i] : NULL;
}

/* --- time -------------------------------------------------------------------------------------------- */

static bool before(const struct client_stream *a, const struct client_stream *b)
{
    return a->due != b->due ? a->due < b->due : a->number < b->number;
}

static void put(struct client_streams *streams, size_t at, struct client_stream *s)
{
    streams->heap[at] = s;
    s->place = at + 1;
}

/* Puts `s` where it belongs, at or above or below the hole. */
static void settle(struct client_streams *streams, size_t hole, struct client_stream *s)
{
    while (hole > 0 && before(s, streams->heap[(hole - 1) / 2])) {
        put(streams, hole, streams->heap[(hole - 1) / 2]);
        hole = (hole - 1) / 2;
    }
    for (size_t child; (child = 2 * hole + 1) < streams->heap_count; hole = child) {
        if (child + 1 < streams->heap_count && before(streams->heap[child + 1], streams->heap[child]))
            child++;
        if (!before(streams->heap[child], s))
            break;
        put(streams, hole, streams->heap[child]);
    }
    put(streams, hole, s);
}

void streams_due(struct client_streams *streams, struct client_stream *s, ts_time due)
{
    s->due = due;
    if (due == TS_TIME_NEVER) {
        if (s->place == 0)
            return;
        size_t hole = s->place - 1;
        struct client_stream *last = streams->heap[--streams->heap_count];
        s->place = 0;
        if (last != s)
            settle(streams, hole, last);
        return;
    }
    if (s->place == 0) {
        void *heap = streams->heap;
        ts_array_reserve(&heap, &streams->heap_capacity, streams->heap_count + 1,
                         sizeof(struct client_stream *));
        streams->heap = heap;
        s->place = ++streams->heap_count;
    }
    settle(streams, s->place - 1, s);
}

struct client_stream *streams_first(const struct client_streams *streams)
{
    return streams->heap_count ? streams->heap[0] : NULL;
}

/* --- the end ----------------------------------------------------------------------------------------- */

void streams_forget(struct client_streams *streams, struct client_stream *s)
{
    streams_due(streams, s, TS_TIME_NEVER);
    streams->items[s->number - streams->base] = NULL;
    s->next_dead = streams->dead;
    streams->dead = s;
}

void streams_sweep(struct client_streams *streams)
{
    struct client_stream *next;
    for (struct client_stream *s = streams->dead; s; s = next) {
        next = s->next_dead;
        free_stream(s);
    }
    streams->dead = NULL;
}

void streams_fini(struct client_streams *streams)
{
    struct client_stream *s;
    streams_sweep(streams);
    for (size_t cursor = 0; (s = streams_next(streams, &cursor));)
        free_stream(s);
    ts_free(streams->items);
    ts_free(streams->heap);
    *streams = (struct client_streams){.items = NULL};
}
