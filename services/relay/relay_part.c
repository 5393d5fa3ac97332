/*
 * A request whose decode side is cut differently from its prefill side goes to several decode workers: one
 * transfer for each, of what the pool and that worker have in common. They share the request's number, follow
 * each other by age (`sibling`), live and end on their own while all goes well, and fail together.
 */
#include "common/core/ts_reshard.h"
#include "services/relay/relay_impl.h"

struct rid_key {
    uint64_t router, request, attempt;
};

static struct rid_key key_of(struct ts_rid rid)
{
    return (struct rid_key){rid.router, rid.request, rid.attempt};
}

struct transfer *transfer_find(const struct relay_core *core, struct ts_rid rid)
{
    struct rid_key key = key_of(rid);
    return ts_map_get(core->transfers, &key, sizeof key);
}

void parts_join(struct relay_core *core, struct transfer *t)
{
    struct rid_key key = key_of(t->rid);
    struct transfer *last = transfer_find(core, t->rid);
    while (last && last->sibling)
        last = last->sibling;
    if (last)
        last->sibling = t;
    else
        ts_map_put(core->transfers, &key, sizeof key, t);
}

void parts_leave(struct relay_core *core, struct transfer *t)
{
    struct rid_key key = key_of(t->rid);
    struct transfer *first = ts_map_remove(core->transfers, &key, sizeof key), *before = first;
    if (first == t)
        first = t->sibling;
    while (before != t && before->sibling != t)
        before = before->sibling;
    if (before != t)
        before->sibling = t->sibling;
    t->sibling = NULL;
    if (!first)
        return;
    first->raw_before += t->raw_before + transfer_raw_bytes(t);
    first->sent_before += t->sent_before + t->bytes_sent;
    ts_map_put(core->transfers, &key, sizeof key, first);
}

bool parts_ended(const struct transfer *t)
{
    while (t && t->ended)
        t = t->sibling;
    return !t;
}

/* One that is over while the codec still reads its blocks: KvFreed follows when that has ended. */
bool parts_still_read(const struct relay_core *core, struct ts_rid rid)
{
    for (const struct transfer *t = core->over.head; t; t = t->near[LIST_ALL].next) {
        if (ts_rid_equal(t->rid, rid) && !t->freed)
            return true;
    }
    return false;
}

bool parts_siblings_read(const struct relay_core *core, const struct transfer *t)
{
    if (t->parts == 1)
        return false;
    for (const struct transfer *other = transfer_find(core, t->rid); other; other = other->sibling) {
        if (!other->freed)
            return true;
    }
    return parts_still_read(core, t->rid);
}

size_t parts_count(const struct relay_core *core)
{
    const struct transfer *t;
    size_t count = 0;
    for (size_t cursor = 0; (t = ts_map_next(core->transfers, &cursor, NULL, NULL));) {
        for (; t; t = t->sibling)
            count++;
    }
    return count;
}

const char *parts_fault(const struct ts_msg_kv_begin *m)
{
    if (m->parts.count == 0)
        return m->endpoint.count ? NULL : "the decode endpoint is not given";
    for (uint32_t i = 0; i < m->parts.count; i++) {
        const struct ts_kv_part *part = &m->parts.data[i];
        if (part->endpoint.count == 0)
            return "the endpoint of a part is not given";
        for (uint32_t k = 0; k < i; k++) { /* what it answers could mean either */
            if (ts_str_equal(part->endpoint, m->parts.data[k].endpoint))
                return "two parts go to the same worker";
        }
    }
    return NULL;
}

uint32_t parts_plan(const struct pool *pool, const struct ts_msg_kv_begin *m, struct ts_kv_part *parts)
{
    const struct ts_msg_pool *p = &pool->layout;
    const struct ts_shard_rect own = {p->layer_begin, p->layer_end, p->head_begin, p->head_end};
    uint32_t count = 0;
    if (m->parts.count == 0) {
        parts[0] = (struct ts_kv_part){m->decode,    m->endpoint,   m->decode_incarnation, p->layer_begin,
                                       p->layer_end, p->head_begin, p->head_end,           1};
        return 1;
    }
    for (uint32_t i = 0; i < m->parts.count; i++) {
        const struct ts_kv_part *part = &m->parts.data[i];
        const struct ts_shard_rect there = {part->layer_begin, part->layer_end, part->head_begin,
                                            part->head_end};
        const struct ts_shard_rect meet = ts_rect_meet(own, there);
        if (ts_rect_empty(meet))
            continue;
        parts[count] = *part;
        parts[count].layer_begin = meet.layer_begin;
        parts[count].layer_end = meet.layer_end;
        parts[count].head_begin = meet.head_begin;
        parts[count++].head_end = meet.head_end;
    }
    return count;
}
