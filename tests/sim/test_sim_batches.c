/*
 * Workers with several batches under way, with small budgets, small pools and deaths: prompts in many chunks,
 * several of them at a time, sequences spread over batches, preemption of what is in one. Every token that
 * arrives is the expected one, every request ends, and the invariants hold after each step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/cloud/cloud.h"

#define SEEDS      12
#define REQUESTS   60
#define PROMPT_MAX 300
#define OUTPUT_MAX 40

struct world {
    struct cloud *cloud;
    uint32_t running_max;    /* batches under way at one worker */
    uint32_t chunks_at_once; /* chunks of one prompt in batches under way */
    uint64_t preempted, colocated;
    struct under_way { /* of a worker, in the order of issue */
        struct cloud_node *node;
        struct ts_action_batch batches[4];
        uint32_t count;
    } workers[8];
    size_t worker_count;
};

static struct under_way *of_node(struct world *w, struct cloud_node *node)
{
    for (size_t i = 0; i < w->worker_count; i++) {
        if (w->workers[i].node == node)
            return &w->workers[i];
    }
    return NULL;
}

/* How many rows under way are of that sequence; *sampling: whether one of them draws. */
static uint32_t rows_of(const struct under_way *u, uint64_t tag, bool *sampling)
{
    uint32_t rows = 0;
    *sampling = false;
    for (uint32_t b = 0; b < u->count; b++) {
        for (uint32_t i = 0; i < u->batches[b].rows.count; i++) {
            const struct ts_batch_row *row = &u->batches[b].rows.data[i];
            rows += row->tag == tag;
            *sampling |= row->tag == tag && row->sample;
        }
    }
    return rows;
}

static void issued(struct world *w, struct under_way *u, const struct ts_action_batch *batch)
{
    bool sampling;
    assert_true(u->count < 4);
    for (uint32_t i = 0; i < batch->rows.count; i++) {
        uint32_t rows = 1 + rows_of(u, batch->rows.data[i].tag, &sampling);
        w->chunks_at_once = rows > w->chunks_at_once ? rows : w->chunks_at_once;
        if (sampling)
            cloud_fail(w->cloud, "a row depends on what an earlier one has yet to draw");
    }
    u->batches[u->count++] = *batch;
    w->running_max = u->count > w->running_max ? u->count : w->running_max;
}

static void stepped(void *context, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    struct world *w = context;
    struct under_way *u = of_node(w, node);
    struct ts_error err = {0};
    if (!u)
        return;
    if (!worker_core_check(cloud_node_core(node), &err))
        cloud_fail(w->cloud, "%s: %s", cloud_node_id(node), err.text);
    if (event->kind == TS_EVENT_START)
        u->count = 0;
    if (event->kind == TS_EVENT_BATCH_DONE) {
        assert_true(u->count > 0 && u->batches[0].batch == event->batch_done.batch);
        memmove(u->batches, u->batches + 1, --u->count * sizeof *u->batches);
    }
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_BATCH)
            issued(w, u, &a->batch);
        w->preempted += a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_ATTEMPT_FAILED &&
                        a->send.msg.attempt_failed.reason == TS_REASON_PREEMPTED;
        w->colocated += a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_REPORT &&
                        a->send.msg.report.role == TS_PHASE_BOTH;
    }
}

static void add_worker(struct world *w, const char *id, enum ts_phase phase, uint32_t blocks,
                       const char *relay)
{
    struct worker_settings s = worker_settings_defaults();
    s.id = id;
    s.batches_max = 2 + (uint32_t)w->worker_count % 3;
    s.max_rows = 8;
    s.max_batch_tokens = 48;
    s.grant_wait_ms = 3000;
    w->workers[w->worker_count++].node = cloud_add_worker(w->cloud, &s, phase, blocks, relay);
}

static void kill_node(void *context)
{
    cloud_kill(context);
}

static struct cloud_request request_of(uint64_t seed, uint32_t i, uint32_t *prompt)
{
    struct cloud_request r = {.at = (ts_time)(i * 7) * TS_MS,
                              .prompt = prompt,
                              .prompt_count = 1 + (uint32_t)((i * 37 + seed * 11) % PROMPT_MAX),
                              .sampling = ts_sampling_defaults(),
                              .cancel_at = TS_TIME_NEVER};
    for (uint32_t k = 0; k < r.prompt_count; k++)
        prompt[k] = (uint32_t)((seed * 31 + i * 17 + k * k) % 1000);
    r.sampling.seed = seed + i;
    r.sampling.max_tokens = 1 + (uint32_t)((i * 13 + seed) % OUTPUT_MAX);
    return r;
}

static void check_outcomes(struct world *w, const struct cloud_node *client, uint64_t seed)
{
    uint32_t prompt[PROMPT_MAX], expected[OUTPUT_MAX];
    for (uint32_t i = 0; i < REQUESTS; i++) {
        struct cloud_request r = request_of(seed, i, prompt);
        enum ts_finish finish;
        uint32_t count = cloud_expected(w->cloud, &r, expected, &finish);
        struct cloud_outcome o = cloud_client_outcome(client, i);
        assert_true(o.ended && o.token_count <= count);
        assert_memory_equal(o.tokens, expected, o.token_count * sizeof *expected);
        if (o.finish == TS_FINISH_STOP || o.finish == TS_FINISH_LENGTH) {
            assert_int_equal(o.finish, finish);
            assert_int_equal(o.token_count, count);
        } else {
            assert_int_equal(o.reason, TS_REASON_RETRIES);
        }
    }
}

static void play(struct world *w, uint64_t seed)
{
    struct cloud_settings settings = cloud_settings_defaults();
    struct router_settings router = router_settings_defaults();
    struct relay_settings relay = relay_settings_defaults();
    struct ts_error err = {0};
    uint32_t prompt[PROMPT_MAX];
    settings.seed = seed;
    settings.device_conf = TS_TEST_DATA "/devices/slow.json";
    settings.hooks.context = w;
    settings.hooks.stepped = stepped;
    relay.id = "relay";
    assert_int_equal(cloud_new(&settings, &w->cloud, &err), TS_OK);
    cloud_add_router(w->cloud, &router);
    cloud_add_relay(w->cloud, &relay);
    add_worker(w, "prefill0", TS_PHASE_PREFILL, 64, relay.id);
    add_worker(w, "prefill1", TS_PHASE_PREFILL, 200, relay.id);
    add_worker(w, "both", TS_PHASE_BOTH, 40, relay.id);
    add_worker(w, "decode0", TS_PHASE_DECODE, 40, NULL);
    add_worker(w, "decode1", TS_PHASE_DECODE, 100, NULL);
    struct cloud_node *client = cloud_add_client(w->cloud, "client");
    for (uint32_t i = 0; i < REQUESTS; i++) {
        struct cloud_request r = request_of(seed, i, prompt);
        cloud_client_ask(client, &r);
    }
    for (uint32_t i = 0; seed % 3 && i < w->worker_count; i++)
        cloud_at(w->cloud, (ts_time)(50 + (seed * 97 + i * 131) % 700) * TS_MS, kill_node,
                 w->workers[i].node);
    if (cloud_run(w->cloud, 120 * TS_S, &err) != TS_OK)
        fail_msg("seed %u: %s", (unsigned)seed, err.text);
    check_outcomes(w, client, seed);
    for (size_t i = 0; i < w->worker_count; i++)
        assert_int_equal(worker_core_blocks_used(cloud_node_core(w->workers[i].node)), 0);
    cloud_destroy(&w->cloud);
}

static void test_seeds(void **state)
{
    (void)state;
    uint32_t running = 0, chunks = 0;
    uint64_t preempted = 0, colocated = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world w = {.cloud = NULL};
        play(&w, seed);
        running = w.running_max > running ? w.running_max : running;
        chunks = w.chunks_at_once > chunks ? w.chunks_at_once : chunks;
        preempted += w.preempted;
        colocated += w.colocated;
    }
    print_message("batches at once %u, chunks at once %u, preempted %llu, colocated %llu\n", running, chunks,
                  (unsigned long long)preempted, (unsigned long long)colocated);
    assert_int_equal(running, 4);
    assert_true(chunks > 1 && preempted > 0 && colocated > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
