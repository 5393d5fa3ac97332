/*
 * Do the invariants bite? Each case breaks one thing in worlds that are otherwise without faults and demands
 * that the run says so. A case that leaves the run whole would mean that nobody watches that thing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SEEDS    10
#define ROWS_MAX 64
#define SPAN_MAX 128

struct breakage {
    bool (*before)(struct breakage *b, struct cloud_node *node, struct ts_action *action);
    const char *says[3]; /* one of these */
    bool once, done;
    /* What changed actions point to. */
    struct ts_batch_row rows[ROWS_MAX];
    uint32_t blocks[SPAN_MAX], generations[SPAN_MAX];
    struct ts_token_item items[SPAN_MAX];
};

static bool is_send(const struct ts_action *a, enum ts_msg_kind kind)
{
    return a->kind == TS_ACTION_SEND && a->send.msg.kind == kind;
}

static bool keep_handle(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    b->done = a->kind == TS_ACTION_DROP;
    return !b->done;
}

static bool drop_other(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    if (a->kind == TS_ACTION_DROP) {
        a->drop.bulk.generation++;
        b->done = true;
    }
    return true;
}

static bool change_token(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    struct ts_token_items *items = &a->send.msg.output.items;
    if (!is_send(a, TS_MSG_OUTPUT) || items->count == 0 || items->count > SPAN_MAX)
        return true;
    memcpy(b->items, items->data, items->count * sizeof *b->items);
    b->items[items->count - 1].token ^= 1;
    items->data = b->items;
    b->done = true;
    return true;
}

static bool repeat_token(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    if (is_send(a, TS_MSG_TOKENS) && a->send.msg.tokens.first_index > 1 &&
        a->send.msg.tokens.items.count == 1) {
        a->send.msg.tokens.items.data--; /* the item before: its index stays */
        b->done = true;
    }
    return true;
}

static bool end_again(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    (void)b;
    if (a->kind == TS_ACTION_TRACE)
        a->trace.trace.request_id = ts_str_of("r0");
    return true;
}

static bool lose_batch(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    (void)b;
    return a->kind != TS_ACTION_BATCH;
}

static bool lose_scatter(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    (void)b;
    return a->kind != TS_ACTION_SCATTER;
}

static bool lose_end(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    (void)b;
    return !(is_send(a, TS_MSG_END) || is_send(a, TS_MSG_HEARTBEAT)) || a->send.channel != TS_CHANNEL_CLIENT;
}

static bool keep_blocks(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    if (is_send(a, TS_MSG_KV_FREED)) {
        a->send.msg.kind = TS_MSG_HEARTBEAT; /* the numbers of the session stay whole */
        memset(&a->send.msg.heartbeat, 0, sizeof a->send.msg.heartbeat);
        b->done = true;
    }
    return true;
}

static void swap_blocks(struct breakage *b, struct ts_u32s *blocks, uint32_t *to)
{
    memcpy(to, blocks->data, blocks->count * sizeof *to);
    to[0] = blocks->data[1];
    to[1] = blocks->data[0];
    blocks->data = to;
    b->done = true;
}

static bool encode_elsewhere(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    if (a->kind == TS_ACTION_ENCODE && a->encode.blocks.count >= 2 && a->encode.blocks.count <= SPAN_MAX &&
        a->encode.token_begin == 0) {
        swap_blocks(b, &a->encode.blocks, b->blocks);
        swap_blocks(b, &a->encode.generations, b->generations);
    }
    return true;
}

static bool compute_elsewhere(struct breakage *b, struct cloud_node *node, struct ts_action *a)
{
    (void)node;
    struct ts_batch_rows *rows = &a->batch.rows;
    if (a->kind != TS_ACTION_BATCH || rows->count > ROWS_MAX || rows->data[0].position < 32 ||
        rows->data[0].blocks.count > SPAN_MAX)
        return true;
    memcpy(b->rows, rows->data, rows->count * sizeof *b->rows);
    swap_blocks(b, &b->rows[0].blocks, b->blocks);
    rows->data = b->rows;
    return true;
}

static bool hook(void *context, struct cloud_node *node, struct ts_action *action)
{
    struct breakage *b = context;
    return (b->once && b->done) || b->before(b, node, action);
}

/* What is broken may meet requests that nobody waits for any more: in one world in two something must be
 * said, and nothing else than this. */
static void expect(struct breakage *b)
{
    int told = 0, broken = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        b->done = false;
        struct sim_options options = {.seed = 2 * seed, .calm = true, .before = hook, .context = b};
        static struct sim_result r;
        sim_run(&options, &r);
        bool said = false;
        for (size_t i = 0; i < 3 && b->says[i]; i++)
            said = said || strstr(r.why, b->says[i]);
        if (!r.ok && !said)
            print_message("seed %d: %s\n", (int)(2 * seed), r.why);
        assert_true(r.ok || said);
        told += !r.ok;
        broken += !b->once || b->done;
    }
    assert_true(broken > 0 && 2 * told >= broken);
}

#define CASE(name, one_time, ...)                                                                            \
    static void test_##name(void **state)                                                                    \
    {                                                                                                        \
        struct breakage b = {name, {__VA_ARGS__}, .once = (one_time)};                                       \
        (void)state;                                                                                         \
        expect(&b);                                                                                          \
    }

CASE(keep_handle, true, "handles")
CASE(drop_other, true, "drops a handle it does not hold")
CASE(change_token, true, "wrong")
CASE(repeat_token, true, "wrong")
CASE(end_again, false, "names another request")
CASE(lose_batch, false, "no request advances", "no_worker", "retries")
CASE(lose_scatter, false, "no request advances", "no_worker", "retries")
CASE(lose_end, false, "ends twice", "up to", "not every request")
CASE(keep_blocks, false, "no request advances", "is not at rest", "no_worker")
CASE(encode_elsewhere, false, "reads KV that is not its own")
CASE(compute_elsewhere, true, "reads KV that is not its own")

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_handle),      cmocka_unit_test(test_drop_other),
        cmocka_unit_test(test_change_token),     cmocka_unit_test(test_repeat_token),
        cmocka_unit_test(test_end_again),        cmocka_unit_test(test_lose_batch),
        cmocka_unit_test(test_lose_scatter),     cmocka_unit_test(test_lose_end),
        cmocka_unit_test(test_keep_blocks),      cmocka_unit_test(test_encode_elsewhere),
        cmocka_unit_test(test_compute_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
