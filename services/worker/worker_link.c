/*
 * Sessions: dialled ones to routers and to the relay of the host, accepted ones of relays that bring KV.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

#define HELLO_EVERY TS_S
#define POOL_PEER   1

static void fill_hello(const struct worker_core *core, struct ts_msg_hello *hello)
{
    const struct worker_settings *s = &core->settings;
    *hello = (struct ts_msg_hello){.role = TS_ROLE_WORKER,
                                   .id = ts_str_of(s->id),
                                   .host = ts_str_of(s->host),
                                   .version = ts_str_of("0.1.0"),
                                   .pid = s->pid,
                                   .profile = s->profile};
}

/* Says Hello on a dialled channel; again in a second unless welcomed. */
static void say_hello(struct worker_core *core, enum ts_channel channel, uint64_t peer,
                      struct ts_session *session)
{
    struct ts_action_send *s = ts_actions_send(core->out, channel, peer, TS_MSG_HELLO);
    ts_session_stamp(session, core->now, &s->envelope);
    fill_hello(core, &s->msg.hello);
    session->hello_at = core->now + HELLO_EVERY;
}

static bool has_relay(const struct worker_core *core)
{
    return core->settings.relay_endpoint[0] != '\0';
}

void worker_link_start(struct worker_core *core)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct ts_action *a = ts_actions_add(core->out, TS_ACTION_CONNECT);
        a->connect = (struct ts_action_connect){TS_CHANNEL_WORKER, core->routers[i].peer,
                                                ts_str_of(core->settings.routers[i])};
    }
    if (has_relay(core)) {
        struct ts_action *a = ts_actions_add(core->out, TS_ACTION_CONNECT);
        a->connect =
            (struct ts_action_connect){TS_CHANNEL_POOL, POOL_PEER, ts_str_of(core->settings.relay_endpoint)};
    }
    core->started = true;
}

static struct ts_action_send *send_on(struct worker_core *core, enum ts_channel channel, uint64_t peer,
                                      struct ts_session *session, enum ts_msg_kind kind)
{
    if (!session->up)
        return NULL;
    struct ts_action_send *s = ts_actions_send(core->out, channel, peer, kind);
    ts_session_stamp(session, core->now, &s->envelope);
    return s;
}

struct ts_action_send *worker_send_router(struct worker_core *core, struct router_link *link,
                                          enum ts_msg_kind kind)
{
    return send_on(core, TS_CHANNEL_WORKER, link->peer, &link->session, kind);
}

struct ts_action_send *worker_send_pool(struct worker_core *core, enum ts_msg_kind kind)
{
    return send_on(core, TS_CHANNEL_POOL, POOL_PEER, &core->pool.session, kind);
}

struct ts_action_send *worker_send_kv(struct worker_core *core, struct kv_peer *peer, enum ts_msg_kind kind)
{
    return peer ? send_on(core, TS_CHANNEL_KV, peer->peer, &peer->session, kind) : NULL;
}

static void send_reset(struct worker_core *core, const struct ts_event_message *m)
{
    struct ts_action_send *s = ts_actions_send(core->out, m->channel, m->peer, TS_MSG_RESET);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.reset = ts_session_reset(&m->envelope, false, TS_REASON_PEER_LOST);
}

/* --- routers --- */

static void router_down(struct worker_core *core, struct router_link *link)
{
    if (link->session.up)
        link->lost_at = core->now;
    ts_session_down(&link->session, core->now);
}

static void router_reset(struct worker_core *core, struct router_link *link, const struct ts_msg_reset *reset)
{
    if (!ts_session_ended(&link->session, reset))
        return;
    if (reset->fenced) { /* declared dead: start over as somebody else towards this router */
        ts_actions_log(core->out, TS_LOG_WARN, "event=fenced incarnation=%016llx",
                       (unsigned long long)link->session.self);
        task_drop_router(core, link);
        link->session.self = ts_splitmix64(link->session.self) | 1;
    }
    router_down(core, link);
}

/* Takes nothing new from now on, and says so before somebody is sent here. */
void worker_link_drain(struct worker_core *core)
{
    for (size_t i = 0; !core->draining && i < core->settings.router_count; i++)
        worker_send_router(core, &core->routers[i], TS_MSG_DRAIN);
    core->draining = true;
}

static enum ts_reason judge_phase(const struct worker_core *core, const struct router_link *link,
                                  const struct ts_msg_set_phase *m)
{
    const struct ts_profile *p = &core->settings.profile;
    if (worker_stale(link, m->term, m->plan))
        return TS_REASON_STALE_PLAN;
    if (m->phase == TS_PHASE_NONE || (p->phases & m->phase) != m->phase)
        return TS_REASON_UNSUPPORTED;
    if (m->phase == TS_PHASE_PREFILL && p->phase != m->phase && !core->pool.usable)
        return TS_REASON_UNSUPPORTED; /* its KV would go nowhere; colocated attempts need no relay */
    return TS_REASON_NONE;
}

/* In effect at once: what is assigned from now on must fit, what is here goes on. Other routers learn it from
 * a new Hello. */
static void set_phase(struct worker_core *core, struct router_link *link, const struct ts_msg_set_phase *m)
{
    enum ts_reason reason = judge_phase(core, link, m);
    bool changes = reason == TS_REASON_NONE && m->phase != core->settings.profile.phase;
    if (reason == TS_REASON_NONE) {
        link->term = m->term;
        link->plan = m->plan;
        core->settings.profile.phase = m->phase;
    }
    worker_send_router(core, link, TS_MSG_PHASE_REPLY)->msg.phase_reply = (struct ts_msg_phase_reply){
        .term = m->term, .plan = m->plan, .phase = core->settings.profile.phase, .reason = reason};
    for (size_t i = 0; changes && i < core->settings.router_count; i++) {
        if (&core->routers[i] != link)
            router_down(core, &core->routers[i]);
    }
}

static void router_deliver(struct worker_core *core, struct router_link *link,
                           const struct ts_event_message *m)
{
    switch (m->msg.kind) {
    case TS_MSG_ASSIGN:
        task_assign(core, link, m);
        break;
    case TS_MSG_RELEASE:
        task_release(core, m->msg.release.rid, m->msg.release.reason);
        break;
    case TS_MSG_RESYNC_REPLY:
        task_resync_reply(core, &m->msg.resync_reply);
        break;
    case TS_MSG_DRAIN:
        worker_link_drain(core);
        break;
    case TS_MSG_TOKENIZE:
    case TS_MSG_DETOKENIZE:
        tokenize_asked(core, link, m);
        break;
    case TS_MSG_SET_PHASE:
        set_phase(core, link, &m->msg.set_phase);
        break;
    default:
        break;
    }
}

void worker_link_router_message(struct worker_core *core, const struct ts_event_message *m)
{
    struct router_link *link = NULL;
    for (size_t i = 0; i < core->settings.router_count; i++) {
        if (core->routers[i].peer == m->peer)
            link = &core->routers[i];
    }
    if (!link)
        return;
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&link->session, &m->envelope)) {
        if (m->envelope.incarnation !=
            link->session.remote) /* another router: it counts plans from the start */
            link->term = link->plan = 0;
        ts_session_welcomed(&link->session, core->now, &m->envelope, m->msg.welcome.session,
                            m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
        if (!link->session.up)
            return;
        link->lost_at = TS_TIME_NEVER;
        link->reported_at = core->now;
        link->output_batches = m->msg.welcome.output_batches;
        task_resync(core, link);
        if (core->draining)
            worker_send_router(core, link, TS_MSG_DRAIN);
    } else if (m->msg.kind == TS_MSG_RESET) {
        router_reset(core, link, &m->msg.reset);
    } else if (ts_session_receive(&link->session, core->now, &m->envelope) == TS_SESSION_DELIVER) {
        router_deliver(core, link, m);
    } else if (!link->session.up && link->lost_at == TS_TIME_NEVER) {
        link->lost_at = core->now;
    }
}

/* --- the relay of the host --- */

static void pool_down(struct worker_core *core)
{
    bool was = core->pool.session.up;
    core->pool.usable = false;
    ts_session_down(&core->pool.session, core->now);
    if (was)
        prefill_pool_lost(core);
}

static void pool_replied(struct worker_core *core, const struct ts_msg_pool_reply *m)
{
    const char *text = m->text.count ? m->text.data : "";
    core->pool.usable = m->reason == TS_REASON_NONE;
    if (!core->pool.usable)
        ts_actions_log(core->out, TS_LOG_ERROR, "event=pool_refused text=\"%.*s\"", (int)m->text.count, text);
    else if (m->text.count > 0)
        ts_actions_log(core->out, TS_LOG_WARN, "event=encodes_for_relay text=\"%.*s\"", (int)m->text.count,
                       text);
}

static void pool_deliver(struct worker_core *core, const struct ts_msg *m)
{
    switch (m->kind) {
    case TS_MSG_POOL_REPLY:
        pool_replied(core, &m->pool_reply);
        break;
    case TS_MSG_KV_FREED:
        prefill_freed(core, &m->kv_freed);
        break;
    case TS_MSG_KV_ENCODE:
        prefill_encode(core, &m->kv_encode);
        break;
    case TS_MSG_RELEASE:
        prefill_transfer_failed(core, &m->release);
        break;
    default:
        break;
    }
}

void worker_link_pool_message(struct worker_core *core, const struct ts_event_message *m)
{
    struct pool_link *pool = &core->pool;
    if (m->msg.kind == TS_MSG_WELCOME && !ts_session_repeats(&pool->session, &m->envelope)) {
        pool_down(core); /* of an earlier session, if any: its transfers are gone */
        ts_session_welcomed(&pool->session, core->now, &m->envelope, m->msg.welcome.session,
                            m->msg.welcome.heartbeat_ms, m->msg.welcome.timeout_ms);
        struct ts_action_send *s = worker_send_pool(core, TS_MSG_POOL);
        if (s)
            s->msg.pool = core->settings.pool;
    } else if (m->msg.kind == TS_MSG_RESET) {
        if (ts_session_ended(&pool->session, &m->msg.reset))
            pool_down(core);
    } else if (ts_session_receive(&pool->session, core->now, &m->envelope) == TS_SESSION_DELIVER) {
        pool_deliver(core, &m->msg);
    } else if (!pool->session.up && pool->usable) {
        pool->usable = false;
        prefill_pool_lost(core);
    }
}

/* --- relays that bring KV --- */

static void kv_lost(struct worker_core *core, struct kv_peer *peer)
{
    resume_peer_lost(core, peer);
    ts_map_remove_u64(core->kv_peers, peer->peer);
    ts_map_remove_u64(core->kv_sessions, peer->session.id);
    ts_free(peer);
}

static void kv_wake(struct worker_core *core, const struct kv_peer *peer)
{
    ts_time due = ts_session_deadline(&peer->session);
    core->kv_due = due < core->kv_due ? due : core->kv_due;
}

/* A relay has one session here: its next one ends it, whatever connection that comes on. */
static void kv_superseded(struct worker_core *core, uint64_t incarnation)
{
    struct kv_peer *peer;
    for (size_t cursor = 0; (peer = ts_map_next(core->kv_peers, &cursor, NULL, NULL));) {
        if (peer->session.remote == incarnation)
            kv_lost(core, peer);
    }
}

static void kv_hello(struct worker_core *core, const struct ts_event_message *m)
{
    struct kv_peer *peer = ts_map_get_u64(core->kv_peers, m->peer);
    if (m->msg.hello.role != TS_ROLE_RELAY || m->envelope.incarnation == 0)
        return;
    if (peer)
        kv_lost(core, peer);
    kv_superseded(core, m->envelope.incarnation);
    peer = ts_xcalloc(1, sizeof *peer);
    peer->peer = m->peer;
    peer->name = ts_hash64(m->msg.hello.id.data, m->msg.hello.id.count, 0);
    ts_map_put_u64(core->kv_peers, m->peer, peer);
    ts_session_init(&peer->session, core->incarnation, core->settings.heartbeat_ms * TS_MS,
                    core->settings.timeout_ms * TS_MS);
    ts_session_accept(&peer->session, core->now,
                      ts_session_number(&core->last_session, ts_rng_u64(&core->rng)),
                      m->envelope.incarnation);
    ts_map_put_u64(core->kv_sessions, peer->session.id, peer);
    struct ts_action_send *s = worker_send_kv(core, peer, TS_MSG_WELCOME);
    s->msg.welcome = (struct ts_msg_welcome){.id = ts_str_of(core->settings.id),
                                             .session = peer->session.id,
                                             .heartbeat_ms = core->settings.heartbeat_ms,
                                             .timeout_ms = core->settings.timeout_ms,
                                             .probes = true,
                                             .lanes = true};
    kv_wake(core, peer);
    resume_peer_came(core, peer);
}

static void kv_deliver(struct worker_core *core, struct kv_peer *peer, const struct ts_event_message *m)
{
    switch (m->msg.kind) {
    case TS_MSG_KV_OPEN:
        decode_count(core, m->msg.kv_open.rid, m->wire_bytes);
        decode_open(core, peer, &m->msg.kv_open);
        break;
    case TS_MSG_KV_CHUNK:
        decode_count(core, m->msg.kv_chunk.rid, m->wire_bytes);
        decode_chunk(core, peer, &m->msg.kv_chunk, m->bulk);
        break;
    case TS_MSG_KV_END:
        decode_count(core, m->msg.kv_end.rid, m->wire_bytes);
        decode_end(core, peer, &m->msg.kv_end);
        break;
    case TS_MSG_KV_COMMIT:
        decode_count(core, m->msg.kv_commit.rid, m->wire_bytes);
        decode_commit(core, peer, &m->msg.kv_commit);
        break;
    case TS_MSG_KV_ABORT:
        decode_abort(core, peer, &m->msg.kv_abort);
        break;
    case TS_MSG_KV_PROBE: /* its bytes have done their work by coming here */
        if (!m->msg.kv_probe.reply)
            worker_send_kv(core, peer, TS_MSG_KV_PROBE)->msg.kv_probe =
                (struct ts_msg_kv_probe){.number = m->msg.kv_probe.number, .reply = true};
        break;
    default:
        break;
    }
}

/* A chunk that came over another connection than its session's: it names the session and stands outside of
 * its order. Of one that is over it is nothing any more, and whoever sent it learns that on the session's
 * own. */
static void kv_lane(struct worker_core *core, const struct ts_event_message *m)
{
    struct kv_peer *peer = ts_map_get_u64(core->kv_sessions, m->envelope.session);
    if (!peer || peer->session.remote != m->envelope.incarnation || !peer->session.up) {
        core->counts.chunks_strayed++;
        return;
    }
    decode_count(core, m->msg.kv_chunk.rid, m->wire_bytes);
    decode_chunk(core, peer, &m->msg.kv_chunk, m->bulk);
}

void worker_link_kv_message(struct worker_core *core, const struct ts_event_message *m)
{
    struct kv_peer *peer = ts_map_get_u64(core->kv_peers, m->peer);
    if (m->msg.kind == TS_MSG_KV_CHUNK && m->envelope.seq == 0) {
        kv_lane(core, m);
        return;
    }
    if (m->msg.kind == TS_MSG_HELLO) {
        kv_hello(core, m);
        return;
    }
    if (m->msg.kind == TS_MSG_RESET)
        return;
    if (!peer) {
        send_reset(core, m);
        return;
    }
    switch (ts_session_receive(&peer->session, core->now, &m->envelope)) {
    case TS_SESSION_DELIVER:
        kv_deliver(core, peer, m);
        break;
    case TS_SESSION_BROKEN:
        send_reset(core, m);
        kv_lost(core, peer);
        break;
    case TS_SESSION_DROP:
        break;
    }
}

/* --- all --- */

/* Without a session it was a Hello that could not be sent: it is said again when it is due, since at once
 * would never end with an address that cannot be dialled. */
void worker_link_unreachable(struct worker_core *core, enum ts_channel channel, uint64_t peer)
{
    bool router = channel == TS_CHANNEL_WORKER && peer >= 1 && peer <= core->settings.router_count;
    if (router && core->routers[peer - 1].session.up)
        router_down(core, &core->routers[peer - 1]);
    else if (channel == TS_CHANNEL_POOL && core->pool.session.up)
        pool_down(core);
    struct kv_peer *kv = channel == TS_CHANNEL_KV ? ts_map_get_u64(core->kv_peers, peer) : NULL;
    if (kv)
        kv_lost(core, kv);
}

static struct ts_load load_of(const struct worker_core *core)
{
    static const enum task_state queue[] = {TASK_WAITING, TASK_PREFILLING};
    const struct task_list *lists = core->lists;
    struct ts_load load = {.kv_blocks = core->kv.blocks,
                           .kv_blocks_used = core->kv.blocks - prefix_room(core),
                           .done_tokens = core->done_tokens};
    load.waiting = lists[TASK_TOKENISING].count + lists[TASK_WAITING].count + lists[TASK_ASSIGNED].count +
                   lists[TASK_GRANT_WAIT].count;
    load.running = (uint32_t)ts_map_count(core->by_tag) - load.waiting;
    for (size_t i = 0; i < TS_ARRAY_SIZE(queue); i++) {
        for (const struct task *t = lists[queue[i]].head; t; t = t->alike_next)
            load.queued_tokens += t->prompt_count - t->done;
    }
    return load;
}

/* A heartbeat carries the load, so it is due at every interval, also where other messages flow. */
static ts_time report_due(const struct router_link *link)
{
    return link->session.up ? link->reported_at + link->session.heartbeat_ns : TS_TIME_NEVER;
}

static void router_tick(struct worker_core *core, struct router_link *link)
{
    if (ts_session_expired(&link->session, core->now))
        router_down(core, link);
    if (!link->session.up && link->lost_at != TS_TIME_NEVER &&
        core->now - link->lost_at >= core->settings.router_lost_ms * TS_MS) {
        task_drop_router(core, link);
        link->lost_at = TS_TIME_NEVER;
    }
    if (!link->session.up && link->session.hello_at <= core->now)
        say_hello(core, TS_CHANNEL_WORKER, link->peer, &link->session);
    if (report_due(link) <= core->now) {
        link->reported_at = core->now;
        worker_send_router(core, link, TS_MSG_HEARTBEAT)->msg.heartbeat.load = load_of(core);
    }
}

/* What is sent and received moves deadlines back: they are looked at again when the earliest of the last time
 * has come. */
static void kv_tick(struct worker_core *core)
{
    struct kv_peer *peer;
    if (core->now < core->kv_due)
        return;
    core->kv_due = TS_TIME_NEVER;
    for (size_t cursor = 0; (peer = ts_map_next(core->kv_peers, &cursor, NULL, NULL));) {
        if (ts_session_expired(&peer->session, core->now)) {
            kv_lost(core, peer);
            continue;
        }
        if (ts_session_heartbeat_due(&peer->session, core->now))
            worker_send_kv(core, peer, TS_MSG_HEARTBEAT);
        kv_wake(core, peer);
    }
}

void worker_link_tick(struct worker_core *core)
{
    if (!core->started)
        return;
    for (size_t i = 0; i < core->settings.router_count; i++)
        router_tick(core, &core->routers[i]);
    if (has_relay(core)) {
        if (ts_session_expired(&core->pool.session, core->now))
            pool_down(core);
        if (!core->pool.session.up && core->pool.session.hello_at <= core->now)
            say_hello(core, TS_CHANNEL_POOL, POOL_PEER, &core->pool.session);
        if (ts_session_heartbeat_due(&core->pool.session, core->now))
            worker_send_pool(core, TS_MSG_HEARTBEAT);
    }
    kv_tick(core);
}

ts_time worker_link_deadline(const struct worker_core *core)
{
    ts_time at = core->kv_due;
    if (!core->started)
        return at;
    for (size_t i = 0; i < core->settings.router_count; i++) {
        ts_time due = ts_session_deadline(&core->routers[i].session), report = report_due(&core->routers[i]);
        at = due < at ? due : at;
        at = report < at ? report : at;
    }
    if (has_relay(core)) {
        ts_time due = ts_session_deadline(&core->pool.session);
        at = due < at ? due : at;
    }
    return at;
}
