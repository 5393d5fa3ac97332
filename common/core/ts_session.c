#include "common/core/ts_session.h"

#include "common/base/ts_assert.h"

/* hello_at = TS_TIME_NEVER marks an acceptor: it never says Hello, so a session it has lost wakes nobody. */

static ts_time later(ts_time at, ts_time by)
{
    return by >= TS_TIME_NEVER - at ? TS_TIME_NEVER : at + by;
}

static void session_begin(struct ts_session *s, ts_time now, uint64_t id, uint64_t remote)
{
    s->up = true;
    s->id = id;
    s->remote = remote;
    s->rx_next = 1;
    s->tx_next = 1;
    s->last_rx = now;
    s->last_tx = now;
}

void ts_session_init(struct ts_session *s, uint64_t self, ts_time heartbeat_ns, ts_time timeout_ns)
{
    *s = (struct ts_session){.self = self, .heartbeat_ns = heartbeat_ns, .timeout_ns = timeout_ns};
}

uint64_t ts_session_number(uint64_t *last, uint64_t random)
{
    *last += 1 + (random >> 40); /* enough for 2^40 sessions */
    return *last;
}

void ts_session_accept(struct ts_session *s, ts_time now, uint64_t id, uint64_t remote)
{
    TS_ASSERT(id != 0);
    session_begin(s, now, id, remote);
    s->hello_at = TS_TIME_NEVER;
}

void ts_session_welcomed(struct ts_session *s, ts_time now, const struct ts_envelope *envelope, uint64_t id,
                         uint32_t heartbeat_ms, uint32_t timeout_ms)
{
    if (id == 0) /* a faulty peer; the next Hello asks again */
        return;
    session_begin(s, now, id, envelope->incarnation);
    s->rx_next = envelope->seq + 1;
    if (heartbeat_ms)
        s->heartbeat_ns = heartbeat_ms * TS_MS;
    if (timeout_ms)
        s->timeout_ns = timeout_ms * TS_MS;
}

bool ts_session_repeats(const struct ts_session *s, const struct ts_envelope *envelope)
{
    return s->id != 0 && envelope->incarnation == s->remote && envelope->session <= s->id;
}

struct ts_msg_reset ts_session_reset(const struct ts_envelope *answered, bool fenced, enum ts_reason reason)
{
    return (struct ts_msg_reset){.fenced = fenced,
                                 .reason = reason,
                                 .incarnation = answered->incarnation,
                                 .session = answered->session};
}

bool ts_session_ended(const struct ts_session *s, const struct ts_msg_reset *reset)
{
    if (reset->incarnation && reset->incarnation != s->self)
        return false;
    return reset->fenced || (s->up && (reset->session == 0 || reset->session == s->id));
}

enum ts_session_verdict ts_session_receive(struct ts_session *s, ts_time now,
                                           const struct ts_envelope *envelope)
{
    if (!s->up || envelope->incarnation != s->remote || envelope->session != s->id ||
        envelope->seq < s->rx_next)
        return TS_SESSION_DROP;
    if (envelope->seq > s->rx_next) {
        ts_session_down(s, s->hello_at == TS_TIME_NEVER ? TS_TIME_NEVER : now);
        return TS_SESSION_BROKEN;
    }
    s->rx_next++;
    s->last_rx = now;
    return TS_SESSION_DELIVER;
}

void ts_session_stamp(struct ts_session *s, ts_time now, struct ts_envelope *envelope)
{
    *envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = s->self};
    if (!s->up)
        return;
    envelope->session = s->id;
    envelope->seq = s->tx_next++;
    s->last_tx = now;
}

void ts_session_down(struct ts_session *s, ts_time hello_at)
{
    s->up = false;
    s->hello_at = hello_at;
}

bool ts_session_heartbeat_due(const struct ts_session *s, ts_time now)
{
    return s->up && now >= later(s->last_tx, s->heartbeat_ns);
}

bool ts_session_expired(const struct ts_session *s, ts_time now)
{
    return s->up && now >= later(s->last_rx, s->timeout_ns);
}

ts_time ts_session_deadline(const struct ts_session *s)
{
    if (!s->up)
        return s->hello_at;
    ts_time heartbeat = later(s->last_tx, s->heartbeat_ns), expiry = later(s->last_rx, s->timeout_ns);
    return heartbeat < expiry ? heartbeat : expiry;
}
