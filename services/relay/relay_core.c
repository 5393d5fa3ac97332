#include "services/relay/relay_impl.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct relay_settings relay_settings_defaults(void)
{
    return (struct relay_settings){.id = "relay",
                                   .host = "localhost",
                                   .heartbeat_ms = 500,
                                   .timeout_ms = 3000,
                                   .router_lost_ms = 30000,
                                   .encoded_bytes_max = 512u << 20,
                                   .retained_bytes_max = 256u << 20,
                                   .encode_jobs_max = 4,
                                   .chunk_tokens_max = 512,
                                   .kv_connections = 1,
                                   .open_retry_ms = 5000,
                                   .idle_link_ms = 30000,
                                   .probe_every_ms = 10000,
                                   .link_report_ms = 2000};
}

struct relay_core *relay_core_new(const struct relay_settings *settings, uint64_t incarnation)
{
    struct relay_core *core = ts_xcalloc(1, sizeof *core);
    TS_ASSERT(settings->router_count <= RELAY_ROUTERS_MAX);
    TS_ASSERT(settings->kv_connections >= 1 && settings->kv_connections <= RELAY_LANES_MAX);
    core->settings = *settings;
    core->incarnation = incarnation;
    ts_rng_init(&core->rng, incarnation);
    for (size_t i = 0; i < settings->router_count; i++) {
        core->routers[i].peer = i + 1;
        ts_session_init(&core->routers[i].session, incarnation, settings->heartbeat_ms * TS_MS,
                        settings->timeout_ms * TS_MS);
    }
    core->pools = ts_map_new();
    core->links = ts_map_new();
    core->link_peers = ts_map_new();
    core->transfers = ts_map_new();
    core->encodes = ts_map_new();
    core->copies = ts_map_new();
    core->next_pool = core->next_job = core->next_age = 1;
    core->links_due = core->opening_due = core->probes_due = TS_TIME_NEVER;
    core->next_peer = 1000; /* above the routers' numbers, never used twice */
    return core;
}

/* At its place by age: nearly always the last one. */
void list_add(struct list *list, enum list_kind kind, struct transfer *t)
{
    struct transfer *after = list->tail;
    while (after && after->age > t->age)
        after = after->near[kind].prev;
    struct transfer *before = after ? after->near[kind].next : list->head;
    t->near[kind] = (struct neighbours){after, before};
    *(after ? &after->near[kind].next : &list->head) = t;
    *(before ? &before->near[kind].prev : &list->tail) = t;
}

void list_remove(struct list *list, enum list_kind kind, struct transfer *t)
{
    struct neighbours *n = &t->near[kind];
    *(n->prev ? &n->prev->near[kind].next : &list->head) = n->next;
    *(n->next ? &n->next->near[kind].prev : &list->tail) = n->prev;
    *n = (struct neighbours){NULL, NULL};
}

static void free_list(struct transfer **list)
{
    for (struct transfer *t = *list, *next; t; t = next) {
        next = t->near[LIST_ALL].next;
        transfer_free(t);
    }
    *list = NULL;
}

void relay_core_destroy(struct relay_core **core)
{
    struct relay_core *c = *core;
    struct link *link;
    void *value;
    if (!c)
        return;
    free_list(&c->dead);
    free_list(&c->live.head);
    free_list(&c->over.head);
    for (size_t cursor = 0; (value = ts_map_next(c->copies, &cursor, NULL, NULL));)
        transfer_free(value);
    for (size_t cursor = 0; (link = ts_map_next(c->links, &cursor, NULL, NULL));) {
        relay_link_free(link);
    }
    for (size_t cursor = 0; (value = ts_map_next(c->pools, &cursor, NULL, NULL));)
        ts_free(value);
    for (size_t cursor = 0; (value = ts_map_next(c->encodes, &cursor, NULL, NULL));)
        ts_free(value);
    ts_map_destroy(&c->pools);
    ts_map_destroy(&c->links);
    ts_map_destroy(&c->link_peers);
    ts_map_destroy(&c->transfers);
    ts_map_destroy(&c->encodes);
    ts_map_destroy(&c->copies);
    ts_free(c->cheapest);
    ts_free(c->evicted);
    ts_free(c);
    *core = NULL;
}

static void on_message(struct relay_core *core, const struct ts_event_message *m)
{
    core->came = m->bulk;
    switch (m->channel) {
    case TS_CHANNEL_RELAY:
        relay_link_router_message(core, m);
        break;
    case TS_CHANNEL_POOL:
        relay_link_pool_message(core, m);
        break;
    case TS_CHANNEL_KV:
        relay_link_kv_message(core, m);
        break;
    default:
        break;
    }
    ts_actions_drop(core->out, core->came);
    core->came = (struct ts_bulk){.slot = 0};
}

void relay_core_step(struct relay_core *core, ts_time now, const struct ts_event *event,
                     struct ts_actions *out)
{
    core->now = now;
    core->out = out;
    free_list(&core->dead);
    switch (event->kind) {
    case TS_EVENT_START:
        relay_link_start(core);
        break;
    case TS_EVENT_MESSAGE:
        on_message(core, &event->message);
        break;
    case TS_EVENT_SEND_FAILED:
        relay_link_unreachable(core, event->send_failed.channel, event->send_failed.peer);
        break;
    case TS_EVENT_ENCODED:
        encode_done(core, &event->encoded);
        break;
    case TS_EVENT_POOL_MAPPED:
        relay_link_pool_mapped(core, &event->pool_mapped);
        break;
    case TS_EVENT_DRAIN:
        relay_link_drain(core);
        break;
    default:
        break;
    }
    relay_link_tick(core);
    probe_tick(core);
    transfer_tick(core);
    encode_more(core);
    copy_tell(core);
    if (core->draining && relay_core_idle(core))
        ts_actions_add(out, TS_ACTION_STOP);
    core->out = NULL;
}

ts_time relay_core_deadline(const struct relay_core *core)
{
    ts_time due = core->links_due < core->opening_due ? core->links_due : core->opening_due;
    return due < core->probes_due ? due : core->probes_due;
}

bool relay_core_idle(const struct relay_core *core)
{
    return core->live.head == NULL && core->over.head == NULL;
}

size_t relay_core_copies(const struct relay_core *core)
{
    return core->copy_count;
}

uint64_t relay_core_retained_bytes(const struct relay_core *core)
{
    return core->retained_bytes;
}

static size_t handles_of(const struct transfer *t)
{
    size_t count = 0;
    for (size_t i = 0; i < t->chunk_count; i++)
        count += t->chunks[i].bulk.slot != 0;
    return count;
}

size_t relay_core_handles(const struct relay_core *core)
{
    size_t count = 0;
    for (const struct transfer *t = core->live.head; t; t = t->near[LIST_ALL].next)
        count += handles_of(t);
    for (size_t i = 0; i < core->copy_count; i++)
        count += handles_of(core->cheapest[i]);
    return count;
}

struct relay_counts relay_core_counts(const struct relay_core *core)
{
    return core->counts;
}

/* What is under way is what was sent and has not been credited, and no more than decode has granted. */
static bool credit_agrees(const struct transfer *t)
{
    uint64_t once = 0, largest = 0;
    for (size_t i = 0; i < t->chunk_sent; i++) {
        if (chunk_there(t, &t->chunks[i]))
            continue;
        once += t->chunks[i].bytes;
        largest = t->chunks[i].bytes > largest ? t->chunks[i].bytes : largest;
    }
    return once == t->sent_once && t->credited + t->in_flight == once &&
           t->in_flight <= (t->window > largest ? t->window : largest);
}

static enum ts_status check_transfer(const struct transfer *t, struct ts_error *err)
{
    unsigned long long request = t->rid.request;
    bool over = t->state == TRANSFER_OVER;
    uint64_t chunks = 0;
    for (size_t i = 0; i < t->chunk_count; i++)
        chunks += t->chunks[i].bytes;
    if (chunks != t->held_bytes || (over && t->chunk_count))
        return ts_error_set(err, TS_ECORRUPT, "transfer %llu holds %llu bytes and counts %llu", request,
                            (unsigned long long)chunks, (unsigned long long)t->held_bytes);
    if (over && t->encodes == 0)
        return ts_error_set(err, TS_ECORRUPT, "transfer %llu is over and was not freed", request);
    if (!over && !credit_agrees(t))
        return ts_error_set(err, TS_ECORRUPT,
                            "transfer %llu: %llu bytes are under way of a window of %llu, %llu were sent and "
                            "%llu credited",
                            request, (unsigned long long)t->in_flight, (unsigned long long)t->window,
                            (unsigned long long)t->sent_once, (unsigned long long)t->credited);
    if (t->state == TRANSFER_RETAINED && (t->pool || t->link || t->encodes))
        return ts_error_set(err, TS_ECORRUPT, "the copy of request %llu is still under way", request);
    if ((t->pieces_in != NULL) != (t->piece_head < t->piece_count))
        return ts_error_set(err, TS_ECORRUPT, "transfer %llu waits for the codec in no list", request);
    return TS_OK;
}

struct sums {
    uint64_t held, encodes, transfers, under_way;
    uint32_t states[TRANSFER_OVER + 1];
};

static enum ts_status check_list(const struct list *list, struct sums *sums, struct ts_error *err)
{
    for (const struct transfer *t = list->head; t; t = t->near[LIST_ALL].next) {
        if (check_transfer(t, err) != TS_OK)
            return err->status;
        sums->held += t->held_bytes;
        for (size_t i = 0; i < t->chunk_sent; i++)
            sums->under_way +=
                t->chunks[i].credited || chunk_there(t, &t->chunks[i]) ? 0 : t->chunks[i].bytes;
        sums->encodes += t->encodes;
        sums->transfers++;
        sums->states[t->state]++;
    }
    return TS_OK;
}

/* The heap holds what the map holds, and within the bounds. */
static enum ts_status check_copies(const struct relay_core *core, struct sums *sums, struct ts_error *err)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < core->copy_count; i++) {
        const struct transfer *t = core->cheapest[i];
        if (t->heap_at != i || t->state != TRANSFER_RETAINED)
            return ts_error_set(err, TS_ECORRUPT, "the copy of request %llu is no copy",
                                (unsigned long long)t->rid.request);
        if (check_transfer(t, err) != TS_OK)
            return err->status;
        bytes += t->held_bytes;
        sums->states[TRANSFER_RETAINED]++;
    }
    if (bytes != core->retained_bytes || core->copy_count != ts_map_count(core->copies) ||
        bytes > core->settings.retained_bytes_max ||
        (bytes > 0 && core->held_bytes + bytes > core->settings.encoded_bytes_max))
        return ts_error_set(err, TS_ECORRUPT, "retained %llu/%llu bytes of %llu beside %llu, copies %zu/%zu",
                            (unsigned long long)bytes, (unsigned long long)core->retained_bytes,
                            (unsigned long long)core->settings.retained_bytes_max,
                            (unsigned long long)core->held_bytes, core->copy_count,
                            ts_map_count(core->copies));
    return TS_OK;
}

static uint64_t lanes_under_way(const struct relay_core *core)
{
    const struct link *link;
    uint64_t bytes = 0;
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        for (uint32_t i = 0; i < RELAY_LANES_MAX; i++)
            bytes += link->lanes[i].under_way;
    }
    return bytes;
}

bool relay_core_check(const struct relay_core *core, struct ts_error *err)
{
    struct sums sums = {.held = 0};
    if (check_list(&core->live, &sums, err) != TS_OK)
        return false;
    uint64_t live = sums.transfers;
    if (check_list(&core->over, &sums, err) != TS_OK || check_copies(core, &sums, err) != TS_OK)
        return false;
    if (sums.under_way != lanes_under_way(core))
        ts_error_set(err, TS_ECORRUPT, "%llu bytes are under way over connections, and %llu of transfers",
                     (unsigned long long)lanes_under_way(core), (unsigned long long)sums.under_way);
    else if (sums.held != core->held_bytes || sums.encodes != ts_map_count(core->encodes) ||
             live != parts_count(core))
        ts_error_set(err, TS_ECORRUPT, "held %llu/%llu, encodes %llu/%zu, transfers %llu/%zu",
                     (unsigned long long)sums.held, (unsigned long long)core->held_bytes,
                     (unsigned long long)sums.encodes, ts_map_count(core->encodes), (unsigned long long)live,
                     parts_count(core));
    else if (memcmp(sums.states, core->state_counts, sizeof sums.states) != 0)
        ts_error_set(err, TS_ECORRUPT, "the counts of transfers by state are not those of the transfers");
    else
        return true;
    return false;
}
