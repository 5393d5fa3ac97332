/*
 * The books of the harness about the router: which requests are under way there, for how long they may be,
 * what it owes to whom. They are kept from what goes in and out, and compared with the core's own sums;
 * sim_look_router.c compares them with its tables.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "services/router/router_impl.h"
#include "tests/sim/sim_impl.h"

/* --- requests come ----------------------------------------------------------------------------------- */

static void accepted(struct sim_world *w, struct sim_ask *ask, const struct record *r,
                     const struct ts_event_message *m)
{
    const struct router_settings *s = &w->script.router;
    ts_time now = cloud_now(w->cloud);
    const char *why = w->live >= s->queue_max                            ? "the queue is full"
                      : w->client_live[ask->client] >= s->per_client_max ? "its client has too many"
                      : w->held + ask->bytes > s->held_bytes_max         ? "its prompt is too much"
                                                                         : NULL;
    if (why)
        cloud_fail(w->cloud, "%.*s is accepted although %s", (int)m->msg.generate.request_id.count,
                   m->msg.generate.request_id.data, why);
    if (r->number >= SIM_NUMBERS_MAX) {
        cloud_fail(w->cloud, "the harness counts requests up to %u only", SIM_NUMBERS_MAX);
        return;
    }
    w->by_number[r->number] = ask;
    w->live++;
    w->held += ask->bytes;
    w->client_live[ask->client]++;
    ask->live = true;
    ask->cancel_heard = false;
    ask->rid_number = r->number;
    ask->accepted_at = ask->waiting_since = now;
    ask->deadline = m->msg.generate.remaining_ms ? now + m->msg.generate.remaining_ms * TS_MS : TS_TIME_NEVER;
    ask->attempts = ask->blamed = ask->short_of_memory = ask->copy_given_up = ask->refed = 0;
    ask->feeder = NULL;
    memset(ask->holder, 0, sizeof ask->holder);
    memset(ask->missing_since, 0, sizeof ask->missing_since);
}

/* A refusal needs its reason, by the books as they were before this message. */
static void refused(struct sim_world *w, const struct sim_ask *ask, enum ts_reason reason)
{
    const struct router_settings *s = &w->script.router;
    bool right = reason == TS_REASON_QUEUE_FULL     ? w->live >= s->queue_max
                 : reason == TS_REASON_CLIENT_LIMIT ? w->client_live[ask->client] >= s->per_client_max
                 : reason == TS_REASON_MEMORY_FULL  ? w->held + ask->bytes > s->held_bytes_max
                                                    : reason == TS_REASON_OVERLOADED;
    if (!right)
        cloud_fail(w->cloud, "client%u r%u is refused with %s: %u live, %u of its client, %llu bytes",
                   ask->client, ask->number, ts_reason_name(reason), w->live, w->client_live[ask->client],
                   (unsigned long long)w->held);
}

static void on_client(struct sim_world *w, const struct router_core *core, const struct ts_event_message *m)
{
    if (m->peer < SIM_PEERS_MAX)
        w->heard[m->peer] = cloud_now(w->cloud);
    struct sim_ask *ask = NULL;
    if (m->msg.kind == TS_MSG_GENERATE)
        ask = sim_ask_of(w, m->msg.generate.client, m->msg.generate.request_id);
    else if (m->msg.kind == TS_MSG_CANCEL)
        ask = sim_ask_of(w, m->msg.cancel.client, m->msg.cancel.request_id);
    if (!ask)
        return;
    if (m->msg.kind == TS_MSG_CANCEL) {
        ask->cancel_heard = true;
        return;
    }
    const struct record *r = record_find(core, m->msg.generate.client, m->msg.generate.request_id);
    ask->asked_at = cloud_now(w->cloud);
    ask->peer = m->peer;
    ask->lost_at = TS_TIME_NEVER;
    if (r && r->number != ask->rid_number)
        accepted(w, ask, r, m);
}

/* --- requests end ------------------------------------------------------------------------------------ */

static bool true_end(const struct sim_world *w, const struct sim_ask *ask, const struct ts_trace *t)
{
    ts_time now = cloud_now(w->cloud);
    switch (t->finish) {
    case TS_FINISH_STOP:
    case TS_FINISH_LENGTH:
        return (t->finish == ask->finish ||
                (!t->attempts && t->output_tokens == ask->as_sent.sampling.max_tokens)) &&
               t->output_tokens == ask->count && t->reason == TS_REASON_NONE;
    case TS_FINISH_CANCELLED:
        return t->reason == TS_REASON_CLIENT_LOST ? now - ask->asked_at >= sim_reattach_ms(w, ask) * TS_MS
                                                  : t->reason == TS_REASON_CANCELLED && ask->cancel_heard;
    case TS_FINISH_DEADLINE:
        return now >= ask->deadline;
    default:
        break;
    }
    if (t->reason == TS_REASON_RETRIES)
        return ask->attempts >= w->script.router.max_attempts;
    if (t->reason == TS_REASON_NO_WORKER)
        return now - ask->accepted_at >= w->script.router.no_worker_ms * TS_MS;
    return t->reason == TS_REASON_PROMPT_TOO_LONG && ask->finish == TS_FINISH_ERROR;
}

static void owed(struct sim_world *w, struct sim_ask *ask, const struct router_core *core)
{
    for (int role = 0; role < 2; role++) {
        const struct cloud_node *node = ask->holder[role];
        struct member *m = node ? member_find(core, TS_ROLE_WORKER, cloud_node_id(node)) : NULL;
        if (m && m->session.up && m->synced && m->session.id == ask->holder_session[role])
            cloud_fail(w->cloud, "the router does not release request %llu at %s",
                       (unsigned long long)ask->rid_number, cloud_node_id(node));
        ask->holder[role] = NULL;
    }
    const struct member *relay =
        ask->feeder ? member_find(core, TS_ROLE_RELAY, cloud_node_id(ask->feeder)) : NULL;
    if (relay && relay->session.up && relay->session.id == ask->feeder_session)
        cloud_fail(w->cloud, "the router does not release request %llu at %s, which feeds it",
                   (unsigned long long)ask->rid_number, relay->id);
    ask->feeder = NULL;
}

static void ended(struct sim_world *w, const struct router_core *core, const struct ts_trace *t)
{
    char key[96]; /* a router that died may have ended it, and nobody heard of it */
    struct sim_ask *ask = t->rid.request < SIM_NUMBERS_MAX ? w->by_number[t->rid.request] : NULL;
    int bytes = snprintf(key, sizeof key, "%.*s/%.*s/%016llx/%llu", (int)t->client.count, t->client.data,
                         (int)t->request_id.count, t->request_id.data, (unsigned long long)t->rid.router,
                         (unsigned long long)t->rid.request);
    if (ts_map_put(w->traced, key, (size_t)bytes, w) || !ask || !ask->live) {
        cloud_fail(w->cloud, "request %s ends twice", key);
        return;
    }
    if (sim_ask_of(w, t->client, t->request_id) != ask)
        cloud_fail(w->cloud, "the trace of client%u r%u names another request", ask->client, ask->number);
    if (!true_end(w, ask, t))
        cloud_fail(w->cloud, "client%u r%u ends with %s %s, which is not true: %u tokens of %u, %u attempts",
                   ask->client, ask->number, ts_finish_name(t->finish), ts_reason_name(t->reason),
                   t->output_tokens, ask->count, ask->attempts);
    if (t->attempts != ask->attempts)
        cloud_fail(w->cloud, "client%u r%u had %u attempts, its trace says %u", ask->client, ask->number,
                   ask->attempts, t->attempts);
    owed(w, ask, core);
    ask->live = false;
    ask->traced_tokens = t->output_tokens;
    w->live--;
    w->held -= ask->bytes;
    w->client_live[ask->client]--;
}

/* --- attempts ---------------------------------------------------------------------------------------- */

static bool has_drained(const struct sim_world *w, const struct member *m)
{
    for (uint32_t i = 0; m && i < w->drained_count; i++) {
        if (w->drained[i] == m->incarnation)
            return true;
    }
    return false;
}

/* Whether somebody else could prefill for the decode worker `d`, who never failed this request. */
static bool could_prefill(const struct sim_world *w, const struct router_core *core,
                          const struct sim_ask *ask, const struct member *d)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        bool fits = w->nodes[i] && w->script.nodes[i].kind == CLOUD_WORKER && !(ask->blamed >> i & 1);
        const struct member *m = fits ? member_find(core, TS_ROLE_WORKER, w->script.nodes[i].id) : NULL;
        if (m && m != d && m->route.phases == TS_PHASE_PREFILL && m->route.sends && m->session.up &&
            m->route.fingerprint == d->route.fingerprint &&
            m->route.unstarted < core->settings.prefill_inflight_max)
            return true;
    }
    return false;
}

/* Who failed a request gets it again only if there is nobody else. */
static void check_avoided(struct sim_world *w, const struct router_core *core, const struct sim_ask *ask,
                          const struct ts_msg_assign *a, struct cloud_node *node)
{
    const struct record *r = index_get(&core->by_number, a->rid.request);
    uint32_t number = sim_index_of(w, node), blamed = 0;
    for (uint32_t i = 0; i < w->script.node_count; i++)
        blamed += ask->blamed >> i & 1;
    if (a->role == TS_PHASE_PREFILL && blamed <= ROUTER_AVOID_MAX && number != SIM_NODE_NONE &&
        (ask->blamed >> number & 1) && r && r->decode && could_prefill(w, core, ask, r->decode))
        cloud_fail(w->cloud, "request %llu goes to %s again, which failed it, though others are there",
                   (unsigned long long)a->rid.request, cloud_node_id(node));
}

static void assigned(struct sim_world *w, const struct router_core *core, const struct ts_action_send *s)
{
    struct ts_msg_assign said = s->msg.assign;
    const struct ts_msg_assign *a = &said; /* as the router meant it */
    enum ts_phase role_before;
    if (sim_altered(w, s, &role_before))
        said.role = role_before;
    struct sim_ask *ask = a->rid.request < SIM_NUMBERS_MAX ? w->by_number[a->rid.request] : NULL;
    struct cloud_node *node = cloud_peer_of(w->router, s->channel, s->peer);
    if (!ask || !ask->live) {
        cloud_fail(w->cloud, "the router assigns request %llu, which is not under way",
                   (unsigned long long)a->rid.request);
        return;
    }
    int role = a->role != TS_PHASE_PREFILL;
    bool first = a->rid.attempt == ask->attempts + 1;
    if (first) {
        owed(w, ask, core);
        ask->attempts++;
        ask->waiting_since = TS_TIME_NEVER;
    }
    if (a->rid.attempt != ask->attempts)
        cloud_fail(w->cloud, "attempt %u of request %llu follows attempt %u", a->rid.attempt,
                   (unsigned long long)a->rid.request, ask->attempts);
    if (ask->attempts > w->script.router.max_attempts + ask->short_of_memory)
        cloud_fail(w->cloud, "request %llu is tried %u times", (unsigned long long)a->rid.request,
                   ask->attempts);
    sim_check_assign(w, ask, a);
    ask->holder[role] = node;
    ask->holder_peer[role] = s->peer;
    ask->holder_session[role] = s->envelope.session;
    ask->missing_since[role] = 0;
    for (uint32_t i = 0; i < a->produced.count; i++) {
        if (i >= ask->count || a->produced.data[i] != ask->tokens[i])
            cloud_fail(w->cloud, "request %llu is assigned with token %u wrong",
                       (unsigned long long)a->rid.request, i);
    }
    const struct member *m = node ? member_find(core, TS_ROLE_WORKER, cloud_node_id(node)) : NULL;
    if (m && (m->draining || !m->synced || has_drained(w, m) ||
              (a->role == TS_PHASE_PREFILL && has_drained(w, m->relay))))
        cloud_fail(w->cloud, "request %llu is assigned to %s, which is not ready",
                   (unsigned long long)a->rid.request, cloud_node_id(node));
    uint32_t may = m ? m->hello.profile.phase & (m->switching.to ? m->switching.to : TS_PHASE_BOTH) : 0;
    if (m && (may & a->role) != a->role)
        cloud_fail(w->cloud, "request %llu is assigned to %s in a phase that it does not serve",
                   (unsigned long long)a->rid.request, cloud_node_id(node));
    if (node)
        check_avoided(w, core, ask, a, node);
}

static void released(struct sim_world *w, const struct ts_action_send *s)
{
    const struct ts_rid rid = s->msg.release.rid;
    struct sim_ask *ask = rid.request < SIM_NUMBERS_MAX ? w->by_number[rid.request] : NULL;
    if (ask && rid.attempt == ask->attempts && s->channel == TS_CHANNEL_RELAY)
        ask->feeder = NULL;
    for (int role = 0; ask && s->channel == TS_CHANNEL_WORKER && role < 2;
         role++) { /* by number: the connection may have been cut meanwhile */
        if (ask->holder_peer[role] == s->peer && rid.attempt == ask->attempts)
            ask->holder[role] = NULL;
    }
}

static void tokens_sent(struct sim_world *w, const struct ts_msg_tokens *m, uint64_t peer)
{
    const struct cloud_node *client = cloud_peer_of(w->router, TS_CHANNEL_CLIENT, peer);
    struct sim_ask *ask = client ? sim_ask_of(w, ts_str_of(cloud_node_id(client)), m->request_id) : NULL;
    for (uint32_t i = 0; ask && i < m->items.count; i++) {
        uint32_t index = m->first_index + i;
        if (index >= ask->count || m->items.data[i].token != ask->tokens[index])
            cloud_fail(w->cloud, "the router sends token %u of client%u r%u wrong", index, ask->client,
                       ask->number);
    }
}

static void end_sent(struct sim_world *w, const struct ts_msg_end *m, uint64_t peer)
{
    const struct cloud_node *client = cloud_peer_of(w->router, TS_CHANNEL_CLIENT, peer);
    const struct sim_ask *ask =
        client ? sim_ask_of(w, ts_str_of(cloud_node_id(client)), m->request_id) : NULL;
    if (!ask || m->reason == TS_REASON_NOT_FOUND)
        return;
    if (m->next_index != ask->traced_tokens ||
        (m->trace.rid.router && m->trace.output_tokens != m->next_index))
        cloud_fail(w->cloud, "client%u r%u is told %u tokens, its trace has %u", ask->client, ask->number,
                   m->next_index, ask->traced_tokens);
}

/* Who failed which attempt. An output never does: sessions number them. */
static void on_log(struct sim_world *w, const struct ts_event *event, struct ts_str text)
{
    char line[200], reason[32], worker[40];
    unsigned long long request;
    unsigned attempt;
    bool output = event->kind == TS_EVENT_MESSAGE && (event->message.msg.kind == TS_MSG_OUTPUT ||
                                                      event->message.msg.kind == TS_MSG_OUTPUT_BATCH);
    snprintf(line, sizeof line, "%.*s", (int)text.count, text.data);
    if (strncmp(line, "event=attempt_failed", 20) != 0 ||
        sscanf(line, "event=attempt_failed request=%llu attempt=%u reason=%31s worker=%39s", &request,
               &attempt, reason, worker) != 4)
        return;
    if (output && strcmp(reason, "internal") == 0)
        cloud_fail(w->cloud, "an output fails its attempt: %s", line);
    struct sim_ask *ask = request < SIM_NUMBERS_MAX ? w->by_number[request] : NULL;
    for (uint32_t i = 0; ask && i < w->script.node_count; i++) {
        if (strcmp(w->script.nodes[i].id, worker) == 0)
            ask->blamed |= 1u << i;
    }
    if (ask && (strcmp(reason, "kv_no_memory") == 0 || strcmp(reason, "preempted") == 0))
        ask->short_of_memory++;
}

static void refed(struct sim_world *w, const struct ts_action_send *s)
{
    const struct ts_msg_refeed *m = &s->msg.refeed;
    struct sim_ask *ask = m->rid.request < SIM_NUMBERS_MAX ? w->by_number[m->rid.request] : NULL;
    if (!ask)
        return;
    if (m->rid.attempt != ask->refed && m->from.attempt == ask->copy_given_up)
        cloud_fail(w->cloud, "request %llu is to be fed by a copy that was given up",
                   (unsigned long long)m->rid.request);
    ask->refed = m->rid.attempt; /* said again in a new session, it may be too late */
    ask->feeder = cloud_peer_of(w->router, s->channel, s->peer);
    ask->feeder_session = s->envelope.session;
}

/* What relays say of transfers and copies. */
static void relay_said(struct sim_world *w, const struct ts_event_message *m)
{
    if (m->msg.kind == TS_MSG_TRANSFER && m->msg.transfer.rid.request < SIM_NUMBERS_MAX) {
        struct sim_ask *ask = w->by_number[m->msg.transfer.rid.request];
        if (ask && ask->attempts == m->msg.transfer.rid.attempt)
            ask->feeder = NULL;
    }
    for (uint32_t i = 0; m->msg.kind == TS_MSG_COPIES && i < m->msg.copies.items.count; i++) {
        const struct ts_copy_item *item = &m->msg.copies.items.data[i];
        struct sim_ask *ask = item->rid.request < SIM_NUMBERS_MAX ? w->by_number[item->rid.request] : NULL;
        if (ask && item->rid.router == w->router_incarnation && (item->bytes == 0 || !item->whole))
            ask->copy_given_up = item->rid.attempt;
    }
}

static void at_decode(struct sim_world *w, struct ts_rid rid)
{
    struct sim_ask *ask = rid.request < SIM_NUMBERS_MAX ? w->by_number[rid.request] : NULL;
    if (ask && ask->attempts == rid.attempt)
        ask->feeder = NULL;
}

/* Once decode has the KV, its relay owes nothing and is owed nothing. */
static void worker_said(struct sim_world *w, const struct ts_msg *m)
{
    if (m->kind == TS_MSG_REPORT)
        at_decode(w, m->report.rid);
    else if (m->kind == TS_MSG_OUTPUT)
        at_decode(w, m->output.rid);
    for (uint32_t i = 0; m->kind == TS_MSG_OUTPUT_BATCH && i < m->output_batch.outputs.count; i++)
        at_decode(w, m->output_batch.outputs.data[i].rid);
}

static void accepted_plan(struct sim_world *w, const struct ts_msg_plan *m)
{
    if (w->snapshot && m->snapshot_version != w->snapshot)
        cloud_fail(w->cloud, "a plan of snapshot %llu is taken, the cluster is at %llu",
                   (unsigned long long)m->snapshot_version, (unsigned long long)w->snapshot);
}

static void on_send(struct sim_world *w, const struct router_core *core, const struct ts_event *event,
                    const struct ts_action_send *s)
{
    switch (s->msg.kind) {
    case TS_MSG_STATUS_REPLY:
    case TS_MSG_HEARTBEAT:
        sim_check_told(w, s);
        break;
    case TS_MSG_RESYNC_REPLY:
        if (event->kind == TS_EVENT_MESSAGE && event->message.msg.kind == TS_MSG_RESYNC)
            sim_check_resync(w, &event->message.msg.resync, &s->msg.resync_reply);
        break;
    case TS_MSG_REFEED:
        refed(w, s);
        break;
    case TS_MSG_PLAN_REPLY:
        if (s->msg.plan_reply.verdict == TS_PLAN_ACCEPTED && event->kind == TS_EVENT_MESSAGE &&
            event->message.msg.kind == TS_MSG_PLAN)
            accepted_plan(w, &event->message.msg.plan);
        break;
    case TS_MSG_SNAPSHOT:
        w->snapshot = s->msg.snapshot.version;
        break;
    case TS_MSG_UPDATE:
        w->snapshot = s->msg.update.version;
        break;
    case TS_MSG_REFUSED: {
        const struct ts_msg *asked = event->kind == TS_EVENT_MESSAGE ? &event->message.msg : NULL;
        const struct sim_ask *ask = asked && asked->kind == TS_MSG_GENERATE
                                        ? sim_ask_of(w, asked->generate.client, asked->generate.request_id)
                                        : NULL;
        if (ask)
            refused(w, ask, s->msg.refused.reason);
        break;
    }
    case TS_MSG_TOKENS:
        tokens_sent(w, &s->msg.tokens, s->peer);
        break;
    case TS_MSG_TOKENS_BATCH:
        for (uint32_t i = 0; i < s->msg.tokens_batch.streams.count; i++)
            tokens_sent(w, &s->msg.tokens_batch.streams.data[i], s->peer);
        break;
    case TS_MSG_ASSIGN:
        assigned(w, core, s);
        break;
    case TS_MSG_RELEASE:
        released(w, s);
        break;
    case TS_MSG_RESET:
        if (!w->faulty)
            cloud_fail(w->cloud, "a session ends where nothing goes wrong");
        break;
    default:
        break;
    }
}

/* --- members ----------------------------------------------------------------------------------------- */

static struct member *member_of_peer(const struct router_core *core, enum ts_channel channel, uint64_t peer)
{
    struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->channel == channel && m->peer == peer)
            return m;
    }
    return NULL;
}

/* In a session that the router has not ended: else it hears of it again, behind Resync. */
static void drained(struct sim_world *w, const struct router_core *core, const struct ts_event_message *m)
{
    const struct member *from = member_of_peer(core, m->channel, m->peer);
    if (from && from->session.up && from->session.id == m->envelope.session &&
        w->drained_count < TS_ARRAY_SIZE(w->drained))
        w->drained[w->drained_count++] = m->envelope.incarnation;
}

/* --- all --------------------------------------------------------------------------------------------- */

void sim_router_died(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        struct sim_ask *ask = &w->asks[i];
        ask->live = false;
        ask->rid_number = 0;
        ask->holder[0] = ask->holder[1] = NULL;
    }
    memset(w->by_number, 0, sizeof w->by_number);
    memset(w->heard, 0, sizeof w->heard);
    memset(w->client_live, 0, sizeof w->client_live);
    w->live = w->member_count = w->dead_count = w->drained_count = 0;
    w->held = w->term = w->number = w->snapshot = 0;
}

static void compare(struct sim_world *w, const struct router_core *core)
{
    uint32_t clients = 0;
    for (uint32_t c = 0; c < w->script.client_count; c++)
        clients += w->client_live[c] > 0;
    if (core->live_count != w->live || core->held_bytes != w->held ||
        ts_map_count(core->per_client) != clients)
        cloud_fail(w->cloud,
                   "the router counts %zu requests of %zu clients and %llu bytes, there are %u, %u, %llu",
                   core->live_count, ts_map_count(core->per_client), (unsigned long long)core->held_bytes,
                   w->live, clients, (unsigned long long)w->held);
    if (core->term < w->term || (core->term == w->term && core->number < w->number))
        cloud_fail(w->cloud, "the router goes back from plan %llu.%llu to %llu.%llu",
                   (unsigned long long)w->term, (unsigned long long)w->number, (unsigned long long)core->term,
                   (unsigned long long)core->number);
    w->term = core->term;
    w->number = core->number;
    if (core->counts.contradictions)
        cloud_fail(w->cloud, "two workers disagree about a token");
}

void sim_see_router(struct sim_world *w, const struct ts_event *event, const struct ts_actions *actions)
{
    const struct router_core *core = cloud_node_core(w->router);
    const struct ts_event_message *m = event->kind == TS_EVENT_MESSAGE ? &event->message : NULL;
    if (core->incarnation != w->router_incarnation) {
        sim_router_died(w);
        w->router_incarnation = core->incarnation;
    }
    if (m && m->msg.kind == TS_MSG_DRAIN && w->delivered)
        drained(w, core, m);
    if (m && m->channel == TS_CHANNEL_CLIENT)
        on_client(w, core, m);
    else if (m && m->channel == TS_CHANNEL_RELAY && w->delivered)
        relay_said(w, m);
    else if (m && m->channel == TS_CHANNEL_WORKER && w->delivered)
        worker_said(w, &m->msg);
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_SEND)
            on_send(w, core, event, &a->send);
        else if (a->kind == TS_ACTION_DISCONNECT && a->disconnect.channel == TS_CHANNEL_CLIENT)
            sim_detached(w, a->disconnect.peer);
        else if (a->kind == TS_ACTION_LOG)
            on_log(w, event, a->log.text);
        else if (a->kind == TS_ACTION_TRACE)
            ended(w, core, &a->trace.trace);
    }
    for (size_t i = 0; i < actions->count; i++) { /* after the traces, which come behind them */
        const struct ts_action_send *s = &actions->items[i].send;
        if (actions->items[i].kind == TS_ACTION_SEND && s->msg.kind == TS_MSG_END)
            end_sent(w, &s->msg.end, s->peer);
    }
    compare(w, core);
    if (m && m->channel == TS_CHANNEL_CLIENT && m->msg.kind == TS_MSG_GENERATE)
        sim_check_attached(w, &m->msg.generate, actions);
    if (m && m->channel != TS_CHANNEL_CLIENT && m->channel != TS_CHANNEL_ADMIN) {
        struct member *from = member_of_peer(core, m->channel, m->peer);
        if (from)
            sim_session_check(w, w->router, m->channel, m->peer, &from->session);
        sim_look_members(w, core);
    }
    sim_look_router(w, core);
}
