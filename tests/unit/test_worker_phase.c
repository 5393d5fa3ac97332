/* A worker is told to change its phase, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define SET(term, plan, phase) "worker:1 set_phase term=" term " plan=" plan " phase=" phase
#define REPLY(phase, reason)   "worker:1 phase_reply phase=" phase " reason=" reason

/* In effect at once; what runs in the former role goes on, over the same pool. */
static void test_flip(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "term=1 plan=1 #1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*20", "pool:1 kv_begin rid=1.1 blocks=0,1\ntext_open\nbatch batch=1"},
        {3, SET("1", "2", "decode"), "worker:1 phase_reply term=1 plan=2 phase=decode reason=none"},
        {3, "worker:1 " PREFILL("2.1") "term=1 plan=2 #2",
         "worker:1 assign_refused rid=2.1 role=prefill reason=wrong_phase\ndrop #2"},
        {3, "worker:1 " PREFILL("2.1") "term=1 plan=1 #2",
         "worker:1 assign_refused rid=2.1 role=prefill reason=stale_plan\ndrop #2"}, /* was on its way */
        {4, "worker:1 " DECODE("3.1") "term=1 plan=2", ""},
        {4, "worker:1 " DECODE("3.2") "role=both term=1 plan=2",
         "worker:1 assign_refused rid=3.2 role=both reason=wrong_phase"},
        {5, "kv:1 hello role=relay id=r1", "kv:1 welcome"},
        {5, "kv:1 " OPEN("3.1"), "kv:1 kv_grant rid=3.1"},
        {6, "layer_done batch=1 layer=0", "pool:1 kv_ready items=1.1:0:20"},
        {6, "batch_done batch=1 samples=1:42",
         "worker:1 report role=prefill\ntext_close\nworker:1 output role=prefill items=42\npool:1 kv_seal"},
        {7, "pool:1 kv_freed rid=1.1", ""},
        {7, "worker:1 release rid=1.1", "pool:1 release rid=1.1"},
        /* And back, with one that decodes. */
        {8, SET("1", "3", "prefill"), REPLY("prefill", "none")},
        {8, SET("1", "3", "prefill"), REPLY("prefill", "none")}, /* asked again */
        {9, "kv:1 kv_chunk rid=3.1 number=0 layer=0 head_count=2 token_count=20 #5/40",
         "scatter job=1 blocks=2,3 #5\ndrop #5"},
        {9, "worker:1 " DECODE("4.1") "term=1 plan=3", "worker:1 assign_refused rid=4.1 reason=wrong_phase"},
        {9, "worker:1 release rid=3.1", "kv:1 kv_abort rid=3.1"},
        {9, "scattered job=1 digests=7,8", ""},
        /* Colocated, and what comes of it with the next Hello. */
        {10, SET("1", "4", "both"), REPLY("both", "none")},
        {11, "worker:1 unreachable", "worker:1 hello profile.phase=both profile.phases=3"},
        {12, "worker:1 welcome", "worker:1 resync items="},
        {13, "worker:1 " BOTH("5.1") "term=1 plan=4 #5", "tokenise #5\ndrop #5"},
        {14, "worker:1 release rid=5.1", ""},
        {15, "tokenised job=3 ids=*20", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    WORKER_CASE(worker_begin_joined(&settings), "flip", steps);
}

/* An older plan than the newest seen does not count, whichever message brought that. */
static void test_stale(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " DECODE("1.1") "term=2 plan=5", ""},
        {2, SET("2", "4", "prefill"), "worker:1 phase_reply term=2 plan=4 phase=decode reason=stale_plan"},
        {2, SET("1", "9", "prefill"), REPLY("decode", "stale_plan")},
        {3, SET("2", "5", "both"), REPLY("both", "none")},
        {4, SET("3", "1", "decode"), REPLY("decode", "none")},
        {5, "worker:1 " DECODE("2.1") "term=2 plan=9", "worker:1 assign_refused rid=2.1 reason=stale_plan"},
        {5, "worker:1 " DECODE("2.1") "term=3 plan=1", ""},
        /* Another router counts from the start; the phase stays. */
        {6, "worker:1 unreachable", "worker:1 hello profile.phase=decode"},
        {7, "as=555 worker:1 welcome", "worker:1 resync items=1.1:decode:0,2.1:decode:0"},
        {8, "worker:1 resync_reply items=1.1:decode:cancel,2.1:decode:cancel", ""},
        {9, SET("1", "1", "both"), REPLY("both", "none")},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    WORKER_CASE(worker_begin_joined(&settings), "stale", steps);
}

/* What it is not willing to serve, or cannot; a refused plan is not counted as seen. */
static void test_unsupported(void **state)
{
    (void)state;
    static const struct core_step decode_only[] = {
        {1, SET("1", "2", "prefill"), "worker:1 phase_reply term=1 plan=2 phase=decode reason=unsupported"},
        {1, SET("1", "2", "both"), REPLY("decode", "unsupported")},
        {1, SET("1", "2", "none"), REPLY("decode", "unsupported")},
        {2, "worker:1 " DECODE("1.1") "term=1 plan=1", ""},
        {2, "worker:1 release rid=1.1", ""},
        {3, SET("1", "2", "decode"), REPLY("decode", "none")},
    };
    static const struct core_step no_relay[] = {
        {1, SET("1", "2", "prefill"), REPLY("decode", "unsupported")},
        {2, SET("1", "2", "both"), REPLY("both", "none")}, /* colocated needs none */
        {3, SET("1", "3", "decode"), REPLY("decode", "none")},
    };
    static const struct core_step relay_lost[] = {
        {1, "pool:1 unreachable", "pool:1 hello"},
        {1, "pool:1 unreachable", ""}, /* nor could the Hello be sent: when it is due again */
        {2, SET("1", "2", "prefill"), REPLY("prefill", "none")}, /* as it is: nothing changes */
        {3, SET("1", "3", "decode"), REPLY("decode", "none")},
        {4, SET("1", "4", "prefill"), REPLY("decode", "unsupported")},
        {5, "pool:1 welcome", "pool:1 pool"},
        {6, "pool:1 pool_reply reason=none", ""},
        {7, SET("1", "4", "prefill"), REPLY("prefill", "none")},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.profile.phases = TS_PHASE_DECODE;
    WORKER_CASE(worker_begin_joined(&settings), "decode only", decode_only);
    settings = worker_test_settings(TS_PHASE_DECODE);
    settings.relay_endpoint = "";
    WORKER_CASE(worker_begin_alone(&settings), "no relay", no_relay);
    settings = worker_test_settings(TS_PHASE_PREFILL);
    WORKER_CASE(worker_begin_joined(&settings), "relay lost", relay_lost);
}

/* Each router counts its own plans; the one that did not ask hears of the phase in a new Hello. */
static void test_two_routers(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start",
         "worker:1 connect\nworker:2 connect\nworker:1 hello profile.phase=decode\nworker:2 hello "
         "profile.phase=decode"},
        {1, "worker:1 welcome", "worker:1 resync"},
        {1, "worker:2 welcome", "worker:2 resync"},
        {2, SET("7", "1", "both"), REPLY("both", "none") "\nworker:2 hello profile.phase=both"},
        {3, "worker:2 welcome", "worker:2 resync"},
        {4, "worker:2 " BOTH("1.1") "term=1 plan=1 #1", "tokenise #1\ndrop #1"},
        {5, SET("7", "1", "both"), REPLY("both", "none")}, /* no change: nobody else needs to hear */
        {6, "worker:2 release rid=1.1", ""},
        {7, "tokenised job=1 ids=*2", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.relay_endpoint = "";
    settings.routers[1] = "tcp://router2";
    settings.router_count = 2;
    WORKER_CASE(worker_begin(&settings), "two routers", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flip),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_two_routers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
