/* What planners are told: the cluster as it is, whole, after each change. */
#include "services/router/router_impl.h"

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
                                   .kv_blocks = p->kv_blocks,
                                   .stages = p->stages,
                                   .measured = p->measured};
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
    struct ts_workload workload = workload_of(&core->workload, core->now, &core->out->arena);
    workload.queued = (uint32_t)core->queued_count;
    workload.running = (uint32_t)(core->live_count - core->queued_count);
    return (struct ts_msg_snapshot){.version = core->snapshot_version,
                                    .workers = {workers, count},
                                    .links = links_list(core, true),
                                    .workload = workload,
                                    .term = core->term,
                                    .number = core->number,
                                    .holder = ts_str_of(core->holder)};
}

static void inform(struct router_core *core, struct member *planner)
{
    struct ts_action_send *s =
        member_send(core, planner, planner->snapshot_sent ? TS_MSG_UPDATE : TS_MSG_SNAPSHOT);
    if (planner->snapshot_sent)
        s->msg.update = snapshot(core);
    else
        s->msg.snapshot = snapshot(core);
    planner->snapshot_sent = core->snapshot_version;
}

void snapshot_inform(struct router_core *core)
{
    struct member *m;
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->role == TS_ROLE_PLANNER && m->session.up && m->snapshot_sent != core->snapshot_version)
            inform(core, m);
    }
}

/* What runs for longer than was expected is known to be longer. */
static void correct_lengths(struct router_core *core)
{
    for (struct record *r = core->live_head; r; r = r->next) {
        if (r->count > r->counted.output)
            workload_correct(&core->workload, core->now, &r->counted, r->prompt_tokens, (uint32_t)r->count);
    }
}

/* The same version of the cluster: a plan that is being made does not get stale by it. */
void snapshot_workload_due(struct router_core *core)
{
    struct member *m;
    correct_lengths(core);
    for (size_t cursor = 0; (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->role == TS_ROLE_PLANNER && m->session.up && m->snapshot_sent == core->snapshot_version)
            inform(core, m);
    }
    if (!workload_idle(&core->workload, core->now))
        timers_set(&core->timers, &core->workload_timer,
                   core->now + core->settings.workload_update_ms * TS_MS);
}
