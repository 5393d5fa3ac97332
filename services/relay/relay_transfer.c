/*
 * A transfer from KvBegin to its one end.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"

#define BACKOFF_MIN       (20 * TS_MS)
#define BACKOFF_MAX       (200 * TS_MS)
#define WHOLE_TRANSFER    UINT64_MAX
#define LAST_PIECE_TOKENS 128

/* When an opening one wants to be looked at: the tick comes no later. */
static ts_time opening_due(const struct transfer *t)
{
    return t->link->session.up && t->open_at < t->open_until ? t->open_at : t->open_until;
}

static void list_opening(struct relay_core *core, struct transfer *t)
{
    ts_time due = opening_due(t);
    list_add(&core->opening, LIST_OPENING, t);
    core->opening_due = due < core->opening_due ? due : core->opening_due;
}

bool transfer_may_become(enum transfer_state from, enum transfer_state to)
{
    static const uint8_t legal[] = {
        [TRANSFER_OPENING] = 1 << TRANSFER_WAIT_GRANT | 1 << TRANSFER_OVER,
        [TRANSFER_WAIT_GRANT] =
            1 << TRANSFER_OPENING | 1 << TRANSFER_STREAMING | 1 << TRANSFER_RETAINED | 1 << TRANSFER_OVER,
        [TRANSFER_STREAMING] = 1 << TRANSFER_OPENING | 1 << TRANSFER_FLUSHING | 1 << TRANSFER_OVER,
        [TRANSFER_FLUSHING] = 1 << TRANSFER_OPENING | 1 << TRANSFER_RETAINED | 1 << TRANSFER_OVER,
        [TRANSFER_RETAINED] = 1 << TRANSFER_OPENING | 1 << TRANSFER_OVER,
        [TRANSFER_OVER] = 0,
    };
    return legal[from] >> to & 1;
}

static void set_state(struct relay_core *core, struct transfer *t, enum transfer_state state)
{
    TS_ASSERT(transfer_may_become(t->state, state));
    if (t->state == TRANSFER_OPENING)
        list_remove(&core->opening, LIST_OPENING, t);
    core->state_counts[t->state]--;
    core->state_counts[state]++;
    t->state = state;
    if (state == TRANSFER_OPENING)
        list_opening(core, t);
    encode_queue(core, t);
}

void transfer_flushing(struct relay_core *core, struct transfer *t)
{
    set_state(core, t, TRANSFER_FLUSHING);
}

uint64_t transfer_raw_bytes(const struct transfer *t)
{
    const struct ts_msg_pool *p = &t->layout;
    return (uint64_t)2 * (p->layer_end - p->layer_begin) * (p->head_end - p->head_begin) * p->head_dim * 2 *
           t->begin.token_count;
}

void transfer_report(struct relay_core *core, struct ts_rid rid, const struct transfer *t,
                     enum ts_reason reason, const char *text)
{
    struct ts_action_send *s = relay_send_router(core, rid.router, TS_MSG_TRANSFER);
    if (!s)
        return;
    s->msg.transfer = (struct ts_msg_transfer){.rid = rid, .reason = reason, .text = ts_str_of(text)};
    if (!t)
        return;
    for (const struct transfer *part = t->parts > 1 ? transfer_find(core, rid) : t; part;
         part = part->sibling) {
        s->msg.transfer.bytes_raw += part->raw_before + transfer_raw_bytes(part);
        s->msg.transfer.bytes_sent += part->sent_before + part->bytes_sent;
    }
    s->msg.transfer.run_ns = core->now - t->began_at;
}

static void send_freed(struct relay_core *core, struct pool *pool, struct ts_rid rid)
{
    struct ts_action_send *s = relay_send_pool(core, pool, TS_MSG_KV_FREED);
    if (s)
        s->msg.kv_freed.rid = rid;
}

/* The worker gives the attempt back to its router: its session there is resynchronised, ours is not. */
static void send_failed(struct relay_core *core, struct pool *pool, struct ts_rid rid, enum ts_reason reason)
{
    struct ts_action_send *s = relay_send_pool(core, pool, TS_MSG_RELEASE);
    if (s)
        s->msg.release = (struct ts_msg_release){.rid = rid, .reason = reason};
}

static void drop_chunks(struct relay_core *core, struct transfer *t)
{
    for (size_t i = 0; i < t->chunk_count; i++)
        ts_actions_drop(core->out, t->chunks[i].bulk);
    core->held_bytes -= t->held_bytes;
    t->held_bytes = 0;
    t->chunk_count = t->chunk_sent = 0;
}

void transfer_free(struct transfer *t)
{
    ts_arena_fini(&t->arena);
    ts_free(t->pieces);
    ts_free(t->ready);
    ts_free(t->cut);
    ts_free(t->chunks);
    ts_free(t->sums);
    ts_free(t->digests);
    ts_free(t);
}

/* The worker may have its blocks back once nothing will read them again. */
void transfer_maybe_freed(struct relay_core *core, struct transfer *t)
{
    bool quiet =
        t->encodes == 0 && (t->state == TRANSFER_OVER || (t->sealed && t->tiles_encoded == encode_tiles(t)));
    if (t->freed || !quiet)
        return;
    t->freed = true;
    if (!parts_siblings_read(core, t))
        send_freed(core, t->pool, t->rid);
}

void transfer_settle(struct relay_core *core, struct transfer *t)
{
    transfer_maybe_freed(core, t);
    if (t->state != TRANSFER_OVER || t->encodes > 0)
        return;
    list_remove(&core->over, LIST_ALL, t);
    core->state_counts[TRANSFER_OVER]--;
    t->near[LIST_ALL].next = core->dead;
    core->dead = t;
}

/* Under way from now on. */
static void enter(struct relay_core *core, struct transfer *t)
{
    t->age = core->next_age++;
    t->began_at = core->now;
    t->open_at = 0;
    t->open_until = core->now + core->settings.open_retry_ms * TS_MS;
    t->backoff = BACKOFF_MIN;
    t->link = relay_link_to(core, t->begin.endpoint);
    list_add(&core->live, LIST_ALL, t);
    parts_join(core, t);
}

static void leave(struct relay_core *core, struct transfer *t, enum transfer_state state)
{
    t->piece_head = t->piece_count;
    set_state(core, t, state);
    list_remove(&core->live, LIST_ALL, t);
    parts_leave(core, t);
    for (size_t i = 0; i < t->chunk_sent; i++) {
        if (!t->chunks[i].credited && !chunk_there(t, &t->chunks[i]))
            lane_came(core, t->link, &t->chunks[i]);
    }
    relay_measure_dropped(&t->link->measure, t->in_flight);
    relay_link_release(core, t->link);
    t->link = NULL;
}

void transfer_over(struct relay_core *core, struct transfer *t)
{
    if (t->state != TRANSFER_OVER)
        set_state(core, t, TRANSFER_OVER);
    list_add(&core->over, LIST_ALL, t);
    drop_chunks(core, t);
    transfer_settle(core, t);
}

static void tell_abort(struct relay_core *core, const struct transfer *t, enum ts_reason reason)
{
    struct ts_action_send *s = t->opened ? relay_send_link(core, t->link, TS_MSG_KV_ABORT) : NULL;
    if (s)
        s->msg.kv_abort = (struct ts_msg_kv_abort){.rid = t->rid, .reason = reason};
}

static void end_one(struct relay_core *core, struct transfer *t)
{
    core->counts.failed++;
    leave(core, t, TRANSFER_OVER);
    transfer_over(core, t);
}

/* With one part the request has failed: the others end, too, and it is told once. */
void transfer_end(struct relay_core *core, struct transfer *t, enum ts_reason reason, const char *text)
{
    const struct ts_rid rid = t->rid;
    transfer_report(core, rid, t, reason, text);
    send_failed(core, t->pool, rid, reason);
    end_one(core, t);
    while ((t = transfer_find(core, rid))) {
        tell_abort(core, t, reason);
        end_one(core, t);
    }
}

static void verified(struct relay_core *core, struct transfer *t)
{
    core->counts.done++;
    t->link->done++;
    probe_measured(core, t->link);
    if (transfer_find(core, t->rid) == t && !t->sibling) /* the last part */
        transfer_report(core, t->rid, t, TS_REASON_NONE, "");
    leave(core, t, TRANSFER_RETAINED);
    t->pool = NULL;
    ts_free(t->pieces);
    t->pieces = NULL;
    t->piece_count = t->piece_head = t->piece_capacity = 0;
    if (t->begin.parts.count == 0)
        copy_keep(core, t);
    else /* what no other worker could take alone */
        transfer_over(core, t);
}

void transfer_again(struct relay_core *core, struct transfer *t, const struct ts_msg_refeed *m)
{
    struct ts_msg_kv_begin *b = &t->begin;
    b->rid = t->rid = m->rid;
    b->endpoint = ts_str_of(ts_arena_printf(&t->arena, "%.*s", (int)m->endpoint.count, m->endpoint.data));
    b->decode_incarnation = m->decode_incarnation;
    t->opened = t->granted = t->ended = false;
    t->resumes = 0;
    t->there = 0;
    t->bytes_sent = t->window = t->in_flight = t->sent_once = t->credited = 0;
    t->chunk_sent = 0;
    for (size_t i = 0; i < t->chunk_count; i++) {
        t->chunks[i].tries = 0;
        t->chunks[i].credited = false;
    }
    enter(core, t);
    set_state(core, t, TRANSFER_OPENING);
}

void transfer_abort(struct relay_core *core, struct transfer *t, enum ts_reason reason, const char *text)
{
    tell_abort(core, t, reason);
    transfer_end(core, t, reason, text);
}

static const char *begin_fault(const struct pool *pool, const struct ts_msg_kv_begin *m)
{
    if (!pool->usable)
        return "the worker's KV pool is not mapped";
    if (m->token_count == 0 || m->blocks.count != ts_kv_blocks_for(m->token_count) ||
        m->generations.count != m->blocks.count)
        return "the blocks do not cover the tokens";
    for (uint32_t i = 0; i < m->blocks.count; i++) {
        if (m->blocks.data[i] >= pool->layout.kv_blocks)
            return "a block lies outside of the pool";
    }
    struct ts_kv_part parts[TS_KV_PARTS_MAX];
    const char *fault = parts_fault(m);
    if (fault)
        return fault;
    if (parts_plan(pool, m, parts) == 0)
        return "nobody is to get what the pool holds";
    /* Simulated pools count several heads as one, of any size: mapping refuses that of real ones. */
    uint32_t dim = pool->layout.head_dim < TS_CODEC_DIM_MAX ? pool->layout.head_dim : TS_CODEC_DIM_MAX;
    if (ts_codec_check(&m->codec, dim, NULL) != TS_OK)
        return "the relay does not know the codec";
    return NULL;
}

/* One of `parts` transfers of the request. */
static void begin(struct relay_core *core, struct pool *pool, const struct ts_msg *m,
                  const struct ts_kv_part *part, uint32_t parts)
{
    struct transfer *t = ts_xcalloc(1, sizeof *t);
    struct ts_msg copy = {.kind = TS_MSG_KV_BEGIN};
    ts_arena_init(&t->arena);
    ts_schema_copy(&ts_msg_schema, &copy, m, &t->arena);
    t->begin = copy.kv_begin;
    t->begin.endpoint = (struct ts_str){ts_arena_copy(&t->arena, part->endpoint.data, part->endpoint.count),
                                        part->endpoint.count};
    t->begin.decode_incarnation = part->decode_incarnation;
    t->rid = t->begin.rid;
    t->parts = parts;
    t->senders = part->senders ? part->senders : 1;
    t->pool = pool;
    t->pool_id = pool->id;
    t->layout = pool->layout;
    t->layout.layer_begin = part->layer_begin;
    t->layout.layer_end = part->layer_end;
    t->layout.head_begin = part->head_begin;
    t->layout.head_end = part->head_end;
    uint32_t layers = t->layout.layer_end - t->layout.layer_begin;
    t->digests = ts_xcalloc((size_t)layers * (t->layout.head_end - t->layout.head_begin), sizeof *t->digests);
    t->ready = ts_xcalloc(layers, sizeof *t->ready);
    t->cut = ts_xcalloc(layers, sizeof *t->cut);
    enter(core, t);
    core->state_counts[TRANSFER_OPENING]++;
    list_opening(core, t);
}

void transfer_begin(struct relay_core *core, struct pool *pool, const struct ts_msg *m)
{
    struct ts_rid rid = m->kv_begin.rid;
    struct ts_kv_part parts[TS_KV_PARTS_MAX];
    const char *fault = begin_fault(pool, &m->kv_begin);
    if (transfer_find(core, rid))
        return;
    if (fault || core->draining) {
        enum ts_reason reason = fault ? TS_REASON_KV_MISMATCH : TS_REASON_DRAINING;
        transfer_report(core, rid, NULL, reason, fault ? fault : "");
        send_failed(core, pool, rid, reason);
        send_freed(core, pool, rid);
        return;
    }
    uint32_t count = parts_plan(pool, &m->kv_begin, parts);
    for (uint32_t i = 0; i < count; i++)
        begin(core, pool, m, &parts[i], count);
}

static struct transfer *of_pool(const struct relay_core *core, const struct pool *pool, struct ts_rid rid)
{
    struct transfer *t = transfer_find(core, rid);
    return t && t->pool == pool ? t : NULL;
}

/* In order, in whole blocks but for the last. */
static bool ready_fits(const struct transfer *t, uint32_t layer, const struct ts_ready_item *item)
{
    uint64_t end = (uint64_t)item->token_begin + item->token_count;
    return item->token_count > 0 && item->token_begin == t->ready[layer - t->layout.layer_begin] &&
           end <= t->begin.token_count && (end % TS_KV_BLOCK_TOKENS == 0 || end == t->begin.token_count);
}

/* In whole spans. The end of the last layer is what prefill waits for in the end: in small pieces, so that
 * one is encoded while the other is on its way. */
static uint32_t piece_tokens(const struct relay_core *core, const struct transfer *t, uint32_t layer,
                             uint32_t end)
{
    uint32_t span = ts_codec_span(&t->begin.codec), most = core->settings.chunk_tokens_max;
    if (layer == t->layout.layer_end - 1 && end == t->begin.token_count && most > LAST_PIECE_TOKENS)
        most = LAST_PIECE_TOKENS;
    return most > span ? most / span * span : span;
}

/* Cut where the codec's spans end: what does not fill one waits for the next tokens, or for the last. */
static void add_ready(struct relay_core *core, struct transfer *t, uint32_t layer, uint32_t tokens)
{
    uint32_t span = ts_codec_span(&t->begin.codec), row = layer - t->layout.layer_begin;
    uint32_t end = t->ready[row] += tokens;
    if (end < t->begin.token_count)
        end = end / span * span;
    uint32_t most = piece_tokens(core, t, layer, end);
    while (t->cut[row] < end) {
        uint32_t left = end - t->cut[row], n = left < most ? left : most;
        ts_array_reserve((void **)&t->pieces, &t->piece_capacity, t->piece_count + 1, sizeof *t->pieces);
        t->pieces[t->piece_count++] = (struct piece){layer, t->cut[row], n};
        t->cut[row] += n;
    }
    encode_queue(core, t);
}

/* To each part that has that layer. False: the request is over with that. */
static bool layer_ready(struct relay_core *core, const struct pool *pool, struct transfer *t, uint32_t layer,
                        const struct ts_ready_item *item)
{
    bool fits = layer >= pool->layout.layer_begin && layer < pool->layout.layer_end;
    for (struct transfer *part = t; part && fits; part = part->sibling) {
        if (layer < part->layout.layer_begin || layer >= part->layout.layer_end)
            continue;
        fits = ready_fits(part, layer, item);
        if (fits)
            add_ready(core, part, layer, item->token_count);
    }
    if (!fits)
        transfer_abort(core, t, TS_REASON_KV_MISMATCH,
                       "the worker announced KV outside of its transfer, or out of order");
    return fits;
}

void transfer_ready(struct relay_core *core, struct pool *pool, const struct ts_msg_kv_ready *m)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        const struct ts_ready_item *item = &m->items.data[i];
        struct transfer *t = of_pool(core, pool, item->rid);
        for (uint32_t layer = m->layer_begin; t && layer < m->layer_end; layer++) {
            if (!layer_ready(core, pool, t, layer, item))
                break;
        }
    }
}

static void seal(struct relay_core *core, struct transfer *t, const struct ts_msg *m)
{
    struct ts_msg copy = {.kind = TS_MSG_KV_SEAL};
    if (t->sealed)
        return;
    ts_schema_copy(&ts_msg_schema, &copy, m, &t->arena);
    t->seal = copy.kv_seal;
    t->sealed = true;
    transfer_maybe_freed(core, t);
    encode_send(core, t);
}

void transfer_seal(struct relay_core *core, struct pool *pool, const struct ts_msg *m)
{
    for (struct transfer *t = of_pool(core, pool, m->kv_seal.rid); t; t = t->sibling)
        seal(core, t, m);
}

void transfer_released(struct relay_core *core, struct pool *pool, const struct ts_msg_release *m)
{
    struct transfer *t = transfer_find(core, m->rid);
    bool over = pool && m->reason == TS_REASON_FINISHED; /* what the worker had to do */
    if (t && over &&
        parts_ended(t)) /* the router heard sooner than we that decode has it: KvDone is on its way */
        return;
    if (t)
        transfer_abort(core, t, over || m->reason == TS_REASON_NONE ? TS_REASON_CANCELLED : m->reason,
                       "released");
    else if (!parts_still_read(core, m->rid))
        send_freed(core, pool, m->rid); /* of one that ended before; the worker may not have heard */
    if (!pool)                          /* the router's word; a worker only knows of the transfer */
        copy_released(core, m->rid);
}

static void open_transfer(struct relay_core *core, struct transfer *t)
{
    const struct ts_msg_pool *p = &t->layout;
    struct ts_action_send *s = relay_send_link(core, t->link, TS_MSG_KV_OPEN);
    if (!s)
        return;
    s->msg.kv_open = (struct ts_msg_kv_open){.rid = t->rid,
                                             .fingerprint = p->fingerprint,
                                             .decode_incarnation = t->begin.decode_incarnation,
                                             .codec = t->begin.codec,
                                             .layer_begin = p->layer_begin,
                                             .layer_end = p->layer_end,
                                             .layers = p->layers,
                                             .head_begin = p->head_begin,
                                             .head_end = p->head_end,
                                             .kv_heads = p->kv_heads,
                                             .head_dim = p->head_dim,
                                             .kv_dtype = p->kv_dtype,
                                             .block_tokens = TS_KV_BLOCK_TOKENS,
                                             .token_count = t->begin.token_count,
                                             .chain = t->begin.chain,
                                             .resume = t->granted,
                                             .senders = t->senders > 1 ? t->senders : 0};
    t->opened = true;
    set_state(core, t, TRANSFER_WAIT_GRANT);
}

static struct transfer *of_link(const struct relay_core *core, const struct link *link, struct ts_rid rid)
{
    struct transfer *t = transfer_find(core, rid);
    while (t && t->link != link)
        t = t->sibling;
    return t;
}

void transfer_grant(struct relay_core *core, struct link *link, const struct ts_msg_kv_grant *m)
{
    struct transfer *t = of_link(core, link, m->rid);
    if (!t || t->state != TRANSFER_WAIT_GRANT)
        return;
    if (m->token_begin > t->begin.token_count || m->token_begin % ts_codec_span(&t->begin.codec) != 0) {
        transfer_abort(core, t, TS_REASON_KV_MISMATCH,
                       "what decode has does not end where the codec's spans do");
        return;
    }
    t->there = m->token_begin;
    t->window = m->credit_bytes;
    resume_granted(core, t, m->have);
    set_state(core, t, TRANSFER_STREAMING);
    encode_send(core, t);
}

void transfer_credit(struct relay_core *core, struct link *link, const struct ts_msg_kv_credit *m)
{
    struct transfer *t = of_link(core, link, m->rid);
    if (!t)
        return;
    encode_credit(core, t, m->bytes, m->chunk);
}

void transfer_done(struct relay_core *core, struct link *link, struct ts_rid rid)
{
    struct transfer *t = of_link(core, link, rid);
    if (!t || (t->state != TRANSFER_FLUSHING && !resume_done(t)))
        return;
    if (t->in_flight > 0) {
        core->counts.credits_missing++;
        ts_actions_log(core->out, TS_LOG_WARN, "event=credit_missing request=%llu attempt=%u bytes=%llu",
                       (unsigned long long)rid.request, rid.attempt, (unsigned long long)t->in_flight);
    }
    verified(core, t);
}

void transfer_nack(struct relay_core *core, struct link *link, const struct ts_msg_kv_nack *m)
{
    struct transfer *t = of_link(core, link, m->rid);
    if (!t)
        return;
    if (m->chunk != WHOLE_TRANSFER) {
        if (!encode_resend(core, t, m->chunk))
            transfer_abort(core, t, TS_REASON_KV_CORRUPT, "a chunk arrived damaged too often");
        return;
    }
    if (m->reason != TS_REASON_NO_ASSIGN || t->state != TRANSFER_WAIT_GRANT || t->granted) {
        enum ts_reason reason = m->reason == TS_REASON_NO_ASSIGN ? TS_REASON_PEER_LOST : m->reason;
        transfer_end(core, t, reason == TS_REASON_NONE ? TS_REASON_INTERNAL : reason,
                     ts_arena_printf(&core->out->arena, "%.*s", (int)m->text.count,
                                     m->text.count ? m->text.data : ""));
        return;
    }
    t->open_at = core->now + t->backoff; /* the Assign is on its way */
    t->backoff = t->backoff * 2 < BACKOFF_MAX ? t->backoff * 2 : BACKOFF_MAX;
    set_state(core, t, TRANSFER_OPENING);
}

void transfer_aborted(struct relay_core *core, struct link *link, const struct ts_msg_kv_abort *m)
{
    struct transfer *t = of_link(core, link, m->rid);
    if (t)
        transfer_end(core, t, m->reason == TS_REASON_NONE ? TS_REASON_CANCELLED : m->reason,
                     "aborted by decode");
}

void transfer_link_up(struct relay_core *core, struct link *link)
{
    for (struct transfer *t = core->opening.head, *next; t; t = next) {
        next = t->near[LIST_OPENING].next;
        if (t->link == link)
            open_transfer(core, t);
    }
}

void transfer_wait_open(struct relay_core *core, struct transfer *t)
{
    t->open_at = core->now;
    t->open_until = core->now + core->settings.open_retry_ms * TS_MS;
    t->backoff = BACKOFF_MIN;
    set_state(core, t, TRANSFER_OPENING);
}

/* Those of the pool that are not encoded to the last; `gone`: and nobody is there any more who would hear of
 * the others. */
static void end_unencoded(struct relay_core *core, struct pool *pool, bool gone, enum ts_reason reason,
                          const char *text)
{
    for (struct transfer *t = core->live.head, *next; t; t = next) {
        bool encoded = true;
        next = t->near[LIST_ALL].next;
        if (t->pool != pool)
            continue;
        for (struct transfer *part = transfer_find(core, t->rid); part; part = part->sibling) {
            part->pool = gone ? NULL : pool;
            if (!part->sealed || part->tiles_encoded < encode_tiles(part))
                encoded = false;
        }
        if (encoded)
            continue;
        transfer_abort(core, t, reason, text);
        next = t->parts > 1 ? core->live.head : next; /* the next one may have ended with it */
    }
}

void transfer_pool_lost(struct relay_core *core, struct pool *pool)
{
    for (struct transfer *t = core->over.head; t; t = t->near[LIST_ALL].next)
        t->pool = t->pool == pool ? NULL : t->pool;
    end_unencoded(core, pool, true, TS_REASON_PEER_LOST, "the session with the prefill worker was lost");
}

void transfer_pool_failed(struct relay_core *core, struct pool *pool)
{
    end_unencoded(core, pool, false, TS_REASON_ENGINE, "the relay cannot read the worker's KV pool any more");
}

void transfer_tick(struct relay_core *core)
{
    if (core->opening_due > core->now)
        return;
    for (struct transfer *t = core->opening.head, *next; t; t = next) {
        next = t->near[LIST_OPENING].next;
        if (t->open_until <= core->now && t->granted)
            transfer_abort(core, t, TS_REASON_PEER_LOST,
                           "the session with the decode worker was lost and did not come back in time");
        else if (t->open_until <= core->now)
            transfer_abort(core, t, TS_REASON_KV_TIMEOUT,
                           "the decode worker could not be reached or did not know the attempt in time");
        else if (t->link->session.up && t->open_at <= core->now)
            open_transfer(core, t);
        if (t->state == TRANSFER_OVER && t->parts > 1) /* the next one has ended with it */
            next = core->opening.head;
    }
    core->opening_due = TS_TIME_NEVER;
    for (const struct transfer *t = core->opening.head; t; t = t->near[LIST_OPENING].next) {
        ts_time due = opening_due(t);
        core->opening_due = due < core->opening_due ? due : core->opening_due;
    }
}

struct ts_load transfer_load(const struct relay_core *core)
{
    const uint32_t *n = core->state_counts;
    return (struct ts_load){.waiting = n[TRANSFER_OPENING] + n[TRANSFER_WAIT_GRANT],
                            .running = n[TRANSFER_STREAMING] + n[TRANSFER_FLUSHING] + n[TRANSFER_OVER],
                            .encoded_bytes = core->held_bytes + core->retained_bytes,
                            .retained_bytes = core->retained_bytes};
}
