/* The prefill role of a worker, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define BEGIN(rid, blocks)  "pool:1 kv_begin rid=" rid " token_count=20 blocks=" blocks
#define FAILED(rid, reason) "worker:1 attempt_failed role=prefill rid=" rid " reason=" reason
/* Assigned and tokenised: the first batch computes all 20 tokens. */
#define STARTED                                                                                              \
    {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 prompt_kind=tokens #1\ndrop #1"},                   \
    {                                                                                                        \
        2, "tokenised job=1 ids=*20",                                                                        \
            BEGIN("1.1", "0,1") "\ntext_open tag=1\nbatch batch=1 rows=1:0:*20:0+1:1:0"                      \
    }
#define SEALED(at)                                                                                           \
    {                                                                                                        \
        at, "batch_done batch=1 samples=1:42",                                                               \
            "worker:1 report role=prefill rid=1.1 prompt_tokens=20\ntext_close tag=1\n"                      \
            "worker:1 output role=prefill rid=1.1 first_index=0 items=42 finish=none\n"                      \
            "pool:1 kv_seal rid=1.1 prompt_ids=*20 produced=42 first.token=42"                               \
    }

static struct core_fixture *begin(void)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    return worker_begin_joined(&settings);
}

static void test_life(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "sampling.repetition_penalty=1 #1",
         "tokenise job=1 prompt_kind=tokens #1\ndrop #1"},
        {1, "worker:1 " PREFILL("1.1") "#1", "drop #1"}, /* known: from before a Resync */
        {2, "tokenised job=1 ids=*20",
         "pool:1 kv_begin rid=1.1 decode=d0 endpoint=tcp://d0 decode_incarnation=9 " I8 " token_count=20 "
         "blocks=0,1 chain=*1\n"
         "text_open tag=1 sampling.max_tokens=50 produced=\n"
         "batch batch=1 report_layers=1 rows=1:0:*16:0+1:0:0"}, /* a chunk ends at a multiple of 16 */
        {3, "layer_done batch=1 layer=0", "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:16"},
        {3, "layer_done batch=1 layer=1", "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:0:16"},
        {4, "batch_done batch=1", "batch batch=2 report_layers=1 rows=1:16:17+18+19+20:0+1:1:0"},
        {5, "layer_done batch=1 layer=0", ""}, /* of a batch that is over */
        {5, "layer_done batch=2 layer=0", "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:16:4"},
        {6, "batch_done batch=2 samples=1:42",
         "worker:1 report role=prefill rid=1.1 prompt_tokens=20 queue_ns=1000000 run_ns=4000000 relay=r0\n"
         "text_close tag=1\n"
         "worker:1 output role=prefill rid=1.1 first_index=0 items=42 finish=none\n"
         "pool:1 kv_seal rid=1.1 prompt_ids=*20 produced=42 first.token=42"},
        {7, "pool:1 kv_freed rid=1.1", ""},
        {8, "worker:1 release rid=1.1 reason=finished", "pool:1 release rid=1.1"},
        {9, "pool:1 kv_freed rid=1.1", ""},
        {9, "worker:1 release rid=1.1 reason=finished", ""}, /* never seen: ignored */
        {9, "worker:1 release rid=5.5", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    settings.max_batch_tokens = 19;
    WORKER_CASE(worker_begin_joined(&settings), "life", steps);
}

/* With produced tokens nothing is drawn again; where token 0 ends the request no KV is handed over. */
static void test_no_seal_no_sample(void **state)
{
    (void)state;
    static const struct core_step produced[] = {
        {1, "worker:1 " PREFILL("1.2") "produced=5,6 #1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*20", BEGIN("1.2", "0,1") "\nbatch batch=1 rows=1:0:*20:0+1:0"},
        {3, "batch_done batch=1", "worker:1 report\npool:1 kv_seal rid=1.2 prompt_ids=*20 produced=5,6"},
        {4, "pool:1 kv_freed rid=1.2", ""},
        {5, "worker:1 release rid=1.2", "pool:1 release"},
    };
    static const struct core_step ends[] = {
        STARTED,
        {3, "batch_done batch=1 samples=1:42:stop",
         "worker:1 report\ntext_close tag=1\nworker:1 output first_index=0 items=42 finish=stop"},
        {4, "worker:1 release rid=1.1 reason=finished", "pool:1 release rid=1.1"},
        {5, "pool:1 kv_freed rid=1.1", ""},
    };
    WORKER_CASE(begin(), "produced", produced);
    struct core_fixture *f = begin();
    CORE_RUN(f, "token 0 ends", ends);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 0);
    worker_end(&f);
}

static void test_bad_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *tokenised, *failure;
    } cases[] = {
        {"tokenised job=1 reason=bad_request text=x", FAILED("1.1", "bad_request") " final=1 text=x"},
        {"tokenised job=1 ids=", FAILED("1.1", "bad_request") " final=1"},
        {"tokenised job=1 ids=*100", FAILED("1.1", "prompt_too_long") " final=1"},
        {"tokenised job=1 ids=*99",
         FAILED("1.1", "prompt_too_long") " final=0"}, /* 7 blocks, and the pool has 6 */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
        settings.pool.kv_blocks = 6;
        struct core_fixture *f = worker_begin(&settings);
        const struct core_step steps[] = {
            {0, "start", "*"},
            {0, "worker:1 welcome", "worker:1 resync"},
            {0, "pool:1 welcome", "pool:1 pool"},
            {0, "pool:1 pool_reply", ""},
            {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
            {2, cases[i].tokenised, cases[i].failure},
            {2, "tokenised job=1 ids=*2", ""},
        };
        CORE_RUN(f, cases[i].tokenised, steps);
        worker_end(&f);
    }
}

/* Each reason to refuse an Assign. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "term=3 plan=5 #1", "tokenise #1\ndrop #1"},
        {2, "worker:1 " PREFILL("2.1") "term=2 plan=9 #2",
         "worker:1 assign_refused rid=2.1 role=prefill reason=stale_plan\ndrop #2"},
        {2, "worker:1 " PREFILL("2.1") "term=3 plan=4 #2",
         "worker:1 assign_refused reason=stale_plan\ndrop #2"},
        {3, "worker:1 " DECODE("2.1") "term=3 plan=5",
         "worker:1 assign_refused rid=2.1 role=decode reason=wrong_phase"},
        {3, "worker:1 " DECODE("2.1") "role=both term=3 plan=5",
         "worker:1 assign_refused reason=wrong_phase"},
        {4, "worker:1 " PREFILL("2.1") "term=3 plan=5 fingerprint=8 #2",
         "worker:1 assign_refused reason=kv_mismatch\ndrop #2"},
        {5, "worker:1 " PREFILL("2.1") "term=3 plan=5 #2", "tokenise #2\ndrop #2"},
        {6, "worker:1 " PREFILL("3.1") "term=3 plan=5 #3", "worker:1 assign_refused reason=busy\ndrop #3"},
        {7, "drain", "worker:1 drain"},
        {7, "worker:1 " PREFILL("3.1") "term=3 plan=5 #3",
         "worker:1 assign_refused reason=draining\ndrop #3"},
        {8, "worker:1 release rid=1.1", ""},
        {8, "tokenised job=1 ids=*20", ""},
        {9, "worker:1 release rid=2.1", ""},
        {9, "tokenised job=2 ids=*20", "stop"}, /* drained: nothing is left */
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    settings.requests_max = 2;
    WORKER_CASE(worker_begin_joined(&settings), "refusals", steps);
}

/* A router that was replaced counts its plans from the start. */
static void test_new_router(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "term=3 plan=5 #1", "tokenise #1\ndrop #1"},
        {2, "worker:1 unreachable", "worker:1 hello"},
        {3, "as=555 worker:1 welcome", "worker:1 resync items=1.1:prefill:0"},
        {4, "worker:1 resync_reply items=1.1:prefill:cancel", ""},
        {4, "tokenised job=1 ids=*20", ""},
        {5, "worker:1 " PREFILL("1.7") "#1", "tokenise #1\ndrop #1"},
        {6, "worker:1 release rid=1.7", ""},
        {7, "tokenised job=2 ids=*20", ""},
    };
    WORKER_CASE(begin(), "new router", steps);
}

/* Blocks go by age of acceptance: a large prompt is not starved by small ones behind it. */
static void test_waits_in_order(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1000, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {1000, "worker:1 " PREFILL("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {1000, "worker:1 " PREFILL("3.1") "age_ms=900 #3", "tokenise job=3 #3\ndrop #3"}, /* the oldest */
        {1001, "tokenised job=1 ids=*80",
         "pool:1 kv_begin rid=1.1 blocks=0,1,2,3,4 generations=0,0,0,0,0\ntext_open\nbatch batch=1 "
         "rows=1:0:*64"},
        {1002, "tokenised job=2 ids=*20", "pool:1 kv_begin rid=2.1 blocks=5,6\ntext_open tag=2"},
        {1003, "tokenised job=3 ids=*40", ""}, /* one block is free */
        {1004, "worker:1 " PREFILL("4.1") "#4", "tokenise job=4 #4\ndrop #4"},
        {1005, "tokenised job=4 ids=*10", ""}, /* would fit, and waits */
        {1005, "worker:1 " PREFILL("5.1") "age_ms=990 #5", "tokenise job=5 #5\ndrop #5"}, /* older still */
        {1005, "tokenised job=5 ids=*10", "pool:1 kv_begin rid=5.1 blocks=7\ntext_open tag=5"},
        {1006, "worker:1 release rid=2.1", "text_close tag=2\npool:1 release rid=2.1"},
        {1006, "worker:1 release rid=5.1", "text_close tag=5\npool:1 release rid=5.1"},
        {1007, "pool:1 kv_freed rid=2.1", ""},
        {1007, "pool:1 kv_freed rid=5.1",
         "pool:1 kv_begin rid=3.1 blocks=5,6,7 generations=1,1,1\ntext_open tag=3"},
        {1008, "worker:1 release rid=3.1", "text_close tag=3\npool:1 release rid=3.1"},
        {1009, "pool:1 kv_freed rid=3.1", "pool:1 kv_begin rid=4.1 blocks=5 generations=2\ntext_open tag=4"},
        /* In the batch the shorter one, which is due earlier, first. */
        {1010, "batch_done batch=1", "batch batch=2 rows=4:0:*10,1:64:*16"},
        {1011, "worker:1 release rid=1.1", "text_close tag=1\npool:1 release rid=1.1"},
        {1011, "worker:1 release rid=4.1", "text_close tag=4\npool:1 release rid=4.1"},
        {1012, "batch_done batch=2 samples=1:5,4:6", ""},
        {1013, "pool:1 kv_freed rid=1.1", ""},
        {1013, "pool:1 kv_freed rid=4.1", ""},
    };
    WORKER_CASE(begin(), "waits", steps);
}

/* Released in every state: the blocks stay until the batch is over and the relay has let go. */
static void test_release(void **state)
{
    (void)state;
    static const struct core_step batch_first[] = {
        STARTED,
        {3, "worker:1 release rid=1.1", "text_close tag=1\npool:1 release rid=1.1"},
        {4, "layer_done batch=1 layer=0", ""},
        {5, "batch_done batch=1 samples=1:42", ""},
        {6, "worker:1 heartbeat", ""},
    };
    static const struct core_step relay_first[] = {
        STARTED,
        {3, "worker:1 release rid=1.1", "text_close tag=1\npool:1 release rid=1.1"},
        {4, "pool:1 kv_freed rid=1.1", ""},
    };
    static const struct core_step sealed[] = {
        STARTED,
        SEALED(3),
        {4, "worker:1 release rid=1.1", "pool:1 release rid=1.1"},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "batch first", batch_first);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 2);
    core_step_one(f, 7, "pool:1 kv_freed rid=1.1", "");
    worker_end(&f);
    f = begin();
    CORE_RUN(f, "relay first", relay_first);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 2);
    core_step_one(f, 7, "batch_done batch=1 samples=1:42", "");
    worker_end(&f);
    f = begin();
    CORE_RUN(f, "sealed", sealed);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 2);
    core_step_one(f, 7, "pool:1 kv_freed rid=1.1", "");
    worker_end(&f);
}

/* However the session with the relay ends, its transfers fail, and those of a sealed task too. */
static void test_relay_lost(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        const char *event, *after;
    } cases[] = {
        {10, "pool:1 unreachable", "pool:1 hello"},
        {10, "pool:1 reset reason=peer_lost", "pool:1 hello"},
        {10, "gap pool:1 kv_freed rid=9.9", "pool:1 hello"},
        {3000, "tick", "pool:1 hello"}, /* silence */
        {10, "pool:1 welcome", "pool:1 pool"},
    };
    for (size_t i = 0; i < 2 * TS_ARRAY_SIZE(cases); i++) {
        bool sealed = i % 2;
        char expected[300];
        struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
        settings.timeout_ms = 3000;
        struct core_fixture *f = worker_begin_joined(&settings);
        static const struct core_step started[] = {STARTED}, seal[] = {SEALED(3)};
        CORE_RUN(f, cases[i / 2].event, started);
        if (sealed)
            CORE_RUN(f, cases[i / 2].event, seal);
        core_step_one(f, cases[i / 2].at - 7, "worker:1 heartbeat", "");
        snprintf(expected, sizeof expected, FAILED("1.1", "peer_lost") "%s\n%s",
                 sealed ? "" : "\ntext_close tag=1", cases[i / 2].after);
        core_step_one(f, cases[i / 2].at, cases[i / 2].event, expected);
        /* Without a relay nothing is begun. */
        core_step_one(f, cases[i / 2].at, "worker:1 " PREFILL("2.1") "#2",
                      FAILED("2.1", "peer_lost") "\ndrop #2");
        if (!sealed)
            core_step_one(f, cases[i / 2].at, "batch_done batch=1 samples=1:42", "");
        worker_end(&f);
    }
}

static void test_failures(void **state)
{
    (void)state;
    static const struct core_step engine[] = {
        STARTED,
        {3, "batch_done batch=1 reason=engine",
         FAILED("1.1", "engine") " final=0\ntext_close tag=1\npool:1 release rid=1.1"},
        {4, "pool:1 kv_freed rid=1.1", ""},
    };
    static const struct core_step freed[] = {
        /* The relay gave up on it. */
        STARTED,
        {3, "pool:1 kv_freed rid=1.1",
         FAILED("1.1", "peer_lost") "\ntext_close tag=1\npool:1 release rid=1.1"},
        {4, "batch_done batch=1 samples=1:42", ""},
    };
    WORKER_CASE(begin(), "engine", engine);
    WORKER_CASE(begin(), "freed", freed);
}

static void test_refused_pool(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {0, "worker:1 welcome", "worker:1 resync"},
        {0, "pool:1 welcome", "pool:1 pool"},
        {1, "worker:1 " PREFILL("1.1") "#1", FAILED("1.1", "peer_lost") "\ndrop #1"},
        {2, "pool:1 pool_reply reason=unsupported text=no", ""},
        {3, "worker:1 " PREFILL("1.2") "#1", FAILED("1.2", "peer_lost") "\ndrop #1"},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    WORKER_CASE(worker_begin(&settings), "refused pool", steps);
}

/* What the request does not name is the model's, in the profile, or neutral. */
static void test_defaults_of_the_model(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "sampling.temperature=0.5 sampling.top_k=9 sampling.given=1 #1",
         "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*16",
         "pool:1 kv_begin rid=1.1\n"
         "text_open tag=1 sampling.temperature=0.5 sampling.top_k=3 sampling.top_p=1 sampling.min_p=0.25 "
         "sampling.repetition_penalty=1\n"
         "batch batch=1"},
        {3, "batch_done batch=1 samples=1:42", "*"},
        {4, "worker:1 release rid=1.1 reason=cancelled", "*"},
        {5, "pool:1 kv_freed rid=1.1", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    settings.profile.defaults =
        (struct ts_sampling){.temperature = 0.125f,
                             .top_k = 3,
                             .top_p = 0.5f,
                             .min_p = 0.25f,
                             .given = TS_SAMPLING_TEMPERATURE | TS_SAMPLING_TOP_K | TS_SAMPLING_MIN_P};
    WORKER_CASE(worker_begin_joined(&settings), "defaults", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_defaults_of_the_model),
        cmocka_unit_test(test_no_seal_no_sample),
        cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_new_router),
        cmocka_unit_test(test_waits_in_order),
        cmocka_unit_test(test_release),
        cmocka_unit_test(test_relay_lost),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_refused_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
