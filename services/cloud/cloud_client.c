/*
 * The modelled client: a state machine like the services, with the rules of common/client. It asks again
 * where something is missing, keeps its connection alive, and dials anew when nothing is heard. It knows what
 * a stream must look like and says so when it does not.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_modelled.h"
#include "services/cloud/cloud_streams.h"

#define HEARTBEAT_EVERY TS_S
#define ASK_AGAIN       (2 * TS_S)
#define SILENCE         (3 * TS_S)

struct absence {
    ts_time from, until;
};

struct cloud_client {
    struct cloud_node *node;
    struct client_streams streams;
    size_t open, left;                 /* sent and not ended; not ended */
    const struct cloud_source *source; /* NULL: asked by cloud_client_ask, and everything is remembered */
    struct cloud_source own_source;
    bool dry, plain; /* the source has no more; takes no batches of tokens */
    uint64_t peer;   /* of the present connection; 0 = away */
    ts_time last_rx, heartbeat_at, heartbeat_sent_at;
    struct absence *absences;
    size_t absence_count, absence_capacity, absence_next;
    struct ts_actions *out;
    ts_time now;
    bool started;
    uint64_t dialled;
};

struct cloud_client *client_new(struct cloud_node *node)
{
    struct cloud_client *client = ts_xcalloc(1, sizeof *client);
    client->node = node;
    return client;
}

void client_destroy(struct cloud_client **client)
{
    struct cloud_client *c = *client;
    if (!c)
        return;
    streams_fini(&c->streams);
    ts_free(c->absences);
    ts_free(c);
    *client = NULL;
}

/* --- requests ---------------------------------------------------------------------------------------- */

static uint64_t digest_of(const struct cloud_request *r)
{
    size_t bytes = r->prompt ? r->prompt_count * sizeof *r->prompt : 0;
    uint64_t digest = ts_hash64(r->prompt, bytes, r->sampling.seed ^ r->prompt_count);
    return digest_struct(digest, &ts_sampling_schema, &r->sampling);
}

/* The prompt's ids, drawn if there are none; without checks nobody looks at them, and zeros stand for them.
 */
static struct payload *prompt_of(struct cloud_client *c, const struct cloud_request *r, uint64_t number)
{
    struct cloud *cloud = c->node->cloud;
    size_t bytes = r->prompt_count * sizeof *r->prompt;
    if (!r->prompt && !cloud->settings.checks)
        return payload_zeros(cloud, bytes);
    struct payload *payload = payload_new(bytes, bytes);
    if (r->prompt) {
        memcpy(payload->data, r->prompt, bytes);
        return payload;
    }
    struct ts_rng rng;
    uint32_t *ids = (uint32_t *)(void *)payload->data;
    ts_rng_init(&rng, digest_mix(cloud->settings.seed, digest_mix(c->node->index, number)));
    for (uint32_t i = 0; i < r->prompt_count; i++)
        ids[i] = (uint32_t)ts_rng_below(&rng, cloud->model.vocab);
    return payload;
}

static struct client_stream *add(struct cloud_client *c, const struct cloud_request *request)
{
    struct client_stream *s = streams_add(&c->streams);
    s->request = *request;
    s->prompt = prompt_of(c, request, s->number);
    if (request->prompt || c->node->cloud->settings.checks)
        s->request.prompt = (const uint32_t *)(const void *)s->prompt->data;
    s->digest = digest_of(&s->request);
    s->send_at = request->at;
    c->left++;
    streams_due(&c->streams, s, s->send_at);
    return s;
}

static void pull(struct cloud_client *c)
{
    struct cloud_request request = {.cancel_at = TS_TIME_NEVER, .sampling = ts_sampling_defaults()};
    if (c->dry || !c->source)
        return;
    if (c->source->next(c->source->context, &request))
        add(c, &request);
    else
        c->dry = true;
}

size_t cloud_client_ask(struct cloud_node *node, const struct cloud_request *request)
{
    return add(node->core, request)->number;
}

struct cloud_node *cloud_add_source(struct cloud *cloud, const char *id, const struct cloud_source *source)
{
    struct cloud_node *node = cloud_add_client(cloud, id);
    struct cloud_client *c = node->core;
    c->own_source = *source;
    c->source = &c->own_source;
    return node;
}

bool cloud_source_over(const struct cloud_node *node)
{
    const struct cloud_client *c = node->core;
    return c->dry && c->left == 0;
}

void cloud_client_plain(struct cloud_node *node)
{
    ((struct cloud_client *)node->core)->plain = true;
}

void cloud_client_leave(struct cloud_node *node, ts_time from, ts_time until)
{
    struct cloud_client *c = node->core;
    void *absences = c->absences;
    ts_array_reserve(&absences, &c->absence_capacity, c->absence_count + 1, sizeof *c->absences);
    c->absences = absences;
    c->absences[c->absence_count++] = (struct absence){from, until};
}

size_t cloud_client_count(const struct cloud_node *node)
{
    return ((const struct cloud_client *)node->core)->streams.count;
}

static struct cloud_outcome outcome_of(const struct client_stream *s)
{
    return (struct cloud_outcome){.sent = s->sent,
                                  .ended = s->ended,
                                  .refused = s->refused,
                                  .finish = s->finish,
                                  .reason = s->reason,
                                  .tokens = s->tokens,
                                  .arrivals = s->arrivals,
                                  .token_count = (uint32_t)s->count,
                                  .metrics = ts_metrics_end(&s->run, s->request.at)};
}

struct cloud_outcome cloud_client_outcome(const struct cloud_node *node, size_t number)
{
    return outcome_of(streams_at(&((const struct cloud_client *)node->core)->streams, number));
}

uint32_t cloud_expected(const struct cloud *cloud, const struct cloud_request *request, uint32_t *out,
                        enum ts_finish *finish)
{
    const struct ts_model *model = &cloud->model;
    struct ts_sampling sampling = request->sampling;
    uint32_t room = model->context_tokens - request->prompt_count, count = 0;
    uint64_t chain = 0;
    *finish = TS_FINISH_ERROR;
    if (request->prompt_count >= model->context_tokens)
        return 0;
    if (sampling.max_tokens > room)
        sampling.max_tokens = room;
    for (uint32_t i = 0; i < request->prompt_count; i++)
        chain = device_chain(chain, request->prompt[i]);
    do {
        out[count] = ts_modelled_token(chain, sampling.seed, count, model->vocab);
        chain = device_chain(chain, out[count++]);
        *finish = device_finish(&sampling, out[count - 1], count);
    } while (*finish == TS_FINISH_NONE);
    return count;
}

static ts_time sooner(ts_time a, ts_time b)
{
    return a < b ? a : b;
}

/* When something is to be done for it. */
static ts_time due_of(const struct client_stream *s)
{
    ts_time at = TS_TIME_NEVER;
    if (s->ended)
        return at;
    if (!s->sent)
        return s->send_at;
    if (!s->cancel_sent)
        at = s->request.cancel_at;
    return s->epoch == 0 ? sooner(at, s->asked_at + ASK_AGAIN) : at;
}

/* --- sending ----------------------------------------------------------------------------------------- */

static struct ts_action_send *send_router(struct cloud_client *c, enum ts_msg_kind kind)
{
    struct ts_action_send *s = ts_actions_send(c->out, TS_CHANNEL_CLIENT, c->peer, kind);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = c->node->index + 1};
    return s;
}

static void dial(struct cloud_client *c)
{
    const struct cloud *cloud = c->node->cloud;
    const char *router = "";
    for (size_t i = 0; i < cloud->node_count && !*router; i++) {
        if (cloud->nodes[i]->kind == CLOUD_ROUTER)
            router = cloud->nodes[i]->endpoint;
    }
    c->peer = ++c->dialled;
    c->last_rx = c->now;
    ts_actions_add(c->out, TS_ACTION_CONNECT)->connect =
        (struct ts_action_connect){TS_CHANNEL_CLIENT, c->peer, ts_str_of(router)};
}

static void hang_up(struct cloud_client *c)
{
    ts_actions_add(c->out, TS_ACTION_DISCONNECT)->disconnect =
        (struct ts_action_disconnect){TS_CHANNEL_CLIENT, c->peer};
    c->peer = 0;
}

/* The tokens there are; without checks they are not kept, and any ids will do. */
static struct ts_u32s produced_of(struct cloud_client *c, const struct client_stream *s)
{
    const uint32_t *tokens = s->tokens;
    if (!tokens && s->count > 0)
        tokens = cloud_zeros(c->node->cloud);
    return (struct ts_u32s){tokens, (uint32_t)s->count};
}

static void cancel(struct cloud_client *c, struct client_stream *s)
{
    struct ts_msg_cancel *m = &send_router(c, TS_MSG_CANCEL)->msg.cancel;
    *m = (struct ts_msg_cancel){.client = ts_str_of(c->node->id), .request_id = ts_str_of(s->id)};
    s->cancel_sent = true;
}

static void ask(struct cloud_client *c, struct client_stream *s)
{
    const struct cloud_request *r = &s->request;
    struct ts_action_send *a = send_router(c, TS_MSG_GENERATE);
    struct ts_bulk bulk = bulk_put(&c->node->bulks, payload_ref(s->prompt));
    ts_time left = r->deadline_ms ? r->deadline_ms - (c->now - r->at) / TS_MS : 0;
    a->bulk = bulk;
    a->msg.generate = (struct ts_msg_generate){.client = ts_str_of(c->node->id),
                                               .request_id = ts_str_of(s->id),
                                               .digest = s->digest,
                                               .prompt_kind = TS_PROMPT_TOKENS,
                                               .sampling = r->sampling,
                                               .remaining_ms = left > 0 ? (uint32_t)left : r->deadline_ms > 0,
                                               .ttft_ms = r->ttft_ms,
                                               .tpot_ms = r->tpot_ms,
                                               .reattach_ms = r->reattach_ms,
                                               .next_index = (uint32_t)s->count,
                                               .resume_epoch = s->epoch,
                                               .produced = produced_of(c, s),
                                               .codec = ts_str_of(r->codec),
                                               .token_batches = !c->plain};
    s->asked_at = c->now;
    s->asks++;
    streams_due(&c->streams, s, due_of(s));
    ts_actions_drop(c->out, bulk);
    if (s->cancel_sent) /* a router that did not know it takes it up again */
        cancel(c, s);
}

static void ask_all(struct cloud_client *c, ts_time before)
{
    struct client_stream *s;
    for (size_t cursor = 0; (s = streams_next(&c->streams, &cursor));) {
        if (s->sent && !s->ended && s->asked_at <= before)
            ask(c, s);
    }
}

/* --- receiving --------------------------------------------------------------------------------------- */

/* Of a source's request nothing stays: `s` must not be used any more. */
static void finish(struct cloud_client *c, struct client_stream *s, enum ts_finish how, enum ts_reason reason,
                   const struct ts_trace *trace)
{
    s->ended = true;
    s->finish = how;
    s->reason = reason;
    c->open--;
    c->left--;
    streams_due(&c->streams, s, TS_TIME_NEVER);
    if (!c->source)
        return;
    struct cloud_outcome outcome = outcome_of(s);
    outcome.trace = trace;
    if (c->source->ended)
        c->source->ended(c->source->context, &s->request, &outcome);
    streams_forget(&c->streams, s);
}

/* One token more. With checks its text and log probabilities must be the modelled ones, and it is kept. */
static void take_token(struct cloud_client *c, struct client_stream *s, const struct ts_token_item *item)
{
    char text[32];
    void *tokens = s->tokens, *arrivals = s->arrivals;
    ts_metrics_arrive(&s->run, c->now);
    if (!c->node->cloud->settings.checks) {
        s->count++;
        return;
    }
    ts_array_reserve(&tokens, &s->token_capacity, s->count + 1, sizeof *s->tokens);
    ts_array_reserve(&arrivals, &s->arrival_capacity, s->count + 1, sizeof *s->arrivals);
    s->tokens = tokens;
    s->arrivals = arrivals;
    if (item->top.count != s->request.sampling.logprobs)
        cloud_fail(c->node->cloud, "%s %s: token %zu has %u log probabilities", c->node->id, s->id, s->count,
                   item->top.count);
    snprintf(text, sizeof text, "%zu:%u ", s->count, item->token);
    if (!ts_str_equal(item->text, ts_str_of(text)))
        cloud_fail(c->node->cloud, "%s %s: token %zu has the text \"%.*s\", expected \"%s\"", c->node->id,
                   s->id, s->count, (int)item->text.count, item->text.data, text);
    s->tokens[s->count] = item->token;
    s->arrivals[s->count++] = c->now;
}

static void take_tokens(struct cloud_client *c, const struct ts_msg_tokens *m)
{
    struct client_stream *s = streams_find(&c->streams, m->request_id);
    if (!s || s->ended || m->epoch != s->epoch)
        return;
    if (m->first_index > s->count) {
        ask(c, s);
        return;
    }
    for (uint32_t i = (uint32_t)s->count - m->first_index; i < m->items.count; i++)
        take_token(c, s, &m->items.data[i]);
}

static void take_end(struct cloud_client *c, struct client_stream *s, const struct ts_msg_end *m)
{
    bool unknown = m->reason == TS_REASON_NOT_FOUND; /* answers a Cancel: nobody works on it, or any more */
    if (unknown && !s->ended && s->cancel_sent)
        finish(c, s, TS_FINISH_CANCELLED, TS_REASON_CANCELLED, NULL);
    if (unknown || m->epoch != s->epoch)
        return;
    if (s->ended) {
        if (!s->refused && (m->finish != s->finish || m->reason != s->reason))
            cloud_fail(c->node->cloud, "%s %s ends twice: with %s and %s", c->node->id, s->id,
                       ts_finish_name(s->finish), ts_finish_name(m->finish));
        return;
    }
    if (m->next_index > s->count) /* tokens were lost on the way */
        ask(c, s);
    else
        finish(c, s, m->finish, m->reason, &m->trace);
}

static void take_refused(struct cloud_client *c, struct client_stream *s, const struct ts_msg_refused *m)
{
    if (s->asks > 1) /* another time it may have been taken */
        cancel(c, s);
    if (c->source && m->retry_after_ms > 0 && s->refusals < c->source->retries) {
        s->refusals++;
        s->sent = s->cancel_sent = false;
        s->epoch = 0;
        s->asks = 0;
        s->send_at = c->now + m->retry_after_ms * TS_MS;
        c->open--;
        streams_due(&c->streams, s, s->send_at);
        return;
    }
    s->refused = true;
    finish(c, s, TS_FINISH_ERROR, m->reason, NULL);
}

/* The router says how many streams it has for this connection: fewer or more than there are means that it
 * does not know this connection as theirs, or that an end was lost. */
static void take_heartbeat(struct cloud_client *c, const struct ts_msg_heartbeat *m)
{
    uint32_t open = 0;
    const struct client_stream *s;
    for (size_t cursor = 0; (s = streams_next(&c->streams, &cursor));) {
        open += s->sent && !s->ended && s->asked_at <= c->heartbeat_sent_at;
    }
    if (open != m->load.running)
        ask_all(c, c->heartbeat_sent_at);
}

static void take(struct cloud_client *c, const struct ts_msg *m)
{
    struct client_stream *s = NULL;
    switch (m->kind) {
    case TS_MSG_ACCEPTED:
        s = streams_find(&c->streams, m->accepted.request_id);
        if (s && !s->ended) {
            s->epoch = m->accepted.epoch;
            streams_due(&c->streams, s, due_of(s));
        }
        break;
    case TS_MSG_REFUSED:
        s = streams_find(&c->streams, m->refused.request_id);
        if (s && !s->ended)
            take_refused(c, s, &m->refused);
        break;
    case TS_MSG_TOKENS:
        take_tokens(c, &m->tokens);
        break;
    case TS_MSG_TOKENS_BATCH:
        for (uint32_t i = 0; i < m->tokens_batch.streams.count; i++)
            take_tokens(c, &m->tokens_batch.streams.data[i]);
        break;
    case TS_MSG_END:
        if ((s = streams_find(&c->streams, m->end.request_id)))
            take_end(c, s, &m->end);
        break;
    case TS_MSG_HEARTBEAT:
        take_heartbeat(c, &m->heartbeat);
        break;
    default:
        break;
    }
}

/* --- time -------------------------------------------------------------------------------------------- */

static void come_and_go(struct cloud_client *c)
{
    if (c->absence_next >= c->absence_count)
        return;
    const struct absence *a = &c->absences[c->absence_next];
    if (c->peer && a->from <= c->now)
        hang_up(c);
    if (!c->peer && a->until <= c->now) {
        c->absence_next++;
        dial(c);
        ask_all(c, c->now);
    }
}

static void keep_alive(struct cloud_client *c)
{
    if (c->now - c->last_rx > SILENCE) {
        hang_up(c);
        dial(c);
        ask_all(c, c->now);
    }
    if (c->heartbeat_at <= c->now) {
        c->heartbeat_at = c->now + HEARTBEAT_EVERY;
        c->heartbeat_sent_at = c->now;
        send_router(c, TS_MSG_HEARTBEAT);
    }
}

static void send_first(struct cloud_client *c, struct client_stream *s)
{
    s->sent = true;
    if (c->open++ == 0) {
        c->last_rx = c->now;
        c->heartbeat_at = c->now + HEARTBEAT_EVERY;
    }
    ask(c, s);
    if (s->refusals == 0)
        pull(c);
}

static void tick(struct cloud_client *c)
{
    struct client_stream *s;
    come_and_go(c);
    if (!c->peer)
        return;
    if (c->open > 0)
        keep_alive(c);
    while ((s = streams_first(&c->streams)) && s->due <= c->now) {
        if (!s->sent)
            send_first(c, s);
        else if (s->epoch == 0 && c->now - s->asked_at >= ASK_AGAIN)
            ask(c, s);
        if (!s->cancel_sent && s->request.cancel_at <= c->now)
            cancel(c, s);
        streams_due(&c->streams, s, due_of(s));
    }
}

void client_step(struct cloud_client *client, ts_time now, const struct ts_event *event,
                 struct ts_actions *out)
{
    struct cloud_client *c = client;
    c->now = now;
    c->out = out;
    streams_sweep(&c->streams);
    if (event->kind == TS_EVENT_START) {
        c->started = true;
        pull(c);
        dial(c);
    } else if (event->kind == TS_EVENT_MESSAGE) {
        if (event->message.peer == c->peer) {
            c->last_rx = now;
            take(c, &event->message.msg);
        }
        ts_actions_drop(out, event->message.bulk);
    }
    if (c->started)
        tick(c);
    c->out = NULL;
}

ts_time client_deadline(const struct cloud_client *c)
{
    ts_time at = TS_TIME_NEVER;
    if (c->absence_next < c->absence_count)
        at = c->peer ? c->absences[c->absence_next].from : c->absences[c->absence_next].until;
    if (!c->peer)
        return at;
    if (c->open > 0)
        at = sooner(at, sooner(c->heartbeat_at, c->last_rx + SILENCE + 1));
    const struct client_stream *first = streams_first(&c->streams);
    return first ? sooner(at, first->due) : at;
}
