#include "common/base/ts_map.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

/*
 * `entries` holds the items in order of insertion; a removed one leaves a gap (value NULL) until the next
 * growth. `slots` is an open addressing table of entry numbers: 0 is empty, TOMBSTONE was used, else entry
 * number + 1. Only a put moves entries, so that an iteration may remove what it was given.
 */
#define TOMBSTONE UINT32_MAX
#define SLOTS_MIN 16

struct map_entry {
    uint64_t hash;
    void *key;
    size_t key_bytes;
    void *value;
};

struct ts_map {
    struct map_entry *entries;
    size_t first;    /* no live entry lies before it: a queue-like use stays linear */
    size_t used;     /* entries written, gaps included */
    size_t count;    /* live ones */
    uint32_t *slots; /* slot_count of them, a power of two, at least 4/3 of `used` */
    size_t slot_count;
    uint64_t seed; /* drawn per map: a peer that chooses keys cannot choose collisions */
};

static size_t entries_max(size_t slot_count)
{
    return slot_count - slot_count / 4;
}

struct ts_map *ts_map_new(void)
{
    struct ts_map *map = ts_xcalloc(1, sizeof *map);
    map->seed = ts_random_u64();
    return map;
}

void ts_map_destroy(struct ts_map **map)
{
    if (!*map) {
        return;
    }
    for (size_t i = (*map)->first; i < (*map)->used; i++) {
        ts_free((*map)->entries[i].key);
    }
    ts_free((*map)->entries);
    ts_free((*map)->slots);
    ts_free(*map);
    *map = NULL;
}

size_t ts_map_count(const struct ts_map *map)
{
    return map->count;
}

/* Returns the slot of the key, or slot_count when it is absent. */
static size_t find_slot(const struct ts_map *map, uint64_t hash, const void *key, size_t key_bytes)
{
    if (map->slot_count == 0) {
        return map->slot_count;
    }
    size_t mask = map->slot_count - 1;
    for (size_t slot = hash & mask; map->slots[slot] != 0; slot = (slot + 1) & mask) {
        if (map->slots[slot] == TOMBSTONE) {
            continue;
        }
        const struct map_entry *entry = &map->entries[map->slots[slot] - 1];
        if (entry->hash == hash && entry->key_bytes == key_bytes &&
            (key_bytes == 0 || memcmp(entry->key, key, key_bytes) == 0)) {
            return slot;
        }
    }
    return map->slot_count;
}

static void link_entry(struct ts_map *map, size_t index)
{
    size_t mask = map->slot_count - 1;
    size_t slot = map->entries[index].hash & mask;
    while (map->slots[slot] != 0) {
        slot = (slot + 1) & mask;
    }
    map->slots[slot] = (uint32_t)(index + 1);
}

/*
 * Closes the gaps and sizes the table for what is live, with a quarter of the entries free: so many puts pay
 * for the next rebuild, and a map that was once large becomes small again.
 */
static void rebuild(struct ts_map *map)
{
    size_t slot_count = SLOTS_MIN;
    while (map->count + 1 > entries_max(slot_count) / 4 * 3) {
        slot_count *= 2;
    }
    TS_ASSERT(slot_count < TOMBSTONE);
    size_t kept = 0;
    for (size_t i = map->first; i < map->used; i++) {
        if (map->entries[i].value) {
            map->entries[kept++] = map->entries[i];
        }
    }
    map->first = 0;
    map->used = kept;
    map->entries = ts_xrealloc(map->entries, entries_max(slot_count) * sizeof *map->entries);
    ts_free(map->slots);
    map->slots = ts_xcalloc(slot_count, sizeof *map->slots);
    map->slot_count = slot_count;
    for (size_t i = 0; i < kept; i++) {
        link_entry(map, i);
    }
}

void *ts_map_get(const struct ts_map *map, const void *key, size_t key_bytes)
{
    size_t slot = find_slot(map, ts_hash64(key, key_bytes, map->seed), key, key_bytes);
    return slot == map->slot_count ? NULL : map->entries[map->slots[slot] - 1].value;
}

void *ts_map_put(struct ts_map *map, const void *key, size_t key_bytes, void *value)
{
    TS_ASSERT(value);
    uint64_t hash = ts_hash64(key, key_bytes, map->seed);
    size_t slot = find_slot(map, hash, key, key_bytes);
    if (slot != map->slot_count) {
        struct map_entry *entry = &map->entries[map->slots[slot] - 1];
        void *earlier = entry->value;
        entry->value = value;
        return earlier;
    }
    struct map_entry entry = {
        .hash = hash, .key = ts_xmalloc(key_bytes), .key_bytes = key_bytes, .value = value};
    if (key_bytes) {
        memcpy(entry.key, key, key_bytes);
    }
    if (map->used == entries_max(map->slot_count)) {
        rebuild(map);
    }
    map->entries[map->used] = entry;
    link_entry(map, map->used++);
    map->count++;
    return NULL;
}

void *ts_map_remove(struct ts_map *map, const void *key, size_t key_bytes)
{
    size_t slot = find_slot(map, ts_hash64(key, key_bytes, map->seed), key, key_bytes);
    if (slot == map->slot_count) {
        return NULL;
    }
    struct map_entry *entry = &map->entries[map->slots[slot] - 1];
    void *value = entry->value;
    ts_free(entry->key);
    *entry = (struct map_entry){0};
    map->slots[slot] = TOMBSTONE;
    map->count--;
    while (map->first < map->used && !map->entries[map->first].value) {
        map->first++;
    }
    return value;
}

void *ts_map_next(const struct ts_map *map, size_t *cursor, const void **key, size_t *key_bytes)
{
    size_t i = *cursor < map->first ? map->first : *cursor;
    while (i < map->used && !map->entries[i].value) {
        i++;
    }
    if (i >= map->used) {
        *cursor = i;
        return NULL;
    }
    const struct map_entry *entry = &map->entries[i];
    *cursor = i + 1;
    if (key) {
        *key = entry->key;
    }
    if (key_bytes) {
        *key_bytes = entry->key_bytes;
    }
    return entry->value;
}
