/* The decode role of a worker, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define FAILED(rid, reason)  "worker:1 attempt_failed role=decode rid=" rid " reason=" reason
#define REFUSED(rid, reason) "kv:1 kv_nack rid=" rid " chunk=whole reason=" reason
#define CHUNK(rid, n, layer)                                                                                 \
    "kv:1 kv_chunk rid=" rid " number=" n " layer=" layer " head_count=2 token_count=20 crc32c=99 "
#define GRANT(rid) "kv:1 kv_grant rid=" rid " token_begin=0 credit_bytes=1000"
#define RELAY                                                                                                \
    {                                                                                                        \
        0, "kv:1 hello role=relay id=r0", "kv:1 welcome id=w0"                                               \
    }

/* Granted: 1.1 waits for its chunks. */
#define OPENED                                                                                               \
    RELAY, {1, "worker:1 " DECODE("1.1"), ""},                                                               \
    {                                                                                                        \
        2, "kv:1 " OPEN("1.1"), GRANT("1.1")                                                                 \
    }

#define RECEIVED                                                                                             \
    {3, CHUNK("1.1", "0", "0") "#5/40",                                                                      \
     "scatter job=1 layer=0 blocks=0,1 token_count=20 crc32c=99 #5\ndrop #5"},                               \
        {3, CHUNK("1.1", "1", "1") "#6/44", "scatter job=2 layer=1 #6\ndrop #6"},                            \
        {4, "scattered job=1 digests=7,8", "kv:1 kv_credit rid=1.1 bytes=40"},                               \
    {                                                                                                        \
        4, "scattered job=2 digests=9,1", "kv:1 kv_credit rid=1.1 bytes=44"                                  \
    }

#define END(rid)                                                                                             \
    "kv:1 kv_end rid=" rid " layer_end=2 head_end=2 chunks=2 bytes_raw=100 bytes_sent=30 digests=7,8,9,1"
#define COMMIT(rid) "kv:1 kv_commit rid=" rid " senders=1 prompt_ids=*20 produced=42 first=42:A"

/* Verified: the first row draws output token 1. */
#define READY                                                                                                \
    OPENED, RECEIVED, {5, END("1.1"), ""},                                                                   \
    {                                                                                                        \
        6, COMMIT("1.1"),                                                                                    \
            "kv:1 kv_done rid=1.1\n"                                                                         \
            "worker:1 report role=decode rid=1.1 prompt_tokens=20 run_ns=4000000 kv_bytes_raw=100 "          \
            "kv_bytes_sent=134\n"                                                                            \
            "text_open tag=1 produced=42\n"                                                                  \
            "worker:1 output role=decode rid=1.1 first_index=0 items=42:A finish=none\n"                     \
            "batch batch=1 report_layers=0 rows=1:20:42:0+1:1:1"                                             \
    }

static struct core_fixture *begin_with(uint32_t blocks, uint32_t grant_wait_ms)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.pool.kv_blocks = blocks;
    settings.grant_wait_ms = grant_wait_ms;
    settings.relay_endpoint = "";
    return worker_begin_alone(&settings);
}

static struct core_fixture *begin(void)
{
    return begin_with(8, 1000);
}

static void test_life(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        READY,
        {7, "batch_done batch=1 samples=1:43:none",
         "worker:1 output rid=1.1 role=decode first_index=1 items=43 finish=none\nbatch batch=2 "
         "rows=1:21:43:0+1:1:2"},
        {8, "batch_done batch=2 samples=1:44:stop",
         "worker:1 output first_index=2 items=44 finish=stop\ntext_close tag=1"},
        {9, "kv:1 kv_abort rid=1.1", ""}, /* it owns the attempt alone now */
        {9, "worker:1 release rid=1.1 reason=finished", ""},
    };
    WORKER_CASE(begin(), "life", steps);
}

/* Finished: the blocks go at once, the record stays for Resync until Release. */
static void test_finished(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        READY,
        {7, "batch_done batch=1 samples=1:43:length",
         "worker:1 output items=43 finish=length\ntext_close tag=1"},
        {8, "worker:1 unreachable", "worker:1 hello"},
        {9, "worker:1 welcome", "worker:1 resync items=1.1:decode:2"},
        {10, "worker:1 resync_reply items=1.1:decode:resend:1",
         "worker:1 output first_index=1 items=43 finish=length"},
        {10, "worker:1 resync_reply items=1.1:decode:resend:2",
         "worker:1 output first_index=2 items= finish=length"},
        {10, "worker:1 resync_reply items=1.1:decode:keep:0,9.9:decode:cancel", ""},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "finished", steps);
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 0);
    assert_false(worker_core_idle(worker_of(f)));
    core_step_one(f, 11, "worker:1 resync_reply items=1.1:decode:cancel", "");
    worker_end(&f);
}

/* Open without Assign may come again; one that does not fit is final for the attempt. */
static void test_open_refused(void **state)
{
    (void)state;
    static const struct {
        const char *more, *reason;
    } cases[] = {
        {"fingerprint=8", "kv_mismatch"},
        {"decode_incarnation=801", "kv_mismatch"},
        {"codec.key.bits=16", "kv_mismatch"},
        {"layers=3", "kv_mismatch"},
        {"kv_heads=1", "kv_mismatch"},
        {"head_dim=32", "kv_mismatch"},
        {"kv_dtype=2", "kv_mismatch"},
        {"block_tokens=32", "kv_mismatch"},
        {"layer_end=3", "kv_mismatch"},
        {"layer_begin=2", "kv_mismatch"},
        {"head_end=3", "kv_mismatch"},
        {"head_begin=2", "kv_mismatch"},
        {"layer_end=1", "kv_mismatch"}, /* nobody would bring the rest */
        {"head_begin=1", "kv_mismatch"},
        {"token_begin=16", "kv_mismatch"},
        {"token_count=0", "kv_mismatch"},
        {I4 "token_count=100", "kv_mismatch"},
        {I4 "token_count=96", "prompt_too_long"}, /* 97 positions are 7 blocks, and the pool has 6 */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char open[400], expected[300];
        snprintf(open, sizeof open, "kv:1 " OPEN("1.1") "%s", cases[i].more);
        snprintf(expected, sizeof expected, REFUSED("1.1", "%s") "\n" FAILED("1.1", "%s"), cases[i].reason,
                 cases[i].reason);
        struct core_fixture *f = begin_with(6, 1000);
        const struct core_step steps[] = {
            RELAY,
            {1, "kv:1 " OPEN("1.1"), REFUSED("1.1", "no_assign")},
            {2, "worker:1 " DECODE("1.1"), ""},
            {3, open, expected},
            {4, "worker:1 release rid=1.1", ""},
        };
        CORE_RUN(f, cases[i].more, steps);
        worker_end(&f);
    }
}

static void test_open_twice(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, "kv:1 " OPEN("1.1"), ""},
        {4, "worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1 reason=cancelled"},
    };
    WORKER_CASE(begin(), "open twice", steps);
}

/* All or nothing, oldest first; who waits too long goes back to the router. */
static void test_grants(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        {1000, "worker:1 " DECODE("1.1"), ""},
        {1000, "worker:1 " DECODE("2.1") "age_ms=500", ""}, /* older */
        {1000, "worker:1 " DECODE("3.1"), ""},
        {1001, "kv:1 " OPEN("1.1") I4 "token_count=60", GRANT("1.1")}, /* 4 of 6 blocks */
        {1002, "kv:1 " OPEN("2.1") I4 "token_count=40", ""},           /* 3 */
        {1003, "kv:1 " OPEN("3.1") "token_count=4", ""},               /* 1 would fit, and waits its turn */
        {1003, "worker:1 " DECODE("5.1") "age_ms=900", ""}, /* older than all that wait: it is first */
        {1003, "kv:1 " OPEN("5.1") "token_count=4", GRANT("5.1")},
        {1004, "worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1\n" GRANT("2.1") "\n" GRANT("3.1")},
        {1005, "worker:1 " DECODE("4.1"), ""},
        {1006, "kv:1 " OPEN("4.1") I4 "token_count=90", ""},
        {1505, "tick", ""},
        {1506, "tick", REFUSED("4.1", "kv_no_memory") "\n" FAILED("4.1", "kv_no_memory")},
        {1506, "worker:1 " DECODE("6.1"), ""},
        {1506, "kv:1 " OPEN("6.1") I4 "token_count=90", ""},
        {1600, "worker:1 " DECODE("7.1") "age_ms=900", ""}, /* older, and waits from later on */
        {1600, "kv:1 " OPEN("7.1") I4 "token_count=80", ""},
        {2006, "tick", REFUSED("6.1", "kv_no_memory") "\n" FAILED("6.1", "kv_no_memory")},
        {2007, "worker:1 release rid=7.1", "kv:1 kv_abort rid=7.1"},
        {2107, "worker:1 release rid=2.1", "kv:1 kv_abort rid=2.1"},
        {2107, "worker:1 release rid=3.1", "kv:1 kv_abort rid=3.1"},
        {2107, "worker:1 release rid=5.1", "kv:1 kv_abort rid=5.1"},
    };
    WORKER_CASE(begin_with(6, 500), "grants", steps);
}

/* What a chunk may not be: each is the end of the attempt. */
static void test_bad_chunks(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "layer=2 #5/40",
        "head_begin=1 #5/40",
        "head_count=0 #5/40",
        "head_begin=2 head_count=1 #5/40",
        "head_begin=3 head_count=1 #5/40",
        "token_begin=4 #5/40",
        "token_count=0 #5/40",
        "token_count=8 #5/40",
        "token_begin=16 token_count=5 #5/40",
        "number=8 #5/40",
        "#5/0",
        "declared_bytes=40",
        "#5/67108865",
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(bad); i++) {
        char chunk[300], expected[300];
        bool bulk = strchr(bad[i], '#') != NULL;
        snprintf(chunk, sizeof chunk, CHUNK("1.1", "0", "0") "%s", bad[i]);
        snprintf(expected, sizeof expected,
                 REFUSED("1.1", "kv_mismatch") "\n" FAILED("1.1", "kv_mismatch") "%s",
                 bulk ? "\ndrop #5" : "");
        struct core_fixture *f = begin();
        const struct core_step steps[] = {OPENED, {3, chunk, expected}};
        CORE_RUN(f, bad[i], steps);
        worker_end(&f);
    }
}

/* A damaged chunk is asked for again; a repeated one counts once. */
static void test_chunks_again(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, CHUNK("1.1", "0", "0") "#5/40", "scatter job=1 #5\ndrop #5"},
        {3, CHUNK("1.1", "0", "0") "#5/40", "drop #5"},
        {4, "scattered job=1 reason=kv_corrupt", "kv:1 kv_nack rid=1.1 chunk=0 reason=kv_corrupt"},
        {5, CHUNK("1.1", "0", "0") "#5/40", "scatter job=2 #5\ndrop #5"},
        {6, "scattered job=2 digests=7,8", "kv:1 kv_credit bytes=40"},
        {7, CHUNK("1.1", "0", "0") "#5/40", "drop #5"},
        {8, COMMIT("1.1"), ""},
        {8, COMMIT("1.1"), ""},
        {9, END("1.1"), ""},
        {9, END("1.1"), ""},
        {10, CHUNK("1.1", "1", "1") "#6/44", "scatter job=3 #6\ndrop #6"}, /* the last part starts it */
        {11, "scattered job=3 digests=9,1",
         "kv:1 kv_credit bytes=44\nkv:1 kv_done rid=1.1\nworker:1 report\ntext_open\nworker:1 output\nbatch "
         "batch=1"},
        {12, CHUNK("1.1", "1", "1") "#6/44", "drop #6"},
        {12, "worker:1 release rid=1.1", "text_close tag=1"},
        {13, "batch_done batch=1 samples=1:5", ""},
    };
    struct core_fixture *f = begin();
    CORE_RUN(f, "chunks again", steps);
    assert_int_equal(worker_core_counts(worker_of(f)).nacked, 1);
    worker_end(&f);
}

/* Decode starts only when every part is there and every digest agrees. */
static void test_verify(void **state)
{
    (void)state;
    static const struct {
        const char *event, *reason;
        bool half;
    } cases[] = {
        {"kv:1 kv_end rid=1.1 chunks=2 digests=7,8,9,2", "kv_corrupt", false},
        {"kv:1 kv_end rid=1.1 chunks=1 digests=7,8,0,0", "kv_corrupt", true}, /* a layer is missing */
        {"kv:1 kv_end rid=1.1 chunks=2 digests=7,8", "kv_mismatch", false},
        {"kv:1 kv_commit rid=1.1 senders=2 prompt_ids=*20 produced=42", "kv_mismatch", false},
        {"kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*19 produced=42", "kv_mismatch", false},
        {"kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*20", "kv_mismatch", false}, /* where is token 0? */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char expected[300];
        snprintf(expected, sizeof expected, REFUSED("1.1", "%s") "\n" FAILED("1.1", "%s"), cases[i].reason,
                 cases[i].reason);
        struct core_fixture *f = begin();
        static const struct core_step opened[] = {OPENED}, received[] = {RECEIVED};
        CORE_RUN(f, cases[i].event, opened);
        for (size_t k = 0; k < TS_ARRAY_SIZE(received); k++) {
            if (!cases[i].half || k % 2 == 0) /* only what belongs to the first chunk */
                core_step_one(f, received[k].at_ms, received[k].event, received[k].actions);
        }
        if (i < 3)
            core_step_one(f, 5, COMMIT("1.1"), "");
        core_step_one(f, 6, cases[i].event, expected);
        core_step_one(f, 7, "kv:1 kv_abort rid=1.1", "");
        worker_end(&f);
    }
}

/* However the relay's session ends, its transfers fail; a scatter under way keeps the blocks. */
static void test_sender_lost(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        const char *event, *actions;
    } cases[] = {
        {10, "kv:1 kv_abort rid=1.1 reason=peer_lost", FAILED("1.1", "peer_lost")},
        {10, "kv:1 kv_abort rid=1.1", FAILED("1.1", "peer_lost")},
        {10, "worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1 reason=cancelled"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
        settings.timeout_ms = 3000;
        settings.relay_endpoint = "";
        struct core_fixture *f = worker_begin(&settings);
        const struct core_step steps[] = {
            {0, "start", "*"},
            {0, "worker:1 welcome", "worker:1 resync"},
            OPENED,
            {3, CHUNK("1.1", "0", "0") "#5/40", "scatter job=1 #5\ndrop #5"},
            {cases[i].at - 5, "worker:1 heartbeat", ""},
            {cases[i].at, cases[i].event, cases[i].actions},
            {cases[i].at + 1, "kv:7 kv_chunk rid=1.1", "kv:7 reset fenced=0"}, /* a stranger */
        };
        CORE_RUN(f, cases[i].event, steps);
        assert_int_equal(worker_core_blocks_used(worker_of(f)), 2);
        core_step_one(f, cases[i].at + 2, "scattered job=1 digests=7,8", "");
        worker_end(&f);
    }
}

/* Only the session that opened a transfer may go on with it. */
static void test_other_sender(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, "kv:2 hello role=worker id=x", ""},
        {3, "kv:2 hello role=relay id=r1", "kv:2 welcome"},
        {4, "kv:2 kv_chunk rid=1.1 head_count=2 token_count=20 #5/40", "drop #5"},
        {4, "kv:2 kv_abort rid=1.1", ""},
        {4, "kv:2 kv_end rid=1.1 digests=1,2,3,4", ""},
        {4, "kv:2 unreachable", ""},
        {5, "worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1"},
    };
    WORKER_CASE(begin(), "other sender", steps);
}

/* An attempt with produced tokens computes them in one row and draws what follows. */
static void test_replay(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        {1, "worker:1 " DECODE("1.3") "produced=42,43,44 sampling.repetition_penalty=2 sampling.given=16",
         ""},
        {2, "kv:1 " OPEN("1.3"), GRANT("1.3")},
        {3, CHUNK("1.3", "0", "0") "#5/40", "scatter job=1 #5\ndrop #5"},
        {3, CHUNK("1.3", "1", "1") "#6/44", "scatter job=2 #6\ndrop #6"},
        {4, "scattered job=1 digests=7,8", "kv:1 kv_credit"},
        {4, "scattered job=2 digests=9,1", "kv:1 kv_credit"},
        {5, END("1.3"), ""},
        {6, "kv:1 kv_commit rid=1.3 senders=1 prompt_ids=*20 produced=42,43,44",
         "kv:1 kv_done\nworker:1 report\ntext_open produced=42,43,44\nbatch batch=1 "
         "rows=1:20:42+43+44:0+1:1:3"},
        {7, "batch_done batch=1 samples=1:45",
         "worker:1 output first_index=3 items=45\nbatch batch=2 rows=1:23:45:0+1:1:4"},
        /* Nothing before index 3 is here: the router has it. */
        {8, "worker:1 unreachable", "worker:1 hello"},
        {9, "worker:1 welcome", "worker:1 resync items=1.3:decode:4"},
        {10, "worker:1 resync_reply items=1.3:decode:resend:0", "worker:1 output first_index=3 items=45"},
        {11, "worker:1 release rid=1.3", "text_close tag=1"},
        {12, "batch_done batch=2 samples=1:46", ""},
    };
    WORKER_CASE(begin(), "replay", steps);
}

/* A resumed stream that had ended within its produced tokens: only its end is told. */
static void test_complete(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        {1, "worker:1 " DECODE("1.1") "produced=42,43", ""},
        {2, "kv:1 " OPEN("1.1"), GRANT("1.1")},
        RECEIVED,
        {5, END("1.1"), ""},
        {6, "kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42,43",
         "kv:1 kv_done\nworker:1 report\ntext_open\nbatch batch=1"},
        {7, "batch_done batch=1 samples=1:99:stop:1",
         "worker:1 output rid=1.1 first_index=2 items= finish=stop\ntext_close tag=1"},
        {8, "worker:1 release rid=1.1", ""},
    };
    WORKER_CASE(begin(), "complete", steps);
}

#define GRANTED(at, rid)                                                                                     \
    {at, "worker:1 " DECODE(rid), ""},                                                                       \
    {                                                                                                        \
        at, "kv:1 " OPEN(rid) "token_count=16", GRANT(rid)                                                   \
    }
#define TRANSFERRED(at, rid, tag, job0, job1, blocks, after)                                                 \
    {at, CHUNK(rid, "0", "0") "token_count=16 #5/40", "scatter job=" job0 " blocks=" blocks " #5\ndrop #5"}, \
        {at, CHUNK(rid, "1", "1") "token_count=16 #6/40", "scatter job=" job1 " #6\ndrop #6"},               \
        {at, "scattered job=" job0 " digests=7,8", "kv:1 kv_credit"},                                        \
        {at, "scattered job=" job1 " digests=9,1", "kv:1 kv_credit"}, {at, END(rid), ""},                    \
    {                                                                                                        \
        at, "kv:1 kv_commit rid=" rid " senders=1 prompt_ids=*16 produced=42",                               \
            "kv:1 kv_done\nworker:1 report\ntext_open tag=" tag "\nworker:1 output" after                    \
    }

/* Out of blocks, the youngest gives way; it never stops an older one. */
static void test_preemption(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        GRANTED(10, "1.1"),
        GRANTED(10, "2.1"),
        TRANSFERRED(10, "1.1", "1", "1", "2", "0,1", "\nbatch batch=1 rows=1:16:42"),
        TRANSFERRED(20, "2.1", "2", "3", "4", "2,3", ""),
    };
    struct core_fixture *f = begin_with(4, 1000);
    char event[60], actions[200];
    CORE_RUN(f, "preemption", steps);
    /* Both decode until 32 positions are full; the third block of 1.1 is taken from 2.1. */
    core_step_one(f, 30, "batch_done batch=1 samples=1:50",
                  "worker:1 output\nbatch batch=2 rows=1:17:50,2:16:42");
    for (int b = 2; b <= 15; b++) {
        snprintf(event, sizeof event, "batch_done batch=%d samples=1:50,2:50", b);
        snprintf(actions, sizeof actions,
                 "worker:1 output rid=1.1\nworker:1 output rid=2.1\nbatch batch=%d rows=1:%d:50,2:%d:50",
                 b + 1, 16 + b, 15 + b);
        core_step_one(f, 30 + b, event, actions);
    }
    core_step_one(f, 50, "batch_done batch=16 samples=1:50,2:50",
                  "worker:1 output rid=1.1\nworker:1 output rid=2.1\n" FAILED(
                      "2.1", "preempted") "\ntext_close tag=2\n"
                                          "batch batch=17 rows=1:32:50:0+1+2");
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 3);
    assert_int_equal(worker_core_counts(worker_of(f)).preempted, 1);
    core_step_one(f, 51, "worker:1 release rid=2.1", "");
    core_step_one(f, 51, "worker:1 release rid=1.1", "text_close tag=1");
    core_step_one(f, 52, "batch_done batch=17 samples=1:50", "");
    worker_end(&f);
}

/* A sequence that is alone and does not fit has nobody to take from. */
static void test_preempts_itself(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        GRANTED(10, "1.1"),
        TRANSFERRED(10, "1.1", "1", "1", "2", "0,1", "\nbatch batch=1 rows=1:16:42"),
    };
    struct core_fixture *f = begin_with(2, 1000);
    char event[60], actions[100];
    CORE_RUN(f, "preempts itself", steps);
    for (int b = 1; b <= 15; b++) {
        snprintf(event, sizeof event, "batch_done batch=%d samples=1:50", b);
        snprintf(actions, sizeof actions, "worker:1 output rid=1.1\nbatch batch=%d rows=1:%d:50", b + 1,
                 16 + b);
        core_step_one(f, 20 + b, event, actions);
    }
    core_step_one(f, 40, "batch_done batch=16 samples=1:50",
                  "worker:1 output\n" FAILED("1.1", "preempted") "\ntext_close tag=1");
    worker_end(&f);
}

/* A transfer is not granted what the sequences that draw may need next. */
static void test_leaves_room(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        READY,
        {7, "worker:1 " DECODE("2.1"), ""},
        {7, "kv:1 " OPEN("2.1") I4 "token_count=90", ""}, /* all six that are free */
        {8, "worker:1 release rid=2.1", "kv:1 kv_abort rid=2.1"},
        {9, "worker:1 " DECODE("3.1"), ""},
        {9, "kv:1 " OPEN("3.1") I4 "token_count=79", GRANT("3.1")}, /* five */
        {10, "worker:1 release rid=3.1", "kv:1 kv_abort rid=3.1"},
        {11, "worker:1 release rid=1.1", "text_close tag=1"},
        {12, "batch_done batch=1 samples=1:50", ""},
    };
    WORKER_CASE(begin(), "leaves room", steps);
}

static void test_engine_failed(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        READY,
        {7, "batch_done batch=9 reason=engine", ""}, /* not the one under way */
        {8, "batch_done batch=1 reason=engine", FAILED("1.1", "engine") "\ntext_close tag=1"},
    };
    WORKER_CASE(begin(), "engine failed", steps);
}

/* Prompt and output together fit the context: max_tokens is clipped. */
static void test_clipped(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RELAY,
        {10, "worker:1 " DECODE("1.1"), ""},
        {10, "kv:1 " OPEN("1.1") I4 "token_count=64", GRANT("1.1")},
        {10, CHUNK("1.1", "0", "0") "token_count=64 #5/40", "scatter job=1 blocks=0,1,2,3,4 #5\ndrop #5"},
        {10, CHUNK("1.1", "1", "1") "token_count=64 #6/40", "scatter job=2 #6\ndrop #6"},
        {10, "scattered job=1 digests=7,8", "kv:1 kv_credit"},
        {10, "scattered job=2 digests=9,1", "kv:1 kv_credit"},
        {10, END("1.1"), ""},
        {10, "kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*64 produced=42",
         "kv:1 kv_done\nworker:1 report\ntext_open sampling.max_tokens=36\nworker:1 output\nbatch"},
        {11, "worker:1 release rid=1.1", "text_close"},
        {12, "batch_done batch=1 samples=1:5", ""},
    };
    WORKER_CASE(begin(), "clipped", steps);
}

/* Chunks over other connections: of a session that is there they count as its own, in any order. */
static void test_lanes(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, "lane=1 kv:7 kv_chunk rid=1.1 number=1 layer=1 head_count=2 token_count=20 crc32c=99 #6/44",
         "scatter job=1 layer=1 crc32c=99 #6\ndrop #6"},
        {4, END("1.1"), ""},
        {4, COMMIT("1.1"), ""},
        {5, "lane=1 old kv:8 kv_chunk rid=1.1 number=0 head_count=2 token_count=20 #5/40", "drop #5"},
        {5, "kv:8 kv_chunk rid=1.1 number=0 head_count=2 token_count=20 #5/40", "kv:8 reset\ndrop #5"},
        {6, "lane=1 kv:7 kv_chunk rid=1.1 number=1 layer=1 head_count=2 token_count=20 crc32c=99 #6/44",
         "drop #6"}, /* twice */
        {7, "lane=1 kv:8 kv_chunk rid=1.1 number=0 head_count=2 token_count=20 crc32c=99 #5/40",
         "scatter job=2 layer=0 crc32c=99 #5\ndrop #5"},
        {8, "scattered job=1 digests=9,1", "kv:1 kv_credit rid=1.1 bytes=44 chunk=2"},
        {9, "scattered job=2 digests=7,8",
         "kv:1 kv_credit rid=1.1 bytes=40 chunk=1\nkv:1 kv_done rid=1.1\n*"},
        {10, "lane=1 kv:8 kv_chunk rid=1.1 number=0 head_count=2 token_count=20 #5/40", "drop #5"}, /* late */
        {11, "worker:1 release rid=1.1", "*"},
        {12, "batch_done batch=1 samples=1:43:none", "*"},
    };
    struct core_fixture *f = begin();
    core_run(f, "lanes", steps, TS_ARRAY_SIZE(steps));
    assert_int_equal(worker_core_counts(worker_of(f)).chunks_strayed, 1);
    worker_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),         cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_finished),     cmocka_unit_test(test_open_refused),
        cmocka_unit_test(test_open_twice),   cmocka_unit_test(test_grants),
        cmocka_unit_test(test_bad_chunks),   cmocka_unit_test(test_chunks_again),
        cmocka_unit_test(test_verify),       cmocka_unit_test(test_sender_lost),
        cmocka_unit_test(test_other_sender), cmocka_unit_test(test_replay),
        cmocka_unit_test(test_preemption),   cmocka_unit_test(test_preempts_itself),
        cmocka_unit_test(test_leaves_room),  cmocka_unit_test(test_engine_failed),
        cmocka_unit_test(test_clipped),      cmocka_unit_test(test_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
