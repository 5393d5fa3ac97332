/*
 * The rescheduling loop. A cause (planner_trigger.h, or a change of the cluster) opens a search over all
 * routers' snapshots together; the re-route is sent at once if it is worth a message, then flips are looked
 * for if some may pay. One plan is under way at a time; a change of its cluster starts it over.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/planner/live/planner_demand.h"
#include "services/planner/planner_impl.h"

static double seconds(ts_time time)
{
    return (double)time / (double)TS_S;
}

static ts_time time_of(double seconds)
{
    return (ts_time)(seconds * (double)TS_S);
}

void loop_init(struct planner_core *core)
{
    ts_arena_init(&core->loop.arena);
    core->loop.basis.promised = -1;
    core->loop.wake_at = core->loop.flipped_at = core->loop.pair_due = TS_TIME_NEVER;
}

void loop_stop(struct planner_core *core)
{
    if (core->loop.live)
        planner_live_close(&core->loop.live);
    core->loop.wake_at = TS_TIME_NEVER;
}

void loop_fini(struct planner_core *core)
{
    struct planner_loop *loop = &core->loop;
    loop_stop(core);
    planner_basis_forget(&loop->basis);
    for (size_t i = 0; i < loop->fixed_count; i++)
        ts_free((char *)(uintptr_t)loop->fixed[i].id.data);
    ts_free(loop->fixed);
    ts_arena_fini(&loop->arena);
}

void loop_claimed(struct planner_core *core)
{
    loop_stop(core);
    planner_basis_forget(&core->loop.basis);
    core->loop.measure = (struct planner_measure){.count = 0};
    core->loop.flipped_at = TS_TIME_NEVER;
    core->loop.attained_adopted = 0;
}

/* --- Workers whose phase is fixed --- */

const struct fixed_worker *loop_fixed(const struct planner_core *core, struct ts_str worker)
{
    for (size_t i = 0; i < core->loop.fixed_count; i++) {
        if (ts_str_equal(core->loop.fixed[i].id, worker) && core->loop.fixed[i].until > core->now)
            return &core->loop.fixed[i];
    }
    return NULL;
}

static bool keeps_phase(const void *context, struct ts_str worker)
{
    return loop_fixed(context, worker) != NULL;
}

static void fix(struct planner_core *core, const struct ts_plan_worker *w, enum ts_phase phase)
{
    struct planner_loop *loop = &core->loop;
    struct fixed_worker entry = {.incarnation = w->incarnation,
                                 .phase = phase,
                                 .under_way = true,
                                 .until = core->now + time_of(core->settings.flip_wait_s)};
    for (size_t i = 0; i < loop->fixed_count; i++) {
        if (ts_str_equal(loop->fixed[i].id, w->id)) {
            entry.id = loop->fixed[i].id;
            loop->fixed[i] = entry;
            return;
        }
    }
    void *items = loop->fixed;
    ts_array_reserve(&items, &loop->fixed_capacity, loop->fixed_count + 1, sizeof *loop->fixed);
    loop->fixed = items;
    char *id = ts_xcalloc(w->id.count + 1, 1);
    memcpy(id, w->id.data, w->id.count);
    entry.id = (struct ts_str){id, w->id.count};
    loop->fixed[loop->fixed_count++] = entry;
}

static void stop_turning(struct planner_core *core, struct fixed_worker *f)
{
    f->under_way = false;
    f->until = core->now + time_of(core->settings.plan.adopt.quiet_s);
}

/* Those that have arrived, are over, or are of a worker that is another now. */
static void release_fixed(struct planner_core *core, const struct ts_msg_snapshot *snapshot)
{
    struct planner_loop *loop = &core->loop;
    for (size_t i = 0; i < loop->fixed_count;) {
        struct fixed_worker *f = &loop->fixed[i];
        if (f->under_way && f->until <= core->now) /* it did not turn */
            stop_turning(core, f);
        bool over = f->until <= core->now;
        for (uint32_t k = 0; f->under_way && !over && k < snapshot->workers.count; k++) {
            const struct ts_plan_worker *w = &snapshot->workers.data[k];
            over = ts_str_equal(w->id, f->id) && (w->phase == f->phase || w->incarnation != f->incarnation);
        }
        if (!over) {
            i++;
            continue;
        }
        ts_free((char *)(uintptr_t)f->id.data);
        loop->fixed[i] = loop->fixed[--loop->fixed_count];
    }
}

void loop_failed(struct planner_core *core, struct router_link *r, bool aborted, struct ts_str worker)
{
    struct planner_loop *loop = &core->loop;
    const struct fixed_worker *named = loop_fixed(core, worker);
    bool any = false;
    for (size_t i = 0; i < loop->fixed_count; i++) {
        struct fixed_worker *f = &loop->fixed[i];
        if (!f->under_way || (aborted && named && named->under_way && f != named))
            continue;
        stop_turning(core, f);
        any = true;
    }
    if (any) { /* their phases are what the snapshot says again */
        for (size_t i = 0; i < core->settings.router_count; i++) {
            if (core->routers[i].has_snapshot)
                core->routers[i].cluster = cluster_hash(core, &core->routers[i].snapshot);
        }
        loop_stop(core);
    }
    if (any || aborted) {
        r->wants_plan = true;
        r->refused = r->snapshot.version;
    }
}

/* --- Causes --- */

static bool listens(const struct router_link *r)
{
    return r->session.up && r->has_snapshot;
}

/* The router whose cluster is planned for: the one that knows most usable workers. NULL = none. */
static struct router_link *leader(struct planner_core *core)
{
    struct router_link *lead = NULL;
    uint32_t most = 0;
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        uint32_t count = 0;
        for (uint32_t k = 0; r->has_snapshot && k < r->snapshot.workers.count; k++)
            count += worker_usable(&r->snapshot.workers.data[k]);
        if (listens(r) && (!lead || count > most)) {
            lead = r;
            most = count;
        }
    }
    return lead;
}

/* It refused a plan of this snapshot, or failed at one: another snapshot is to come first, or some time. */
static bool waits(const struct planner_core *core, const struct router_link *r)
{
    return r->wants_plan && r->refused != 0 && r->refused == r->snapshot.version &&
           core->now < core->loop.reviewed_at + time_of(core->settings.trigger.period_s);
}

/* The workloads of all routers together. */
static struct ts_workload workload_of(struct planner_core *core, struct ts_arena *arena)
{
    const struct ts_workload *all[PLANNER_ROUTERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < core->settings.router_count; i++) {
        if (listens(&core->routers[i]))
            all[count++] = &core->routers[i].snapshot.workload;
    }
    return planner_workload_sum(all, count, arena);
}

static void measure(struct planner_core *core)
{
    const struct ts_workload workload = workload_of(core, &core->out->arena);
    planner_measure_see(&core->loop.measure, &core->settings.trigger, &workload,
                        core->settings.plan.adopt.window_s, seconds(core->now));
}

static enum planner_cause urgent_cause(struct planner_core *core, char *words, size_t size)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        if (listens(r) && !waits(core, r) && r->sent.number > 0 && r->sent.term == core->term &&
            r->cluster != r->planned) {
            cluster_words(&r->sent, &r->snapshot, words, size);
            return PLANNER_CAUSE_CLUSTER;
        }
    }
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        if (listens(r) && r->wants_plan && !waits(core, r)) {
            snprintf(words, size, "%s",
                     r->refused ? "a router did not do the last plan" : "a router has no plan of this term");
            return PLANNER_CAUSE_WANTED;
        }
    }
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        if (listens(r) && !waits(core, r) && r->cluster != r->planned) {
            snprintf(words, size, "workers have come");
            return PLANNER_CAUSE_CLUSTER;
        }
    }
    return PLANNER_CAUSE_NONE;
}

/* Where no pair is left, it is waited for one to come back before phases turn for want of it. */
static void look_for_pairs(struct planner_core *core, const struct router_link *lead)
{
    struct planner_loop *loop = &core->loop;
    bool unpaired = !cluster_paired(core, &lead->snapshot);
    if (unpaired && !loop->unpaired)
        loop->pair_due = core->now + time_of(core->settings.pair_wait_s);
    if (!unpaired)
        loop->pair_due = TS_TIME_NEVER;
    loop->unpaired = unpaired;
}

static bool pair_is_due(struct planner_core *core, char *words, size_t size)
{
    if (core->loop.pair_due > core->now)
        return false;
    core->loop.pair_due = TS_TIME_NEVER;
    snprintf(words, size, "no pair of workers has been there for %.0f s", core->settings.pair_wait_s);
    return true;
}

/* For the sake of the workload; not too often. */
static enum planner_cause patient_cause(struct planner_core *core, const struct router_link *lead,
                                        char *words, size_t size)
{
    struct planner_loop *loop = &core->loop;
    const struct planner_trigger_rule *rule = &core->settings.trigger;
    ts_time least = loop->reviewed_at + time_of(rule->plan_min_s);
    ts_time period = loop->basis.class_count ? loop->reviewed_at + time_of(rule->period_s) : TS_TIME_NEVER;
    if (!loop->fresh && core->now < period)
        return PLANNER_CAUSE_NONE;
    if (core->now < least) {
        loop->wake_at = least;
        return PLANNER_CAUSE_NONE;
    }
    struct ts_workload workload = workload_of(core, &core->out->arena);
    loop->fresh = false;
    loop->wake_at = period;
    return planner_basis_check(&loop->basis, rule, &workload, &lead->snapshot.links, seconds(core->now),
                               words, size);
}

/* --- A plan under way --- */

static void open_search(struct planner_core *core, const struct router_link *lead)
{
    struct planner_loop *loop = &core->loop;
    struct ts_msg message = {.kind = TS_MSG_SNAPSHOT}, copy = {.kind = TS_MSG_SNAPSHOT};
    message.snapshot = lead->snapshot;
    const struct ts_workload workload = workload_of(core, &core->out->arena);
    message.snapshot.workload = planner_measure_of(&loop->measure, &workload);
    ts_arena_reset(&loop->arena);
    ts_schema_copy(&ts_msg_schema, &copy, &message, &loop->arena);
    struct ts_plan_worker *workers = (struct ts_plan_worker *)(uintptr_t)copy.snapshot.workers.data;
    for (uint32_t i = 0; i < copy.snapshot.workers.count; i++)
        workers[i].phase = worker_phase(core, &workers[i]);
    loop->snapshot = copy.snapshot;
    loop->flipping = false;
    loop->live = planner_live_open(&core->settings.plan, &loop->snapshot);
    for (size_t i = 0; i < core->settings.router_count; i++)
        core->routers[i].searched = core->routers[i].cluster;
}

static void keep_sent(struct router_link *r, const struct ts_msg_plan *plan)
{
    struct ts_msg message = {.kind = TS_MSG_PLAN}, copy = {.kind = TS_MSG_PLAN};
    message.plan = *plan;
    ts_arena_reset(&r->sent_arena);
    ts_schema_copy(&ts_msg_schema, &copy, &message, &r->sent_arena);
    r->sent = copy.plan;
}

/* To one router, if it is worth a message there; whether it was. */
static bool send_plan(struct planner_core *core, struct router_link *r, const struct ts_msg_plan *plan,
                      bool flips)
{
    struct ts_msg_plan part = plan_part(plan, &r->snapshot, &core->out->arena);
    bool known = r->sent.number > 0 && r->sent.term == core->term;
    if (part.shares.count == 0) {
        r->wants_plan = false; /* until its workers change */
        return false;
    }
    if (known && !flips && !r->wants_plan && r->cluster == r->planned &&
        !plan_differs(&r->sent, &part, core->settings.share_min))
        return false;
    part.snapshot_version = r->snapshot.version;
    planner_send(core, r, TS_MSG_PLAN)->msg.plan = part;
    keep_sent(r, &part);
    r->sent_cluster = r->cluster;
    r->wants_plan = false;
    r->refused = 0;
    ts_actions_log(core->out, TS_LOG_INFO,
                   "event=plan router=%llu number=%llu depth=%s cause=\"%s\" verdict=\"%s\"",
                   (unsigned long long)r->peer, (unsigned long long)part.number, flips ? "flip" : "re-route",
                   core->loop.words, planner_live_verdict(core->loop.live));
    return true;
}

static bool publish(struct planner_core *core, bool flips, double *attained)
{
    struct ts_msg_plan plan = {.term = core->term,
                               .number = core->number + 1,
                               .planner = ts_str_of(core->settings.id),
                               .algorithm = ts_str_of(core->settings.plan.algorithm->name)};
    struct planner_loop *loop = &core->loop;
    bool found = planner_live_best(loop->live, &core->out->arena, &plan), sent = false;
    for (size_t i = 0; found && i < core->settings.router_count; i++) {
        if (listens(&core->routers[i]) && !waits(core, &core->routers[i]))
            sent |= send_plan(core, &core->routers[i], &plan, flips);
    }
    core->number += sent; /* one for all routers: workers hear of a flip from each */
    for (size_t i = 0; i < core->settings.router_count; i++) {
        core->routers[i].planned = core->routers[i].searched;
        core->routers[i].wants_plan &= found; /* nothing to be had until the workers change */
    }
    loop->reviewed_at = core->now;
    /* A promise is one only for what was measured. */
    double promised = found && planner_live_measured(loop->live) ? plan.attainment : -1;
    *attained = promised > 0 ? promised : 0;
    planner_basis_set(&loop->basis, &core->settings.trigger, &loop->snapshot.workload, &loop->snapshot.links,
                      promised, seconds(core->now));
    return found;
}

/* The flip is on its way: until it has arrived, its workers count as what they are to be. */
static void flip(struct planner_core *core)
{
    struct planner_loop *loop = &core->loop;
    struct ts_msg_plan plan = {.term = core->term};
    (void)planner_live_best(loop->live, &core->out->arena, &plan);
    for (uint32_t i = 0; i < plan.replicas.count; i++) {
        const struct ts_plan_worker *w = &loop->snapshot.workers.data[plan.replicas.data[i].id];
        if (w->phase != plan.replicas.data[i].phase)
            fix(core, w, plan.replicas.data[i].phase);
    }
    loop->flipped_at = core->now;
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        bool same = r->cluster == r->searched;
        if (r->has_snapshot)
            r->cluster = cluster_hash(core, &r->snapshot);
        r->searched = same ? r->cluster : r->searched;
    }
}

static void finish_flip(struct planner_core *core)
{
    struct planner_loop *loop = &core->loop;
    if (planner_live_flips(loop->live)) {
        flip(core);
        (void)publish(core, true, &loop->attained_adopted);
    } else {
        ts_actions_log(core->out, TS_LOG_INFO, "event=phases_kept cause=\"%s\" verdict=\"%s\"", loop->words,
                       planner_live_verdict(loop->live));
    }
    planner_live_close(&loop->live);
}

static void finish_route(struct planner_core *core)
{
    struct planner_loop *loop = &core->loop;
    double attained = 0;
    loop->past = (struct planner_live_past){
        .since_s = loop->flipped_at == TS_TIME_NEVER ? INFINITY : seconds(core->now - loop->flipped_at),
        .attained_adopted = loop->attained_adopted,
        .awaits_pair = loop->pair_due > core->now && loop->pair_due != TS_TIME_NEVER,
        .keeps = keeps_phase,
        .context = core};
    loop->flipping = planner_live_flip(loop->live, &loop->past);
    bool found = publish(core, false, &attained);
    if (!found && !loop->flipping)
        ts_actions_log(core->out, TS_LOG_INFO, "event=no_plan cause=\"%s\" reason=no_pair_of_workers",
                       loop->words);
    if (loop->attained_adopted <= 0)
        loop->attained_adopted = attained;
    if (!loop->flipping)
        planner_live_close(&loop->live);
}

void loop_snapshot(struct planner_core *core, struct router_link *r)
{
    release_fixed(core, &r->snapshot);
    r->cluster = cluster_hash(core, &r->snapshot);
    core->loop.fresh = true;
}

void loop_step(struct planner_core *core)
{
    struct planner_loop *loop = &core->loop;
    struct router_link *lead = core->term && !core->draining ? leader(core) : NULL;
    if (!lead || (loop->live && lead->cluster != lead->searched))
        loop_stop(core);
    if (!lead)
        return;
    if (loop->fresh)
        look_for_pairs(core, lead);
    if (loop->fresh)
        measure(core);
    if (!loop->live) {
        loop->wake_at = TS_TIME_NEVER;
        loop->cause = pair_is_due(core, loop->words, sizeof loop->words)
                          ? PLANNER_CAUSE_CLUSTER
                          : urgent_cause(core, loop->words, sizeof loop->words);
        if (loop->cause == PLANNER_CAUSE_NONE)
            loop->cause = patient_cause(core, lead, loop->words, sizeof loop->words);
        if (loop->cause == PLANNER_CAUSE_NONE)
            return;
        open_search(core, lead);
    }
    if (!planner_live_step(loop->live, core->settings.step_work))
        return;
    if (loop->flipping)
        finish_flip(core);
    else
        finish_route(core);
}

ts_time loop_deadline(const struct planner_core *core)
{
    const struct planner_loop *loop = &core->loop;
    const struct planner_trigger_rule *rule = &core->settings.trigger;
    ts_time period = TS_TIME_NEVER;
    bool heard = false;
    if (loop->live)
        return core->now;
    for (size_t i = 0; core->term && i < core->settings.router_count; i++) {
        heard = heard || listens(&core->routers[i]);
        if (listens(&core->routers[i]) && (loop->basis.class_count || core->routers[i].wants_plan))
            period = loop->reviewed_at + time_of(fmax(rule->period_s, rule->plan_min_s));
    }
    if (!heard || core->draining) /* nobody to plan for: what was due waits for the next snapshot */
        return TS_TIME_NEVER;
    if (core->term && loop->pair_due < period)
        period = loop->pair_due;
    return loop->wake_at < period ? loop->wake_at : period;
}
