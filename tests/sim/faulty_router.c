/*
 * The router of the faulty world: sends each request to the prefill and the decode worker, or to the decode
 * worker and the relay where that holds a copy, hears of ends, tries again, releases all in the end. It
 * keeps the books of what it was told.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "faulty.h"
#include "services/worker/worker_impl.h"

#define NEVER_MS 100000000u

static struct faulty_member *member_of(struct faulty_world *w, enum faulty_role role)
{
    return &w->router.members[role];
}

struct faulty_attempt *faulty_attempt_find(struct faulty_world *w, struct ts_rid rid)
{
    for (int i = 0; i < w->router.attempt_count; i++) {
        if (ts_rid_equal(w->router.attempts[i].rid, rid))
            return &w->router.attempts[i];
    }
    return NULL;
}

bool faulty_worker_knows(const struct faulty_node *n, struct ts_rid rid, enum ts_phase role)
{
    return task_find(n->worker, rid, role) != NULL;
}

struct ts_rid faulty_worker_rid(const struct faulty_node *n, uint64_t tag)
{
    const struct task *t = task_by_tag(n->worker, tag);
    return t ? t->rid : (struct ts_rid){0, 0, 0};
}

bool faulty_router_done(const struct faulty_world *w)
{
    for (int i = 0; i < w->router.asked_count; i++) {
        if (w->router.asked[i].state != REQUEST_DONE)
            return false;
    }
    return true;
}

void faulty_router_fini(struct faulty_world *w)
{
    for (int i = 0; i < w->router.asked_count; i++)
        faulty_request_fini(&w->router.asked[i].request);
}

ts_time faulty_router_deadline(const struct faulty_world *w)
{
    ts_time at = TS_TIME_NEVER;
    for (int i = 0; i < w->router.asked_count; i++) {
        const struct faulty_asked *r = &w->router.asked[i];
        ts_time due = r->lost ? 0 : r->state == REQUEST_WAITS ? r->retry_at : TS_TIME_NEVER;
        at = due < at ? due : at;
    }
    return at;
}

static struct ts_action_send *send_to(struct faulty_world *w, struct faulty_member *m, struct ts_actions *out,
                                      enum ts_msg_kind kind)
{
    static const enum ts_channel channels[] = {[FAULTY_RELAY] = TS_CHANNEL_RELAY,
                                               [FAULTY_PREFILL] = TS_CHANNEL_WORKER,
                                               [FAULTY_DECODE] = TS_CHANNEL_WORKER};
    if (!m->session.up)
        return NULL;
    struct ts_action_send *s = ts_actions_send(out, channels[m->node], m->peer, kind);
    ts_session_stamp(&m->session, w->now, &s->envelope);
    return s;
}

/* --- attempts ----------------------------------------------------------------------------------------- */

static void release(struct faulty_world *w, struct faulty_attempt *a, struct ts_actions *out)
{
    for (int node = FAULTY_RELAY; node <= FAULTY_DECODE; node++) {
        struct ts_action_send *s = send_to(w, &w->router.members[node], out, TS_MSG_RELEASE);
        if (s)
            s->msg.release = (struct ts_msg_release){.rid = a->rid, .reason = TS_REASON_CANCELLED};
    }
    a->released = true;
}

/* Whatever ended it: another try after a while. */
static void again_later(struct faulty_world *w, struct faulty_asked *r, struct ts_actions *out)
{
    struct faulty_attempt *a = &w->router.attempts[r->attempt];
    if (r->state != REQUEST_RUNS)
        return;
    bool keep = r->copy && ts_rng_below(&w->rng, 2);
    if (keep) { /* at the workers only: the copy is to be sent again */
        for (int node = FAULTY_PREFILL; node <= FAULTY_DECODE; node++) {
            struct ts_action_send *s = send_to(w, &w->router.members[node], out, TS_MSG_RELEASE);
            if (s)
                s->msg.release = (struct ts_msg_release){.rid = a->rid, .reason = TS_REASON_CANCELLED};
        }
        a->released = true;
    } else {
        release(w, a, out);
        r->copy = false;
    }
    r->state = REQUEST_WAITS;
    r->retry_at = w->now + (ts_time)(1 + ts_rng_below(&w->rng, 300)) * TS_MS;
}

static void assign(struct faulty_world *w, const struct faulty_asked *r, const struct faulty_attempt *a,
                   enum faulty_role role, struct ts_actions *out)
{
    struct faulty_member *m = member_of(w, role), *decode = member_of(w, FAULTY_DECODE);
    struct ts_action_send *s = send_to(w, m, out, TS_MSG_ASSIGN);
    TS_ASSERT(s);
    s->msg.assign =
        (struct ts_msg_assign){.rid = a->rid,
                               .role = role == FAULTY_PREFILL ? TS_PHASE_PREFILL : TS_PHASE_DECODE,
                               .prompt_kind = TS_PROMPT_TOKENS,
                               .sampling = ts_sampling_defaults(),
                               .codec = ts_str_of(r->request.codec_name),
                               .fingerprint = 0x7357,
                               .decode = ts_str_of("decode"),
                               .decode_endpoint = ts_str_of("decode"),
                               .decode_incarnation = decode->session.remote};
    s->msg.assign.sampling.presence_penalty = 0.5f; /* so that a batch names the prompt's tokens */
    if (role != FAULTY_PREFILL)
        return;
    struct ts_frame *prompt = ts_frame_new(r->request.prompt_count * sizeof(uint32_t));
    memcpy(prompt->data, r->request.prompt, prompt->bytes);
    struct faulty_node *self = &w->nodes[FAULTY_ROUTER];
    s->bulk = ts_bulk_put(self->bulks, &prompt);
    self->handles++;
    ts_actions_drop(out, s->bulk);
}

static void refeed(struct faulty_world *w, const struct faulty_attempt *from, const struct faulty_attempt *a,
                   struct ts_actions *out)
{
    struct ts_action_send *s = send_to(w, member_of(w, FAULTY_RELAY), out, TS_MSG_REFEED);
    TS_ASSERT(s);
    s->msg.refeed = (struct ts_msg_refeed){.from = from->rid,
                                           .rid = a->rid,
                                           .decode = ts_str_of("decode"),
                                           .endpoint = ts_str_of("decode"),
                                           .decode_incarnation = member_of(w, FAULTY_DECODE)->session.remote};
}

static void try_request(struct faulty_world *w, int index, struct ts_actions *out)
{
    struct faulty_router *router = &w->router;
    struct faulty_asked *r = &router->asked[index];
    for (int node = FAULTY_RELAY; node <= FAULTY_DECODE; node++) {
        if (!router->members[node].session.up || !router->members[node].ready) {
            r->retry_at = w->now + 50 * TS_MS;
            return;
        }
    }
    if (router->attempt_count == FAULTY_ATTEMPTS_MAX) {
        faulty_broken(w, "request %d comes to no end", index + 1);
        return;
    }
    struct faulty_attempt *a = &router->attempts[router->attempt_count];
    *a = (struct faulty_attempt){
        .rid = {.router = router->incarnation, .request = (uint64_t)index + 1, .attempt = ++r->attempts},
        .request = index,
        .refeed = r->copy};
    assign(w, r, a, FAULTY_DECODE, out);
    if (r->copy)
        refeed(w, &router->attempts[r->attempt], a, out);
    else
        assign(w, r, a, FAULTY_PREFILL, out);
    r->attempt = router->attempt_count++;
    r->copy = false;
    r->state = REQUEST_RUNS;
}

/* --- what is told ------------------------------------------------------------------------------------- */

static struct faulty_asked *current(struct faulty_world *w, struct ts_rid rid)
{
    struct faulty_attempt *a = faulty_attempt_find(w, rid);
    struct faulty_asked *r = a ? &w->router.asked[a->request] : NULL;
    return r && r->attempt >= 0 && &w->router.attempts[r->attempt] == a && r->state == REQUEST_RUNS ? r
                                                                                                    : NULL;
}

static void on_transfer(struct faulty_world *w, const struct ts_msg_transfer *m, struct ts_actions *out)
{
    struct faulty_attempt *a = faulty_attempt_find(w, m->rid);
    struct faulty_asked *r = current(w, m->rid);
    if (!a) {
        faulty_broken(w, "an end of a transfer that nobody asked for");
        return;
    }
    a->transfers++;
    a->reason = m->reason;
    if (r && m->reason == TS_REASON_NONE)
        r->copy = true;
    else if (r)
        again_later(w, r, out);
    else if (m->reason == TS_REASON_NONE) /* of no use any more */
        release(w, a, out);
}

static void on_end_at_decode(struct faulty_world *w, struct ts_rid rid, bool verified, struct ts_actions *out)
{
    struct faulty_attempt *a = faulty_attempt_find(w, rid);
    struct faulty_asked *r = current(w, rid);
    if (!a)
        return;
    a->ends++;
    a->verified |= verified;
    if (r && !verified)
        again_later(w, r, out);
}

static void on_output(struct faulty_world *w, const struct ts_msg_output *m, struct ts_actions *out)
{
    struct faulty_asked *r = current(w, m->rid);
    for (uint32_t i = 0; r && i < m->items.count; i++) {
        if (m->items.data[i].token != faulty_token(&r->request, m->first_index + i))
            faulty_broken(w, "output %u is another token", m->first_index + i);
    }
    if (!r || m->role != TS_PHASE_DECODE || m->finish == TS_FINISH_NONE)
        return;
    if (!r->again && r->copy && w->storm && ts_rng_below(&w->rng, 3) == 0) { /* as if it had been lost */
        r->again = true;
        again_later(w, r, out);
        return;
    }
    release(w, &w->router.attempts[r->attempt], out);
    r->state = REQUEST_DONE;
}

static void on_message(struct faulty_world *w, struct faulty_member *member, const struct ts_msg *m,
                       struct ts_actions *out)
{
    switch (m->kind) {
    case TS_MSG_TRANSFER:
        on_transfer(w, &m->transfer, out);
        break;
    case TS_MSG_REPORT:
        if (m->report.role == TS_PHASE_DECODE)
            on_end_at_decode(w, m->report.rid, true, out);
        break;
    case TS_MSG_ATTEMPT_FAILED:
        if (m->attempt_failed.role == TS_PHASE_DECODE)
            on_end_at_decode(w, m->attempt_failed.rid, false, out);
        else if (current(w, m->attempt_failed.rid))
            again_later(w, current(w, m->attempt_failed.rid), out);
        break;
    case TS_MSG_ASSIGN_REFUSED:
        if (current(w, m->assign_refused.rid))
            again_later(w, current(w, m->assign_refused.rid), out);
        break;
    case TS_MSG_OUTPUT:
        on_output(w, &m->output, out);
        break;
    case TS_MSG_RESYNC: /* of one that has just come: it holds nothing */
    case TS_MSG_HEARTBEAT:
        member->ready = true;
        break;
    default:
        break;
    }
}

static void on_hello(struct faulty_world *w, const struct ts_event_message *m, struct ts_actions *out)
{
    for (int node = FAULTY_RELAY; node <= FAULTY_DECODE; node++) {
        struct faulty_member *member = &w->router.members[node];
        if (!ts_str_equal(m->msg.hello.id, ts_str_of(w->nodes[node].name)))
            continue;
        member->node = node;
        member->peer = m->peer;
        member->ready = false; /* until it says something in this session */
        ts_session_init(&member->session, w->router.incarnation, NEVER_MS * TS_MS, NEVER_MS * TS_MS);
        ts_session_accept(&member->session, w->now,
                          ts_session_number(&w->router.last_session, ts_rng_u64(&w->rng)),
                          m->envelope.incarnation);
        send_to(w, member, out, TS_MSG_WELCOME)->msg.welcome =
            (struct ts_msg_welcome){.id = ts_str_of("router"),
                                    .session = member->session.id,
                                    .heartbeat_ms = node == FAULTY_RELAY ? 200 : NEVER_MS,
                                    .timeout_ms = NEVER_MS};
    }
}

void faulty_router_lost(struct faulty_world *w, int node)
{
    w->router.members[node].session.up = w->router.members[node].ready = false;
    for (int i = 0; i < w->router.asked_count; i++) {
        struct faulty_asked *r = &w->router.asked[i];
        r->lost = r->state == REQUEST_RUNS; /* what it does is seen to in its next step */
        r->copy = r->copy && node != FAULTY_RELAY;
    }
}

void faulty_router_step(struct faulty_world *w, const struct ts_event *event, struct ts_actions *out)
{
    const struct ts_event_message *m = &event->message;
    if (event->kind == TS_EVENT_MESSAGE && m->msg.kind == TS_MSG_HELLO) {
        on_hello(w, m, out);
    } else if (event->kind == TS_EVENT_MESSAGE) {
        for (int node = FAULTY_RELAY; node <= FAULTY_DECODE; node++) {
            struct faulty_member *member = &w->router.members[node];
            if (member->peer == m->peer && member->session.up &&
                ts_session_receive(&member->session, w->now, &m->envelope) == TS_SESSION_DELIVER)
                on_message(w, member, &m->msg, out);
        }
        ts_actions_drop(out, m->bulk);
    }
    for (int i = 0; i < w->router.asked_count; i++) {
        struct faulty_asked *r = &w->router.asked[i];
        if (r->lost)
            again_later(w, r, out);
        r->lost = false;
        if (r->state == REQUEST_WAITS && r->retry_at <= w->now)
            try_request(w, i, out);
    }
}

/* --- at rest ------------------------------------------------------------------------------------------ */

static bool attempt_told(struct faulty_world *w, const struct faulty_attempt *a)
{
    unsigned long long request = a->rid.request;
    if (a->transfers > 1 || (a->begun && a->relay && a->transfers == 0))
        faulty_broken(w, "request %llu, attempt %u: the relay told its end %u times", request, a->rid.attempt,
                      a->transfers);
    if (a->ends > 1 || (a->assigned && a->decode && !a->released && a->ends == 0))
        faulty_broken(w, "request %llu, attempt %u: the decode worker told its end %u times", request,
                      a->rid.attempt, a->ends);
    if (a->begun && a->transfers == 1 && a->reason == TS_REASON_NONE && !a->verified && a->decode)
        faulty_broken(w, "request %llu, attempt %u: the relay calls verified what was not", request,
                      a->rid.attempt);
    return w->fault.status == TS_OK;
}

bool faulty_at_rest(struct faulty_world *w)
{
    for (int i = 0; i < w->router.attempt_count; i++) {
        if (!attempt_told(w, &w->router.attempts[i]))
            return false;
    }
    for (int i = 0; i < FAULTY_NODES_MAX; i++) {
        struct faulty_node *n = &w->nodes[i];
        if (n->worker && (!worker_core_idle(n->worker) || worker_core_blocks_used(n->worker) > 0))
            faulty_broken(w, "%s: %u blocks are left", n->name, worker_core_blocks_used(n->worker));
        if (n->relay && (!relay_core_idle(n->relay) || relay_core_copies(n->relay) > 0))
            faulty_broken(w, "%s: a transfer or %zu copies are left", n->name, relay_core_copies(n->relay));
        if (n->handles != 0)
            faulty_broken(w, "%s: %lld handles are left", n->name, (long long)n->handles);
    }
    return w->fault.status == TS_OK;
}
