#include "services/router/router_impl.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/router/route_policy.h"

struct router_settings router_settings_defaults(void)
{
    return (struct router_settings){.id = "router",
                                    .heartbeat_ms = 500,
                                    .timeout_ms = 3000,
                                    .queue_max = 4096,
                                    .held_bytes_max = 256u << 20,
                                    .prompt_bytes_max = 8u << 20,
                                    .per_client_max = 2048,
                                    .prefill_inflight_max = 64,
                                    .decode_inflight_max = 1024,
                                    .client_timeout_ms = 5000,
                                    .reattach_ms = 10000,
                                    .no_worker_ms = 30000,
                                    .ended_keep_count = 512,
                                    .ended_keep_ms = 60000,
                                    .max_attempts = 16,
                                    .default_codec = "i4"};
}

struct router_core *router_core_new(const struct router_settings *settings, uint64_t incarnation)
{
    struct router_core *core = ts_xcalloc(1, sizeof *core);
    core->settings = *settings;
    core->incarnation = incarnation;
    ts_rng_init(&core->rng, incarnation);
    core->members = ts_map_new();
    core->peers = ts_map_new();
    core->fenced = ts_map_new();
    core->records = ts_map_new();
    core->by_number = ts_map_new();
    core->clients = ts_map_new();
    core->per_client = ts_map_new();
    core->forwards = ts_map_new();
    core->next_number = core->next_forward = 1;
    core->sweep_at = TS_TIME_NEVER;
    core->snapshot_version = 1;
    ts_arena_init(&core->plan.arena);
    return core;
}

static void free_all(struct ts_map **map, void (*free_value)(void *value))
{
    void *value;
    for (size_t cursor = 0; (value = ts_map_next(*map, &cursor, NULL, NULL));)
        free_value(value);
    ts_map_destroy(map);
}

static void free_member(void *value)
{
    member_free(value);
}

static void free_record(void *value)
{
    record_free(value);
}

static void free_dead(struct router_core *core)
{
    for (struct record *r = core->dead_records, *next; r; r = next) {
        next = r->next;
        record_free(r);
    }
    for (struct member *m = core->dead_members, *next; m; m = next) {
        next = m->next;
        member_free(m);
    }
    core->dead_records = NULL;
    core->dead_members = NULL;
}

void router_core_destroy(struct router_core **core)
{
    struct router_core *c = *core;
    if (!c)
        return;
    free_dead(c);
    free_all(&c->members, free_member);
    free_all(&c->records, free_record);
    free_all(&c->clients, ts_free);
    free_all(&c->forwards, ts_free);
    ts_map_destroy(&c->peers);
    ts_map_destroy(&c->fenced);
    ts_map_destroy(&c->by_number);
    ts_map_destroy(&c->per_client);
    ts_arena_fini(&c->plan.arena);
    ts_free(c);
    *core = NULL;
}

void router_wake(struct router_core *core, ts_time at)
{
    if (at < core->sweep_at)
        core->sweep_at = at;
}

static void heard_client(struct router_core *core, uint64_t peer)
{
    struct client *client = ts_map_get_u64(core->clients, peer);
    if (!client) {
        client = ts_xcalloc(1, sizeof *client);
        client->peer = peer;
        ts_map_put_u64(core->clients, peer, client);
    }
    client->last_rx = core->now;
    router_wake(core, core->now + core->settings.client_timeout_ms * TS_MS);
}

static void on_client(struct router_core *core, const struct ts_event_message *m)
{
    heard_client(core, m->peer);
    switch (m->msg.kind) {
    case TS_MSG_GENERATE:
        request_generate(core, m);
        return; /* keeps the prompt */
    case TS_MSG_CANCEL:
        request_cancel(core, m);
        break;
    case TS_MSG_TOKENIZE:
    case TS_MSG_DETOKENIZE:
        request_forward(core, m);
        break;
    case TS_MSG_HEARTBEAT: {
        struct ts_action_send *s = ts_actions_send(core->out, TS_CHANNEL_CLIENT, m->peer, TS_MSG_HEARTBEAT);
        s->envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION, .incarnation = core->incarnation};
        s->msg.heartbeat.load.running = request_attached(core, m->peer);
        break;
    }
    case TS_MSG_STATUS:
        status_message(core, m);
        break;
    default:
        break;
    }
    ts_actions_drop(core->out, m->bulk);
}

static void on_worker(struct router_core *core, struct member *from, const struct ts_msg *msg)
{
    switch (msg->kind) {
    case TS_MSG_HEARTBEAT:
        from->load = msg->heartbeat.load;
        break;
    case TS_MSG_RESYNC:
        attempt_resync(core, from, &msg->resync);
        break;
    case TS_MSG_OUTPUT:
        attempt_output(core, from, &msg->output);
        break;
    case TS_MSG_ATTEMPT_FAILED:
        attempt_failed(core, from, &msg->attempt_failed);
        break;
    case TS_MSG_ASSIGN_REFUSED:
        attempt_refused(core, from, &msg->assign_refused);
        break;
    case TS_MSG_REPORT:
        attempt_report(core, from, &msg->report);
        break;
    case TS_MSG_TOKENIZE_REPLY:
        request_forward_reply(core, &msg->tokenize_reply);
        break;
    default:
        break;
    }
}

static void on_member(struct router_core *core, const struct ts_event_message *m)
{
    struct member *from;
    if (member_event(core, m, &from)) {
        if (m->channel == TS_CHANNEL_WORKER)
            on_worker(core, from, &m->msg);
        else if (m->channel == TS_CHANNEL_RELAY && m->msg.kind == TS_MSG_TRANSFER)
            attempt_transfer(core, from, &m->msg.transfer);
        else if (m->channel == TS_CHANNEL_RELAY && m->msg.kind == TS_MSG_COPIES)
            refeed_copies(core, from, &m->msg.copies);
        else if (m->channel == TS_CHANNEL_PLANNER && m->msg.kind == TS_MSG_PLAN)
            plan_received(core, from, &m->msg.plan);
        else if (m->msg.kind == TS_MSG_HEARTBEAT)
            from->load = m->msg.heartbeat.load;
        if (m->msg.kind == TS_MSG_DRAIN)
            member_drains(core, from);
    }
    ts_actions_drop(core->out, m->bulk);
}

static void on_message(struct router_core *core, const struct ts_event_message *m)
{
    switch (m->channel) {
    case TS_CHANNEL_CLIENT:
        on_client(core, m);
        break;
    case TS_CHANNEL_WORKER:
    case TS_CHANNEL_RELAY:
    case TS_CHANNEL_PLANNER:
        on_member(core, m);
        break;
    case TS_CHANNEL_ADMIN:
        status_message(core, m);
        ts_actions_drop(core->out, m->bulk);
        break;
    default:
        ts_actions_drop(core->out, m->bulk);
        break;
    }
}

void router_core_step(struct router_core *core, ts_time now, const struct ts_event *event,
                      struct ts_actions *out)
{
    core->now = now;
    core->out = out;
    free_dead(core);
    switch (event->kind) {
    case TS_EVENT_MESSAGE:
        on_message(core, &event->message);
        break;
    case TS_EVENT_SEND_FAILED:
        if (event->send_failed.channel == TS_CHANNEL_CLIENT)
            request_client_lost(core, event->send_failed.peer);
        else
            member_unreachable(core, event->send_failed.channel, event->send_failed.peer);
        break;
    case TS_EVENT_DRAIN:
        core->draining = true;
        break;
    default:
        break;
    }
    members_tick(core);
    if (core->sweep_at <= now)
        request_sweep(core);
    request_trim(core);
    attempt_dispatch(core);
    plan_inform(core);
    if (core->draining && core->live_count == 0)
        ts_actions_add(out, TS_ACTION_STOP);
    core->out = NULL;
}

ts_time router_core_deadline(const struct router_core *core)
{
    ts_time members = members_deadline(core);
    return members < core->sweep_at ? members : core->sweep_at;
}

bool router_core_idle(const struct router_core *core)
{
    return core->live_count == 0;
}

struct router_counts router_core_counts(const struct router_core *core)
{
    return core->counts;
}

static enum ts_status check_record(const struct record *r, struct ts_error *err)
{
    bool assigned = r->prefill || r->decode;
    if (r->state == RECORD_ENDED && (assigned || r->prompt.slot))
        return ts_error_set(err, TS_ECORRUPT, "request %llu has ended and still holds %s",
                            (unsigned long long)r->number, assigned ? "a worker" : "its prompt");
    if (r->state != RECORD_ENDED && !r->prompt.slot)
        return ts_error_set(err, TS_ECORRUPT, "request %llu lives without its prompt",
                            (unsigned long long)r->number);
    if (r->state == RECORD_QUEUED && assigned)
        return ts_error_set(err, TS_ECORRUPT, "request %llu is queued and assigned",
                            (unsigned long long)r->number);
    if (r->state == RECORD_ASSIGNED && r->count > 0)
        return ts_error_set(err, TS_ECORRUPT, "request %llu has tokens and does not stream",
                            (unsigned long long)r->number);
    return TS_OK;
}

bool router_core_check(const struct router_core *core, struct ts_error *err)
{
    size_t live = 0, queued = 0, ended = 0;
    uint64_t held = 0;
    struct record *r;
    for (size_t cursor = 0; (r = ts_map_next(core->records, &cursor, NULL, NULL));) {
        if (check_record(r, err) != TS_OK)
            return false;
        live += r->state != RECORD_ENDED;
        ended += r->state == RECORD_ENDED;
        queued += r->state == RECORD_QUEUED;
        held += r->state != RECORD_ENDED ? r->prompt.bytes : 0;
    }
    if (live != core->live_count || queued != core->queued_count || ended != core->ended_count ||
        held != core->held_bytes)
        ts_error_set(err, TS_ECORRUPT,
                     "counts disagree: live %zu/%zu queued %zu/%zu ended %zu/%zu held %llu/%llu", live,
                     core->live_count, queued, core->queued_count, ended, core->ended_count,
                     (unsigned long long)held, (unsigned long long)core->held_bytes);
    else if (live > core->settings.queue_max || ended > core->settings.ended_keep_count ||
             held > core->settings.held_bytes_max)
        ts_error_set(err, TS_ECORRUPT, "a bound is exceeded: live %zu ended %zu held %llu", live, ended,
                     (unsigned long long)held);
    else if (ts_map_count(core->by_number) != live)
        ts_error_set(err, TS_ECORRUPT, "%zu numbers for %zu live requests", ts_map_count(core->by_number),
                     live);
    else
        return true;
    return false;
}
