/* The session with the relay that sends is lost: the transfer keeps what it has and waits for the next one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define FAILED(rid, reason) "worker:1 attempt_failed role=decode rid=" rid " reason=" reason
#define CHUNK(n, layer)     "kv_chunk rid=1.1 number=" n " layer=" layer " head_count=2 token_count=20 crc32c=99 "
#define OPENED                                                                                               \
    {0, "as=77 kv:1 hello role=relay id=r0", "kv:1 welcome id=w0"}, {1, "worker:1 " DECODE("1.1"), ""},      \
    {                                                                                                        \
        2, "kv:1 " OPEN("1.1"), "kv:1 kv_grant rid=1.1 credit_bytes=1000 have="                              \
    }
#define RECEIVING                                                                                            \
    OPENED, {3, "kv:1 " CHUNK("0", "0") "#5/40", "scatter job=1 #5\ndrop #5"},                               \
    {                                                                                                        \
        3, "kv:1 " CHUNK("1", "1") "#6/44", "scatter job=2 #6\ndrop #6"                                      \
    }
#define END    "kv_end rid=1.1 layer_end=2 head_end=2 chunks=2 bytes_raw=100 bytes_sent=30 digests=7,8,9,1"
#define COMMIT "kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42 first=42:A"
#define AGAIN  "kv:2 " OPEN("1.1") "resume=1"
#define STARTS "worker:1 report\ntext_open\nworker:1 output first_index=0 items=42:A\nbatch batch=1"
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

/* Whatever ends it. The next session may come on another connection; what was being restored goes on. */
static void test_goes_on(void **state)
{
    (void)state;
    static const char *const lost[][2] = {
        {"kv:1 unreachable", ""},
        {"gap kv:1 heartbeat", "kv:1 reset fenced=0"},
        {"kv:1 heartbeat", ""}, /* nothing: only the next Hello says it */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(lost); i++) {
        const struct core_step steps[] = {
            RECEIVING,
            {4, lost[i][0], lost[i][1]},
            {5, "as=77 kv:2 hello role=relay id=r0", "kv:2 welcome"},
            {6, "scattered job=1 digests=7,8", ""}, /* nobody to tell */
            {7, AGAIN, "kv:2 kv_grant rid=1.1 token_begin=0 credit_bytes=1000 have=3"},
            {8, AGAIN, ""},
            {9, "scattered job=2 reason=kv_corrupt", "kv:2 kv_nack rid=1.1 chunk=1 reason=kv_corrupt"},
            {9, "kv:2 " CHUNK("1", "1") "#6/44", "scatter job=3 #6\ndrop #6"},
            {10, "scattered job=3 digests=9,1", "kv:2 kv_credit rid=1.1 bytes=44 chunk=2"},
            {11, "kv:2 " END, ""},
            {12, "kv:2 " COMMIT, "kv:2 kv_done rid=1.1\n" STARTS},
            OVER(13),
        };
        struct core_fixture *f = begin(8);
        CORE_RUN(f, lost[i][0], steps);
        assert_int_equal(worker_core_counts(worker_of(f)).resumed, 1);
        worker_end(&f);
    }
}

/* What turned out damaged meanwhile is not among what it has. */
static void test_damaged_meanwhile(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RECEIVING,
        {4, "kv:1 unreachable", ""},
        {5, "scattered job=1 reason=kv_corrupt", ""},
        {6, "as=77 kv:2 hello role=relay id=r0", "kv:2 welcome"},
        {7, AGAIN, "kv:2 kv_grant have=2"},
        {8, "worker:1 release rid=1.1", "kv:2 kv_abort"},
        {9, "scattered job=2 digests=9,1", ""},
    };
    struct core_fixture *f = begin(8);
    CORE_RUN(f, "damaged", steps);
    worker_end(&f);
}

/* All had come: it begins without the relay, which hears of it when it asks. */
static void test_done_meanwhile(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        RECEIVING,
        {4, "kv:1 " END, ""},
        {4, "kv:1 " COMMIT, ""},
        {4, "kv:1 unreachable", ""},
        {5, "scattered job=1 digests=7,8", ""},
        {6, "scattered job=2 digests=9,1", STARTS},
        {7, "as=77 kv:2 hello role=relay id=r0", "kv:2 welcome"},
        {8, AGAIN, "kv:2 kv_done rid=1.1"},
        {9, "kv:2 " OPEN("1.1"), ""}, /* of its first time, repeated */
        OVER(10),
    };
    struct core_fixture *f = begin(8);
    CORE_RUN(f, "done", steps);
    worker_end(&f);
}

/* It had no memory yet: it waits for that again, in its old place. */
static void test_waiting(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "as=77 kv:1 hello role=relay id=r0", "kv:1 welcome id=w0"},
        {1, "worker:1 " DECODE("1.1"), ""},
        {1, "worker:1 " DECODE("2.1"), ""},
        {2, "kv:1 " OPEN("1.1"), "kv:1 kv_grant rid=1.1"},
        {3, "kv:1 " OPEN("2.1"), ""},
        {4, "kv:1 unreachable", ""},
        {5, "worker:1 release rid=1.1", ""}, /* its blocks are there now, and 2.1 is not */
        {6, "as=77 kv:2 hello role=relay id=r0", "kv:2 welcome"},
        {7, "kv:2 " OPEN("2.1"), "kv:2 kv_grant rid=2.1 have="},
        {8, "worker:1 release rid=2.1", "kv:2 kv_abort rid=2.1"},
    };
    struct core_fixture *f = begin(2);
    CORE_RUN(f, "waiting", steps);
    worker_end(&f);
}

/* Another transfer, another relay of that name, or none in time. */
static void test_given_up(void **state)
{
    (void)state;
#define REFUSED "kv:2 kv_nack rid=1.1 chunk=whole reason=kv_mismatch\n" FAILED("1.1", "kv_mismatch")
    static const struct {
        int64_t at;
        const char *hello, *event, *actions;
    } cases[] = {
        {10, "as=77 kv:2 hello role=relay id=r0", AGAIN " token_count=21", REFUSED},
        {10, "as=77 kv:2 hello role=relay id=r0", AGAIN " layer_end=1", REFUSED},
        {10, "as=77 kv:2 hello role=relay id=r0", AGAIN " fingerprint=8", REFUSED},
        {10, "as=78 kv:2 hello role=relay id=r1", AGAIN, REFUSED}, /* not from whom it came */
        {10, "as=78 kv:2 hello role=relay id=r1", "as=78 kv:3 hello role=relay id=r0",
         "kv:3 welcome\n" FAILED("1.1", "peer_lost")},
        {5003, "as=77 kv:2 hello role=relay id=r0", "tick", FAILED("1.1", "peer_lost")},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            OPENED,
            {3, "kv:1 unreachable", ""},
            {4, cases[i].hello, "kv:2 welcome"},
            {cases[i].at - 1, "worker:1 heartbeat", "*"},
            {cases[i].at, cases[i].event, cases[i].actions},
        };
        struct core_fixture *f = begin(8);
        CORE_RUN(f, cases[i].event, steps);
        worker_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),        cmocka_unit_test(test_damaged_meanwhile),
        cmocka_unit_test(test_done_meanwhile), cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
