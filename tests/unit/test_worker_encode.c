/* A worker that encodes for a relay which does not read its pool, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker_fixture.h"

/* Both blocks hold the prompt; all layers are computed. */
#define COMPUTED                                                                                             \
    {1, "worker:1 " PREFILL("1.1") "#1", "*"}, {2, "tokenised job=1 ids=*20", "*"},                          \
        {3, "layer_done batch=1 layer=0", "*"}, {3, "layer_done batch=1 layer=1", "*"},                      \
    {                                                                                                        \
        4, "batch_done batch=1 samples=1:42", "*"                                                            \
    }
#define ASK(job, layer)                                                                                      \
    "pool:1 kv_encode rid=1.1 job=" job " " I8 " layer=" layer " head_count=2 token_count=20"
#define DO(job, layer)                                                                                       \
    "encode job=" job " pool=0 " I8 " layer=" layer " head_begin=0 head_count=2 token_begin=0 "              \
    "token_count=20 blocks=0,1 generations=0,0"

static struct core_fixture *begin(void)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    settings.pool.encodes = true;
    return worker_begin_joined(&settings);
}

static void test_encodes(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        COMPUTED,
        {5, ASK("70", "0"), DO("1", "0")},
        {5, ASK("71", "1"), DO("2", "1")},
        {6, "encoded job=2 #5/40 digests=1,2 crc32c=91 escapes=3",
         "pool:1 kv_encoded job=71 reason=none digests=1,2 crc32c=91 escapes=3 #5/40\ndrop #5"},
        {7, "encoded job=1 reason=kv_no_memory", "pool:1 kv_encoded job=70 reason=kv_no_memory"},
        {8, "encoded job=1 #6/40", "drop #6"}, /* a job that is over */
        {9, "pool:1 kv_freed rid=1.1", ""},
        {9, ASK("72", "0"), "pool:1 kv_encoded job=72 reason=cancelled"}, /* the blocks are given back */
        {10, "worker:1 release rid=1.1 reason=finished", "*"},
    };
    WORKER_CASE(begin(), "encodes", steps);
}

/* Blocks stay while they are read, whatever became of the request and of the relay. */
static void test_blocks_stay(void **state)
{
    (void)state;
    static const struct core_step released[] = {
        COMPUTED,
        {5, ASK("70", "0"), DO("1", "0")},
        {6, "worker:1 release rid=1.1", "pool:1 release rid=1.1"},
        {7, ASK("71", "1"), DO("2", "1")}, /* was on its way: the relay drops what comes of it */
        {8, "encoded job=1 #5/40", "pool:1 kv_encoded job=70 #5/40\ndrop #5"},
        {8, "encoded job=2 #6/40", "pool:1 kv_encoded job=71 #6/40\ndrop #6"},
        {9, "pool:1 kv_freed rid=1.1", ""},
    };
    static const struct core_step cut[] = {
        COMPUTED,
        {5, ASK("70", "0"), DO("1", "0")},
        {6, "pool:1 unreachable", "worker:1 attempt_failed rid=1.1 reason=peer_lost\npool:1 hello"},
        {7, "pool:1 welcome", "pool:1 pool"},
        {8, "encoded job=1 #5/40", "drop #5"}, /* nobody asks for it any more */
    };
    WORKER_CASE(begin(), "released", released);
    WORKER_CASE(begin(), "cut", cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodes),
        cmocka_unit_test(test_blocks_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
