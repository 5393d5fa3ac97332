/*
 * What is encoded, and what may be sent: encoding starts as soon as a layer is ready and does not wait for
 * the grant; sending follows the credit, in order.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/relay/relay_impl.h"

#define CHUNK_TRIES_MAX 3

uint64_t encode_tiles(const struct transfer *t)
{
    return (uint64_t)(t->layout.layer_end - t->layout.layer_begin) * ts_kv_blocks_for(t->begin.token_count);
}

void encode_queue(struct relay_core *core, struct transfer *t)
{
    struct list *list = t->piece_head == t->piece_count  ? NULL
                        : t->state == TRANSFER_STREAMING ? &core->flowing
                                                         : &core->waiting;
    if (list == t->pieces_in)
        return;
    if (t->pieces_in)
        list_remove(t->pieces_in, LIST_PIECES, t);
    if (list)
        list_add(list, LIST_PIECES, t);
    t->pieces_in = list;
}

/* Cut where that begins which decode does not have. */
static struct piece next_piece(struct transfer *t)
{
    struct piece *p = &t->pieces[t->piece_head], first = *p;
    if (p->token_begin >= t->there || p->token_begin + p->token_count <= t->there) {
        t->piece_head++;
        return first;
    }
    first.token_count = t->there - p->token_begin;
    p->token_begin += first.token_count;
    p->token_count -= first.token_count;
    return first;
}

/* The worker's session is up: with it go its transfers that are not encoded. */
static void ask_worker(struct relay_core *core, struct encode *job)
{
    const struct transfer *t = job->transfer;
    struct ts_action_send *s = relay_send_pool(core, t->pool, TS_MSG_KV_ENCODE);
    TS_ASSERT(s);
    job->by = t->pool;
    s->msg.kv_encode =
        (struct ts_msg_kv_encode){.rid = t->rid,
                                  .job = job->job,
                                  .codec = ts_codec_for_layer(&t->begin.codec, job->piece.layer),
                                  .layer = job->piece.layer,
                                  .head_begin = t->layout.head_begin,
                                  .head_count = t->layout.head_end - t->layout.head_begin,
                                  .token_begin = job->piece.token_begin,
                                  .token_count = job->piece.token_count};
}

static void start(struct relay_core *core, struct transfer *t)
{
    struct encode *job = ts_xcalloc(1, sizeof *job);
    *job = (struct encode){.job = core->next_job++, .transfer = t, .piece = next_piece(t)};
    ts_map_put_u64(core->encodes, job->job, job);
    t->encodes++;
    encode_queue(core, t);
    if (t->pool->by_worker) {
        ask_worker(core, job);
        return;
    }
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_ENCODE);
    a->encode = (struct ts_action_encode){.job = job->job,
                                          .pool = t->pool_id,
                                          .codec = ts_codec_for_layer(&t->begin.codec, job->piece.layer),
                                          .blocks = t->begin.blocks,
                                          .generations = t->begin.generations,
                                          .layer = job->piece.layer,
                                          .head_begin = t->layout.head_begin,
                                          .head_count = t->layout.head_end - t->layout.head_begin,
                                          .token_begin = job->piece.token_begin,
                                          .token_count = job->piece.token_count};
}

/* The oldest that may be encoded. Those that flow always may: their chunks leave. */
static struct transfer *next_to_encode(const struct relay_core *core)
{
    bool room = core->held_bytes < core->settings.encoded_bytes_max;
    struct transfer *waiting = room ? core->waiting.head : NULL, *flowing = core->flowing.head;
    if (!waiting || !flowing)
        return waiting ? waiting : flowing;
    return waiting->age < flowing->age ? waiting : flowing;
}

void encode_more(struct relay_core *core)
{
    struct transfer *t;
    while (ts_map_count(core->encodes) < core->settings.encode_jobs_max && (t = next_to_encode(core)))
        start(core, t);
}

static void keep_chunk(struct relay_core *core, struct transfer *t, const struct encode *job,
                       const struct ts_event_encoded *m)
{
    uint32_t heads = t->layout.head_end - t->layout.head_begin;
    void *sums = t->sums;
    ts_array_reserve(&sums, &t->sum_capacity, (t->chunk_count + 1) * heads, sizeof *t->sums);
    t->sums = sums;
    for (uint32_t h = 0; h < heads; h++)
        t->sums[t->chunk_count * heads + h] = h < m->digests.count ? m->digests.data[h] : 0;
    ts_array_reserve((void **)&t->chunks, &t->chunk_capacity, t->chunk_count + 1, sizeof *t->chunks);
    t->chunks[t->chunk_count++] = (struct chunk){.bulk = m->bulk,
                                                 .bytes = m->bulk.slot ? m->bulk.bytes : m->declared_bytes,
                                                 .declared_bytes = m->declared_bytes,
                                                 .layer = job->piece.layer,
                                                 .token_begin = job->piece.token_begin,
                                                 .token_count = job->piece.token_count,
                                                 .crc32c = m->crc32c,
                                                 .escapes = m->escapes};
    t->held_bytes += t->chunks[t->chunk_count - 1].bytes;
    core->held_bytes += t->chunks[t->chunk_count - 1].bytes;
    copy_yield(core);
    t->tiles_encoded += ts_kv_blocks_for(job->piece.token_count);
}

/* Our device had no memory for it, or is lost: its worker has the same bytes. */
static bool worker_encodes_instead(struct relay_core *core, struct encode *job,
                                   const struct ts_event_encoded *m)
{
    struct transfer *t = job->transfer;
    if (job->by || !t->pool || (m->reason != TS_REASON_KV_NO_MEMORY && m->reason != TS_REASON_ENGINE))
        return false;
    if (m->reason == TS_REASON_ENGINE && t->pool->mapped)
        relay_link_pool_failed(core, t->pool, m->text);
    else if (m->reason == TS_REASON_KV_NO_MEMORY)
        ts_actions_log(core->out, TS_LOG_WARN, "event=piece_not_encoded request=%llu layer=%u text=\"%.*s\"",
                       (unsigned long long)t->rid.request, job->piece.layer, (int)m->text.count,
                       m->text.count ? m->text.data : "");
    if (!t->pool->layout.encodes || t->state == TRANSFER_OVER)
        return false;
    core->counts.encoded_instead++;
    ts_map_put_u64(core->encodes, job->job, job);
    ask_worker(core, job);
    return true;
}

static void take_back(struct relay_core *core, struct encode *job, const struct ts_event_encoded *m)
{
    struct transfer *t = job->transfer;
    if (m->reason != TS_REASON_NONE && worker_encodes_instead(core, job, m)) {
        ts_actions_drop(core->out, m->bulk);
        return;
    }
    t->encodes--;
    if (t->state == TRANSFER_OVER) {
        ts_actions_drop(core->out, m->bulk);
        transfer_settle(core, t);
    } else if (m->reason != TS_REASON_NONE) {
        ts_actions_drop(core->out, m->bulk);
        transfer_abort(core, t, m->reason, "the codec refused the KV");
    } else {
        keep_chunk(core, t, job, m);
        transfer_maybe_freed(core, t);
        encode_send(core, t);
    }
    ts_free(job);
}

void encode_done(struct relay_core *core, const struct ts_event_encoded *m)
{
    struct encode *job = ts_map_get_u64(core->encodes, m->job);
    if (!job || job->by) {
        ts_actions_drop(core->out, m->bulk);
        return;
    }
    ts_map_remove_u64(core->encodes, m->job);
    take_back(core, job, m);
}

void encode_came(struct relay_core *core, const struct pool *pool, const struct ts_msg_kv_encoded *m)
{
    struct encode *job = ts_map_get_u64(core->encodes, m->job);
    if (!job || job->by != pool) /* answered before, or never asked */
        return;
    const struct ts_event_encoded done = {.job = m->job,
                                          .reason = m->reason,
                                          .bulk = core->came,
                                          .declared_bytes = m->declared_bytes,
                                          .crc32c = m->crc32c,
                                          .escapes = m->escapes,
                                          .digests = m->digests};
    core->came = (struct ts_bulk){.slot = 0};
    ts_map_remove_u64(core->encodes, m->job);
    take_back(core, job, &done);
}

void encode_pool_lost(struct relay_core *core, const struct pool *pool)
{
    struct encode *job;
    for (size_t cursor = 0; (job = ts_map_next(core->encodes, &cursor, NULL, NULL));) {
        if (job->by != pool)
            continue;
        const struct ts_event_encoded lost = {.job = job->job, .reason = TS_REASON_PEER_LOST};
        ts_map_remove_u64(core->encodes, job->job);
        take_back(core, job, &lost);
        cursor = 0; /* the map has changed */
    }
}

/* `again`: over the session, whatever connection it took before. */
static void send_chunk(struct relay_core *core, struct transfer *t, size_t number, bool again)
{
    struct chunk *c = &t->chunks[number];
    struct ts_action_send *s = again ? lane_send_again(core, t->link, c) : lane_send_chunk(core, t->link, c);
    if (!s)
        return;
    s->bulk = c->bulk;
    s->msg.kv_chunk = (struct ts_msg_kv_chunk){.rid = t->rid,
                                               .number = number,
                                               .layer = c->layer,
                                               .head_begin = t->layout.head_begin,
                                               .head_count = t->layout.head_end - t->layout.head_begin,
                                               .token_begin = c->token_begin,
                                               .token_count = c->token_count,
                                               .escapes = c->escapes,
                                               .declared_bytes = c->declared_bytes,
                                               .crc32c = c->crc32c};
    c->tries++;
    t->bytes_sent += c->bytes;
}

/* Of what was sent: how many chunks, and their digests. */
static uint64_t sum_up(struct transfer *t)
{
    uint32_t layers = t->layout.layer_end - t->layout.layer_begin;
    uint32_t heads = t->layout.head_end - t->layout.head_begin;
    uint64_t sent = 0;
    memset(t->digests, 0, (size_t)layers * heads * sizeof *t->digests);
    for (size_t i = 0; i < t->chunk_count; i++) {
        const struct chunk *c = &t->chunks[i];
        if (chunk_there(t, c))
            continue;
        sent++;
        for (uint32_t h = 0; h < heads; h++)
            t->digests[(size_t)(c->layer - t->layout.layer_begin) * heads + h] ^= t->sums[i * heads + h];
    }
    return sent;
}

static void send_end(struct relay_core *core, struct transfer *t)
{
    const struct ts_msg_pool *p = &t->layout;
    uint32_t layers = p->layer_end - p->layer_begin, heads = p->head_end - p->head_begin;
    uint64_t sent = sum_up(t);
    struct ts_action_send *s = relay_send_link(core, t->link, TS_MSG_KV_END);
    if (s)
        s->msg.kv_end = (struct ts_msg_kv_end){.rid = t->rid,
                                               .layer_begin = p->layer_begin,
                                               .layer_end = p->layer_end,
                                               .head_begin = p->head_begin,
                                               .head_end = p->head_end,
                                               .chunks = sent,
                                               .bytes_raw = (uint64_t)2 * layers * heads * p->head_dim * 2 *
                                                            t->begin.token_count,
                                               .bytes_sent = t->bytes_sent,
                                               .digests = {t->digests, layers * heads}};
    s = relay_send_link(core, t->link, TS_MSG_KV_COMMIT);
    if (s)
        s->msg.kv_commit = (struct ts_msg_kv_commit){.rid = t->rid,
                                                     .senders = t->senders,
                                                     .prompt_ids = t->seal.prompt_ids,
                                                     .produced = t->seal.produced,
                                                     .first = t->seal.first};
    t->ended = true;
    transfer_flushing(core, t);
}

void encode_send(struct relay_core *core, struct transfer *t)
{
    if (t->state != TRANSFER_STREAMING)
        return;
    while (t->chunk_sent < t->chunk_count) {
        if (chunk_there(t, &t->chunks[t->chunk_sent])) {
            t->chunk_sent++;
            continue;
        }
        if (t->chunks[t->chunk_sent].credited) { /* decode has it from a session before */
            t->sent_once += t->chunks[t->chunk_sent].bytes;
            t->credited += t->chunks[t->chunk_sent++].bytes;
            continue;
        }
        uint64_t bytes = t->chunks[t->chunk_sent].bytes;
        uint64_t room = t->window > t->in_flight ? t->window - t->in_flight : 0;
        if (bytes > room && t->in_flight > 0) /* one that exceeds the window goes alone */
            return;
        t->in_flight += bytes;
        t->sent_once += bytes;
        relay_measure_sent(&t->link->measure, core->now, bytes);
        send_chunk(core, t, t->chunk_sent++, false);
    }
    if (t->sealed && t->tiles_encoded == encode_tiles(t))
        send_end(core, t);
}

/* Each chunk once, and never more than is under way, whatever the peer says. */
void encode_credit(struct relay_core *core, struct transfer *t, uint64_t bytes, uint64_t chunk)
{
    if (chunk > 0) {
        struct chunk *c = chunk <= t->chunk_sent ? &t->chunks[chunk - 1] : NULL;
        if (!c || c->credited || chunk_there(t, c))
            return;
        c->credited = true;
        lane_came(core, t->link, c);
        bytes = c->bytes;
    }
    uint64_t credited = bytes < t->in_flight ? bytes : t->in_flight;
    t->in_flight -= credited;
    t->credited += credited;
    relay_measure_credited(&t->link->measure, core->now, credited);
    probe_measured(core, t->link);
    t->resumes = 0;
    encode_send(core, t);
}

/* What was damaged is still under way: it was charged once, and decode credits it once, when it is whole. One
 * that decode had when the session was lost, and only now finds damaged, goes when its turn comes. */
bool encode_resend(struct relay_core *core, struct transfer *t, uint64_t number)
{
    struct chunk *c = number < t->chunk_count ? &t->chunks[number] : NULL;
    if (!c || chunk_there(t, c) || c->tries >= CHUNK_TRIES_MAX || (number >= t->chunk_sent && !c->credited))
        return false;
    core->counts.chunks_repeated++;
    t->link->repeats++;
    if (number < t->chunk_sent)
        send_chunk(core, t, (size_t)number, true);
    else
        c->credited = false;
    return true;
}

void encode_lane_lost(struct relay_core *core, struct transfer *t, uint32_t lane)
{
    for (size_t i = 0; i < t->chunk_sent; i++) {
        if (t->chunks[i].lane == lane && !t->chunks[i].credited && !chunk_there(t, &t->chunks[i]))
            send_chunk(core, t, i, true);
    }
}
