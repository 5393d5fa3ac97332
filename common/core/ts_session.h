/*
 * One session between two incarnations (architecture.md section 4). ZeroMQ hides disconnects and may lose
 * what was queued on a replaced connection; a session makes such a loss visible: messages are numbered in
 * each direction, and a gap, an unknown session number or silence ends it. What may be lost is a suffix.
 *
 *   dialler:   DOWN --hello_due--> (Hello) --Welcome--> UP --gap, Reset, silence--> DOWN
 *   acceptor:  none --Hello--> UP (Welcome) --gap--> none (Reset) --Hello--> UP ...       silence: dead,
 * final (Reset fenced)
 *
 * The acceptor chooses the session number (never 0, higher than the one before). Plain data, pure functions;
 * the core that owns it emits the messages.
 */
#ifndef TS_CORE_SESSION_H
#define TS_CORE_SESSION_H

#include <stdbool.h>

#include "common/core/ts_event.h"

struct ts_session {
    bool up;
    uint64_t id;           /* of the session */
    uint64_t self, remote; /* incarnations */
    uint64_t rx_next, tx_next;
    ts_time last_rx, last_tx;
    ts_time heartbeat_ns, timeout_ns;
    ts_time hello_at; /* dialler while down: when to say Hello (again) */
};

enum ts_session_verdict {
    TS_SESSION_DELIVER, /* in order, of this session */
    TS_SESSION_DROP,    /* late, of an earlier session or incarnation: ignore */
    TS_SESSION_BROKEN   /* a gap: the session is over (up is false now) */
};

void ts_session_init(struct ts_session *s, uint64_t self, ts_time heartbeat_ns, ts_time timeout_ns);
/* Acceptor: the number of its next session. They only go up, so that a dialler tells a Welcome of a newer
 * session from one that comes late: its Hellos may have begun several. `last` is the acceptor's own. */
uint64_t ts_session_number(uint64_t *last, uint64_t random);
/* Acceptor: a Hello came. Starts session `id`; the Welcome is then stamped like any message. */
void ts_session_accept(struct ts_session *s, ts_time now, uint64_t id, uint64_t remote);
/* Dialler: a Welcome came with `id`. */
void ts_session_welcomed(struct ts_session *s, ts_time now, const struct ts_envelope *envelope, uint64_t id,
                         uint32_t heartbeat_ms, uint32_t timeout_ms);
/* Dialler: a Welcome of this session, or of an earlier one of that incarnation: it comes again or late, and
 * must not start a session over, since what is sent then would be taken for repeats. */
bool ts_session_repeats(const struct ts_session *s, const struct ts_envelope *envelope);
/* Acceptor: the body of the Reset that answers a message. */
struct ts_msg_reset ts_session_reset(const struct ts_envelope *answered, bool fenced, enum ts_reason reason);
/* Dialler: whether a Reset is for what there is now. One that answers what was sent before an earlier end
 * comes late, and several come for one end. */
bool ts_session_ended(const struct ts_session *s, const struct ts_msg_reset *reset);
/* For every message but Hello, Welcome and Reset. Advances rx_next and last_rx on DELIVER. */
enum ts_session_verdict ts_session_receive(struct ts_session *s, ts_time now,
                                           const struct ts_envelope *envelope);
/* Fills the envelope of an outgoing message of an up session (or of Hello/Reset when down: session and seq 0)
 * and advances tx_next. */
void ts_session_stamp(struct ts_session *s, ts_time now, struct ts_envelope *envelope);
void ts_session_down(struct ts_session *s, ts_time hello_at);
bool ts_session_heartbeat_due(const struct ts_session *s, ts_time now);
bool ts_session_expired(const struct ts_session *s, ts_time now); /* up, and silent for timeout_ns */
ts_time ts_session_deadline(const struct ts_session *s);          /* next heartbeat, expiry or Hello */

#endif
