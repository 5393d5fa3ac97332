/* What both roles of a worker share, as tables: sessions, Resync, fencing, drain, load, one pool for both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define HELLO  "worker:1 hello role=worker id=w0"
#define RESYNC "worker:1 resync items=1.1:decode:0"

static struct worker_settings ticking(void)
{
    struct worker_settings s = worker_test_settings(TS_PHASE_DECODE);
    s.relay_endpoint = "";
    s.heartbeat_ms = 500;
    s.timeout_ms = 3000;
    s.router_lost_ms = 10000;
    return s;
}

static void test_session(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "worker:1 connect endpoint=tcp://router\n" HELLO},
        {500, "worker:1 unreachable", ""}, /* a Hello that could not be sent: when it is due again */
        {999, "tick", ""},
        {1000, "tick", HELLO}, /* until welcomed */
        {1000, "worker:1 unreachable", ""},
        {1500, "worker:1 welcome heartbeat_ms=400 timeout_ms=2000", "worker:1 resync items="},
        {1501, "worker:1 " DECODE("1.1"), ""},
        {1900, "tick", "worker:1 heartbeat load.waiting=1 load.running=0 load.kv_blocks=8"},
        {2000, "worker:7 heartbeat", ""}, /* no such router */
        {2001, "old worker:1 release rid=1.1", ""},
        {2100, "worker:1 heartbeat", ""},
        {2200, "gap worker:1 release rid=1.1", HELLO}, /* what was lost may matter: Resync tells */
        {2300, "worker:1 welcome heartbeat_ms=400 timeout_ms=2000", RESYNC},
        {2301, "worker:1 resync_reply items=1.1:decode:keep", ""},
        {2400, "worker:1 reset reason=peer_lost", HELLO},
        {2401, "worker:1 welcome heartbeat_ms=400 timeout_ms=2000", RESYNC},
        {2801, "tick", "worker:1 heartbeat"},
        {3201, "tick", "worker:1 heartbeat"},
        {4400, "tick", "worker:1 heartbeat"},
        {4401, "tick", HELLO}, /* silence */
        {4402, "worker:1 welcome heartbeat_ms=400 timeout_ms=2000", RESYNC},
        {4403, "worker:1 release rid=1.1", ""},
    };
    struct worker_settings settings = ticking();
    WORKER_CASE(worker_begin(&settings), "session", steps);
}

/* The load is told at every interval, however much else the router hears. */
static void test_load_while_busy(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {1, "worker:1 welcome heartbeat_ms=400 timeout_ms=2000", "worker:1 resync items="},
        {2, "worker:1 " DECODE("1.1"), ""},
        {399, "worker:1 assign role=decode rid=1.2 fingerprint=8", "worker:1 assign_refused rid=1.2"},
        {401, "tick", "worker:1 heartbeat load.waiting=1 load.kv_blocks=8"},
        {700, "worker:1 assign role=decode rid=1.3 fingerprint=8", "worker:1 assign_refused rid=1.3"},
        {800, "tick", ""},
        {801, "tick", "worker:1 heartbeat load.waiting=1"},
        {802, "worker:1 release rid=1.1", ""},
    };
    struct worker_settings settings = ticking();
    struct core_fixture *f = worker_begin(&settings);
    CORE_RUN(f, "load while busy", steps);
    assert_int_equal(worker_core_deadline(worker_of(f)), 1201 * TS_MS);
    worker_end(&f);
}

/* Work outlives its router for a while, and not longer. */
static void test_router_lost(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {1, "worker:1 welcome", "worker:1 resync items="},
        {2, "worker:1 " DECODE("1.1"), ""},
        {100, "worker:1 unreachable", HELLO},
        {10099, "tick", HELLO},
    };
    struct worker_settings settings = ticking();
    struct core_fixture *f = worker_begin(&settings);
    CORE_RUN(f, "router lost", steps);
    assert_false(worker_core_idle(worker_of(f)));
    core_step_one(f, 10100, "tick", "");
    assert_true(worker_core_idle(worker_of(f)));
    worker_end(&f);
}

/* Declared dead: everything of that router is dropped, and it comes back as somebody else. */
static void test_fenced(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {1, "worker:1 welcome", "worker:1 resync items="},
        {2, "worker:1 " DECODE("1.1"), ""},
        {3, "worker:1 reset fenced=1 incarnation=800", HELLO},
        {3, "worker:1 reset fenced=1 incarnation=800", ""}, /* each message of before is answered */
        {4, "worker:1 welcome", "worker:1 resync items="},
        {4, "worker:1 reset fenced=1 incarnation=800 session=1", ""},
    };
    struct worker_settings settings = ticking();
    struct core_fixture *f = worker_begin(&settings);
    CORE_RUN(f, "fenced", steps);
    for (size_t i = 0; i < f->out.count; i++) {
        if (f->out.items[i].kind == TS_ACTION_SEND)
            assert_int_not_equal(f->out.items[i].send.envelope.incarnation, 800);
    }
    worker_end(&f);
}

/* What happened while no session was up is found out by Resync: output goes again, a failure is not listed.
 */
static void test_resync(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {1, "worker:1 " PREFILL("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {2, "tokenised job=1 ids=*20", "pool:1 kv_begin\ntext_open\nbatch batch=1"},
        {3, "worker:1 unreachable", HELLO},
        {4, "tokenised job=2 reason=bad_request", ""}, /* nobody hears of it */
        {5, "batch_done batch=1 samples=1:42", "text_close\npool:1 kv_seal"},
        {6, "worker:1 welcome", "worker:1 resync items=1.1:prefill:1"},
        {7, "worker:1 resync_reply items=1.1:prefill:resend:0",
         "worker:1 output rid=1.1 first_index=0 items=42"},
        {8, "worker:1 release rid=1.1", "pool:1 release"},
        {9, "pool:1 kv_freed rid=1.1", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_PREFILL);
    struct core_fixture *f = worker_begin_joined(&settings);
    CORE_RUN(f, "resync", steps);
    assert_int_equal(worker_core_counts(worker_of(f)).resent, 1);
    worker_end(&f);
}

static void test_drain(void **state)
{
    (void)state;
    static const struct core_step by_router[] = {
        {1, "worker:1 " DECODE("1.1"), ""},
        {2, "worker:1 drain", "worker:1 drain"},
        {2, "worker:1 drain", ""},
        {3, "worker:1 " DECODE("2.1"), "worker:1 assign_refused rid=2.1 reason=draining"},
        {4, "worker:1 unreachable", HELLO},
        {5, "worker:1 welcome", RESYNC "\nworker:1 drain"}, /* it may not have heard */
        {6, "worker:1 release rid=1.1", "stop"},
    };
    static const struct core_step by_signal[] = {{1, "drain", "worker:1 drain\nstop"}};
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    WORKER_CASE(worker_begin_joined(&settings), "drained by the router", by_router);
    WORKER_CASE(worker_begin_joined(&settings), "drained by a signal", by_signal);
}

/* What a worker cannot do is refused in words. */
static void test_unsupported(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {2, "worker:1 detokenize id=4 tokens=1", "worker:1 tokenize_reply id=4 reason=unsupported"},
        {2, "worker:1 tokenize id=3 add_special=1 #1", "tokenise job=1 prompt_kind=text #1\ndrop #1"},
        {3, "tokenised job=1 ids=5,6", "worker:1 tokenize_reply id=3 reason=none tokens=5,6"},
        {3, "worker:1 tokenize id=6 #1", "worker:1 tokenize_reply id=6 reason=unsupported\ndrop #1"},
        {4, "worker:1 tokenize id=5 add_special=1 #1", "tokenise job=2 #1\ndrop #1"},
        {5, "tokenised job=2 reason=bad_request", "worker:1 tokenize_reply id=5 reason=bad_request tokens="},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.profile.tokenizer = true;
    WORKER_CASE(worker_begin_joined(&settings), "unsupported", steps);
}

/* A worker of both phases: one pool, one batch with decode rows first. */
static void test_both_phases(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " DECODE("1.1"), ""},
        {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=2 #1\ndrop #1"},
        {2, "tokenised job=2 ids=*20",
         "pool:1 kv_begin blocks=0,1\ntext_open tag=2\nbatch batch=1 rows=2:0:*20"},
        {3, "kv:1 hello role=relay id=r0", "kv:1 welcome"},
        {4, "kv:1 " OPEN("1.1"), "kv:1 kv_grant"},
        {5, "kv:1 kv_chunk rid=1.1 number=0 layer=0 head_count=2 token_count=20 #5/40",
         "scatter job=1 blocks=2,3 #5\ndrop #5"},
        {5, "kv:1 kv_chunk rid=1.1 number=1 layer=1 head_count=2 token_count=20 #6/40",
         "scatter job=2 #6\ndrop #6"},
        {6, "scattered job=1 digests=7,8", "kv:1 kv_credit"},
        {6, "scattered job=2 digests=9,1", "kv:1 kv_credit"},
        {7, "batch_done batch=1 samples=2:42",
         "worker:1 report role=prefill\ntext_close tag=2\nworker:1 output role=prefill\npool:1 kv_seal"},
        {8, "kv:1 kv_end rid=1.1 chunks=2 digests=7,8,9,1", ""},
        {8, "kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42",
         "kv:1 kv_done\nworker:1 report role=decode\ntext_open tag=1\nworker:1 output role=decode\nbatch "
         "batch=2 rows=1:20:42"},
        {9, "worker:1 " PREFILL("2.1") "age_ms=9 #2", "tokenise job=3 #2\ndrop #2"},
        {10, "tokenised job=3 ids=*20", "pool:1 kv_begin rid=2.1\ntext_open tag=3"},
        {11, "batch_done batch=2 samples=1:43",
         "worker:1 output\nbatch batch=3 report_layers=1 rows=1:21:43,3:0:*20"},
        {12, "layer_done batch=3 layer=1", "pool:1 kv_ready layer_begin=1 items=2.1:0:20"},
        {13, "worker:1 release rid=1.1", "pool:1 release rid=1.1\ntext_close tag=1"},
        {13, "worker:1 release rid=2.1", "text_close tag=3\npool:1 release rid=2.1"},
        {14, "pool:1 kv_freed rid=1.1", ""},
        {14, "pool:1 kv_freed rid=2.1", ""},
        {15, "batch_done batch=3 samples=1:44,3:5", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    WORKER_CASE(worker_begin_joined(&settings), "both phases", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),     cmocka_unit_test(test_router_lost),
        cmocka_unit_test(test_fenced),      cmocka_unit_test(test_resync),
        cmocka_unit_test(test_drain),       cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_both_phases), cmocka_unit_test(test_load_while_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
