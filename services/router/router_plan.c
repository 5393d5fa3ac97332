/*
 * Planners: what they are told, and what becomes of their plans. A plan is taken whole or refused with a
 * reason; the router serves with equal shares until there is one, and with the last one when its planner is
 * gone.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "services/router/route_policy.h"
#include "services/router/router_impl.h"

void plan_changed(struct router_core *core)
{
    core->snapshot_version++;
}

static struct ts_plan_worker describe(const struct member *m)
{
    const struct ts_profile *p = &m->hello.profile;
    return (struct ts_plan_worker){.id = ts_str_of(m->id),
                                   .host = m->hello.host,
                                   .model = p->model,
                                   .relay = p->relay,
                                   .incarnation = m->incarnation,
                                   .phases = p->phases,
                                   .phase = p->phase,
                                   .ready = member_ready(m),
                                   .draining = m->draining,
                                   .load = m->load,
                                   .device = p->device,
                                   .layers = p->layers,
                                   .hidden = p->hidden,
                                   .intermediate = p->intermediate,
                                   .heads = p->heads,
                                   .kv_heads = p->kv_heads,
                                   .head_dim = p->head_dim,
                                   .vocab = p->vocab,
                                   .kv_dtype = p->kv_dtype,
                                   .kv_blocks = p->kv_blocks};
}

static struct ts_msg_snapshot snapshot(struct router_core *core)
{
    struct member *m;
    uint32_t count = 0;
    struct ts_plan_worker *workers =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->members) + 1) * sizeof *workers);
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->role == TS_ROLE_WORKER)
            workers[count++] = describe(m);
    }
    return (struct ts_msg_snapshot){
        .version = core->snapshot_version,
        .workers = {workers, count},
        .workload = {.queued = (uint32_t)core->queued_count,
                     .running = (uint32_t)(core->live_count - core->queued_count)},
        .term = core->term,
        .number = core->number,
        .holder = ts_str_of(core->holder)};
}

void plan_inform(struct router_core *core)
{
    struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->role != TS_ROLE_PLANNER || !m->session.up || m->snapshot_sent == core->snapshot_version)
            continue;
        struct ts_action_send *s = member_send(core, m, m->snapshot_sent ? TS_MSG_UPDATE : TS_MSG_SNAPSHOT);
        if (m->snapshot_sent)
            s->msg.update = snapshot(core);
        else
            s->msg.snapshot = snapshot(core);
        m->snapshot_sent = core->snapshot_version;
    }
}

static const struct ts_plan_replica *replica_of(const struct ts_msg_plan *m, uint32_t id)
{
    for (uint32_t i = 0; i < m->replicas.count; i++) {
        if (m->replicas.data[i].id == id)
            return &m->replicas.data[i];
    }
    return NULL;
}

static const char *check_replicas(const struct router_core *core, const struct ts_msg_plan *m)
{
    for (uint32_t i = 0; i < m->replicas.count; i++) {
        const struct ts_plan_replica *r = &m->replicas.data[i];
        char id[TS_ID_BYTES_MAX + 1];
        snprintf(id, sizeof id, "%.*s", (int)r->worker.count, r->worker.data);
        const struct member *worker = member_find(core, TS_ROLE_WORKER, id);
        if (replica_of(m, r->id) != r)
            return "two replicas have the same id";
        if (!worker)
            return "a replica names a worker that is not there";
        if (r->phase != worker->hello.profile.phase)
            return "a replica asks for another phase than its worker has: changing phases is not supported";
    }
    return NULL;
}

static const char *check_shares(const struct ts_msg_plan *m)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->shares.count; i++) {
        const struct ts_plan_share *z = &m->shares.data[i];
        const struct ts_plan_replica *p = replica_of(m, z->prefill), *d = replica_of(m, z->decode);
        if (!p || !d || !(p->phase & TS_PHASE_PREFILL) || !(d->phase & TS_PHASE_DECODE))
            return "a share names a replica that is not there or has the wrong phase";
        if (!(z->share >= 0 && z->share <= 1))
            return "a share is not between 0 and 1";
        if (z->length_class == 0)
            sum += z->share;
    }
    if (m->shares.count && !(sum > 0.999 && sum < 1.001))
        return "the shares of a class do not sum to one";
    return NULL;
}

static void reply(struct router_core *core, struct member *to, const struct ts_msg_plan *m,
                  enum ts_plan_verdict verdict, enum ts_reason reason, const char *text)
{
    struct ts_action_send *s = member_send(core, to, TS_MSG_PLAN_REPLY);
    if (s)
        s->msg.plan_reply = (struct ts_msg_plan_reply){.term = m->term,
                                                       .number = m->number,
                                                       .verdict = verdict,
                                                       .reason = reason,
                                                       .text = ts_str_of(text)};
    if (verdict == TS_PLAN_REFUSED)
        ts_actions_log(core->out, TS_LOG_INFO,
                       "event=plan_refused planner=%s term=%llu number=%llu reason=%s", to->id,
                       (unsigned long long)m->term, (unsigned long long)m->number, ts_reason_name(reason));
}

static char *text_of(struct ts_arena *arena, struct ts_str text)
{
    return ts_arena_printf(arena, "%.*s", (int)text.count, text.count ? text.data : "");
}

static void adopt(struct router_core *core, const struct ts_msg_plan *m)
{
    struct plan *plan = &core->plan;
    ts_arena_reset(&plan->arena);
    plan->shares = ts_arena_zalloc(&plan->arena, (m->shares.count + 1) * sizeof *plan->shares);
    plan->share_count = m->shares.count;
    for (uint32_t i = 0; i < m->shares.count; i++) {
        const struct ts_plan_share *z = &m->shares.data[i];
        plan->shares[i] =
            (struct route_share){.prefill = text_of(&plan->arena, replica_of(m, z->prefill)->worker),
                                 .decode = text_of(&plan->arena, replica_of(m, z->decode)->worker),
                                 .share = z->share,
                                 .codec = text_of(&plan->arena, z->codec)};
    }
    core->term = m->term;
    core->number = m->number;
}

void plan_received(struct router_core *core, struct member *from, const struct ts_msg_plan *m)
{
    bool newer = m->term > core->term;
    bool holder = m->term == core->term && strcmp(core->holder, from->id) == 0 && m->number > core->number;
    if (!newer && !holder) {
        reply(core, from, m, TS_PLAN_REFUSED, TS_REASON_STALE_PLAN,
              "an equal or newer plan, or another planner's term, is in force");
        return;
    }
    if (m->snapshot_version != core->snapshot_version) {
        reply(core, from, m, TS_PLAN_REFUSED, TS_REASON_STALE_SNAPSHOT,
              "the cluster has changed since that snapshot");
        return;
    }
    const char *fault = check_replicas(core, m);
    if (!fault)
        fault = check_shares(m);
    if (fault) {
        reply(core, from, m, TS_PLAN_REFUSED, TS_REASON_BAD_PLAN, fault);
        return;
    }
    snprintf(core->holder, sizeof core->holder, "%s", from->id);
    adopt(core, m);
    reply(core, from, m, TS_PLAN_ACCEPTED, TS_REASON_NONE, "");
    reply(core, from, m, TS_PLAN_APPLIED, TS_REASON_NONE,
          ""); /* phases are as they are: nothing has to move first */
    if (newer)
        plan_changed(core); /* tells the other planners who holds the term */
}

void plan_member_lost(struct router_core *core, const struct member *member)
{
    if (member->role == TS_ROLE_PLANNER && strcmp(core->holder, member->id) == 0)
        core->holder[0] = '\0';
}
