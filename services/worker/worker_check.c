/*
 * The invariants of a worker core between two steps. They are worked out anew from its tables and never used
 * to decide anything.
 */
#include <string.h>

#include "services/worker/worker_impl.h"

static bool wrong(struct ts_error *err, const struct task *t, const char *what)
{
    ts_error_set(err, TS_ECORRUPT, "task %llu (request %llu, state %d): %s", (unsigned long long)t->tag,
                 (unsigned long long)t->rid.request, (int)t->state, what);
    return false;
}

/* What a decode task was told and what it computed of the KV that came are the same, and it is all. */
static bool verified(const struct task *t, uint64_t all)
{
    uint64_t found = 0;
    for (uint32_t i = 0; i < t->part_count; i++) {
        const struct part *p = &t->parts[i];
        uint32_t rows = (p->open.layer_end - p->open.layer_begin) * (p->open.head_end - p->open.head_begin);
        if (!p->ended || p->chunks_scattered < p->end.chunks || p->end.digests.count != rows ||
            p->tiles_scattered != (uint64_t)rows * (ts_kv_blocks_for(t->prompt_count) - t->present) ||
            memcmp(p->digests, p->end.digests.data, rows * sizeof(uint64_t)) != 0)
            return false;
        found += rows;
    }
    return t->part_count == t->senders && t->committed && t->scatters == 0 && found == all;
}

static bool check_ready(const struct worker_core *core, const struct task *t, struct ts_error *err)
{
    if (t->in_batch > 1)
        return wrong(err, t, "ready and in several batches");
    if (t->finish != TS_FINISH_NONE || !t->text_open)
        return wrong(err, t, "ready and at its end");
    if (t->item_first + t->item_count != t->output_count)
        return wrong(err, t, "its items and tokens do not agree");
    if (t->item_first != 0 && t->item_first != t->assign.produced.count)
        return wrong(err, t, "its first item is not the one after the produced tokens");
    if (t->kv_length < t->prompt_count || t->kv_length >= t->prompt_count + t->output_count)
        return wrong(err, t, "nothing to compute");
    if (ts_kv_blocks_for(t->kv_length) > t->block_count)
        return wrong(err, t, "less blocks than KV");
    const struct ts_msg_pool *kv = &core->settings.pool;
    uint64_t rows = (uint64_t)(kv->layer_end - kv->layer_begin) * (kv->head_end - kv->head_begin);
    if (t->role == TS_PHASE_DECODE && !verified(t, rows))
        return wrong(err, t, "KV that was not verified");
    return true;
}

/* Whoever brings something is there, or the task is suspended; each relay brings one part. */
static bool check_parts(const struct worker_core *core, const struct task *t, struct ts_error *err)
{
    bool comes = t->state == TASK_GRANT_WAIT || t->state == TASK_RECEIVING || t->state == TASK_SUSPENDED;
    uint32_t away = 0;
    for (uint32_t i = 0; i < t->part_count; i++) {
        const struct part *p = &t->parts[i];
        if (p->sender && (!comes || ts_map_get_u64(core->kv_peers, p->sender->peer) != p->sender))
            return wrong(err, t, "its sender is gone");
        if (part_of_relay(t, p->relay) != p || (comes && (p->digests != NULL) != t->granted))
            return wrong(err, t, "a part is there twice, or has no memory");
        away += !p->sender;
    }
    if (comes && (away > 0) != (t->state == TASK_SUSPENDED))
        return wrong(err, t, "goes on without a sender");
    if (t->part_count > t->senders || (comes && t->part_count == 0))
        return wrong(err, t, "has more senders than it should, or none");
    return true;
}

static bool check_task(const struct worker_core *core, const struct task *t, struct ts_error *err)
{
    bool waits = t->state == TASK_WAITING || t->state == TASK_GRANT_WAIT || t->state == TASK_ASSIGNED;
    for (uint32_t i = 0; i < t->block_count; i++) {
        uint64_t owner = i < t->shared ? PREFIX_OWNER : t->tag;
        if (t->blocks[i] >= core->kv.blocks || core->kv.owner[t->blocks[i]] != owner)
            return wrong(err, t, "names a block that is not its own");
    }
    if (t->scratch && (t->state == TASK_READY || core->kv.owner[t->scratch - 1] != t->tag))
        return wrong(err, t, "has no use for its scratch block");
    if (task_by_tag(core, t->tag) != t || (task_find(core, t->rid, t->role) == t) != (t->state != TASK_DYING))
        return wrong(err, t, "not found by its names");
    if (t->done > t->issued || t->issued > t->prompt_count ||
        (t->state == TASK_PREFILLING && t->done < t->issued && !t->in_batch))
        return wrong(err, t, "prompt tokens are lost");
    if ((waits || t->state == TASK_TOKENISING || t->state == TASK_FINISHED) &&
        (t->block_count || t->in_batch))
        return wrong(err, t, "has blocks or rows without need");
    if (t->state == TASK_DYING && !t->in_batch && t->scatters == 0 && t->encodes == 0 && !t->begun &&
        !t->tokenising)
        return wrong(err, t, "dead and still here");
    if (!check_parts(core, t, err))
        return false;
    if (t->rid.router == t->router->session.remote &&
        (t->router->term < t->assign.term ||
         (t->router->term == t->assign.term && t->router->plan < t->assign.plan)))
        return wrong(err, t, "of a newer plan than the newest seen");
    if ((t->begun || t->relay_knows) && (t->role != TS_PHASE_PREFILL || !core->pool.session.up))
        return wrong(err, t, "known to a relay that is not there");
    return t->state != TASK_READY || check_ready(core, t, err);
}

/* What the engine reads must be there until it is done. */
static bool check_batches(const struct worker_core *core, struct ts_error *err)
{
    for (uint32_t b = 0; b < core->running; b++) {
        const struct batch *batch = &core->batches[(core->first + b) % core->settings.batches_max];
        for (uint32_t i = 0; i < batch->count; i++) {
            const struct task *t = batch->tasks[i];
            const struct ts_batch_row *row = &batch->rows[i];
            if (!t->in_batch || row->tag != t->tag || row->blocks.data != t->blocks ||
                row->blocks.count > t->block_count ||
                row->position + row->tokens.count > row->blocks.count * TS_KV_BLOCK_TOKENS)
                return wrong(err, t, "a row of a batch is not as it says");
        }
    }
    return true;
}

/* A shared block is known by what it holds, in use by as many tasks as name it, and idle without any. */
static bool check_prefix(const struct worker_core *core, uint64_t *cached, struct ts_error *err)
{
    const struct prefix *p = &core->prefix;
    uint64_t users = 0, named = 0, idle = 0, listed = 0;
    for (uint32_t i = 0; i < core->kv.blocks; i++) {
        const struct prefix_entry *e = &p->entries[i];
        bool known = e->cached && ts_map_get(p->by_key, &e->key, sizeof e->key) == e;
        if ((core->kv.owner[i] == PREFIX_OWNER) != e->cached || e->cached != known) {
            ts_error_set(err, TS_ECORRUPT, "block %u is shared and not known, or the reverse", i);
            return false;
        }
        *cached += e->cached;
        users += e->cached ? e->users : 0;
        idle += e->cached && e->users == 0;
    }
    for (const struct task *t = core->head; t; t = t->next)
        named += t->shared;
    for (uint32_t i = p->head; i != UINT32_MAX && listed <= core->kv.blocks; i = p->entries[i].next)
        listed += p->entries[i].users == 0;
    if (users == named && idle == p->idle && idle == listed && idle <= p->idle_max &&
        ts_map_count(p->by_key) == *cached)
        return true;
    ts_error_set(err, TS_ECORRUPT, "shared blocks: %llu uses of %llu, %llu idle, %llu listed, counted as %u",
                 (unsigned long long)named, (unsigned long long)users, (unsigned long long)idle,
                 (unsigned long long)listed, p->idle);
    return false;
}

/* Each in the list of its state, by age. */
static bool check_lists(const struct worker_core *core, uint64_t count, struct ts_error *err)
{
    uint64_t listed = 0;
    for (uint32_t state = 0; state < TASK_STATES; state++) {
        const struct task *before = NULL;
        uint32_t here = 0;
        for (const struct task *t = core->lists[state].head; t; before = t, t = t->alike_next, here++) {
            if (t->state != state || t->alike_prev != before || (before && !task_younger(t, before)))
                return wrong(err, t, "out of its place among those of its state");
        }
        if (here != core->lists[state].count || core->lists[state].tail != before) {
            ts_error_set(err, TS_ECORRUPT, "%u tasks of state %u, counted as %u", here, state,
                         core->lists[state].count);
            return false;
        }
        listed += here;
    }
    if (count == listed && count == ts_map_count(core->by_tag) && count >= ts_map_count(core->tasks))
        return true;
    ts_error_set(err, TS_ECORRUPT, "%llu tasks, %llu by state, %zu by tag, %zu by request",
                 (unsigned long long)count, (unsigned long long)listed, ts_map_count(core->by_tag),
                 ts_map_count(core->tasks));
    return false;
}

/* What waits for a peer that may never come does so for a while only. */
static bool check_leases(const struct worker_core *core, struct ts_error *err)
{
    const struct task *t;
    for (t = core->lists[TASK_GRANT_WAIT].head; t; t = t->alike_next) {
        if (core->now - t->waiting_since >= core->settings.grant_wait_ms * TS_MS)
            return wrong(err, t, "waits for memory beyond its time");
    }
    for (t = core->lists[TASK_SUSPENDED].head; t; t = t->alike_next) {
        for (uint32_t i = 0; i < t->part_count; i++) {
            const struct part *p = &t->parts[i];
            if (!p->sender && core->now - p->lost_at >= core->settings.resume_wait_ms * TS_MS)
                return wrong(err, t, "waits for its sender beyond its time");
        }
    }
    for (t = core->head; t; t = t->next) {
        const struct router_link *link = t->router;
        bool lost = !link->session.up && t->state != TASK_DYING;
        if (lost && (link->lost_at == TS_TIME_NEVER ||
                     core->now - link->lost_at >= core->settings.router_lost_ms * TS_MS))
            return wrong(err, t, "outlives its router");
    }
    return true;
}

bool worker_core_check(const struct worker_core *core, struct ts_error *err)
{
    uint64_t owned = 0, cached = 0, count = 0, rows = 0, named = 0, flying = 0, returning = 0, jobs = 0;
    for (const struct task *t = core->head; t; t = t->next) {
        if (!check_task(core, t, err))
            return false;
        count++;
        owned += t->block_count - t->shared + (t->scratch > 0);
        named += t->in_batch;
        flying += t->state == TASK_READY && t->in_batch;
        returning += t->returning;
        jobs += t->scatters + t->encodes;
    }
    for (uint32_t b = 0; b < core->running; b++)
        rows += core->batches[(core->first + b) % core->settings.batches_max].count;
    if (!check_batches(core, err) || !check_lists(core, count, err) || !check_leases(core, err) ||
        !check_prefix(core, &cached, err))
        return false;
    if (owned + cached + core->kv.free_count != core->kv.blocks)
        ts_error_set(err, TS_ECORRUPT, "%llu blocks owned, %llu shared and %u free of %u",
                     (unsigned long long)owned, (unsigned long long)cached, core->kv.free_count,
                     core->kv.blocks);
    else if (ts_map_count(core->tasks) > core->settings.requests_max)
        ts_error_set(err, TS_ECORRUPT, "%zu tasks exceed the bound of %u", ts_map_count(core->tasks),
                     core->settings.requests_max);
    else if (core->running > core->settings.batches_max || rows != named || flying != core->flying)
        ts_error_set(err, TS_ECORRUPT, "%u batches with %llu rows name tasks %llu times", core->running,
                     (unsigned long long)rows, (unsigned long long)named);
    else if (returning != core->returning || (core->starved && core->running == 0))
        ts_error_set(err, TS_ECORRUPT, "%u blocks are to return of %llu, and %s waits", core->returning,
                     (unsigned long long)returning, core->starved ? "a sequence" : "nobody");
    else if (jobs != ts_map_count(core->scatters) + ts_map_count(core->encodes))
        ts_error_set(err, TS_ECORRUPT, "%llu jobs of the codec are of tasks, and %zu + %zu under way",
                     (unsigned long long)jobs, ts_map_count(core->scatters), ts_map_count(core->encodes));
    else
        return true;
    return false;
}
