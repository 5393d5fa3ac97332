/*
 * When links are probed, tested and reported. relay_measure.h says what comes of it.
 *
 * A round is a few empty probes one after the other, for the round trip, and then one of PROBE_BYTES if no
 * transfer uses the link. Rounds begin when a link comes up and every probe_every_ms, or more seldom where
 * the bytes would be more than 1 % of what the link carries. A test is an operator's: more bytes, one link at
 * a time.
 */
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"

#define PROBE_BYTES       (256u * 1024)
#define PROBE_EMPTY_COUNT 3
#define TEST_UNDER_WAY    32 /* probes: 8 MiB */
#define TEST_BYTES_MAX    (UINT64_C(1) << 30)
#define TEST_TIME         (10 * TS_S)
#define REPORT_CHANGE     0.1
#define REPORT_UNCHANGED  15 /* that many times as seldom */

/* Something of a link changed: the tick looks at all. */
static void probe_touch(struct relay_core *core)
{
    core->probes_due = core->now;
}

static bool outstanding(const struct link *link)
{
    return link->probe.next > link->probe.back;
}

static void send_probe(struct relay_core *core, struct link *link, uint64_t bytes)
{
    struct ts_action_send *s = relay_send_link(core, link, TS_MSG_KV_PROBE);
    if (!s)
        return;
    s->filler_bytes = bytes;
    s->msg.kv_probe.number = ++link->probe.next;
}

/* --- rounds ------------------------------------------------------------------------------------------- */

static void send_of_round(struct relay_core *core, struct link *link, uint64_t bytes)
{
    link->probe.bytes = bytes;
    link->probe.sent_at = core->now;
    link->probe.kv_sent = link->measure.sent;
    link->probe.alone = relay_measure_under_way(&link->measure) == 0;
    send_probe(core, link, bytes);
}

static void begin_round(struct relay_core *core, struct link *link)
{
    link->probe.empty = 0;
    link->probe.due =
        core->now + relay_measure_pause(&link->measure, core->settings.probe_every_ms * TS_MS, PROBE_BYTES);
    send_of_round(core, link, 0);
}

static void answer_of_round(struct relay_core *core, struct link *link)
{
    struct probe *p = &link->probe;
    bool alone = p->alone && link->measure.sent == p->kv_sent; /* no KV went beside it */
    ts_time took = core->now - p->sent_at;
    if (p->bytes > 0) {
        if (alone)
            relay_measure_alone(&link->measure, core->now, p->bytes, took, true);
        return;
    }
    if (alone)
        relay_measure_rtt(&link->measure, took);
    if (++p->empty < PROBE_EMPTY_COUNT)
        send_of_round(core, link, 0);
    else if (link->transfers == 0)
        send_of_round(core, link, PROBE_BYTES);
}

static bool probed(const struct relay_core *core, const struct link *link)
{
    return core->settings.probe_every_ms > 0 && link->session.up && link->probes;
}

/* --- tests -------------------------------------------------------------------------------------------- */

static void answer_test(struct relay_core *core, uint64_t router, const struct ts_msg_link_test_reply *reply)
{
    struct ts_action_send *s = relay_send_router(core, router, TS_MSG_LINK_TEST_REPLY);
    if (s)
        s->msg.link_test_reply = *reply;
}

static void refuse(struct relay_core *core, uint64_t router, uint64_t id, enum ts_reason reason,
                   const char *text)
{
    answer_test(core, router,
                &(struct ts_msg_link_test_reply){.id = id, .reason = reason, .text = ts_str_of(text)});
}

static void leave_test(struct relay_core *core)
{
    struct link *link = core->test.link;
    core->test.link = NULL;
    link->probe.stale = link->probe.next;
    relay_link_release(core, link);
}

static void fail_test(struct relay_core *core, enum ts_reason reason, const char *text)
{
    refuse(core, core->test.router, core->test.id, reason, text);
    leave_test(core);
}

/* Of what has come back, which may be less than was asked for. */
static void end_test(struct relay_core *core)
{
    const struct link_test *t = &core->test;
    struct link *link = t->link;
    ts_time took = t->last_at - t->first_at;
    uint64_t bytes = t->back * PROBE_BYTES;
    struct relay_measure alone = {.rtts = {t->rtt}, .rtt = t->rtt, .rtt_count = 1};
    relay_measure_alone(&alone, core->now, bytes, took, false);
    relay_measure_rtt(&link->measure, t->rtt);
    relay_measure_alone(&link->measure, core->now, bytes, took, false);
    link->probe.due =
        core->now + relay_measure_pause(&link->measure, core->settings.probe_every_ms * TS_MS, PROBE_BYTES);
    answer_test(core, t->router,
                &(struct ts_msg_link_test_reply){.id = t->id,
                                                 .link = {.from = ts_str_of(core->settings.id),
                                                          .to = ts_str_of(link->id),
                                                          .goodput_bytes_per_s = alone.bytes_per_s,
                                                          .at_least = alone.at_least,
                                                          .rtt_ns = t->rtt,
                                                          .bytes = bytes,
                                                          .samples = t->back}});
    leave_test(core);
}

static void send_of_test(struct relay_core *core)
{
    struct link_test *t = &core->test;
    if (t->empty < PROBE_EMPTY_COUNT) {
        t->first_at = core->now;
        send_probe(core, t->link, 0);
        return;
    }
    t->first_at = t->sent == 0 ? core->now : t->first_at;
    for (; t->sent < t->count && t->sent - t->back < TEST_UNDER_WAY; t->sent++)
        send_probe(core, t->link, PROBE_BYTES);
}

static void answer_of_test(struct relay_core *core)
{
    struct link_test *t = &core->test;
    ts_time took = core->now - t->first_at;
    if (t->empty < PROBE_EMPTY_COUNT) {
        t->rtt = t->empty == 0 || took < t->rtt ? took : t->rtt;
        t->rtt = t->rtt > 0 ? t->rtt : 1;
        t->empty++;
    } else {
        t->back++;
        t->last_at = core->now;
    }
    if (t->back == t->count)
        end_test(core);
    else
        send_of_test(core);
}

static void tick_test(struct relay_core *core)
{
    struct link_test *t = &core->test;
    if (!t->link)
        return;
    if (t->link->session.up && !t->link->probes) {
        fail_test(core, TS_REASON_UNSUPPORTED, "the decode worker is of a version that takes no probes");
    } else if (t->until <= core->now && t->back > 0) {
        end_test(core);
    } else if (t->until <= core->now) {
        fail_test(core, TS_REASON_KV_TIMEOUT,
                  t->link->session.up ? "the decode worker did not give the probes back in time"
                                      : "the decode worker could not be reached in time");
    } else if (t->link->session.up && !t->begun && !outstanding(t->link)) {
        t->begun = true;
        send_of_test(core);
    }
}

/* Asked for by nobody in particular: a link that is there is probed until it has been idle for too long. */
static void watch(struct relay_core *core, struct ts_str endpoint)
{
    if (!core->draining && core->settings.probe_every_ms > 0 && endpoint.count > 0)
        relay_link_release(core, relay_link_to(core, endpoint));
}

void probe_test(struct relay_core *core, uint64_t router, const struct ts_msg_link_test *m)
{
    uint64_t bytes = m->bytes < TEST_BYTES_MAX ? m->bytes : TEST_BYTES_MAX;
    if (m->id == 0) {
        watch(core, m->endpoint);
    } else if (core->draining) {
        refuse(core, router, m->id, TS_REASON_DRAINING, "the relay is shutting down");
    } else if (core->test.link) {
        refuse(core, router, m->id, TS_REASON_BUSY, "the relay measures another link");
    } else if (m->endpoint.count == 0) {
        refuse(core, router, m->id, TS_REASON_BAD_REQUEST, "the endpoint is not given");
    } else {
        core->test = (struct link_test){.link = relay_link_to(core, m->endpoint),
                                        .router = router,
                                        .id = m->id,
                                        .count = (bytes + PROBE_BYTES - 1) / PROBE_BYTES,
                                        .until = core->now + TEST_TIME};
        core->test.count += core->test.count == 0;
        probe_touch(core);
    }
}

/* --- links -------------------------------------------------------------------------------------------- */

void probe_answer(struct relay_core *core, struct link *link, const struct ts_msg_kv_probe *m)
{
    if (!m->reply || !outstanding(link) || m->number != link->probe.back + 1)
        return;
    link->probe.back++;
    if (core->test.link == link && core->test.begun)
        answer_of_test(core);
    else if (m->number > link->probe.stale)
        answer_of_round(core, link);
    probe_touch(core);
}

void probe_link_up(struct relay_core *core, struct link *link, const struct ts_msg_welcome *m)
{
    ts_free(link->id);
    link->id = ts_xstrndup(m->id.count ? m->id.data : "", m->id.count);
    link->probes = m->probes;
    link->probe = (struct probe){.due = core->now};
    probe_touch(core);
}

/* Nothing that was under way comes back. */
void probe_link_down(struct relay_core *core, struct link *link)
{
    relay_measure_dropped(&link->measure, relay_measure_under_way(&link->measure));
    link->probe = (struct probe){.due = TS_TIME_NEVER};
    if (core->test.link == link && core->test.begun)
        fail_test(core, TS_REASON_PEER_LOST, "the session with the decode worker was lost");
    probe_touch(core);
}

/* --- reports ------------------------------------------------------------------------------------------ */

static bool known(const struct link *link)
{
    return link->measure.samples > 0 || link->measure.rtt > 0;
}

static bool changed(const struct link *link)
{
    const struct relay_measure *m = &link->measure;
    double by = m->bytes_per_s - link->told.bytes_per_s;
    return known(link) && (!link->told.once || link->done != link->told.done ||
                           link->repeats != link->told.repeats || m->at_least != link->told.at_least ||
                           (by < 0 ? -by : by) > REPORT_CHANGE * link->told.bytes_per_s);
}

void probe_measured(struct relay_core *core, const struct link *link)
{
    ts_time at = core->reported_at + core->settings.link_report_ms * TS_MS;
    if (core->settings.link_report_ms > 0 && at < core->probes_due && changed(link))
        core->probes_due = at > core->now ? at : core->now;
}

static void fill_item(const struct relay_core *core, const struct link *link, struct ts_link_item *out)
{
    const struct relay_measure *m = &link->measure;
    *out = (struct ts_link_item){.from = ts_str_of(core->settings.id),
                                 .to = ts_str_of(link->id),
                                 .goodput_bytes_per_s = m->bytes_per_s,
                                 .rtt_ns = m->rtt,
                                 .bytes = m->delivered,
                                 .at_least = m->at_least,
                                 .transfers = link->done,
                                 .repeats = link->repeats,
                                 .samples = m->samples,
                                 .age_ms = m->samples ? (uint64_t)((core->now - m->sampled_at) / TS_MS) : 0};
}

static void report(struct relay_core *core)
{
    struct link *link;
    uint32_t count = 0;
    struct ts_link_item *items =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->links) + 1) * sizeof *items);
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        if (!known(link))
            continue;
        fill_item(core, link, &items[count++]);
        link->told.once = true;
        link->told.bytes_per_s = link->measure.bytes_per_s;
        link->told.at_least = link->measure.at_least;
        link->told.done = link->done;
        link->told.repeats = link->repeats;
    }
    for (size_t i = 0; count > 0 && i < core->settings.router_count; i++) {
        struct ts_action_send *s =
            relay_send_router(core, core->routers[i].session.remote, TS_MSG_LINK_REPORT);
        if (s)
            s->msg.link_report.links = (struct ts_link_items){items, count};
    }
    core->reported_at = core->now;
    core->report_all = false;
}

/* When the next report is due, as things are. */
static ts_time report_at(const struct relay_core *core)
{
    const struct link *link;
    ts_time every = core->settings.link_report_ms * TS_MS, at = TS_TIME_NEVER;
    for (size_t cursor = 0; every > 0 && (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        bool soon = known(link) && (core->report_all || changed(link));
        ts_time due = core->reported_at + (soon ? every : REPORT_UNCHANGED * every);
        if (known(link) && due < at)
            at = due;
    }
    return at;
}

void probe_router_up(struct relay_core *core)
{
    core->report_all = true; /* it knows nothing */
    probe_touch(core);
}

/* --- time --------------------------------------------------------------------------------------------- */

static void due_at(struct relay_core *core, ts_time at)
{
    core->probes_due = at < core->probes_due ? at : core->probes_due;
}

void probe_tick(struct relay_core *core)
{
    struct link *link;
    if (core->probes_due > core->now)
        return;
    tick_test(core);
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        bool tested = core->test.link == link;
        if (probed(core, link) && !tested && !outstanding(link) && link->probe.due <= core->now)
            begin_round(core, link);
    }
    if (report_at(core) <= core->now)
        report(core);
    core->probes_due = report_at(core);
    if (core->test.link)
        due_at(core, core->test.until);
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        if (probed(core, link) && core->test.link != link && !outstanding(link))
            due_at(core, link->probe.due);
    }
}
