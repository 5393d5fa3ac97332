/*
 * Admission, the states of a request, its one end, and how long it is remembered.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/router/router_codec.h"

#define BYTES_PER_TOKEN 4 /* of a text prompt, until a worker has counted one */

static char *make_key(struct ts_str client, struct ts_str request_id, size_t *bytes)
{
    char *key = ts_xmalloc((size_t)client.count + request_id.count + 2);
    memcpy(key, client.count ? client.data : "", client.count);
    key[client.count] = '\0';
    memcpy(key + client.count + 1, request_id.count ? request_id.data : "", request_id.count);
    *bytes = (size_t)client.count + request_id.count + 1;
    return key;
}

struct record *record_find(const struct router_core *core, struct ts_str client, struct ts_str request_id)
{
    size_t bytes;
    char *key = make_key(client, request_id, &bytes);
    struct record *r = ts_map_get(core->records, key, bytes);
    ts_free(key);
    return r;
}

static void unqueue(struct router_core *core, struct record *r)
{
    *(r->queue_prev ? &r->queue_prev->queue_next : &core->queue_head) = r->queue_next;
    *(r->queue_next ? &r->queue_next->queue_prev : &core->queue_tail) = r->queue_prev;
    r->queue_prev = r->queue_next = NULL;
    core->queued_count--;
    core->queued_tokens -= r->prompt_tokens;
}

/* By acceptance: a request that lost its worker does not lose its turn. */
static void enqueue(struct router_core *core, struct record *r)
{
    struct record *after = core->queue_tail;
    while (after && after->number > r->number)
        after = after->queue_prev;
    r->queue_prev = after;
    r->queue_next = after ? after->queue_next : core->queue_head;
    *(after ? &after->queue_next : &core->queue_head) = r;
    *(r->queue_next ? &r->queue_next->queue_prev : &core->queue_tail) = r;
    core->queued_count++;
    core->queued_tokens += r->prompt_tokens;
}

void record_state_set(struct router_core *core, struct record *r, enum record_state state)
{
    static const uint8_t legal[] = {
        [RECORD_QUEUED] = 1 << RECORD_ASSIGNED | 1 << RECORD_STREAMING | 1 << RECORD_ENDED,
        [RECORD_ASSIGNED] = 1 << RECORD_QUEUED | 1 << RECORD_STREAMING | 1 << RECORD_ENDED,
        [RECORD_STREAMING] = 1 << RECORD_QUEUED | 1 << RECORD_ENDED,
        [RECORD_ENDED] = 0,
    };
    TS_ASSERT(legal[r->state] >> state & 1);
    if (r->state == RECORD_QUEUED)
        unqueue(core, r);
    r->state = state;
    if (state == RECORD_QUEUED) {
        r->waiting_since = core->now;
        enqueue(core, r);
    }
    request_schedule(core, r);
}

void record_free(struct record *r)
{
    ts_free(r->items);
    ts_arena_fini(&r->arena);
    ts_free(r->key);
    ts_free(r);
}

static void refuse(struct router_core *core, const struct ts_event_message *m, enum ts_reason reason,
                   uint32_t retry_after_ms, const char *text)
{
    struct ts_action_send *s = stream_send(core, m->peer, TS_MSG_REFUSED);
    s->msg.refused =
        (struct ts_msg_refused){.request_id = m->msg.generate.request_id,
                                .reason = reason,
                                .text = ts_str_of(ts_arena_printf(&core->out->arena, "%s", text)),
                                .retry_after_ms = retry_after_ms};
    core->counts.refused++;
    ts_actions_drop(core->out, m->bulk);
}

static uintptr_t live_of(const struct router_core *core, struct ts_str client)
{
    return (uintptr_t)ts_map_get(core->per_client, client.data, client.count);
}

static void count_client(struct router_core *core, struct ts_str client, int change)
{
    uintptr_t live = live_of(core, client) + (uintptr_t)change;
    if (live)
        ts_map_put(core->per_client, client.data, client.count, (void *)live);
    else
        ts_map_remove(core->per_client, client.data, client.count);
}

uint32_t request_client_most(const struct router_core *core)
{
    void *live;
    uintptr_t most = 0;
    for (size_t cursor = 0; (live = ts_map_next(core->per_client, &cursor, NULL, NULL));)
        most = (uintptr_t)live > most ? (uintptr_t)live : most;
    return (uint32_t)most;
}

/* Nobody there yet: wait rather than guess. */
static bool model_known(const struct router_core *core, struct ts_str model)
{
    return model.count == 0 || core->worker_count == 0 || model_find(core, router_key(model));
}

static uint32_t prompt_tokens_of(const struct router_core *core, const struct ts_msg_generate *g,
                                 uint64_t bytes)
{
    const struct model *model = model_find(core, g->model.count ? router_key(g->model) : 0);
    double per_token = g->prompt_kind == TS_PROMPT_TOKENS    ? sizeof(uint32_t)
                       : model && model->tokens > 0          ? model->bytes / model->tokens
                       : model && model->bytes_per_token > 0 ? model->bytes_per_token
                                                             : BYTES_PER_TOKEN;
    double tokens = (double)bytes / per_token;
    return tokens < 1 ? 1 : tokens > TS_PROMPT_TOKENS_MAX ? TS_PROMPT_TOKENS_MAX : (uint32_t)tokens;
}

/* Words of a refusal, or NULL to admit. */
static const char *admission(const struct router_core *core, const struct ts_event_message *m,
                             enum ts_reason *reason, uint32_t *retry_ms)
{
    const struct router_settings *s = &core->settings;
    const struct ts_msg_generate *g = &m->msg.generate;
    /* What it does not name cannot be wrong; the worker takes it from the model. */
    const struct ts_sampling applied = ts_sampling_apply(&g->sampling, &(struct ts_sampling){0}),
                             *p = &applied;
    *retry_ms = 0;
    *reason = TS_REASON_BAD_REQUEST;
    if (g->client.count == 0 || g->request_id.count == 0)
        return "a request needs a client and a request id";
    if (m->bulk.slot == 0 || m->bulk.bytes == 0)
        return "the prompt is empty: send at least one token";
    if (g->prompt_kind == 0)
        return "the kind of the prompt is not given";
    if (p->max_tokens == 0 || !(p->temperature >= 0) || !(p->top_p > 0 && p->top_p <= 1) ||
        !(p->min_p >= 0 && p->min_p <= 1) || !(p->repetition_penalty > 0))
        return "sampling is out of range: max_tokens >= 1, temperature >= 0, 0 < top_p <= 1, 0 <= min_p <= "
               "1, repetition_penalty > 0";
    if (!(fabsf(p->presence_penalty) <= 2) || !(fabsf(p->frequency_penalty) <= 2) ||
        p->logprobs > TS_LOGPROBS_MAX)
        return "sampling is out of range: presence_penalty and frequency_penalty within 2 of 0, logprobs <= "
               "20";
    struct ts_error err;
    struct ts_codec codec;
    if (g->codec.count && !ts_str_equal(g->codec, ts_str_of("auto")) &&
        ts_codec_parse_text(g->codec, &core->out->arena, &codec, &err) != TS_OK)
        return ts_arena_printf(&core->out->arena, "%s", err.text);
    if (g->next_index != g->produced.count)
        return "a resumed request must bring as many produced tokens as next_index says";
    *reason = TS_REASON_PROMPT_TOO_LONG;
    if (m->bulk.bytes > s->prompt_bytes_max)
        return "the prompt has more bytes than this router accepts: shorten it";
    *reason = TS_REASON_MODEL_UNKNOWN;
    if (!model_known(core, g->model))
        return "no worker serves this model: ask tsctl status for what is served";
    *retry_ms = 1000;
    *reason = TS_REASON_DRAINING;
    if (core->draining)
        return "this router is shutting down: use another one";
    *reason = TS_REASON_QUEUE_FULL;
    if (core->live_count >= s->queue_max)
        return "too many requests are under way: retry later";
    *reason = TS_REASON_CLIENT_LIMIT;
    if (live_of(core, g->client) >= s->per_client_max)
        return "too many requests of this client are under way: retry later";
    *reason = TS_REASON_MEMORY_FULL;
    if (core->held_bytes + m->bulk.bytes > s->held_bytes_max)
        return "too many bytes of prompts are held: retry later";
    *reason = TS_REASON_OVERLOADED;
    uint32_t prompt = prompt_tokens_of(core, g, m->bulk.bytes);
    *retry_ms = load_too_late(core, g, prompt, workload_expected(&core->workload, prompt, p->max_tokens));
    return *retry_ms ? "it would wait for longer than it may: retry later" : NULL;
}

static void accept_resumed(struct router_core *core, struct record *r)
{
    for (uint32_t i = 0; i < r->generate.produced.count; i++) {
        struct ts_token_item item = {.token = r->generate.produced.data[i]};
        stream_append(core, r, &item);
    }
}

/* What is asked, whether it is taken or not. */
static struct workload_entry count_arrival(struct router_core *core, uint32_t prompt_tokens,
                                           uint32_t output_tokens)
{
    if (core->workload_timer.slot == 0)
        timers_set(&core->timers, &core->workload_timer,
                   core->now + core->settings.workload_update_ms * TS_MS);
    return workload_arrived(&core->workload, core->now, prompt_tokens, output_tokens);
}

static void count_refused(struct router_core *core, const struct ts_msg_generate *g, uint64_t bytes)
{
    uint32_t prompt = prompt_tokens_of(core, g, bytes);
    count_arrival(core, prompt, workload_expected(&core->workload, prompt, g->sampling.max_tokens));
    workload_refused(&core->workload, core->now);
}

/* Whether it kept the deadlines that it named. */
static bool attained(const struct record *r)
{
    const struct ts_msg_generate *g = &r->generate;
    ts_time first = r->trace.first_token_ns, last = r->trace.end_ns;
    if ((r->finish != TS_FINISH_STOP && r->finish != TS_FINISH_LENGTH) || first < 0)
        return false;
    if (g->ttft_ms && first > g->ttft_ms * TS_MS)
        return false;
    return !g->tpot_ms || r->count < 2 || last - first <= g->tpot_ms * TS_MS * (ts_time)(r->count - 1);
}

/* The lengths are known now. Whoever cancels leaves no word of how long it would have been. */
static void count_ended(struct router_core *core, struct record *r)
{
    const struct ts_msg_generate *g = &r->generate;
    struct workload *w = &core->workload;
    uint32_t tokens = (uint32_t)r->count;
    bool whole = r->finish == TS_FINISH_STOP || r->finish == TS_FINISH_LENGTH;
    if (whole)
        workload_learn(w, r->prompt_tokens, tokens, g->sampling.max_tokens);
    if (whole || tokens > r->counted.output)
        workload_correct(w, core->now, &r->counted, r->prompt_tokens, tokens);
    if ((g->ttft_ms || g->tpot_ms) && g->next_index == 0 && r->finish != TS_FINISH_CANCELLED)
        workload_judged(w, core->now, attained(r));
}

static void link_live(struct router_core *core, struct record *r)
{
    r->prev = core->live_tail;
    *(core->live_tail ? &core->live_tail->next : &core->live_head) = r;
    core->live_tail = r;
    core->live_count++;
}

static void unlink_live(struct router_core *core, struct record *r)
{
    *(r->prev ? &r->prev->next : &core->live_head) = r->next;
    *(r->next ? &r->next->prev : &core->live_tail) = r->prev;
    core->live_count--;
}

static struct record *accept_request(struct router_core *core, const struct ts_event_message *m)
{
    struct record *r = ts_xcalloc(1, sizeof *r);
    struct ts_msg copy = {.kind = TS_MSG_GENERATE};
    ts_arena_init(&r->arena);
    ts_schema_copy(&ts_msg_schema, &copy, &m->msg, &r->arena);
    r->generate = copy.generate;
    r->key = make_key(r->generate.client, r->generate.request_id, &r->key_bytes);
    r->number = core->next_number++;
    r->prompt = m->bulk;
    r->accepted_at = r->waiting_since = core->now;
    r->deadline = r->generate.remaining_ms ? core->now + r->generate.remaining_ms * TS_MS : TS_TIME_NEVER;
    r->model = r->generate.model.count ? router_key(r->generate.model) : 0;
    r->prompt_tokens = prompt_tokens_of(core, &r->generate, r->prompt.bytes);
    r->output_tokens = workload_expected(&core->workload, r->prompt_tokens, r->generate.sampling.max_tokens);
    r->counted = count_arrival(core, r->prompt_tokens, r->output_tokens);
    r->timer.kind = TIMER_RECORD;
    r->trace.assigned_ns = r->trace.prefill_begin_ns = r->trace.prefill_end_ns = r->trace.first_token_ns = -1;
    r->trace.kv_open_ns = r->trace.kv_commit_ns = r->decode_begin_ns = r->trace.end_ns = -1;
    ts_map_put(core->records, r->key, r->key_bytes, r);
    index_put(&core->by_number, r->number, r);
    count_client(core, r->generate.client, 1);
    link_live(core, r);
    core->held_bytes += r->prompt.bytes;
    core->counts.accepted++;
    core->dispatch = true;
    enqueue(core, r);
    accept_resumed(core, r);
    return r;
}

void request_generate(struct router_core *core, const struct ts_event_message *m, struct client *client)
{
    const struct ts_msg_generate *g = &m->msg.generate;
    struct record *r = record_find(core, g->client, g->request_id);
    enum ts_reason reason;
    uint32_t retry_ms;
    if (r && r->generate.digest != g->digest) {
        refuse(core, m, TS_REASON_ID_CONFLICT, 0,
               "this request id was used for another request: choose a new one");
        return;
    }
    if (r) {
        stream_attach(core, r, client, g);
        ts_actions_drop(core->out, m->bulk);
        return;
    }
    const char *words = admission(core, m, &reason, &retry_ms);
    if (words) {
        if (retry_ms > 0) /* else there is nothing to serve */
            count_refused(core, g, m->bulk.bytes);
        refuse(core, m, reason, retry_ms, words);
        return;
    }
    r = accept_request(core, m);
    stream_attach(core, r, client, g);
    if (r->count >= r->generate.sampling.max_tokens) /* resumed, and only its End was lost */
        request_end(core, r, TS_FINISH_LENGTH, TS_REASON_NONE, "");
}

void request_cancel(struct router_core *core, const struct ts_event_message *m)
{
    struct record *r = record_find(core, m->msg.cancel.client, m->msg.cancel.request_id);
    uint64_t asking = m->peer;
    if (r && r->state != RECORD_ENDED)
        request_end(core, r, TS_FINISH_CANCELLED, TS_REASON_CANCELLED, "");
    if (r && r->client_peer == asking)
        return;                                                       /* has its End */
    struct ts_action_send *s = stream_send(core, asking, TS_MSG_END); /* an operator's answer */
    s->msg.end = (struct ts_msg_end){.request_id = m->msg.cancel.request_id,
                                     .epoch = core->incarnation,
                                     .next_index = r ? (uint32_t)r->count : 0,
                                     .finish = r ? r->finish : TS_FINISH_ERROR,
                                     .reason = r ? r->reason : TS_REASON_NOT_FOUND};
}

void request_fill_trace(const struct router_core *core, const struct record *r, struct ts_trace *out)
{
    *out = r->trace;
    out->decode_begin_ns = r->decode_begin_ns;
    out->client = r->generate.client;
    out->request_id = r->generate.request_id;
    out->rid = (struct ts_rid){core->incarnation, r->number, r->attempt};
    out->finish = r->finish;
    out->reason = r->reason;
    out->output_tokens = (uint32_t)r->count;
    out->attempts = r->attempt;
    out->prefill = ts_str_of(r->prefill_id);
    out->relay = ts_str_of(r->relay_id);
    out->decode = ts_str_of(r->decode_id);
    router_codec_trace(r, out);
}

static ts_time reattach_until(const struct router_core *core, const struct record *r)
{
    uint32_t ms = r->generate.reattach_ms ? r->generate.reattach_ms : core->settings.reattach_ms;
    return r->client ? TS_TIME_NEVER : r->detached_at + ms * TS_MS;
}

static ts_time starved_at(const struct router_core *core, const struct record *r)
{
    return r->state == RECORD_QUEUED ? r->waiting_since + core->settings.no_worker_ms * TS_MS : TS_TIME_NEVER;
}

static ts_time sooner(ts_time a, ts_time b)
{
    return a < b ? a : b;
}

void request_schedule(struct router_core *core, struct record *r)
{
    ts_time at = TS_TIME_NEVER;
    if (r->state != RECORD_ENDED)
        at = sooner(r->deadline, sooner(reattach_until(core, r), starved_at(core, r)));
    if (r->state == RECORD_QUEUED && r->retry_at > core->now)
        at = sooner(at, r->retry_at);
    timers_set(&core->timers, &r->timer, at);
}

void request_due(struct router_core *core, struct record *r)
{
    core->dispatch = true;
    if (r->deadline <= core->now)
        request_end(core, r, TS_FINISH_DEADLINE, TS_REASON_DEADLINE, "the deadline of the request passed");
    else if (reattach_until(core, r) <= core->now)
        request_end(core, r, TS_FINISH_CANCELLED, TS_REASON_CLIENT_LOST,
                    "the client did not come back in time");
    else if (starved_at(core, r) <= core->now && attempt_only_waits(core, r)) {
        r->waiting_since = core->now;
        request_schedule(core, r);
    } else if (starved_at(core, r) <= core->now)
        request_end(core, r, TS_FINISH_ERROR, TS_REASON_NO_WORKER,
                    "no pair of prefill and decode workers with a relay was there in time: tsctl status "
                    "shows what runs");
    else
        request_schedule(core, r);
}

/* --- the end ----------------------------------------------------------------------------------------- */

static void schedule_ended(struct router_core *core)
{
    timers_set(&core->timers, &core->ended_timer,
               core->ended_head ? core->ended_head->ended_at + core->settings.ended_keep_ms * TS_MS
                                : TS_TIME_NEVER);
}

static void forget_oldest(struct router_core *core)
{
    struct record *r = core->ended_head;
    core->ended_head = r->next;
    *(r->next ? &r->next->prev : &core->ended_tail) = NULL;
    core->ended_count--;
    ts_map_remove(core->records, r->key, r->key_bytes);
    r->next = core->dead_records;
    core->dead_records = r;
}

void request_trim(struct router_core *core)
{
    while (core->ended_count > core->settings.ended_keep_count)
        forget_oldest(core);
    schedule_ended(core);
}

void request_ended_due(struct router_core *core)
{
    while (core->ended_head && core->ended_head->ended_at + core->settings.ended_keep_ms * TS_MS <= core->now)
        forget_oldest(core);
}

void request_end(struct router_core *core, struct record *r, enum ts_finish finish, enum ts_reason reason,
                 const char *text)
{
    attempt_release(core, r, reason == TS_REASON_NONE ? TS_REASON_FINISHED : reason);
    refeed_drop(core, r, reason == TS_REASON_NONE ? TS_REASON_FINISHED : reason);
    record_state_set(core, r, RECORD_ENDED);
    r->finish = finish;
    r->reason = reason;
    snprintf(r->text, sizeof r->text, "%s", text);
    r->ended_at = core->now;
    r->trace.end_ns = core->now - r->accepted_at;
    count_ended(core, r);
    core->held_bytes -= r->prompt.bytes;
    core->counts.ended++;
    index_remove(&core->by_number, r->number);
    count_client(core, r->generate.client, -1);
    ts_actions_drop(core->out, r->prompt);
    r->prompt = (struct ts_bulk){.slot = 0};
    stream_end(core, r);
    request_fill_trace(core, r, &ts_actions_add(core->out, TS_ACTION_TRACE)->trace.trace);
    unlink_live(core, r);
    r->prev = core->ended_tail;
    r->next = NULL;
    *(core->ended_tail ? &core->ended_tail->next : &core->ended_head) = r;
    core->ended_tail = r;
    core->ended_count++;
}
