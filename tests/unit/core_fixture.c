#include "core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"

#define FIRST_INCARNATION 900

void core_begin(struct core_fixture *f, struct core_driver driver)
{
    *f = (struct core_fixture){.driver = driver, .next_session = 1, .name = ""};
    ts_actions_init(&f->out);
    ts_arena_init(&f->arena);
}

int core_refs(const struct core_fixture *f)
{
    int held = 0;
    for (size_t i = 0; i < CORE_SLOTS_MAX; i++)
        held += f->refs[i];
    return held;
}

void core_end(struct core_fixture *f)
{
    for (size_t i = 0; i < CORE_SLOTS_MAX; i++) {
        if (f->refs[i])
            fail_msg("%s: handle #%zu was not dropped", f->name, i);
    }
    ts_actions_fini(&f->out);
    ts_arena_fini(&f->arena);
}

static struct core_peer *peer_of(struct core_fixture *f, enum ts_channel channel, uint64_t peer)
{
    for (size_t i = 0; i < f->peer_count; i++) {
        if (f->peers[i].channel == channel && f->peers[i].peer == peer)
            return &f->peers[i];
    }
    assert_true(f->peer_count < CORE_PEERS_MAX);
    f->peers[f->peer_count] = (struct core_peer){
        .channel = channel, .peer = peer, .incarnation = FIRST_INCARNATION + f->peer_count, .tx = 1, .rx = 1};
    return &f->peers[f->peer_count++];
}

/* --- events --- */

struct modifiers {
    bool gap, old;
    uint64_t incarnation, lane_of;
};

static const char *take_modifiers(const char *line, struct modifiers *out)
{
    *out = (struct modifiers){.gap = false};
    for (;;) {
        if (strncmp(line, "gap ", 4) == 0) {
            out->gap = true;
        } else if (strncmp(line, "old ", 4) == 0) {
            out->old = true;
        } else if (strncmp(line, "as=", 3) == 0) {
            out->incarnation = strtoull(line + 3, NULL, 0);
        } else if (strncmp(line, "lane=", 5) == 0) {
            out->lane_of = strtoull(line + 5, NULL, 0);
        } else {
            return line;
        }
        line = strchr(line, ' ') + 1;
    }
}

static void stamp(struct core_fixture *f, struct core_peer *p, const struct modifiers *mod,
                  struct ts_event_message *m)
{
    m->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = p->incarnation};
    if (mod->lane_of) {
        const struct core_peer *first = peer_of(f, p->channel, mod->lane_of);
        m->envelope.incarnation = first->incarnation;
        m->envelope.session = first->session - mod->old;
        return;
    }
    if (m->msg.kind == TS_MSG_HELLO || m->msg.kind == TS_MSG_RESET || p->channel == TS_CHANNEL_CLIENT ||
        p->channel == TS_CHANNEL_ADMIN)
        return;
    if (m->msg.kind == TS_MSG_WELCOME) {
        p->session = m->msg.welcome.session = 7000 + f->next_session++;
        p->tx = p->rx = 1;
    }
    p->tx += mod->gap;
    m->envelope.session = p->session - mod->old;
    m->envelope.seq = mod->old ? p->tx : p->tx++;
}

void core_stamp(struct core_fixture *f, struct ts_event_message *m)
{
    const struct modifiers none = {.gap = false};
    stamp(f, peer_of(f, m->channel, m->peer), &none, m);
}

static void message_event(struct core_fixture *f, const struct core_head *head, const struct modifiers *mod,
                          struct ts_event *event)
{
    const struct ts_field *kind = core_text_case(&ts_msg_schema, head->kind);
    const struct ts_field *holder = core_text_case(&ts_event_schema, "message");
    struct core_peer *p = peer_of(f, head->channel, head->peer);
    struct ts_event_message *m = &event->message;
    const char *bulk = strrchr(head->rest, '#');
    char fields[1024];
    if (!kind || !ts_msg_allowed(head->channel, (enum ts_msg_kind)kind->when))
        fail_msg("%s: no message \"%s\" on that channel", f->name, head->kind);
    if (mod->incarnation)
        p->incarnation = mod->incarnation;
    event->kind = TS_EVENT_MESSAGE;
    m->channel = head->channel;
    m->peer = head->peer;
    m->msg.kind = (enum ts_msg_kind)kind->when;
    snprintf(fields, sizeof fields, "%.*s", bulk ? (int)(bulk - head->rest) : (int)strlen(head->rest),
             head->rest);
    core_text_fill(kind->sub, (char *)&m->msg + kind->offset, fields, &f->arena);
    if (bulk)
        core_text_fill(holder->sub, m, bulk, &f->arena);
    m->wire_bytes = m->bulk.bytes + 10;
    stamp(f, p, mod, m);
}

static void make_event(struct core_fixture *f, const char *line, struct ts_event *event)
{
    struct modifiers mod;
    struct core_head head;
    *event = (struct ts_event){.kind = TS_EVENT_TICK};
    if (!core_text_head(take_modifiers(line, &mod), &head))
        fail_msg("%s: what is \"%s\"?", f->name, line);
    if (strcmp(head.kind, "unreachable") == 0) {
        event->kind = TS_EVENT_SEND_FAILED;
        event->send_failed = (struct ts_event_send_failed){head.channel, head.peer};
    } else if (head.channel) {
        message_event(f, &head, &mod, event);
    } else {
        const struct ts_field *kind = core_text_case(&ts_event_schema, head.kind);
        if (!kind)
            fail_msg("%s: no event \"%s\"", f->name, head.kind);
        event->kind = (enum ts_event_kind)kind->when;
        core_text_fill(kind->sub, (char *)event + kind->offset, head.rest, &f->arena);
    }
}

static struct ts_bulk bulk_of_event(const struct ts_event *event)
{
    return event->kind == TS_EVENT_MESSAGE   ? event->message.bulk
           : event->kind == TS_EVENT_ENCODED ? event->encoded.bulk
                                             : (struct ts_bulk){.slot = 0};
}

/* --- actions --- */

static void check_envelope(struct core_fixture *f, const struct ts_action_send *s)
{
    struct core_peer *p = peer_of(f, s->channel, s->peer);
    if (s->msg.kind == TS_MSG_WELCOME) {
        p->session = s->msg.welcome.session;
        p->tx = p->rx = 1;
    }
    if (s->envelope.session == 0)
        return;
    if (s->envelope.seq == 0 &&
        s->msg.kind == TS_MSG_KV_CHUNK) { /* over another connection of some session */
        for (size_t i = 0; i < f->peer_count; i++) {
            if (f->peers[i].session == s->envelope.session)
                return;
        }
    }
    if (s->envelope.session != p->session || s->envelope.seq != p->rx)
        fail_msg("%s: %s is number %llu of session %llu, not %llu of %llu", f->name, ts_msg_name(s->msg.kind),
                 (unsigned long long)s->envelope.seq, (unsigned long long)s->envelope.session,
                 (unsigned long long)p->rx, (unsigned long long)p->session);
    p->rx++;
}

static void borrow(struct core_fixture *f, struct ts_bulk bulk)
{
    if (bulk.slot && f->refs[bulk.slot] <= 0)
        fail_msg("%s: an action uses handle #%u, which is dropped", f->name, bulk.slot);
}

/* The relay is told what each block holds. */
static void check_generations(struct core_fixture *f, const struct ts_msg_kv_begin *m)
{
    assert_int_equal(m->generations.count, m->blocks.count);
    for (uint32_t i = 0; i < m->blocks.count; i++)
        assert_int_equal(m->generations.data[i], f->generations[m->blocks.data[i]]);
}

static void count_free(struct core_fixture *f, struct ts_u32s blocks)
{
    assert_true(blocks.count > 0);
    for (uint32_t i = 0; i < blocks.count; i++) {
        assert_in_range(blocks.data[i], 0, CORE_BLOCKS_MAX - 1);
        f->generations[blocks.data[i]]++;
    }
}

/* What every action must hold to, expected or not. */
static void check_action(struct core_fixture *f, const struct ts_action *a)
{
    struct ts_error err = {0};
    if (a->kind == TS_ACTION_SEND) {
        check_envelope(f, &a->send);
        borrow(f, a->send.bulk);
        if (ts_schema_check(&ts_msg_schema, &a->send.msg, &err) != TS_OK)
            fail_msg("%s: a message is out of bounds: %s", f->name, err.text);
        if (a->send.msg.kind == TS_MSG_KV_BEGIN)
            check_generations(f, &a->send.msg.kv_begin);
    } else if (a->kind == TS_ACTION_TOKENISE) {
        borrow(f, a->tokenise.bulk);
    } else if (a->kind == TS_ACTION_SCATTER) {
        borrow(f, a->scatter.bulk);
    } else if (a->kind == TS_ACTION_FREE_BLOCKS) {
        count_free(f, a->free_blocks.blocks);
    } else if (a->kind == TS_ACTION_DROP) {
        if (--f->refs[a->drop.bulk.slot] < 0)
            fail_msg("%s: handle #%u is dropped twice", f->name, a->drop.bulk.slot);
    }
}

/* Whether the action is the one of this line; `why` names what differs. */
static bool matches(struct core_fixture *f, const struct ts_action *a, const char *line, const char **why)
{
    struct core_head head;
    *why = "kind";
    if (!core_text_head(line, &head))
        fail_msg("%s: what is \"%s\"?", f->name, line);
    bool connect = strcmp(head.kind, "connect") == 0, disconnect = strcmp(head.kind, "disconnect") == 0;
    const struct ts_schema *one_of =
        head.channel && !connect && !disconnect ? &ts_msg_schema : &ts_action_schema;
    const void *base = one_of == &ts_msg_schema ? (const void *)&a->send.msg : a;
    const struct ts_field *kind = core_text_case(one_of, head.kind);
    const struct ts_field *send = core_text_case(&ts_action_schema, "send");
    const char *bulk = one_of == &ts_msg_schema ? strrchr(head.rest, '#') : NULL;
    if (!kind)
        fail_msg("%s: no action \"%s\"", f->name, head.kind);
    if (one_of == &ts_msg_schema && (a->kind != TS_ACTION_SEND || a->send.msg.kind != kind->when ||
                                     a->send.channel != head.channel || a->send.peer != head.peer))
        return false;
    if (one_of == &ts_action_schema && a->kind != kind->when)
        return false;
    if ((connect && (a->connect.channel != head.channel || a->connect.peer != head.peer)) ||
        (disconnect && (a->disconnect.channel != head.channel || a->disconnect.peer != head.peer)))
        return false;
    if (bulk && !core_text_match(send->sub, &a->send, bulk, &f->arena, why))
        return false;
    if (one_of == &ts_msg_schema && !bulk && a->send.bulk.slot) {
        *why = "a bulk frame nobody asked for";
        return false;
    }
    const char *fields =
        bulk ? ts_arena_printf(&f->arena, "%.*s", (int)(bulk - head.rest), head.rest) : head.rest;
    return core_text_match(kind->sub, (const char *)base + kind->offset, fields, &f->arena, why);
}

/* Not listed by the tables: logs, and what check_action holds to account. */
static bool unlisted(const struct ts_action *a)
{
    return a->kind == TS_ACTION_LOG || a->kind == TS_ACTION_FREE_BLOCKS;
}

static void fail_actions(struct core_fixture *f, const char *event, const char *line, const char *why)
{
    print_message("%s: after \"%s\" expected \"%s\" (%s), got:\n", f->name, event, line, why);
    for (size_t i = 0; i < f->out.count; i++) {
        if (!unlisted(&f->out.items[i]))
            print_message("    %s\n", core_text_print(&f->out.items[i], &f->arena));
    }
    fail();
}

static void compare(struct core_fixture *f, const char *event, const char *expected)
{
    const char *why = "";
    char line[1024];
    size_t i = 0;
    while (*expected) {
        size_t n = strcspn(expected, "\n");
        snprintf(line, sizeof line, "%.*s", (int)n, expected);
        expected += n + (expected[n] == '\n');
        if (strcmp(line, "*") == 0)
            return;
        while (i < f->out.count && unlisted(&f->out.items[i]))
            i++;
        if (i == f->out.count)
            fail_actions(f, event, line, "nothing");
        if (!matches(f, &f->out.items[i++], line, &why))
            fail_actions(f, event, line, why);
    }
    for (; i < f->out.count; i++) {
        if (!unlisted(&f->out.items[i]))
            fail_actions(f, event, "", "no more actions");
    }
}

void core_feed(struct core_fixture *f, ts_time now, const struct ts_event *event)
{
    struct ts_error err = {0};
    struct ts_bulk bulk = bulk_of_event(event);
    assert_true(now >= f->now);
    f->now = now;
    f->refs[bulk.slot] += bulk.slot != 0;
    ts_actions_clear(&f->out);
    f->driver.step(f->driver.core, now, event, &f->out);
    for (size_t i = 0; i < f->out.count; i++)
        check_action(f, &f->out.items[i]);
    if (!f->driver.check(f->driver.core, &err))
        fail_msg("%s: %s", f->name, err.text);
    if (!f->busy && f->driver.deadline(f->driver.core) <= now)
        fail_msg("%s: the deadline has passed already", f->name);
}

void core_step_one(struct core_fixture *f, int64_t at_ms, const char *line, const char *actions)
{
    struct ts_event event;
    ts_arena_reset(&f->arena);
    make_event(f, line, &event);
    core_feed(f, at_ms * TS_MS, &event);
    compare(f, line, actions);
}

void core_run(struct core_fixture *f, const char *name, const struct core_step *steps, size_t count)
{
    f->name = name;
    for (size_t i = 0; i < count; i++)
        core_step_one(f, steps[i].at_ms, steps[i].event, steps[i].actions);
}
