/* What decode has already is encoded for the copy, and not sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay_fixture.h"

#define PART(job, layer, begin, count)                                                                       \
    "encode job=" job " layer=" layer " token_begin=" begin " token_count=" count

/* Encoded before the grant: what lies wholly before is left out, and its digests, too; a copy has all. */
static void test_left_out(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, "pool:1 kv_ready layer_end=1 items=1.1:0:16", PART("1", "0", "0", "16")},
        {3, "pool:1 kv_ready layer_end=1 items=1.1:16:4", PART("2", "0", "16", "4")},
        {3, "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:0:20", PART("3", "1", "0", "20")},
        {4, "encoded job=1 #5/40 digests=1,2 crc32c=91", ""},
        {4, "encoded job=2 #6/10 digests=4,8 crc32c=92", ""},
        {4, "encoded job=3 #7/50 digests=16,32 crc32c=93", ""},
        {5, SEAL("1.1"), FREED("1.1")},
        {6, "kv:1000 kv_grant rid=1.1 token_begin=16 credit_bytes=1000",
         "kv:1000 kv_chunk number=1 layer=0 token_begin=16 token_count=4 #6\n"
         "kv:1000 kv_chunk number=2 layer=1 token_begin=0 token_count=20 #7\n"
         "kv:1000 kv_end chunks=2 bytes_sent=60 digests=4,8,16,32\nkv:1000 kv_commit"},
        {7, "kv:1000 kv_credit rid=1.1 bytes=60", ""},
        {7, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {8, "relay:1 refeed from=1.1 rid=1.2 decode=d0 endpoint=tcp://d0 decode_incarnation=9", OPEN("1.2")},
        {9, "kv:1000 kv_grant rid=1.2 token_begin=0 credit_bytes=1000",
         "kv:1000 kv_chunk number=0 #5\nkv:1000 kv_chunk number=1 #6\nkv:1000 kv_chunk number=2 #7\n"
         "kv:1000 kv_end chunks=3 bytes_sent=100 digests=5,10,16,32\nkv:1000 kv_commit"},
        {10, "kv:1000 kv_credit rid=1.2 bytes=100", ""},
        {10, "kv:1000 kv_done rid=1.2", OVER("1.2", "none")},
        {11, "relay:1 release rid=1.2", "drop #5\ndrop #6\ndrop #7"},
    };
    RELAY_CASE(relay_begin(), "left out", steps);
}

/* Ready after the grant: cut where that begins which decode lacks. All there: only the end is sent. */
static void test_cut(void **state)
{
    (void)state;
    static const struct core_step cut[] = {
        OPENED,
        {3, "kv:1000 kv_grant rid=1.1 token_begin=16 credit_bytes=1000", ""},
        {4, "pool:1 kv_ready layer_end=1 items=1.1:0:20",
         PART("1", "0", "0", "16") "\n" PART("2", "0", "16", "4")},
        {5, "encoded job=1 #5/40 digests=1,2", ""},
        {5, "encoded job=2 #6/10 digests=4,8", "kv:1000 kv_chunk number=1 token_begin=16 #6"},
        {6, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", /* never sent */
         "kv:1000 kv_abort rid=1.1 reason=kv_corrupt\n" FAILED(
             "1.1", "kv_corrupt") "\ndrop #5\ndrop #6\n" FREED("1.1")},
    };
    static const struct core_step odd[] = {
        OPENED,
        {3, "kv:1000 kv_grant rid=1.1 token_begin=8 credit_bytes=1000",
         "kv:1000 kv_abort rid=1.1 reason=kv_mismatch\n" FAILED("1.1", "kv_mismatch") "\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "cut", cut);
    RELAY_CASE(relay_begin(), "no end of a span", odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
