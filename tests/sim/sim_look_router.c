/*
 * The router's tables, looked at each 50 ms and at rest: who is a member and who may not be again, whether
 * each request under way is as the books have it (sim_see_router.c), outlives nobody and is where it should
 * be; and what state a request is in, for those who aim at one.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "services/router/router_impl.h"
#include "tests/sim/sim_impl.h"

#define SLACK      (20 * TS_MS)
#define LOOK_EVERY (50 * TS_MS)

/* --- members ----------------------------------------------------------------------------------------- */

static bool is_dead(const struct sim_world *w, uint64_t incarnation)
{
    for (uint32_t i = 0; i < w->dead_count; i++) {
        if (w->dead[i] == incarnation)
            return true;
    }
    return false;
}

static bool is_member(const struct router_core *core, uint64_t incarnation)
{
    const struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->incarnation == incarnation)
            return true;
    }
    return false;
}

/* A worker that does not answer SetPhase is not waited for without end. */
static void look_at_switching(struct sim_world *w, const struct member *m, struct sim_member *now)
{
    ts_time at = cloud_now(w->cloud), most = w->script.router.phase_wait_ms * TS_MS + LOOK_EVERY + SLACK;
    if (!m->switching.to)
        return;
    if (!now->switching_since || now->switching_since < w->router_thawed)
        now->switching_since = at;
    else if (at - now->switching_since > most)
        cloud_fail(w->cloud, "%s is waited for to change its phase for %.1f s", m->id,
                   (double)(at - now->switching_since) / 1e9);
}

/* Who was there and is not any more is dead for ever. */
void sim_look_members(struct sim_world *w, const struct router_core *core)
{
    const struct member *m;
    for (uint32_t i = 0; i < w->member_count; i++) {
        if (!is_member(core, w->members[i].incarnation) && w->dead_count < TS_ARRAY_SIZE(w->dead))
            w->dead[w->dead_count++] = w->members[i].incarnation;
    }
    struct sim_member before[TS_ARRAY_SIZE(w->members)];
    uint32_t count = w->member_count;
    memcpy(before, w->members, count * sizeof *before);
    w->member_count = 0;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        struct sim_member now = {.incarnation = m->incarnation,
                                 .switching_plan = (uint64_t)m->switching.timer.at};
        if (is_dead(w, m->incarnation))
            cloud_fail(w->cloud, "%s is a member again as the incarnation that was declared dead", m->id);
        for (uint32_t i = 0; m->switching.to && i < count; i++) {
            if (before[i].incarnation == m->incarnation && before[i].switching_plan == now.switching_plan)
                now.switching_since = before[i].switching_since;
        }
        look_at_switching(w, m, &now);
        if (w->member_count < TS_ARRAY_SIZE(w->members))
            w->members[w->member_count++] = now;
    }
}

/* --- records ----------------------------------------------------------------------------------------- */

static void look_at_lease(struct sim_world *w, struct sim_ask *ask)
{
    const struct router_settings *s = &w->script.router;
    ts_time now = cloud_now(w->cloud), silent = TS_TIME_NEVER;
    if (ask->deadline != TS_TIME_NEVER && now > ask->deadline + SLACK)
        cloud_fail(w->cloud, "client%u r%u lives past its deadline", ask->client, ask->number);
    if (ask->peer == 0) {
        silent = ask->lost_at + (ts_time)sim_reattach_ms(w, ask) * TS_MS;
        silent = silent > w->router_thawed ? silent : w->router_thawed;
    } else if (ask->peer < SIM_PEERS_MAX) {
        ts_time from = w->heard[ask->peer] > w->router_thawed ? w->heard[ask->peer] : w->router_thawed;
        silent = from + (s->client_timeout_ms + (ts_time)sim_reattach_ms(w, ask)) * TS_MS;
    }
    if (now > silent + SLACK)
        cloud_fail(w->cloud, "client%u r%u outlives its client", ask->client, ask->number);
}

static int record_state(const struct record *r)
{
    switch (r->state) {
    case RECORD_QUEUED:
        return r->attempt ? SIM_AT_retry : SIM_AT_queued;
    case RECORD_ASSIGNED:
        return SIM_AT_assigned;
    case RECORD_STREAMING:
        return r->kv_done ? SIM_AT_kv_there : SIM_AT_streaming;
    case RECORD_ENDED:
        break;
    }
    return -1;
}

/* An attempt that is current at the router is at its workers, or soon will be, or has failed there. */
static void look_at_holder(struct sim_world *w, struct sim_ask *ask, const struct record *r, int role)
{
    const struct member *m = role ? r->decode : r->prefill;
    struct cloud_node *node = m ? cloud_peer_of(w->router, m->channel, m->peer) : NULL;
    const struct ts_rid rid = {w->router_incarnation, r->number, r->attempt};
    ts_time now = cloud_now(w->cloud);
    bool there = !node || (!role && r->kv_done) ||
                 sim_task_state(node, rid, role ? TS_PHASE_DECODE : TS_PHASE_PREFILL) >= 0 ||
                 (r->prefill == r->decode && sim_task_state(node, rid, TS_PHASE_BOTH) >= 0);
    if (there)
        ask->missing_since[role] = 0;
    else if (!ask->missing_since[role])
        ask->missing_since[role] = now;
    else if (now - ask->missing_since[role] > SIM_BOUND && now > w->last_fault + SIM_BOUND)
        cloud_fail(w->cloud, "request %llu is assigned to %s, which does not have it",
                   (unsigned long long)r->number, m->id);
}

static void look_at_records(struct sim_world *w, const struct router_core *core)
{
    ts_time now = cloud_now(w->cloud);
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        struct sim_ask *ask = &w->asks[i];
        if (!ask->live)
            continue;
        const struct record *r = index_get(&core->by_number, ask->rid_number);
        look_at_lease(w, ask);
        if (!r) {
            cloud_fail(w->cloud, "client%u r%u has vanished from its router", ask->client, ask->number);
            continue;
        }
        if (r->state != RECORD_QUEUED ||
            attempt_only_waits(core, r)) /* for somebody who is there, and busy */
            ask->waiting_since = TS_TIME_NEVER;
        else if (ask->waiting_since == TS_TIME_NEVER)
            ask->waiting_since = now;
        else if (now - ask->waiting_since > w->script.router.no_worker_ms * TS_MS + SLACK + LOOK_EVERY)
            cloud_fail(w->cloud, "client%u r%u waits for workers without end", ask->client, ask->number);
        if (r->state != RECORD_QUEUED && r->prefill && r->prefill != r->decode && !r->kv_done &&
            !member_find(core, TS_ROLE_RELAY, r->relay_id))
            cloud_fail(w->cloud, "request %llu waits for KV of %s, which is gone",
                       (unsigned long long)r->number, r->relay_id);
        look_at_holder(w, ask, r, 0);
        look_at_holder(w, ask, r, 1);
    }
    for (const struct record *r = core->ended_head; r; r = r->next) {
        if (now - r->ended_at > w->script.router.ended_keep_ms * TS_MS + SLACK)
            cloud_fail(w->cloud, "request %llu is remembered too long", (unsigned long long)r->number);
        break; /* the oldest */
    }
}

static void look_at_sessions(struct sim_world *w, const struct router_core *core)
{
    const struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));)
        sim_session_check(w, w->router, m->channel, m->peer, &m->session);
}

void sim_look_router(struct sim_world *w, const struct router_core *core)
{
    if (cloud_now(w->cloud) - w->looked_at < LOOK_EVERY)
        return;
    w->looked_at = cloud_now(w->cloud);
    sim_look_members(w, core);
    look_at_records(w, core);
    look_at_sessions(w, core);
    sim_router_idle(w);
}

/* --- for others -------------------------------------------------------------------------------------- */

static struct cloud_node *node_named(const struct sim_world *w, const char *id)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] && strcmp(cloud_node_id(w->nodes[i]), id) == 0)
            return w->nodes[i];
    }
    return NULL;
}

int sim_record_state(struct sim_world *w, const struct sim_ask *ask, struct ts_rid *rid,
                     struct cloud_node **prefill, struct cloud_node **decode, struct cloud_node **relay)
{
    const struct router_core *core = cloud_node_core(w->router);
    const struct record *r = core && ask->live ? index_get(&core->by_number, ask->rid_number) : NULL;
    *prefill = *decode = *relay = NULL;
    if (!r)
        return -1;
    *rid = (struct ts_rid){core->incarnation, r->number, r->attempt};
    if (r->state != RECORD_QUEUED) {
        *prefill = node_named(w, r->prefill_id);
        *decode = r->decode ? node_named(w, r->decode->id) : NULL;
        *relay = node_named(w, r->relay_id);
    }
    return record_state(r);
}

bool sim_record_in(struct sim_world *w, enum sim_state state, struct ts_rid *rid)
{
    const struct router_core *core = cloud_node_core(w->router);
    for (const struct record *r = core ? core->live_head : NULL; r; r = r->next) {
        if (record_state(r) == (int)state) {
            *rid = (struct ts_rid){core->incarnation, r->number, r->attempt};
            return true;
        }
    }
    return false;
}

static enum ts_role role_of(enum cloud_kind kind)
{
    return kind == CLOUD_WORKER ? TS_ROLE_WORKER : kind == CLOUD_RELAY ? TS_ROLE_RELAY : TS_ROLE_PLANNER;
}

/* At rest who is there is a member that may be used, and phases are what the router believes. */
void sim_router_rest(struct sim_world *w)
{
    const struct router_core *core = cloud_node_core(w->router);
    for (uint32_t i = 0; core && i < w->script.node_count; i++) {
        const struct cloud_node *node = w->nodes[i];
        if (!node || !cloud_node_alive(node))
            continue;
        const struct member *m = member_find(core, role_of(w->script.nodes[i].kind), cloud_node_id(node));
        if (!m || !m->session.up || (m->role == TS_ROLE_WORKER && !m->synced))
            cloud_fail(w->cloud, "%s is there, and no member", cloud_node_id(node));
        else if (m->role == TS_ROLE_WORKER &&
                 (m->switching.to != TS_PHASE_NONE || m->hello.profile.phase != sim_phase(node)))
            cloud_fail(w->cloud, "%s serves %s, its router believes %s", cloud_node_id(node),
                       ts_phase_name(sim_phase(node)), ts_phase_name(m->hello.profile.phase));
    }
    if (core && *core->holder && !member_find(core, TS_ROLE_PLANNER, core->holder))
        cloud_fail(w->cloud, "the term is held by %s, which is gone", core->holder);
    if (core && core->plan.applying)
        cloud_fail(w->cloud, "plan %llu.%llu is not applied and not aborted", (unsigned long long)core->term,
                   (unsigned long long)core->number);
}
