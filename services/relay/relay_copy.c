/*
 * Encoded copies: a verified transfer stays, until its router releases the request, and can be sent to
 * another decode worker. Best effort: copies use memory that transfers do not need, and yield it at once.
 */
#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"

#define COPIES_MAX TS_LIST_MAX /* one Copies lists them all */

struct copy_key {
    uint64_t router, request;
};

static struct transfer *find(const struct relay_core *core, struct ts_rid rid)
{
    struct copy_key key = {rid.router, rid.request};
    return ts_map_get(core->copies, &key, sizeof key);
}

/* --- which goes first: a binary heap ------------------------------------------------------------------ */

/* Cheaper to lose: fewer prompt tokens to compute again for each byte, then fewer of them, then the older
 * one. Both products stay below 2^62. */
static bool cheaper(const struct transfer *a, const struct transfer *b)
{
    uint64_t x = (uint64_t)a->begin.token_count * b->held_bytes;
    uint64_t y = (uint64_t)b->begin.token_count * a->held_bytes;
    if (x != y)
        return x < y;
    if (a->begin.token_count != b->begin.token_count)
        return a->begin.token_count < b->begin.token_count;
    return a->age < b->age;
}

static void place(struct relay_core *core, struct transfer *t, size_t at)
{
    core->cheapest[at] = t;
    t->heap_at = at;
}

/* From an empty place `at` to where `t` belongs. */
static void sift(struct relay_core *core, struct transfer *t, size_t at)
{
    size_t count = core->copy_count;
    for (; at > 0 && cheaper(t, core->cheapest[(at - 1) / 2]); at = (at - 1) / 2)
        place(core, core->cheapest[(at - 1) / 2], at);
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && cheaper(core->cheapest[child + 1], core->cheapest[child]))
            child++;
        if (!cheaper(core->cheapest[child], t))
            break;
        place(core, core->cheapest[child], at);
    }
    place(core, t, at);
}

static void heap_add(struct relay_core *core, struct transfer *t)
{
    void *items = core->cheapest;
    ts_array_reserve(&items, &core->copy_capacity, core->copy_count + 1, sizeof(struct transfer *));
    core->cheapest = items;
    core->copy_count++;
    sift(core, t, core->copy_count - 1);
}

static void heap_remove(struct relay_core *core, const struct transfer *t)
{
    struct transfer *last = core->cheapest[--core->copy_count];
    if (last != t)
        sift(core, last, t->heap_at);
}

/* --- keeping and losing ------------------------------------------------------------------------------- */

/* It is no copy any more; its bytes are still there. */
static void take_out(struct relay_core *core, struct transfer *t)
{
    struct copy_key key = {t->rid.router, t->rid.request};
    TS_ASSERT(t->state == TRANSFER_RETAINED);
    ts_map_remove(core->copies, &key, sizeof key);
    heap_remove(core, t);
    core->retained_bytes -= t->held_bytes;
    core->held_bytes += t->held_bytes;
}

static void forget(struct relay_core *core, struct transfer *t)
{
    take_out(core, t);
    transfer_over(core, t);
}

static void evict(struct relay_core *core, struct transfer *t)
{
    void *items = core->evicted;
    ts_array_reserve(&items, &core->evicted_capacity, core->evicted_count + 1, sizeof *core->evicted);
    core->evicted = items;
    core->evicted[core->evicted_count++] = t->rid;
    core->counts.copies_evicted++;
    forget(core, t);
}

void copy_yield(struct relay_core *core)
{
    while (core->copy_count > 0 &&
           (core->copy_count > COPIES_MAX || core->retained_bytes > core->settings.retained_bytes_max ||
            core->held_bytes + core->retained_bytes > core->settings.encoded_bytes_max))
        evict(core, core->cheapest[0]);
}

/* Whether somebody is there who will release it. */
static bool wanted(const struct relay_core *core, struct ts_rid rid)
{
    for (size_t i = 0; !core->draining && i < core->settings.router_count; i++) {
        if (core->routers[i].session.remote == rid.router && !core->routers[i].given_up)
            return true;
    }
    return false;
}

void copy_keep(struct relay_core *core, struct transfer *t)
{
    struct copy_key key = {t->rid.router, t->rid.request};
    struct transfer *other = find(core, t->rid);
    if (!wanted(core, t->rid) || (other && other->rid.attempt > t->rid.attempt)) {
        transfer_over(core, t);
        return;
    }
    if (other)
        forget(core, other);
    ts_map_put(core->copies, &key, sizeof key, t);
    core->held_bytes -= t->held_bytes;
    core->retained_bytes += t->held_bytes;
    heap_add(core, t);
    copy_yield(core);
}

void copy_released(struct relay_core *core, struct ts_rid rid)
{
    struct transfer *t = find(core, rid);
    if (t && t->rid.attempt <= rid.attempt)
        forget(core, t);
}

void copy_forget(struct relay_core *core, uint64_t router)
{
    struct transfer *t;
    for (size_t cursor = 0; (t = ts_map_next(core->copies, &cursor, NULL, NULL));) {
        if (router == 0 || t->rid.router == router)
            forget(core, t);
    }
}

/* --- what routers ask and hear ------------------------------------------------------------------------ */

/* Everything it holds for this router, in a new session. */
void copy_inventory(struct relay_core *core, const struct router_link *router)
{
    struct ts_copy_item *items =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->copies) + 1) * sizeof *items);
    const struct transfer *t;
    uint32_t count = 0;
    for (size_t cursor = 0; (t = ts_map_next(core->copies, &cursor, NULL, NULL));) {
        if (t->rid.router == router->session.remote)
            items[count++] = (struct ts_copy_item){.rid = t->rid, .bytes = t->held_bytes, .whole = true};
    }
    struct ts_action_send *s = count ? relay_send_router(core, router->session.remote, TS_MSG_COPIES) : NULL;
    if (s)
        s->msg.copies.items = (struct ts_copy_items){items, count};
}

/* Once a step: what had to go. A router that is away hears of what is left when it is back. */
void copy_tell(struct relay_core *core)
{
    for (size_t i = 0; core->evicted_count > 0 && i < core->settings.router_count; i++) {
        uint64_t router = core->routers[i].session.remote;
        struct ts_copy_item *items = ts_arena_zalloc(&core->out->arena, core->evicted_count * sizeof *items);
        uint32_t count = 0;
        for (size_t k = 0; k < core->evicted_count && count < TS_LIST_MAX; k++) {
            if (core->evicted[k].router == router)
                items[count++].rid = core->evicted[k];
        }
        struct ts_action_send *s = count ? relay_send_router(core, router, TS_MSG_COPIES) : NULL;
        if (s)
            s->msg.copies.items = (struct ts_copy_items){items, count};
    }
    core->evicted_count = 0;
}

void copy_refeed(struct relay_core *core, uint64_t router, const struct ts_msg_refeed *m)
{
    struct transfer *t = find(core, m->from);
    if (transfer_find(core, m->rid)) /* asked again in a new session */
        return;
    if (t && m->rid.router == router && ts_rid_equal(t->rid, m->rid)) { /* the same, and it is done */
        transfer_report(core, m->rid, t, TS_REASON_NONE, "");
    } else if (!t || m->from.router != router || !ts_rid_equal(t->rid, m->from) || m->endpoint.count == 0 ||
               m->rid.router != router || m->rid.request != m->from.request ||
               m->rid.attempt <= m->from.attempt) {
        transfer_report(core, m->rid, NULL, TS_REASON_NO_COPY, "");
    } else {
        core->counts.refeeds++;
        take_out(core, t);
        transfer_again(core, t, m);
    }
}
