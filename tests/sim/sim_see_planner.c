/*
 * The books of the harness about planners: plans of one incarnation only go up, and one that was told that
 * its term is over does not go on with it.
 */
#include "services/planner/planner_impl.h"
#include "tests/sim/sim_impl.h"

static void plan_sent(struct sim_world *w, struct cloud_node *node, struct sim_planner *p,
                      const struct ts_action_send *s)
{
    const struct ts_msg_plan *m = &s->msg.plan;
    if (p->incarnation != s->envelope.incarnation)
        *p = (struct sim_planner){.incarnation = s->envelope.incarnation};
    if (m->term < p->term || (m->term == p->term && m->number <= p->number))
        cloud_fail(w->cloud, "%s sends plan %llu.%llu after %llu.%llu", cloud_node_id(node),
                   (unsigned long long)m->term, (unsigned long long)m->number, (unsigned long long)p->term,
                   (unsigned long long)p->number);
    if (m->term == p->refused_term)
        cloud_fail(w->cloud, "%s goes on with term %llu, which is over", cloud_node_id(node),
                   (unsigned long long)m->term);
    p->term = m->term;
    p->number = m->number;
}

static void heard(struct sim_world *w, struct cloud_node *node, struct sim_planner *p,
                  const struct ts_event_message *m)
{
    const struct planner_core *core = cloud_node_core(node);
    const struct ts_session *session = &core->routers[m->peer - 1].session;
    sim_session_check(w, node, m->channel, m->peer, session);
    bool taken = session->up && m->envelope.session == session->id; /* its silence may have ended it before */
    if (w->delivered && taken && m->msg.kind == TS_MSG_PLAN_REPLY &&
        m->msg.plan_reply.verdict == TS_PLAN_REFUSED && m->msg.plan_reply.reason == TS_REASON_STALE_PLAN &&
        m->msg.plan_reply.term == p->term)
        p->refused_term = m->msg.plan_reply.term;
}

void sim_see_planner(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                     const struct ts_actions *actions)
{
    struct sim_planner *p = &w->planners[sim_index_of(w, node)];
    enum ts_phase role;
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_PLAN && !sim_altered(w, &a->send, &role))
            plan_sent(w, node, p, &a->send);
    }
    if (event->kind == TS_EVENT_MESSAGE)
        heard(w, node, p, &event->message);
}
