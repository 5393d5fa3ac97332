#include "common/client/ts_client.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_blake2b.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_metrics.h"
#include "common/run/ts_net.h"
#include "proto/ts_wire.h"

#define CLIENT_HEARTBEAT TS_S
#define CLIENT_RESEND    (2 * TS_S) /* an unanswered Generate is sent again after that long */
#define CLIENT_LAPSE     (3 * TS_S) /* not polled for that long: the router may have let our streams go */

struct ts_client_stream {
    struct ts_client *client;
    void *user;
    char *request_id;
    struct ts_msg_generate generate; /* spans point into arena */
    struct ts_arena arena;
    struct ts_frame *prompt;
    uint64_t epoch; /* of the router that accepted it; 0 = not accepted yet */
    ts_time sent_at, asked_at;
    ts_time retry_at, refused_at; /* of a resumed stream that its new router has no room for; 0 = none */
    struct ts_client_token *tokens;
    size_t token_count, token_capacity;
    ts_time *arrivals;
    size_t arrival_capacity;
    uint32_t *ids;
    size_t id_capacity;
    size_t delivered; /* tokens handed out by poll */
    bool ended, end_delivered, cancel_sent;
    struct ts_client_result result;
    struct ts_client_stream *next_ready; /* in the client's ready list */
    bool ready;
};

struct ts_client {
    struct ts_net *net;
    struct ts_map *streams; /* request id -> stream, until its END is delivered */
    char *name;
    char **routers;
    size_t router_count, current;
    uint64_t incarnation;
    ts_time silence_ns, give_up_ns;
    ts_time last_rx, last_heartbeat, switched_at;
    struct ts_client_stream *ready_head, **ready_tail;
    struct ts_client_stream *blocking; /* of ts_client_generate */
    struct ts_arena in, out;
    struct ts_wire_counters counters;
};

static int fail(char *why, const char *text)
{
    if (why)
        snprintf(why, TS_CLIENT_ERROR_BYTES, "%s", text);
    return -1;
}

static char *random_name(const char *prefix)
{
    return ts_xasprintf("%s-%016llx", prefix, (unsigned long long)ts_random_u64());
}

static int dial(struct ts_client *client, char *why)
{
    struct ts_error err = {0};
    client->last_rx = client->switched_at = ts_clock_now();
    if (ts_net_dial(client->net, TS_CHANNEL_CLIENT, client->current + 1, client->routers[client->current],
                    &err) != TS_OK)
        return fail(why, err.text);
    return 0;
}

int ts_client_open(const struct ts_client_options *options, struct ts_client **out, char *why)
{
    if (options->router_count == 0)
        return fail(why,
                    "no router given: options.routers needs at least one endpoint like tcp://127.0.0.1:5555");
    struct ts_client *client = ts_xcalloc(1, sizeof *client);
    client->net = ts_net_new(1);
    client->streams = ts_map_new();
    client->name = options->client ? ts_xstrdup(options->client) : random_name("client");
    client->router_count = options->router_count;
    client->routers = ts_xcalloc(options->router_count, sizeof *client->routers);
    for (size_t i = 0; i < options->router_count; i++)
        client->routers[i] = ts_xstrdup(options->routers[i]);
    client->incarnation = ts_random_u64();
    client->silence_ns = (options->silence_ms ? options->silence_ms : 3000) * TS_MS;
    client->give_up_ns = (options->give_up_ms ? options->give_up_ms : 30000) * TS_MS;
    client->ready_tail = &client->ready_head;
    ts_arena_init(&client->in);
    ts_arena_init(&client->out);
    if (dial(client, why) != 0) {
        ts_client_close(&client);
        return -1;
    }
    *out = client;
    return 0;
}

static void free_stream(struct ts_client_stream *s)
{
    for (size_t i = 0; i < s->token_count; i++) {
        ts_free((char *)s->tokens[i].text);
        ts_free((void *)s->tokens[i].top);
    }
    ts_free(s->tokens);
    ts_free(s->arrivals);
    ts_free(s->ids);
    ts_free((char *)s->result.text);
    ts_frame_unref(&s->prompt);
    ts_arena_fini(&s->arena);
    ts_free(s->request_id);
    ts_free(s);
}

static void send_msg(struct ts_client *client, const struct ts_msg *msg, struct ts_frame *frame)
{
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION, .incarnation = client->incarnation};
    struct ts_bytes bytes;
    ts_arena_reset(&client->out);
    if (ts_wire_pack(&envelope, msg, &client->out, &bytes) == TS_OK)
        ts_net_send(client->net, TS_CHANNEL_CLIENT, client->current + 1, bytes.data, bytes.count, frame);
}

void ts_client_cancel(struct ts_client_stream *stream)
{
    struct ts_msg msg = {.kind = TS_MSG_CANCEL};
    msg.cancel.client = ts_str_of(stream->client->name);
    msg.cancel.request_id = ts_str_of(stream->request_id);
    if (stream->ended)
        return;
    stream->cancel_sent = true;
    send_msg(stream->client, &msg, NULL);
}

void ts_client_close(struct ts_client **client)
{
    struct ts_client *c = *client;
    if (!c)
        return;
    struct ts_client_stream *s;
    ts_client_release(&c->blocking);
    for (size_t cursor = 0; (s = ts_map_next(c->streams, &cursor, NULL, NULL));) {
        ts_client_cancel(s);
        free_stream(s);
    }
    ts_map_destroy(&c->streams);
    ts_net_destroy(&c->net);
    for (size_t i = 0; i < c->router_count; i++)
        ts_free(c->routers[i]);
    ts_free(c->routers);
    ts_free(c->name);
    ts_arena_fini(&c->in);
    ts_arena_fini(&c->out);
    ts_free(c);
    *client = NULL;
}

struct ts_client_request ts_client_request_defaults(void)
{
    return (struct ts_client_request){
        .temperature = -1, .top_k = UINT32_MAX, .min_p = -1, .max_tokens = ts_sampling_defaults().max_tokens};
}

static struct ts_sampling sampling_of(const struct ts_client_request *r)
{
    /* What is not a number is given, and refused. */
    uint32_t given = (r->temperature < 0 ? 0 : TS_SAMPLING_TEMPERATURE) |
                     (r->top_k == UINT32_MAX ? 0 : TS_SAMPLING_TOP_K) |
                     (r->top_p == 0 ? 0 : TS_SAMPLING_TOP_P) | (r->min_p < 0 ? 0 : TS_SAMPLING_MIN_P) |
                     (r->repetition_penalty == 0 ? 0 : TS_SAMPLING_REPETITION_PENALTY);
    return (struct ts_sampling){.temperature = given & TS_SAMPLING_TEMPERATURE ? r->temperature : 0,
                                .top_k = given & TS_SAMPLING_TOP_K ? r->top_k : 0,
                                .top_p = r->top_p,
                                .min_p = given & TS_SAMPLING_MIN_P ? r->min_p : 0,
                                .repetition_penalty = r->repetition_penalty,
                                .presence_penalty = r->presence_penalty,
                                .frequency_penalty = r->frequency_penalty,
                                .seed = r->seed ? r->seed : ts_random_u64(),
                                .max_tokens =
                                    r->max_tokens ? r->max_tokens : ts_sampling_defaults().max_tokens,
                                .min_tokens = r->min_tokens,
                                .ignore_eos = r->ignore_eos,
                                .logprobs = r->logprobs,
                                .given = given};
}

/* Of all that decides the answer: BLAKE2b of the length of the packed message, the message without what
 * changes from one sending to the next, and the prompt. Packed means: fields in order of their numbers,
 * defaults left out, no checksum, as every protobuf library writes them; the Python client finds the same
 * number. */
static bool digest_of(struct ts_client_stream *s, uint64_t *out)
{
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION};
    struct ts_msg msg = {.kind = TS_MSG_GENERATE, .generate = s->generate};
    struct ts_bytes bytes = {0};
    struct ts_blake2b digest;
    msg.generate.remaining_ms = msg.generate.reattach_ms = 0;
    msg.generate.token_batches = false;
    ts_arena_reset(&s->client->out);
    if (ts_wire_pack(&envelope, &msg, &s->client->out, &bytes) != TS_OK)
        return false;
    bytes.count -= TS_WIRE_SEAL_BYTES;
    uint64_t length = htole64(bytes.count);
    ts_blake2b_init(&digest);
    ts_blake2b_add(&digest, &length, sizeof length);
    ts_blake2b_add(&digest, bytes.data, bytes.count);
    ts_blake2b_add(&digest, s->prompt->data, s->prompt->bytes);
    *out = ts_blake2b_end(&digest);
    return true;
}

static struct ts_str keep(struct ts_client_stream *s, const char *text)
{
    return text ? (struct ts_str){ts_arena_copy(&s->arena, text, strlen(text)), (uint32_t)strlen(text)}
                : (struct ts_str){0};
}

static void fill_prompt(struct ts_client_stream *s, const struct ts_client_request *r)
{
    size_t bytes = r->tokens         ? r->token_count * sizeof *r->tokens
                   : r->prompt_bytes ? r->prompt_bytes
                                     : strlen(r->prompt);
    s->prompt = ts_frame_new(bytes);
    memcpy(s->prompt->data, r->tokens ? (const void *)r->tokens : (const void *)r->prompt, bytes);
    s->generate.prompt_kind = r->tokens ? TS_PROMPT_TOKENS : TS_PROMPT_TEXT;
}

static void send_generate(struct ts_client_stream *s)
{
    struct ts_msg msg = {.kind = TS_MSG_GENERATE, .generate = s->generate};
    ts_time now = ts_clock_now();
    if (s->generate.remaining_ms) {
        ts_time left = s->generate.remaining_ms - (now - s->sent_at) / TS_MS;
        msg.generate.remaining_ms = left > 1 ? (uint32_t)left : 1;
    }
    msg.generate.next_index = (uint32_t)s->token_count;
    msg.generate.resume_epoch = s->epoch;
    msg.generate.produced = (struct ts_u32s){s->ids, (uint32_t)s->token_count};
    s->asked_at = now;
    s->retry_at = 0;
    send_msg(s->client, &msg, s->prompt);
    if (s->cancel_sent) /* a router that did not know it takes it up again */
        ts_client_cancel(s);
}

int ts_client_start(struct ts_client *client, const struct ts_client_request *request, void *user,
                    struct ts_client_stream **out, char *why)
{
    if (!request->tokens && !request->prompt)
        return fail(why, "the request has neither prompt nor tokens");
    char *id = request->request_id ? ts_xstrdup(request->request_id) : random_name("req");
    if (ts_map_get(client->streams, id, strlen(id))) {
        ts_free(id);
        return fail(why, "a stream with this request_id is open already: give another one");
    }
    struct ts_client_stream *s = ts_xcalloc(1, sizeof *s);
    s->client = client;
    s->user = user;
    s->request_id = id;
    ts_arena_init(&s->arena);
    fill_prompt(s, request);
    s->generate.client = ts_str_of(client->name);
    s->generate.request_id = ts_str_of(id);
    s->generate.model = keep(s, request->model);
    s->generate.sampling = sampling_of(request);
    s->generate.codec = keep(s, request->codec);
    s->generate.remaining_ms = request->deadline_ms;
    s->generate.reattach_ms = request->reattach_ms;
    s->generate.token_batches = true;
    struct ts_stop *stops = ts_arena_zalloc(&s->arena, (request->stop_count + 1) * sizeof *stops);
    for (size_t i = 0; i < request->stop_count; i++)
        stops[i].text = keep(s, request->stops[i]);
    s->generate.stops = (struct ts_stops){stops, (uint32_t)request->stop_count};
    if (!digest_of(s, &s->generate.digest)) {
        free_stream(s);
        return fail(why,
                    "the request is out of bounds: names and ids have at most 128 bytes, stop strings 256 "
                    "and there are at most 16, and numbers are finite");
    }
    s->result = (struct ts_client_result){.request_id = id, .seed = s->generate.sampling.seed, .ttft_ms = -1};
    ts_map_put(client->streams, id, strlen(id), s);
    s->sent_at = ts_clock_now();
    if (ts_map_count(client->streams) == 1)
        client->last_rx = client->switched_at = client->last_heartbeat = s->sent_at;
    send_generate(s);
    *out = s;
    return 0;
}

static void make_ready(struct ts_client_stream *s)
{
    if (s->ready)
        return;
    s->ready = true;
    s->next_ready = NULL;
    *s->client->ready_tail = s;
    s->client->ready_tail = &s->next_ready;
}

static double ms(ts_time ns)
{
    return ns < 0 ? -1 : (double)ns / (double)TS_MS;
}

static void join_text(struct ts_client_stream *s)
{
    size_t bytes = 0;
    for (size_t i = 0; i < s->token_count; i++)
        bytes += s->tokens[i].text_bytes;
    char *text = ts_xmalloc(bytes + 1);
    s->result.text_bytes = bytes;
    s->result.text = text;
    for (size_t i = 0; i < s->token_count; i++) {
        memcpy(text, s->tokens[i].text, s->tokens[i].text_bytes);
        text += s->tokens[i].text_bytes;
    }
    *text = '\0';
}

static const char *keep_str(struct ts_client_stream *s, struct ts_str text)
{
    char *copy = ts_arena_zalloc(&s->arena, text.count + 1);
    if (text.count)
        memcpy(copy, text.data, text.count);
    return copy;
}

static void finish(struct ts_client_stream *s, enum ts_finish how, enum ts_reason reason, struct ts_str words)
{
    struct ts_metrics m = ts_metrics_of(s->sent_at, s->arrivals, s->token_count);
    struct ts_client_result *r = &s->result;
    s->ended = true;
    r->finish = ts_finish_name(how);
    r->reason = ts_reason_name(reason);
    r->error = keep_str(s, words);
    r->tokens = s->tokens;
    r->token_count = s->token_count;
    r->ttft_ms = ms(m.ttft_ns);
    r->tpot_ms = ms(m.tpot_ns);
    r->gap01_ms = ms(m.gap01_ns);
    r->max_gap_ms = ms(m.gap_max_ns);
    if (!r->codec) /* no End came */
        r->trace = (struct ts_client_trace){-1, -1, -1, -1, -1, -1, -1, -1};
    if (!r->codec)
        r->codec = r->codec_why = r->prefill = r->relay = r->decode = "";
    join_text(s);
    make_ready(s);
}

static struct ts_client_trace trace_of(const struct ts_trace *t)
{
    return (struct ts_client_trace){.assigned_ms = ms(t->assigned_ns),
                                    .prefill_begin_ms = ms(t->prefill_begin_ns),
                                    .prefill_end_ms = ms(t->prefill_end_ns),
                                    .first_token_ms = ms(t->first_token_ns),
                                    .kv_open_ms = ms(t->kv_open_ns),
                                    .kv_commit_ms = ms(t->kv_commit_ns),
                                    .decode_begin_ms = ms(t->decode_begin_ns),
                                    .end_ms = ms(t->end_ns)};
}

static void take_end(struct ts_client_stream *s, const struct ts_msg_end *end)
{
    bool unknown = end->reason == TS_REASON_NOT_FOUND; /* answers a Cancel: nobody works on it, or any more */
    if (unknown && s->cancel_sent)
        finish(s, TS_FINISH_CANCELLED, TS_REASON_CANCELLED, ts_str_of(""));
    if (unknown || end->epoch != s->epoch)
        return;
    if (end->next_index > s->token_count) { /* tokens were lost on the way: ask for them */
        send_generate(s);
        return;
    }
    struct ts_client_result *r = &s->result;
    r->prompt_tokens = end->trace.prompt_tokens;
    r->attempts = end->trace.attempts;
    r->kv_bytes_raw = end->trace.kv_bytes_raw;
    r->kv_bytes_sent = end->trace.kv_bytes_sent;
    r->codec = keep_str(s, end->trace.codec);
    r->codec_why = keep_str(s, end->trace.codec_why);
    r->prefill = keep_str(s, end->trace.prefill);
    r->relay = keep_str(s, end->trace.relay);
    r->decode = keep_str(s, end->trace.decode);
    r->trace = trace_of(&end->trace);
    finish(s, end->finish, end->reason, end->text);
}

static void append(struct ts_client_stream *s, const struct ts_token_item *item)
{
    size_t n = s->token_count;
    ts_array_reserve((void **)&s->tokens, &s->token_capacity, n + 1, sizeof *s->tokens);
    ts_array_reserve((void **)&s->arrivals, &s->arrival_capacity, n + 1, sizeof *s->arrivals);
    ts_array_reserve((void **)&s->ids, &s->id_capacity, n + 1, sizeof *s->ids);
    struct ts_client_top *top = NULL;
    if (item->top.count) {
        top = ts_xcalloc(item->top.count, sizeof *top);
        for (uint32_t i = 0; i < item->top.count; i++)
            top[i] = (struct ts_client_top){item->top.data[i].token, item->top.data[i].logprob};
    }
    s->tokens[n] = (struct ts_client_token){.index = (uint32_t)n,
                                            .token = item->token,
                                            .text = ts_xmemdup(item->text.data, item->text.count),
                                            .text_bytes = item->text.count,
                                            .logprob = item->logprob,
                                            .top = top,
                                            .top_count = item->top.count};
    s->arrivals[n] = ts_clock_now();
    s->ids[n] = item->token;
    s->token_count++;
}

static void take_tokens(struct ts_client_stream *s, const struct ts_msg_tokens *m)
{
    if (m->epoch != s->epoch)
        return;
    if (m->first_index > s->token_count) {
        send_generate(s);
        return;
    }
    for (uint32_t i = 0; i < m->items.count; i++) {
        if (m->first_index + i == s->token_count)
            append(s, &m->items.data[i]);
    }
    make_ready(s);
}

/* A stream that was accepted once is not lost to a full router while there is time to ask again. */
static void take_refused(struct ts_client_stream *s, const struct ts_msg_refused *m)
{
    ts_time now = ts_clock_now();
    if (s->epoch && m->retry_after_ms) {
        s->refused_at = s->refused_at ? s->refused_at : now;
        s->retry_at = now + m->retry_after_ms * TS_MS;
        if (now - s->refused_at <= s->client->give_up_ns)
            return;
    }
    s->result.retry_after_ms = m->retry_after_ms;
    finish(s, TS_FINISH_ERROR, m->reason, m->text);
}

static struct ts_client_stream *stream_of(struct ts_client *client, struct ts_str id)
{
    struct ts_client_stream *s = ts_map_get(client->streams, id.data, id.count);
    return s && !s->ended ? s : NULL;
}

/* A router that was replaced shows by its incarnation. One that knows fewer streams on this connection than
 * we asked for sees another connection than it knew, or has ended one whose End was lost. */
static void take_heartbeat(struct ts_client *client, uint64_t incarnation, uint32_t running)
{
    struct ts_client_stream *s;
    uint32_t open = 0;
    for (size_t cursor = 0; (s = ts_map_next(client->streams, &cursor, NULL, NULL));)
        open += !s->ended && !s->retry_at && s->asked_at <= client->last_heartbeat;
    for (size_t cursor = 0; (s = ts_map_next(client->streams, &cursor, NULL, NULL));) {
        bool known = running >= open && (s->epoch == 0 || s->epoch == incarnation);
        bool asked = client->last_rx - s->asked_at < CLIENT_HEARTBEAT / 2; /* just now */
        if (!s->ended && !s->retry_at && !known && !asked)
            send_generate(s);
    }
}

static void take(struct ts_client *client, const struct ts_envelope *envelope, const struct ts_msg *msg)
{
    struct ts_client_stream *s = NULL;
    (void)envelope;
    switch (msg->kind) {
    case TS_MSG_ACCEPTED:
        if ((s = stream_of(client, msg->accepted.request_id))) {
            s->epoch = msg->accepted.epoch;
            s->retry_at = s->refused_at = 0;
        }
        break;
    case TS_MSG_TOKENS:
        if ((s = stream_of(client, msg->tokens.request_id)))
            take_tokens(s, &msg->tokens);
        break;
    case TS_MSG_TOKENS_BATCH:
        for (uint32_t i = 0; i < msg->tokens_batch.streams.count; i++) {
            const struct ts_msg_tokens *tokens = &msg->tokens_batch.streams.data[i];
            if ((s = stream_of(client, tokens->request_id)))
                take_tokens(s, tokens);
        }
        break;
    case TS_MSG_END:
        if ((s = stream_of(client, msg->end.request_id)))
            take_end(s, &msg->end);
        break;
    case TS_MSG_REFUSED:
        if ((s = stream_of(client, msg->refused.request_id)))
            take_refused(s, &msg->refused);
        break;
    case TS_MSG_HEARTBEAT:
        take_heartbeat(client, envelope->incarnation, msg->heartbeat.load.running);
        break;
    default:
        break;
    }
}

static void receive(struct ts_client *client)
{
    struct ts_net_message in;
    while (ts_net_receive(client->net, &in, NULL) == TS_OK) {
        struct ts_envelope envelope;
        struct ts_msg msg;
        ts_arena_reset(&client->in);
        if (in.peer == client->current + 1 &&
            ts_wire_unpack(in.data, in.bytes, TS_CHANNEL_CLIENT, &client->in, &envelope, &msg,
                           &client->counters, NULL) == TS_OK) {
            client->last_rx = client->switched_at = ts_clock_now();
            take(client, &envelope, &msg);
        }
        ts_frame_unref(&in.frame);
    }
}

static void end_all(struct ts_client *client, const char *words)
{
    struct ts_client_stream *s;
    for (size_t cursor = 0; (s = ts_map_next(client->streams, &cursor, NULL, NULL));) {
        if (!s->ended)
            finish(s, TS_FINISH_ERROR, TS_REASON_PEER_LOST, ts_str_of(words));
    }
}

static void next_router(struct ts_client *client, ts_time now)
{
    struct ts_client_stream *s;
    ts_time since = client->switched_at;
    ts_net_forget(client->net, TS_CHANNEL_CLIENT, client->current + 1);
    client->current = (client->current + 1) % client->router_count;
    dial(client, NULL);
    client->switched_at = since;
    client->last_rx = now;
    for (size_t cursor = 0; (s = ts_map_next(client->streams, &cursor, NULL, NULL));) {
        if (!s->ended)
            send_generate(s);
    }
}

static void keep_alive(struct ts_client *client)
{
    struct ts_client_stream *s;
    ts_time now = ts_clock_now();
    if (now - client->switched_at > client->give_up_ns) {
        char words[TS_CLIENT_ERROR_BYTES];
        snprintf(words, sizeof words, "no router answers at %s%s: is it running?", client->routers[0],
                 client->router_count > 1 ? " (and the others)" : "");
        end_all(client, words);
        return;
    }
    if (now - client->last_rx > client->silence_ns)
        next_router(client, now);
    bool beat = now - client->last_heartbeat >= CLIENT_HEARTBEAT;
    bool lapsed = client->last_heartbeat && now - client->last_heartbeat >= CLIENT_LAPSE;
    if (beat) {
        struct ts_msg msg = {.kind = TS_MSG_HEARTBEAT};
        client->last_heartbeat = now;
        send_msg(client, &msg, NULL);
    }
    for (size_t cursor = 0; beat && (s = ts_map_next(client->streams, &cursor, NULL, NULL));) {
        if (s->ended)
            continue;
        if (s->epoch == 0 && now - s->sent_at > client->give_up_ns) {
            finish(s, TS_FINISH_ERROR, TS_REASON_BAD_REQUEST,
                   ts_str_of("the router answers, but not to this request: its log says why"));
            continue;
        }
        bool silent = s->epoch == 0 && now - s->asked_at > CLIENT_RESEND;
        if (s->retry_at ? now >= s->retry_at : silent || lapsed)
            send_generate(s);
    }
}

static bool hand_out(struct ts_client *client, struct ts_client_event *event)
{
    struct ts_client_stream *s = client->ready_head;
    if (!s)
        return false;
    event->stream = s;
    if (s->delivered < s->token_count) {
        event->kind = TS_CLIENT_TOKEN;
        event->token = s->tokens[s->delivered++];
    } else if (s->ended && !s->end_delivered) {
        event->kind = TS_CLIENT_END;
        s->end_delivered = true;
        ts_map_remove(client->streams, s->request_id, strlen(s->request_id));
    }
    if (s->delivered == s->token_count && (!s->ended || s->end_delivered)) {
        s->ready = false;
        client->ready_head = s->next_ready;
        if (!client->ready_head)
            client->ready_tail = &client->ready_head;
    }
    return event->kind != TS_CLIENT_NONE;
}

int ts_client_poll(struct ts_client *client, int timeout_ms, struct ts_client_event *event)
{
    ts_time until = timeout_ms < 0 ? TS_TIME_NEVER : ts_clock_now() + timeout_ms * TS_MS;
    for (;;) {
        *event = (struct ts_client_event){.kind = TS_CLIENT_NONE};
        while (client->ready_head) {
            if (hand_out(client, event))
                return 0;
        }
        if (ts_map_count(client->streams) == 0)
            return 0;
        ts_time left = until == TS_TIME_NEVER ? TS_S : until - ts_clock_now();
        int wait = left > 200 * TS_MS ? 200 : left > 0 ? (int)((left + TS_MS - 1) / TS_MS) : 0;
        ts_net_poll(client->net, NULL, 0, wait);
        receive(client);
        keep_alive(client);
        if (!client->ready_head && ts_clock_now() >= until)
            return 0;
    }
}

void *ts_client_user(const struct ts_client_stream *stream)
{
    return stream->user;
}

const struct ts_client_result *ts_client_result(const struct ts_client_stream *stream)
{
    return &stream->result;
}

void ts_client_release(struct ts_client_stream **stream)
{
    struct ts_client_stream *s = *stream;
    if (!s)
        return;
    struct ts_client *client = s->client;
    ts_client_cancel(s);
    if (!s->end_delivered)
        ts_map_remove(client->streams, s->request_id, strlen(s->request_id));
    for (struct ts_client_stream **at = &client->ready_head; *at; at = &(*at)->next_ready) {
        if (*at != s)
            continue;
        *at = s->next_ready;
        if (!*at)
            client->ready_tail = at;
        break;
    }
    free_stream(s);
    *stream = NULL;
}

int ts_client_generate(struct ts_client *client, const struct ts_client_request *request, int timeout_ms,
                       const struct ts_client_result **out, char *why)
{
    ts_time until = timeout_ms < 0 ? TS_TIME_NEVER : ts_clock_now() + timeout_ms * TS_MS;
    struct ts_client_event event;
    ts_client_release(&client->blocking);
    if (ts_map_count(client->streams) > 0)
        return fail(why,
                    "streams are open on this client: poll them, or use another client for blocking calls");
    if (ts_client_start(client, request, NULL, &client->blocking, why) != 0)
        return -1;
    for (;;) {
        ts_time left = until == TS_TIME_NEVER ? TS_S : until - ts_clock_now();
        if (left <= 0) {
            ts_client_release(&client->blocking);
            return fail(why, "the request did not end within the given time and was cancelled");
        }
        ts_client_poll(client, left > TS_S ? 1000 : (int)(left / TS_MS) + 1, &event);
        if (event.kind == TS_CLIENT_END && event.stream == client->blocking) {
            *out = ts_client_result(client->blocking);
            return 0;
        }
    }
}
