/*
 * What becomes of plans. One is taken whole or refused with a reason; the router serves with what load tells
 * until there is one, and with the last one when its planner is gone. Names are resolved once: a replica
 * points to its worker, and is NULL while that is not there.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_math.h"
#include "services/router/router_impl.h"

#define SEEN_MAX   1024 /* requests: what was seen earlier then counts half */
#define UNSEEN     0.01 /* of the requests of a window: a class of which there was none */
#define SEEN_FIRST 32   /* after so many flows are counted anew, then after twice as many, and so on */

void plan_changed(struct router_core *core)
{
    core->snapshot_version++;
    core->changed = core->dispatch = true;
}

/* --- what its planner hears --------------------------------------------------------------------------- */

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

/* To its holder, if that is there. */
static void tell_holder(struct router_core *core, enum ts_plan_verdict verdict, enum ts_reason reason,
                        const char *text)
{
    struct member *holder = *core->holder ? member_find(core, TS_ROLE_PLANNER, core->holder) : NULL;
    const struct ts_msg_plan m = {.term = core->term, .number = core->number};
    core->plan.applying = false;
    ts_actions_log(core->out, reason ? TS_LOG_WARN : TS_LOG_INFO,
                   "event=plan_%s term=%llu number=%llu reason=%s worker=%s",
                   verdict == TS_PLAN_APPLIED ? "applied" : "aborted", (unsigned long long)core->term,
                   (unsigned long long)core->number, ts_reason_name(reason), text);
    if (holder)
        reply(core, holder, &m, verdict, reason, text);
}

/* --- is it valid? ------------------------------------------------------------------------------------- */

struct named { /* a replica of a message by its id; a worker by its name: kept while a plan is looked at */
    struct ts_map *by_id, *by_worker;
};

static const struct ts_plan_replica *replica_of(const struct named *named, uint32_t id)
{
    return ts_map_get_u64(named->by_id, id);
}

static const char *check_replicas(const struct router_core *core, const struct ts_msg_plan *m,
                                  const struct named *named)
{
    for (uint32_t i = 0; i < m->replicas.count; i++) {
        const struct ts_plan_replica *r = &m->replicas.data[i];
        char id[TS_ID_BYTES_MAX + 1];
        snprintf(id, sizeof id, "%.*s", (int)r->worker.count, r->worker.count ? r->worker.data : "");
        const struct member *worker = member_find(core, TS_ROLE_WORKER, id);
        if (ts_map_put_u64(named->by_id, r->id, (void *)(uintptr_t)r))
            return "two replicas have the same id";
        if (!worker)
            return "a replica names a worker that is not there";
        if (ts_map_put(named->by_worker, id, strlen(id), (void *)(uintptr_t)r))
            return "two replicas name the same worker";
        if (r->phase == TS_PHASE_NONE)
            return "a replica has no phase";
        if (r->phase != worker->hello.profile.phase && (worker->hello.profile.phases & r->phase) != r->phase)
            return "a replica asks for a phase that its worker is not willing to serve";
    }
    return NULL;
}

static const char *check_classes(const struct ts_msg_plan *m)
{
    for (uint32_t i = 0; i < m->classes.count; i++) {
        const struct ts_plan_class *c = &m->classes.data[i];
        if (!(c->prompt_tokens >= 0 && c->prompt_tokens <= TS_PROMPT_TOKENS_MAX && c->output_tokens >= 0 &&
              c->output_tokens <= TS_PROMPT_TOKENS_MAX))
            return "the centre of a class is not a number of tokens";
        if (!(c->prompt_begin >= 0 && c->prompt_end >= c->prompt_begin && c->prompt_end <= 1e9))
            return "the range of prompts of a class is none";
    }
    return NULL;
}

static uint32_t classes_in(const struct ts_msg_plan *m)
{
    return m->classes.count ? m->classes.count : 1;
}

static const char *check_shares(const struct ts_msg_plan *m, const struct named *named, double *sums)
{
    for (uint32_t i = 0; i < m->shares.count; i++) {
        const struct ts_plan_share *z = &m->shares.data[i];
        const struct ts_plan_replica *p = replica_of(named, z->prefill), *d = replica_of(named, z->decode);
        if (!p || !d || !(p->phase & TS_PHASE_PREFILL) || !(d->phase & TS_PHASE_DECODE))
            return "a share names a replica that is not there or has the wrong phase";
        if (!(z->share >= 0 && z->share <= 1))
            return "a share is not between 0 and 1";
        if (z->length_class >= classes_in(m))
            return "a share names a class that is not there";
        sums[z->length_class] += z->share;
    }
    for (uint32_t i = 0; m->shares.count && i < classes_in(m); i++) {
        if (sums[i] > 0 && !(sums[i] > 0.999 && sums[i] < 1.001)) /* a class without any goes by load */
            return "the shares of a class do not sum to one";
    }
    return NULL;
}

/* --- in force ----------------------------------------------------------------------------------------- */

static char *text_of(struct ts_arena *arena, struct ts_str text)
{
    return ts_arena_printf(arena, "%.*s", (int)text.count, text.count ? text.data : "");
}

static double at_least_one(double tokens)
{
    return tokens > 1 ? tokens : 1;
}

static void take_classes(struct plan *plan, const struct ts_msg_plan *m)
{
    plan->class_count = classes_in(m);
    plan->classes = ts_arena_zalloc(&plan->arena, plan->class_count * sizeof *plan->classes);
    plan->lengths = ts_arena_zalloc(&plan->arena, plan->class_count * sizeof *plan->lengths);
    for (size_t i = 0; i < plan->class_count; i++) {
        const struct ts_plan_class centre =
            m->classes.count ? m->classes.data[i] : (struct ts_plan_class){.prompt_end = 0};
        plan->lengths[i] =
            (struct plan_class){at_least_one(centre.prompt_tokens), at_least_one(centre.output_tokens), 1};
        plan->classes[i].log_prompt = ts_math_log(plan->lengths[i].prompt_tokens);
        plan->classes[i].log_output = ts_math_log(plan->lengths[i].output_tokens);
        plan->classes[i].prompt_begin = centre.prompt_begin;
        plan->classes[i].prompt_end = centre.prompt_end;
    }
}

static void take_replicas(struct router_core *core, const struct ts_msg_plan *m)
{
    struct plan *plan = &core->plan;
    plan->replica_count = m->replicas.count;
    plan->replicas = ts_arena_zalloc(&plan->arena, (m->replicas.count + 1) * sizeof *plan->replicas);
    plan->workers = ts_arena_zalloc(&plan->arena, (m->replicas.count + 1) * sizeof *plan->workers);
    plan->phases = ts_arena_zalloc(&plan->arena, (m->replicas.count + 1) * sizeof *plan->phases);
    for (size_t i = 0; i < core->worker_count; i++)
        member_of(core->workers[i])->replica = 0;
    for (uint32_t i = 0; i < m->replicas.count; i++) {
        plan->workers[i] = text_of(&plan->arena, m->replicas.data[i].worker);
        plan->phases[i] = m->replicas.data[i].phase;
        struct member *member = member_find(core, TS_ROLE_WORKER, plan->workers[i]);
        plan->replicas[i].worker = &member->route;
        member->replica = i + 1;
    }
}

/* By class; within one as they came. */
static void take_shares(struct plan *plan, const struct ts_msg_plan *m, const struct named *named)
{
    size_t count = 0;
    plan->share_count = m->shares.count;
    plan->shares = ts_arena_zalloc(&plan->arena, (m->shares.count + 1) * sizeof *plan->shares);
    size_t *next = ts_arena_zalloc(&plan->arena, plan->class_count * sizeof *next);
    for (uint32_t i = 0; i < m->shares.count; i++)
        plan->classes[m->shares.data[i].length_class].share_count++;
    for (size_t c = 0; c < plan->class_count; c++) {
        plan->classes[c].shares = plan->shares + count;
        next[c] = count;
        count += plan->classes[c].share_count;
    }
    for (uint32_t i = 0; i < m->shares.count; i++) {
        const struct ts_plan_share *z = &m->shares.data[i];
        plan->shares[next[z->length_class]++] =
            (struct route_share){.prefill = (uint32_t)(replica_of(named, z->prefill) - m->replicas.data),
                                 .decode = (uint32_t)(replica_of(named, z->decode) - m->replicas.data),
                                 .share = z->share,
                                 .codec = text_of(&plan->arena, z->codec)};
    }
}

/* What the plan sends to each replica, by how often each class was seen. */
static void count_flows(struct plan *plan)
{
    double prompt_flow = 0, row_flow = 0;
    for (size_t i = 0; i < plan->replica_count; i++)
        plan->replicas[i].prompt_flow = plan->replicas[i].row_flow = 0;
    for (size_t c = 0; c < plan->class_count; c++) {
        const struct plan_class *of = &plan->lengths[c];
        for (size_t i = 0; i < plan->classes[c].share_count; i++) {
            const struct route_share *z = &plan->classes[c].shares[i];
            plan->replicas[z->prefill].prompt_flow += of->seen * z->share * of->prompt_tokens;
            plan->replicas[z->decode].row_flow += of->seen * z->share * of->output_tokens;
        }
    }
    for (size_t i = 0; i < plan->replica_count; i++) {
        prompt_flow += plan->replicas[i].prompt_flow;
        row_flow += plan->replicas[i].row_flow;
    }
    for (size_t c = 0; c < plan->class_count; c++) {
        plan->classes[c].prompt_flow = prompt_flow;
        plan->classes[c].row_flow = row_flow;
    }
}

/* Requests of the last window: how often each class will be seen is known from the start. */
static void take_workload(struct router_core *core)
{
    struct plan *plan = &core->plan;
    struct ts_workload workload = workload_of(&core->workload, core->now, &core->out->arena);
    double requests = workload.arrivals_per_s * workload.window_s, sum = 0;
    double scale = requests > SEEN_MAX / 2.0 ? SEEN_MAX / 2.0 / requests : 1;
    double unseen = requests * scale * UNSEEN; /* less than the 1 that a class has where nothing is known */
    for (size_t c = 0; c < plan->class_count && requests > 0; c++)
        plan->lengths[c].seen = unseen < 1 ? unseen : 1;
    for (uint32_t i = 0; i < workload.classes.count; i++) {
        const struct ts_workload_class *from = &workload.classes.data[i];
        size_t class_ = route_class_of(plan->classes, plan->class_count, (uint32_t)from->prompt_tokens,
                                       (uint32_t)from->output_tokens);
        double seen = from->rate * workload.window_s * scale;
        plan->lengths[class_].seen += seen;
        sum += seen;
    }
    plan->seen = sum;
    plan->recount = SEEN_FIRST;
    while (plan->recount <= plan->seen)
        plan->recount *= 2;
}

struct route_limits plan_limits(const struct router_core *core)
{
    return (struct route_limits){core->settings.prefill_inflight_max, core->settings.decode_inflight_max};
}

const struct route_share *plan_pick(const struct router_core *core, const struct route_request *request,
                                    uint32_t output_tokens, uint32_t *length_class, unsigned *avoided)
{
    const struct plan *plan = &core->plan;
    unsigned failed = 0;
    if (plan->class_count == 0)
        return NULL;
    size_t found = route_class_of(plan->classes, plan->class_count, request->prompt_tokens, output_tokens);
    const struct route_class *of = &plan->classes[found];
    size_t picked = route_pick_share(of, plan->replicas, request, plan_limits(core), &failed);
    if (length_class)
        *length_class = (uint32_t)found;
    if (avoided)
        *avoided = failed;
    return picked != ROUTE_NONE ? &of->shares[picked] : NULL;
}

void plan_sent(struct router_core *core, size_t share, size_t length_class)
{
    struct plan *plan = &core->plan;
    plan->shares[share].sent++;
    plan->lengths[length_class].seen++;
    if (++plan->seen < plan->recount)
        return;
    plan->recount *= 2;
    if (plan->seen >= SEEN_MAX) {
        plan->seen /= 2;
        plan->recount = SEEN_MAX;
        for (size_t i = 0; i < plan->share_count; i++)
            plan->shares[i].sent /= 2;
        for (size_t c = 0; c < plan->class_count; c++)
            plan->lengths[c].seen = at_least_one(plan->lengths[c].seen / 2);
    }
    count_flows(plan);
}

void plan_member_joined(struct router_core *core, struct member *member)
{
    struct plan *plan = &core->plan;
    for (size_t i = 0; i < plan->replica_count && !member->replica; i++) {
        if (strcmp(plan->workers[i], member->id) != 0)
            continue;
        plan->replicas[i].worker = &member->route;
        member->replica = (uint32_t)i + 1;
    }
}

void plan_member_gone(struct router_core *core, struct member *member)
{
    if (member->replica && core->plan.applying)
        plan_phase(core, member, TS_REASON_PEER_LOST);
    if (member->replica)
        core->plan.replicas[member->replica - 1].worker = NULL;
    member->replica = 0;
}

static void adopt(struct router_core *core, const struct ts_msg_plan *m, const struct named *named)
{
    struct plan *plan = &core->plan;
    if (plan->applying)
        tell_holder(core, TS_PLAN_ABORTED, TS_REASON_STALE_PLAN, "");
    ts_arena_reset(&plan->arena);
    take_classes(plan, m);
    take_replicas(core, m);
    take_shares(plan, m, named);
    take_workload(core);
    count_flows(plan);
    core->term = m->term;
    core->number = m->number;
    if (m->term > plan->newest_term || (m->term == plan->newest_term && m->number > plan->newest_number)) {
        plan->newest_term = m->term;
        plan->newest_number = m->number;
    }
    core->dispatch = true;
}

/* Words of what is wrong with it, or NULL and it is in force. */
static const char *check_and_adopt(struct router_core *core, const struct ts_msg_plan *m)
{
    struct named named = {ts_map_new(), ts_map_new()};
    double *sums = ts_arena_zalloc(&core->out->arena, classes_in(m) * sizeof *sums);
    const char *fault = check_replicas(core, m, &named);
    if (!fault)
        fault = check_classes(m);
    if (!fault)
        fault = check_shares(m, &named, sums);
    if (!fault)
        adopt(core, m, &named);
    ts_map_destroy(&named.by_id);
    ts_map_destroy(&named.by_worker);
    return fault;
}

/* What a worker is in, or on its way to, must be what the plan says: also where an earlier word is under way.
 */
static void set_phases(struct router_core *core)
{
    struct plan *plan = &core->plan;
    plan->applying = true;
    for (size_t i = 0; i < plan->replica_count; i++) {
        struct member *member = member_of(plan->replicas[i].worker);
        enum ts_phase on_its_way = member->switching.to;
        if (on_its_way ? on_its_way != plan->phases[i] : member->hello.profile.phase != plan->phases[i])
            phase_set(core, member, plan->phases[i]);
    }
}

/* Over once nobody is on the way: applied, or an operator has taken a replica to another phase meanwhile. */
static void settle(struct router_core *core)
{
    const struct plan *plan = &core->plan;
    const struct member *elsewhere = NULL;
    for (size_t i = 0; i < plan->replica_count; i++) {
        const struct member *member = member_of(plan->replicas[i].worker);
        if (member->switching.to != TS_PHASE_NONE)
            return;
        if (!elsewhere && member->hello.profile.phase != plan->phases[i])
            elsewhere = member;
    }
    if (elsewhere)
        tell_holder(core, TS_PLAN_ABORTED, TS_REASON_WRONG_PHASE, elsewhere->id);
    else
        tell_holder(core, TS_PLAN_APPLIED, TS_REASON_NONE, "");
}

void plan_phase(struct router_core *core, const struct member *member, enum ts_reason reason)
{
    if (!core->plan.applying || !member->replica)
        return;
    if (reason == TS_REASON_NONE)
        settle(core);
    else
        tell_holder(core, TS_PLAN_ABORTED, reason, member->id);
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
    const char *fault = check_and_adopt(core, m);
    if (fault) {
        reply(core, from, m, TS_PLAN_REFUSED, TS_REASON_BAD_PLAN, fault);
        return;
    }
    snprintf(core->holder, sizeof core->holder, "%s", from->id);
    reply(core, from, m, TS_PLAN_ACCEPTED, TS_REASON_NONE, "");
    set_phases(core);
    settle(core);
    if (newer)
        plan_changed(core); /* tells the other planners who holds the term */
}

void plan_member_lost(struct router_core *core, const struct member *member)
{
    if (member->role == TS_ROLE_PLANNER && strcmp(core->holder, member->id) == 0)
        core->holder[0] = '\0';
}
