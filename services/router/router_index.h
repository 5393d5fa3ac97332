/*
 * Requests under way by number: open addressing, the number beside the pointer, so that the message of a
 * token costs one look at the table. Numbers are handed out in order, which spreads them without a hash. 0 is
 * no number. Plain memory, one thread.
 */
#ifndef ROUTER_INDEX_H
#define ROUTER_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct record;

struct index_slot {
    uint64_t number; /* 0 = empty */
    struct record *record;
};

struct index {
    struct index_slot *slots;
    size_t size, count; /* size: a power of two, at least twice the count */
};

void index_fini(struct index *index);
void index_put(struct index *index, uint64_t number, struct record *record);
struct record *index_get(const struct index *index, uint64_t number); /* NULL: no such */
void index_remove(struct index *index, uint64_t number);

#endif
