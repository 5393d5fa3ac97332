#include <math.h>

#include "common/base/ts_assert.h"
#include "services/planner/shape/plan_shape_internal.h"

#define SETS (1u << PLAN_PARTS_MAX)

/* Cost of a way through a set of parts: hops first, then how little the ends have. */
struct way {
    double hops, ends;
    uint8_t before;
};

static bool better(const struct way *a, const struct way *b)
{
    double tolerance = 1e-9 * b->hops;
    if (isinf(a->hops) || isinf(b->hops))
        return isinf(b->hops) && (!isinf(a->hops) || a->ends > b->ends);
    if (fabs(a->hops - b->hops) > tolerance)
        return a->hops < b->hops;
    return a->ends > b->ends;
}

/* Held and Karp: the best way through each set of parts that ends at each of them. */
double plan_order_parts(uint32_t count, const double *cost, const double *ends, uint8_t *order)
{
    struct way ways[SETS][PLAN_PARTS_MAX];
    TS_ASSERT(count >= 1 && count <= PLAN_PARTS_MAX);
    uint32_t all = (1u << count) - 1;
    for (uint32_t set = 1; set <= all; ++set) {
        for (uint32_t last = 0; last < count; ++last) {
            if (!(set >> last & 1))
                continue;
            uint32_t rest = set & ~(1u << last);
            struct way best = {INFINITY, -INFINITY, UINT8_MAX};
            if (rest == 0)
                best = (struct way){0, ends[last], UINT8_MAX};
            for (uint32_t i = 0; i < count; ++i) {
                if (!(rest >> i & 1))
                    continue;
                struct way way = ways[rest][i];
                way.hops += cost[i * count + last];
                way.ends += set == all ? ends[last] : 0;
                way.before = (uint8_t)i;
                if (best.before == UINT8_MAX || better(&way, &best))
                    best = way;
            }
            ways[set][last] = best;
        }
    }
    uint32_t last = 0;
    for (uint32_t i = 1; i < count; ++i)
        if (better(&ways[all][i], &ways[all][last]))
            last = i;
    double hops = ways[all][last].hops;
    for (uint32_t set = all, at = count; at-- > 0;) {
        uint8_t before = ways[set][last].before;
        order[at] = (uint8_t)last;
        set &= ~(1u << last);
        last = before;
    }
    return hops;
}
