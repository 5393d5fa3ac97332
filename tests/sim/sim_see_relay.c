/*
 * The books of the harness about relays: credit, blocks that an encode still reads, copies.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"
#include "tests/sim/sim_impl.h"

#define OPEN_SLACK TS_S
#define TRIES_KEPT 256
#define HAVE_KEPT  4096
#define TRIES_MAX  3
#define ORPHANS    (7 * TS_S)

struct key {
    const struct cloud_node *node;
    uint64_t router, request, attempt;
};

struct transfer_book {
    uint64_t window, sent, credited, chunks; /* chunks: sent at least once */
    uint64_t incarnation;
    uint8_t tries[TRIES_KEPT];     /* of the first chunks */
    uint64_t have[HAVE_KEPT / 64]; /* chunks that decode has credited, or said it has */
    ts_time orphan_since;          /* its attempt is not the present one */
    bool done;                     /* decode has said so */
};

static struct transfer_book *book_of(struct sim_world *w, const struct cloud_node *node, struct ts_rid rid)
{
    const struct relay_core *core = cloud_node_core(node);
    struct key key = {node, rid.router, rid.request, rid.attempt};
    struct transfer_book *b = ts_map_get(w->transfers, &key, sizeof key);
    if (!b) {
        b = ts_xcalloc(1, sizeof *b);
        ts_map_put(w->transfers, &key, sizeof key, b);
    }
    if (b->incarnation != core->incarnation)
        *b = (struct transfer_book){.incarnation = core->incarnation};
    return b;
}

static bool has(const struct transfer_book *b, uint64_t chunk)
{
    return chunk < HAVE_KEPT && (b->have[chunk / 64] >> chunk % 64 & 1);
}

/* Each chunk is credited once. */
static void credited(struct transfer_book *b, const struct ts_msg_kv_credit *m)
{
    uint64_t chunk = m->chunk - 1;
    if (has(b, chunk))
        return;
    b->credited += m->bytes;
    if (chunk < HAVE_KEPT)
        b->have[chunk / 64] |= (uint64_t)1 << chunk % 64;
}

/* In another session it goes on from what decode has. */
static void granted(struct transfer_book *b, const struct ts_msg_kv_grant *m)
{
    b->window = m->credit_bytes;
    b->sent = b->credited = b->chunks = 0;
    memset(b->have, 0, sizeof b->have);
    for (uint32_t i = 0; i < m->have.count && i < HAVE_KEPT / 64; i++)
        b->have[i] = m->have.data[i];
}

static void chunk_sent(struct sim_world *w, struct cloud_node *node, const struct ts_action_send *s)
{
    struct transfer_book *b = book_of(w, node, s->msg.kv_chunk.rid);
    uint64_t bytes = s->bulk.bytes, under_way = b->sent - b->credited;
    while (b->chunks < s->msg.kv_chunk.number && has(b, b->chunks))
        b->chunks++;
    if (s->msg.kv_chunk.number < TRIES_KEPT)
        b->tries[s->msg.kv_chunk.number]++;
    if (s->msg.kv_chunk.number < b->chunks) /* again: its credit is still out */
        return;
    const struct transfer *t = transfer_find(cloud_node_core(node), s->msg.kv_chunk.rid);
    while (t && b->chunks < s->msg.kv_chunk.number && chunk_there(t, &t->chunks[b->chunks]))
        b->chunks++; /* decode has that */
    if (s->msg.kv_chunk.number > b->chunks)
        cloud_fail(w->cloud, "%s leaves out chunk %llu", cloud_node_id(node), (unsigned long long)b->chunks);
    if (under_way > 0 && under_way + bytes > b->window)
        cloud_fail(w->cloud, "%s sends %llu bytes beyond its credit of %llu", cloud_node_id(node),
                   (unsigned long long)(under_way + bytes), (unsigned long long)b->window);
    b->chunks++;
    b->sent += bytes;
}

/* What the relay believes to be under way is what it sent and got no credit for. */
static void compare_credit(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    const struct transfer *t = transfer_find(cloud_node_core(node), rid);
    const struct transfer_book *b = book_of(w, node, rid);
    if (t && t->state == TRANSFER_STREAMING && t->in_flight != b->sent - b->credited)
        cloud_fail(w->cloud, "%s counts %llu bytes of request %llu under way, there are %llu",
                   cloud_node_id(node), (unsigned long long)t->in_flight, (unsigned long long)rid.request,
                   (unsigned long long)(b->sent - b->credited));
}

static void on_link(struct sim_world *w, struct cloud_node *node, const struct ts_event_message *m)
{
    const struct relay_core *core = cloud_node_core(node);
    const struct link *link = ts_map_get_u64(core->link_peers, m->peer);
    if (!link)
        return;
    sim_session_check(w, node, m->channel, m->peer, &link->session);
    if (!w->delivered)
        return;
    if (m->msg.kind == TS_MSG_KV_GRANT) {
        const struct transfer *t = transfer_find(core, m->msg.kv_grant.rid);
        if (!t || t->link == link)
            granted(book_of(w, node, m->msg.kv_grant.rid), &m->msg.kv_grant);
    } else if (m->msg.kind == TS_MSG_KV_CREDIT) {
        credited(book_of(w, node, m->msg.kv_credit.rid), &m->msg.kv_credit);
    }
}

static bool older_or_same(struct ts_rid a, struct ts_rid b)
{
    return a.router == b.router && a.request == b.request && a.attempt <= b.attempt;
}

/* What the router has released is neither sent nor kept. */
static void released(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    const struct relay_core *core = cloud_node_core(node);
    const struct transfer *t;
    if (transfer_find(core, rid))
        cloud_fail(w->cloud, "%s goes on with the released request %llu", cloud_node_id(node),
                   (unsigned long long)rid.request);
    for (size_t cursor = 0; (t = ts_map_next(core->copies, &cursor, NULL, NULL));) {
        if (older_or_same(t->rid, rid))
            cloud_fail(w->cloud, "%s keeps a copy of the released request %llu", cloud_node_id(node),
                       (unsigned long long)rid.request);
    }
}

/* Who drains begins nothing new. */
static void begun(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    const struct transfer *t = transfer_find(cloud_node_core(node), rid);
    if (t && t->began_at == cloud_now(w->cloud) && w->workers[sim_index_of(w, node)].draining)
        cloud_fail(w->cloud, "%s takes request %llu although it drains", cloud_node_id(node),
                   (unsigned long long)rid.request);
}

static void on_message(struct sim_world *w, struct cloud_node *node, const struct ts_event_message *m)
{
    const struct relay_core *core = cloud_node_core(node);
    struct sim_worker *was = &w->workers[sim_index_of(w, node)];
    if (was->life != core->incarnation)
        *was = (struct sim_worker){.life = core->incarnation};
    if (m->msg.kind == TS_MSG_KV_BEGIN)
        begun(w, node, m->msg.kv_begin.rid);
    if (m->msg.kind == TS_MSG_KV_DONE && w->delivered)
        book_of(w, node, m->msg.kv_done.rid)->done = true;
    const struct pool *pool;
    if (m->channel == TS_CHANNEL_KV) {
        on_link(w, node, m);
    } else if (m->channel == TS_CHANNEL_POOL) {
        pool = ts_map_get_u64(core->pools, m->peer);
        if (pool)
            sim_session_check(w, node, m->channel, m->peer, &pool->session);
    } else if (m->peer >= 1 && m->peer <= core->settings.router_count) {
        const struct ts_session *session = &core->routers[m->peer - 1].session;
        sim_session_check(w, node, m->channel, m->peer, session);
        bool taken =
            session->up && m->envelope.session == session->id && m->envelope.seq + 1 == session->rx_next;
        if (m->msg.kind == TS_MSG_RELEASE && taken)
            released(w, node, m->msg.release.rid);
    }
}

/* The blocks of an attempt are free for their worker once nothing reads them. */
static void freed_sent(struct sim_world *w, struct cloud_node *node, struct ts_rid rid)
{
    const struct relay_core *core = cloud_node_core(node);
    const struct encode *e;
    for (size_t cursor = 0; (e = ts_map_next(core->encodes, &cursor, NULL, NULL));) {
        if (ts_rid_equal(e->transfer->rid, rid))
            cloud_fail(w->cloud, "%s gives back blocks of request %llu while it reads them",
                       cloud_node_id(node), (unsigned long long)rid.request);
    }
}

static bool sent_abort(const struct ts_actions *actions, struct ts_rid rid)
{
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action_send *s = &actions->items[i].send;
        if (actions->items[i].kind == TS_ACTION_SEND && s->msg.kind == TS_MSG_KV_ABORT &&
            ts_rid_equal(s->msg.kv_abort.rid, rid))
            return true;
    }
    return false;
}

/* A damaged chunk goes again, three times in all; also if a lease ends the transfer in the same step. */
static void check_again(struct sim_world *w, struct cloud_node *node, const struct ts_msg_kv_nack *m,
                        const struct ts_actions *actions)
{
    const struct transfer *t = transfer_find(cloud_node_core(node), m->rid);
    const struct transfer_book *b = book_of(w, node, m->rid);
    bool again = false, known = m->chunk < TRIES_KEPT && m->chunk < b->chunks;
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action_send *s = &actions->items[i].send;
        again = again || (actions->items[i].kind == TS_ACTION_SEND && s->msg.kind == TS_MSG_KV_CHUNK &&
                          s->msg.kv_chunk.number == m->chunk && ts_rid_equal(s->msg.kv_chunk.rid, m->rid));
    }
    bool ended = !t && sent_abort(actions, m->rid);
    bool flows = t && (t->state == TRANSFER_STREAMING || t->state == TRANSFER_FLUSHING);
    if (known && !again && (flows || (ended && b->tries[m->chunk] < TRIES_MAX)))
        cloud_fail(w->cloud, "%s does not send chunk %llu of request %llu again", cloud_node_id(node),
                   (unsigned long long)m->chunk, (unsigned long long)m->rid.request);
}

/* What the router has given up does not stay. */
static void look_for_orphans(struct sim_world *w, struct cloud_node *node)
{
    const struct relay_core *core = cloud_node_core(node);
    ts_time now = cloud_now(w->cloud);
    ts_time most =
        ORPHANS + 2 * core->settings.open_retry_ms * TS_MS; /* once more where a session was lost */
    for (const struct transfer *t = core->live.head; t; t = t->near[LIST_ALL].next) {
        struct transfer_book *b = book_of(w, node, t->rid);
        const struct sim_ask *ask = t->rid.router == w->router_incarnation && t->rid.request < SIM_NUMBERS_MAX
                                        ? w->by_number[t->rid.request]
                                        : NULL;
        if (ask && ask->live && ask->attempts == t->rid.attempt)
            b->orphan_since = 0;
        else if (!b->orphan_since)
            b->orphan_since = now;
        else if (now - b->orphan_since > most && now > w->last_fault + ORPHANS)
            cloud_fail(w->cloud, "%s still sends request %llu, which nobody wants", cloud_node_id(node),
                       (unsigned long long)t->rid.request);
    }
}

/* Nor do chunks wait for a connection of which nothing comes back. */
static void look_at_lanes(struct sim_world *w, struct cloud_node *node, const struct link *link)
{
    for (uint32_t i = 1; i < RELAY_LANES_MAX; i++) {
        const struct lane *lane = &link->lanes[i];
        if (lane->under_way > 0 &&
            cloud_now(w->cloud) - lane->moved_at > 2 * link->session.timeout_ns + OPEN_SLACK)
            cloud_fail(w->cloud, "%s waits for %llu bytes on a connection that failed", cloud_node_id(node),
                       (unsigned long long)lane->under_way);
    }
}

static void look_at_leases(struct sim_world *w, struct cloud_node *node)
{
    const struct relay_core *core = cloud_node_core(node);
    const struct link *link;
    ts_time idle = core->settings.idle_link_ms * TS_MS + OPEN_SLACK;
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        if (link->transfers == 0 && cloud_now(w->cloud) - link->idle_since > idle)
            cloud_fail(w->cloud, "%s keeps a link that nobody uses", cloud_node_id(node));
        look_at_lanes(w, node, link);
    }
    if (core->flowing.head && ts_map_count(core->encodes) == 0)
        cloud_fail(w->cloud, "%s stands still: KV is to be encoded", cloud_node_id(node));
    for (const struct transfer *t = core->live.head; t; t = t->near[LIST_ALL].next) {
        if (t->state == TRANSFER_STREAMING && t->chunk_sent < t->chunk_count && t->in_flight == 0)
            cloud_fail(w->cloud, "%s stands still: chunks are to be sent", cloud_node_id(node));
    }
    for (const struct transfer *t = core->opening.head; t; t = t->near[LIST_OPENING].next) {
        if (cloud_now(w->cloud) > t->open_until + OPEN_SLACK)
            cloud_fail(w->cloud, "%s tries to open request %llu without end", cloud_node_id(node),
                       (unsigned long long)t->rid.request);
    }
    if (ts_map_count(core->encodes) > core->settings.encode_jobs_max)
        cloud_fail(w->cloud, "%s encodes %zu chunks at a time", cloud_node_id(node),
                   ts_map_count(core->encodes));
}

/* KV is at decode once decode has said so: told then, and to the router that asks for it again. */
static void done_told(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                      struct ts_rid rid)
{
    const struct ts_msg *m = event->kind == TS_EVENT_MESSAGE ? &event->message.msg : NULL;
    bool now = m && m->kind == TS_MSG_KV_DONE && ts_rid_equal(m->kv_done.rid, rid);
    bool asked = m && m->kind == TS_MSG_REFEED && ts_rid_equal(m->refeed.rid, rid);
    if (!(now || asked) || !book_of(w, node, rid)->done)
        cloud_fail(w->cloud, "%s says that request %llu is at decode, which has not said so",
                   cloud_node_id(node), (unsigned long long)rid.request);
}

static void on_send(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_action_send *s)
{
    switch (s->msg.kind) {
    case TS_MSG_KV_CHUNK:
        chunk_sent(w, node, s);
        break;
    case TS_MSG_KV_FREED:
        freed_sent(w, node, s->msg.kv_freed.rid);
        break;
    case TS_MSG_TRANSFER:
        if (s->msg.transfer.reason == TS_REASON_NONE)
            done_told(w, node, event, s->msg.transfer.rid);
        break;
    case TS_MSG_RESET:
        if (!w->faulty)
            cloud_fail(w->cloud, "%s ends a session where nothing goes wrong", cloud_node_id(node));
        break;
    default:
        break;
    }
}

void sim_see_relay(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                   const struct ts_actions *actions)
{
    if (event->kind == TS_EVENT_MESSAGE)
        on_message(w, node, &event->message);
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_SEND)
            on_send(w, node, event, &a->send);
    }
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_KV_CHUNK)
            compare_credit(w, node, a->send.msg.kv_chunk.rid);
    }
    if (event->kind == TS_EVENT_MESSAGE && event->message.msg.kind == TS_MSG_KV_CREDIT)
        compare_credit(w, node, event->message.msg.kv_credit.rid);
    if (event->kind == TS_EVENT_MESSAGE && event->message.msg.kind == TS_MSG_KV_NACK && w->delivered &&
        event->message.msg.kv_nack.chunk != UINT64_MAX)
        check_again(w, node, &event->message.msg.kv_nack, actions);
    w->workers[sim_index_of(w, node)].draining = ((const struct relay_core *)cloud_node_core(node))->draining;
    look_at_leases(w, node);
    if (event->kind == TS_EVENT_TICK)
        look_for_orphans(w, node);
}

int sim_transfer_state(const struct cloud_node *node, struct ts_rid rid)
{
    static const int states[] = {
        [TRANSFER_OPENING] = SIM_AT_t_opening,     [TRANSFER_WAIT_GRANT] = SIM_AT_t_wait_grant,
        [TRANSFER_STREAMING] = SIM_AT_t_streaming, [TRANSFER_FLUSHING] = SIM_AT_t_flushing,
        [TRANSFER_RETAINED] = SIM_AT_t_retained,   [TRANSFER_OVER] = SIM_AT_t_over,
    };
    const struct relay_core *core = cloud_node_core(node);
    const struct transfer *t = core ? transfer_find(core, rid) : NULL;
    if (t)
        return states[t->state];
    for (size_t cursor = 0; core && (t = ts_map_next(core->copies, &cursor, NULL, NULL));) {
        if (ts_rid_equal(t->rid, rid))
            return SIM_AT_t_retained;
    }
    return -1;
}

bool sim_transfer_in(const struct cloud_node *node, enum sim_state state, struct ts_rid *rid)
{
    const struct relay_core *core = cloud_node_core(node);
    const struct transfer *t;
    for (t = core ? core->live.head : NULL; t; t = t->near[LIST_ALL].next) {
        if (sim_transfer_state(node, t->rid) == (int)state)
            break;
    }
    if (!t && core && state == SIM_AT_t_over)
        t = core->over.head;
    if (!t && core && state == SIM_AT_t_retained && core->copy_count > 0)
        t = core->cheapest[0];
    if (t)
        *rid = t->rid;
    return t != NULL;
}

uint32_t sim_over(const struct cloud_node *node, struct cloud_node **owners, uint32_t most)
{
    const struct relay_core *core = cloud_node_core(node);
    uint32_t count = 0;
    for (const struct transfer *t = core ? core->over.head : NULL; t && count < most;
         t = t->near[LIST_ALL].next)
        owners[count++] = t->pool ? cloud_peer_of(node, TS_CHANNEL_POOL, t->pool->peer) : NULL;
    return count;
}

void sim_relay_books_free(struct sim_world *w)
{
    void *value;
    for (size_t cursor = 0; (value = ts_map_next(w->transfers, &cursor, NULL, NULL));)
        ts_free(value);
    ts_map_destroy(&w->transfers);
}
