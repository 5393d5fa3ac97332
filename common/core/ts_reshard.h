/*
 * KV between owners that cut the model differently. An owner holds a rectangle: a range of layers and, of
 * each, a range of KV heads; the owners of a replica hold every (layer, head) once. What a sender has for a
 * receiver is where their rectangles meet. If both sides are whole, the meetings of all pairs are whole, too:
 * every (layer, head) goes once, from one sender to one receiver.
 *
 * Pure; ranges are half open and counted as the model counts.
 */
#ifndef TS_CORE_RESHARD_H
#define TS_CORE_RESHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ts_shard_rect {
    uint32_t layer_begin, layer_end, head_begin, head_end;
};

static inline bool ts_rect_empty(struct ts_shard_rect r)
{
    return r.layer_begin >= r.layer_end || r.head_begin >= r.head_end;
}

static inline uint64_t ts_rect_area(struct ts_shard_rect r)
{
    return ts_rect_empty(r) ? 0 : (uint64_t)(r.layer_end - r.layer_begin) * (r.head_end - r.head_begin);
}

/* Where two meet; empty where they do not. */
struct ts_shard_rect ts_rect_meet(struct ts_shard_rect a, struct ts_shard_rect b);
/* Whether the rectangles lie inside of `whole`, none is empty and no two meet. */
bool ts_rects_apart(const struct ts_shard_rect *rects, size_t count, struct ts_shard_rect whole);
/* Whether they also leave nothing out: they cover it exactly once. */
bool ts_rects_tile(const struct ts_shard_rect *rects, size_t count, struct ts_shard_rect whole);

#endif
