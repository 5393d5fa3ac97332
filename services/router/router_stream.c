/*
 * Clients, and what they are sent: each stream as it was produced, in order, and its End after it. Tokens of
 * clients that take TokensBatch are collected over a step.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define STREAMS_MAX 1024 /* of one TokensBatch: keeps messages far below the bound of an envelope */

struct ts_action_send *stream_send(struct router_core *core, uint64_t peer, enum ts_msg_kind kind)
{
    struct ts_action_send *s = ts_actions_send(core->out, TS_CHANNEL_CLIENT, peer, kind);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    return s;
}

/* --- clients ----------------------------------------------------------------------------------------- */

struct client *client_heard(struct router_core *core, uint64_t peer)
{
    struct client *client = ts_map_get_u64(core->clients, peer);
    if (!client) {
        client = ts_xcalloc(1, sizeof *client);
        client->peer = peer;
        client->timer.kind = TIMER_CLIENT;
        ts_map_put_u64(core->clients, peer, client);
        timers_set(&core->timers, &client->timer, core->now + core->settings.client_timeout_ms * TS_MS);
    }
    client->last_rx = core->now;
    return client;
}

void client_free(struct client *client)
{
    ts_free(client->pending);
    ts_free(client);
}

void client_lost(struct router_core *core, uint64_t peer)
{
    struct client *client = ts_map_remove_u64(core->clients, peer);
    ts_actions_add(core->out, TS_ACTION_DISCONNECT)->disconnect =
        (struct ts_action_disconnect){TS_CHANNEL_CLIENT, peer};
    if (!client)
        return;
    for (struct record *r; (r = client->records);) {
        stream_detach(r);
        r->client_peer = 0;
        r->detached_at = core->now;
        request_schedule(core, r);
    }
    if (client->flush_slot)
        core->flush[client->flush_slot - 1] = NULL;
    timers_set(&core->timers, &client->timer, TS_TIME_NEVER);
    client_free(client);
}

void client_due(struct router_core *core, struct client *client)
{
    ts_time until = client->last_rx + core->settings.client_timeout_ms * TS_MS;
    if (until <= core->now)
        client_lost(core, client->peer);
    else
        timers_set(&core->timers, &client->timer, until);
}

/* --- streams ----------------------------------------------------------------------------------------- */

static void drop_pending(struct record *r)
{
    if (r->pending_slot)
        r->client->pending[r->pending_slot - 1] = NULL;
    r->pending_slot = 0;
}

void stream_detach(struct record *r)
{
    struct client *client = r->client;
    if (!client)
        return;
    drop_pending(r);
    *(r->client_prev ? &r->client_prev->client_next : &client->records) = r->client_next;
    if (r->client_next)
        r->client_next->client_prev = r->client_prev;
    client->attached--;
    r->client = NULL;
    r->client_prev = r->client_next = NULL;
}

static void link_client(struct record *r, struct client *client)
{
    r->client = client;
    r->client_next = client->records;
    if (client->records)
        client->records->client_prev = r;
    client->records = r;
    client->attached++;
}

static struct ts_msg_tokens tokens_of(const struct router_core *core, const struct record *r)
{
    return (struct ts_msg_tokens){.request_id = r->generate.request_id,
                                  .epoch = core->incarnation,
                                  .first_index = (uint32_t)r->sent,
                                  .items = {r->items + r->sent, (uint32_t)(r->count - r->sent)}};
}

static void send_tokens(struct router_core *core, struct record *r)
{
    if (r->sent >= r->count)
        return;
    stream_send(core, r->client_peer, TS_MSG_TOKENS)->msg.tokens = tokens_of(core, r);
    r->sent = r->count;
}

static void send_end(struct router_core *core, const struct record *r)
{
    struct ts_msg_end *end = &stream_send(core, r->client_peer, TS_MSG_END)->msg.end;
    *end = (struct ts_msg_end){.request_id = r->generate.request_id,
                               .epoch = core->incarnation,
                               .next_index = (uint32_t)r->count,
                               .finish = r->finish,
                               .reason = r->reason,
                               .text = ts_str_of(r->text)};
    request_fill_trace(core, r, &end->trace);
}

void stream_attach(struct router_core *core, struct record *r, struct client *client,
                   const struct ts_msg_generate *g)
{
    stream_detach(r);
    r->client_peer = client->peer;
    r->batches = g->token_batches;
    r->sent = g->next_index < r->count ? g->next_index : r->count;
    if (r->state != RECORD_ENDED)
        link_client(r, client);
    stream_send(core, client->peer, TS_MSG_ACCEPTED)->msg.accepted = (struct ts_msg_accepted){
        .request_id = r->generate.request_id, .epoch = core->incarnation, .next_index = g->next_index};
    send_tokens(core, r);
    if (r->state == RECORD_ENDED)
        send_end(core, r);
    else
        request_schedule(core, r);
}

void stream_append(struct router_core *core, struct record *r, const struct ts_token_item *item)
{
    if (r->count == r->capacity) {
        void *items = r->items;
        ts_array_reserve(&items, &r->capacity, r->count + 1, sizeof *r->items);
        r->items = items;
    }
    if (r->count == 0)
        r->trace.first_token_ns = core->now - r->accepted_at;
    struct ts_token_item *to = &r->items[r->count++];
    *to = (struct ts_token_item){.token = item->token, .logprob = item->logprob};
    if (item->text.count) /* may hold NULs */
        to->text =
            (struct ts_str){ts_arena_copy(&r->arena, item->text.data, item->text.count), item->text.count};
    if (item->top.count)
        to->top = (struct ts_tops){
            ts_arena_copy(&r->arena, item->top.data, item->top.count * sizeof *item->top.data),
            item->top.count};
}

static void collect(struct router_core *core, struct record *r)
{
    struct client *client = r->client;
    void *list;
    if (r->pending_slot)
        return;
    if (client->pending_count == client->pending_capacity) {
        list = client->pending;
        ts_array_reserve(&list, &client->pending_capacity, client->pending_count + 1,
                         sizeof(struct record *));
        client->pending = list;
    }
    client->pending[client->pending_count++] = r;
    r->pending_slot = client->pending_count;
    if (client->flush_slot)
        return;
    list = core->flush;
    ts_array_reserve(&list, &core->flush_capacity, core->flush_count + 1, sizeof(struct client *));
    core->flush = list;
    core->flush[core->flush_count++] = client;
    client->flush_slot = core->flush_count;
}

void stream_publish(struct router_core *core, struct record *r)
{
    if (!r->client || r->sent >= r->count)
        return;
    if (r->batches || core->batching)
        collect(core, r);
    else
        send_tokens(core, r);
}

void stream_end(struct router_core *core, struct record *r)
{
    if (!r->client)
        return;
    send_tokens(core, r);
    send_end(core, r);
    stream_detach(r);
}

static void flush(struct router_core *core, struct client *client)
{
    for (size_t i = 0; i < client->pending_count;) {
        struct ts_msg_tokens *list = NULL;
        uint32_t count = 0;
        for (; i < client->pending_count && count < STREAMS_MAX; i++) {
            struct record *r = client->pending[i];
            if (!r)
                continue;
            r->pending_slot = 0;
            if (!r->batches) {
                send_tokens(core, r);
                continue;
            }
            if (!list)
                list = ts_arena_alloc(&core->out->arena, STREAMS_MAX * sizeof *list);
            list[count++] = tokens_of(core, r);
            r->sent = r->count;
        }
        if (count)
            stream_send(core, client->peer, TS_MSG_TOKENS_BATCH)->msg.tokens_batch.streams =
                (struct ts_tokens_list){list, count};
    }
    client->pending_count = 0;
    client->flush_slot = 0;
}

void streams_flush(struct router_core *core)
{
    for (size_t i = 0; i < core->flush_count; i++) {
        if (core->flush[i])
            flush(core, core->flush[i]);
    }
    core->flush_count = 0;
}
