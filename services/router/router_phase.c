/*
 * Phases of workers, changed by a plan or an operator: SetPhase, and what is assigned meanwhile. From the
 * moment it is sent a worker gets nothing of the phase that it leaves, and nothing of the new one before
 * PhaseReply (or the Hello of a new session) says that it is in it. A worker that does not answer in time is
 * made to say Hello.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "services/router/router_impl.h"

static void answer(struct router_core *core, uint64_t peer, uint64_t term, uint64_t number,
                   enum ts_phase phase, enum ts_reason reason)
{
    struct ts_action_send *s = ts_actions_send(core->out, TS_CHANNEL_ADMIN, peer, TS_MSG_PHASE_REPLY);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.phase_reply =
        (struct ts_msg_phase_reply){.term = term, .plan = number, .phase = phase, .reason = reason};
}

static void send_phase(struct router_core *core, struct member *member)
{
    struct switching *s = &member->switching;
    struct ts_action_send *send = member_send(core, member, TS_MSG_SET_PHASE);
    if (!send) /* after Resync, then */
        return;
    s->term = core->term; /* the newest: what was said before may have raised the worker's */
    s->number = core->number;
    send->msg.set_phase = (struct ts_msg_set_phase){.term = s->term, .plan = s->number, .phase = s->to};
}

/* The change is over, one way or another. */
static void finish(struct router_core *core, struct member *member, enum ts_reason reason)
{
    struct switching s = member->switching;
    member->switching.to = TS_PHASE_NONE;
    member->switching.operator_peer = 0;
    timers_set(&core->timers, &member->switching.timer, TS_TIME_NEVER);
    ts_actions_log(core->out, reason ? TS_LOG_WARN : TS_LOG_INFO,
                   "event=phase id=%s phase=%s to=%s reason=%s", member->id,
                   ts_phase_name(member->hello.profile.phase), ts_phase_name(s.to), ts_reason_name(reason));
    if (s.operator_peer)
        answer(core, s.operator_peer, s.term, s.number, member->hello.profile.phase, reason);
    plan_phase(core, member, reason);
    core->changed = core->dispatch = true;
}

static void wait_for_answer(struct router_core *core, struct member *member)
{
    member->switching.timer.kind = TIMER_PHASE;
    timers_set(&core->timers, &member->switching.timer, core->now + core->settings.phase_wait_ms * TS_MS);
}

void phase_set(struct router_core *core, struct member *member, enum ts_phase phase)
{
    struct switching *s = &member->switching;
    if (s->operator_peer) { /* a plan is in its way */
        answer(core, s->operator_peer, core->term, core->number, member->hello.profile.phase,
               TS_REASON_STALE_PLAN);
        s->operator_peer = 0;
    }
    if (s->to == TS_PHASE_NONE) /* however many words follow, it owes an answer to the first */
        wait_for_answer(core, member);
    s->to = phase;
    if (member->synced)
        send_phase(core, member);
    core->changed = true;
}

void phase_reply(struct router_core *core, struct member *from, const struct ts_msg_phase_reply *m)
{
    const struct switching *s = &from->switching;
    if (m->phase != TS_PHASE_NONE && m->phase != from->hello.profile.phase) {
        from->hello.profile.phase = m->phase;
        plan_changed(core);
    }
    if (s->to == TS_PHASE_NONE)
        return;
    if (m->term != s->term || m->plan != s->number)
        wait_for_answer(core, from); /* to an earlier word: the answer to the last one is on its way */
    else if (m->reason == TS_REASON_NONE && m->phase != s->to)
        finish(core, from, TS_REASON_INTERNAL);
    else
        finish(core, from, m->reason);
}

/* In a new session, after Resync: its Hello has told its phase. */
void phase_synced(struct router_core *core, struct member *member)
{
    if (member->switching.to == TS_PHASE_NONE)
        return;
    if (member->switching.to == member->hello.profile.phase)
        finish(core, member, TS_REASON_NONE);
    else
        send_phase(core, member);
}

void phase_due(struct router_core *core, struct member *member)
{
    finish(core, member, TS_REASON_PEER_LOST);
    member_ask_again(core, member);
}

void phase_lost(struct router_core *core, struct member *member)
{
    if (member->switching.to != TS_PHASE_NONE)
        finish(core, member, TS_REASON_PEER_LOST);
}

void phase_asked(struct router_core *core, const struct ts_event_message *m)
{
    const struct ts_msg_set_phase *set = &m->msg.set_phase;
    char id[TS_ID_BYTES_MAX + 1];
    snprintf(id, sizeof id, "%.*s", (int)set->service.count, set->service.count ? set->service.data : "");
    struct member *member = member_find(core, TS_ROLE_WORKER, id);
    enum ts_reason reason = TS_REASON_NONE;
    if (!member)
        reason = TS_REASON_NOT_FOUND;
    else if (set->phase == TS_PHASE_NONE || (member->hello.profile.phases & set->phase) != set->phase)
        reason = TS_REASON_UNSUPPORTED;
    else if (member->switching.to != TS_PHASE_NONE)
        reason = TS_REASON_BUSY;
    if (reason != TS_REASON_NONE) {
        answer(core, m->peer, core->term, core->number, member ? member->hello.profile.phase : TS_PHASE_NONE,
               reason);
        return;
    }
    phase_set(core, member, set->phase);
    member->switching.operator_peer = m->peer;
}
