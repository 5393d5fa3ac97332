/* A request that goes to several decode workers: a transfer for each, told to router and worker as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay_fixture.h"

/* Endpoint, incarnation, layers, heads, senders. */
#define PART(e, inc, layers, heads, senders) e ":" e ":" inc ":" layers ":" heads ":" senders
#define BY_LAYER                             "parts=" PART("d0", "9", "0:1", "0:2", "0") "," PART("d1", "8", "1:2", "0:2", "2") " "
#define BY_HEAD                              "parts=" PART("d0", "9", "0:2", "0:1", "1") "," PART("d1", "8", "0:2", "1:2", "1") " "
#define DIALS                                                                                                \
    "kv:1000 connect endpoint=d0\nkv:1000 hello role=relay id=r0\n"                                          \
    "kv:1001 connect endpoint=d1\nkv:1001 hello role=relay id=r0"
#define OPENED_BOTH                                                                                          \
    {1, BEGIN("1.1") BY_LAYER, DIALS},                                                                       \
        {2, "kv:1000 welcome",                                                                               \
         OPEN("1.1") " decode_incarnation=9 layer_begin=0 layer_end=1 head_begin=0 head_end=2 senders=0"},   \
    {                                                                                                        \
        2, "kv:1001 welcome",                                                                                \
            "kv:1001 kv_open rid=1.1 decode_incarnation=8 layer_begin=1 layer_end=2 head_end=2 senders=2"    \
    }
#define GRANTED                                                                                              \
    {5, "kv:1000 kv_grant rid=1.1 credit_bytes=100", "kv:1000 kv_chunk number=0 layer=0 head_count=2 #5"},   \
    {                                                                                                        \
        5, "kv:1001 kv_grant rid=1.1 credit_bytes=100", "kv:1001 kv_chunk number=0 layer=1 head_count=2 #6"  \
    }
#define SEALED                                                                                               \
    {                                                                                                        \
        6, SEAL("1.1"),                                                                                      \
            "kv:1000 kv_end layer_begin=0 layer_end=1 head_end=2 chunks=1 digests=1,2\n"                     \
            "kv:1000 kv_commit senders=1 prompt_ids=*20 produced=42\n" FREED(                                \
                "1.1") "\n"                                                                                  \
                       "kv:1001 kv_end layer_begin=1 layer_end=2 head_end=2 chunks=1 digests=3,4\n"          \
                       "kv:1001 kv_commit senders=2 prompt_ids=*20 produced=42"                              \
    }
#define CREDITED                                                                                             \
    {7, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},                                                   \
    {                                                                                                        \
        7, "kv:1001 kv_credit rid=1.1 bytes=44 chunk=1", ""                                                  \
    }

/* The router hears of it when the last one has it; nothing stays to be sent again. */
static void test_by_layer(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED_BOTH,
        ENCODED,
        GRANTED,
        {6, BEGIN("1.1") BY_LAYER, ""}, /* repeated */
        SEALED,
        CREDITED,
        {8, "kv:1001 kv_done rid=1.1", "drop #6"},
        {8, "kv:1001 kv_done rid=1.1", ""},
        {8, "relay:1 refeed from=1.1 rid=1.1 decode=d2 endpoint=d2", ""}, /* it is still under way */
        {9, "kv:1000 kv_done rid=1.1", OVER("1.1", "none") " bytes_raw=20480 bytes_sent=84\ndrop #5"},
        {10, "relay:1 refeed from=1.1 rid=1.2 decode=d2 endpoint=d2", OVER("1.2", "no_copy")},
    };
    RELAY_CASE(relay_begin(), "by layer", steps);
}

/* The same layer twice, of other heads each time; blocks go back when both have been read. */
static void test_by_head(void **state)
{
    (void)state;
#define HALF(job, layer, head)                                                                               \
    "encode job=" job " pool=1 layer=" layer " head_begin=" head " head_count=1 token_count=20"
    static const struct core_step steps[] = {
        {1, BEGIN("1.1") BY_HEAD, DIALS},
        {2, "kv:1000 welcome", OPEN("1.1") " head_begin=0 head_end=1 layer_end=2"},
        {3, READY("1.1", "0"),
         HALF("1", "0", "0") "\n" HALF("2", "1", "0") "\n" HALF("3", "0", "1") "\n" HALF("4", "1", "1")},
        {4, "encoded job=1 #5/40 digests=1 crc32c=91", ""},
        {4, "encoded job=2 #6/44 digests=3 crc32c=92", ""},
        {5, SEAL("1.1"), ""}, /* the second one reads on */
        {6, "encoded job=3 #7/40 digests=5 crc32c=93", ""},
        {6, "encoded job=4 #8/44 digests=7 crc32c=94", FREED("1.1")},
        {7, "kv:1001 welcome", "kv:1001 kv_open rid=1.1 head_begin=1 head_end=2 layer_end=2"},
        {8, "kv:1001 kv_grant rid=1.1 credit_bytes=200",
         "kv:1001 kv_chunk number=0 layer=0 head_begin=1 head_count=1 #7\n"
         "kv:1001 kv_chunk number=1 layer=1 head_begin=1 head_count=1 #8\n"
         "kv:1001 kv_end head_begin=1 head_end=2 chunks=2 digests=5,7\nkv:1001 kv_commit senders=1"},
        {9, "relay:1 release rid=1.1",
         "kv:1000 kv_abort rid=1.1\n" FAILED("1.1",
                                             "cancelled") "\ndrop #5\ndrop #6\n"
                                                          "kv:1001 kv_abort rid=1.1\ndrop #7\ndrop #8"},
        {10, "pool:1 release rid=1.1", FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "by head", steps);
}

/* Whatever ends one of them ends all, is told once, and the blocks go back once. */
static void test_one_fails(void **state)
{
    (void)state;
    static const struct {
        int64_t at;
        const char *event, *actions;
    } cases[] = {
        {9, "kv:1001 kv_nack rid=1.1 chunk=whole reason=kv_no_memory",
         FAILED("1.1", "kv_no_memory") "\ndrop #6\nkv:1000 kv_abort rid=1.1 reason=kv_no_memory\ndrop "
                                       "#5\n" FREED("1.1")},
        {9, "kv:1000 kv_abort rid=1.1 reason=peer_lost",
         FAILED("1.1",
                "peer_lost") "\ndrop #5\nkv:1001 kv_abort rid=1.1 reason=peer_lost\ndrop #6\n" FREED("1.1")},
        {9, "pool:1 unreachable",
         "kv:1000 kv_abort rid=1.1\n" OVER("1.1",
                                           "peer_lost") "\ndrop #5\nkv:1001 kv_abort rid=1.1\ndrop #6\n"
                                                        "unmap_pool pool=1"},
        {9, "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:0:20",
         "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "kv_mismatch") "\ndrop #5\nkv:1001 kv_abort rid=1.1\n"
                                                                   "drop #6\n" FREED("1.1")},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            OPENED_BOTH, ENCODED, GRANTED, {cases[i].at, cases[i].event, cases[i].actions}};
        RELAY_CASE(relay_begin(), cases[i].event, steps);
    }
}

/* One of them is there already; the other is not reached in time. */
static void test_second_fails(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BEGIN("1.1") BY_LAYER, DIALS},
        {2, "kv:1000 welcome", OPEN("1.1")},
        ENCODED,
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=100", "kv:1000 kv_chunk number=0 #5"},
        {6, SEAL("1.1"), "kv:1000 kv_end\nkv:1000 kv_commit\n" FREED("1.1")},
        {7, "kv:1000 kv_credit rid=1.1 bytes=40 chunk=1", ""},
        {8, "kv:1000 kv_done rid=1.1", "drop #5"},
        {5001, "tick", "kv:1001 hello\n" FAILED("1.1", "kv_timeout") "\ndrop #6"},
    };
    RELAY_CASE(relay_begin(), "second fails", steps);
}

/* The worker's part is over only when all of them have sent all. */
static void test_released_early(void **state)
{
    (void)state;
#define FIRST_SENT                                                                                           \
    {1, BEGIN("1.1") BY_LAYER, DIALS}, {2, "kv:1000 welcome", OPEN("1.1")}, ENCODED,                         \
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=100", "kv:1000 kv_chunk number=0 #5"},                    \
    {                                                                                                        \
        6, SEAL("1.1"), "kv:1000 kv_end\nkv:1000 kv_commit\n" FREED("1.1")                                   \
    }
    static const struct core_step early[] = {
        FIRST_SENT,
        {7, "pool:1 release rid=1.1 reason=finished",
         "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "cancelled") "\ndrop #5\ndrop #6"},
    };
    static const struct core_step late[] = {
        FIRST_SENT,
        {7, "kv:1001 welcome", "kv:1001 kv_open rid=1.1"},
        {8, "kv:1001 kv_grant rid=1.1 credit_bytes=100",
         "kv:1001 kv_chunk number=0 #6\nkv:1001 kv_end\nkv:1001 kv_commit"},
        {9, "pool:1 release rid=1.1 reason=finished", ""},
        {10, "kv:1001 kv_done rid=1.1", "drop #6"},
        {11, "kv:1000 kv_done rid=1.1", OVER("1.1", "none") "\ndrop #5"},
    };
    RELAY_CASE(relay_begin(), "early", early);
    RELAY_CASE(relay_begin(), "late", late);
}

/* An encode that runs keeps the blocks until it is back, whichever transfer it is of. */
static void test_still_read(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED_BOTH,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "kv:1000 kv_abort rid=1.1", FAILED("1.1", "cancelled") "\nkv:1001 kv_abort rid=1.1"},
        {5, "pool:1 release rid=1.1", ""},
        {6, "encoded job=2 #6/44 digests=3,4 crc32c=92", "drop #6"},
        {7, "encoded job=1 #5/40 digests=1,2 crc32c=91", "drop #5\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "still read", steps);
}

/* A lost session concerns the transfer to that worker alone. */
static void test_goes_on(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED_BOTH,
        ENCODED,
        GRANTED,
        SEALED,
        CREDITED,
        {8, "kv:1001 unreachable", "kv:1001 hello"},
        {8, "kv:1000 kv_done rid=1.1", "drop #5"},
        {9, "kv:1001 welcome", "kv:1001 kv_open rid=1.1 resume=1 senders=2"},
        {10, "kv:1001 kv_done rid=1.1", OVER("1.1", "none") " bytes_raw=20480 bytes_sent=84\ndrop #6"},
    };
    RELAY_CASE(relay_begin(), "goes on", steps);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "parts=" PART("d0", "9", "0:1", "0:2", "1") "," PART("d0", "8", "1:2", "0:2", "1"),
        "parts=" PART("d0", "9", "2:4", "0:2", "1"), /* nothing that the pool has */
        "parts=" PART("d0", "9", "0:2", "1:1", "1"),
        "parts=d0::9:0:2:0:2:1",
    };
    char line[600];
    for (size_t i = 0; i < TS_ARRAY_SIZE(parts); i++) {
        snprintf(line, sizeof line, "%s%s", BEGIN("1.1"), parts[i]);
        const struct core_step steps[] = {{1, line, FAILED("1.1", "kv_mismatch") "\n" FREED("1.1")}};
        RELAY_CASE(relay_begin(), parts[i], steps);
    }
}

/* A part that has nothing of this pool comes from elsewhere. */
static void test_one_of_two(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BEGIN("1.1") "parts=" PART("d5", "7", "2:4", "0:2", "1") "," PART("d1", "8", "0:4", "0:2", "2"),
         "kv:1000 connect endpoint=d1\nkv:1000 hello"},
        {2, "kv:1000 welcome", OPEN("1.1") " decode_incarnation=8 layer_begin=0 layer_end=2 senders=2"},
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 #5/40 digests=1,2 crc32c=91", ""},
        {4, "encoded job=2 #6/44 digests=3,4 crc32c=92", ""},
        {5, SEAL("1.1"), FREED("1.1")},
        {6, "kv:1000 kv_grant rid=1.1 credit_bytes=100",
         "kv:1000 kv_chunk #5\nkv:1000 kv_chunk #6\nkv:1000 kv_end\nkv:1000 kv_commit senders=2"},
        {7, "kv:1000 kv_credit rid=1.1 bytes=84", ""},
        {8, "kv:1000 kv_done rid=1.1", OVER("1.1", "none") "\ndrop #5\ndrop #6"}, /* no copy of a part */
    };
    RELAY_CASE(relay_begin(), "one of two", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_layer),   cmocka_unit_test(test_by_head),
        cmocka_unit_test(test_one_fails),  cmocka_unit_test(test_second_fails),
        cmocka_unit_test(test_still_read), cmocka_unit_test(test_released_early),
        cmocka_unit_test(test_goes_on),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_one_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
