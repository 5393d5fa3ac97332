#include "services/worker/worker_impl.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct worker_settings worker_settings_defaults(void)
{
    return (struct worker_settings){.id = "worker",
                                    .host = "localhost",
                                    .relay_endpoint = "",
                                    .max_rows = 256,
                                    .max_batch_tokens = 2048,
                                    .batches_max = 1,
                                    .requests_max = 4096,
                                    .prefill_patience_us = 1000,
                                    .heartbeat_ms = 500,
                                    .timeout_ms = 3000,
                                    .router_lost_ms = 30000,
                                    .grant_wait_ms = 60000,
                                    .resume_wait_ms = 5000,
                                    .credit_bytes = 8u << 20,
                                    .prefix_blocks_max = UINT32_MAX};
}

struct worker_core *worker_core_new(const struct worker_settings *settings, uint64_t incarnation)
{
    struct worker_core *core = ts_xcalloc(1, sizeof *core);
    ts_time heartbeat = settings->heartbeat_ms * TS_MS, timeout = settings->timeout_ms * TS_MS;
    TS_ASSERT(settings->router_count <= WORKER_ROUTERS_MAX && settings->batches_max > 0);
    core->settings = *settings;
    core->settings.profile.batches_max = settings->batches_max;
    core->incarnation = incarnation;
    ts_rng_init(&core->rng, incarnation);
    for (size_t i = 0; i < settings->router_count; i++) {
        core->routers[i].peer = i + 1;
        core->routers[i].lost_at = TS_TIME_NEVER;
        ts_session_init(&core->routers[i].session, incarnation, heartbeat, timeout);
    }
    ts_session_init(&core->pool.session, incarnation, heartbeat, timeout);
    core->kv_peers = ts_map_new();
    core->kv_sessions = ts_map_new();
    core->kv_due = core->grant_due = core->resume_due = TS_TIME_NEVER;
    core->tasks = ts_map_new();
    core->by_tag = ts_map_new();
    core->scatters = ts_map_new();
    core->encodes = ts_map_new();
    core->asked = ts_map_new();
    ts_kv_init(&core->kv, settings->pool.kv_blocks);
    prefix_init(&core->prefix, settings->pool.kv_blocks, settings->prefix_blocks_max);
    core->next_tag = core->next_job = core->next_batch = 1;
    core->batches = ts_xcalloc(settings->batches_max, sizeof *core->batches);
    for (uint32_t i = 0; i < settings->batches_max; i++) {
        core->batches[i].rows = ts_xcalloc(settings->max_rows, sizeof *core->batches[i].rows);
        core->batches[i].tasks = ts_xcalloc(settings->max_rows, sizeof(struct task *));
    }
    return core;
}

static void free_list(struct task **list)
{
    for (struct task *t = *list, *next; t; t = next) {
        next = t->next;
        task_free(t);
    }
    *list = NULL;
}

void worker_core_destroy(struct worker_core **core)
{
    struct worker_core *c = *core;
    void *value;
    if (!c)
        return;
    free_list(&c->dead);
    free_list(&c->head);
    for (size_t cursor = 0; (value = ts_map_next(c->kv_peers, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(c->scatters, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(c->encodes, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(c->asked, &cursor, NULL, NULL));)
        ts_free(value);
    ts_map_destroy(&c->kv_peers);
    ts_map_destroy(&c->kv_sessions);
    ts_map_destroy(&c->tasks);
    ts_map_destroy(&c->by_tag);
    ts_map_destroy(&c->scatters);
    ts_map_destroy(&c->encodes);
    ts_map_destroy(&c->asked);
    ts_kv_fini(&c->kv);
    prefix_fini(&c->prefix);
    for (uint32_t i = 0; i < c->settings.batches_max; i++) {
        ts_free(c->batches[i].rows);
        ts_free(c->batches[i].tasks);
    }
    ts_free(c->batches);
    ts_free(c);
    *core = NULL;
}

static void on_message(struct worker_core *core, const struct ts_event_message *m)
{
    switch (m->channel) {
    case TS_CHANNEL_WORKER:
        worker_link_router_message(core, m);
        break;
    case TS_CHANNEL_POOL:
        worker_link_pool_message(core, m);
        break;
    case TS_CHANNEL_KV:
        worker_link_kv_message(core, m);
        break;
    default:
        break;
    }
    ts_actions_drop(core->out, m->bulk); /* actions made on the way borrow it */
}

/* Blocks to those that wait for them, batches to the engine. */
static void go_on(struct worker_core *core)
{
    bool starved;
    do {
        starved = core->starved;
        prefill_admit(core);
        resume_tick(core);
        decode_admit(core);
        batch_start(core);
    } while (starved && !core->starved); /* what was held back for a sequence may be had now */
}

void worker_core_step(struct worker_core *core, ts_time now, const struct ts_event *event,
                      struct ts_actions *out)
{
    core->now = now;
    core->out = out;
    free_list(&core->dead);
    switch (event->kind) {
    case TS_EVENT_START:
        worker_link_start(core);
        break;
    case TS_EVENT_MESSAGE:
        on_message(core, &event->message);
        break;
    case TS_EVENT_SEND_FAILED:
        worker_link_unreachable(core, event->send_failed.channel, event->send_failed.peer);
        break;
    case TS_EVENT_TOKENISED:
        prefill_tokenised(core, &event->tokenised);
        break;
    case TS_EVENT_LAYER_DONE:
        batch_layer_done(core, &event->layer_done);
        break;
    case TS_EVENT_BATCH_DONE:
        batch_done(core, &event->batch_done);
        break;
    case TS_EVENT_SCATTERED:
        decode_scattered(core, &event->scattered);
        break;
    case TS_EVENT_ENCODED:
        prefill_encoded(core, &event->encoded);
        break;
    case TS_EVENT_DRAIN:
        worker_link_drain(core);
        break;
    default:
        break;
    }
    worker_link_tick(core);
    go_on(core);
    if (core->draining && !core->head)
        ts_actions_add(out, TS_ACTION_STOP);
    core->out = NULL;
}

ts_time worker_core_deadline(const struct worker_core *core)
{
    ts_time at = worker_link_deadline(core);
    at = core->resume_due < at ? core->resume_due : at;
    return core->grant_due < at ? core->grant_due : at;
}

bool worker_core_relay_usable(const struct worker_core *core)
{
    return core->pool.usable;
}

bool worker_core_idle(const struct worker_core *core)
{
    return core->head == NULL;
}

struct worker_counts worker_core_counts(const struct worker_core *core)
{
    return core->counts;
}

enum ts_phase worker_core_phase(const struct worker_core *core)
{
    return core->settings.profile.phase;
}

uint32_t worker_core_blocks_used(const struct worker_core *core)
{
    return core->kv.blocks - prefix_room(core);
}
