/*
 * KV between replicas that cut the model differently (parted.h), for all pairs of partitions. Every value
 * follows from its layer, head and token, so one that went elsewhere is seen. What decode workers would read
 * is put together and compared with what decode(encode()) gives; what they do not own must still be poison.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "parted.h"

#define FINGERPRINT 0x7357
#define STEPS_MAX   100000

struct partition {
    const char *name;
    uint32_t count;
    struct ts_shard_rect rects[PARTED_OWNERS];
};

static const struct partition partitions[] = {
    {"1x1", 1, {{0, 8, 0, 4}}},
    {"2x1", 2, {{0, 4, 0, 4}, {4, 8, 0, 4}}},
    {"1x2", 2, {{0, 8, 0, 2}, {0, 8, 2, 4}}},
    {"2x2", 4, {{0, 4, 0, 2}, {0, 4, 2, 4}, {4, 8, 0, 2}, {4, 8, 2, 4}}},
    {"layers 5+3", 2, {{0, 5, 0, 4}, {5, 8, 0, 4}}},
    {"heads 1+3", 2, {{0, 8, 0, 1}, {0, 8, 1, 4}}},
};

/* --- worlds ------------------------------------------------------------------------------------------- */

static struct relay_settings relay_settings_of(const struct parted_node *n)
{
    struct relay_settings s = relay_settings_defaults();
    s.id = n->name;
    s.routers[0] = "router";
    s.router_count = 1;
    s.heartbeat_ms = s.timeout_ms = s.idle_link_ms = PARTED_NEVER_MS;
    s.probe_every_ms = s.link_report_ms = 0;
    s.chunk_tokens_max = 32;
    s.kv_connections = 2;
    return s;
}

static struct worker_settings worker_settings_of(const struct parted_node *n)
{
    struct worker_settings s = worker_settings_defaults();
    s.id = n->name;
    s.routers[0] = "router";
    s.router_count = 1;
    s.relay_endpoint = "";
    s.heartbeat_ms = s.timeout_ms = PARTED_NEVER_MS;
    s.credit_bytes = 8192;
    s.profile = (struct ts_profile){.phases = TS_PHASE_DECODE,
                                    .phase = TS_PHASE_DECODE,
                                    .fingerprint = FINGERPRINT,
                                    .layers = PARTED_LAYERS,
                                    .kv_heads = PARTED_HEADS,
                                    .head_dim = parted_layout.head_dim,
                                    .vocab = 1000,
                                    .context_tokens = 1024,
                                    .kv_dtype = parted_layout.dtype,
                                    .layer_begin = n->rect.layer_begin,
                                    .layer_end = n->rect.layer_end,
                                    .head_begin = n->rect.head_begin,
                                    .head_end = n->rect.head_end};
    s.pool = (struct ts_msg_pool){.fingerprint = FINGERPRINT,
                                  .layer_begin = n->rect.layer_begin,
                                  .layer_end = n->rect.layer_end,
                                  .head_begin = n->rect.head_begin,
                                  .head_end = n->rect.head_end,
                                  .kv_blocks = parted_layout.blocks,
                                  .head_dim = parted_layout.head_dim,
                                  .kv_dtype = parted_layout.dtype,
                                  .layers = PARTED_LAYERS,
                                  .kv_heads = PARTED_HEADS};
    return s;
}

static uint64_t incarnation_of(int node)
{
    return 100 + (uint64_t)node;
}

static void start_node(struct parted_world *w, bool sends, struct ts_shard_rect rect)
{
    static const struct ts_event start = {.kind = TS_EVENT_START};
    int node = w->node_count++;
    struct parted_node *n = &w->nodes[node];
    *n = (struct parted_node){.sends = sends, .rect = rect, .next_peer = 1};
    snprintf(n->name, sizeof n->name, "%c%d", sends ? 'r' : 'd', node);
    ts_actions_init(&n->out);
    n->bulks = ts_bulk_table_new();
    n->pool = faulty_pool_new(parted_layout);
    if (sends) {
        struct relay_settings s = relay_settings_of(n);
        w->sender_count++;
        n->relay = relay_core_new(&s, incarnation_of(node));
    } else {
        struct worker_settings s = worker_settings_of(n);
        n->worker = worker_core_new(&s, incarnation_of(node));
    }
    parted_step(w, node, &start);
    if (sends) {
        const struct ts_msg msg = {.kind = TS_MSG_HELLO,
                                   .hello = {.role = TS_ROLE_WORKER, .id = ts_str_of("p")}};
        ts_session_init(&n->prefill, 200 + (uint64_t)node, PARTED_NEVER_MS * TS_MS, PARTED_NEVER_MS * TS_MS);
        parted_play(w, node, TS_CHANNEL_POOL, &n->prefill, &msg);
    }
}

static void assign(struct parted_world *w, int node)
{
    struct ts_msg msg = {.kind = TS_MSG_ASSIGN,
                         .assign = {.rid = w->rid,
                                    .role = TS_PHASE_DECODE,
                                    .prompt_kind = TS_PROMPT_TOKENS,
                                    .sampling = ts_sampling_defaults(),
                                    .codec = ts_str_of(w->request.codec_name),
                                    .fingerprint = FINGERPRINT}};
    parted_play(w, node, TS_CHANNEL_WORKER, &w->nodes[node].router, &msg);
}

/* All that a prefill worker says of the request: where it goes, what is ready, layer by layer, the end. */
static void prefill(struct parted_world *w, int node)
{
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 6, 7}, none[7], produced[] = {42};
    static const uint32_t ends[] = {48, PARTED_TOKENS};
    struct parted_node *n = &w->nodes[node];
    struct ts_kv_part parts[PARTED_OWNERS];
    uint32_t count = 0;
    for (int i = w->sender_count; i < w->node_count; i++) {
        const struct parted_node *to = &w->nodes[i];
        struct ts_kv_part *part = &parts[count++];
        *part = (struct ts_kv_part){.decode = ts_str_of(to->name),
                                    .endpoint = ts_str_of(to->name),
                                    .decode_incarnation = to->router.remote,
                                    .layer_begin = to->rect.layer_begin,
                                    .layer_end = to->rect.layer_end,
                                    .head_begin = to->rect.head_begin,
                                    .head_end = to->rect.head_end};
        for (int k = 0; k < w->sender_count; k++)
            part->senders += !ts_rect_empty(ts_rect_meet(w->nodes[k].rect, to->rect));
    }
    struct ts_msg msg = {.kind = TS_MSG_KV_BEGIN,
                         .kv_begin = {.rid = w->rid,
                                      .token_count = PARTED_TOKENS,
                                      .blocks = {blocks, TS_ARRAY_SIZE(blocks)},
                                      .generations = {none, TS_ARRAY_SIZE(none)},
                                      .parts = {parts, count}}};
    struct ts_codec codec;
    assert_int_equal(ts_codec_parse(w->request.codec_name, &codec, NULL), TS_OK);
    msg.kv_begin.codec = ts_codec_for_prompt(&codec, PARTED_TOKENS);
    parted_play(w, node, TS_CHANNEL_POOL, &n->prefill, &msg);
    for (uint32_t chunk = 0, begin = 0; chunk < TS_ARRAY_SIZE(ends); begin = ends[chunk++]) {
        const struct ts_ready_item item = {w->rid, begin, ends[chunk] - begin};
        for (uint32_t layer = n->rect.layer_begin; layer < n->rect.layer_end; layer++) {
            msg = (struct ts_msg){.kind = TS_MSG_KV_READY, .kv_ready = {layer, layer + 1, {&item, 1}}};
            parted_play(w, node, TS_CHANNEL_POOL, &n->prefill, &msg);
        }
    }
    msg = (struct ts_msg){.kind = TS_MSG_KV_SEAL,
                          .kv_seal = {.rid = w->rid,
                                      .prompt_ids = {w->request.prompt, PARTED_TOKENS},
                                      .produced = {produced, 1},
                                      .first = {.token = 42}}};
    parted_play(w, node, TS_CHANNEL_POOL, &n->prefill, &msg);
}

static void check_ends(struct parted_world *w)
{
    struct ts_error err = {.status = TS_OK};
    uint32_t identity[16];
    for (uint32_t i = 0; i < TS_ARRAY_SIZE(identity); i++)
        identity[i] = i;
    for (int i = 0; i < w->node_count; i++) {
        const struct parted_node *n = &w->nodes[i];
        if (w->trouble != TROUBLE_RELEASE && !n->verified)
            fail_msg("%s has not come to its end", n->name);
        if (!(n->sends ? relay_core_idle(n->relay) : worker_core_idle(n->worker)))
            fail_msg("%s: something is left", n->name);
        assert_int_equal(n->handles, n->sends ? (int64_t)relay_core_handles(n->relay) : 0);
        if (!n->sends)
            assert_int_equal(worker_core_blocks_used(n->worker), 0);
    }
    if (w->trouble == TROUBLE_RELEASE)
        return;
    struct ts_u32s blocks = {identity, ts_kv_blocks_for(PARTED_TOKENS)};
    if (!faulty_kv_right(&w->request, w->merged, blocks, &err))
        fail_msg("%s", err.text);
}

static void until_quiet(struct parted_world *w)
{
    uint64_t began = w->steps;
    while (parted_go_on(w)) {
        if (w->steps - began > STEPS_MAX)
            fail_msg("it does not come to an end");
    }
}

static void finish(struct parted_world *w)
{
    parted_fini_items(w);
    for (int i = 0; i < w->node_count; i++) {
        struct parted_node *n = &w->nodes[i];
        relay_core_destroy(&n->relay);
        worker_core_destroy(&n->worker);
        ts_bulk_table_destroy(&n->bulks);
        faulty_pool_free(n->pool);
        ts_actions_fini(&n->out);
    }
    faulty_pool_free(w->merged);
    faulty_request_fini(&w->request);
}

static char where[80];

struct counts {
    uint64_t worlds, damaged, resumed, repeated;
};

static void run_world(const struct partition *from, const struct partition *to, const char *codec,
                      enum parted_trouble trouble, uint64_t seed, struct counts *c)
{
    struct parted_world *w = ts_xcalloc(1, sizeof *w);
    ts_rng_init(&w->rng, seed);
    w->now = TS_S;
    w->next_way = 1u << 20;
    w->rid = (struct ts_rid){5, 1, 1};
    faulty_request_init(&w->request, seed + 1, PARTED_TOKENS, codec);
    w->merged = faulty_pool_new(parted_layout);
    for (uint32_t i = 0; i < from->count; i++)
        start_node(w, true, from->rects[i]);
    for (uint32_t i = 0; i < to->count; i++)
        start_node(w, false, to->rects[i]);
    until_quiet(w); /* all have joined */
    w->trouble = trouble;
    w->trouble_step = w->steps + 1 + ts_rng_below(&w->rng, 300);
    for (int i = w->sender_count; i < w->node_count; i++)
        assign(w, i);
    for (int i = 0; i < w->sender_count; i++)
        prefill(w, i);
    until_quiet(w);
    w->trouble_step = UINT64_MAX;
    parted_release(w);
    until_quiet(w);
    check_ends(w);
    c->worlds++;
    c->damaged += w->damaged;
    for (int i = 0; i < w->sender_count; i++) {
        c->resumed += relay_core_counts(w->nodes[i].relay).resumed;
        c->repeated += relay_core_counts(w->nodes[i].relay).chunks_repeated;
    }
    finish(w);
    ts_free(w);
}

static void run_all(enum parted_trouble trouble, struct counts *c)
{
    static const char *const codecs[] = {"none", "i4h"};
    size_t pairs = TS_ARRAY_SIZE(partitions) * TS_ARRAY_SIZE(partitions);
    for (size_t i = 0; i < pairs * TS_ARRAY_SIZE(codecs); i++) {
        const struct partition *from = &partitions[i % TS_ARRAY_SIZE(partitions)];
        const struct partition *to = &partitions[i / TS_ARRAY_SIZE(partitions) % TS_ARRAY_SIZE(partitions)];
        snprintf(where, sizeof where, "%s to %s, %s", from->name, to->name, codecs[i / pairs]);
        run_world(from, to, codecs[i / pairs], trouble, i * TROUBLES + trouble, c);
    }
    assert_int_equal(c->worlds, pairs * TS_ARRAY_SIZE(codecs));
    where[0] = '\0';
}

/* In which world a test has failed. */
static int tell(void **state)
{
    (void)state;
    if (where[0])
        print_message("%s\n", where);
    where[0] = '\0';
    return 0;
}

static void test_every_pair(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    run_all(TROUBLE_NONE, &c);
    assert_true(c.resumed == 0 && c.repeated == 0);
}

/* Bits flip on the way: what was damaged comes again. */
static void test_damaged(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    run_all(TROUBLE_DAMAGE, &c);
    assert_true(c.damaged > 100 && c.repeated == c.damaged);
}

/* Connections end: each transfer goes on in its next session. */
static void test_cut(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    run_all(TROUBLE_CUT, &c);
    assert_true(c.resumed > 100);
}

/* One of them drops the request at any time: nothing stays anywhere. */
static void test_released(void **state)
{
    struct counts c = {.worlds = 0};
    (void)state;
    run_all(TROUBLE_RELEASE, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_every_pair, tell),
        cmocka_unit_test_teardown(test_damaged, tell),
        cmocka_unit_test_teardown(test_cut, tell),
        cmocka_unit_test_teardown(test_released, tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
