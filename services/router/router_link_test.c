/*
 * An operator's test of one link: the names are looked up here, the relay measures, its answer goes back to
 * who asked. Each question is answered once: by the relay, by its end, or when nothing comes for
 * LINK_TEST_WAIT.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define LINK_TESTS_MAX 64
#define LINK_TEST_WAIT (15 * TS_S) /* longer than a relay gives itself */

static struct ts_msg_link_test_reply *answer(struct router_core *core, enum ts_channel channel, uint64_t peer,
                                             uint64_t id)
{
    struct ts_action_send *s = ts_actions_send(core->out, channel, peer, TS_MSG_LINK_TEST_REPLY);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.link_test_reply.id = id;
    return &s->msg.link_test_reply;
}

static const char *name_in(struct ts_str name, char out[TS_ID_BYTES_MAX + 1])
{
    snprintf(out, TS_ID_BYTES_MAX + 1, "%.*s", (int)name.count, name.count ? name.data : "");
    return out;
}

struct named {
    struct member *relay;
    const struct member *decode;
    enum ts_reason reason; /* why not */
    const char *text;
};

static struct named refuse(enum ts_reason reason, const char *text)
{
    return (struct named){.reason = reason, .text = text};
}

static struct named find(struct router_core *core, const struct ts_msg_link_test *m)
{
    struct ts_arena *arena = &core->out->arena;
    char from[TS_ID_BYTES_MAX + 1], to[TS_ID_BYTES_MAX + 1];
    struct named n = {.relay = member_find(core, TS_ROLE_RELAY, name_in(m->from, from)),
                      .decode = member_find(core, TS_ROLE_WORKER, name_in(m->to, to))};
    const struct member *worker = member_find(core, TS_ROLE_WORKER, from);
    if (!n.relay && !worker)
        return refuse(
            TS_REASON_NOT_FOUND,
            ts_arena_printf(arena, "there is no relay or worker \"%s\": tsctl status lists them", from));
    n.relay = n.relay ? n.relay : worker->relay;
    if (!n.relay)
        return refuse(
            TS_REASON_UNSUPPORTED,
            ts_arena_printf(arena, "worker \"%s\" has no relay that is there, so no KV goes from it", from));
    if (!n.decode)
        return refuse(TS_REASON_NOT_FOUND,
                      ts_arena_printf(arena, "there is no worker \"%s\": tsctl status lists them", to));
    if (n.decode->hello.profile.kv_endpoint.count == 0)
        return refuse(
            TS_REASON_UNSUPPORTED,
            ts_arena_printf(arena, "worker \"%s\" has no endpoint for KV: see its key kv_listen", to));
    if (!n.relay->session.up)
        return refuse(TS_REASON_PEER_LOST,
                      ts_arena_printf(arena, "relay \"%s\" is not connected now: ask again", n.relay->id));
    if (!n.relay->hello.link_tests)
        return refuse(
            TS_REASON_UNSUPPORTED,
            ts_arena_printf(arena, "relay \"%s\" is of a version that tests no links", n.relay->id));
    if (ts_map_count(core->link_tests) >= LINK_TESTS_MAX)
        return refuse(TS_REASON_BUSY, "too many links are tested now: ask again");
    return n;
}

void link_test_asked(struct router_core *core, const struct ts_event_message *m)
{
    const struct ts_msg_link_test *ask = &m->msg.link_test;
    struct named n = find(core, ask);
    if (n.reason != TS_REASON_NONE) {
        struct ts_msg_link_test_reply *reply = answer(core, m->channel, m->peer, ask->id);
        reply->reason = n.reason;
        reply->text = ts_str_of(n.text);
        return;
    }
    struct link_question *q = ts_xcalloc(1, sizeof *q);
    *q = (struct link_question){.id = core->next_link_test++,
                                .relay = n.relay,
                                .channel = m->channel,
                                .peer = m->peer,
                                .peer_id = ask->id,
                                .timer = {.kind = TIMER_LINK_TEST}};
    snprintf(q->to, sizeof q->to, "%s", n.decode->id);
    ts_map_put_u64(core->link_tests, q->id, q);
    timers_set(&core->timers, &q->timer, core->now + LINK_TEST_WAIT);
    member_send(core, n.relay, TS_MSG_LINK_TEST)->msg.link_test =
        (struct ts_msg_link_test){.id = q->id,
                                  .from = ts_str_of(n.relay->id),
                                  .to = ts_str_of(n.decode->id),
                                  .endpoint = n.decode->hello.profile.kv_endpoint,
                                  .bytes = ask->bytes};
}

static void end(struct router_core *core, struct link_question *q, enum ts_reason reason, struct ts_str text,
                const struct ts_link_item *link)
{
    struct ts_msg_link_test_reply *reply = answer(core, q->channel, q->peer, q->peer_id);
    const struct member *decode = member_find(core, TS_ROLE_WORKER, q->to);
    reply->reason = reason;
    reply->text = text;
    if (link) {
        reply->link = *link;
        reply->link.from = ts_str_of(q->relay->id);
        reply->link.to = decode ? ts_str_of(decode->id) : (struct ts_str){.count = 0};
        reply->link.expected_bytes_per_s = decode ? links_expected(core, q->relay, decode) : 0;
    }
    timers_set(&core->timers, &q->timer, TS_TIME_NEVER);
    ts_map_remove_u64(core->link_tests, q->id);
    ts_free(q);
}

void link_test_reply(struct router_core *core, const struct member *from,
                     const struct ts_msg_link_test_reply *m)
{
    struct link_question *q = ts_map_get_u64(core->link_tests, m->id);
    if (q && q->relay == from)
        end(core, q, m->reason, m->text, m->reason == TS_REASON_NONE ? &m->link : NULL);
}

void link_test_due(struct router_core *core, struct link_question *q)
{
    end(core, q, TS_REASON_KV_TIMEOUT, ts_str_of("the relay did not answer in time"), NULL);
}

void link_test_lost(struct router_core *core, const struct member *gone)
{
    struct link_question *q;
    for (size_t cursor = 0; (q = ts_map_next(core->link_tests, &cursor, NULL, NULL));) {
        if (q->relay == gone)
            end(core, q, TS_REASON_PEER_LOST, ts_str_of("the relay was lost"), NULL);
    }
}
