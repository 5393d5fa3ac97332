#include "common/core/ts_reshard.h"

static uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t earlier(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

struct ts_shard_rect ts_rect_meet(struct ts_shard_rect a, struct ts_shard_rect b)
{
    const struct ts_shard_rect meet = {later(a.layer_begin, b.layer_begin), earlier(a.layer_end, b.layer_end),
                                       later(a.head_begin, b.head_begin), earlier(a.head_end, b.head_end)};
    return ts_rect_empty(meet) ? (struct ts_shard_rect){0, 0, 0, 0} : meet;
}

bool ts_rects_apart(const struct ts_shard_rect *rects, size_t count, struct ts_shard_rect whole)
{
    for (size_t i = 0; i < count; i++) {
        if (ts_rect_empty(rects[i]) || ts_rect_area(ts_rect_meet(rects[i], whole)) != ts_rect_area(rects[i]))
            return false;
        for (size_t k = 0; k < i; k++) {
            if (!ts_rect_empty(ts_rect_meet(rects[i], rects[k])))
                return false;
        }
    }
    return true;
}

/* Inside of it and apart from each other, they cover it if their areas add up. */
bool ts_rects_tile(const struct ts_shard_rect *rects, size_t count, struct ts_shard_rect whole)
{
    uint64_t area = 0;
    for (size_t i = 0; i < count; i++)
        area += ts_rect_area(rects[i]);
    return ts_rects_apart(rects, count, whole) && area == ts_rect_area(whole);
}
