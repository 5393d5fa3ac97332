/*
 * The books of the harness about workers: which blocks something reads or writes, what was received and
 * verified, what may begin. They are kept from events and actions; tasks are looked up to know whose they
 * are.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"
#include "tests/sim/sim_impl.h"

#define DIGESTS_MAX 64
#define BLOCKS_MAX  512
#define LOST_SLACK  (1500 * TS_MS)

static struct sim_ask *ask_of(struct sim_world *w, struct ts_rid rid)
{
    return rid.router == w->router_incarnation && rid.request < SIM_NUMBERS_MAX ? w->by_number[rid.request]
                                                                                : NULL;
}

enum { JOB_BATCH, JOB_SCATTER, JOB_BEGUN, JOB_TEXT, JOB_ROWS };

struct job_key {
    const struct cloud_node *node;
    uint64_t kind, number, request, attempt;
};

struct job { /* blocks that a batch, a scatter or a relay uses */
    struct ts_rid rid;
    uint64_t chunk, bytes;
    uint32_t layer, head, block_count;
    uint32_t blocks[];
};

struct receipt { /* of one transfer at decode */
    uint64_t found[DIGESTS_MAX], said[DIGESTS_MAX];
    uint32_t said_count, heads;
    uint64_t chunks, chunks_said;
    bool ended;
};

struct sim_blocks { /* of one worker */
    uint64_t incarnation, pool_session;
    uint8_t busy[BLOCKS_MAX], lent[BLOCKS_MAX];
};

/* --- jobs -------------------------------------------------------------------------------------------- */

static struct sim_blocks *blocks_of(struct sim_world *w, const struct cloud_node *node)
{
    struct sim_blocks *b = ts_map_get(w->jobs, &node, sizeof node);
    if (!b) {
        b = ts_xcalloc(1, sizeof *b);
        ts_map_put(w->jobs, &node, sizeof node, b);
    }
    return b;
}

static void count_blocks(uint8_t *counts, const struct job *job, int change)
{
    for (uint32_t i = 0; i < job->block_count; i++) {
        if (job->blocks[i] < BLOCKS_MAX)
            counts[job->blocks[i]] = (uint8_t)(counts[job->blocks[i]] + change);
    }
}

static struct job_key key_of(const struct cloud_node *node, int kind, uint64_t number)
{
    return (struct job_key){.node = node, .kind = (uint64_t)kind, .number = number};
}

static struct job_key begun_key(const struct cloud_node *node, struct ts_rid rid)
{
    return (struct job_key){node, JOB_BEGUN, rid.router, rid.request, rid.attempt};
}

static struct job *new_job(struct sim_world *w, const struct job_key *key, uint32_t capacity)
{
    struct job *job = ts_xcalloc(1, sizeof *job + capacity * sizeof job->blocks[0]);
    ts_free(ts_map_put(w->jobs, key, sizeof *key, job));
    return job;
}

static void add_blocks(struct job *job, struct ts_u32s blocks)
{
    for (uint32_t i = 0; i < blocks.count; i++)
        job->blocks[job->block_count++] = blocks.data[i];
}

static void batch_begins(struct sim_world *w, struct cloud_node *node, const struct ts_action_batch *a)
{
    struct job_key key = key_of(node, JOB_BATCH, a->batch);
    uint32_t count = 0;
    for (uint32_t i = 0; i < a->rows.count; i++)
        count += a->rows.data[i].blocks.count;
    struct job *job = new_job(w, &key, count);
    for (uint32_t i = 0; i < a->rows.count; i++)
        add_blocks(job, a->rows.data[i].blocks);
    count_blocks(blocks_of(w, node)->busy, job, 1);
    key.kind = JOB_ROWS;
    job = new_job(w, &key, a->rows.count);
    for (uint32_t i = 0; i < a->rows.count; i++)
        job->blocks[job->block_count++] = (uint32_t)a->rows.data[i].tag;
}

static struct job *take_job(struct sim_world *w, struct cloud_node *node, int kind, uint64_t number)
{
    struct job_key key = key_of(node, kind, number);
    struct job *job = ts_map_remove(w->jobs, &key, sizeof key);
    if (job)
        count_blocks(blocks_of(w, node)->busy, job, -1);
    return job;
}

static void scatter_begins(struct sim_world *w, struct cloud_node *node, const struct ts_action_scatter *a,
                           const struct ts_event *event)
{
    struct job_key key = key_of(node, JOB_SCATTER, a->job);
    if (event->kind != TS_EVENT_MESSAGE || event->message.msg.kind != TS_MSG_KV_CHUNK) {
        cloud_fail(w->cloud, "%s scatters what did not come", cloud_node_id(node));
        return;
    }
    const struct ts_msg_kv_chunk *m = &event->message.msg.kv_chunk;
    struct job *job = new_job(w, &key, a->blocks.count);
    job->rid = m->rid;
    job->chunk = m->number;
    job->bytes = event->message.bulk.bytes;
    job->layer = m->layer;
    job->head = m->head_begin;
    add_blocks(job, a->blocks);
    count_blocks(blocks_of(w, node)->busy, job, 1);
}

static void lend(struct sim_world *w, struct cloud_node *node, const struct ts_msg_kv_begin *m)
{
    struct job_key key = begun_key(node, m->rid);
    struct job *job = new_job(w, &key, m->blocks.count);
    add_blocks(job, m->blocks);
    count_blocks(blocks_of(w, node)->lent, job, 1);
}

static void given_back(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    struct job_key key = begun_key(node, rid);
    struct job *job = ts_map_remove(w->jobs, &key, sizeof key);
    if (job)
        count_blocks(blocks_of(w, node)->lent, job, -1);
    ts_free(job);
}

/* Everything of this worker, or only what its relay has. */
static void forget_jobs(struct sim_world *w, const struct cloud_node *node, bool only_lent)
{
    const void *key;
    size_t bytes;
    void *job;
    for (size_t cursor = 0; (job = ts_map_next(w->jobs, &cursor, &key, &bytes));) {
        struct job_key k;
        if (bytes != sizeof k)
            continue;
        memcpy(&k, key, sizeof k);
        if (k.node == node && (!only_lent || k.kind == JOB_BEGUN)) {
            ts_map_remove(w->jobs, &k, sizeof k);
            ts_free(job);
        }
    }
}

static void freed(struct sim_world *w, struct cloud_node *node, struct ts_u32s blocks)
{
    const struct sim_blocks *b = blocks_of(w, node);
    for (uint32_t i = 0; i < blocks.count && blocks.data[i] < BLOCKS_MAX; i++) {
        if (b->busy[blocks.data[i]])
            cloud_fail(w->cloud, "%s frees block %u, which a batch or a scatter uses", cloud_node_id(node),
                       blocks.data[i]);
        if (b->lent[blocks.data[i]])
            cloud_fail(w->cloud, "%s frees block %u before KvFreed", cloud_node_id(node), blocks.data[i]);
    }
}

/* What a batch that failed has computed is not believed. */
static void batch_ends(struct sim_world *w, struct cloud_node *node, const struct ts_event_batch_done *m)
{
    const struct worker_core *core = cloud_node_core(node);
    struct job_key key = key_of(node, JOB_ROWS, m->batch);
    struct job *rows = ts_map_remove(w->jobs, &key, sizeof key);
    ts_free(take_job(w, node, JOB_BATCH, m->batch));
    for (uint32_t i = 0; rows && m->reason != TS_REASON_NONE && i < rows->block_count; i++) {
        const struct task *t = task_by_tag(core, rows->blocks[i]);
        if (t && t->state != TASK_DYING)
            cloud_fail(w->cloud, "%s goes on with request %llu after its batch has failed",
                       cloud_node_id(node), (unsigned long long)t->rid.request);
    }
    ts_free(rows);
}

/* --- what is received -------------------------------------------------------------------------------- */

static struct receipt *receipt_of(struct sim_world *w, const struct cloud_node *node, struct ts_rid rid,
                                  bool make)
{
    struct job_key key = {node, 0, rid.router, rid.request, rid.attempt};
    struct receipt *r = ts_map_get(w->receipts, &key, sizeof key);
    if (!r && make) {
        r = ts_xcalloc(1, sizeof *r);
        ts_map_put(w->receipts, &key, sizeof key, r);
    }
    return r;
}

static void end_came(struct sim_world *w, const struct cloud_node *node, const struct ts_msg_kv_end *m)
{
    struct receipt *r = receipt_of(w, node, m->rid, true);
    if (r->ended || m->digests.count > DIGESTS_MAX)
        return;
    r->ended = true;
    r->chunks_said = m->chunks;
    r->said_count = m->digests.count;
    memcpy(r->said, m->digests.data, m->digests.count * sizeof *r->said);
}

static const struct ts_action *find_send(const struct ts_actions *actions, enum ts_msg_kind kind)
{
    for (size_t i = 0; i < actions->count; i++) {
        if (actions->items[i].kind == TS_ACTION_SEND && actions->items[i].send.msg.kind == kind)
            return &actions->items[i];
    }
    return NULL;
}

/* Whether its relay is there to hear it. */
static bool told(const struct task *t)
{
    return t->part_count > 0 && t->parts[0].sender;
}

/* A chunk that is whole gives its credit back, a damaged one is asked for again. */
static void scattered(struct sim_world *w, struct cloud_node *node, const struct ts_event_scattered *m,
                      const struct ts_actions *actions)
{
    const struct worker_core *core = cloud_node_core(node);
    struct job *job = take_job(w, node, JOB_SCATTER, m->job);
    if (!job)
        return;
    const struct task *t = task_find(core, job->rid, TS_PHASE_DECODE);
    struct receipt *r = receipt_of(w, node, job->rid, true);
    const struct ts_action *credit = find_send(actions, TS_MSG_KV_CREDIT),
                           *nack = find_send(actions, TS_MSG_KV_NACK);
    if (m->reason == TS_REASON_NONE) {
        uint32_t heads = core->settings.profile.head_end - core->settings.profile.head_begin;
        for (uint32_t h = 0; h < m->digests.count; h++) {
            size_t at = (size_t)job->layer * heads + job->head + h;
            if (at < DIGESTS_MAX)
                r->found[at] ^= m->digests.data[h];
        }
        r->chunks++;
        if (t && told(t) &&
            (!credit || credit->send.msg.kv_credit.bytes != job->bytes ||
             !ts_rid_equal(credit->send.msg.kv_credit.rid, job->rid)))
            cloud_fail(w->cloud, "%s keeps the credit of a chunk of request %llu", cloud_node_id(node),
                       (unsigned long long)job->rid.request);
    } else if (t && told(t) && (!nack || nack->send.msg.kv_nack.chunk != job->chunk)) {
        cloud_fail(w->cloud, "%s does not ask again for a damaged chunk", cloud_node_id(node));
    }
    ts_free(job);
}

static bool verified(const struct receipt *r)
{
    return r && r->ended && r->chunks >= r->chunks_said &&
           memcmp(r->found, r->said, r->said_count * sizeof *r->said) == 0;
}

static void done_sent(struct sim_world *w, const struct cloud_node *node, struct ts_rid rid)
{
    if (!verified(receipt_of(w, node, rid, true)))
        cloud_fail(w->cloud, "%s says that request %llu is verified, and its digests do not agree",
                   cloud_node_id(node), (unsigned long long)rid.request);
}

static void rows_verified(struct sim_world *w, struct cloud_node *node, const struct ts_action_batch *a)
{
    const struct worker_core *core = cloud_node_core(node);
    for (uint32_t i = 0; i < a->rows.count; i++) {
        const struct task *t = task_by_tag(core, a->rows.data[i].tag);
        if (!t || t->role != TS_PHASE_DECODE)
            continue;
        if (!verified(receipt_of(w, node, t->rid, false)))
            cloud_fail(w->cloud, "%s decodes request %llu on KV that was not verified", cloud_node_id(node),
                       (unsigned long long)t->rid.request);
    }
}

/* The youngest gives way: nobody who was accepted clearly later goes on. */
static void preempted(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    const struct worker_core *core = cloud_node_core(node);
    const struct sim_ask *victim = ask_of(w, rid);
    for (const struct task *t = core->lists[TASK_READY].head; victim && t; t = t->alike_next) {
        const struct sim_ask *ask = ask_of(w, t->rid);
        if (ask && ask->live && victim->live && ask->accepted_at > victim->accepted_at + TS_S && !t->in_batch)
            cloud_fail(w->cloud, "%s preempts request %llu before the younger %llu", cloud_node_id(node),
                       (unsigned long long)rid.request, (unsigned long long)t->rid.request);
    }
}

/* While the relay may read its blocks it hears of a Release. */
static void note_told(struct sim_world *w, const struct cloud_node *node, struct ts_rid rid)
{
    struct job_key key = begun_key(node, rid);
    if (!ts_map_get(w->receipts, &key, sizeof key))
        ts_map_put(w->receipts, &key, sizeof key, ts_xcalloc(1, 1));
}

static void released(struct sim_world *w, struct cloud_node *node, struct ts_rid rid,
                     const struct ts_actions *actions)
{
    const struct worker_core *core = cloud_node_core(node);
    struct job_key key = begun_key(node, rid);
    bool told = ts_map_get(w->receipts, &key, sizeof key) != NULL;
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action_send *s = &actions->items[i].send;
        told = told || (actions->items[i].kind == TS_ACTION_SEND && s->channel == TS_CHANNEL_POOL &&
                        s->msg.kind == TS_MSG_RELEASE && ts_rid_equal(s->msg.release.rid, rid));
    }
    if (!told && ts_map_get(w->jobs, &key, sizeof key) && core->pool.session.up)
        cloud_fail(w->cloud, "%s does not tell its relay that request %llu is released", cloud_node_id(node),
                   (unsigned long long)rid.request);
}

/* Text streams are opened and closed. */
static void text(struct sim_world *w, struct cloud_node *node, uint64_t tag, bool open)
{
    struct job_key key = key_of(node, JOB_TEXT, tag);
    if (open)
        new_job(w, &key, 0);
    else
        ts_free(ts_map_remove(w->jobs, &key, sizeof key));
}

uint32_t sim_texts_open(struct sim_world *w, const struct cloud_node *node)
{
    const void *key;
    size_t bytes;
    uint32_t count = 0;
    for (size_t cursor = 0; ts_map_next(w->jobs, &cursor, &key, &bytes);) {
        struct job_key k;
        if (bytes != sizeof k)
            continue;
        memcpy(&k, key, sizeof k);
        count += k.node == node && k.kind == JOB_TEXT;
    }
    return count;
}

/* Work that nobody does. */
static void look_for_work(struct sim_world *w, const struct cloud_node *node)
{
    const struct worker_core *core = cloud_node_core(node);
    if (core->running == 0 && (core->lists[TASK_READY].count > 0 || core->lists[TASK_PREFILLING].count > 0))
        cloud_fail(w->cloud, "%s stands still with %u sequences and %u prompts", cloud_node_id(node),
                   core->lists[TASK_READY].count, core->lists[TASK_PREFILLING].count);
    if (ts_map_count(core->tasks) > core->settings.requests_max)
        cloud_fail(w->cloud, "%s has %zu requests", cloud_node_id(node), ts_map_count(core->tasks));
}

/* --- what is said to the router ---------------------------------------------------------------------- */

static void output_sent(struct sim_world *w, const struct cloud_node *node, const struct ts_msg_output *m)
{
    const struct sim_ask *ask = m->rid.router == w->router_incarnation && m->rid.request < SIM_NUMBERS_MAX
                                    ? w->by_number[m->rid.request]
                                    : NULL;
    for (uint32_t i = 0; ask && i < m->items.count; i++) {
        uint32_t index = m->first_index + i;
        if (index >= ask->count || m->items.data[i].token != ask->tokens[index])
            cloud_fail(w->cloud, "%s sends token %u of request %llu wrong", cloud_node_id(node), index,
                       (unsigned long long)m->rid.request);
    }
    if (ask && m->finish != TS_FINISH_NONE &&
        (m->finish != ask->finish || m->first_index + m->items.count != ask->count))
        cloud_fail(w->cloud, "%s ends request %llu with %s after %u tokens", cloud_node_id(node),
                   (unsigned long long)m->rid.request, ts_finish_name(m->finish),
                   m->first_index + m->items.count);
}

static bool lists(const struct ts_msg_resync *m, struct ts_rid rid)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        if (ts_rid_equal(m->items.data[i].rid, rid))
            return true;
    }
    return false;
}

/* All that it has of this router, with what it has; or had, if it says in the same step that this fails. */
static void resync_sent(struct sim_world *w, struct cloud_node *node, const struct ts_action_send *s,
                        const struct ts_actions *actions)
{
    const struct worker_core *core = cloud_node_core(node);
    uint32_t held = 0;
    for (const struct task *t = core->head; t; t = t->next)
        held += t->state != TASK_DYING && t->router->peer == s->peer;
    for (size_t i = actions->count; i > 0 && &actions->items[i - 1].send != s; i--) {
        const struct ts_action_send *later = &actions->items[i - 1].send;
        held += actions->items[i - 1].kind == TS_ACTION_SEND && later->channel == s->channel &&
                later->peer == s->peer && later->msg.kind == TS_MSG_ATTEMPT_FAILED &&
                lists(&s->msg.resync, later->msg.attempt_failed.rid);
    }
    if (held != s->msg.resync.items.count)
        cloud_fail(w->cloud, "%s lists %u of %u requests", cloud_node_id(node), s->msg.resync.items.count,
                   held);
}

static void on_send(struct sim_world *w, struct cloud_node *node, const struct ts_action_send *s,
                    const struct ts_actions *actions)
{
    switch (s->msg.kind) {
    case TS_MSG_OUTPUT:
        output_sent(w, node, &s->msg.output);
        break;
    case TS_MSG_OUTPUT_BATCH:
        for (uint32_t i = 0; i < s->msg.output_batch.outputs.count; i++)
            output_sent(w, node, &s->msg.output_batch.outputs.data[i]);
        break;
    case TS_MSG_RESYNC:
        resync_sent(w, node, s, actions);
        break;
    case TS_MSG_KV_BEGIN:
        lend(w, node, &s->msg.kv_begin);
        break;
    case TS_MSG_RELEASE:
        note_told(w, node, s->msg.release.rid);
        break;
    case TS_MSG_KV_DONE:
        done_sent(w, node, s->msg.kv_done.rid);
        break;
    case TS_MSG_ATTEMPT_FAILED:
        if (s->msg.attempt_failed.reason == TS_REASON_PREEMPTED)
            preempted(w, node, s->msg.attempt_failed.rid);
        if (!w->faulty && cloud_now(w->cloud) > TS_S && s->msg.attempt_failed.reason != TS_REASON_PREEMPTED &&
            s->msg.attempt_failed.reason != TS_REASON_CANCELLED &&
            s->msg.attempt_failed.reason != TS_REASON_KV_NO_MEMORY && !s->msg.attempt_failed.final)
            cloud_fail(w->cloud, "%s fails an attempt with %s where nothing goes wrong", cloud_node_id(node),
                       ts_reason_name(s->msg.attempt_failed.reason));
        break;
    case TS_MSG_RESET: /* a link that its relay has closed may still bring what was under way */
        if (!w->faulty && !cloud_peer_closed(node, s->channel, s->peer))
            cloud_fail(w->cloud, "%s ends a session where nothing goes wrong", cloud_node_id(node));
        break;
    default:
        break;
    }
}

/* --- what may begin ---------------------------------------------------------------------------------- */

static void assigned(struct sim_world *w, struct cloud_node *node, struct sim_worker *was,
                     const struct ts_msg_assign *a)
{
    const struct worker_core *core = cloud_node_core(node);
    const struct task *t = task_find(core, a->rid, a->role);
    bool newer =
        a->rid.router != was->router || a->term > was->term || (a->term == was->term && a->plan >= was->plan);
    if (!t || t->arrived_at != cloud_now(w->cloud))
        return;
    if (was->draining)
        cloud_fail(w->cloud, "%s takes request %llu although it drains", cloud_node_id(node),
                   (unsigned long long)a->rid.request);
    if ((was->phase & a->role) != a->role)
        cloud_fail(w->cloud, "%s takes request %llu of another phase", cloud_node_id(node),
                   (unsigned long long)a->rid.request);
    if (!newer)
        cloud_fail(w->cloud, "%s takes request %llu of plan %llu.%llu after %llu.%llu", cloud_node_id(node),
                   (unsigned long long)a->rid.request, (unsigned long long)a->term,
                   (unsigned long long)a->plan, (unsigned long long)was->term, (unsigned long long)was->plan);
    was->router = a->rid.router;
    was->term = a->term;
    was->plan = a->plan;
}

/* A transfer that means somebody else, or another layout, gets no memory. */
static void opened(struct sim_world *w, struct cloud_node *node, const struct ts_msg_kv_open *m)
{
    const struct worker_core *core = cloud_node_core(node);
    const struct task *t = task_find(core, m->rid, TS_PHASE_DECODE);
    if (t && t->state == TASK_GRANT_WAIT && t->waiting_since == cloud_now(w->cloud) &&
        m->decode_incarnation != t->router->session.self)
        cloud_fail(w->cloud, "%s opens a transfer that means another incarnation", cloud_node_id(node));
}

static void look_at_leases(struct sim_world *w, struct cloud_node *node, struct sim_worker *was)
{
    const struct worker_core *core = cloud_node_core(node);
    const struct router_link *link = &core->routers[0];
    ts_time now = cloud_now(w->cloud);
    if (link->session.up)
        was->router_lost_at = TS_TIME_NEVER;
    else if (was->router_lost_at == TS_TIME_NEVER)
        was->router_lost_at = now;
    bool lost = was->router_lost_at != TS_TIME_NEVER &&
                now - was->router_lost_at > core->settings.router_lost_ms * TS_MS + LOST_SLACK;
    for (const struct task *t = core->head; t; t = t->next) {
        if (t->state == TASK_FINISHED && t->block_count > 0 && !t->in_batch)
            cloud_fail(w->cloud, "%s keeps blocks of request %llu, which is finished", cloud_node_id(node),
                       (unsigned long long)t->rid.request);
        if (lost && t->state != TASK_DYING)
            cloud_fail(w->cloud, "%s keeps request %llu of a router that is lost", cloud_node_id(node),
                       (unsigned long long)t->rid.request);
        if (t->state == TASK_GRANT_WAIT &&
            now - t->waiting_since > core->settings.grant_wait_ms * TS_MS + TS_S)
            cloud_fail(w->cloud, "request %llu waits for memory of %s without end",
                       (unsigned long long)t->rid.request, cloud_node_id(node));
    }
}

static void on_message(struct sim_world *w, struct cloud_node *node, struct sim_worker *was,
                       const struct ts_event_message *m, const struct ts_actions *actions)
{
    const struct worker_core *core = cloud_node_core(node);
    const struct kv_peer *peer;
    if (m->msg.kind == TS_MSG_ASSIGN && w->delivered)
        assigned(w, node, was, &m->msg.assign);
    else if (m->msg.kind == TS_MSG_KV_OPEN)
        opened(w, node, &m->msg.kv_open);
    else if (m->msg.kind == TS_MSG_RELEASE && m->channel == TS_CHANNEL_POOL)
        note_told(w, node, m->msg.release.rid);
    else if (m->msg.kind == TS_MSG_RELEASE && w->delivered && core->routers[0].session.up &&
             core->routers[0].session.id == m->envelope.session)
        released(w, node, m->msg.release.rid, actions);
    else if (m->msg.kind == TS_MSG_KV_END && w->delivered)
        end_came(w, node, &m->msg.kv_end);
    else if (m->msg.kind == TS_MSG_KV_FREED && w->delivered)
        given_back(w, node, m->msg.kv_freed.rid);
    if (m->channel == TS_CHANNEL_WORKER)
        sim_session_check(w, node, m->channel, m->peer, &core->routers[0].session);
    else if (m->channel == TS_CHANNEL_POOL)
        sim_session_check(w, node, m->channel, m->peer, &core->pool.session);
    else if ((peer = ts_map_get_u64(core->kv_peers, m->peer)))
        sim_session_check(w, node, m->channel, m->peer, &peer->session);
}

static void look_at_lives(struct sim_world *w, struct cloud_node *node, struct sim_worker *was)
{
    const struct worker_core *core = cloud_node_core(node);
    struct sim_blocks *b = blocks_of(w, node);
    if (b->incarnation != core->incarnation) {
        forget_jobs(w, node, false);
        *b = (struct sim_blocks){.incarnation = core->incarnation};
        *was = (struct sim_worker){.phase = core->settings.profile.phase, .router_lost_at = TS_TIME_NEVER};
    }
    uint64_t session = core->pool.session.up ? core->pool.session.id : 0;
    if (session != b->pool_session) {
        forget_jobs(w, node, true);
        memset(b->lent, 0, sizeof b->lent);
    }
    b->pool_session = session;
}

void sim_see_worker(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    const struct worker_core *core = cloud_node_core(node);
    struct sim_worker *was = &w->workers[sim_index_of(w, node)];
    look_at_lives(w, node, was);
    if (event->kind == TS_EVENT_MESSAGE)
        on_message(w, node, was, &event->message, actions);
    else if (event->kind == TS_EVENT_SCATTERED)
        scattered(w, node, &event->scattered, actions);
    else if (event->kind == TS_EVENT_BATCH_DONE)
        batch_ends(w, node, &event->batch_done);
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_SEND) {
            on_send(w, node, &a->send, actions);
        } else if (a->kind == TS_ACTION_FREE_BLOCKS) {
            freed(w, node, a->free_blocks.blocks);
        } else if (a->kind == TS_ACTION_TEXT_OPEN || a->kind == TS_ACTION_TEXT_CLOSE) {
            bool opens = a->kind == TS_ACTION_TEXT_OPEN;
            text(w, node, opens ? a->text_open.tag : a->text_close.tag, opens);
        } else if (a->kind == TS_ACTION_SCATTER) {
            scatter_begins(w, node, &a->scatter, event);
        } else if (a->kind == TS_ACTION_BATCH) {
            rows_verified(w, node, &a->batch);
            batch_begins(w, node, &a->batch);
        }
    }
    look_at_leases(w, node, was);
    look_for_work(w, node);
    was->draining = core->draining;
    was->phase = core->settings.profile.phase;
}

static const int states[TASK_STATES] = {
    [TASK_TOKENISING] = SIM_AT_p_tokenising, [TASK_WAITING] = SIM_AT_p_waiting,
    [TASK_PREFILLING] = SIM_AT_p_prefilling, [TASK_SEALED] = SIM_AT_p_sealed,
    [TASK_ASSIGNED] = SIM_AT_d_assigned,     [TASK_GRANT_WAIT] = SIM_AT_d_grant_wait,
    [TASK_RECEIVING] = SIM_AT_d_receiving,   [TASK_READY] = SIM_AT_d_ready,
    [TASK_FINISHED] = SIM_AT_d_finished,     [TASK_SUSPENDED] = SIM_AT_d_suspended,
};

int sim_task_state(const struct cloud_node *node, struct ts_rid rid, enum ts_phase role)
{
    const struct worker_core *core = cloud_node_core(node);
    for (const struct task *t = core ? core->head : NULL; t; t = t->next) {
        if (ts_rid_equal(t->rid, rid) && t->role == role && t->state != TASK_DYING)
            return states[t->state];
    }
    return -1;
}

/* A task in that state, whatever its attempt. */
bool sim_task_in(const struct cloud_node *node, enum sim_state state, struct ts_rid *rid)
{
    static const struct {
        enum task_state state;
        enum ts_phase role;
    } of[SIM_STATE_COUNT] = {
        [SIM_AT_c_tokenising] = {TASK_TOKENISING, TS_PHASE_BOTH},
        [SIM_AT_c_waiting] = {TASK_WAITING, TS_PHASE_BOTH},
        [SIM_AT_c_prefilling] = {TASK_PREFILLING, TS_PHASE_BOTH},
        [SIM_AT_c_ready] = {TASK_READY, TS_PHASE_BOTH},
        [SIM_AT_p_tokenising] = {TASK_TOKENISING, TS_PHASE_PREFILL},
        [SIM_AT_p_waiting] = {TASK_WAITING, TS_PHASE_PREFILL},
        [SIM_AT_p_prefilling] = {TASK_PREFILLING, TS_PHASE_PREFILL},
        [SIM_AT_p_sealed] = {TASK_SEALED, TS_PHASE_PREFILL},
        [SIM_AT_p_dying] = {TASK_DYING, TS_PHASE_PREFILL},
        [SIM_AT_d_assigned] = {TASK_ASSIGNED, TS_PHASE_DECODE},
        [SIM_AT_d_grant_wait] = {TASK_GRANT_WAIT, TS_PHASE_DECODE},
        [SIM_AT_d_receiving] = {TASK_RECEIVING, TS_PHASE_DECODE},
        [SIM_AT_d_suspended] = {TASK_SUSPENDED, TS_PHASE_DECODE},
        [SIM_AT_d_ready] = {TASK_READY, TS_PHASE_DECODE},
        [SIM_AT_d_finished] = {TASK_FINISHED, TS_PHASE_DECODE},
        [SIM_AT_d_dying] = {TASK_DYING, TS_PHASE_DECODE},
    };
    const struct worker_core *core = cloud_node_core(node);
    for (const struct task *t = core ? core->lists[of[state].state].head : NULL; t; t = t->alike_next) {
        if (t->role == of[state].role) {
            *rid = t->rid;
            return true;
        }
    }
    return false;
}

enum ts_phase sim_phase(const struct cloud_node *node)
{
    const struct worker_core *core = cloud_node_core(node);
    return core->settings.profile.phase;
}

uint32_t sim_dying(const struct cloud_node *node, enum ts_phase role)
{
    const struct worker_core *core = cloud_node_core(node);
    uint32_t count = 0;
    for (const struct task *t = core ? core->head : NULL; t; t = t->next)
        count += t->state == TASK_DYING && t->role == role;
    return count;
}

void sim_worker_books_free(struct sim_world *w)
{
    void *value;
    for (size_t cursor = 0; (value = ts_map_next(w->jobs, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(w->receipts, &cursor, NULL, NULL));)
        ts_free(value);
    ts_map_destroy(&w->jobs);
    ts_map_destroy(&w->receipts);
}
