/*
 * The invariants, looked at between two steps. They are told here a second time, from the rules of the README
 * and not by the functions that keep them, so that a fault there shows.
 */
#include <string.h>

#include "common/base/ts_error.h"
#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define NUMBER(r) ((unsigned long long)(r)->number)

struct sums { /* over all records */
    size_t live, queued, ended, attached;
    uint64_t held, queued_tokens;
};

static enum ts_status check_holds(const struct record *r, struct ts_error *err)
{
    bool assigned = r->prefill || r->decode;
    if (r->state == RECORD_ENDED && (assigned || r->prompt.slot || r->client))
        return ts_error_set(err, TS_ECORRUPT, "request %llu has ended and still holds %s", NUMBER(r),
                            assigned ? "a worker" : "its prompt or client");
    if (r->state != RECORD_ENDED && !r->prompt.slot)
        return ts_error_set(err, TS_ECORRUPT, "request %llu lives without its prompt", NUMBER(r));
    if (r->state == RECORD_QUEUED && assigned)
        return ts_error_set(err, TS_ECORRUPT, "request %llu is queued and assigned", NUMBER(r));
    if ((r->state == RECORD_ASSIGNED || r->state == RECORD_STREAMING) && !r->decode)
        return ts_error_set(err, TS_ECORRUPT, "request %llu runs without a decode worker", NUMBER(r));
    if (r->state == RECORD_ASSIGNED && r->count > 0)
        return ts_error_set(err, TS_ECORRUPT, "request %llu has tokens and does not stream", NUMBER(r));
    if (r->decode && !r->kv_done && !r->prefill && !r->copy.feeder)
        return ts_error_set(err, TS_ECORRUPT, "request %llu waits for KV that nobody computes", NUMBER(r));
    return TS_OK;
}

/* Whatever has a term is over once it has passed. */
static enum ts_status check_terms(const struct router_core *core, const struct record *r,
                                  struct ts_error *err)
{
    const struct router_settings *s = &core->settings;
    uint32_t reattach_ms = r->generate.reattach_ms ? r->generate.reattach_ms : s->reattach_ms;
    const char *what = NULL;
    if (r->state == RECORD_ENDED)
        what = r->ended_at + s->ended_keep_ms * TS_MS <= core->now ? "being remembered" : NULL;
    else if (r->deadline <= core->now)
        what = "its deadline";
    else if (!r->client && r->detached_at + reattach_ms * TS_MS <= core->now)
        what = "its client's return";
    else if (r->state == RECORD_QUEUED && r->waiting_since + s->no_worker_ms * TS_MS <= core->now)
        what = "a worker";
    else if (r->state == RECORD_QUEUED && r->retry_at > core->now &&
             (r->timer.slot == 0 || r->timer.at > r->retry_at))
        what = "its next attempt, of which nobody thinks,";
    if (what)
        return ts_error_set(err, TS_ECORRUPT, "request %llu is beyond %s", NUMBER(r), what);
    return TS_OK;
}

/* A client that is there was sent all that there is, each token once. */
static enum ts_status check_stream(const struct record *r, struct ts_error *err)
{
    if (r->state != RECORD_ENDED && r->client && r->sent != r->count)
        return ts_error_set(err, TS_ECORRUPT, "request %llu has %zu tokens, its client %zu", NUMBER(r),
                            r->count, r->sent);
    if (r->pending_slot)
        return ts_error_set(err, TS_ECORRUPT, "request %llu waits to be sent after the step", NUMBER(r));
    if ((r->client != NULL) != (r->client_peer != 0 && r->state != RECORD_ENDED) ||
        (r->client && r->client->peer != r->client_peer))
        return ts_error_set(err, TS_ECORRUPT, "request %llu is attached to another connection than it says",
                            NUMBER(r));
    if (r->client && r->client_next && r->client_next->client_prev != r)
        return ts_error_set(err, TS_ECORRUPT, "the streams of a client are not linked both ways");
    return TS_OK;
}

static enum ts_status check_records(const struct router_core *core, struct sums *sums, struct ts_error *err)
{
    struct record *r;
    for (size_t cursor = 0; (r = ts_map_next(core->records, &cursor, NULL, NULL));) {
        bool live = r->state != RECORD_ENDED;
        if (check_holds(r, err) != TS_OK || check_terms(core, r, err) != TS_OK ||
            check_stream(r, err) != TS_OK)
            return TS_ECORRUPT;
        if ((index_get(&core->by_number, r->number) == r) != live)
            return ts_error_set(err, TS_ECORRUPT, "request %llu is %s and %s by its number", NUMBER(r),
                                live ? "live" : "ended", live ? "not found" : "found");
        if (r->failures > core->settings.max_attempts || r->failures > r->attempt)
            return ts_error_set(err, TS_ECORRUPT, "request %llu is in its attempt %u, %u failed", NUMBER(r),
                                r->attempt, r->failures);
        sums->live += live;
        sums->ended += !live;
        sums->queued += r->state == RECORD_QUEUED;
        sums->queued_tokens += r->state == RECORD_QUEUED ? r->prompt_tokens : 0;
        sums->attached += r->client != NULL;
        sums->held += live ? r->prompt.bytes : 0;
    }
    return TS_OK;
}

static enum ts_status check_counts(const struct router_core *core, const struct sums *s, struct ts_error *err)
{
    size_t queue = 0, attached = 0, per_client = 0, cursor = 0;
    void *live;
    const struct client *client;
    for (const struct record *r = core->queue_head; r; r = r->queue_next, queue++) {
        if (r->state != RECORD_QUEUED || (r->queue_next && r->queue_next->number <= r->number))
            return ts_error_set(err, TS_ECORRUPT, "the queue is out of order at request %llu", NUMBER(r));
    }
    while ((live = ts_map_next(core->per_client, &cursor, NULL, NULL)))
        per_client += (uintptr_t)live;
    for (cursor = 0; (client = ts_map_next(core->clients, &cursor, NULL, NULL));) {
        attached += client->attached;
        if (client->last_rx + core->settings.client_timeout_ms * TS_MS <= core->now)
            return ts_error_set(err, TS_ECORRUPT, "a silent client is attached");
    }
    if (s->live != core->live_count || s->queued != core->queued_count || s->queued != queue ||
        s->ended != core->ended_count || s->held != core->held_bytes || s->live != core->by_number.count)
        return ts_error_set(
            err, TS_ECORRUPT, "counts disagree: live %zu/%zu queued %zu/%zu/%zu ended %zu/%zu held %llu/%llu",
            s->live, core->live_count, s->queued, core->queued_count, queue, s->ended, core->ended_count,
            (unsigned long long)s->held, (unsigned long long)core->held_bytes);
    if (s->queued_tokens != core->queued_tokens)
        return ts_error_set(err, TS_ECORRUPT, "%llu prompt tokens are queued, not %llu",
                            (unsigned long long)s->queued_tokens, (unsigned long long)core->queued_tokens);
    if (s->live != per_client || s->attached != attached)
        return ts_error_set(err, TS_ECORRUPT, "clients have %zu of %zu requests, connections %zu of %zu",
                            per_client, s->live, attached, s->attached);
    if (core->counts.accepted - core->counts.ended != s->live)
        return ts_error_set(err, TS_ECORRUPT, "%llu accepted and %llu ended, but %zu live",
                            (unsigned long long)core->counts.accepted, (unsigned long long)core->counts.ended,
                            s->live);
    if (s->live > core->settings.queue_max || s->ended > core->settings.ended_keep_count ||
        s->held > core->settings.held_bytes_max)
        return ts_error_set(err, TS_ECORRUPT, "a bound is exceeded: live %zu ended %zu held %llu", s->live,
                            s->ended, (unsigned long long)s->held);
    return TS_OK;
}

struct books { /* of one worker, from the records */
    uint64_t unstarted, rows, prompt_tokens, kv_blocks;
};

static enum ts_status check_books(const struct member *m, const struct books *b, struct ts_error *err)
{
    const struct route_worker *w = &m->route;
    if (w->unstarted != b->unstarted || w->rows != b->rows || w->prompt_tokens != b->prompt_tokens ||
        m->kv_assigned != b->kv_blocks || w->kv_used < b->kv_blocks)
        return ts_error_set(
            err, TS_ECORRUPT,
            "books of %s: unstarted %u/%llu rows %u/%llu prompt tokens %llu/%llu KV %llu/%llu", m->id,
            w->unstarted, (unsigned long long)b->unstarted, w->rows, (unsigned long long)b->rows,
            (unsigned long long)w->prompt_tokens, (unsigned long long)b->prompt_tokens,
            (unsigned long long)m->kv_assigned, (unsigned long long)b->kv_blocks);
    return TS_OK;
}

static enum ts_status check_worker(const struct router_core *core, const struct member *m,
                                   struct ts_error *err)
{
    bool ready = m->session.up && m->synced && !m->draining;
    const struct member *relay = m->relay;
    if (m->route.phases && (!ready || (m->route.phases & ~m->hello.profile.phases & ~m->hello.profile.phase)))
        return ts_error_set(err, TS_ECORRUPT, "%s gets work that it must not get", m->id);
    if (m->switching.to && ((m->route.phases & ~m->switching.to) || m->switching.timer.slot == 0 ||
                            m->switching.timer.at <= core->now))
        return ts_error_set(err, TS_ECORRUPT, "%s gets work of the phase that it leaves, or waits for ever",
                            m->id);
    if (m->route.sends && (!relay || !relay->session.up || relay->draining))
        return ts_error_set(err, TS_ECORRUPT, "%s prefills without a relay", m->id);
    if (relay && member_find(core, TS_ROLE_RELAY, relay->id) != relay)
        return ts_error_set(err, TS_ECORRUPT, "%s has a relay that is gone", m->id);
    if (m->replica &&
        (m->replica > core->plan.replica_count || core->plan.replicas[m->replica - 1].worker != &m->route ||
         strcmp(core->plan.workers[m->replica - 1], m->id) != 0))
        return ts_error_set(err, TS_ECORRUPT, "%s is another replica of the plan than it says", m->id);
    return TS_OK;
}

static enum ts_status check_members(const struct router_core *core, struct ts_error *err)
{
    size_t workers = 0;
    struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (ts_map_get_u64(core->fenced, m->incarnation))
            return ts_error_set(err, TS_ECORRUPT, "%s is here as an incarnation that is fenced", m->id);
        if (m->session.up ? m->session.last_rx + core->settings.timeout_ms * TS_MS <= core->now
                          : m->dead_at <= core->now)
            return ts_error_set(err, TS_ECORRUPT, "%s is silent for too long and lives", m->id);
        if (m->role != TS_ROLE_WORKER)
            continue;
        workers++;
        if (check_worker(core, m, err) != TS_OK)
            return TS_ECORRUPT;
    }
    if (workers != core->worker_count)
        return ts_error_set(err, TS_ECORRUPT, "%zu workers are known, %zu can be picked", workers,
                            core->worker_count);
    return TS_OK;
}

/* worker_count: not among those that can be picked. */
static size_t worker_index(const struct router_core *core, const struct member *m)
{
    return m->slot < core->worker_count && core->workers[m->slot] == &m->route ? m->slot : core->worker_count;
}

/* What the workers' numbers say, and that nobody who is gone holds a request. */
static enum ts_status check_workers(const struct router_core *core, struct ts_error *err)
{
    struct books *books = ts_xcalloc(core->worker_count + 1, sizeof *books);
    enum ts_status status = TS_OK;
    for (const struct record *r = core->live_head; r && status == TS_OK; r = r->next) {
        size_t p = r->prefill ? worker_index(core, r->prefill) : 0;
        size_t d = r->decode ? worker_index(core, r->decode) : 0;
        if ((r->prefill && p == core->worker_count) || (r->decode && d == core->worker_count))
            status = ts_error_set(err, TS_ECORRUPT, "request %llu is at a worker that is gone", NUMBER(r));
        else if (r->computing && (!r->prefill || r->kv_done))
            status = ts_error_set(err, TS_ECORRUPT, "request %llu is computed by nobody", NUMBER(r));
        if (r->prefill) {
            books[p].unstarted += !r->kv_done;
            books[p].prompt_tokens += r->computing ? r->held_tokens : 0;
        }
        if (r->decode) {
            books[d].rows++;
            books[d].kv_blocks += r->held_blocks;
        }
    }
    for (size_t i = 0; i < core->worker_count && status == TS_OK; i++)
        status = check_books(member_of(core->workers[i]), &books[i], err);
    ts_free(books);
    return status;
}

/* A plan is applied, or somebody is on the way to it. */
static enum ts_status check_applying(const struct router_core *core, struct ts_error *err)
{
    const struct plan *plan = &core->plan;
    bool somebody = !plan->applying;
    for (size_t i = 0; i < plan->replica_count && !somebody; i++)
        somebody = plan->replicas[i].worker && member_of(plan->replicas[i].worker)->switching.to;
    if (!somebody)
        return ts_error_set(err, TS_ECORRUPT, "nobody applies plan %llu.%llu", (unsigned long long)core->term,
                            (unsigned long long)core->number);
    return TS_OK;
}

/* Terms and numbers of plans never go back. */
static enum ts_status check_plan(const struct router_core *core, struct ts_error *err)
{
    const struct plan *plan = &core->plan;
    if (core->term != plan->newest_term || core->number != plan->newest_number)
        return ts_error_set(err, TS_ECORRUPT, "plan %llu.%llu is in force, and %llu.%llu was",
                            (unsigned long long)core->term, (unsigned long long)core->number,
                            (unsigned long long)plan->newest_term, (unsigned long long)plan->newest_number);
    for (size_t i = 0; i < plan->share_count; i++) {
        if (plan->shares[i].prefill >= plan->replica_count || plan->shares[i].decode >= plan->replica_count)
            return ts_error_set(err, TS_ECORRUPT, "share %zu of the plan names no replica", i);
    }
    for (size_t i = 0; i < plan->replica_count; i++) {
        const struct member *m = member_find(core, TS_ROLE_WORKER, plan->workers[i]);
        if (plan->replicas[i].worker != (m ? &m->route : NULL))
            return ts_error_set(err, TS_ECORRUPT, "replica %zu of the plan is not %s", i, plan->workers[i]);
    }
    return check_applying(core, err);
}

bool router_core_check(const struct router_core *core, struct ts_error *err)
{
    struct sums sums = {0};
    if (!timers_check(&core->timers))
        ts_error_set(err, TS_ECORRUPT, "the heap of deadlines is out of order");
    else
        return check_records(core, &sums, err) == TS_OK && check_counts(core, &sums, err) == TS_OK &&
               check_members(core, err) == TS_OK && check_workers(core, err) == TS_OK &&
               check_plan(core, err) == TS_OK;
    return false;
}
