/* The relay core, as tables: sessions, a transfer from KvBegin to its one end, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay_fixture.h"

static void test_life(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, BEGIN("1.1"), CONNECT},
        {1, BEGIN("1.1"), ""},
        {2, "kv:1000 welcome",
         OPEN("1.1") " fingerprint=7 decode_incarnation=9 " I8 " layer_begin=0 layer_end=2 layers=2 "
                     "head_end=2 "
                     "kv_heads=2 head_dim=64 kv_dtype=3 block_tokens=16 token_begin=0 token_count=20 "
                     "chain=77"},
        /* Encoding does not wait for the grant. */
        {3, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:16",
         "encode job=1 pool=1 layer=0 token_begin=0 token_count=16 blocks=4,6 generations=1,2"},
        {3, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:16:4",
         "encode job=2 layer=0 token_begin=16 token_count=4"},
        {3, "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:0:16",
         "encode job=3 layer=1 token_begin=0 token_count=16"},
        {4, "encoded job=1 #5/40 digests=1,2 crc32c=91 escapes=3", ""},
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=60",
         "kv:1000 kv_chunk rid=1.1 number=0 layer=0 head_begin=0 head_count=2 token_begin=0 token_count=16 "
         "escapes=3 crc32c=91 #5"},
        {6, "encoded job=2 #6/20 digests=4,8 crc32c=92",
         "kv:1000 kv_chunk number=1 layer=0 token_begin=16 token_count=4 #6"},
        {7, "encoded job=3 #7/20 digests=16,32 crc32c=93", ""}, /* no credit left */
        {8, "kv:1000 kv_credit rid=1.1 bytes=19", ""},
        {8, "kv:1000 kv_credit rid=1.1 bytes=1", "kv:1000 kv_chunk number=2 layer=1 #7"},
        {8, "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:16:4",
         "encode job=4 layer=1 token_begin=16 token_count=4"},
        {9, SEAL("1.1"), ""},
        {9, SEAL("1.1"), ""},
        /* Sealed and all encoded: the worker has its blocks back. */
        {10, "encoded job=4 #8/40 digests=64,128", FREED("1.1")},
        {11, "kv:1000 kv_credit rid=1.1 bytes=40",
         "kv:1000 kv_chunk number=3 #8\n"
         "kv:1000 kv_end rid=1.1 layer_begin=0 layer_end=2 head_begin=0 head_end=2 chunks=4 bytes_raw=20480 "
         "digests=5,10,80,160\n"
         "kv:1000 kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42 first=42:A"},
        {12, "kv:1000 kv_credit rid=1.1 bytes=40", ""},
        {13, "kv:1000 kv_done rid=1.1", OVER("1.1", "none") " bytes_raw=20480 run_ns=12000000"},
        {14, "kv:1000 kv_done rid=1.1", ""},
        {14, "pool:1 release rid=1.1", FREED("1.1")}, /* the worker may not have heard */
        {15, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:16", ""},
        /* The copy is the router's: it stays until the router releases the request. */
        {16, "relay:1 release rid=1.1", "drop #5\ndrop #6\ndrop #7\ndrop #8"},
    };
    RELAY_CASE(relay_begin(), "life", steps);
}

/* A damaged chunk goes again, three times in all; nothing else may be asked for. */
static void test_nacked_chunks(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        ENCODED,
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=50", "kv:1000 kv_chunk number=0 crc32c=91 #5"},
        {6, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", "kv:1000 kv_chunk number=0 crc32c=91 #5"},
        {7, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", "kv:1000 kv_chunk number=0 #5"},
        {8, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt",
         "kv:1000 kv_abort rid=1.1 reason=kv_corrupt\n" FAILED(
             "1.1", "kv_corrupt") "\ndrop #5\ndrop #6\n" FREED("1.1")},
    };
    static const struct core_step unsent[] = {
        OPENED,
        ENCODED,
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=50", "kv:1000 kv_chunk number=0 #5"},
        {6, "kv:1000 kv_nack rid=1.1 chunk=1 reason=kv_corrupt",
         "kv:1000 kv_abort rid=1.1 reason=kv_corrupt\n" FAILED(
             "1.1", "kv_corrupt") "\ndrop #5\ndrop #6\n" FREED("1.1")},
    };
    /* A repeat costs no credit: one credit for the chunk makes room for the next. */
    static const struct core_step repeated[] = {
        OPENED,
        ENCODED,
        {5, SEAL("1.1"), FREED("1.1")},
        {5, "kv:1000 kv_grant rid=1.1 credit_bytes=44", "kv:1000 kv_chunk number=0 #5"},
        {6, "kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", "kv:1000 kv_chunk number=0 #5"},
        {7, "kv:1000 kv_credit rid=1.1 bytes=40",
         "kv:1000 kv_chunk number=1 #6\nkv:1000 kv_end "
         "bytes_sent=124\nkv:1000 kv_commit"},
        {8, "kv:1000 kv_nack rid=1.1 chunk=1 reason=kv_corrupt", "kv:1000 kv_chunk number=1 #6"},
        {9, "kv:1000 kv_credit rid=1.1 bytes=100", ""}, /* more than was under way */
        {9, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {10, "relay:1 release rid=1.1", "drop #5\ndrop #6"},
    };
    struct core_fixture *f = relay_begin();
    CORE_RUN(f, "repeated", repeated);
    assert_int_equal(relay_core_counts(f->driver.core).chunks_repeated, 2);
    assert_int_equal(relay_core_counts(f->driver.core).credits_missing, 0);
    relay_end(&f);
    RELAY_CASE(relay_begin(), "nacked", steps);
    RELAY_CASE(relay_begin(), "not sent yet", unsent);
}

/* A chunk larger than the whole window goes when nothing else is under way. */
static void test_small_window(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        ENCODED,
        {5, SEAL("1.1"), FREED("1.1")},
        {6, "kv:1000 kv_grant rid=1.1 credit_bytes=10", "kv:1000 kv_chunk number=0 #5"},
        {7, "kv:1000 kv_credit rid=1.1 bytes=9", ""},
        {8, "kv:1000 kv_credit rid=1.1 bytes=40",
         "kv:1000 kv_chunk number=1 #6\nkv:1000 kv_end\nkv:1000 kv_commit"},
        {9, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        {10, "relay:1 release rid=1.1", "drop #5\ndrop #6"},
    };
    struct core_fixture *f = relay_begin();
    CORE_RUN(f, "small window", steps);
    assert_int_equal(relay_core_counts(f->driver.core).credits_missing, 1); /* 44 bytes were never credited */
    relay_end(&f);
}

/* Decode does not know the attempt yet: ask again, slower each time, but not for ever. */
static void test_no_assign(void **state)
{
    (void)state;
#define NO_ASSIGN "kv:1000 kv_nack rid=1.1 chunk=whole reason=no_assign"
    static const struct core_step steps[] = {
        OPENED,
        {10, NO_ASSIGN, ""},
        {29, "tick", ""},
        {30, "tick", OPEN("1.1")},
        {31, NO_ASSIGN, ""},
        {70, "tick", ""},
        {71, "tick", OPEN("1.1")},
        {72, NO_ASSIGN, ""},
        {151, "tick", ""},
        {152, "tick", OPEN("1.1")},
        {153, NO_ASSIGN, ""},
        {312, "tick", ""},
        {313, "tick", OPEN("1.1")},
        {314, NO_ASSIGN, ""},
        {513, "tick", ""},
        {514, "tick", OPEN("1.1")}, /* 200 ms at most */
        {4990, NO_ASSIGN, ""},
        {5000, "tick", ""},
        {5001, "tick",
         "kv:1000 kv_abort rid=1.1 reason=kv_timeout\n" FAILED("1.1", "kv_timeout") "\n" FREED("1.1")},
    };
    static const struct core_step no_link[] = {
        {1, BEGIN("1.1"), CONNECT},
        {500, "kv:1000 unreachable", ""}, /* nothing is lost: decode heard nothing yet */
        {1000, "tick", ""},
        {1001, "tick", "kv:1000 hello"}, /* when it was due, however often it could not be sent */
        {1001, "kv:1000 unreachable", ""},
        {5000, "tick", "kv:1000 hello"},
        {5001, "tick", FAILED("1.1", "kv_timeout") "\n" FREED("1.1")}, /* decode never heard of it */
    };
    RELAY_CASE(relay_begin(), "no assign", steps);
    RELAY_CASE(relay_begin(), "no link", no_link);
}

/* Centred keys: pieces begin at spans of 256 tokens; what does not fill one waits for more, or for the end.
 */
static void test_spans(void **state)
{
    (void)state;
#define EIGHT "1,1,1,1,1,1,1,1,"
#define LONG_BEGIN                                                                                           \
    "pool:1 kv_begin rid=1.1 decode=d0 endpoint=tcp://d0 decode_incarnation=9 token_count=600 "              \
    "codec.key.bits=4 codec.key.flags=7 codec.key.group=64 codec.value.bits=4 codec.value.flags=3 "          \
    "codec.value.group=64 blocks=" EIGHT EIGHT EIGHT EIGHT "1,1,1,1,1,1 generations=*38 "
    static const struct core_step steps[] = {
        {1, LONG_BEGIN, CONNECT},
        {2, "pool:1 kv_ready layer_begin=0 layer_end=2 items=1.1:0:240", ""},
        {3, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:240:32",
         "encode job=1 layer=0 token_begin=0 token_count=256"},
        /* The end of the last layer is cut finer. */
        {4, "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:240:360",
         "encode job=2 layer=1 token_begin=0 token_count=256\n"
         "encode job=3 layer=1 token_begin=256 token_count=256\n"
         "encode job=4 layer=1 token_begin=512 token_count=88"},
        {5, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:272:240",
         "encode job=5 layer=0 token_begin=256 token_count=256"},
        {6, "encoded job=1 #5/40 digests=1,2", ""},
        {6, "encoded job=2 #6/40 digests=1,2", ""},
        {6, "encoded job=3 #7/40 digests=1,2", ""},
        {6, "encoded job=4 #8/40 digests=1,2", ""},
        {6, "encoded job=5 #9/40 digests=1,2", ""},
        {7, "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:512:88",
         "encode job=6 layer=0 token_begin=512 token_count=88"},
        {8, "encoded job=6 reason=internal", "*"},
    };
    struct relay_settings settings = relay_test_settings();
    settings.chunk_tokens_max = 600;
    settings.encode_jobs_max = 8;
    RELAY_CASE(relay_begin_with(&settings), "spans", steps);
}

/* Every end of a transfer that decode or the router brings about. While the codec reads, the worker's blocks
 * are not freed; the second Release of the same attempt does not free them either. */
static void test_ends(void **state)
{
    (void)state;
    static const struct {
        const char *event, *actions;
    } cases[] = {
        {"kv:1000 kv_nack rid=1.1 chunk=whole reason=kv_mismatch text=bad",
         OVER("1.1", "kv_mismatch") " text=bad\npool:1 release rid=1.1 reason=kv_mismatch"},
        {"kv:1000 kv_nack rid=1.1 chunk=whole", FAILED("1.1", "internal")},
        {"kv:1000 kv_abort rid=1.1", FAILED("1.1", "cancelled")},
        {"pool:1 release rid=1.1 reason=cancelled",
         "kv:1000 kv_abort rid=1.1 reason=cancelled\n" FAILED("1.1", "cancelled")},
        {"relay:1 release rid=1.1", "kv:1000 kv_abort rid=1.1 reason=cancelled\n" FAILED("1.1", "cancelled")},
        {"pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:16",
         "kv:1000 kv_abort rid=1.1 reason=kv_mismatch\n" FAILED("1.1", "kv_mismatch")}, /* announced twice */
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct core_step steps[] = {
            OPENED,
            {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
            {4, cases[i].event, cases[i].actions},
            {5, "encoded job=1 #5/40 digests=1,2", "drop #5"},
            {6, "pool:1 release rid=1.1", ""},
            {7, "encoded job=2 #6/40 digests=1,2", "drop #6\n" FREED("1.1")},
            {8, "encoded job=2 #6/40 digests=1,2", "drop #6"},
        };
        RELAY_CASE(relay_begin(), cases[i].event, steps);
    }
}

static void test_codec_failed(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 reason=kv_corrupt", /* a block was given back meanwhile */
         "kv:1000 kv_abort rid=1.1 reason=kv_corrupt\n" FAILED("1.1", "kv_corrupt")},
        {5, "encoded job=2 #6/40 digests=1,2", "drop #6\n" FREED("1.1")},
    };
    RELAY_CASE(relay_begin(), "codec failed", steps);
}

/* What the worker may not announce. The faulty transfer never begins, or ends. */
static void test_faults(void **state)
{
    (void)state;
    static const char *const begins[] = {"token_count=0", "token_count=40", "blocks=4",
                                         "blocks=4,8",    "endpoint=",      "codec.key.bits=5"};
    static const char *const ready[] = {
        "layer_begin=2 layer_end=3 items=1.1:0:16", "layer_begin=0 layer_end=1 items=1.1:0:0",
        "layer_begin=0 layer_end=1 items=1.1:8:8", "layer_begin=0 layer_end=1 items=1.1:0:8",
        "layer_begin=0 layer_end=1 items=1.1:16:5"};
    char line[400];
    struct core_fixture *f = relay_begin();
    f->name = "faults";
    for (size_t i = 0; i < TS_ARRAY_SIZE(begins); i++) {
        snprintf(line, sizeof line, BEGIN("1.1") "%s", begins[i]);
        core_step_one(f, 1, line, FAILED("1.1", "kv_mismatch") "\n" FREED("1.1"));
    }
    core_step_one(f, 2, BEGIN("9.9"), CONNECT);
    core_step_one(f, 2, "kv:1000 welcome", OPEN("9.9"));
    for (size_t i = 0; i < TS_ARRAY_SIZE(ready); i++) {
        snprintf(line, sizeof line, "pool:1 kv_ready %s", ready[i]);
        core_step_one(f, 4, BEGIN("1.1"), OPEN("1.1"));
        core_step_one(f, 4, line,
                      "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "kv_mismatch") "\n" FREED("1.1"));
    }
    core_step_one(f, 5, "pool:1 release rid=9.9",
                  "kv:1000 kv_abort rid=9.9\n" FAILED("9.9", "cancelled") "\n" FREED("9.9"));
    relay_end(&f);
}

/* The prefill worker goes: what is not whole fails; what is whole goes on. */
static void test_pool_lost(void **state)
{
    (void)state;
    static const struct {
        const char *event, *before, *after;
    } cases[] = {
        {"pool:1 unreachable", "", ""},
        {"gap pool:1 release rid=9.9", "pool:1 reset fenced=0\n", ""},
        {"pool:1 hello role=worker id=p0", "", "\npool:1 welcome"},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char part[300], whole[300];
        snprintf(part, sizeof part,
                 "%skv:1000 kv_abort rid=1.1 reason=peer_lost\n" OVER(
                     "1.1", "peer_lost") "\ndrop #5\ndrop #6\nunmap_pool pool=1%s",
                 cases[i].before, cases[i].after);
        snprintf(whole, sizeof whole, "%sunmap_pool pool=1%s", cases[i].before, cases[i].after);
        const struct core_step incomplete[] = {OPENED, ENCODED, {5, cases[i].event, part}};
        const struct core_step complete[] = {
            OPENED,
            ENCODED,
            {5, SEAL("1.1"), FREED("1.1")},
            {6, cases[i].event, whole},
            {7, "kv:1000 kv_grant rid=1.1 credit_bytes=100",
             "kv:1000 kv_chunk #5\nkv:1000 kv_chunk #6\nkv:1000 kv_end\nkv:1000 kv_commit"},
            {8, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
            {9, "relay:1 release rid=1.1", "drop #5\ndrop #6"},
        };
        RELAY_CASE(relay_begin(), cases[i].event, incomplete);
        RELAY_CASE(relay_begin(), cases[i].event, complete);
    }
}

/* Bounds: jobs of the codec, tokens in a chunk, and bytes held for transfers that do not flow. */
static void test_bounds(void **state)
{
    (void)state;
    static const struct core_step jobs[] = {
        OPENED,
        {3, READY("1.1", "0"),
         "encode job=1 layer=0 token_begin=0 token_count=16"}, /* one at a time, 16 tokens */
        {4, "encoded job=1 #5/40 digests=1,2", "encode job=2 layer=0 token_begin=16 token_count=4"},
        {5, "pool:1 release rid=1.1", "kv:1000 kv_abort\n" FAILED("1.1", "cancelled") "\ndrop #5"},
        {6, "encoded job=2 #5/40 digests=1,2", "drop #5\n" FREED("1.1")},
    };
    static const struct core_step memory[] = {
        OPENED,
        {2, BEGIN("2.1"), OPEN("2.1")},
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 #5/40 digests=1,2", ""},
        {4, "encoded job=2 #6/40 digests=1,2", ""},
        {5, READY("2.1", "0"), ""}, /* 80 bytes are held: encoding waits */
        {6, "kv:1000 kv_grant rid=2.1 credit_bytes=100",
         ENCODE("3", "0") "\n" ENCODE("4", "1")}, /* flows: may go on */
        {7, "encoded job=3 #7/40 digests=1,2", "kv:1000 kv_chunk rid=2.1 #7"},
        {7, "encoded job=4 #8/40 digests=1,2", "kv:1000 kv_chunk rid=2.1 #8"},
        {8, "pool:1 release rid=1.1",
         "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "cancelled") "\ndrop #5\ndrop #6\n" FREED("1.1")},
        {9, "pool:1 release rid=2.1",
         "kv:1000 kv_abort rid=2.1\n" FAILED("2.1", "cancelled") "\ndrop #7\ndrop #8\n" FREED("2.1")},
    };
    struct relay_settings settings = relay_test_settings();
    settings.encode_jobs_max = 1;
    settings.chunk_tokens_max = 31;
    RELAY_CASE(relay_begin_with(&settings), "jobs", jobs);
    settings = relay_test_settings();
    settings.encoded_bytes_max = 80;
    RELAY_CASE(relay_begin_with(&settings), "memory", memory);
}

static void test_sessions(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {1000, "tick", "relay:1 hello"},
        {1001, "as=500 relay:1 welcome", ""},
        {1501, "tick", "relay:1 heartbeat"},
        {1502, "pool:3 kv_begin rid=1.1", "pool:3 reset fenced=0"}, /* nobody it knows */
        {1502, "pool:3 hello role=relay id=x", ""},
        {1503, "pool:1 hello role=worker id=p0", "pool:1 welcome heartbeat_ms=500 timeout_ms=3000"},
        {1503, "pool:1 " POOL " layer_end=3", "pool:1 pool_reply reason=kv_mismatch"},
        {1503, "pool:1 " POOL " layers=257 layer_end=257", "pool:1 pool_reply reason=kv_mismatch"},
        {1503, "pool:1 " POOL " head_begin=2", "pool:1 pool_reply reason=kv_mismatch"},
        {1504, "pool:1 " POOL, "map_pool pool=1"},
        {1505, "pool_mapped pool=1 reason=unsupported text=no",
         "pool:1 pool_reply reason=unsupported text=no\nunmap_pool pool=1"},
        {1506, BEGIN("1.1"), FAILED("1.1", "kv_mismatch") "\n" FREED("1.1")},
        {1600, "relay:1 reset fenced=1", "relay:1 hello"},
        {1700, "relay:1 unreachable", ""},
        {1800, "as=500 relay:1 welcome", ""},
        {1900, "gap relay:1 heartbeat", "relay:1 hello"},
        {1901, "as=500 relay:1 welcome", ""},
        {1902, "relay:1 refeed from=1.1 rid=1.2", OVER("1.2", "no_copy")},
        {4505, "tick", "relay:1 heartbeat\npool:1 heartbeat"},
        {4506, "tick", ""}, /* silence */
        {4507, "pool:1 heartbeat", "pool:1 reset"},
    };
    struct relay_settings settings = relay_test_settings();
    settings.heartbeat_ms = 500;
    settings.timeout_ms = 3000;
    RELAY_CASE(relay_begin_alone(&settings), "sessions", steps);
}

/* Silence of decode ends its transfers; an unused connection is closed. */
static void test_links(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {1502, "pool:1 heartbeat",
         "relay:1 heartbeat load.waiting=1 load.encoded_bytes=0\npool:1 heartbeat\nkv:1000 heartbeat"},
        {3001, "relay:1 heartbeat", "*"},
        {3002, "tick", "kv:1000 hello"},
        {3100, "kv:1000 welcome", OPEN("1.1")},
        {3101, "kv:1000 kv_abort rid=1.1", FAILED("1.1", "cancelled") "\n" FREED("1.1")},
        {4100, "pool:1 heartbeat", "*"},
        {4101, "tick", "kv:1000 disconnect"},
        {4103, "kv:1000 kv_done rid=1.1", ""},
        {4104, BEGIN("1.2"), "kv:1001 connect endpoint=tcp://d0\nkv:1001 hello"}, /* never the same number */
        {4105, "pool:1 release rid=1.2", FAILED("1.2", "cancelled") "\n" FREED("1.2")},
    };
    struct relay_settings settings = relay_test_settings();
    settings.heartbeat_ms = 500;
    settings.timeout_ms = 3000;
    settings.idle_link_ms = 1000;
    RELAY_CASE(relay_begin_with(&settings), "links", steps);
}

static void test_drain(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {2, "drain", "relay:1 drain"},
        {2, "relay:1 unreachable", "relay:1 hello"},
        {2, "as=500 relay:1 welcome", "relay:1 drain"}, /* it may not have heard */
        {3, BEGIN("2.1"), FAILED("2.1", "draining") "\n" FREED("2.1")},
        {4, "kv:1000 kv_abort rid=1.1", FAILED("1.1", "cancelled") "\n" FREED("1.1") "\nstop"},
    };
    static const struct core_step idle[] = {{1, "relay:1 drain", "relay:1 drain\nstop"}};
    RELAY_CASE(relay_begin(), "drain", steps);
    RELAY_CASE(relay_begin(), "idle", idle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),         cmocka_unit_test(test_nacked_chunks),
        cmocka_unit_test(test_no_assign),    cmocka_unit_test(test_ends),
        cmocka_unit_test(test_codec_failed), cmocka_unit_test(test_spans),
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_pool_lost),
        cmocka_unit_test(test_bounds),       cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_links),        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_small_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
