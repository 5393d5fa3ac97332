/* Several relays bring together what a decode worker holds: each on its own session, verified as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define HELLOS                                                                                               \
    {0, "as=77 kv:1 hello role=relay id=r0", "kv:1 welcome"},                                                \
        {0, "as=78 kv:2 hello role=relay id=r1", "kv:2 welcome"},                                            \
    {                                                                                                        \
        0, "as=79 kv:3 hello role=relay id=r2", "kv:3 welcome"                                               \
    }
#define FIRST  OPEN("1.1") "layer_begin=0 layer_end=1 senders=2 "
#define SECOND OPEN("1.1") "layer_begin=1 layer_end=2 senders=2 "
#define CHAIN  "chain=5 "
#define OPENED                                                                                               \
    HELLOS, {1, "worker:1 " DECODE("1.1"), ""},                                                              \
        {2, "kv:1 " FIRST, "kv:1 kv_grant rid=1.1 token_begin=0 credit_bytes=1000 have="},                   \
    {                                                                                                        \
        2, "kv:2 " SECOND, "kv:2 kv_grant rid=1.1 token_begin=0 credit_bytes=1000 have="                     \
    }
#define CHUNK(layer) "kv_chunk rid=1.1 number=0 layer=" layer " head_count=2 token_count=20 crc32c=99 "
#define SENT                                                                                                 \
    {3, "kv:1 " CHUNK("0") "#5/40", "scatter job=1 layer=0 #5\ndrop #5"},                                    \
    {                                                                                                        \
        3, "kv:2 " CHUNK("1") "#6/44", "scatter job=2 layer=1 #6\ndrop #6"                                   \
    }
#define END1                                                                                                 \
    "kv:1 kv_end rid=1.1 layer_begin=0 layer_end=1 head_end=2 chunks=1 bytes_raw=100 bytes_sent=30 "         \
    "digests=7,8"
#define END2                                                                                                 \
    "kv_end rid=1.1 layer_begin=1 layer_end=2 head_end=2 chunks=1 bytes_raw=60 bytes_sent=30 digests=9,1"
#define COMMIT "kv_commit rid=1.1 senders=2 prompt_ids=*20 produced=42 first=42:A"
#define STARTS                                                                                               \
    "worker:1 report kv_bytes_raw=160\ntext_open\nworker:1 output first_index=0 items=42:A\nbatch batch=1"
#define FAILED(reason)       "worker:1 attempt_failed role=decode rid=1.1 reason=" reason
#define NACKED(peer, reason) "kv:" peer " kv_nack rid=1.1 chunk=whole reason=" reason "\n" FAILED(reason)
#define OVER(at)                                                                                             \
    {at, "worker:1 release rid=1.1", "*"},                                                                   \
    {                                                                                                        \
        at, "batch_done batch=1 samples=1:43:none", "*"                                                      \
    }

static struct core_fixture *begin(uint32_t blocks)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.pool.kv_blocks = blocks;
    settings.grant_wait_ms = 20000;
    settings.relay_endpoint = "";
    return worker_begin_alone(&settings);
}

#define CASE(blocks, name, steps)                                                                            \
    do {                                                                                                     \
        struct core_fixture *f = begin(blocks);                                                              \
        CORE_RUN(f, name, steps);                                                                            \
        worker_end(&f);                                                                                      \
    } while (0)

/* It begins once both parts are there and agree; the first commit counts. */
static void test_two_senders(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {2, "kv:1 " FIRST, ""}, /* repeated */
        SENT,
        {4, "scattered job=1 digests=7,8", "kv:1 kv_credit rid=1.1 bytes=40 chunk=1"},
        {4, END1, ""},
        {4, "kv:1 " COMMIT, ""},
        {5, "kv:2 " END2, ""},
        {5, "scattered job=2 reason=kv_corrupt", "kv:2 kv_nack rid=1.1 chunk=0 reason=kv_corrupt"},
        {6, "kv:2 " CHUNK("1") "#6/44", "scatter job=3 layer=1 #6\ndrop #6"},
        {7, "scattered job=3 digests=9,1",
         "kv:2 kv_credit rid=1.1 bytes=44 chunk=1\nkv:1 kv_done rid=1.1\nkv:2 kv_done rid=1.1\n" STARTS},
        {8, "kv:2 " COMMIT, ""},
        {9, "kv:2 " SECOND "resume=1", "kv:2 kv_done rid=1.1"}, /* it has not heard */
        OVER(10),
    };
    CASE(8, "two senders", steps);
}

/* The same layers, of other heads. */
static void test_by_head(void **state)
{
    (void)state;
#define HEAD(n, layer, head)                                                                                 \
    "kv_chunk rid=1.1 number=" n " layer=" layer " head_begin=" head " head_count=1 token_count=20 "
    static const struct core_step steps[] = {
        HELLOS,
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " OPEN("1.1") "head_begin=1 head_end=2 senders=2", "kv:1 kv_grant"},
        {2, "kv:2 " OPEN("1.1") "head_begin=0 head_end=1 senders=2", "kv:2 kv_grant"},
        {3, "kv:1 " HEAD("0", "0", "1") "#5/40", "scatter job=1 head_begin=1 head_count=1 #5\ndrop #5"},
        {3, "kv:1 " HEAD("1", "1", "1") "#6/40", "scatter job=2 head_begin=1 head_count=1 #6\ndrop #6"},
        {3, "kv:2 " HEAD("0", "0", "0") "#7/40", "scatter job=3 head_begin=0 head_count=1 #7\ndrop #7"},
        {3, "kv:2 " HEAD("1", "1", "0") "#8/40", "scatter job=4 head_begin=0 head_count=1 #8\ndrop #8"},
        {4, "scattered job=4 digests=4", "kv:2 kv_credit"},
        {4, "scattered job=3 digests=3", "kv:2 kv_credit"},
        {4, "scattered job=2 digests=2", "kv:1 kv_credit"},
        {4, "scattered job=1 digests=1", "kv:1 kv_credit"},
        {5, "kv:2 kv_end rid=1.1 head_begin=0 head_end=1 layer_end=2 chunks=2 bytes_raw=80 digests=3,4", ""},
        {5, "kv:2 " COMMIT, ""},
        {5, "kv:1 kv_end rid=1.1 head_begin=1 head_end=2 layer_end=2 chunks=2 bytes_raw=80 digests=1,2",
         "kv:1 kv_done\nkv:2 kv_done\n" STARTS},
        OVER(10),
    };
    CASE(8, "by head", steps);
}

/* Memory is taken once, and both hear of it when it is there. */
static void test_memory(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        HELLOS,
        {0, "worker:1 " DECODE("2.1") "age_ms=1000", ""},
        {0, "kv:3 " OPEN("2.1"), "kv:3 kv_grant rid=2.1"},
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " FIRST, ""},
        {2, "kv:2 " SECOND, ""},
        {3, "worker:1 release rid=2.1",
         "kv:3 kv_abort rid=2.1\nkv:1 kv_grant rid=1.1\nkv:2 kv_grant rid=1.1"},
        {4, "worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1\nkv:2 kv_abort rid=1.1"},
    };
    static const struct core_step late[] = {
        HELLOS,
        {0, "worker:1 " DECODE("2.1") "age_ms=1000", ""},
        {0, "kv:3 " OPEN("2.1"), "kv:3 kv_grant rid=2.1"},
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " FIRST, ""},
        {2, "kv:2 " SECOND, ""},
        {20002, "tick", "kv:1 kv_nack rid=1.1 chunk=whole reason=kv_no_memory\n" NACKED("2", "kv_no_memory")},
        {20003, "worker:1 release rid=2.1", "kv:3 kv_abort rid=2.1"},
    };
    CASE(2, "memory", steps);
    CASE(2, "no memory", late);
}

/* Whatever one of them does wrong ends the attempt, and the other hears of it. */
static void test_one_fails(void **state)
{
    (void)state;
    static const struct {
        const char *event, *actions;
    } cases[] = {
        {"kv:1 kv_abort rid=1.1 reason=kv_timeout", FAILED("kv_timeout") "\nkv:2 kv_abort rid=1.1"},
        {"kv:3 kv_abort rid=1.1", ""}, /* it brings nothing */
        {"kv:2 " CHUNK("0") "number=1 #7/40", NACKED("2", "kv_mismatch") "\nkv:1 kv_abort rid=1.1\ndrop #7"},
        {"kv:3 " CHUNK("0") "number=1 #7/40", "drop #7"},
        {"kv:1 kv_end rid=1.1 layer_end=2 head_end=2 chunks=1 digests=7,8,9,1",
         NACKED("1", "kv_mismatch") "\nkv:2 kv_abort rid=1.1"},
        {"kv:2 kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42 first=42:A",
         NACKED("2", "kv_mismatch") "\nkv:1 kv_abort rid=1.1"},
        {"kv:3 " SECOND, NACKED("3", "kv_mismatch") "\nkv:1 kv_abort rid=1.1\nkv:2 kv_abort rid=1.1"},
        {"worker:1 release rid=1.1", "kv:1 kv_abort rid=1.1\nkv:2 kv_abort rid=1.1"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            OPENED,
            SENT,
            {4, cases[i].event, cases[i].actions},
            {5, "worker:1 release rid=1.1", "*"},
            {6, "scattered job=1 digests=7,8", "*"},
            {6, "scattered job=2 digests=9,1", "*"},
        };
        CASE(8, cases[i].event, steps);
    }
    static const struct core_step corrupt[] = {
        OPENED,
        SENT,
        {4, "scattered job=1 digests=7,8", "kv:1 kv_credit"},
        {4, END1, ""},
        {4, "kv:1 " COMMIT, ""},
        {5, "kv:2 " END2, ""},
        {6, "scattered job=2 digests=9,2",
         "kv:2 kv_credit\nkv:1 kv_nack rid=1.1 chunk=whole reason=kv_corrupt\n" NACKED("2", "kv_corrupt") ""},
    };
    CASE(8, "corrupt", corrupt);
}

/* What does not go together with the first part, or does not make up the worker's share with it. */
static void test_does_not_fit(void **state)
{
    (void)state;
    static const char *const seconds[] = {
        FIRST CHAIN,                              /* the same again */
        SECOND CHAIN "layer_begin=0",             /* they overlap */
        SECOND CHAIN "head_begin=0 head_end=1",   /* the last one, and something is left out */
        SECOND CHAIN "layer_begin=1 layer_end=3", /* more than the worker has */
        SECOND CHAIN "head_begin=2",              /* nothing */
        SECOND CHAIN "senders=3",                 /* it counts otherwise */
        SECOND CHAIN "senders=0",
        SECOND CHAIN "token_count=21",
        SECOND "chain=9", /* another prompt */
        SECOND CHAIN "fingerprint=8",
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(seconds); i++) {
        char line[700];
        snprintf(line, sizeof line, "kv:2 %s", seconds[i]);
        const struct core_step steps[] = {
            HELLOS,
            {1, "worker:1 " DECODE("1.1"), ""},
            {2, "kv:1 " FIRST CHAIN, "kv:1 kv_grant rid=1.1"},
            {3, line, NACKED("2", "kv_mismatch") "\nkv:1 kv_abort rid=1.1"},
        };
        CASE(8, seconds[i], steps);
    }
    static const struct core_step many[] = {
        HELLOS,
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " OPEN("1.1") "layer_end=1 senders=65", NACKED("1", "kv_mismatch")},
    };
    CASE(8, "many", many);
}

/* One session is lost: the other part goes on, and the task when both have one again. */
static void test_resumed(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        SENT,
        {4, "kv:2 unreachable", ""},
        {5, "scattered job=1 digests=7,8", "kv:1 kv_credit rid=1.1"},
        {5, "scattered job=2 digests=9,1", ""},
        {5, END1, ""},
        {5, "kv:1 " COMMIT, ""},
        {6, "as=78 kv:4 hello role=relay id=r1", "kv:4 welcome"},
        {7, "kv:4 " SECOND "resume=1", "kv:4 kv_grant rid=1.1 have=1"},
        {8, "kv:4 " END2, "kv:1 kv_done rid=1.1\nkv:4 kv_done rid=1.1\n" STARTS},
        OVER(10),
    };
    /* Both are lost, one comes back; the other has come whole, and needs no session. */
    static const struct core_step both[] = {
        OPENED,
        SENT,
        {4, "scattered job=1 digests=7,8", "kv:1 kv_credit rid=1.1"},
        {4, END1, ""},
        {4, "kv:1 " COMMIT, ""},
        {5, "kv:1 unreachable", ""},
        {6, "kv:2 unreachable", ""},
        {7, "as=78 kv:4 hello role=relay id=r1", "kv:4 welcome"},
        {8, "kv:4 " SECOND "resume=1", "kv:4 kv_grant rid=1.1 have=1"},
        {9, "scattered job=2 digests=9,1", "kv:4 kv_credit rid=1.1"},
        {9, "kv:4 " END2, "kv:4 kv_done rid=1.1\n" STARTS},
        OVER(10),
    };
    /* The second part opens for the first time while the first one is away. */
    static const struct core_step later[] = {
        HELLOS,
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " FIRST, "kv:1 kv_grant rid=1.1"},
        {3, "kv:1 unreachable", ""},
        {4, "kv:2 " SECOND, "kv:2 kv_grant rid=1.1"},
        {5, "as=77 kv:4 hello role=relay id=r0", "kv:4 welcome"},
        {6, "kv:4 " FIRST "resume=1", "kv:4 kv_grant rid=1.1"},
        {7, "worker:1 release rid=1.1", "kv:4 kv_abort rid=1.1\nkv:2 kv_abort rid=1.1"},
    };
    CASE(8, "resumed", steps);
    CASE(8, "both", both);
    CASE(8, "later", later);
}

/* Without memory yet it waits for that again when both are back; none hears of it before. */
static void test_waits_again(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        HELLOS,
        {0, "worker:1 " DECODE("2.1") "age_ms=1000", ""},
        {0, "kv:3 " OPEN("2.1"), "kv:3 kv_grant rid=2.1"},
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "kv:1 " FIRST, ""},
        {2, "kv:2 " SECOND, ""},
        {3, "kv:1 unreachable", ""},
        {3, "kv:2 unreachable", ""},
        {4, "worker:1 release rid=2.1", "kv:3 kv_abort rid=2.1"},
        {5, "as=77 kv:4 hello role=relay id=r0", "kv:4 welcome"},
        {5, "kv:4 " FIRST, ""},
        {6, "as=78 kv:5 hello role=relay id=r1", "kv:5 welcome"},
        {6, "kv:5 " SECOND, "kv:4 kv_grant rid=1.1\nkv:5 kv_grant rid=1.1"},
        {7, "worker:1 release rid=1.1", "kv:4 kv_abort rid=1.1\nkv:5 kv_abort rid=1.1"},
    };
    CASE(2, "waits again", steps);
}

/* One of them does not come back. */
static void test_given_up(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        const char *event;
        const char *actions;
    } cases[] = {
        {5004, "tick", FAILED("peer_lost") "\nkv:1 kv_abort rid=1.1"},
        {10, "as=99 kv:4 hello role=relay id=r1",
         "kv:4 welcome\n" FAILED("peer_lost") "\nkv:1 kv_abort rid=1.1"},
        {10, "kv:3 " SECOND "resume=1", NACKED("3", "kv_mismatch") "\nkv:1 kv_abort rid=1.1"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            OPENED,
            {4, "kv:2 unreachable", ""},
            {cases[i].at, cases[i].event, cases[i].actions},
        };
        CASE(8, cases[i].event, steps);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_senders),  cmocka_unit_test(test_by_head),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_one_fails),
        cmocka_unit_test(test_does_not_fit), cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_waits_again),  cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
