#include "services/router/router_impl.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

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
                                    .memory_wait_ms = 120000,
                                    .measure_links = true,
                                    .phase_wait_ms = 10000,
                                    .overload_ttft_factor = 0.8,
                                    .queue_wait_ms = 30000,
                                    .workload_window_ms = 60000,
                                    .workload_update_ms = 5000,
                                    .codec = "auto"};
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
    core->clients = ts_map_new();
    core->per_client = ts_map_new();
    core->forwards = ts_map_new();
    core->models = ts_map_new();
    core->links = ts_map_new();
    core->link_tests = ts_map_new();
    core->next_number = core->next_forward = core->next_link_test = 1;
    core->ended_timer.kind = TIMER_ENDED;
    core->workload_timer.kind = TIMER_WORKLOAD;
    workload_init(&core->workload, settings->workload_window_ms);
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

static void free_client(void *value)
{
    client_free(value);
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
    free_all(&c->clients, free_client);
    free_all(&c->forwards, ts_free);
    free_all(&c->models, ts_free);
    free_all(&c->links, ts_free);
    free_all(&c->link_tests, ts_free);
    ts_map_destroy(&c->peers);
    ts_map_destroy(&c->fenced);
    index_fini(&c->by_number);
    timers_fini(&c->timers);
    workload_fini(&c->workload);
    ts_free(c->workers);
    ts_free(c->flush);
    ts_map_destroy(&c->per_client);
    ts_arena_fini(&c->plan.arena);
    ts_free(c);
    *core = NULL;
}

static void on_client(struct router_core *core, const struct ts_event_message *m)
{
    struct client *client = client_heard(core, m->peer);
    switch (m->msg.kind) {
    case TS_MSG_GENERATE:
        request_generate(core, m, client);
        return; /* keeps the prompt */
    case TS_MSG_CANCEL:
        request_cancel(core, m);
        break;
    case TS_MSG_TOKENIZE:
    case TS_MSG_DETOKENIZE:
        forward_asked(core, m);
        break;
    case TS_MSG_HEARTBEAT:
        stream_send(core, m->peer, TS_MSG_HEARTBEAT)->msg.heartbeat.load.running = client->attached;
        break;
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
        member_heard_load(core, from, &msg->heartbeat.load);
        break;
    case TS_MSG_RESYNC:
        attempt_resync(core, from, &msg->resync);
        break;
    case TS_MSG_OUTPUT:
        attempt_output(core, from, &msg->output);
        break;
    case TS_MSG_OUTPUT_BATCH:
        attempt_outputs(core, from, &msg->output_batch);
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
    case TS_MSG_PHASE_REPLY:
        phase_reply(core, from, &msg->phase_reply);
        break;
    case TS_MSG_TOKENIZE_REPLY:
        forward_reply(core, &msg->tokenize_reply);
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
        else if (m->channel == TS_CHANNEL_RELAY && m->msg.kind == TS_MSG_LINK_REPORT)
            links_report(core, from, &m->msg.link_report);
        else if (m->channel == TS_CHANNEL_RELAY && m->msg.kind == TS_MSG_LINK_TEST_REPLY)
            link_test_reply(core, from, &m->msg.link_test_reply);
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

static void *owner_of(struct timer *timer, size_t offset)
{
    return (char *)timer - offset;
}

static void run_timers(struct router_core *core)
{
    for (struct timer *timer; (timer = timers_due(&core->timers, core->now));) {
        switch ((enum timer_kind)timer->kind) {
        case TIMER_MEMBER:
            member_due(core, owner_of(timer, offsetof(struct member, timer)));
            break;
        case TIMER_RECORD:
            request_due(core, owner_of(timer, offsetof(struct record, timer)));
            break;
        case TIMER_CLIENT:
            client_due(core, owner_of(timer, offsetof(struct client, timer)));
            break;
        case TIMER_FORWARD:
            forward_due(core, owner_of(timer, offsetof(struct forwarded, timer)));
            break;
        case TIMER_ENDED:
            request_ended_due(core);
            break;
        case TIMER_WORKLOAD:
            snapshot_workload_due(core);
            break;
        case TIMER_LINK_TEST:
            link_test_due(core, owner_of(timer, offsetof(struct link_question, timer)));
            break;
        case TIMER_PHASE:
            phase_due(core, owner_of(timer, offsetof(struct member, switching.timer)));
            break;
        }
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
            client_lost(core, event->send_failed.peer);
        else
            member_unreachable(core, event->send_failed.channel, event->send_failed.peer);
        break;
    case TS_EVENT_DRAIN:
        core->draining = true;
        break;
    default:
        break;
    }
    run_timers(core);
    request_trim(core);
    if (core->changed)
        members_refresh(core);
    attempt_dispatch(core);
    if (core->changed)
        snapshot_inform(core);
    core->changed = false;
    streams_flush(core);
    if (core->draining && core->live_count == 0)
        ts_actions_add(out, TS_ACTION_STOP);
    core->out = NULL;
}

ts_time router_core_deadline(const struct router_core *core)
{
    return timers_next(&core->timers);
}

bool router_core_idle(const struct router_core *core)
{
    return core->live_count == 0;
}

struct router_counts router_core_counts(const struct router_core *core)
{
    return core->counts;
}
