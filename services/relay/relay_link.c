/*
 * Sessions: dialled ones to routers and decode workers, accepted ones of the workers of this host.
 */
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"

#define HELLO_EVERY TS_S
#define HEADS_MAX   4096 /* KV heads of one layer: far above any model */

static void say_hello(struct relay_core *core, enum ts_channel channel, uint64_t peer,
                      struct ts_session *session)
{
    const struct relay_settings *set = &core->settings;
    struct ts_action_send *s = ts_actions_send(core->out, channel, peer, TS_MSG_HELLO);
    ts_session_stamp(session, core->now, &s->envelope);
    s->msg.hello = (struct ts_msg_hello){.role = TS_ROLE_RELAY,
                                         .id = ts_str_of(set->id),
                                         .host = ts_str_of(set->host),
                                         .version = ts_str_of("0.1.0"),
                                         .pid = set->pid,
                                         .link_tests = true};
    session->hello_at = core->now + HELLO_EVERY;
}

/* Sessions, connections or their clocks changed in a way that may bring work forward: the tick looks at all.
 */
static void touched(struct relay_core *core)
{
    core->links_due = core->now;
}

static struct ts_action_send *send_on(struct relay_core *core, enum ts_channel channel, uint64_t peer,
                                      struct ts_session *session, enum ts_msg_kind kind)
{
    if (!session->up)
        return NULL;
    struct ts_action_send *s = ts_actions_send(core->out, channel, peer, kind);
    ts_session_stamp(session, core->now, &s->envelope);
    return s;
}

struct ts_action_send *relay_send_router(struct relay_core *core, uint64_t router, enum ts_msg_kind kind)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *r = &core->routers[i];
        if (r->session.up && r->session.remote == router)
            return send_on(core, TS_CHANNEL_RELAY, r->peer, &r->session, kind);
    }
    return NULL;
}

struct ts_action_send *relay_send_pool(struct relay_core *core, struct pool *pool, enum ts_msg_kind kind)
{
    return pool ? send_on(core, TS_CHANNEL_POOL, pool->peer, &pool->session, kind) : NULL;
}

struct ts_action_send *relay_send_link(struct relay_core *core, struct link *link, enum ts_msg_kind kind)
{
    return link ? send_on(core, TS_CHANNEL_KV, link->peer, &link->session, kind) : NULL;
}

static void send_reset(struct relay_core *core, const struct ts_event_message *m)
{
    struct ts_action_send *s = ts_actions_send(core->out, m->channel, m->peer, TS_MSG_RESET);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.reset = ts_session_reset(&m->envelope, false, TS_REASON_PEER_LOST);
}

void relay_link_start(struct relay_core *core)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct ts_action *a = ts_actions_add(core->out, TS_ACTION_CONNECT);
        a->connect = (struct ts_action_connect){TS_CHANNEL_RELAY, core->routers[i].peer,
                                                ts_str_of(core->settings.routers[i])};
    }
    core->started = true;
    touched(core);
}

/* --- routers --- */

/* Takes nothing new from now on, and says so before somebody is sent here. */
void relay_link_drain(struct relay_core *core)
{
    for (size_t i = 0; !core->draining && i < core->settings.router_count; i++)
        send_on(core, TS_CHANNEL_RELAY, core->routers[i].peer, &core->routers[i].session, TS_MSG_DRAIN);
    core->draining = true;
    copy_forget(core, 0);
}

static void router_welcomed(struct relay_core *core, struct router_link *r, const struct ts_event_message *m)
{
    uint64_t before = r->session.remote;
    ts_session_welcomed(&r->session, core->now, &m->envelope, m->msg.welcome.session,
                        m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
    if (before && before != r->session.remote) /* another one: the former is gone with its requests */
        copy_forget(core, before);
    r->reported_at = core->now;
    r->lost = r->given_up = false;
    if (core->draining)
        send_on(core, TS_CHANNEL_RELAY, r->peer, &r->session, TS_MSG_DRAIN);
    copy_inventory(core, r);
    probe_router_up(core);
}

static void router_deliver(struct relay_core *core, const struct router_link *r, const struct ts_msg *m)
{
    switch (m->kind) {
    case TS_MSG_RELEASE:
        transfer_released(core, NULL, &m->release);
        break;
    case TS_MSG_REFEED:
        copy_refeed(core, r->session.remote, &m->refeed);
        break;
    case TS_MSG_DRAIN:
        relay_link_drain(core);
        break;
    case TS_MSG_LINK_TEST:
        probe_test(core, r->session.remote, &m->link_test);
        break;
    default:
        break;
    }
}

void relay_link_router_message(struct relay_core *core, const struct ts_event_message *m)
{
    if (m->peer < 1 || m->peer > core->settings.router_count)
        return;
    struct router_link *r = &core->routers[m->peer - 1];
    touched(core);
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&r->session, &m->envelope)) {
        router_welcomed(core, r, m);
    } else if (m->msg.kind == TS_MSG_RESET) {
        if (!ts_session_ended(&r->session, &m->msg.reset))
            return;
        if (m->msg.reset.fenced) { /* declared dead: come back as somebody else; transfers are judged by their
                                      attempts */
            r->session.self = ts_splitmix64(r->session.self) | 1;
            copy_forget(core, r->session.remote);
        }
        ts_session_down(&r->session, core->now);
    } else if (ts_session_receive(&r->session, core->now, &m->envelope) == TS_SESSION_DELIVER) {
        router_deliver(core, r, &m->msg);
    }
}

/* --- workers of this host --- */

static void unmap(struct relay_core *core, struct pool *pool)
{
    if (pool->mapped)
        ts_actions_add(core->out, TS_ACTION_UNMAP_POOL)->unmap_pool.pool = pool->id;
    pool->mapped = false;
}

static void pool_lost(struct relay_core *core, struct pool *pool)
{
    transfer_pool_lost(core, pool);
    encode_pool_lost(core, pool);
    unmap(core, pool);
    ts_map_remove_u64(core->pools, pool->peer);
    ts_free(pool);
    touched(core);
}

static void pool_hello(struct relay_core *core, const struct ts_event_message *m)
{
    struct pool *pool = ts_map_get_u64(core->pools, m->peer);
    if (m->msg.hello.role != TS_ROLE_WORKER || m->envelope.incarnation == 0)
        return;
    if (pool)
        pool_lost(core, pool);
    pool = ts_xcalloc(1, sizeof *pool);
    pool->peer = m->peer;
    ts_map_put_u64(core->pools, m->peer, pool);
    ts_session_init(&pool->session, core->incarnation, core->settings.heartbeat_ms * TS_MS,
                    core->settings.timeout_ms * TS_MS);
    ts_session_accept(&pool->session, core->now,
                      ts_session_number(&core->last_session, ts_rng_u64(&core->rng)),
                      m->envelope.incarnation);
    touched(core);
    struct ts_action_send *s = relay_send_pool(core, pool, TS_MSG_WELCOME);
    s->msg.welcome = (struct ts_msg_welcome){.id = ts_str_of(core->settings.id),
                                             .session = pool->session.id,
                                             .heartbeat_ms = core->settings.heartbeat_ms,
                                             .timeout_ms = core->settings.timeout_ms};
}

static bool layout_fits(const struct ts_msg_pool *m)
{
    return m->layer_begin < m->layer_end && m->layer_end <= m->layers && m->layers <= TS_MODEL_LAYERS_MAX &&
           m->head_begin < m->head_end && m->head_end <= m->kv_heads && m->kv_heads <= HEADS_MAX;
}

static void pool_answer(struct relay_core *core, struct pool *pool, enum ts_reason reason, struct ts_str text)
{
    struct ts_action_send *s = relay_send_pool(core, pool, TS_MSG_POOL_REPLY);
    if (s)
        s->msg.pool_reply = (struct ts_msg_pool_reply){.reason = reason, .text = text};
}

static void pool_announced(struct relay_core *core, struct pool *pool, const struct ts_msg_pool *m)
{
    if (pool->id)
        return;
    if (!layout_fits(m)) {
        pool_answer(core, pool, TS_REASON_KV_MISMATCH,
                    ts_str_of("the layers or heads of the pool are not a range of the model's"));
        return;
    }
    pool->id = core->next_pool++;
    pool->layout = *m;
    pool->layout.path = pool->layout.device = (struct ts_str){.count = 0};
    pool->layout.rope = (struct ts_u32s){.count = 0};
    pool->layout.share = (struct ts_bytes){.count = 0};
    if (core->settings.workers_encode && m->encodes) {
        pool->usable = pool->by_worker = true;
        pool_answer(core, pool, TS_REASON_NONE, ts_str_of("the relay's setting: encode = worker"));
        return;
    }
    pool->mapped = true;
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_MAP_POOL);
    a->map_pool = (struct ts_action_map_pool){.pool = pool->id, .layout = *m};
}

/* Of a worker that cannot encode, nothing that lies there leaves it any more. */
void relay_link_pool_failed(struct relay_core *core, struct pool *pool, struct ts_str why)
{
    pool->usable = pool->by_worker = pool->layout.encodes;
    pool_answer(core, pool, pool->usable ? TS_REASON_NONE : TS_REASON_UNSUPPORTED, why);
    unmap(core, pool);
    ts_actions_log(core->out, pool->usable ? TS_LOG_WARN : TS_LOG_ERROR, "event=%s text=\"%.*s\"",
                   pool->usable ? "worker_encodes" : "pool_refused", (int)why.count,
                   why.count ? why.data : "");
    if (!pool->usable)
        transfer_pool_failed(core, pool);
}

/* What contradicts itself is refused; what only we cannot map is encoded by its worker. */
void relay_link_pool_mapped(struct relay_core *core, const struct ts_event_pool_mapped *m)
{
    struct pool *pool;
    for (size_t cursor = 0; (pool = ts_map_next(core->pools, &cursor, NULL, NULL));) {
        if (pool->id != m->pool)
            continue;
        pool->usable = m->reason == TS_REASON_NONE;
        if (m->reason == TS_REASON_KV_MISMATCH)
            pool->layout.encodes = false;
        if (!pool->usable)
            relay_link_pool_failed(core, pool, m->text);
        else
            pool_answer(core, pool, TS_REASON_NONE, m->text);
    }
}

static void pool_deliver(struct relay_core *core, struct pool *pool, const struct ts_event_message *m)
{
    switch (m->msg.kind) {
    case TS_MSG_POOL:
        pool_announced(core, pool, &m->msg.pool);
        break;
    case TS_MSG_KV_BEGIN:
        transfer_begin(core, pool, &m->msg);
        break;
    case TS_MSG_KV_READY:
        transfer_ready(core, pool, &m->msg.kv_ready);
        break;
    case TS_MSG_KV_SEAL:
        transfer_seal(core, pool, &m->msg);
        break;
    case TS_MSG_KV_ENCODED:
        encode_came(core, pool, &m->msg.kv_encoded);
        break;
    case TS_MSG_RELEASE:
        transfer_released(core, pool, &m->msg.release);
        break;
    default:
        break;
    }
}

void relay_link_pool_message(struct relay_core *core, const struct ts_event_message *m)
{
    struct pool *pool = ts_map_get_u64(core->pools, m->peer);
    if (m->msg.kind == TS_MSG_HELLO) {
        pool_hello(core, m);
        return;
    }
    if (m->msg.kind == TS_MSG_RESET)
        return;
    if (!pool) {
        send_reset(core, m);
        return;
    }
    switch (ts_session_receive(&pool->session, core->now, &m->envelope)) {
    case TS_SESSION_DELIVER:
        pool_deliver(core, pool, m);
        break;
    case TS_SESSION_BROKEN:
        send_reset(core, m);
        pool_lost(core, pool);
        break;
    case TS_SESSION_DROP:
        break;
    }
}

/* --- decode workers --- */

struct link *relay_link_to(struct relay_core *core, struct ts_str endpoint)
{
    struct link *link = ts_map_get(core->links, endpoint.data, endpoint.count);
    if (!link) {
        link = ts_xcalloc(1, sizeof *link);
        link->peer = core->next_peer++;
        link->endpoint = ts_xstrndup(endpoint.data, endpoint.count);
        ts_session_init(&link->session, core->incarnation, core->settings.heartbeat_ms * TS_MS,
                        core->settings.timeout_ms * TS_MS);
        ts_map_put(core->links, endpoint.data, endpoint.count, link);
        link->lanes[0].peer = link->peer;
        link->lane_count = 1;
        ts_map_put_u64(core->link_peers, link->peer, link);
        struct ts_action *a = ts_actions_add(core->out, TS_ACTION_CONNECT);
        a->connect = (struct ts_action_connect){TS_CHANNEL_KV, link->peer, ts_str_of(link->endpoint)};
        say_hello(core, TS_CHANNEL_KV, link->peer, &link->session);
        touched(core);
    }
    link->transfers++;
    return link;
}

static ts_time idle_until(const struct relay_core *core, const struct link *link)
{
    return link->transfers ? TS_TIME_NEVER : link->idle_since + core->settings.idle_link_ms * TS_MS;
}

static void due_at(struct relay_core *core, ts_time at)
{
    core->links_due = at < core->links_due ? at : core->links_due;
}

void relay_link_release(struct relay_core *core, struct link *link)
{
    link->transfers--;
    link->idle_since = core->now;
    due_at(core, idle_until(core, link));
}

static void link_down(struct relay_core *core, struct link *link)
{
    ts_session_down(&link->session, core->now);
    touched(core);
    resume_link_lost(core, link);
    lanes_end(core, link);
    probe_link_down(core, link);
}

void relay_link_free(struct link *link)
{
    relay_measure_fini(&link->measure);
    ts_free(link->id);
    ts_free(link->endpoint);
    ts_free(link);
}

static void close_link(struct relay_core *core, struct link *link)
{
    lanes_end(core, link);
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_DISCONNECT);
    a->disconnect = (struct ts_action_disconnect){TS_CHANNEL_KV, link->peer};
    ts_map_remove_u64(core->link_peers, link->peer);
    ts_map_remove(core->links, link->endpoint, strlen(link->endpoint));
    relay_link_free(link);
}

static void link_deliver(struct relay_core *core, struct link *link, const struct ts_msg *m)
{
    switch (m->kind) {
    case TS_MSG_KV_GRANT:
        transfer_grant(core, link, &m->kv_grant);
        break;
    case TS_MSG_KV_CREDIT:
        transfer_credit(core, link, &m->kv_credit);
        break;
    case TS_MSG_KV_DONE:
        transfer_done(core, link, m->kv_done.rid);
        break;
    case TS_MSG_KV_NACK:
        transfer_nack(core, link, &m->kv_nack);
        break;
    case TS_MSG_KV_ABORT:
        transfer_aborted(core, link, &m->kv_abort);
        break;
    case TS_MSG_KV_PROBE:
        probe_answer(core, link, &m->kv_probe);
        break;
    default:
        break;
    }
}

void relay_link_kv_message(struct relay_core *core, const struct ts_event_message *m)
{
    uint32_t lane;
    struct link *link = lane_link(core, m->peer, &lane);
    if (!link || lane > 0) /* nothing but chunks, away from here */
        return;
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&link->session, &m->envelope)) {
        if (link->session.up)
            link_down(core, link);
        ts_session_welcomed(&link->session, core->now, &m->envelope, m->msg.welcome.session,
                            m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
        touched(core);
        lanes_begin(core, link, m->msg.welcome.lanes);
        probe_link_up(core, link, &m->msg.welcome);
        transfer_link_up(core, link);
        return;
    }
    if (m->msg.kind == TS_MSG_RESET) {
        if (ts_session_ended(&link->session, &m->msg.reset))
            link_down(core, link);
        return;
    }
    switch (ts_session_receive(&link->session, core->now, &m->envelope)) {
    case TS_SESSION_DELIVER:
        link_deliver(core, link, &m->msg);
        break;
    case TS_SESSION_BROKEN:
        link_down(core, link);
        break;
    case TS_SESSION_DROP:
        break;
    }
}

/* --- all --- */

/* Without a session it was a Hello that could not be sent: it is said again when it is due, since at once
 * would never end with an address that cannot be dialled. */
void relay_link_unreachable(struct relay_core *core, enum ts_channel channel, uint64_t peer)
{
    bool router = channel == TS_CHANNEL_RELAY && peer >= 1 && peer <= core->settings.router_count;
    uint32_t lane = 0;
    struct link *link = channel == TS_CHANNEL_KV ? lane_link(core, peer, &lane) : NULL;
    struct pool *pool = channel == TS_CHANNEL_POOL ? ts_map_get_u64(core->pools, peer) : NULL;
    if (link && lane > 0)
        lane_failed(core, link, lane);
    else if (link && link->session.up)
        link_down(core, link);
    if (pool)
        pool_lost(core, pool);
    if (router && core->routers[peer - 1].session.up) {
        ts_session_down(&core->routers[peer - 1].session, core->now);
        touched(core);
    }
}

/* A heartbeat carries the load, so it is due at every interval, also where other messages flow. */
static ts_time report_due(const struct router_link *link)
{
    return link->session.up ? link->reported_at + link->session.heartbeat_ns : TS_TIME_NEVER;
}

/* One that is away for too long releases nothing any more. */
static void give_up(struct relay_core *core, struct router_link *r)
{
    if (!r->lost)
        r->lost_at = core->now;
    r->lost = true;
    if (r->lost_at + core->settings.router_lost_ms * TS_MS > core->now) {
        due_at(core, r->lost_at + core->settings.router_lost_ms * TS_MS);
        return;
    }
    r->given_up = true;
    copy_forget(core, r->session.remote);
}

static void tick_router(struct relay_core *core, struct router_link *r)
{
    if (ts_session_expired(&r->session, core->now))
        ts_session_down(&r->session, core->now);
    if (!r->session.up && r->session.remote && !r->given_up)
        give_up(core, r);
    if (!r->session.up && r->session.hello_at <= core->now)
        say_hello(core, TS_CHANNEL_RELAY, r->peer, &r->session);
    if (report_due(r) <= core->now) {
        r->reported_at = core->now;
        send_on(core, TS_CHANNEL_RELAY, r->peer, &r->session, TS_MSG_HEARTBEAT)->msg.heartbeat.load =
            transfer_load(core);
    }
    due_at(core, ts_session_deadline(&r->session));
    due_at(core, report_due(r));
}

static void tick_pool(struct relay_core *core, struct pool *pool)
{
    if (ts_session_expired(&pool->session, core->now)) {
        pool_lost(core, pool);
        return;
    }
    if (ts_session_heartbeat_due(&pool->session, core->now))
        relay_send_pool(core, pool, TS_MSG_HEARTBEAT);
    due_at(core, ts_session_deadline(&pool->session));
}

static void tick_link(struct relay_core *core, struct link *link)
{
    if (idle_until(core, link) <= core->now) {
        close_link(core, link);
        return;
    }
    if (ts_session_expired(&link->session, core->now))
        link_down(core, link);
    if (!link->session.up && link->session.hello_at <= core->now)
        say_hello(core, TS_CHANNEL_KV, link->peer, &link->session);
    if (ts_session_heartbeat_due(&link->session, core->now))
        relay_send_link(core, link, TS_MSG_HEARTBEAT);
    due_at(core, lanes_tick(core, link));
    due_at(core, ts_session_deadline(&link->session));
    due_at(core, idle_until(core, link));
}

/* What flows on a session only puts its clocks off, so nothing is missed until then. */
void relay_link_tick(struct relay_core *core)
{
    struct pool *pool;
    struct link *link;
    while (core->links_due <= core->now) { /* again where a session ended meanwhile */
        core->links_due = TS_TIME_NEVER;
        for (size_t i = 0; core->started && i < core->settings.router_count; i++)
            tick_router(core, &core->routers[i]);
        for (size_t cursor = 0; (pool = ts_map_next(core->pools, &cursor, NULL, NULL));)
            tick_pool(core, pool);
        for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));)
            tick_link(core, link);
    }
}
