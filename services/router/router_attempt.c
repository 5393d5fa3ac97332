/*
 * A request towards its workers: choosing them, what they report, and trying again. Only the router picks; a
 * failed attempt is released everywhere before the next one begins.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/router/route_policy.h"
#include "services/router/router_codec.h"
#include "services/router/router_impl.h"

#define RETRY_MIN          (5 * TS_MS)
#define RETRY_MAX          TS_S
#define PROMPT_TOKENS_SEEN 1e6 /* of text prompts: what was counted earlier then counts half */
#define DISPATCH_TRIES                                                                                       \
    8 /* records looked at when nothing fits: they are alike but for model and past failures */

static struct ts_rid rid_of(const struct router_core *core, const struct record *r)
{
    return (struct ts_rid){core->incarnation, r->number, r->attempt};
}

/* The record whose present attempt this is, or NULL. */
static struct record *find_current(const struct router_core *core, struct ts_rid rid)
{
    struct record *r = rid.router == core->incarnation ? index_get(&core->by_number, rid.request) : NULL;
    return r && r->attempt == rid.attempt && (r->prefill || r->decode) ? r : NULL;
}

/* For messages: those of other attempts are dropped and counted. */
static struct record *current(struct router_core *core, struct ts_rid rid)
{
    struct record *r = find_current(core, rid);
    core->counts.stale += !r;
    return r;
}

/* --- what its workers have of it --------------------------------------------------------------------- */

/* KV that it is expected to need in the end. */
static uint32_t blocks_of(const struct record *r)
{
    uint32_t output = r->output_tokens > r->count ? r->output_tokens : (uint32_t)r->count;
    return ts_kv_blocks_for(r->prompt_tokens + output);
}

static void count_kv(struct router_core *core, struct member *d, int64_t blocks)
{
    if (blocks < 0 && load_full(d))
        gauge_done(&d->blocks, (double)-blocks);
    load_pass(core, d);
    d->kv_assigned += (uint64_t)blocks;
    d->route.kv_used = d->load.kv_blocks_used > d->kv_assigned ? d->load.kv_blocks_used : d->kv_assigned;
}

static void take_workers(struct router_core *core, struct record *r, struct member *p, struct member *d)
{
    r->prefill = p;
    r->decode = d;
    r->kv_done = r->resent = false;
    r->held_blocks = blocks_of(r);
    if (p) {
        r->computing = true;
        r->held_tokens = r->prompt_tokens;
        load_pass(core, p);
        p->route.unstarted++;
        p->route.prompt_tokens += r->held_tokens;
    }
    d->route.rows++;
    count_kv(core, d, r->held_blocks);
    core->counts.retries += r->attempt > 1;
}

/* Prefill has computed the prompt: its next tokens can go there. */
static void prompt_gone(struct router_core *core, struct record *r, bool computed)
{
    if (!r->computing || !r->prefill)
        return;
    if (computed)
        gauge_done(&r->prefill->prompts, r->prompt_tokens);
    load_pass(core, r->prefill);
    r->computing = false;
    r->prefill->route.prompt_tokens -= r->held_tokens;
    core->dispatch = true;
}

/* Prefill counts as busy with a request until decode has the KV. */
static void prefill_over(struct router_core *core, struct record *r)
{
    if (r->kv_done)
        return;
    prompt_gone(core, r, true);
    if (r->prefill)
        r->prefill->route.unstarted--;
    r->kv_done = true;
    r->copy.feeder = NULL;
    core->dispatch = true;
}

static void give_workers(struct router_core *core, struct record *r)
{
    if (r->prefill && !r->kv_done) {
        prompt_gone(core, r, false);
        r->prefill->route.unstarted--;
    }
    if (r->decode) {
        r->decode->route.rows--;
        count_kv(core, r->decode, -(int64_t)r->held_blocks);
    }
    r->kv_done = true;
    r->prefill = r->decode = NULL;
    core->dispatch = true;
}

/* --- assigning --------------------------------------------------------------------------------------- */

static struct ts_u32s produced_of(const struct router_core *core, const struct record *r)
{
    uint32_t *tokens = ts_arena_alloc(&core->out->arena, r->count * sizeof *tokens);
    for (size_t i = 0; i < r->count; i++)
        tokens[i] = r->items[i].token;
    return (struct ts_u32s){tokens, (uint32_t)r->count};
}

static struct ts_msg_assign assign_of(const struct router_core *core, const struct record *r)
{
    ts_time left = r->deadline == TS_TIME_NEVER ? 0 : r->deadline - core->now;
    return (struct ts_msg_assign){.rid = rid_of(core, r),
                                  .term = core->term,
                                  .plan = core->number,
                                  .prompt_kind = r->generate.prompt_kind,
                                  .sampling = r->generate.sampling,
                                  .stops = r->generate.stops,
                                  .remaining_ms = left > 0 ? (uint32_t)(left / TS_MS) + 1 : 0,
                                  .age_ms = (uint64_t)((core->now - r->accepted_at) / TS_MS),
                                  .codec = ts_str_of(r->codec),
                                  .fingerprint = r->decode->hello.profile.fingerprint,
                                  .produced = produced_of(core, r)};
}

void attempt_begin(struct router_core *core, struct record *r, struct member *p, struct member *d)
{
    r->attempt++;
    take_workers(core, r, p, d);
    snprintf(r->decode_id, sizeof r->decode_id, "%s", d->id);
    r->trace.term = core->term;
    r->trace.plan = core->number;
    r->trace.assigned_ns = core->now - r->accepted_at;
    r->trace.kv_open_ns = r->trace.kv_commit_ns = -1;
    record_state_set(core, r, r->count ? RECORD_STREAMING : RECORD_ASSIGNED);
    const struct ts_msg_assign same = assign_of(core, r);
    struct ts_action_send *s = member_send(core, d, TS_MSG_ASSIGN);
    s->msg.assign = same;
    s->msg.assign.role = p == d ? TS_PHASE_BOTH : TS_PHASE_DECODE;
    if (p && p != d) {
        s = member_send(core, p, TS_MSG_ASSIGN);
        s->msg.assign = same;
        s->msg.assign.role = TS_PHASE_PREFILL;
        s->msg.assign.decode = ts_str_of(d->id);
        s->msg.assign.decode_endpoint = d->hello.profile.kv_endpoint;
        s->msg.assign.decode_incarnation = d->incarnation;
    }
    if (p)
        s->bulk = r->prompt;
}

static void assign(struct router_core *core, struct record *r, struct member *p, struct member *d,
                   const char *plan_codec)
{
    struct ts_str relay = p->hello.profile.relay;
    router_codec_fix(core, r, p, d, plan_codec);
    refeed_drop(core, r, TS_REASON_FINISHED); /* a new one takes its place */
    r->copy.fingerprint = p->hello.profile.fingerprint;
    snprintf(r->prefill_id, sizeof r->prefill_id, "%s", p->id);
    snprintf(r->relay_id, sizeof r->relay_id, "%.*s", p != d ? (int)relay.count : 0,
             relay.count ? relay.data : "");
    r->trace.prefill_begin_ns = r->trace.prefill_end_ns = -1;
    attempt_begin(core, r, p, d);
}

static struct route_request request_of(const struct record *r)
{
    return (struct route_request){.model = r->model,
                                  .prompt_tokens = r->prompt_tokens,
                                  .kv_blocks = blocks_of(r),
                                  .avoid = r->avoid,
                                  .avoid_count = r->avoid_count};
}

static const struct route_class *class_of(const struct router_core *core, struct record *r)
{
    const struct plan *plan = &core->plan;
    r->length_class =
        (uint32_t)route_class_of(plan->classes, plan->class_count, r->prompt_tokens, r->output_tokens);
    return &plan->classes[r->length_class];
}

static bool try_assign(struct router_core *core, struct record *r)
{
    const struct plan *plan = &core->plan;
    const struct route_request request = request_of(r);
    const struct route_limits limits = plan_limits(core);
    struct route_pair pair;
    unsigned avoided = 0;
    const struct route_share *share = plan_pick(core, &request, r->output_tokens, &r->length_class, &avoided);
    if ((share && load_elsewhere(core, &r->generate, &request, share, &pair)) ||
        ((!share || avoided > 0) &&
         route_pick_any(core->workers, core->worker_count, &request, limits, &pair) &&
         (!share || pair.avoided < avoided))) {
        assign(core, r, member_of(core->workers[pair.prefill]), member_of(core->workers[pair.decode]), "");
        return true;
    }
    if (!share)
        return false;
    plan_sent(core, (size_t)(share - plan->shares), r->length_class);
    assign(core, r, member_of(plan->replicas[share->prefill].worker),
           member_of(plan->replicas[share->decode].worker), share->codec);
    return true;
}

struct member *attempt_pick_decode(struct router_core *core, struct record *r)
{
    const struct plan *plan = &core->plan;
    const struct route_request request = request_of(r);
    const struct route_limits limits = plan_limits(core);
    struct route_worker feeder = {.key = router_key(ts_str_of(r->prefill_id)),
                                  .model = r->model,
                                  .fingerprint = r->copy.fingerprint,
                                  .phases = TS_PHASE_PREFILL,
                                  .sends = true};
    size_t picked = ROUTE_NONE;
    if (plan->class_count) {
        const struct route_class *of = class_of(core, r);
        picked = route_pick_fed(of, plan->replicas, &request, limits, &feeder);
        if (picked != ROUTE_NONE)
            return member_of(plan->replicas[of->shares[picked].decode].worker);
    }
    picked = route_pick_decode(core->workers, core->worker_count, &request, limits, &feeder);
    return picked != ROUTE_NONE ? member_of(core->workers[picked]) : NULL;
}

/* Who could take it is there, and busy: that is no reason to give it up. */
bool attempt_only_waits(const struct router_core *core, const struct record *r)
{
    const struct route_request request = request_of(r);
    struct route_pair pair;
    return route_pick_any(core->workers, core->worker_count, &request,
                          (struct route_limits){UINT32_MAX, UINT32_MAX}, &pair);
}

void attempt_dispatch(struct router_core *core)
{
    struct record *next;
    int tries = 0;
    if (!core->dispatch)
        return;
    core->dispatch = false;
    for (struct record *r = core->queue_head; r && tries < DISPATCH_TRIES; r = next) {
        next = r->queue_next;
        if (r->retry_at > core->now)
            continue;
        if (!refeed_dispatch(core, r) && !try_assign(core, r))
            tries++;
    }
}

static void release_one(struct router_core *core, struct member *member, struct ts_rid rid,
                        enum ts_reason reason)
{
    struct ts_action_send *s = member ? member_send(core, member, TS_MSG_RELEASE) : NULL;
    if (s)
        s->msg.release = (struct ts_msg_release){.rid = rid, .reason = reason};
}

/* Prefill has told all it knows, and decode owns the attempt: its record there would only last as long as the
 * stream, and delay a drain. */
static void let_prefill_go(struct router_core *core, struct record *r)
{
    struct member *p = r->prefill;
    if (!p || p == r->decode || !r->kv_done || r->count == 0 || r->trace.prefill_end_ns < 0)
        return;
    r->prefill = NULL;
    release_one(core, p, rid_of(core, r), TS_REASON_FINISHED);
}

void attempt_release(struct router_core *core, struct record *r, enum ts_reason reason)
{
    struct member *p = r->prefill, *d = r->decode;
    give_workers(core, r);
    refeed_stop(core, r, reason);
    release_one(core, p, rid_of(core, r), reason);
    if (d != p)
        release_one(core, d, rid_of(core, r), reason);
}

/* The last few are remembered. */
static void avoid(struct record *r, uint64_t key)
{
    for (uint32_t i = 0; i < r->avoid_count; i++) {
        if (r->avoid[i] == key)
            return;
    }
    if (r->avoid_count == ROUTER_AVOID_MAX)
        memmove(r->avoid, r->avoid + 1, --r->avoid_count * sizeof r->avoid[0]);
    r->avoid[r->avoid_count++] = key;
}

/* Memory that others have comes back: to ask again is to wait. But not for ever, where the stream stands
 * still. */
static bool only_waited(const struct router_core *core, struct record *r, enum ts_reason reason)
{
    if (reason != TS_REASON_KV_NO_MEMORY && reason != TS_REASON_PREEMPTED)
        return false;
    if (r->short_since == 0 || r->count > r->short_count) {
        r->short_since = core->now;
        r->short_count = r->count;
    }
    return core->now - r->short_since < core->settings.memory_wait_ms * TS_MS;
}

static void attempt_fail(struct router_core *core, struct record *r, enum ts_reason reason,
                         const struct member *blame, const char *text)
{
    ts_time wait = RETRY_MIN << (r->attempt < 8 ? r->attempt : 8);
    ts_actions_log(core->out, TS_LOG_INFO, "event=attempt_failed request=%llu attempt=%u reason=%s worker=%s",
                   (unsigned long long)r->number, r->attempt, ts_reason_name(reason),
                   blame ? blame->id : "-");
    if (blame)
        avoid(r, blame->route.key);
    r->failures += !only_waited(core, r, reason);
    if (r->failures >= core->settings.max_attempts) {
        char words[200];
        snprintf(words, sizeof words, "%u attempts failed, the last one with %s %.120s", r->attempt,
                 ts_reason_name(reason), text);
        request_end(core, r, TS_FINISH_ERROR, TS_REASON_RETRIES, words);
        return;
    }
    attempt_release(core, r, reason);
    r->retry_at = core->now + (wait < RETRY_MAX ? wait : RETRY_MAX);
    record_state_set(core, r, RECORD_QUEUED);
}

/* Appends what is new. False: the items do not continue the stream. */
static bool take_items(struct router_core *core, struct record *r, const struct ts_msg_output *m)
{
    if (m->first_index > r->count)
        return false;
    for (uint32_t i = 0; i < m->items.count; i++) {
        size_t index = (size_t)m->first_index + i;
        if (index == r->count) {
            stream_append(core, r, &m->items.data[i]);
        } else if (r->items[index].token != m->items.data[i].token) { /* what was delivered stands */
            core->counts.contradictions++;
            ts_actions_log(
                core->out, TS_LOG_ERROR, "event=contradiction request=%llu index=%zu delivered=%u now=%u",
                (unsigned long long)r->number, index, r->items[index].token, m->items.data[i].token);
        }
    }
    return true;
}

void attempt_output(struct router_core *core, struct member *from, const struct ts_msg_output *m)
{
    struct record *r = current(core, m->rid);
    if (!r || (from != r->prefill && from != r->decode))
        return;
    if (!take_items(core, r, m)) {
        if (!r->resent) /* else it was sent before the worker heard what is wanted */
            attempt_fail(core, r, TS_REASON_INTERNAL, from, "output with a gap");
        return;
    }
    if (from == r->decode) /* prefill's token 0 is not what was asked for */
        r->resent = false;
    if (r->count > 0 && r->state == RECORD_ASSIGNED)
        record_state_set(core, r, RECORD_STREAMING);
    if (from == r->decode && r->decode_begin_ns < 0)
        r->decode_begin_ns = core->now - r->accepted_at;
    if (r->computing && from == r->prefill && r->count > 0)
        prompt_gone(core, r, true);
    if (from == r->decode && (m->role & TS_PHASE_DECODE) && !r->kv_done)
        prefill_over(core, r);
    stream_publish(core, r);
    if (m->finish != TS_FINISH_NONE && (size_t)m->first_index + m->items.count == r->count)
        request_end(core, r, m->finish, TS_REASON_NONE, "");
    if (r->prefill)
        let_prefill_go(core, r);
}

void attempt_outputs(struct router_core *core, struct member *from, const struct ts_msg_output_batch *m)
{
    core->batching = true; /* an attempt that is named twice must not move what is on its way already */
    for (uint32_t i = 0; i < m->outputs.count; i++)
        attempt_output(core, from, &m->outputs.data[i]);
    core->batching = false;
}

void attempt_failed(struct router_core *core, struct member *from, const struct ts_msg_attempt_failed *m)
{
    struct record *r = current(core, m->rid);
    char words[200];
    if (!r || (from != r->prefill && from != r->decode))
        return;
    if (m->role == TS_PHASE_PREFILL && r->kv_done) /* its part was over */
        return;
    snprintf(words, sizeof words, "%.*s", m->text.count < 180 ? (int)m->text.count : 180,
             m->text.count ? m->text.data : "");
    if (m->final)
        request_end(core, r, TS_FINISH_ERROR, m->reason, words);
    else
        attempt_fail(core, r, m->reason, m->reason == TS_REASON_PREEMPTED ? NULL : from, words);
}

void attempt_refused(struct router_core *core, struct member *from, const struct ts_msg_assign_refused *m)
{
    struct record *r = current(core, m->rid);
    if (m->reason == TS_REASON_DRAINING)
        member_drains(core, from);
    if (!r || (from != r->prefill && from != r->decode))
        return;
    const char *words = m->text.count
                            ? ts_arena_printf(&core->out->arena, "%.*s", (int)m->text.count, m->text.data)
                            : "refused";
    if (m->reason == TS_REASON_UNSUPPORTED) /* nobody with this model would do it */
        request_end(core, r, TS_FINISH_ERROR, m->reason, words);
    else
        attempt_fail(core, r, m->reason, from, words);
}

/* The books are corrected by who has tokenised the prompt. */
static void count_prompt(struct record *r, const struct member *from, uint32_t tokens)
{
    TS_ASSERT(from && from->model);
    struct model *model = from->model;
    if (r->trace.prompt_tokens == 0 && r->generate.prompt_kind != TS_PROMPT_TOKENS) {
        model->bytes += (double)r->prompt.bytes;
        model->tokens += tokens;
        if (model->tokens > PROMPT_TOKENS_SEEN) {
            model->bytes /= 2;
            model->tokens /= 2;
        }
    }
    r->trace.prompt_tokens = r->prompt_tokens = tokens;
}

void attempt_report(struct router_core *core, struct member *from, const struct ts_msg_report *m)
{
    struct record *r = current(core, m->rid);
    ts_time since = r ? core->now - r->accepted_at : 0;
    if (!r || (from != r->prefill && from != r->decode))
        return;
    if (m->prompt_tokens)
        count_prompt(r, from, m->prompt_tokens);
    if (m->role & TS_PHASE_PREFILL) {
        if (from == r->prefill && m->role == TS_PHASE_BOTH)
            prefill_over(core, r);
        else if (from == r->prefill)
            prompt_gone(core, r, true);
        r->trace.prefill_end_ns = since;
        r->trace.prefill_begin_ns = since - m->run_ns;
        let_prefill_go(core, r);
        return;
    }
    r->trace.kv_commit_ns = since;
    r->trace.kv_open_ns = since - m->run_ns;
    r->trace.kv_bytes_raw = m->kv_bytes_raw;
    r->trace.kv_bytes_sent = m->kv_bytes_sent;
    attempt_verified(core, r);
}

void attempt_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m)
{
    struct record *r = current(core, m->rid);
    char words[200];
    refeed_transfer(core, from, m);
    if (m->reason == TS_REASON_DRAINING)
        member_drains(core, from);
    if (!r)
        return;
    if (r->copy.feeder == from)
        r->copy.feeder = NULL;
    if (m->reason == TS_REASON_NONE) {
        r->trace.kv_bytes_raw = m->bytes_raw;
        if (r->trace.kv_bytes_sent == 0) /* decode counts more: whole messages */
            r->trace.kv_bytes_sent = m->bytes_sent;
        attempt_verified(core, r);
    } else if (!r->kv_done) {
        snprintf(words, sizeof words, "%.*s", m->text.count < 180 ? (int)m->text.count : 180,
                 m->text.count ? m->text.data : "");
        attempt_fail(core, r, m->reason, NULL, words);
    }
}

void attempt_verified(struct router_core *core, struct record *r)
{
    if (!r->decode)
        return;
    prefill_over(core, r);
    let_prefill_go(core, r);
}

/* Whether the router believes that this worker holds the record's attempt in that role. */
static bool expects(const struct record *r, const struct member *from, enum ts_phase role)
{
    bool single = r->prefill == r->decode;
    if (single || role == TS_PHASE_BOTH)
        return single && role == TS_PHASE_BOTH && r->decode == from;
    return role == TS_PHASE_DECODE ? r->decode == from : r->prefill == from;
}

static enum ts_resync_verdict judge(const struct router_core *core, const struct member *from,
                                    const struct ts_resync_item *item, uint32_t *from_index)
{
    struct record *r = find_current(core, item->rid);
    *from_index = 0;
    if (!r || !expects(r, from, item->role))
        return TS_RESYNC_CANCEL;
    *from_index = (uint32_t)r->count;
    if (from == r->decode)
        r->resent = item->next_index > r->count;
    if (item->next_index < r->count || item->next_index == 0)
        return TS_RESYNC_KEEP;
    return TS_RESYNC_RESEND;
}

static bool listed(const struct ts_msg_resync *m, const struct ts_rid rid, enum ts_phase role)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        if (ts_rid_equal(m->items.data[i].rid, rid) && m->items.data[i].role == role)
            return true;
    }
    return false;
}

static bool is_lost(const struct router_core *core, const struct record *r, const struct member *from,
                    const struct ts_msg_resync *m)
{
    struct ts_rid rid = rid_of(core, r);
    if (r->decode == from)
        return !listed(m, rid, r->prefill == from ? TS_PHASE_BOTH : TS_PHASE_DECODE);
    return r->prefill == from && !r->kv_done && !listed(m, rid, TS_PHASE_PREFILL);
}

void attempt_resync(struct router_core *core, struct member *from, const struct ts_msg_resync *m)
{
    struct ts_resync_answer *answers =
        ts_arena_zalloc(&core->out->arena, (m->items.count + 1) * sizeof *answers);
    from->synced = true;
    core->counts.resyncs++;
    for (uint32_t i = 0; i < m->items.count; i++) {
        const struct ts_resync_item *item = &m->items.data[i];
        answers[i].rid = item->rid;
        answers[i].role = item->role;
        answers[i].verdict = judge(core, from, item, &answers[i].from_index);
    }
    struct ts_action_send *s = member_send(core, from, TS_MSG_RESYNC_REPLY);
    s->msg.resync_reply.items = (struct ts_resync_answers){answers, m->items.count};
    links_watch(core, from);
    for (struct record *r = core->live_head, *next; r; r = next) {
        next = r->next;
        if (is_lost(core, r, from, m))
            attempt_fail(core, r, TS_REASON_PEER_LOST, NULL, "lost with a session");
    }
    phase_synced(core, from);
    plan_changed(core);
}

void attempt_member_lost(struct router_core *core, const struct member *member)
{
    for (struct record *r = core->live_head, *next; r; r = next) {
        next = r->next;
        bool relay = member->role == TS_ROLE_RELAY && r->prefill && !r->kv_done &&
                     strcmp(r->relay_id, member->id) == 0;
        bool needed =
            r->decode == member || r->copy.feeder == member || (r->prefill == member && !r->kv_done);
        if (needed || relay) {
            attempt_fail(core, r, TS_REASON_PEER_LOST, member->role == TS_ROLE_WORKER ? member : NULL,
                         "its worker or relay is gone");
        } else if (r->prefill == member) { /* its part was over */
            r->prefill = NULL;
        }
    }
}
