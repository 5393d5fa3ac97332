/*
 * The numbers of sessions, followed by what goes over the wire alone: from a Welcome on, messages 1, 2, 3,
 * ... of one direction count; a gap is the end. A core may end a session earlier, it must not keep one that
 * is over, nor count otherwise.
 */
#include "common/base/ts_mem.h"
#include "common/core/ts_session.h"
#include "tests/sim/sim_impl.h"

struct sim_session {
    uint64_t id, remote, next;
    uint64_t self; /* dialler: as its last Hello named it */
    bool over;
    ts_time heard_at, timeout;
};

struct key {
    const struct cloud_node *node;
    uint64_t channel, peer;
};

static struct sim_session *session_of(struct sim_world *w, const struct cloud_node *node,
                                      enum ts_channel channel, uint64_t peer, bool make)
{
    struct key key = {node, channel, peer};
    struct sim_session *s = ts_map_get(w->sessions, &key, sizeof key);
    if (!s && make) {
        s = ts_xcalloc(1, sizeof *s);
        ts_map_put(w->sessions, &key, sizeof key, s);
    }
    return s;
}

/* The acceptor begins it. */
void sim_session_sent(struct sim_world *w, struct cloud_node *node, const struct ts_action *action)
{
    if (action->kind == TS_ACTION_SEND && action->send.msg.kind == TS_MSG_HELLO)
        session_of(w, node, action->send.channel, action->send.peer, true)->self =
            action->send.envelope.incarnation;
    if (action->kind != TS_ACTION_SEND || action->send.msg.kind != TS_MSG_WELCOME)
        return;
    const struct ts_msg_welcome *m = &action->send.msg.welcome;
    struct sim_session *s = session_of(w, node, action->send.channel, action->send.peer, true);
    *s = (struct sim_session){
        .id = m->session, .next = 1, .heard_at = cloud_now(w->cloud), .timeout = m->timeout_ms * TS_MS};
}

/* Several Resets may answer what was sent before one end; those that name what is gone end nothing. */
static bool is_meant(const struct sim_session *s, const struct ts_msg_reset *m)
{
    return (m->incarnation == 0 || m->incarnation == s->self) &&
           (m->fenced || m->session == 0 || m->session == s->id);
}

/* Whether it comes in its turn. */
bool sim_session_heard(struct sim_world *w, struct cloud_node *node, const struct ts_event_message *m)
{
    if (m->msg.kind == TS_MSG_WELCOME) {
        struct sim_session *s = session_of(w, node, m->channel, m->peer, true);
        if (s->remote == m->envelope.incarnation && m->msg.welcome.session <= s->id) /* again, or late */
            return false;
        *s = (struct sim_session){.id = m->msg.welcome.session,
                                  .self = s->self,
                                  .remote = m->envelope.incarnation,
                                  .next = m->envelope.seq + 1,
                                  .heard_at = cloud_now(w->cloud),
                                  .timeout = m->msg.welcome.timeout_ms * TS_MS};
        return true;
    }
    struct sim_session *s = session_of(w, node, m->channel, m->peer, false);
    if (s && m->msg.kind == TS_MSG_RESET && is_meant(s, &m->msg.reset))
        s->over = true;
    if (!s || m->envelope.session != s->id || s->over || m->msg.kind == TS_MSG_HELLO)
        return false;
    if (s->remote == 0)
        s->remote = m->envelope.incarnation;
    if (m->envelope.incarnation != s->remote)
        return false;
    if (m->envelope.seq == s->next) {
        s->next++;
        s->heard_at = cloud_now(w->cloud);
        return true;
    }
    if (m->envelope.seq > s->next)
        s->over = true;
    return false;
}

void sim_session_ended(struct sim_world *w, const struct cloud_node *node, enum ts_channel channel,
                       uint64_t peer)
{
    struct sim_session *s = session_of(w, node, channel, peer, false);
    if (s)
        s->over = true;
}

void sim_session_check(struct sim_world *w, struct cloud_node *node, enum ts_channel channel, uint64_t peer,
                       const struct ts_session *session)
{
    const struct sim_session *s = session_of(w, node, channel, peer, false);
    if (!session->up)
        return;
    if (!s || s->id != session->id) {
        cloud_fail(w->cloud, "%s has a session on %s that nobody began", cloud_node_id(node),
                   ts_channel_name(channel));
        return;
    }
    if (s->over)
        cloud_fail(w->cloud, "%s goes on with a session on %s after a gap", cloud_node_id(node),
                   ts_channel_name(channel));
    else if (session->rx_next != s->next)
        cloud_fail(w->cloud, "%s waits for message %llu on %s, and %llu is next", cloud_node_id(node),
                   (unsigned long long)session->rx_next, ts_channel_name(channel),
                   (unsigned long long)s->next);
    else if (cloud_now(w->cloud) > s->heard_at + s->timeout + TS_S)
        cloud_fail(w->cloud, "%s keeps a session on %s that is silent for %.1f s", cloud_node_id(node),
                   ts_channel_name(channel), (double)(cloud_now(w->cloud) - s->heard_at) / 1e9);
}

void sim_sessions_free(struct sim_world *w)
{
    void *value;
    for (size_t cursor = 0; (value = ts_map_next(w->sessions, &cursor, NULL, NULL));)
        ts_free(value);
    ts_map_destroy(&w->sessions);
}
