/* Both phases in one task (role both), as tables: no relay, no transfer, no second assignment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define FAILED(rid, reason) "worker:1 attempt_failed role=both rid=" rid " reason=" reason

/* Assigned and tokenised: the first batch computes all 20 tokens. */
#define STARTED                                                                                              \
    {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 prompt_kind=tokens #1\ndrop #1"},                      \
    {                                                                                                        \
        2, "tokenised job=1 ids=*20",                                                                        \
            "text_open tag=1 produced=\nbatch batch=1 report_layers=0 rows=1:0:*20:0+1:1:0"                  \
    }
#define READY                                                                                                \
    STARTED,                                                                                                 \
    {                                                                                                        \
        3, "batch_done batch=1 samples=1:42",                                                                \
            "worker:1 report role=both rid=1.1 prompt_tokens=20 queue_ns=1000000 run_ns=1000000 relay=\n"    \
            "worker:1 output role=both rid=1.1 first_index=0 items=42 finish=none\n"                         \
            "batch batch=2 rows=1:20:42:0+1:1:1"                                                             \
    }

static struct core_fixture *begin_with(uint32_t blocks)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.relay_endpoint = "";
    settings.pool.kv_blocks = blocks;
    return worker_begin_alone(&settings);
}

static struct core_fixture *begin(void)
{
    return begin_with(8);
}

static void test_life(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        READY,
        {4, "batch_done batch=2 samples=1:43",
         "worker:1 output role=both first_index=1 items=43 finish=none\nbatch batch=3 rows=1:21:43:0+1:1:2"},
        {5, "worker:1 " BOTH("1.1") "#1", "drop #1"}, /* known */
        {5, "kv:1 hello role=relay id=r0", "kv:1 welcome"},
        {5, "kv:1 " OPEN("1.1"), "kv:1 kv_nack rid=1.1 chunk=whole reason=no_assign"},
        {6, "batch_done batch=3 samples=1:44:stop",
         "worker:1 output role=both first_index=2 items=44 finish=stop\ntext_close tag=1"},
        {7, "worker:1 unreachable", "worker:1 hello"},
        {8, "worker:1 welcome", "worker:1 resync items=1.1:both:3"},
        {9, "worker:1 resync_reply items=1.1:both:resend:1",
         "worker:1 output role=both first_index=1 items=43,44 finish=stop"},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "life", steps);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 0);
    core_step_one(f, 10, "worker:1 release rid=1.1", "");
    worker_end(&f);
}

/* Token 0 may be the last. */
static void test_ends_at_once(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        STARTED,
        {3, "batch_done batch=1 samples=1:42:length",
         "worker:1 report role=both\nworker:1 output first_index=0 items=42 finish=length\ntext_close tag=1"},
        {4, "worker:1 release rid=1.1", ""},
    };
    WORKER_CASE(begin(), "ends at once", steps);
}

/* Produced tokens are not drawn again: they are computed after the prompt, and what follows them is drawn. */
static void test_produced(void **state)
{
    (void)state;
    static const struct core_step goes_on[] = {
        {1, "worker:1 " BOTH("1.2") "produced=42,43 sampling.repetition_penalty=2 sampling.given=16 #1",
         "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*20", "text_open tag=1 produced=42,43\nbatch batch=1 rows=1:0:*20:0+1:0"},
        {3, "batch_done batch=1", "worker:1 report role=both rid=1.2\nbatch batch=2 rows=1:20:42+43:0+1:1:2"},
        {4, "batch_done batch=2 samples=1:44",
         "worker:1 output first_index=2 items=44\nbatch batch=3 rows=1:22:44:0+1:1:3"},
        {5, "worker:1 unreachable", "worker:1 hello"},
        {6, "worker:1 welcome", "worker:1 resync items=1.2:both:3"},
        {6, "worker:1 resync_reply items=1.2:both:resend:0", "worker:1 output first_index=2 items=44"},
        {7, "worker:1 release rid=1.2", "text_close tag=1"},
        {8, "batch_done batch=3 samples=1:45", ""},
    };
    static const struct core_step complete[] = {
        {1, "worker:1 " BOTH("1.2") "produced=42,43 #1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*20", "text_open tag=1 produced=42,43\nbatch batch=1"},
        {3, "batch_done batch=1", "worker:1 report role=both\nbatch batch=2 rows=1:20:42+43:0+1:1:2"},
        {4, "batch_done batch=2 samples=1:99:stop:1",
         "worker:1 output first_index=2 items= finish=stop\ntext_close tag=1"},
        {5, "worker:1 release rid=1.2", ""},
    };
    WORKER_CASE(begin(), "goes on", goes_on);
    WORKER_CASE(begin(), "complete", complete);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        enum ts_phase phase;
        const char *event, *reason;
    } cases[] = {
        {TS_PHASE_PREFILL, "worker:1 " BOTH("1.1"), "wrong_phase"},
        {TS_PHASE_DECODE, "worker:1 " BOTH("1.1"), "wrong_phase"},
        {TS_PHASE_BOTH, "worker:1 " BOTH("1.1") "role=none", "wrong_phase"},
        {TS_PHASE_BOTH, "worker:1 " BOTH("1.1") "fingerprint=8", "kv_mismatch"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char refused[100];
        struct worker_settings settings = worker_test_settings(cases[i].phase);
        settings.relay_endpoint = "";
        struct core_fixture *f = worker_begin_alone(&settings);
        snprintf(refused, sizeof refused, "worker:1 assign_refused rid=1.1 reason=%s", cases[i].reason);
        core_step_one(f, 1, cases[i].event, refused);
        worker_end(&f);
    }
}

/* Prompts that lead nowhere; one block more than the prompt's is needed where it fills its last one. */
static void test_bad_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *tokenised, *failure;
    } cases[] = {
        {"tokenised job=1 reason=bad_request text=x", FAILED("1.1", "bad_request") " final=1"},
        {"tokenised job=1 ids=", FAILED("1.1", "bad_request") " final=1"},
        {"tokenised job=1 ids=*100", FAILED("1.1", "prompt_too_long") " final=1"},
        {"tokenised job=1 ids=*64", FAILED("1.1", "prompt_too_long") " final=0"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct core_fixture *f = begin_with(4);
        core_step_one(f, 1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1");
        core_step_one(f, 2, cases[i].tokenised, cases[i].failure);
        worker_end(&f);
    }
}

/* Released wherever it stands: the blocks wait for the batch alone. */
static void test_release(void **state)
{
    (void)state;
    static const struct core_step tokenising[] = {
        {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {2, "worker:1 release rid=1.1", ""},
        {3, "tokenised job=1 ids=*20", ""},
    };
    static const struct core_step prefilling[] = {
        STARTED,
        {3, "worker:1 release rid=1.1", "text_close tag=1"},
        {4, "batch_done batch=1 samples=1:42", ""},
    };
    static const struct core_step ready[] = {
        READY,
        {4, "worker:1 release rid=1.1", "text_close tag=1"},
        {5, "batch_done batch=2 samples=1:42", ""},
    };
    static const struct core_step failed[] = {
        STARTED,
        {3, "batch_done batch=1 reason=engine", FAILED("1.1", "engine") "\ntext_close tag=1"},
    };
    static const struct core_step drained[] = {
        STARTED,
        {3, "drain", "worker:1 drain"},
        {3, "worker:1 " BOTH("2.1") "#2",
         "worker:1 assign_refused rid=2.1 role=both reason=draining\ndrop #2"},
        {4, "batch_done batch=1 samples=1:42:stop",
         "worker:1 report\nworker:1 output finish=stop\ntext_close"},
        {5, "worker:1 release rid=1.1", "stop"},
    };
    WORKER_CASE(begin(), "tokenising", tokenising);
    WORKER_CASE(begin(), "prefilling", prefilling);
    WORKER_CASE(begin(), "ready", ready);
    WORKER_CASE(begin(), "failed", failed);
    WORKER_CASE(begin(), "drained", drained);
}

/* Beside tasks of one phase: the session with the relay is theirs, its end no matter of a colocated one. */
static void test_relay_lost(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {1, "worker:1 " PREFILL("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {2, "tokenised job=1 ids=*20", "text_open tag=1\nbatch batch=1 report_layers=0"},
        {2, "tokenised job=2 ids=*20", "pool:1 kv_begin rid=2.1 blocks=2,3\ntext_open tag=2"},
        {3, "pool:1 unreachable",
         "worker:1 attempt_failed role=prefill rid=2.1 reason=peer_lost\ntext_close tag=2\npool:1 hello"},
        {4, "batch_done batch=1 samples=1:42", "worker:1 report\nworker:1 output\nbatch batch=2"},
        {5, "worker:1 " BOTH("3.1") "#3", "tokenise job=3 #3\ndrop #3"},
        {5, "tokenised job=3 ids=*20", "text_open tag=3"},
        /* Decode rows first, then chunks. */
        {6, "batch_done batch=2 samples=1:43",
         "worker:1 output\nbatch batch=3 report_layers=0 rows=1:21:43,3:0:*20:2+3:1:0"},
        {7, "worker:1 release rid=1.1", "text_close tag=1"},
        {7, "worker:1 release rid=3.1", "text_close tag=3"},
        {8, "batch_done batch=3 samples=1:44,3:5", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    WORKER_CASE(worker_begin_joined(&settings), "relay lost", steps);
}

/* Out of blocks, the youngest gives way, also while its prompt is computed. */
static void test_preempted(void **state)
{
    (void)state;
    char event[60], actions[160];
    static const struct core_step steps[] = {
        {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {1, "worker:1 " BOTH("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {2, "tokenised job=1 ids=*31", "text_open tag=1\nbatch batch=1 rows=1:0:*31:0+1:1:0"},
        {2, "tokenised job=2 ids=*47", "text_open tag=2"},
        {3, "batch_done batch=1 samples=1:50",
         "worker:1 report\nworker:1 output\nbatch batch=2 rows=1:31:50,2:0:*16:2+3+4"},
        {4, "batch_done batch=2 samples=1:50",
         "worker:1 output\n" FAILED("2.1",
                                    "preempted") "\ntext_close tag=2\nbatch batch=3 rows=1:32:50:0+1+2"},
        {5, "worker:1 release rid=2.1", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.relay_endpoint = "";
    settings.pool.kv_blocks = 5;
    settings.max_batch_tokens = 32;
    struct core_fixture *f = worker_begin_alone(&settings);
    CORE_RUN(f, "preempted", steps);
    assert_int_equal(worker_core_counts(worker_of(f)).preempted, 1);
    for (int b = 3; b <= 50; b++) { /* alone, until the pool is full */
        snprintf(event, sizeof event, "batch_done batch=%d samples=1:50", b);
        snprintf(actions, sizeof actions, "worker:1 output\nbatch batch=%d rows=1:%d:50", b + 1, 30 + b);
        if (b == 50)
            snprintf(actions, sizeof actions,
                     "worker:1 output\n" FAILED("1.1", "preempted") "\ntext_close tag=1");
        core_step_one(f, 10 + b, event, actions);
    }
    worker_end(&f);
}

/* One that begins leaves a block for each that draws. */
static void test_leaves_room(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {1, "worker:1 " BOTH("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {1, "worker:1 " BOTH("3.1") "#3", "tokenise job=3 #3\ndrop #3"},
        {2, "tokenised job=1 ids=*16", "text_open tag=1\nbatch batch=1 rows=1:0:*16:0+1"},
        {3, "batch_done batch=1 samples=1:50",
         "worker:1 report\nworker:1 output\nbatch batch=2 rows=1:16:50"},
        {4, "tokenised job=2 ids=*40", ""}, /* all three that are free */
        {4, "tokenised job=3 ids=*4", ""},  /* behind it */
        {5, "worker:1 release rid=2.1", "text_open tag=3"},
        {6, "worker:1 release rid=3.1", "text_close tag=3"},
        {7, "worker:1 release rid=1.1", "text_close tag=1"},
        {8, "batch_done batch=2 samples=1:50", ""},
    };
    static const struct core_step alone[] = {
        {1, "worker:1 " BOTH("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*79", "text_open tag=1\nbatch batch=1"}, /* the whole pool */
        {3, "worker:1 release rid=1.1", "text_close tag=1"},
        {4, "batch_done batch=1", ""},
    };
    WORKER_CASE(begin_with(5), "leaves room", steps);
    WORKER_CASE(begin_with(5), "alone", alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),        cmocka_unit_test(test_ends_at_once),
        cmocka_unit_test(test_produced),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bad_prompts), cmocka_unit_test(test_release),
        cmocka_unit_test(test_relay_lost),  cmocka_unit_test(test_preempted),
        cmocka_unit_test(test_leaves_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
