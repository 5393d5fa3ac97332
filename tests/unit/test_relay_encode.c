/* Who encodes: the relay from the pools that it has mapped, or their worker, which it asks. As tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay_fixture.h"

#define ANSWER_1 "pool:1 kv_encoded job=1 digests=1,2 crc32c=91 escapes=3 #5/40"
#define ANSWER_2 "pool:1 kv_encoded job=2 digests=3,4 crc32c=92 #6/44"
#define GRANT    "kv:1000 kv_grant rid=1.1 credit_bytes=100"
#define CHUNK_1  "kv:1000 kv_chunk number=0 layer=0 escapes=3 crc32c=91 #5/40"
#define CHUNK_2  "kv:1000 kv_chunk number=1 layer=1 crc32c=92 #6/44"
#define END      "kv:1000 kv_end chunks=2 digests=1,2,3,4\nkv:1000 kv_commit rid=1.1"

static struct core_fixture *begin(bool workers_encode)
{
    struct relay_settings settings = relay_test_settings();
    settings.workers_encode = workers_encode;
    return relay_begin_encoding(&settings);
}

static void test_worker_encodes(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        OPENED,
        {3, READY("1.1", "0"), ASK("1.1", "1", "0") "\n" ASK("1.1", "2", "1")},
        {4, ANSWER_1, ""},
        {4, ANSWER_1, "drop #5"}, /* once for each */
        {5, GRANT, CHUNK_1},
        {6, SEAL("1.1"), ""},
        {7, ANSWER_2, FREED("1.1") "\n" CHUNK_2 "\n" END},
        {8, "kv:1000 kv_credit rid=1.1 chunk=1", ""},
        {8, "kv:1000 kv_credit rid=1.1 chunk=2", ""},
        {9, "kv:1000 kv_done rid=1.1", OVER("1.1", "none")},
        /* the copy is here, whoever encoded it */
        {10, "relay:1 refeed from=1.1 rid=1.2 decode=d0 endpoint=tcp://d0 decode_incarnation=9",
         "kv:1000 kv_open rid=1.2"},
        {11, "kv:1000 kv_grant rid=1.2 credit_bytes=100", "*"},
        {12, "relay:1 release rid=1.2", "*"},
    };
    RELAY_CASE(begin(true), "the worker encodes", steps);
}

/* What the worker cannot give, or gives too late. */
static void test_worker_fails(void **state)
{
    (void)state;
    static const struct core_step refuses[] = {
        OPENED,
        {3, READY("1.1", "0"), "*"},
        {4, "pool:1 kv_encoded job=1 reason=kv_no_memory",
         "kv:1000 kv_abort rid=1.1 reason=kv_no_memory\n" FAILED("1.1", "kv_no_memory")},
        {5, ANSWER_2, "drop #6\n" FREED("1.1")},
    };
    static const struct core_step goes[] = {
        OPENED,
        {3, READY("1.1", "0"), "*"},
        {4, ANSWER_1, ""},
        {5, "pool:1 unreachable",
         "kv:1000 kv_abort rid=1.1 reason=peer_lost\n" OVER("1.1", "peer_lost") "\ndrop #5"},
        {6, ANSWER_2, "pool:1 reset\ndrop #6"},
        {7, "pool:1 hello role=worker id=p0", "pool:1 welcome"},
        {8, "pool:1 " POOL " encodes=1", "pool:1 pool_reply reason=none"},
        {9, "pool:1 kv_encoded job=2 #7/44", "drop #7"}, /* of a session that is over */
    };
    static const struct core_step stranger[] = {
        OPENED,
        {3, READY("1.1", "0"), "*"},
        {4, "pool:2 hello role=worker id=p1", "pool:2 welcome"},
        {4, "pool:2 " POOL " encodes=1", "pool:2 pool_reply reason=none"},
        {5, "pool:2 kv_encoded job=1 digests=1,2 #8/40", "drop #8"},
        {6, "pool:1 release rid=1.1", "kv:1000 kv_abort rid=1.1\n" FAILED("1.1", "cancelled")},
        {7, ANSWER_1, "drop #5"},
        {8, ANSWER_2, "drop #6\n" FREED("1.1")},
    };
    RELAY_CASE(begin(true), "refuses", refuses);
    RELAY_CASE(begin(true), "goes", goes);
    RELAY_CASE(begin(true), "another worker answers", stranger);
}

/* Only who says that it can is asked; the setting does not refuse the others. */
static void test_a_worker_that_cannot(void **state)
{
    (void)state;
    struct relay_settings settings = relay_test_settings();
    settings.workers_encode = true;
    static const struct core_step steps[] = {
        OPENED,
        ENCODED,
        {5, "pool:1 kv_encoded job=1 #9/40", "drop #9"},
        {6, "kv:1000 kv_abort rid=1.1", "*"},
    };
    RELAY_CASE(relay_begin_with(&settings), "cannot", steps);
}

/* Of what it cannot map a worker encodes; what contradicts itself is refused. */
static void test_not_mapped(void **state)
{
    (void)state;
    static const struct core_step join[] = {
        {0, "start", "*"},
        {0, "as=500 relay:1 welcome", ""},
        {0, "pool:1 hello role=worker id=p0", "pool:1 welcome"},
        {0, "pool:1 " POOL " encodes=1 device=GPU-1 share=ab device_offset=512",
         "map_pool pool=1 layout.device=GPU-1 layout.share=ab layout.device_offset=512"},
    };
    static const struct core_step other[] = {
        {0, "pool_mapped pool=1 reason=unsupported text=no",
         "pool:1 pool_reply reason=none text=no\nunmap_pool pool=1"},
        OPENED,
        {3, READY("1.1", "0"), ASK("1.1", "1", "0") "\n" ASK("1.1", "2", "1")},
        {4, "pool:1 release rid=1.1", "*"},
        {5, ANSWER_1, "drop #5"},
        {5, ANSWER_2, "*"},
        {6, "pool:1 unreachable", ""}, /* nothing is mapped */
    };
    static const struct core_step wrong[] = {
        {0, "pool_mapped pool=1 reason=kv_mismatch text=no",
         "pool:1 pool_reply reason=unsupported text=no\nunmap_pool pool=1"},
        {1, BEGIN("1.1"), FAILED("1.1", "kv_mismatch") "\n" FREED("1.1")},
    };
    struct relay_settings settings = relay_test_settings();
    struct core_fixture *f = relay_begin_alone(&settings);
    CORE_RUN(f, "join", join);
    RELAY_CASE(f, "not mapped", other);
    f = relay_begin_alone(&settings);
    CORE_RUN(f, "join", join);
    RELAY_CASE(f, "contradicts itself", wrong);
}

/* Want of memory is of one piece; a lost device is for good, and running jobs come back with it. */
static void test_device_fails(void **state)
{
    (void)state;
    static const struct core_step memory[] = {
        OPENED,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 reason=kv_no_memory text=full", ASK("1.1", "1", "0")},
        {5, "encoded job=1 #9/40", "drop #9"}, /* not ours any more */
        {5, "encoded job=2 #6/44 digests=3,4 crc32c=92", ""},
        {6, ANSWER_1, ""},
        {7, GRANT, "kv:1000 kv_chunk number=0 layer=1 #6/44\nkv:1000 kv_chunk number=1 layer=0 #5/40"},
        {8, "kv:1000 kv_abort rid=1.1", "*"},
    };
    static const struct core_step lost[] = {
        OPENED,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=2 reason=engine text=gone",
         "pool:1 pool_reply reason=none text=gone\nunmap_pool pool=1\n" ASK("1.1", "2", "1")},
        {5, "encoded job=1 reason=engine text=gone", ASK("1.1", "1", "0")},
        {6, ANSWER_2, ""},
        {6, ANSWER_1, ""},
        {7, "kv:1000 kv_abort rid=1.1", "*"},
        {8,
         "pool:1 kv_begin rid=2.1 decode=d0 endpoint=tcp://d0 decode_incarnation=9 " I8 " token_count=20 "
         "blocks=4,6 generations=1,2 chain=77",
         "kv:1000 kv_open rid=2.1"},
        {9, READY("2.1", "0"), ASK("2.1", "3", "0") "\n" ASK("2.1", "4", "1")},
        {10, "pool:1 unreachable", "*"},
    };
    RELAY_CASE(begin(false), "no memory", memory);
    RELAY_CASE(begin(false), "lost", lost);
}

/* The same with a worker that cannot encode: it hears that its pool is of no use any more. */
static void test_device_fails_alone(void **state)
{
    (void)state;
    static const struct core_step memory[] = {
        OPENED,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 reason=kv_no_memory",
         "kv:1000 kv_abort rid=1.1 reason=kv_no_memory\n" FAILED("1.1", "kv_no_memory")},
        {5, "encoded job=2 #6/44", "drop #6\n" FREED("1.1")},
    };
    static const struct core_step lost[] = {
        OPENED,
        {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},
        {4, "encoded job=1 reason=engine text=gone",
         "pool:1 pool_reply reason=unsupported text=gone\nunmap_pool pool=1\n"
         "kv:1000 kv_abort rid=1.1 reason=engine\n" FAILED("1.1", "engine")},
        {5, "encoded job=2 reason=engine", FREED("1.1")},
        {6, BEGIN("2.1"), FAILED("2.1", "kv_mismatch") "\n" FREED("2.1")},
    };
    RELAY_CASE(relay_begin(), "no memory", memory);
    RELAY_CASE(relay_begin(), "lost", lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_encodes),       cmocka_unit_test(test_worker_fails),
        cmocka_unit_test(test_a_worker_that_cannot), cmocka_unit_test(test_not_mapped),
        cmocka_unit_test(test_device_fails),         cmocka_unit_test(test_device_fails_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
