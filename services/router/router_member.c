/*
 * Who is there. A member is known by (role, id); its incarnation lives until a newer one says Hello or until
 * it was silent too long, which is final: dead incarnations are fenced.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define FENCED_MAX 4096

struct member_key {
    uint32_t role;
    char id[TS_ID_BYTES_MAX + 1];
};

struct peer_key {
    uint64_t channel, peer;
};

static struct member *find_peer(const struct router_core *core, enum ts_channel channel, uint64_t peer)
{
    struct peer_key key = {channel, peer};
    return ts_map_get(core->peers, &key, sizeof key);
}

struct member *member_find(const struct router_core *core, enum ts_role role, const char *id)
{
    struct member_key key = {.role = role};
    snprintf(key.id, sizeof key.id, "%s", id);
    return ts_map_get(core->members, &key, sizeof key);
}

bool member_ready(const struct member *member)
{
    return member->session.up && !member->draining && (member->role != TS_ROLE_WORKER || member->synced);
}

void member_drains(struct router_core *core, struct member *member)
{
    if (member->draining)
        return;
    member->draining = true;
    plan_member_lost(core, member); /* a planner that leaves holds no term any more */
    plan_changed(core);
}

uint64_t router_key(struct ts_str name)
{
    uint64_t key = ts_hash64(name.count ? name.data : "", name.count, 0);
    return key ? key : 1;
}

/* --- models ------------------------------------------------------------------------------------------ */

struct model *model_find(const struct router_core *core, uint64_t key)
{
    size_t cursor = 0;
    return key ? ts_map_get_u64(core->models, key) : ts_map_next(core->models, &cursor, NULL, NULL);
}

static void leave_model(struct router_core *core, struct member *member)
{
    struct model *model = member->model;
    member->model = NULL;
    if (!model || --model->workers > 0)
        return;
    ts_map_remove_u64(core->models, model->key);
    ts_free(model);
}

static void join_model(struct router_core *core, struct member *member)
{
    const struct ts_profile *p = &member->hello.profile;
    uint64_t key = router_key(p->model);
    struct model *model = ts_map_get_u64(core->models, key);
    if (!model) {
        model = ts_xcalloc(1, sizeof *model);
        model->key = key;
        ts_map_put_u64(core->models, key, model);
    }
    model->workers++;
    leave_model(core, member);
    member->model = model;
    if (p->bytes_per_token > 0)
        model->bytes_per_token = p->bytes_per_token;
}

/* --- workers ----------------------------------------------------------------------------------------- */

static bool relays_for(const struct member *relay, const struct member *worker)
{
    return ts_str_equal(worker->hello.profile.relay, ts_str_of(relay->id));
}

/* What a Hello says of a worker, and who in the cluster it belongs with. */
static void join_worker(struct router_core *core, struct member *member)
{
    const struct ts_profile *p = &member->hello.profile;
    char relay[TS_ID_BYTES_MAX + 1];
    join_model(core, member);
    member->route.key = router_key(ts_str_of(member->id));
    member->route.model = member->model->key;
    member->route.fingerprint = p->fingerprint;
    member->route.kv_blocks = p->kv_blocks;
    snprintf(relay, sizeof relay, "%.*s", (int)p->relay.count, p->relay.count ? p->relay.data : "");
    member->relay = *relay ? member_find(core, TS_ROLE_RELAY, relay) : NULL;
    plan_member_joined(core, member);
}

static void join_relay(struct router_core *core, struct member *relay)
{
    for (size_t i = 0; i < core->worker_count; i++) {
        struct member *worker = member_of(core->workers[i]);
        if (relays_for(relay, worker))
            worker->relay = relay;
    }
}

static void add_worker(struct router_core *core, struct member *member)
{
    void *workers = core->workers;
    ts_array_reserve(&workers, &core->worker_capacity, core->worker_count + 1, sizeof *core->workers);
    core->workers = workers;
    member->slot = core->worker_count;
    core->workers[core->worker_count++] = &member->route;
}

static void remove_worker(struct router_core *core, struct member *member)
{
    core->worker_count--;
    for (size_t i = member->slot; i < core->worker_count; i++) { /* the order is that of joining */
        core->workers[i] = core->workers[i + 1];
        member_of(core->workers[i])->slot = i;
    }
    leave_model(core, member);
    plan_member_gone(core, member);
}

static void remove_relay(struct router_core *core, const struct member *relay)
{
    for (size_t i = 0; i < core->worker_count; i++) {
        struct member *worker = member_of(core->workers[i]);
        if (worker->relay == relay)
            worker->relay = NULL;
    }
}

void members_refresh(struct router_core *core)
{
    for (size_t i = 0; i < core->worker_count; i++) {
        struct member *worker = member_of(core->workers[i]);
        enum ts_phase phase = worker->hello.profile.phase, to = worker->switching.to;
        worker->route.phases = !member_ready(worker) ? TS_PHASE_NONE : to ? phase & to : phase;
        worker->route.sends = worker->relay && member_ready(worker->relay);
    }
}

void member_heard_load(struct router_core *core, struct member *member, const struct ts_load *load)
{
    load_pass(core, member);
    member->load = *load;
    if (load->kv_blocks > 0)
        member->route.kv_blocks = load->kv_blocks;
    member->route.kv_used =
        load->kv_blocks_used > member->kv_assigned ? load->kv_blocks_used : member->kv_assigned;
    core->dispatch = true;
}

/* --- sessions ---------------------------------------------------------------------------------------- */

void member_free(struct member *member)
{
    ts_arena_fini(&member->arena);
    ts_free(member);
}

struct ts_action_send *member_send(struct router_core *core, struct member *member, enum ts_msg_kind kind)
{
    if (!member->session.up)
        return NULL;
    struct ts_action_send *s = ts_actions_send(core->out, member->channel, member->peer, kind);
    ts_session_stamp(&member->session, core->now, &s->envelope);
    return s;
}

static void send_reset(struct router_core *core, const struct ts_event_message *m, bool fenced)
{
    struct ts_action_send *s = ts_actions_send(core->out, m->channel, m->peer, TS_MSG_RESET);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.reset = ts_session_reset(&m->envelope, fenced, TS_REASON_PEER_LOST);
}

static void forget_peer(struct router_core *core, struct member *member)
{
    struct peer_key key = {member->channel, member->peer};
    ts_map_remove(core->peers, &key, sizeof key);
}

static void fence(struct router_core *core, uint64_t incarnation)
{
    const void *oldest = NULL;
    size_t cursor = 0, bytes = 0;
    if (ts_map_count(core->fenced) >= FENCED_MAX && ts_map_next(core->fenced, &cursor, &oldest, &bytes)) {
        uint64_t key;
        memcpy(&key, oldest, sizeof key);
        ts_map_remove_u64(core->fenced, key);
    }
    ts_map_put_u64(core->fenced, incarnation, core);
}

static void schedule(struct router_core *core, struct member *member)
{
    timers_set(&core->timers, &member->timer,
               member->session.up ? ts_session_deadline(&member->session) : member->dead_at);
}

/* Final: its attempts fail, its incarnation never comes back. */
static void lose(struct router_core *core, struct member *member, const char *why)
{
    struct member_key key = {.role = member->role};
    snprintf(key.id, sizeof key.id, "%s", member->id);
    ts_actions_log(core->out, TS_LOG_WARN, "event=member_lost role=%s id=%s incarnation=%016llx reason=%s",
                   ts_role_name(member->role), member->id, (unsigned long long)member->incarnation, why);
    fence(core, member->incarnation);
    member->session.up = false;
    timers_set(&core->timers, &member->timer, TS_TIME_NEVER);
    forget_peer(core, member);
    ts_map_remove(core->members, &key, sizeof key);
    attempt_member_lost(core, member);
    plan_member_lost(core, member);
    phase_lost(core, member);
    links_forget(core, member);
    link_test_lost(core, member);
    if (member->role == TS_ROLE_WORKER)
        remove_worker(core, member);
    else if (member->role == TS_ROLE_RELAY)
        remove_relay(core, member);
    plan_changed(core);
    member->next = core->dead_members;
    core->dead_members = member;
}

static enum ts_role role_of(enum ts_channel channel)
{
    return channel == TS_CHANNEL_WORKER  ? TS_ROLE_WORKER
           : channel == TS_CHANNEL_RELAY ? TS_ROLE_RELAY
                                         : TS_ROLE_PLANNER;
}

static struct member *new_member(struct router_core *core, const struct ts_event_message *m)
{
    struct member_key key = {.role = m->msg.hello.role};
    struct member *member = ts_xcalloc(1, sizeof *member);
    ts_arena_init(&member->arena);
    member->role = m->msg.hello.role;
    member->incarnation = m->envelope.incarnation;
    snprintf(member->id, sizeof member->id, "%.*s", (int)m->msg.hello.id.count, m->msg.hello.id.data);
    snprintf(key.id, sizeof key.id, "%s", member->id);
    ts_session_init(&member->session, core->incarnation, core->settings.heartbeat_ms * TS_MS,
                    core->settings.timeout_ms * TS_MS);
    member->timer.kind = TIMER_MEMBER;
    ts_map_put(core->members, &key, sizeof key, member);
    if (member->role == TS_ROLE_WORKER)
        add_worker(core, member);
    member->prompts.at = member->blocks.at = core->now;
    ts_actions_log(core->out, TS_LOG_INFO, "event=member_joined role=%s id=%s incarnation=%016llx",
                   ts_role_name(member->role), member->id, (unsigned long long)member->incarnation);
    return member;
}

/* An incarnation is one member: its end would fence the other too. */
static bool has_other_name(const struct router_core *core, const struct ts_event_message *m, const char *id)
{
    const struct member *member;
    for (size_t cursor = 0; (member = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (member->incarnation == m->envelope.incarnation &&
            (member->role != m->msg.hello.role || strcmp(member->id, id) != 0))
            return true;
    }
    return false;
}

static void on_hello(struct router_core *core, const struct ts_event_message *m)
{
    const struct ts_msg_hello *hello = &m->msg.hello;
    struct ts_msg copy = {.kind = TS_MSG_HELLO};
    char id[TS_ID_BYTES_MAX + 1];
    if (hello->role != role_of(m->channel) || hello->id.count == 0 || m->envelope.incarnation == 0)
        return;
    snprintf(id, sizeof id, "%.*s", (int)hello->id.count, hello->id.data);
    if (ts_map_get_u64(core->fenced, m->envelope.incarnation) || has_other_name(core, m, id)) {
        send_reset(core, m, true);
        return;
    }
    struct member *member = member_find(core, hello->role, id);
    if (member && member->incarnation != m->envelope.incarnation) {
        lose(core, member, "replaced");
        member = NULL;
    }
    if (!member)
        member = new_member(core, m);
    else
        forget_peer(core, member);
    struct member *other = find_peer(core, m->channel, m->peer);
    if (other && other != member) /* one connection, another id: the old one is gone */
        lose(core, other, "renamed");
    ts_arena_reset(&member->arena);
    ts_schema_copy(&ts_msg_schema, &copy, &m->msg, &member->arena);
    member->hello = copy.hello;
    member->channel = m->channel;
    member->peer = m->peer;
    member->synced = false;
    member->snapshot_sent = 0;
    if (member->role == TS_ROLE_WORKER)
        join_worker(core, member);
    else if (member->role == TS_ROLE_RELAY)
        join_relay(core, member);
    struct peer_key key = {m->channel, m->peer};
    ts_map_put(core->peers, &key, sizeof key, member);
    ts_session_accept(&member->session, core->now,
                      ts_session_number(&core->last_session, ts_rng_u64(&core->rng)),
                      m->envelope.incarnation);
    schedule(core, member);
    struct ts_action_send *s = member_send(core, member, TS_MSG_WELCOME);
    s->msg.welcome = (struct ts_msg_welcome){.id = ts_str_of(core->settings.id),
                                             .session = member->session.id,
                                             .heartbeat_ms = core->settings.heartbeat_ms,
                                             .timeout_ms = core->settings.timeout_ms,
                                             .term = core->term,
                                             .output_batches = true};
    if (member->draining) /* the word may have been lost with the session before */
        member_send(core, member, TS_MSG_DRAIN);
    refeed_session(core, member);
    if (member->role == TS_ROLE_RELAY)
        links_watch(core, member);
    plan_changed(core);
}

static void session_lost(struct router_core *core, struct member *member)
{
    member->synced = false;
    ts_session_down(&member->session, TS_TIME_NEVER);
    member->dead_at = core->now + core->settings.timeout_ms * TS_MS;
    schedule(core, member);
    plan_changed(core);
}

void member_ask_again(struct router_core *core, struct member *member)
{
    if (!member->session.up)
        return;
    struct ts_action_send *s = ts_actions_send(core->out, member->channel, member->peer, TS_MSG_RESET);
    s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
    s->msg.reset = (struct ts_msg_reset){
        .reason = TS_REASON_PEER_LOST, .incarnation = member->incarnation, .session = member->session.id};
    session_lost(core, member);
}

bool member_event(struct router_core *core, const struct ts_event_message *m, struct member **out)
{
    struct member *member = find_peer(core, m->channel, m->peer);
    if (m->msg.kind == TS_MSG_HELLO) {
        on_hello(core, m);
        return false;
    }
    if (!member) {
        send_reset(core, m, ts_map_get_u64(core->fenced, m->envelope.incarnation) != NULL);
        return false;
    }
    switch (ts_session_receive(&member->session, core->now, &m->envelope)) {
    case TS_SESSION_DELIVER:
        *out = member;
        return true;
    case TS_SESSION_BROKEN:
        session_lost(core, member);
        send_reset(core, m, false);
        return false;
    case TS_SESSION_DROP:
        break;
    }
    return false;
}

void member_unreachable(struct router_core *core, enum ts_channel channel, uint64_t peer)
{
    struct member *member = find_peer(core, channel, peer);
    if (member && member->session.up)
        session_lost(core, member);
}

void member_due(struct router_core *core, struct member *member)
{
    if (member->session.up && ts_session_expired(&member->session, core->now)) {
        lose(core, member, "silence");
        return;
    }
    if (!member->session.up && member->dead_at <= core->now) {
        lose(core, member, "disconnected");
        return;
    }
    if (member->session.up && ts_session_heartbeat_due(&member->session, core->now))
        member_send(core, member, TS_MSG_HEARTBEAT);
    schedule(core, member);
}
