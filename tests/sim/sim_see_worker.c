#include "services/worker/worker_impl.h"
#include "tests/sim/sim_impl.h"

void sim_see_worker(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    (void)w;
    (void)node;
    (void)event;
    (void)actions;
}

static const int states[] = {
    [TASK_TOKENISING] = SIM_AT_p_tokenising, [TASK_WAITING] = SIM_AT_p_waiting,
    [TASK_PREFILLING] = SIM_AT_p_prefilling, [TASK_SEALED] = SIM_AT_p_sealed,
    [TASK_ASSIGNED] = SIM_AT_d_assigned,     [TASK_GRANT_WAIT] = SIM_AT_d_grant_wait,
    [TASK_RECEIVING] = SIM_AT_d_receiving,   [TASK_READY] = SIM_AT_d_ready,
    [TASK_FINISHED] = SIM_AT_d_finished,
};

int sim_task_state(struct cloud_node *node, struct ts_rid rid, enum ts_phase role)
{
    const struct worker_core *core = cloud_node_core(node);
    int state = -1;
    for (const struct task *t = core ? core->head : NULL; t; t = t->next) {
        if (!ts_rid_equal(t->rid, rid) || t->role != role)
            continue;
        if (t->state != TASK_DYING)
            return states[t->state];
        state = role == TS_PHASE_PREFILL ? SIM_AT_p_dying : SIM_AT_d_dying;
    }
    return state;
}
