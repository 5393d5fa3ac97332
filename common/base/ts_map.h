/*
 * Hash map from a byte string (or a u64) to a pointer. Keys are copied, values are borrowed. Iteration is in
 * order of insertion and so deterministic, which the simulator relies on; removal keeps the order of the
 * rest. One thread.
 */
#ifndef TS_BASE_MAP_H
#define TS_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct ts_map;

struct ts_map *ts_map_new(void);
void ts_map_destroy(struct ts_map **map); /* null-safe; values are not touched */
size_t ts_map_count(const struct ts_map *map);
void *ts_map_get(const struct ts_map *map, const void *key, size_t key_bytes);
/* Sets or replaces; returns the earlier value or NULL. `value` must not be NULL. */
void *ts_map_put(struct ts_map *map, const void *key, size_t key_bytes, void *value);
void *ts_map_remove(struct ts_map *map, const void *key, size_t key_bytes); /* returns the value or NULL */
/* Iterates: start with *cursor = 0; returns NULL at the end. Removing the item just returned is allowed. */
void *ts_map_next(const struct ts_map *map, size_t *cursor, const void **key, size_t *key_bytes);

static inline void *ts_map_get_u64(const struct ts_map *map, uint64_t key)
{
    return ts_map_get(map, &key, sizeof key);
}

static inline void *ts_map_put_u64(struct ts_map *map, uint64_t key, void *value)
{
    return ts_map_put(map, &key, sizeof key, value);
}

static inline void *ts_map_remove_u64(struct ts_map *map, uint64_t key)
{
    return ts_map_remove(map, &key, sizeof key);
}

#endif
