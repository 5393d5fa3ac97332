#include "services/router/router_timer.h"

#include "common/base/ts_mem.h"

static bool before(const struct timer *a, const struct timer *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void put(struct timers *timers, size_t slot, struct timer *timer)
{
    timers->heap[slot] = timer;
    timer->slot = slot + 1;
}

static void sift_up(struct timers *timers, size_t slot)
{
    struct timer *timer = timers->heap[slot];
    while (slot > 0 && before(timer, timers->heap[(slot - 1) / 2])) {
        put(timers, slot, timers->heap[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    put(timers, slot, timer);
}

static void sift_down(struct timers *timers, size_t slot)
{
    struct timer *timer = timers->heap[slot];
    for (size_t child; (child = 2 * slot + 1) < timers->count; slot = child) {
        if (child + 1 < timers->count && before(timers->heap[child + 1], timers->heap[child]))
            child++;
        if (!before(timers->heap[child], timer))
            break;
        put(timers, slot, timers->heap[child]);
    }
    put(timers, slot, timer);
}

static void take_out(struct timers *timers, struct timer *timer)
{
    size_t slot = timer->slot - 1;
    struct timer *last = timers->heap[--timers->count];
    timer->slot = 0;
    if (last == timer)
        return;
    put(timers, slot, last);
    sift_up(timers, slot);
    sift_down(timers, last->slot - 1);
}

void timers_fini(struct timers *timers)
{
    ts_free(timers->heap);
    *timers = (struct timers){.heap = NULL};
}

void timers_set(struct timers *timers, struct timer *timer, ts_time at)
{
    if (timer->slot && timer->at == at)
        return;
    if (timer->slot)
        take_out(timers, timer);
    if (at == TS_TIME_NEVER)
        return;
    void *heap = timers->heap;
    ts_array_reserve(&heap, &timers->capacity, timers->count + 1, sizeof *timers->heap);
    timers->heap = heap;
    timer->at = at;
    timer->order = timers->next_order++;
    put(timers, timers->count++, timer);
    sift_up(timers, timer->slot - 1);
}

struct timer *timers_due(struct timers *timers, ts_time now)
{
    struct timer *first = timers->count ? timers->heap[0] : NULL;
    if (!first || first->at > now)
        return NULL;
    take_out(timers, first);
    return first;
}

ts_time timers_next(const struct timers *timers)
{
    return timers->count ? timers->heap[0]->at : TS_TIME_NEVER;
}

bool timers_check(const struct timers *timers)
{
    for (size_t i = 0; i < timers->count; i++) {
        if (timers->heap[i]->slot != i + 1 || (i > 0 && before(timers->heap[i], timers->heap[(i - 1) / 2])))
            return false;
    }
    return true;
}
