/*
 * Nobody stands still at the router while there is something to do, and what it tells and keeps is what there
 * is.
 */
#include <string.h>

#include "services/router/router_impl.h"
#include "tests/sim/sim_impl.h"

#define IDLE (200 * TS_MS) /* a request waits while a pair of workers is free */

/* A worker of one phase each with room, that every request fits. */
static bool pair_is_free(const struct router_core *core)
{
    bool prefill = false, decode = false;
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct member *m = member_of(core->workers[i]);
        if (!m->session.up || !m->synced || m->draining || m->switching.to)
            continue;
        prefill = prefill || (m->hello.profile.phase == TS_PHASE_PREFILL && m->route.sends &&
                              m->route.unstarted < core->settings.prefill_inflight_max);
        decode = decode || (m->hello.profile.phase == TS_PHASE_DECODE &&
                            m->route.rows < core->settings.decode_inflight_max);
    }
    return prefill && decode;
}

void sim_router_idle(struct sim_world *w)
{
    const struct router_core *core = cloud_node_core(w->router);
    const struct client *client;
    ts_time now = cloud_now(w->cloud);
    const struct record *r = core->queue_head;
    while (r && r->retry_at > now)
        r = r->queue_next;
    if (!r || !pair_is_free(core) || r->number != w->idle_number || r->attempt != w->idle_attempt)
        w->idle_since = now;
    else if (now - w->idle_since > IDLE && now > w->router_thawed + IDLE)
        cloud_fail(w->cloud, "request %llu waits for workers while there are some",
                   (unsigned long long)r->number);
    w->idle_number = r ? r->number : 0;
    w->idle_attempt = r ? r->attempt : 0;
    for (size_t cursor = 0; (client = ts_map_next(core->clients, &cursor, NULL, NULL));) {
        ts_time until = client->last_rx + w->script.router.client_timeout_ms * TS_MS;
        if (now > until + IDLE && now > w->router_thawed + IDLE)
            cloud_fail(w->cloud, "the router remembers a connection that is silent for %.1f s",
                       (double)(now - client->last_rx) / 1e9);
    }
}

/* An assignment says what the request is, every time. */
void sim_check_assign(struct sim_world *w, struct sim_ask *ask, const struct ts_msg_assign *a)
{
    ts_time now = cloud_now(w->cloud), left = ask->deadline - now;
    uint64_t age = (uint64_t)((now - ask->accepted_at) / TS_MS), codec = 1;
    for (uint32_t i = 0; i < a->codec.count; i++)
        codec = codec * 31 + (uint8_t)a->codec.data[i];
    if (ask->attempts > 1 && ask->codec && ask->codec != codec)
        cloud_fail(w->cloud, "request %llu changes its codec", (unsigned long long)a->rid.request);
    ask->codec = codec;
    ask->colocated_first = ask->colocated_first || (ask->attempts == 1 && a->role == TS_PHASE_BOTH);
    if (ask->as_sent.codec && !ask->colocated_first && !ts_str_equal(a->codec, ts_str_of(ask->as_sent.codec)))
        cloud_fail(w->cloud, "request %llu is encoded otherwise than it wished",
                   (unsigned long long)a->rid.request);
    if (a->age_ms != age)
        cloud_fail(w->cloud, "request %llu is %llu ms old and said to be %llu",
                   (unsigned long long)a->rid.request, (unsigned long long)age,
                   (unsigned long long)a->age_ms);
    if (ask->deadline == TS_TIME_NEVER
            ? a->remaining_ms != 0
            : a->remaining_ms == 0 || a->remaining_ms > (uint64_t)(left / TS_MS) + 1)
        cloud_fail(w->cloud, "request %llu is given %u ms, it has %.3f s", (unsigned long long)a->rid.request,
                   a->remaining_ms, (double)left / 1e9);
}

/* What operators and clients are told. */
void sim_check_told(struct sim_world *w, const struct ts_action_send *s)
{
    if (s->msg.kind == TS_MSG_STATUS_REPLY) {
        const struct ts_msg_status_reply *m = &s->msg.status_reply;
        if (m->queued + m->running != w->live || m->held_bytes != w->held)
            cloud_fail(w->cloud, "an operator is told %u requests and %llu bytes, there are %u and %llu",
                       m->queued + m->running, (unsigned long long)m->held_bytes, w->live,
                       (unsigned long long)w->held);
    } else if (s->msg.kind == TS_MSG_HEARTBEAT && s->channel == TS_CHANNEL_CLIENT) {
        uint32_t attached = 0;
        for (uint32_t i = 0; i < w->script.request_count; i++)
            attached += w->asks[i].live && w->asks[i].peer == s->peer;
        if (attached != s->msg.heartbeat.load.running)
            cloud_fail(w->cloud, "a client is told %u streams, %u are attached to it",
                       s->msg.heartbeat.load.running, attached);
    }
}

/* A connection that is given up: its streams wait for their client. */
void sim_detached(struct sim_world *w, uint64_t peer)
{
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        struct sim_ask *ask = &w->asks[i];
        if (ask->live && ask->peer == peer) {
            ask->peer = 0;
            ask->lost_at = cloud_now(w->cloud);
        }
    }
}

static bool continues(const struct ts_msg_tokens *m, const struct ts_msg_generate *g)
{
    return ts_str_equal(m->request_id, g->request_id) && m->first_index == g->next_index;
}

/* Who attaches hears at once that it is known, what it lacks, and the End if there was one. */
void sim_check_attached(struct sim_world *w, const struct ts_msg_generate *g,
                        const struct ts_actions *actions)
{
    const struct record *r = record_find(cloud_node_core(w->router), g->client, g->request_id);
    bool accepted = false, tokens = false, end = false, refused = false;
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_msg *m = &actions->items[i].send.msg;
        if (actions->items[i].kind != TS_ACTION_SEND || actions->items[i].send.channel != TS_CHANNEL_CLIENT)
            continue;
        refused = refused || m->kind == TS_MSG_REFUSED;
        accepted =
            accepted || (m->kind == TS_MSG_ACCEPTED && ts_str_equal(m->accepted.request_id, g->request_id));
        end = end || (m->kind == TS_MSG_END && ts_str_equal(m->end.request_id, g->request_id));
        tokens = tokens || (m->kind == TS_MSG_TOKENS && continues(&m->tokens, g));
        for (uint32_t k = 0; m->kind == TS_MSG_TOKENS_BATCH && k < m->tokens_batch.streams.count; k++)
            tokens = tokens || continues(&m->tokens_batch.streams.data[k], g);
    }
    if (refused || !r)
        return;
    if (!accepted || (r->state == RECORD_ENDED && !end) || (g->next_index < r->count && !tokens))
        cloud_fail(w->cloud, "%.*s asks for %.*s from token %u and is not told all: %zu tokens%s",
                   (int)g->client.count, g->client.data, (int)g->request_id.count, g->request_id.data,
                   g->next_index, r->count, r->state == RECORD_ENDED ? ", ended" : "");
}

/* Who holds as much as the router has, or more, may hold the proposal to end as well: it is asked for. */
void sim_check_resync(struct sim_world *w, const struct ts_msg_resync *asked,
                      const struct ts_msg_resync_reply *answered)
{
    const struct router_core *core = cloud_node_core(w->router);
    for (uint32_t i = 0; i < asked->items.count && i < answered->items.count; i++) {
        const struct ts_resync_item *item = &asked->items.data[i];
        const struct record *r = index_get(&core->by_number, item->rid.request);
        if (r && r->attempt == item->rid.attempt && answered->items.data[i].verdict == TS_RESYNC_KEEP &&
            item->next_index > 0 && item->next_index >= r->count)
            cloud_fail(w->cloud, "output of request %llu from token %zu is not asked for",
                       (unsigned long long)r->number, r->count);
    }
}
