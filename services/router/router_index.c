#include "services/router/router_index.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define SIZE_MIN 64

static size_t slot_of(const struct index *index, uint64_t number)
{
    size_t slot = number & (index->size - 1);
    while (index->slots[slot].number != 0 && index->slots[slot].number != number)
        slot = (slot + 1) & (index->size - 1);
    return slot;
}

void index_fini(struct index *index)
{
    ts_free(index->slots);
    *index = (struct index){.slots = NULL};
}

static void grow(struct index *index)
{
    struct index old = *index;
    index->size = old.size ? old.size * 2 : SIZE_MIN;
    index->slots = ts_xcalloc(index->size, sizeof *index->slots);
    for (size_t i = 0; i < old.size; i++) {
        if (old.slots[i].number)
            index->slots[slot_of(index, old.slots[i].number)] = old.slots[i];
    }
    ts_free(old.slots);
}

void index_put(struct index *index, uint64_t number, struct record *record)
{
    TS_ASSERT(number != 0 && record);
    if (2 * (index->count + 1) > index->size)
        grow(index);
    struct index_slot *slot = &index->slots[slot_of(index, number)];
    index->count += slot->number == 0;
    *slot = (struct index_slot){number, record};
}

struct record *index_get(const struct index *index, uint64_t number)
{
    return index->size && number ? index->slots[slot_of(index, number)].record : NULL;
}

/* Moves back what was pushed past the gap, so that no search ends too early. */
void index_remove(struct index *index, uint64_t number)
{
    if (!index_get(index, number))
        return;
    size_t mask = index->size - 1, gap = slot_of(index, number);
    for (size_t next = (gap + 1) & mask; index->slots[next].number; next = (next + 1) & mask) {
        size_t home = index->slots[next].number & mask;
        if (((next - home) & mask) < ((next - gap) & mask))
            continue;
        index->slots[gap] = index->slots[next];
        gap = next;
    }
    index->slots[gap] = (struct index_slot){0, NULL};
    index->count--;
}
