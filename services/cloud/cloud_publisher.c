#include "services/cloud/cloud_publisher.h"

#include <string.h>

#include "common/base/ts_mem.h"
#include "common/core/ts_session.h"
#include "services/cloud/cloud_impl.h"
#include "services/cloud/cloud_shares.h"

#define ROUTER      1 /* the peer's number */
#define HELLO_EVERY TS_S
#define SETTLE      (200 * TS_MS) /* without a change, what is there is all there is */

struct cloud_publisher {
    struct cloud_node *node;
    struct ts_session session;
    const char *router; /* its endpoint */
    struct cloud_publication publication;
    struct ts_map *workers; /* ids of those that the snapshot calls ready */
    bool *ready, *sent;     /* [group]: is among them; was in the last plan sent */
    struct ts_plan_replica *replicas;
    struct cloud_shares shares;
    uint64_t term, number;          /* of the last plan sent */
    uint64_t version, sent_version; /* of the snapshot, 0 = none yet; that the last plan named */
    bool wanted;
    ts_time changed_at;
};

struct cloud_publisher *publisher_new(struct cloud_node *node)
{
    struct cloud_publisher *p = ts_xcalloc(1, sizeof *p);
    p->node = node;
    p->workers = ts_map_new();
    return p;
}

static void forget_plan(struct cloud_publisher *p)
{
    ts_free(p->ready);
    ts_free(p->sent);
    ts_free(p->replicas);
    cloud_shares_fini(&p->shares);
}

void publisher_destroy(struct cloud_publisher **publisher)
{
    forget_plan(*publisher);
    ts_map_destroy(&(*publisher)->workers);
    ts_free(*publisher);
    *publisher = NULL;
}

static uint32_t groups(const struct cloud_publisher *p)
{
    return p->publication.plan ? p->publication.plan->group_count : 0;
}

static struct ts_action_send *send(struct cloud_publisher *p, ts_time now, struct ts_actions *out,
                                   enum ts_msg_kind kind)
{
    struct ts_action_send *s = ts_actions_send(out, TS_CHANNEL_PLANNER, ROUTER, kind);
    ts_session_stamp(&p->session, now, &s->envelope);
    return s;
}

/* --- the plan ---------------------------------------------------------------------------------------- */

static void send_plan(struct cloud_publisher *p, ts_time now, struct ts_actions *out)
{
    const struct ts_plan *plan = p->publication.plan;
    const struct ts_demand *demand = p->publication.demand;
    struct ts_plan_class *classes = ts_arena_zalloc(&out->arena, sizeof *classes * TS_CLASSES_MAX);
    uint32_t replicas = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        if (p->ready[g])
            p->replicas[replicas++] = (struct ts_plan_replica){
                .id = g, .worker = ts_str_of(p->publication.workers[g]), .phase = plan->groups[g].phase};
    }
    for (uint32_t k = 0; k < demand->class_count; k++)
        classes[k] = (struct ts_plan_class){.prompt_tokens = demand->classes[k].prompt_tokens,
                                            .output_tokens = demand->classes[k].output_tokens,
                                            .prompt_begin = demand->classes[k].prompt_begin,
                                            .prompt_end = demand->classes[k].prompt_end};
    cloud_shares_fini(&p->shares);
    cloud_shares_make(plan, demand->class_count, p->ready, &p->shares);
    send(p, now, out, TS_MSG_PLAN)->msg.plan =
        (struct ts_msg_plan){.term = p->term,
                             .number = ++p->number,
                             .planner = ts_str_of(p->node->id),
                             .algorithm = ts_str_of(plan->algorithm),
                             .snapshot_version = p->version,
                             .replicas = {p->replicas, replicas},
                             .shares = {p->shares.items, p->shares.count},
                             .attainment = plan->rate > 0 ? p->shares.served / plan->rate : 0,
                             .binding = ts_str_of(plan->limit),
                             .classes = {classes, p->shares.folded ? 0 : demand->class_count},
                             .served_per_s = p->shares.served};
    memcpy(p->sent, p->ready, plan->group_count * sizeof *p->sent);
    p->sent_version = p->version;
    p->wanted = false;
}

/* --- messages ---------------------------------------------------------------------------------------- */

static void look(struct cloud_publisher *p, ts_time now)
{
    for (uint32_t g = 0; g < groups(p); g++) {
        const char *id = p->publication.workers[g];
        bool ready = id && ts_map_get(p->workers, id, strlen(id));
        if (ready != p->ready[g])
            p->changed_at = now;
        p->ready[g] = ready;
        p->wanted |= ready != p->sent[g];
    }
}

static void on_snapshot(struct cloud_publisher *p, ts_time now, const struct ts_msg_snapshot *m)
{
    p->version = m->version;
    if (p->term == 0 || (m->term > p->term && m->holder.count == 0))
        p->term = m->term + 1;
    ts_map_destroy(&p->workers);
    p->workers = ts_map_new();
    for (uint32_t i = 0; i < m->workers.count; i++) {
        const struct ts_plan_worker *w = &m->workers.data[i];
        if (w->ready && !w->draining)
            ts_map_put(p->workers, w->id.data, w->id.count, p);
    }
    look(p, now);
}

static void on_reply(struct cloud_publisher *p, const struct ts_msg_plan_reply *m)
{
    if (m->number != p->number || m->term != p->term)
        return;
    if (m->verdict == TS_PLAN_REFUSED && m->reason == TS_REASON_BAD_PLAN)
        cloud_fail(p->node->cloud, "the router refuses a plan: %.*s", (int)m->text.count,
                   m->text.count ? m->text.data : "");
    p->wanted |= m->verdict == TS_PLAN_REFUSED || m->verdict == TS_PLAN_ABORTED;
    if (m->verdict == TS_PLAN_REFUSED && p->version == p->sent_version)
        p->version = 0; /* the newer one is on its way */
}

static void on_message(struct cloud_publisher *p, ts_time now, const struct ts_event_message *m)
{
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&p->session, &m->envelope)) {
        ts_session_welcomed(&p->session, now, &m->envelope, m->msg.welcome.session,
                            m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
        p->version = 0;
        p->wanted = true;
    } else if (m->msg.kind == TS_MSG_RESET) {
        if (!ts_session_ended(&p->session, &m->msg.reset))
            return;
        if (m->msg.reset.fenced)
            p->session.self = ts_splitmix64(p->session.self) | 1;
        ts_session_down(&p->session, now);
    } else if (ts_session_receive(&p->session, now, &m->envelope) == TS_SESSION_DELIVER) {
        if (m->msg.kind == TS_MSG_SNAPSHOT)
            on_snapshot(p, now, &m->msg.snapshot);
        else if (m->msg.kind == TS_MSG_UPDATE)
            on_snapshot(p, now, &m->msg.update);
        else if (m->msg.kind == TS_MSG_PLAN_REPLY)
            on_reply(p, &m->msg.plan_reply);
    }
}

/* When what is wanted may be sent. */
static ts_time send_at(const struct cloud_publisher *p)
{
    bool all = true, any = false;
    if (!p->session.up || !p->wanted || p->version == 0)
        return TS_TIME_NEVER;
    for (uint32_t g = 0; g < groups(p); g++) {
        all &= p->ready[g] || !p->publication.workers[g];
        any |= p->ready[g];
    }
    return all ? p->changed_at : any ? p->changed_at + SETTLE : TS_TIME_NEVER;
}

static void start(struct cloud_publisher *p, struct ts_actions *out)
{
    const struct cloud *cloud = p->node->cloud;
    for (size_t i = 0; i < cloud->node_count && !p->router; i++) {
        if (cloud->nodes[i]->kind == CLOUD_ROUTER)
            p->router = cloud->nodes[i]->endpoint;
    }
    ts_session_init(&p->session, ts_rng_u64(&p->node->cloud->rng) | 1, 500 * TS_MS, 3 * TS_S);
    ts_actions_add(out, TS_ACTION_CONNECT)->connect =
        (struct ts_action_connect){TS_CHANNEL_PLANNER, ROUTER, ts_str_of(p->router)};
}

void publisher_step(struct cloud_publisher *p, ts_time now, const struct ts_event *event,
                    struct ts_actions *out)
{
    if (event->kind == TS_EVENT_START)
        start(p, out);
    else if (event->kind == TS_EVENT_MESSAGE)
        on_message(p, now, &event->message);
    if (ts_session_expired(&p->session, now))
        ts_session_down(&p->session, now);
    if (!p->session.up && p->session.hello_at <= now) {
        send(p, now, out, TS_MSG_HELLO)->msg.hello = (struct ts_msg_hello){.role = TS_ROLE_PLANNER,
                                                                           .id = ts_str_of(p->node->id),
                                                                           .host = ts_str_of(p->node->id),
                                                                           .version = ts_str_of("0.1.0")};
        p->session.hello_at = now + HELLO_EVERY;
    }
    if (send_at(p) <= now)
        send_plan(p, now, out);
    if (ts_session_heartbeat_due(&p->session, now))
        send(p, now, out, TS_MSG_HEARTBEAT);
}

ts_time publisher_deadline(const struct cloud_publisher *p)
{
    ts_time session = ts_session_deadline(&p->session), plan = send_at(p);
    return plan < session ? plan : session;
}

void cloud_publish(struct cloud_node *node, const struct cloud_publication *publication)
{
    const struct ts_event tick = {.kind = TS_EVENT_TICK};
    struct cloud_publisher *p = node->core;
    uint32_t count = publication->plan->group_count;
    forget_plan(p);
    p->publication = *publication;
    p->ready = ts_xcalloc(count + 1, sizeof *p->ready);
    p->sent = ts_xcalloc(count + 1, sizeof *p->sent);
    p->replicas = ts_xcalloc(count + 1, sizeof *p->replicas);
    p->wanted = true;
    p->changed_at = node->cloud->now;
    look(p, node->cloud->now);
    if (node->alive)
        cloud_step(node, &tick);
}
