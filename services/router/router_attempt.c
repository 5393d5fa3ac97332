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
#include "services/router/router_impl.h"

#define RETRY_MIN   (5 * TS_MS)
#define RETRY_MAX   TS_S
#define WORKERS_MAX 1024
#define DISPATCH_TRIES                                                                                       \
    8 /* records looked at when nothing fits: they are alike but for model and past failures */

static struct ts_rid rid_of(const struct router_core *core, const struct record *r)
{
    return (struct ts_rid){core->incarnation, r->number, r->attempt};
}

/* The record whose present attempt this is, or NULL. */
static struct record *find_current(const struct router_core *core, struct ts_rid rid)
{
    struct record *r = rid.router == core->incarnation ? ts_map_get_u64(core->by_number, rid.request) : NULL;
    return r && r->attempt == rid.attempt && (r->prefill || r->decode) ? r : NULL;
}

/* For messages: those of other attempts are dropped and counted. */
static struct record *current(struct router_core *core, struct ts_rid rid)
{
    struct record *r = find_current(core, rid);
    core->counts.stale += !r;
    return r;
}

static bool avoided(const struct record *r, const char *id)
{
    for (uint32_t i = 0; i < r->avoid_count; i++) {
        if (strcmp(r->avoid[i], id) == 0)
            return true;
    }
    return false;
}

static size_t candidates(const struct router_core *core, const struct record *r, enum ts_phase phase,
                         struct route_worker *out, struct member **members)
{
    struct member *m;
    size_t count = 0;
    for (size_t cursor = 0; count < WORKERS_MAX && (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        const struct ts_profile *p = &m->hello.profile;
        if (m->role != TS_ROLE_WORKER || !member_ready(m) || !(p->phase & phase))
            continue;
        if (r->generate.model.count && !ts_str_equal(p->model, r->generate.model))
            continue;
        if (phase == TS_PHASE_PREFILL && !relay_alive(core, m))
            continue;
        members[count] = m;
        out[count++] =
            (struct route_worker){.id = m->id,
                                  .fingerprint = p->fingerprint,
                                  .in_flight = phase == TS_PHASE_PREFILL ? m->unstarted : m->assigned,
                                  .limit = phase == TS_PHASE_PREFILL ? core->settings.prefill_inflight_max
                                                                     : core->settings.decode_inflight_max,
                                  .avoid = avoided(r, m->id)};
    }
    return count;
}

static void set_codec(const struct router_core *core, struct record *r, const char *plan_codec)
{
    if (r->codec[0]) /* fixed by the first attempt, so that all encode alike */
        return;
    if (r->generate.codec.count) {
        snprintf(r->codec, sizeof r->codec, "%.*s", (int)r->generate.codec.count, r->generate.codec.data);
        r->codec_why = "request";
    } else {
        snprintf(r->codec, sizeof r->codec, "%s", plan_codec ? plan_codec : core->settings.default_codec);
        r->codec_why = plan_codec ? "plan" : "default";
    }
}

static struct ts_msg_assign assign_of(const struct router_core *core, const struct record *r,
                                      enum ts_phase role)
{
    ts_time left = r->deadline == TS_TIME_NEVER ? 0 : r->deadline - core->now;
    return (struct ts_msg_assign){.rid = rid_of(core, r),
                                  .role = role,
                                  .term = core->term,
                                  .plan = core->number,
                                  .prompt_kind = r->generate.prompt_kind,
                                  .sampling = r->generate.sampling,
                                  .stops = r->generate.stops,
                                  .remaining_ms = left > 0 ? (uint32_t)(left / TS_MS) + 1 : 0,
                                  .age_ms = (uint64_t)((core->now - r->accepted_at) / TS_MS),
                                  .codec = ts_str_of(r->codec),
                                  .fingerprint = r->decode->hello.profile.fingerprint,
                                  .produced = {r->tokens, (uint32_t)r->count}};
}

void attempt_begin(struct router_core *core, struct record *r, struct member *p, struct member *d)
{
    r->attempt++;
    r->prefill = p;
    r->decode = d;
    r->kv_done = false;
    d->assigned++;
    core->counts.retries += r->attempt > 1;
    snprintf(r->decode_id, sizeof r->decode_id, "%s", d->id);
    r->trace.term = core->term;
    r->trace.plan = core->number;
    r->trace.assigned_ns = core->now - r->accepted_at;
    r->trace.kv_open_ns = r->trace.kv_commit_ns = -1;
    record_state_set(core, r, r->count ? RECORD_STREAMING : RECORD_ASSIGNED);
    struct ts_action_send *s = member_send(core, d, TS_MSG_ASSIGN);
    s->msg.assign = assign_of(core, r, TS_PHASE_DECODE);
}

static void assign(struct router_core *core, struct record *r, struct member *p, struct member *d,
                   const char *plan_codec)
{
    p->assigned++;
    p->unstarted++;
    set_codec(core, r, plan_codec);
    refeed_drop(core, r, TS_REASON_FINISHED); /* a new one takes its place */
    r->copy.fingerprint = p->hello.profile.fingerprint;
    snprintf(r->prefill_id, sizeof r->prefill_id, "%s", p->id);
    snprintf(r->relay_id, sizeof r->relay_id, "%.*s", (int)p->hello.profile.relay.count,
             p->hello.profile.relay.data);
    r->trace.prefill_begin_ns = r->trace.prefill_end_ns = -1;
    attempt_begin(core, r, p, d);
    struct ts_action_send *s = member_send(core, p, TS_MSG_ASSIGN);
    s->msg.assign = assign_of(core, r, TS_PHASE_PREFILL);
    s->msg.assign.decode = ts_str_of(d->id);
    s->msg.assign.decode_endpoint = d->hello.profile.kv_endpoint;
    s->msg.assign.decode_incarnation = d->incarnation;
    s->bulk = r->prompt;
}

static bool try_assign(struct router_core *core, struct record *r)
{
    struct route_worker prefill[WORKERS_MAX], decode[WORKERS_MAX];
    struct member *p[WORKERS_MAX], *d[WORKERS_MAX];
    struct route_choice choice;
    size_t prefill_count = candidates(core, r, TS_PHASE_PREFILL, prefill, p);
    size_t decode_count = candidates(core, r, TS_PHASE_DECODE, decode, d);
    if (!route_pick(prefill, prefill_count, decode, decode_count, core->plan.shares, core->plan.share_count,
                    &choice))
        return false;
    assign(core, r, p[choice.prefill], d[choice.decode], choice.codec);
    return true;
}

struct member *attempt_pick_decode(struct router_core *core, const struct record *r)
{
    struct route_worker decode[WORKERS_MAX];
    const struct route_worker first = {
        .id = r->prefill_id, .fingerprint = r->copy.fingerprint, .limit = 1}; /* whose KV it is */
    struct member *d[WORKERS_MAX];
    struct route_choice choice;
    size_t count = candidates(core, r, TS_PHASE_DECODE, decode, d);
    bool found = route_pick(&first, 1, decode, count, core->plan.shares, core->plan.share_count, &choice);
    return found ? d[choice.decode] : NULL;
}

void attempt_dispatch(struct router_core *core)
{
    struct record *next;
    int tries = 0;
    for (struct record *r = core->queue_head; r && tries < DISPATCH_TRIES; r = next) {
        next = r->queue_next;
        if (r->retry_at > core->now)
            continue;
        if (!refeed_dispatch(core, r) && !try_assign(core, r))
            tries++;
    }
}

/* Prefill counts as busy with a request until decode has the KV. */
static void prefill_over(struct record *r)
{
    if (r->prefill && !r->kv_done)
        r->prefill->unstarted--;
    r->kv_done = true;
    r->copy.feeder = NULL;
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
    p->assigned--;
    r->prefill = NULL;
    release_one(core, p, rid_of(core, r), TS_REASON_FINISHED);
}

void attempt_release(struct router_core *core, struct record *r, enum ts_reason reason)
{
    struct member *p = r->prefill, *d = r->decode;
    if (p && !r->kv_done)
        p->unstarted--;
    r->kv_done = true;
    if (p)
        p->assigned--;
    if (d)
        d->assigned--;
    r->prefill = r->decode = NULL;
    refeed_stop(core, r, reason);
    release_one(core, p, rid_of(core, r), reason);
    if (d != p)
        release_one(core, d, rid_of(core, r), reason);
}

void attempt_fail(struct router_core *core, struct record *r, enum ts_reason reason,
                  const struct member *blame, const char *text)
{
    ts_time wait = RETRY_MIN << (r->attempt < 8 ? r->attempt : 8);
    ts_actions_log(core->out, TS_LOG_INFO, "event=attempt_failed request=%llu attempt=%u reason=%s worker=%s",
                   (unsigned long long)r->number, r->attempt, ts_reason_name(reason),
                   blame ? blame->id : "-");
    if (blame && !avoided(r, blame->id))
        snprintf(r->avoid[r->avoid_count++ % ROUTER_AVOID_MAX], sizeof r->avoid[0], "%s", blame->id);
    if (r->avoid_count > ROUTER_AVOID_MAX)
        r->avoid_count = ROUTER_AVOID_MAX;
    if (r->attempt >= core->settings.max_attempts) {
        char words[200];
        snprintf(words, sizeof words, "%u attempts failed, the last one with %s %.120s", r->attempt,
                 ts_reason_name(reason), text);
        request_end(core, r, TS_FINISH_ERROR, TS_REASON_RETRIES, words);
        return;
    }
    attempt_release(core, r, reason);
    record_state_set(core, r, RECORD_QUEUED);
    r->retry_at = core->now + (wait < RETRY_MAX ? wait : RETRY_MAX);
    router_wake(core, r->retry_at);
    router_wake(core, core->now + core->settings.no_worker_ms * TS_MS);
}

/* Appends what is new. False: the items do not continue the stream. */
static bool take_items(struct router_core *core, struct record *r, const struct ts_msg_output *m)
{
    if (m->first_index > r->count)
        return false;
    for (uint32_t i = 0; i < m->items.count; i++) {
        size_t index = (size_t)m->first_index + i;
        if (index == r->count) {
            request_append(core, r, &m->items.data[i]);
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
    size_t before = r->count;
    if (!take_items(core, r, m)) {
        attempt_fail(core, r, TS_REASON_INTERNAL, from, "output with a gap");
        return;
    }
    if (r->count > before && r->state == RECORD_ASSIGNED)
        record_state_set(core, r, RECORD_STREAMING);
    if (from == r->decode && r->trace.decode_begin_ns < 0)
        r->trace.decode_begin_ns = core->now - r->accepted_at;
    if (from == r->decode && m->role == TS_PHASE_DECODE)
        prefill_over(r);
    request_publish(core, r, before);
    if (m->finish != TS_FINISH_NONE && (size_t)m->first_index + m->items.count == r->count)
        request_end(core, r, m->finish, TS_REASON_NONE, "");
    let_prefill_go(core, r);
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
    attempt_fail(core, r, m->reason, from, "refused");
}

void attempt_report(struct router_core *core, struct member *from, const struct ts_msg_report *m)
{
    struct record *r = current(core, m->rid);
    ts_time since = r ? core->now - r->accepted_at : 0;
    if (!r || (from != r->prefill && from != r->decode))
        return;
    r->trace.prompt_tokens = m->prompt_tokens;
    if (m->role == TS_PHASE_PREFILL) {
        r->trace.prefill_end_ns = since;
        r->trace.prefill_begin_ns = since - m->run_ns;
        let_prefill_go(core, r);
        return;
    }
    r->trace.kv_commit_ns = since;
    r->trace.kv_open_ns = since - m->run_ns;
    r->trace.kv_bytes_raw = m->kv_bytes_raw;
    r->trace.kv_bytes_sent = m->kv_bytes_sent;
    prefill_over(r);
    let_prefill_go(core, r);
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
        prefill_over(r);
        let_prefill_go(core, r);
    } else if (!r->kv_done) {
        snprintf(words, sizeof words, "%.*s", m->text.count < 180 ? (int)m->text.count : 180,
                 m->text.count ? m->text.data : "");
        attempt_fail(core, r, m->reason, NULL, words);
    }
}

/* Whether the router believes that this worker holds the record's attempt. */
static bool expects(const struct record *r, const struct member *from, enum ts_phase role)
{
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
    return item->next_index >= r->count && item->next_index > 0 ? TS_RESYNC_RESEND : TS_RESYNC_KEEP;
}

static bool listed(const struct ts_msg_resync *m, const struct ts_rid rid, enum ts_phase role)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        if (ts_rid_equal(m->items.data[i].rid, rid) && m->items.data[i].role == role)
            return true;
    }
    return false;
}

void attempt_resync(struct router_core *core, struct member *from, const struct ts_msg_resync *m)
{
    struct ts_resync_answer *answers =
        ts_arena_zalloc(&core->out->arena, (m->items.count + 1) * sizeof *answers);
    struct record *r;
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
    for (size_t cursor = 0; (r = ts_map_next(core->by_number, &cursor, NULL, NULL));) {
        struct ts_rid rid = rid_of(core, r);
        bool lost = (r->decode == from && !listed(m, rid, TS_PHASE_DECODE)) ||
                    (r->prefill == from && !r->kv_done && !listed(m, rid, TS_PHASE_PREFILL));
        if (lost)
            attempt_fail(core, r, TS_REASON_PEER_LOST, NULL, "lost with a session");
    }
    plan_changed(core);
}

void attempt_member_lost(struct router_core *core, const struct member *member)
{
    struct record *r;
    for (size_t cursor = 0; (r = ts_map_next(core->by_number, &cursor, NULL, NULL));) {
        bool relay = member->role == TS_ROLE_RELAY && r->prefill && !r->kv_done &&
                     strcmp(r->relay_id, member->id) == 0;
        bool needed =
            r->decode == member || r->copy.feeder == member || (r->prefill == member && !r->kv_done);
        if (needed || relay) {
            attempt_fail(core, r, TS_REASON_PEER_LOST, member->role == TS_ROLE_WORKER ? member : NULL,
                         "its worker or relay is gone");
        } else if (r->prefill == member) { /* its part was over */
            r->prefill->assigned--;
            r->prefill = NULL;
        }
    }
}
