/* Processes, connections and the order of things. */
#include "faulty.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_crc32c.h"
#include "common/base/ts_mem.h"
#include "proto/ts_wire.h"
#include "services/relay/relay_impl.h"

#define FINGERPRINT    0x7357
#define DIALLED        0 /* frames to the acceptor */
#define ACCEPTED       1 /* frames to the dialler */
#define RESTART_MS_MAX 2500
#define STALL_MS_MAX   5000

struct faulty_frame {
    uint8_t *data, *bulk; /* bulk: NULL = no raw frame */
    size_t bytes, bulk_bytes;
};

struct faulty_queue {
    struct faulty_frame *frames;
    size_t count, capacity;
};

struct faulty_conn {
    enum ts_channel channel;
    int dialler, acceptor;
    uint64_t dial_peer, accept_peer; /* of their cores; accept_peer 0 = not connected */
    ts_time stalled_until;
    struct faulty_queue queues[2];
};

struct faulty_job { /* tokenising, mapping, encoding, scattering, a batch */
    int node;
    struct ts_action action; /* copied into: */
    struct ts_arena *arena;
    struct ts_frame *frame;
    uint32_t layer; /* of a batch: done so far */
};

void faulty_broken(struct faulty_world *w, const char *format, ...)
{
    char words[400];
    va_list args;
    if (w->fault.status != TS_OK)
        return;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    ts_error_set(&w->fault, TS_ECORRUPT, "%s", words);
}

/* --- frames ------------------------------------------------------------------------------------------- */

static void free_frame(struct faulty_frame *f)
{
    ts_free(f->data);
    ts_free(f->bulk);
    *f = (struct faulty_frame){NULL, NULL, 0, 0};
}

static void push(struct faulty_queue *q, struct faulty_frame frame, size_t before)
{
    ts_array_reserve((void **)&q->frames, &q->capacity, q->count + 1, sizeof *q->frames);
    size_t at = q->count > before ? q->count - before : 0;
    memmove(q->frames + at + 1, q->frames + at, (q->count - at) * sizeof *q->frames);
    q->frames[at] = frame;
    q->count++;
}

static struct faulty_frame copy_frame(const struct faulty_frame *f)
{
    struct faulty_frame copy = *f;
    copy.data = (uint8_t *)ts_xmemdup(f->data, f->bytes);
    copy.bulk = f->bulk ? (uint8_t *)ts_xmemdup(f->bulk, f->bulk_bytes) : NULL;
    return copy;
}

static void clear_queue(struct faulty_queue *q)
{
    for (size_t i = 0; i < q->count; i++)
        free_frame(&q->frames[i]);
    q->count = 0;
}

/* Both ends may learn of it when they send. */
static void cut(struct faulty_conn *c)
{
    clear_queue(&c->queues[DIALLED]);
    clear_queue(&c->queues[ACCEPTED]);
    c->accept_peer = 0;
}

static void flip(struct faulty_world *w, uint8_t *data, size_t bytes)
{
    uint64_t count = 1 + ts_rng_below(&w->rng, 3);
    for (uint64_t i = 0; i < count && bytes > 0; i++) {
        uint64_t bit = ts_rng_below(&w->rng, bytes * 8);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Damage that the checksum agrees with. */
static void forge(struct faulty_world *w, struct faulty_frame *f)
{
    struct ts_envelope envelope;
    struct ts_msg msg;
    struct ts_bytes bytes;
    struct ts_arena arena;
    ts_arena_init(&arena);
    flip(w, f->bulk, f->bulk_bytes);
    if (ts_wire_unpack(f->data, f->bytes, TS_CHANNEL_KV, &arena, &envelope, &msg, NULL, NULL) == TS_OK &&
        msg.kind == TS_MSG_KV_CHUNK) {
        msg.kv_chunk.crc32c = ts_crc32c(0, f->bulk, f->bulk_bytes);
        enum ts_status status = ts_wire_pack(&envelope, &msg, &arena, &bytes);
        TS_ASSERT(status == TS_OK);
        ts_free(f->data);
        f->data = (uint8_t *)ts_xmemdup(bytes.data, bytes.count);
        f->bytes = bytes.count;
    }
    ts_arena_fini(&arena);
}

static void truncate_frame(struct faulty_world *w, struct faulty_frame *f)
{
    uint64_t kind = f->bulk ? ts_rng_below(&w->rng, 3) : 0;
    if (kind == 0) {
        f->bytes = f->bytes ? ts_rng_below(&w->rng, f->bytes) : 0;
    } else if (kind == 1) {
        f->bulk_bytes = f->bulk_bytes ? ts_rng_below(&w->rng, f->bulk_bytes) : 0;
    } else {
        ts_free(f->bulk);
        f->bulk = NULL;
        f->bulk_bytes = 0;
    }
}

static enum faulty_fate draw_fate(struct faulty_world *w, const struct faulty_conn *c,
                                  const struct faulty_frame *frame)
{
    if (!w->storm || c->channel != TS_CHANNEL_KV)
        return FATES;
    uint64_t draw = ts_rng_below(&w->rng, 1000), sum = 0;
    for (enum faulty_fate fate = 0; fate < FATES; fate++) {
        sum += w->odds[fate];
        if (draw < sum)
            return frame->bulk_bytes == 0 && (fate == FATE_DAMAGE || fate == FATE_FORGE) ? FATES : fate;
    }
    return FATES;
}

/* Takes the frame. */
static void transmit(struct faulty_world *w, struct faulty_conn *c, int direction, struct faulty_frame frame)
{
    struct faulty_queue *q = &c->queues[direction];
    enum faulty_fate fate = draw_fate(w, c, &frame);
    size_t before = 0;
    if (fate < FATES)
        w->fates[fate]++;
    if (fate == FATE_FLIP)
        flip(w, frame.data, frame.bytes);
    else if (fate == FATE_DAMAGE)
        flip(w, frame.bulk, frame.bulk_bytes);
    else if (fate == FATE_FORGE)
        forge(w, &frame);
    else if (fate == FATE_TRUNCATE)
        truncate_frame(w, &frame);
    else if (fate == FATE_REPEAT)
        push(q, copy_frame(&frame), 0);
    else if (fate == FATE_SWAP)
        before = 1 + ts_rng_below(&w->rng, 3);
    else if (fate == FATE_STALL)
        c->stalled_until = w->now + (ts_time)ts_rng_below(&w->rng, STALL_MS_MAX) * TS_MS;
    else if (fate == FATE_CUT)
        cut(c);
    if (fate == FATE_LOSE || fate == FATE_CUT)
        free_frame(&frame);
    else
        push(q, frame, before);
}

/* --- connections -------------------------------------------------------------------------------------- */

static int node_at(const struct faulty_world *w, struct ts_str endpoint)
{
    for (int i = 0; i < FAULTY_NODES_MAX; i++) {
        size_t n = strlen(w->nodes[i].name);
        if (endpoint.count == n && memcmp(endpoint.data, w->nodes[i].name, n) == 0)
            return i;
    }
    return -1;
}

static struct faulty_conn *find_conn(struct faulty_world *w, int node, enum ts_channel channel, uint64_t peer,
                                     int *direction)
{
    for (size_t i = 0; i < w->conn_count; i++) {
        struct faulty_conn *c = &w->conns[i];
        if (c->channel == channel && c->dialler == node && c->dial_peer == peer) {
            *direction = DIALLED;
            return c;
        }
        if (c->channel == channel && c->acceptor == node && c->accept_peer == peer && peer) {
            *direction = ACCEPTED;
            return c;
        }
    }
    return NULL;
}

static void forget_conn(struct faulty_world *w, struct faulty_conn *c)
{
    cut(c);
    ts_free(c->queues[DIALLED].frames);
    ts_free(c->queues[ACCEPTED].frames);
    size_t at = (size_t)(c - w->conns);
    memmove(c, c + 1, (w->conn_count - at - 1) * sizeof *c);
    w->conn_count--;
}

static bool perform_connect(struct faulty_world *w, int node, const struct ts_action_connect *a)
{
    int acceptor = node_at(w, a->endpoint);
    if (acceptor < 0)
        return false;
    void *items = w->conns;
    ts_array_reserve(&items, &w->conn_capacity, w->conn_count + 1, sizeof *w->conns);
    w->conns = items;
    w->conns[w->conn_count++] = (struct faulty_conn){
        .channel = a->channel, .dialler = node, .acceptor = acceptor, .dial_peer = a->peer};
    return true;
}

static void perform_disconnect(struct faulty_world *w, int node, const struct ts_action_disconnect *a)
{
    int direction;
    struct faulty_conn *c = find_conn(w, node, a->channel, a->peer, &direction);
    if (c && direction == DIALLED)
        forget_conn(w, c);
    else if (c)
        cut(c);
}

/* False: the peer is known to be away. Who dials often does not know, and what it sends is lost. */
static bool perform_send(struct faulty_world *w, int node, const struct ts_action_send *a)
{
    struct faulty_node *n = &w->nodes[node];
    struct ts_arena arena;
    struct ts_bytes bytes;
    int direction;
    struct faulty_conn *c = find_conn(w, node, a->channel, a->peer, &direction);
    if (!c)
        return false;
    if (c->accept_peer == 0 && !w->nodes[c->acceptor].alive)
        return ts_rng_below(&w->rng, 2);
    if (c->accept_peer == 0)
        c->accept_peer = w->nodes[c->acceptor].next_peer++;
    ts_arena_init(&arena);
    if (ts_wire_pack(&a->envelope, &a->msg, &arena, &bytes) != TS_OK)
        faulty_broken(w, "%s cannot be packed", ts_msg_name(a->msg.kind));
    struct faulty_frame frame = {.data = (uint8_t *)ts_xmemdup(bytes.data, bytes.count),
                                 .bytes = bytes.count};
    const struct ts_frame *bulk = a->bulk.slot ? ts_bulk_frame(n->bulks, a->bulk) : NULL;
    if (a->bulk.slot && !bulk)
        faulty_broken(w, "%s names a handle that was dropped", ts_msg_name(a->msg.kind));
    if (bulk) {
        frame.bulk = (uint8_t *)ts_xmemdup(bulk->data, bulk->bytes);
        frame.bulk_bytes = bulk->bytes;
    }
    ts_arena_fini(&arena);
    transmit(w, c, direction, frame);
    return true;
}

/* --- cores -------------------------------------------------------------------------------------------- */

static void step_core(struct faulty_world *w, int node, const struct ts_event *event);

static void add_job(struct faulty_world *w, int node, const struct ts_action *action, struct ts_bulk bulk)
{
    void *items = w->jobs;
    ts_array_reserve(&items, &w->job_capacity, w->job_count + 1, sizeof *w->jobs);
    w->jobs = items;
    struct faulty_job *job = &w->jobs[w->job_count++];
    *job = (struct faulty_job){.node = node, .arena = ts_xcalloc(1, sizeof *job->arena)};
    ts_arena_init(job->arena);
    ts_schema_copy(&ts_action_schema, &job->action, action, job->arena);
    struct ts_frame *frame = bulk.slot ? ts_bulk_frame(w->nodes[node].bulks, bulk) : NULL;
    job->frame = frame ? ts_frame_ref(frame) : NULL;
}

static void free_blocks(struct faulty_node *n, struct ts_u32s blocks)
{
    for (uint32_t i = 0; i < blocks.count; i++)
        n->pool->generations[blocks.data[i]]++;
    faulty_pool_poison(n->pool, blocks);
}

/* The path of a pool is its number in the world. */
static void map_pool(struct faulty_world *w, int node, const struct ts_action *a)
{
    const struct ts_action_map_pool *m = &a->map_pool;
    TS_ASSERT(m->pool < FAULTY_POOLS_MAX && m->layout.path.count == 1);
    w->nodes[node].mapped[m->pool] = w->pools[m->layout.path.data[0] - 'A'];
    add_job(w, node, a, (struct ts_bulk){.slot = 0});
}

static bool perform(struct faulty_world *w, int node, const struct ts_action *a)
{
    struct faulty_node *n = &w->nodes[node];
    switch (a->kind) {
    case TS_ACTION_SEND:
        return perform_send(w, node, &a->send);
    case TS_ACTION_CONNECT:
        return perform_connect(w, node, &a->connect);
    case TS_ACTION_DISCONNECT:
        perform_disconnect(w, node, &a->disconnect);
        return true;
    case TS_ACTION_DROP:
        n->handles--;
        if (ts_bulk_drop(n->bulks, a->drop.bulk) != TS_OK)
            faulty_broken(w, "%s drops a handle twice", n->name);
        return true;
    case TS_ACTION_FREE_BLOCKS:
        free_blocks(n, a->free_blocks.blocks);
        return true;
    case TS_ACTION_TOKENISE:
        add_job(w, node, a, a->tokenise.bulk);
        return true;
    case TS_ACTION_SCATTER:
        add_job(w, node, a, a->scatter.bulk);
        return true;
    case TS_ACTION_MAP_POOL:
        map_pool(w, node, a);
        return true;
    case TS_ACTION_ENCODE:
    case TS_ACTION_BATCH:
        add_job(w, node, a, (struct ts_bulk){.slot = 0});
        return true;
    default: /* texts, logs, a mapping that goes: nothing to do here */
        return true;
    }
}

static void core_step(struct faulty_world *w, int node, const struct ts_event *event)
{
    struct faulty_node *n = &w->nodes[node];
    struct ts_error err = {0};
    ts_actions_clear(&n->out);
    if (n->role == FAULTY_ROUTER) {
        faulty_router_step(w, event, &n->out);
    } else if (n->role == FAULTY_RELAY) {
        relay_core_step(n->relay, w->now, event, &n->out);
        if (!relay_core_check(n->relay, &err))
            faulty_broken(w, "%s", err.text);
    } else {
        worker_core_step(n->worker, w->now, event, &n->out);
        if (!worker_core_check(n->worker, &err))
            faulty_broken(w, "%s", err.text);
    }
}

/* A send that fails is told after the actions of its step, as ts_service does. */
static void step_core(struct faulty_world *w, int node, const struct ts_event *event)
{
    struct ts_event_send_failed failed[16];
    size_t count = 0;
    struct faulty_node *n = &w->nodes[node];
    core_step(w, node, event);
    for (size_t i = 0; i < n->out.count; i++) {
        const struct ts_action *a = &n->out.items[i];
        if (perform(w, node, a) || a->kind != TS_ACTION_SEND || count == TS_ARRAY_SIZE(failed))
            continue;
        bool known = false;
        for (size_t k = 0; k < count; k++)
            known |= failed[k].channel == a->send.channel && failed[k].peer == a->send.peer;
        if (!known)
            failed[count++] = (struct ts_event_send_failed){a->send.channel, a->send.peer};
    }
    for (size_t i = 0; i < count; i++) {
        const struct ts_event told = {.kind = TS_EVENT_SEND_FAILED, .send_failed = failed[i]};
        step_core(w, node, &told);
    }
}

/* What the books have to know of what arrived. */
static void note_arrival(struct faulty_world *w, int node, const struct ts_msg *m)
{
    const struct faulty_node *n = &w->nodes[node];
    struct faulty_attempt *a;
    if (n->role == FAULTY_RELAY && (m->kind == TS_MSG_KV_BEGIN || m->kind == TS_MSG_REFEED)) {
        struct ts_rid rid = m->kind == TS_MSG_KV_BEGIN ? m->kv_begin.rid : m->refeed.rid;
        if ((a = faulty_attempt_find(w, rid)) && transfer_find(n->relay, rid)) {
            a->begun = true;
            a->relay = n->incarnation;
        }
    } else if (n->role == FAULTY_DECODE && m->kind == TS_MSG_ASSIGN) {
        if ((a = faulty_attempt_find(w, m->assign.rid)) &&
            faulty_worker_knows(n, m->assign.rid, TS_PHASE_DECODE)) {
            a->assigned = true;
            a->decode = n->incarnation;
        }
    }
}

static void deliver(struct faulty_world *w, struct faulty_conn *c, int direction)
{
    struct faulty_queue *q = &c->queues[direction];
    struct faulty_frame frame = q->frames[0];
    int node = direction == DIALLED ? c->acceptor : c->dialler;
    struct faulty_node *n = &w->nodes[node];
    struct ts_event event = {.kind = TS_EVENT_MESSAGE};
    struct ts_event_message *m = &event.message;
    struct ts_error err = {0};
    struct ts_arena arena;
    memmove(q->frames, q->frames + 1, --q->count * sizeof *q->frames);
    *m = (struct ts_event_message){.channel = c->channel,
                                   .peer = direction == DIALLED ? c->accept_peer : c->dial_peer};
    ts_arena_init(&arena);
    if (ts_wire_unpack(frame.data, frame.bytes, c->channel, &arena, &m->envelope, &m->msg, NULL, &err) ==
        TS_OK) {
        m->wire_bytes = frame.bytes + frame.bulk_bytes;
        if (frame.bulk) {
            struct ts_frame *bulk = ts_frame_new(frame.bulk_bytes);
            memcpy(bulk->data, frame.bulk, frame.bulk_bytes);
            m->bulk = ts_bulk_put(n->bulks, &bulk);
            n->handles++;
        }
        step_core(w, node, &event);
        note_arrival(w, node, &m->msg);
    }
    ts_arena_fini(&arena);
    free_frame(&frame);
}

/* --- jobs --------------------------------------------------------------------------------------------- */

static struct faulty_asked *asked_of(struct faulty_world *w, int node, uint64_t tag)
{
    struct faulty_attempt *a = faulty_attempt_find(w, faulty_worker_rid(&w->nodes[node], tag));
    return a ? &w->router.asked[a->request] : NULL;
}

/* What the engine of a decode worker is about to read. */
static void check_delivered(struct faulty_world *w, int node, const struct ts_batch_row *row)
{
    struct faulty_asked *asked = asked_of(w, node, row->tag);
    struct ts_error err = {0};
    if (!asked)
        return;
    struct faulty_request *r = &asked->request;
    w->checked++;
    if (!faulty_kv_right(r, w->nodes[node].pool, row->blocks, &err))
        faulty_broken(w, "%s", err.text);
    if (row->position != r->prompt_count || row->tokens.count != 1 ||
        row->tokens.data[0] != faulty_token(r, 0))
        faulty_broken(w, "the first token is another one, or at another place");
    if (row->prompt_ids.count != r->prompt_count ||
        memcmp(row->prompt_ids.data, r->prompt, r->prompt_count * sizeof *r->prompt) != 0)
        faulty_broken(w, "the prompt's tokens are others");
}

static void batch_begins(struct faulty_world *w, int node, const struct ts_action_batch *a)
{
    for (uint32_t i = 0; w->nodes[node].role == FAULTY_DECODE && i < a->rows.count; i++)
        check_delivered(w, node, &a->rows.data[i]);
}

/* A layer, or after the last one the end. True when it is over. */
static bool batch_goes_on(struct faulty_world *w, struct faulty_job *job, struct ts_event *event)
{
    const struct ts_action_batch *a = &job->action.batch;
    struct faulty_node *n = &w->nodes[job->node];
    uint32_t count = 0;
    if (n->role == FAULTY_PREFILL && job->layer < n->pool->layout.layers) {
        for (uint32_t i = 0; i < a->rows.count; i++) {
            const struct ts_batch_row *row = &a->rows.data[i];
            const struct faulty_asked *asked = asked_of(w, job->node, row->tag);
            if (asked)
                faulty_kv_compute(&asked->request, n->pool, row->blocks, job->layer, row->position,
                                  row->tokens.count);
        }
        *event = (struct ts_event){.kind = TS_EVENT_LAYER_DONE, .layer_done = {a->batch, job->layer++}};
        return false;
    }
    batch_begins(w, job->node, a);
    struct ts_batch_sample *samples = ts_arena_zalloc(job->arena, (a->rows.count + 1) * sizeof *samples);
    for (uint32_t i = 0; i < a->rows.count; i++) {
        const struct ts_batch_row *row = &a->rows.data[i];
        const struct faulty_asked *asked = asked_of(w, job->node, row->tag);
        if (!row->sample)
            continue;
        samples[count].tag = row->tag;
        samples[count].item.token = asked ? faulty_token(&asked->request, row->sample_index) : 0;
        samples[count++].finish = n->role == FAULTY_DECODE ? TS_FINISH_LENGTH : TS_FINISH_NONE;
    }
    *event = (struct ts_event){.kind = TS_EVENT_BATCH_DONE,
                               .batch_done = {.batch = a->batch, .samples = {samples, count}}};
    return true;
}

static void finish_job(struct faulty_world *w, size_t at)
{
    struct faulty_job job = w->jobs[at];
    struct faulty_node *n = &w->nodes[job.node];
    struct ts_event event = {.kind = TS_EVENT_TICK};
    struct ts_frame *frame = NULL;
    bool over = true;
    switch (job.action.kind) {
    case TS_ACTION_TOKENISE:
        event = (struct ts_event){.kind = TS_EVENT_TOKENISED, .tokenised = {.job = job.action.tokenise.job}};
        event.tokenised.ids = (struct ts_u32s){(const uint32_t *)(const void *)job.frame->data,
                                               (uint32_t)(job.frame->bytes / sizeof(uint32_t))};
        break;
    case TS_ACTION_MAP_POOL:
        event = (struct ts_event){.kind = TS_EVENT_POOL_MAPPED,
                                  .pool_mapped = {.pool = job.action.map_pool.pool}};
        break;
    case TS_ACTION_ENCODE:
        faulty_encode(n->mapped[job.action.encode.pool], &job.action.encode, &event, &frame, job.arena);
        break;
    case TS_ACTION_SCATTER:
        faulty_scatter(n->pool, &job.action.scatter, job.frame, &event, job.arena);
        break;
    default:
        over = batch_goes_on(w, &job, &event);
        w->jobs[at].layer = job.layer;
    }
    if (over)
        w->jobs[at] = w->jobs[--w->job_count];
    if (frame) {
        event.encoded.bulk = ts_bulk_put(n->bulks, &frame);
        n->handles++;
    }
    step_core(w, job.node, &event);
    if (over) {
        ts_frame_unref(&job.frame);
        ts_arena_fini(job.arena);
        ts_free(job.arena);
    }
}

/* --- processes ---------------------------------------------------------------------------------------- */

static struct worker_settings worker_settings_of(const struct faulty_world *w, int node)
{
    static const char *const paths[] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"};
    const struct faulty_node *n = &w->nodes[node];
    const struct faulty_layout *l = &w->layout;
    bool prefill = n->role == FAULTY_PREFILL;
    struct worker_settings s = worker_settings_defaults();
    TS_ASSERT(w->pool_count > 0 && w->pool_count <= TS_ARRAY_SIZE(paths));
    s.id = n->name;
    s.routers[0] = w->nodes[FAULTY_ROUTER].name;
    s.router_count = 1;
    s.relay_endpoint = prefill ? w->nodes[FAULTY_RELAY].name : "";
    s.max_rows = 4;
    s.max_batch_tokens = 48; /* prompts come in chunks */
    s.grant_wait_ms = 20000;
    s.credit_bytes = 16384;
    s.profile = (struct ts_profile){.phases = prefill ? TS_PHASE_PREFILL : TS_PHASE_DECODE,
                                    .phase = prefill ? TS_PHASE_PREFILL : TS_PHASE_DECODE,
                                    .fingerprint = FINGERPRINT,
                                    .layers = l->layers,
                                    .kv_heads = l->heads,
                                    .head_dim = l->head_dim,
                                    .vocab = 1000,
                                    .context_tokens = 1024,
                                    .kv_dtype = l->dtype,
                                    .layer_end = l->layers,
                                    .head_end = l->heads};
    s.pool = (struct ts_msg_pool){.path = ts_str_of(paths[w->pool_count - 1]),
                                  .bytes = n->pool->bytes,
                                  .fingerprint = FINGERPRINT,
                                  .layer_end = l->layers,
                                  .head_end = l->heads,
                                  .kv_blocks = l->blocks,
                                  .head_dim = l->head_dim,
                                  .kv_dtype = l->dtype,
                                  .layers = l->layers,
                                  .kv_heads = l->heads};
    return s;
}

static void start_node(struct faulty_world *w, int node)
{
    static const struct ts_event start = {.kind = TS_EVENT_START};
    struct faulty_node *n = &w->nodes[node];
    n->alive = true;
    n->incarnation = ts_rng_u64(&w->rng) | 1;
    n->bulks = ts_bulk_table_new();
    n->handles = 0;
    if (n->role == FAULTY_RELAY) {
        struct relay_settings s = relay_settings_defaults();
        s.id = n->name;
        s.routers[0] = w->nodes[FAULTY_ROUTER].name;
        s.router_count = 1;
        s.chunk_tokens_max = 32;
        s.kv_connections = 3;
        s.idle_link_ms = 2000;
        n->relay = relay_core_new(&s, n->incarnation);
    } else if (n->role != FAULTY_ROUTER) {
        void *items = w->pools;
        ts_array_reserve(&items, &w->pool_capacity, w->pool_count + 1, sizeof *w->pools);
        w->pools = items;
        n->pool = w->pools[w->pool_count++] = faulty_pool_new(w->layout);
        struct worker_settings s = worker_settings_of(w, node);
        n->worker = worker_core_new(&s, n->incarnation);
    }
    step_core(w, node, &start);
}

static void stop_node(struct faulty_world *w, int node)
{
    struct faulty_node *n = &w->nodes[node];
    for (size_t i = w->job_count; i-- > 0;) {
        if (w->jobs[i].node != node)
            continue;
        ts_frame_unref(&w->jobs[i].frame);
        ts_arena_fini(w->jobs[i].arena);
        ts_free(w->jobs[i].arena);
        w->jobs[i] = w->jobs[--w->job_count];
    }
    for (size_t i = w->conn_count; i-- > 0;) {
        if (w->conns[i].dialler == node)
            forget_conn(w, &w->conns[i]);
        else if (w->conns[i].acceptor == node)
            cut(&w->conns[i]);
    }
    if (n->relay)
        w->repeated += relay_core_counts(n->relay).chunks_repeated;
    if (n->worker)
        w->present += worker_core_counts(n->worker).prefix_hits;
    relay_core_destroy(&n->relay);
    worker_core_destroy(&n->worker);
    ts_bulk_table_destroy(&n->bulks);
    n->alive = false;
}

/* All it had is lost; what it had sent may still arrive where it is said so (its connections end). */
void faulty_kill(struct faulty_world *w, int node)
{
    struct faulty_node *n = &w->nodes[node];
    w->kills++;
    for (int i = 0; i < w->router.attempt_count; i++) {
        struct faulty_attempt *a = &w->router.attempts[i];
        a->relay = n->role == FAULTY_RELAY && a->relay == n->incarnation ? 0 : a->relay;
        a->decode = n->role == FAULTY_DECODE && a->decode == n->incarnation ? 0 : a->decode;
    }
    stop_node(w, node);
    n->back_at = w->now + (ts_time)ts_rng_below(&w->rng, RESTART_MS_MAX) * TS_MS;
    faulty_router_lost(w, node);
}

/* --- the order of things ------------------------------------------------------------------------------ */

static ts_time deadline_of(const struct faulty_world *w, int node)
{
    const struct faulty_node *n = &w->nodes[node];
    if (!n->alive)
        return n->back_at;
    return n->role == FAULTY_ROUTER  ? faulty_router_deadline(w)
           : n->role == FAULTY_RELAY ? relay_core_deadline(n->relay)
                                     : worker_core_deadline(n->worker);
}

static bool tick_due(struct faulty_world *w)
{
    static const struct ts_event tick = {.kind = TS_EVENT_TICK};
    for (int i = 0; i < FAULTY_NODES_MAX; i++) {
        if (deadline_of(w, i) > w->now)
            continue;
        if (w->nodes[i].alive)
            step_core(w, i, &tick);
        else
            start_node(w, i);
        return true;
    }
    return false;
}

static bool ready_conn(const struct faulty_world *w, size_t i)
{
    const struct faulty_conn *c = &w->conns[i / 2];
    return c->queues[i % 2].count > 0 && c->stalled_until <= w->now;
}

/* One of what could happen next. */
static bool serve_one(struct faulty_world *w)
{
    uint64_t ready = w->job_count;
    for (size_t i = 0; i < 2 * w->conn_count; i++)
        ready += ready_conn(w, i);
    if (ready == 0)
        return false;
    uint64_t draw = ts_rng_below(&w->rng, ready);
    if (draw < w->job_count) {
        finish_job(w, (size_t)draw);
        return true;
    }
    draw -= w->job_count;
    for (size_t i = 0; i < 2 * w->conn_count; i++) {
        if (ready_conn(w, i) && draw-- == 0) {
            deliver(w, &w->conns[i / 2], (int)(i % 2));
            return true;
        }
    }
    return false;
}

static bool wait_for_next(struct faulty_world *w)
{
    ts_time at = TS_TIME_NEVER;
    for (int i = 0; i < FAULTY_NODES_MAX; i++)
        at = deadline_of(w, i) < at ? deadline_of(w, i) : at;
    for (size_t i = 0; i < w->conn_count; i++) {
        const struct faulty_conn *c = &w->conns[i];
        if (c->queues[0].count + c->queues[1].count > 0 && c->stalled_until < at)
            at = c->stalled_until;
    }
    if (at == TS_TIME_NEVER)
        return false;
    w->now = at > w->now ? at : w->now;
    return true;
}

bool faulty_step(struct faulty_world *w)
{
    w->steps++;
    if (w->steps == w->kill_step && w->nodes[w->kill_node].alive)
        faulty_kill(w, w->kill_node);
    w->now += (ts_time)ts_rng_below(&w->rng, 200) * TS_US;
    bool moved = tick_due(w) || serve_one(w) || wait_for_next(w);
    return moved && w->fault.status == TS_OK;
}

void faulty_begin(struct faulty_world *w, uint64_t seed)
{
    static const char *const names[] = {"router", "relay", "prefill", "decode"};
    *w = (struct faulty_world){.seed = seed, .now = TS_S};
    ts_rng_init(&w->rng, seed);
    w->layout = (struct faulty_layout){.layers = 2, .heads = 2, .head_dim = 32, .blocks = FAULTY_BLOCKS};
    w->layout.head_dim <<= ts_rng_below(&w->rng, 2);
    if (ts_rng_below(&w->rng, 8) == 0)
        w->layout.blocks *= 3;
    w->layout.dtype = ts_rng_below(&w->rng, 2) ? TS_DTYPE_BF16 : TS_DTYPE_F16;
    w->router.incarnation = ts_rng_u64(&w->rng) | 1;
    for (int i = 0; i < FAULTY_NODES_MAX; i++) {
        w->nodes[i] = (struct faulty_node){.role = (enum faulty_role)i, .name = names[i], .next_peer = 1};
        ts_actions_init(&w->nodes[i].out);
    }
    for (int i = 0; i < FAULTY_NODES_MAX; i++)
        start_node(w, i);
}

void faulty_end(struct faulty_world *w)
{
    for (int i = 0; i < FAULTY_NODES_MAX; i++) {
        if (w->nodes[i].alive)
            stop_node(w, i);
        ts_actions_fini(&w->nodes[i].out);
    }
    for (size_t i = 0; i < w->pool_count; i++)
        faulty_pool_free(w->pools[i]);
    ts_free(w->pools);
    ts_free(w->conns);
    ts_free(w->jobs);
    faulty_router_fini(w);
}
