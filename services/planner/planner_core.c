#include "services/planner/planner_core.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/planner_impl.h"

#define HELLO_EVERY TS_S

struct planner_settings planner_settings_defaults(void)
{
    return (struct planner_settings){.id = "planner",
                                     .host = "localhost",
                                     .heartbeat_ms = 500,
                                     .timeout_ms = 3000,
                                     .plan = planner_live_defaults(),
                                     .trigger = planner_trigger_defaults(),
                                     .share_min = 0.1,
                                     .pair_wait_s = 5,
                                     .flip_wait_s = 60,
                                     .step_work = 1000};
}

struct planner_core *planner_core_new(const struct planner_settings *settings, uint64_t incarnation)
{
    struct planner_core *core = ts_xcalloc(1, sizeof *core);
    TS_ASSERT(settings->router_count <= PLANNER_ROUTERS_MAX && settings->plan.algorithm);
    core->settings = *settings;
    core->settings.trigger.requests_min = settings->plan.requests_min;
    loop_init(core);
    for (size_t i = 0; i < settings->router_count; i++) {
        core->routers[i].peer = i + 1;
        ts_arena_init(&core->routers[i].arena);
        ts_arena_init(&core->routers[i].sent_arena);
        ts_session_init(&core->routers[i].session, incarnation, settings->heartbeat_ms * TS_MS,
                        settings->timeout_ms * TS_MS);
    }
    return core;
}

void planner_core_destroy(struct planner_core **core)
{
    struct planner_core *c = *core;
    if (!c)
        return;
    for (size_t i = 0; i < c->settings.router_count; i++) {
        ts_arena_fini(&c->routers[i].arena);
        ts_arena_fini(&c->routers[i].sent_arena);
    }
    loop_fini(c);
    ts_free(c);
    *core = NULL;
}

struct ts_action_send *planner_send(struct planner_core *core, struct router_link *r, enum ts_msg_kind kind)
{
    struct ts_action_send *s = ts_actions_send(core->out, TS_CHANNEL_PLANNER, r->peer, kind);
    ts_session_stamp(&r->session, core->now, &s->envelope);
    return s;
}

static void say_hello(struct planner_core *core, struct router_link *r)
{
    const struct planner_settings *set = &core->settings;
    struct ts_action_send *s = planner_send(core, r, TS_MSG_HELLO);
    s->msg.hello = (struct ts_msg_hello){.role = TS_ROLE_PLANNER,
                                         .id = ts_str_of(set->id),
                                         .host = ts_str_of(set->host),
                                         .version = ts_str_of("0.1.0"),
                                         .pid = set->pid};
    r->session.hello_at = core->now + HELLO_EVERY;
}

static void down(struct planner_core *core, struct router_link *r)
{
    r->has_snapshot = r->wants_plan = false;
    ts_session_down(&r->session, core->now);
}

/* Without a session it was a Hello that could not be sent: it is said again when it is due, since at once
 * would never end with an address that cannot be dialled. */
static void unreachable(struct planner_core *core, uint64_t peer)
{
    if (peer >= 1 && peer <= core->settings.router_count && core->routers[peer - 1].session.up)
        down(core, &core->routers[peer - 1]);
}

static uint64_t highest_term(const struct planner_core *core)
{
    uint64_t term = core->last_term;
    for (size_t i = 0; i < core->settings.router_count; i++)
        term = core->routers[i].term > term ? core->routers[i].term : term;
    return term;
}

static void claim(struct planner_core *core)
{
    core->term = core->last_term = highest_term(core) + 1;
    core->number = 0;
    core->claimed = true;
    loop_claimed(core);
    for (size_t i = 0; i < core->settings.router_count; i++) {
        core->routers[i].wants_plan = core->routers[i].has_snapshot;
        core->routers[i].refused = 0;
    }
    ts_actions_log(core->out, TS_LOG_INFO, "event=term_claimed term=%llu", (unsigned long long)core->term);
}

/* Superseded: what was searched for would be refused. */
static void stand_by(struct planner_core *core)
{
    core->term = 0;
    loop_stop(core);
}

/* Whether the holder of the term in force is gone, so that somebody must claim. */
static bool holder_lost(const struct planner_core *core, const struct ts_msg_snapshot *s)
{
    return s->holder.count == 0 && (!core->claimed || s->term > core->term || core->term == 0);
}

static void on_snapshot(struct planner_core *core, struct router_link *r, const struct ts_msg *m)
{
    struct ts_msg copy = {.kind = m->kind};
    ts_arena_reset(&r->arena);
    ts_schema_copy(&ts_msg_schema, &copy, m, &r->arena);
    r->snapshot = m->kind == TS_MSG_SNAPSHOT ? copy.snapshot : copy.update;
    r->has_snapshot = true;
    if (m->kind == TS_MSG_SNAPSHOT) { /* a session begins: what the router has is not known */
        r->wants_plan = true;
        r->refused = 0;
        r->sent = (struct ts_msg_plan){.number = 0};
    }
    loop_snapshot(core, r);
    r->term = r->snapshot.term > r->term ? r->snapshot.term : r->term;
    if (core->claimed && core->term && r->snapshot.term > core->term) {
        ts_actions_log(core->out, TS_LOG_INFO, "event=standby term=%llu",
                       (unsigned long long)r->snapshot.term);
        stand_by(core);
    }
    if (!core->claimed || (core->term == 0 && holder_lost(core, &r->snapshot)))
        claim(core);
}

static void on_reply(struct planner_core *core, struct router_link *r, const struct ts_msg_plan_reply *m)
{
    bool refused = m->verdict == TS_PLAN_REFUSED, aborted = m->verdict == TS_PLAN_ABORTED;
    bool last = m->number == r->sent.number;
    if ((!refused && !aborted) || m->term != core->term || !core->term)
        return;
    if (refused && m->reason == TS_REASON_STALE_PLAN) {
        stand_by(core);
    } else if (refused && m->reason == TS_REASON_STALE_SNAPSHOT) {
        r->wants_plan |= last; /* the newer one is on its way, or here and counts as planned for */
        r->refused = last ? r->sent.snapshot_version : r->refused;
    } else if (last) {
        ts_actions_log(core->out, TS_LOG_ERROR, "event=%s router=%llu number=%llu text=\"%.*s\"",
                       refused ? "plan_refused" : "plan_aborted", (unsigned long long)r->peer,
                       (unsigned long long)m->number, (int)m->text.count, m->text.count ? m->text.data : "");
        loop_failed(core, r, aborted, m->text);
    } /* else: a newer one has taken its place */
}

/* Stops, and says so: another planner need not wait for the silence. */
static void drain(struct planner_core *core)
{
    for (size_t i = 0; !core->draining && i < core->settings.router_count; i++) {
        if (core->routers[i].session.up)
            planner_send(core, &core->routers[i], TS_MSG_DRAIN);
    }
    core->draining = true;
}

static void on_message(struct planner_core *core, const struct ts_event_message *m)
{
    if (m->channel != TS_CHANNEL_PLANNER || m->peer < 1 || m->peer > core->settings.router_count)
        return;
    struct router_link *r = &core->routers[m->peer - 1];
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&r->session, &m->envelope)) {
        r->has_snapshot = r->wants_plan = false;
        ts_session_welcomed(&r->session, core->now, &m->envelope, m->msg.welcome.session,
                            m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
        r->term = m->msg.welcome.term > r->term ? m->msg.welcome.term : r->term;
    } else if (m->msg.kind == TS_MSG_RESET) {
        if (!ts_session_ended(&r->session, &m->msg.reset))
            return;
        if (m->msg.reset.fenced)
            r->session.self = ts_splitmix64(r->session.self) | 1;
        down(core, r);
    } else if (ts_session_receive(&r->session, core->now, &m->envelope) == TS_SESSION_DELIVER) {
        if (m->msg.kind == TS_MSG_SNAPSHOT || m->msg.kind == TS_MSG_UPDATE)
            on_snapshot(core, r, &m->msg);
        else if (m->msg.kind == TS_MSG_PLAN_REPLY)
            on_reply(core, r, &m->msg.plan_reply);
        else if (m->msg.kind == TS_MSG_DRAIN)
            drain(core);
    } else if (!r->session.up) {
        down(core, r);
    }
}

static void tick(struct planner_core *core, struct router_link *r)
{
    if (ts_session_expired(&r->session, core->now))
        down(core, r);
    if (!r->session.up && r->session.hello_at <= core->now)
        say_hello(core, r);
}

static void beat(struct planner_core *core, struct router_link *r)
{
    if (ts_session_heartbeat_due(&r->session, core->now))
        planner_send(core, r, TS_MSG_HEARTBEAT);
}

void planner_core_step(struct planner_core *core, ts_time now, const struct ts_event *event,
                       struct ts_actions *out)
{
    core->now = now;
    core->out = out;
    switch (event->kind) {
    case TS_EVENT_START:
        for (size_t i = 0; i < core->settings.router_count; i++) {
            struct ts_action *a = ts_actions_add(out, TS_ACTION_CONNECT);
            a->connect = (struct ts_action_connect){TS_CHANNEL_PLANNER, core->routers[i].peer,
                                                    ts_str_of(core->settings.routers[i])};
        }
        core->started = true;
        break;
    case TS_EVENT_MESSAGE:
        on_message(core, &event->message);
        ts_actions_drop(out, event->message.bulk);
        break;
    case TS_EVENT_SEND_FAILED:
        unreachable(core, event->send_failed.peer);
        break;
    case TS_EVENT_DRAIN:
        drain(core);
        break;
    default:
        break;
    }
    for (size_t i = 0; core->started && i < core->settings.router_count; i++)
        tick(core, &core->routers[i]);
    loop_step(core);
    for (size_t i = 0; core->started && i < core->settings.router_count; i++)
        beat(core, &core->routers[i]);
    if (core->draining)
        ts_actions_add(out, TS_ACTION_STOP);
    core->out = NULL;
}

ts_time planner_core_deadline(const struct planner_core *core)
{
    ts_time at = core->started ? loop_deadline(core) : TS_TIME_NEVER;
    for (size_t i = 0; core->started && i < core->settings.router_count; i++) {
        ts_time due = ts_session_deadline(&core->routers[i].session);
        at = due < at ? due : at;
    }
    return at;
}

static bool names_worker(const struct ts_msg_snapshot *snapshot, struct ts_str worker)
{
    for (uint32_t i = 0; i < snapshot->workers.count; i++) {
        if (ts_str_equal(snapshot->workers.data[i].id, worker) && worker_usable(&snapshot->workers.data[i]))
            return true;
    }
    return false;
}

static bool check_router(const struct planner_core *core, const struct router_link *r, struct ts_error *err)
{
    const struct ts_msg_plan *sent = &r->sent;
    bool current = r->has_snapshot && sent->number && sent->snapshot_version == r->snapshot.version &&
                   r->sent_cluster == r->cluster;
    if (core->term && sent->term > core->term)
        return ts_error_set(err, TS_ECORRUPT, "a plan of term %llu was sent under term %llu",
                            (unsigned long long)sent->term, (unsigned long long)core->term) == TS_OK;
    if (sent->term == core->term && sent->number > core->number)
        return ts_error_set(err, TS_ECORRUPT, "plan %llu was sent, but the last is %llu",
                            (unsigned long long)sent->number, (unsigned long long)core->number) == TS_OK;
    for (uint32_t i = 0; current && i < sent->replicas.count; i++) {
        if (!names_worker(&r->snapshot, sent->replicas.data[i].worker))
            return ts_error_set(err, TS_ECORRUPT, "the plan names a worker that is not in its snapshot") ==
                   TS_OK;
    }
    return true;
}

bool planner_core_check(const struct planner_core *core, struct ts_error *err)
{
    if (core->loop.live && (core->term == 0 || core->draining)) {
        ts_error_set(err, TS_ECORRUPT, "a plan is under way without a term");
        return false;
    }
    for (size_t i = 0; i < core->settings.router_count; i++) {
        if (!check_router(core, &core->routers[i], err))
            return false;
    }
    return true;
}

bool planner_core_idle(const struct planner_core *core)
{
    return !core->loop.live;
}
