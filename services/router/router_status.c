/* Questions of operators, answered from what the router knows. */
#include <stdio.h>
#include <string.h>

#include "services/router/router_impl.h"

static struct ts_action_send *answer(struct router_core *core, const struct ts_event_message *m,
                                     enum ts_msg_kind kind)
{
    struct ts_action_send *s = ts_actions_send(core->out, m->channel, m->peer, kind);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    return s;
}

static struct ts_service_status describe(const struct member *m)
{
    return (struct ts_service_status){.id = ts_str_of(m->id),
                                      .role = m->role,
                                      .phase = m->hello.profile.phase,
                                      .pid = m->hello.pid,
                                      .incarnation = m->incarnation,
                                      .ready = member_ready(m),
                                      .draining = m->draining,
                                      .load = m->load};
}

static void send_status(struct router_core *core, const struct ts_event_message *m, uint64_t id)
{
    struct member *member;
    uint32_t count = 1;
    struct ts_service_status *list =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->members) + 1) * sizeof *list);
    list[0] = (struct ts_service_status){.id = ts_str_of(core->settings.id),
                                         .role = TS_ROLE_ROUTER,
                                         .pid = core->settings.pid,
                                         .incarnation = core->incarnation,
                                         .ready = !core->draining,
                                         .draining = core->draining};
    for (size_t cursor = 0; (member = ts_map_next(core->members, &cursor, NULL, NULL));)
        list[count++] = describe(member);
    struct ts_action_send *s = answer(core, m, TS_MSG_STATUS_REPLY);
    s->msg.status_reply =
        (struct ts_msg_status_reply){.id = id,
                                     .services = {list, count},
                                     .queued = (uint32_t)core->queued_count,
                                     .running = (uint32_t)(core->live_count - core->queued_count),
                                     .accepted = core->counts.accepted,
                                     .refused = core->counts.refused,
                                     .ended = core->counts.ended,
                                     .term = core->term,
                                     .number = core->number,
                                     .held_bytes = core->held_bytes,
                                     .client_most = request_client_most(core),
                                     .retries = core->counts.retries,
                                     .stale = core->counts.stale};
}

static void send_links(struct router_core *core, const struct ts_event_message *m)
{
    struct ts_action_send *s = answer(core, m, TS_MSG_LINKS_REPLY);
    s->msg.links_reply = (struct ts_msg_links_reply){.id = m->msg.links.id, .links = links_list(core, false)};
}

static void send_why(struct router_core *core, const struct ts_event_message *m)
{
    struct record *r = record_find(core, m->msg.why.client, m->msg.why.request_id);
    struct ts_action_send *s = answer(core, m, TS_MSG_WHY_REPLY);
    s->msg.why_reply.id = m->msg.why.id;
    s->msg.why_reply.reason = r ? TS_REASON_NONE : TS_REASON_NOT_FOUND;
    if (r)
        request_fill_trace(core, r, &s->msg.why_reply.trace);
}

static void drain(struct router_core *core, const struct ts_event_message *m)
{
    struct member *member;
    char id[TS_ID_BYTES_MAX + 1];
    snprintf(id, sizeof id, "%.*s", (int)m->msg.drain.service.count,
             m->msg.drain.service.count ? m->msg.drain.service.data : "");
    if (strcmp(id, core->settings.id) == 0)
        core->draining = true;
    for (size_t cursor = 0; (member = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (strcmp(member->id, id) != 0)
            continue;
        member_drains(core, member);
        member_send(core, member, TS_MSG_DRAIN);
    }
    send_status(core, m, 0);
}

void status_message(struct router_core *core, const struct ts_event_message *m)
{
    switch (m->msg.kind) {
    case TS_MSG_STATUS:
        send_status(core, m, m->msg.status.id);
        break;
    case TS_MSG_WHY:
        send_why(core, m);
        break;
    case TS_MSG_LINK_TEST:
        link_test_asked(core, m);
        break;
    case TS_MSG_LINKS:
        send_links(core, m);
        break;
    case TS_MSG_DRAIN:
        drain(core, m);
        break;
    case TS_MSG_SET_PHASE:
        phase_asked(core, m);
        break;
    default:
        break;
    }
}
