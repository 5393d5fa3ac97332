#include "services/relay/relay_impl.h"
#include "tests/sim/sim_impl.h"

void sim_see_relay(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                   const struct ts_actions *actions)
{
    (void)w;
    (void)node;
    (void)event;
    (void)actions;
}

int sim_transfer_state(struct cloud_node *node, struct ts_rid rid)
{
    static const int states[] = {
        [TRANSFER_OPENING] = SIM_AT_t_opening,     [TRANSFER_WAIT_GRANT] = SIM_AT_t_wait_grant,
        [TRANSFER_STREAMING] = SIM_AT_t_streaming, [TRANSFER_FLUSHING] = SIM_AT_t_flushing,
        [TRANSFER_OVER] = SIM_AT_t_over,
    };
    const struct relay_core *core = cloud_node_core(node);
    const struct transfer *t = core ? transfer_find(core, rid) : NULL;
    if (t)
        return states[t->state];
    for (t = core ? core->over.head : NULL; t; t = t->near[LIST_ALL].next) {
        if (ts_rid_equal(t->rid, rid))
            return SIM_AT_t_over;
    }
    return -1;
}
