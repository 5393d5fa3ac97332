#include "parted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "proto/ts_wire.h"

#define FINGERPRINT 0x7357

const struct faulty_layout parted_layout = {PARTED_LAYERS, PARTED_HEADS, 32, 12, TS_DTYPE_BF16};

/* --- what is under way -------------------------------------------------------------------------------- */

static struct parted_item *add_item(struct parted_world *w, enum parted_what what, uint64_t way, int node)
{
    void *items = w->items;
    ts_array_reserve(&items, &w->item_capacity, w->item_count + 1, sizeof *w->items);
    w->items = items;
    struct parted_item *i = &w->items[w->item_count++];
    *i = (struct parted_item){
        .what = what, .way = way, .node = node, .arena = ts_xcalloc(1, sizeof *i->arena)};
    ts_arena_init(i->arena);
    return i;
}

static void free_item(struct parted_item *i)
{
    ts_frame_unref(&i->frame);
    ts_arena_fini(i->arena);
    ts_free(i->arena);
}

/* Through the bytes of the wire. */
static struct parted_item *send_item(struct parted_world *w, uint64_t way, int node, enum ts_channel channel,
                                     uint64_t peer, const struct ts_envelope *envelope,
                                     const struct ts_msg *msg)
{
    struct parted_item *i = add_item(w, A_MESSAGE, way, node);
    struct ts_event_message *m = &i->event.message;
    struct ts_error err = {.status = TS_OK};
    struct ts_bytes bytes;
    i->event.kind = TS_EVENT_MESSAGE;
    m->channel = channel;
    m->peer = peer;
    if (ts_wire_pack(envelope, msg, i->arena, &bytes) != TS_OK ||
        ts_wire_unpack(bytes.data, bytes.count, channel, i->arena, &m->envelope, &m->msg, NULL, &err) !=
            TS_OK)
        fail_msg("%s does not pass the wire: %s", ts_msg_name(msg->kind), err.text);
    m->wire_bytes = bytes.count;
    return i;
}

static void add_job(struct parted_world *w, int node, const struct ts_action *action, struct ts_bulk bulk)
{
    struct parted_item *i = add_item(w, A_JOB, w->next_way++, node);
    ts_schema_copy(&ts_action_schema, &i->action, action, i->arena);
    struct ts_frame *frame = bulk.slot ? ts_bulk_frame(w->nodes[node].bulks, bulk) : NULL;
    i->frame = frame ? ts_frame_ref(frame) : NULL;
}

/* --- who is played ------------------------------------------------------------------------------------ */

/* Ways of the played ones: one for each node and channel, below those of connections. */
static uint64_t way_of(int node, enum ts_channel channel)
{
    return (uint64_t)node * 100 + channel;
}

void parted_play(struct parted_world *w, int node, enum ts_channel channel, struct ts_session *session,
                 const struct ts_msg *msg)
{
    struct ts_envelope envelope = {.version = TS_PROTOCOL_VERSION};
    ts_session_stamp(session, w->now, &envelope);
    send_item(w, way_of(node, channel), node, channel, 1, &envelope, msg);
}

static enum ts_channel router_channel(const struct parted_node *n)
{
    return n->sends ? TS_CHANNEL_RELAY : TS_CHANNEL_WORKER;
}

void parted_release(struct parted_world *w)
{
    const struct ts_msg msg = {.kind = TS_MSG_RELEASE,
                               .release = {.rid = w->rid, .reason = TS_REASON_CANCELLED}};
    for (int i = 0; i < w->node_count; i++)
        parted_play(w, i, router_channel(&w->nodes[i]), &w->nodes[i].router, &msg);
}

static void router_hears(struct parted_world *w, int node, const struct ts_action_send *s)
{
    struct parted_node *n = &w->nodes[node];
    bool failed = false;
    if (s->msg.kind == TS_MSG_HELLO) {
        ts_session_init(&n->router, 5, PARTED_NEVER_MS * TS_MS, PARTED_NEVER_MS * TS_MS);
        ts_session_accept(&n->router, w->now, ++w->last_session, s->envelope.incarnation);
        const struct ts_msg msg = {.kind = TS_MSG_WELCOME,
                                   .welcome = {.id = ts_str_of("router"),
                                               .session = n->router.id,
                                               .heartbeat_ms = PARTED_NEVER_MS,
                                               .timeout_ms = PARTED_NEVER_MS}};
        parted_play(w, node, router_channel(n), &n->router, &msg);
    } else if (s->msg.kind == TS_MSG_TRANSFER) {
        assert_false(n->verified || n->failed); /* told once */
        failed = s->msg.transfer.reason != TS_REASON_NONE;
        uint64_t raw = 2 * ts_rect_area(n->rect) * parted_layout.head_dim * 2 * PARTED_TOKENS;
        if (!failed)
            assert_int_equal(s->msg.transfer.bytes_raw, raw);
        n->verified = !failed;
        n->failed = failed;
    } else if (s->msg.kind == TS_MSG_ATTEMPT_FAILED) {
        failed = true;
    }
    if (failed && w->trouble != TROUBLE_RELEASE)
        fail_msg("the transfer failed");
    if (failed)
        parted_release(w);
}

static void prefill_hears(struct parted_world *w, int node, const struct ts_action_send *s)
{
    struct parted_node *n = &w->nodes[node];
    if (s->msg.kind != TS_MSG_WELCOME)
        return;
    ts_session_welcomed(&n->prefill, w->now, &s->envelope, s->msg.welcome.session, PARTED_NEVER_MS,
                        PARTED_NEVER_MS);
    const struct ts_msg msg = {.kind = TS_MSG_POOL,
                               .pool = {.path = ts_str_of("p"),
                                        .bytes = n->pool->bytes,
                                        .fingerprint = FINGERPRINT,
                                        .layer_begin = n->rect.layer_begin,
                                        .layer_end = n->rect.layer_end,
                                        .head_begin = n->rect.head_begin,
                                        .head_end = n->rect.head_end,
                                        .kv_blocks = parted_layout.blocks,
                                        .head_dim = parted_layout.head_dim,
                                        .kv_dtype = parted_layout.dtype,
                                        .layers = PARTED_LAYERS,
                                        .kv_heads = PARTED_HEADS}};
    parted_play(w, node, TS_CHANNEL_POOL, &n->prefill, &msg);
}

/* --- connections -------------------------------------------------------------------------------------- */

static struct parted_conn *conn_of(struct parted_world *w, int node, uint64_t peer)
{
    for (size_t i = 0; i < w->conn_count; i++) {
        struct parted_conn *c = &w->conns[i];
        if (w->nodes[node].sends ? c->relay == node && c->relay_peer == peer
                                 : c->decode == node && c->decode_peer == peer)
            return c;
    }
    return NULL;
}

static void connect_to(struct parted_world *w, int node, const struct ts_action_connect *a)
{
    if (a->channel != TS_CHANNEL_KV)
        return;
    for (int i = 0; i < w->node_count; i++) {
        if (!ts_str_equal(a->endpoint, ts_str_of(w->nodes[i].name)))
            continue;
        bool first = true;
        for (size_t k = 0; k < w->conn_count; k++)
            first = first && !(w->conns[k].relay == node && w->conns[k].decode == i);
        assert_true(w->conn_count < PARTED_CONNS);
        w->conns[w->conn_count++] = (struct parted_conn){node, i, a->peer, w->nodes[i].next_peer++, first};
        return;
    }
    fail_msg("nobody is at that endpoint");
}

static void send_kv(struct parted_world *w, int node, const struct ts_action_send *s)
{
    struct parted_node *n = &w->nodes[node];
    const struct parted_conn *c = conn_of(w, node, s->peer);
    if (!c) /* cut, and not heard of */
        return;
    uint64_t way = 1000 + (uint64_t)(c - w->conns) * 2 + !n->sends;
    struct parted_item *i = send_item(w, way, n->sends ? c->decode : c->relay, TS_CHANNEL_KV,
                                      n->sends ? c->decode_peer : c->relay_peer, &s->envelope, &s->msg);
    const struct ts_frame *bulk = s->bulk.slot ? ts_bulk_frame(n->bulks, s->bulk) : NULL;
    assert_true(!s->bulk.slot == !bulk);
    if (!bulk)
        return;
    i->frame = ts_frame_new(bulk->bytes);
    memcpy(i->frame->data, bulk->data, bulk->bytes);
    i->event.message.wire_bytes += bulk->bytes;
    if (w->trouble == TROUBLE_DAMAGE && ts_rng_below(&w->rng, 20) == 0) {
        uint64_t bit = ts_rng_below(&w->rng, bulk->bytes * 8);
        i->frame->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        w->damaged++;
    }
}

/* --- cores -------------------------------------------------------------------------------------------- */

static void perform(struct parted_world *w, int node, const struct ts_action *a)
{
    struct parted_node *n = &w->nodes[node];
    switch (a->kind) {
    case TS_ACTION_SEND:
        if (a->send.channel == TS_CHANNEL_KV)
            send_kv(w, node, &a->send);
        else if (a->send.channel == TS_CHANNEL_POOL)
            prefill_hears(w, node, &a->send);
        else
            router_hears(w, node, &a->send);
        break;
    case TS_ACTION_CONNECT:
        connect_to(w, node, &a->connect);
        break;
    case TS_ACTION_DROP:
        n->handles--;
        assert_int_equal(ts_bulk_drop(n->bulks, a->drop.bulk), TS_OK);
        break;
    case TS_ACTION_MAP_POOL:
    case TS_ACTION_ENCODE:
    case TS_ACTION_BATCH:
        add_job(w, node, a, (struct ts_bulk){.slot = 0});
        break;
    case TS_ACTION_SCATTER:
        add_job(w, node, a, a->scatter.bulk);
        break;
    default:
        break;
    }
}

void parted_step(struct parted_world *w, int node, const struct ts_event *event)
{
    struct parted_node *n = &w->nodes[node];
    struct ts_error err = {.status = TS_OK};
    ts_actions_clear(&n->out);
    if (n->sends)
        relay_core_step(n->relay, w->now, event, &n->out);
    else
        worker_core_step(n->worker, w->now, event, &n->out);
    if (!(n->sends ? relay_core_check(n->relay, &err) : worker_core_check(n->worker, &err)))
        fail_msg("%s: %s", n->name, err.text);
    for (size_t i = 0; i < n->out.count; i++)
        perform(w, node, &n->out.items[i]);
}

/* --- pools -------------------------------------------------------------------------------------------- */

static bool owns(struct ts_shard_rect r, uint32_t layer, uint32_t head)
{
    return layer >= r.layer_begin && layer < r.layer_end && head >= r.head_begin && head < r.head_end;
}

static size_t tile_bytes(void)
{
    return (size_t)TS_KV_BLOCK_TOKENS * parted_layout.head_dim * sizeof(uint16_t);
}

/* What the prefill worker has computed: its own heads of that layer, into its blocks i + 1. */
static void compute(struct parted_world *w, struct parted_node *n, uint32_t layer, uint32_t token_begin,
                    uint32_t count)
{
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 6, 7};
    faulty_kv_compute(&w->request, n->pool, (struct ts_u32s){blocks, TS_ARRAY_SIZE(blocks)}, layer,
                      token_begin, count);
    for (uint32_t tile = 0; tile < parted_layout.blocks * 2 * PARTED_HEADS; tile++) {
        uint32_t head = tile % PARTED_HEADS, side = tile / PARTED_HEADS % 2, block = tile / PARTED_HEADS / 2;
        if (!owns(n->rect, layer, head))
            memset(faulty_pool_row(n->pool, layer, block, side, head, 0), FAULTY_POISON, tile_bytes());
    }
}

/* What a decode worker is about to read goes where it belongs; elsewhere it must have nothing. */
static void collect(struct parted_world *w, const struct parted_node *n, struct ts_u32s blocks)
{
    uint32_t prompt_blocks = ts_kv_blocks_for(PARTED_TOKENS);
    uint8_t poison[TS_KV_BLOCK_TOKENS * 32 * sizeof(uint16_t)];
    assert_int_equal(sizeof poison, tile_bytes());
    memset(poison, FAULTY_POISON, sizeof poison);
    assert_true(blocks.count >= prompt_blocks);
    for (uint32_t layer = 0; layer < PARTED_LAYERS; layer++) {
        for (uint32_t tile = 0; tile < 2 * PARTED_HEADS; tile++) {
            uint32_t head = tile % PARTED_HEADS, side = tile / PARTED_HEADS;
            for (uint32_t i = 0; i < parted_layout.blocks && !owns(n->rect, layer, head); i++)
                assert_memory_equal(faulty_pool_row(n->pool, layer, i, side, head, 0), poison, sizeof poison);
            for (uint32_t i = 0; i < prompt_blocks && owns(n->rect, layer, head); i++)
                memcpy(faulty_pool_row(w->merged, layer, i, side, head, 0),
                       faulty_pool_row(n->pool, layer, blocks.data[i], side, head, 0), tile_bytes());
        }
    }
}

/* --- the order of things ------------------------------------------------------------------------------ */

static void finish_job(struct parted_world *w, struct parted_item *i)
{
    struct parted_node *n = &w->nodes[i->node];
    struct ts_event event = {.kind = TS_EVENT_TICK};
    struct ts_frame *frame = NULL;
    if (i->action.kind == TS_ACTION_MAP_POOL) {
        event =
            (struct ts_event){.kind = TS_EVENT_POOL_MAPPED, .pool_mapped = {.pool = i->action.map_pool.pool}};
    } else if (i->action.kind == TS_ACTION_ENCODE) {
        faulty_encode(n->pool, &i->action.encode, &event, &frame, i->arena);
        event.encoded.bulk = ts_bulk_put(n->bulks, &frame);
        n->handles++;
    } else if (i->action.kind == TS_ACTION_SCATTER) {
        faulty_scatter(n->pool, &i->action.scatter, i->frame, &event, i->arena);
    } else {
        const struct ts_action_batch *a = &i->action.batch;
        struct ts_batch_sample *sample = ts_arena_zalloc(i->arena, sizeof *sample);
        assert_int_equal(a->rows.count, 1);
        collect(w, n, a->rows.data[0].blocks);
        n->verified = true;
        *sample = (struct ts_batch_sample){.tag = a->rows.data[0].tag, .finish = TS_FINISH_LENGTH};
        event = (struct ts_event){.kind = TS_EVENT_BATCH_DONE,
                                  .batch_done = {.batch = a->batch, .samples = {sample, 1}}};
    }
    parted_step(w, i->node, &event);
}

static void deliver(struct parted_world *w, struct parted_item *i)
{
    struct parted_node *n = &w->nodes[i->node];
    const struct ts_msg *m = &i->event.message.msg;
    if (i->frame) {
        i->event.message.bulk = ts_bulk_put(n->bulks, &i->frame);
        n->handles++;
    }
    for (uint32_t k = 0; m->kind == TS_MSG_KV_READY && k < m->kv_ready.items.count; k++) {
        const struct ts_ready_item *ready = &m->kv_ready.items.data[k];
        for (uint32_t layer = m->kv_ready.layer_begin; layer < m->kv_ready.layer_end; layer++)
            compute(w, n, layer, ready->token_begin, ready->token_count);
    }
    parted_step(w, i->node, &i->event);
}

static bool serve_one(struct parted_world *w)
{
    if (w->item_count == 0)
        return false;
    size_t at = ts_rng_below(&w->rng, w->item_count);
    for (size_t k = 0; k < at; k++) { /* the first one of its way */
        if (w->items[k].way == w->items[at].way)
            at = k;
    }
    struct parted_item i = w->items[at];
    memmove(w->items + at, w->items + at + 1, (--w->item_count - at) * sizeof *w->items);
    if (i.what == A_JOB)
        finish_job(w, &i);
    else
        deliver(w, &i);
    free_item(&i);
    return true;
}

/* A connection that carries a session ends with all that is under way on it; both ends hear of it. */
static void cut_one(struct parted_world *w)
{
    size_t at = w->conn_count ? ts_rng_below(&w->rng, w->conn_count) : 0;
    if (w->conn_count == 0 || !w->conns[at].first)
        return;
    struct parted_conn *c = &w->conns[at];
    uint64_t way = 1000 + (uint64_t)at * 2;
    for (size_t i = w->item_count; i-- > 0;) {
        if (w->items[i].way != way && w->items[i].way != way + 1)
            continue;
        free_item(&w->items[i]);
        memmove(w->items + i, w->items + i + 1, (--w->item_count - i) * sizeof *w->items);
    }
    const struct ts_event decode = {.kind = TS_EVENT_SEND_FAILED,
                                    .send_failed = {TS_CHANNEL_KV, c->decode_peer}},
                          relay = {.kind = TS_EVENT_SEND_FAILED,
                                   .send_failed = {TS_CHANNEL_KV, c->relay_peer}};
    int decode_node = c->decode, relay_node = c->relay;
    c->decode_peer = w->nodes[decode_node].next_peer++;
    parted_step(w, decode_node, &decode);
    parted_step(w, relay_node, &relay);
}

static void make_trouble(struct parted_world *w)
{
    if (w->trouble == TROUBLE_CUT && ts_rng_below(&w->rng, 60) == 0)
        cut_one(w);
    if (w->trouble != TROUBLE_RELEASE || w->steps != w->trouble_step)
        return;
    const struct ts_msg msg = {.kind = TS_MSG_RELEASE,
                               .release = {.rid = w->rid, .reason = TS_REASON_CANCELLED}};
    int node = (int)ts_rng_below(&w->rng, (uint64_t)w->node_count);
    parted_play(w, node, router_channel(&w->nodes[node]), &w->nodes[node].router, &msg);
}

static ts_time deadline_of(const struct parted_node *n)
{
    return n->sends ? relay_core_deadline(n->relay) : worker_core_deadline(n->worker);
}

/* False: nothing will happen in the next seconds. */
bool parted_go_on(struct parted_world *w)
{
    static const struct ts_event tick = {.kind = TS_EVENT_TICK};
    ts_time at = TS_TIME_NEVER;
    w->steps++;
    w->now += (ts_time)ts_rng_below(&w->rng, 100) * TS_US;
    make_trouble(w);
    for (int i = 0; i < w->node_count; i++) {
        ts_time due = deadline_of(&w->nodes[i]);
        if (due <= w->now)
            parted_step(w, i, &tick);
        at = due < at ? due : at;
    }
    if (serve_one(w))
        return true;
    if (at > w->now + 20 * TS_S)
        return false;
    w->now = at > w->now ? at : w->now;
    return true;
}

void parted_fini_items(struct parted_world *w)
{
    for (size_t i = 0; i < w->item_count; i++)
        free_item(&w->items[i]);
    ts_free(w->items);
}
