/* A request towards its client, as tables: admission, attaching, detaching, its one end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "router_fixture.h"
#include "services/router/router_impl.h"

#define ASSIGNED(rid, bulk)                                                                                  \
    "worker:2 assign role=decode rid=" rid "\n"                                                              \
    "worker:1 assign role=prefill rid=" rid " decode=d0 decode_endpoint=tcp://d0 " bulk
#define RELEASED(rid, why)                                                                                   \
    "worker:1 release rid=" rid " reason=" why "\nworker:2 release rid=" rid " reason=" why

/* What an ended request leaves: the two workers let go, the prompt dropped, End, a trace. */
#define ENDED(rid, bulk, released, words)                                                                    \
    RELEASED(rid, released) "\ndrop " bulk "\nclient:9 end request_id=a " words "\ntrace trace.rid=" rid

static void test_life(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {10, "client:9 " GENERATE("a") "#1/8",
         "client:9 accepted request_id=a epoch=500 next_index=0\n" ASSIGNED("1.1", "codec=i4h age_ms=0 #1")},
        {20, "worker:1 output rid=1.1 role=prefill first_index=0 items=5:A",
         "client:9 tokens request_id=a epoch=500 first_index=0 items=5:A"},
        {21, "worker:1 report rid=1.1 role=prefill prompt_tokens=2 run_ns=4000000", ""},
        /* Decode has the KV and the client token 0: prefill is not needed any more. */
        {25, "relay:1 transfer rid=1.1 reason=none bytes_raw=100 bytes_sent=30",
         "worker:1 release rid=1.1 reason=finished"},
        {26, "worker:2 report rid=1.1 role=decode prompt_tokens=2 kv_bytes_raw=100 kv_bytes_sent=30", ""},
        {26, "worker:2 output rid=1.1 role=decode first_index=0 items=5:A", ""}, /* token 0 again */
        {30, "worker:2 output rid=1.1 role=decode first_index=1 items=6:B",
         "client:9 tokens request_id=a first_index=1 items=6:B"},
        {40, "worker:2 output rid=1.1 role=decode first_index=2 items=7 finish=stop",
         "client:9 tokens request_id=a first_index=2 items=7\nworker:2 release rid=1.1 reason=finished\n"
         "relay:1 release rid=1.1 reason=finished\ndrop #1\nclient:9 end request_id=a "
         "epoch=500 next_index=3 finish=stop reason=none trace.prefill=p0 trace.decode=d0 trace.relay=r0 "
         "trace.codec=i8 trace.attempts=1 trace.prompt_tokens=2 "
         "trace.output_tokens=3 trace.kv_bytes_raw=100 trace.kv_bytes_sent=30 "
         "trace.assigned_ns=0 trace.prefill_begin_ns=7000000 trace.prefill_end_ns=11000000 "
         "trace.first_token_ns=10000000 trace.kv_commit_ns=16000000 trace.decode_begin_ns=16000000 "
         "trace.end_ns=30000000\ntrace trace.rid=1.1"},
        /* It has ended: whatever else comes of it is late. */
        {41, "worker:2 output rid=1.1 role=decode first_index=3 items=8 finish=length", ""},
        {41, "worker:1 attempt_failed rid=1.1 role=prefill reason=engine", ""},
        {42, "client:9 cancel client=c request_id=a", ""},
    };
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    CORE_RUN(f, "life", steps);
    assert_int_equal(router_core_counts(router_of(f)).ended, 1);
    assert_true(router_core_idle(router_of(f)));
    router_end(&f);
}

/* A token may be U+0000: the stream keeps its bytes by count. */
static void test_text_with_nul(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    char *text = ts_xcalloc(1, BYTES);
    const struct ts_token_item item = {.token = 1, .text = {text, BYTES}};
    struct router_core core = {.now = 1};
    struct record *r = ts_xcalloc(1, sizeof *r);
    text[BYTES - 1] = 'z';
    ts_arena_init(&r->arena);
    stream_append(&core, r, &item);
    assert_int_equal(r->items[0].text.count, BYTES);
    assert_memory_equal(r->items[0].text.data, text, BYTES);
    record_free(r);
    ts_free(text);
}

/* Each refusal: its reason, and whether trying again helps. The last column is the event that is refused. */
static void test_refusals(void **state)
{
    (void)state;
#define REFUSED(reason, retry)                                                                               \
    "client:9 refused request_id=x reason=" reason " retry_after_ms=" retry "\ndrop #2"
    static const struct {
        const char *name, *event, *actions;
    } cases[] = {
        {"queue", "client:9 " GENERATE("x") "#2/8", REFUSED("queue_full", "1000")},
        {"client", "client:9 " GENERATE("x") "#2/8", REFUSED("client_limit", "1000")},
        {"memory", "client:9 " GENERATE("x") "#2/90", REFUSED("memory_full", "1000")},
        {"long", "client:9 " GENERATE("x") "#2/101", REFUSED("prompt_too_long", "0")},
        {"model", "client:9 " GENERATE("x") "model=other #2/8", REFUSED("model_unknown", "0")},
        {"no client", "client:9 " GENERATE_OF("", "x") "#2/8", REFUSED("bad_request", "0")},
        {"empty prompt", "client:9 " GENERATE("x") "#2/0", REFUSED("bad_request", "0")},
        {"no prompt", "client:9 " GENERATE("x"), "client:9 refused request_id=x reason=bad_request"},
        {"no kind", "client:9 " GENERATE("x") "prompt_kind= #2/8", REFUSED("bad_request", "0")},
        {"no tokens", "client:9 " GENERATE("x") "sampling.max_tokens=0 #2/8", REFUSED("bad_request", "0")},
        {"cold", "client:9 " GENERATE("x") "sampling.temperature=-1 #2/8", REFUSED("bad_request", "0")},
        {"nan", "client:9 " GENERATE("x") "sampling.top_p=nan #2/8", REFUSED("bad_request", "0")},
        {"min_p", "client:9 " GENERATE("x") "sampling.min_p=1.5 #2/8", REFUSED("bad_request", "0")},
        {"penalty", "client:9 " GENERATE("x") "sampling.repetition_penalty=0 #2/8",
         REFUSED("bad_request", "0")},
        {"presence", "client:9 " GENERATE("x") "sampling.presence_penalty=-2.5 #2/8",
         REFUSED("bad_request", "0")},
        {"frequency", "client:9 " GENERATE("x") "sampling.frequency_penalty=nan #2/8",
         REFUSED("bad_request", "0")},
        {"logprobs", "client:9 " GENERATE("x") "sampling.logprobs=21 #2/8", REFUSED("bad_request", "0")},
        {"resumed", "client:9 " GENERATE("x") "next_index=2 produced=5 #2/8", REFUSED("bad_request", "0")},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct router_settings settings = router_test_settings();
        settings.prompt_bytes_max = settings.held_bytes_max = 100;
        settings.queue_max = i == 0 ? 1 : 100;
        settings.per_client_max = i == 1 ? 1 : 100;
        struct core_fixture *f = router_begin_cluster(&settings);
        const struct core_step steps[] = {
            {1, "client:9 " GENERATE("a") "#1/20", "client:9 accepted\n*"},
            {2, cases[i].event, cases[i].actions},
            {3, "client:9 cancel client=c request_id=a", ENDED("1.1", "#1", "cancelled", "finish=cancelled")},
            {4, "client:9 cancel client=c request_id=x", "client:9 end request_id=x reason=not_found"},
        };
        CORE_RUN(f, cases[i].name, steps);
        assert_int_equal(router_core_counts(router_of(f)).refused, 1);
        router_end(&f);
    }
}

/* What a request does not name is the model's to decide: the router looks at none of it and hands it on. */
static void test_silent_request(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1,
         "client:9 " GENERATE("a") "sampling.given=0 sampling.temperature=-1 sampling.top_p=0 "
                                   "sampling.repetition_penalty=0 #1",
         "client:9 accepted\n" ASSIGNED("1.1", "sampling.given=0 #1")},
        {2, "client:9 cancel client=c request_id=a", ENDED("1.1", "#1", "cancelled", "finish=cancelled")},
        {3,
         "client:9 " GENERATE(
             "b") "sampling.given=2 sampling.temperature=0 sampling.top_k=7 sampling.top_p=0 #2",
         "client:9 accepted\n" ASSIGNED("2.1", "sampling.given=2 sampling.top_k=7 #2")},
        {4, "client:9 cancel client=c request_id=b",
         "worker:1 release rid=2.1\nworker:2 release rid=2.1\ndrop #2\nclient:9 end request_id=b\ntrace"},
        {5, "client:9 " GENERATE("x") "sampling.given=4 sampling.top_p=0 #3",
         "client:9 refused request_id=x reason=bad_request retry_after_ms=0\ndrop #3"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "silent", steps);
}

static void test_draining(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n*"},
        {2, "drain", ""},
        {3, "client:9 " GENERATE("x") "#2",
         "client:9 refused request_id=x reason=draining retry_after_ms=1000\ndrop #2"},
        {4, "client:9 " GENERATE("a") "#3", "client:9 accepted\ndrop #3"}, /* known: may still attach */
        {5, "worker:2 output rid=1.1 role=decode first_index=0 items=5 finish=stop",
         "client:9 tokens\n" ENDED("1.1", "#1", "finished", "finish=stop") "\nstop"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "draining", steps);
}

/* Nobody there: it waits, and ends when nobody came. An idle router drains at once. */
static void test_no_worker(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", ""},
        {1, "client:9 " GENERATE("a") "model=m #1", "client:9 accepted"},
        {30000, "tick", ""},
        {30001, "tick",
         "drop #1\nclient:9 end request_id=a finish=error reason=no_worker\ntrace trace.attempts=0"},
        {30002, "drain", "stop"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin(&settings), "no worker", steps);
}

static void test_attach(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n*"},
        {2, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", "client:9 tokens"},
        {3, "worker:2 output rid=1.1 role=decode first_index=0 items=5,6,7",
         "client:9 tokens first_index=1 items=6,7"},
        {4, "client:9 " GENERATE("a") "digest=2 #2",
         "client:9 refused request_id=a reason=id_conflict retry_after_ms=0\ndrop #2"},
        /* Another connection of the same client goes on where it was; the first one gets nothing more. */
        {5, "client:8 " GENERATE("a") "next_index=1 #3",
         "client:8 accepted request_id=a epoch=500 next_index=1\nclient:8 tokens first_index=1 "
         "items=6,7\ndrop #3"},
        {6, "worker:2 output rid=1.1 role=decode first_index=3 items=8",
         "client:8 tokens first_index=3 items=8"},
        {7, "client:8 " GENERATE("a") "next_index=9 #4", "client:8 accepted next_index=9\ndrop #4"},
        {8, "worker:2 output rid=1.1 role=decode first_index=4 items=9 finish=length",
         "client:8 tokens first_index=4 items=9\n" RELEASED("1.1",
                                                            "finished") "\ndrop #1\nclient:8 end\ntrace"},
        /* Ended: the record is kept, all of it comes again, with its End. */
        {9, "client:7 " GENERATE("a") "#5",
         "client:7 accepted next_index=0\nclient:7 tokens first_index=0 items=5,6,7,8,9\n"
         "client:7 end next_index=5 finish=length\ndrop #5"},
        {60000, "tick", ""},
        {60008, "tick", ""}, /* ended_keep_ms */
        {60009, "client:7 cancel client=c request_id=a", "client:7 end finish=error reason=not_found"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "attach", steps);
}

/* The stream of another router goes on here: its tokens are produced already and are not sent again. */
static void test_resumed(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "next_index=2 produced=5,6 resume_epoch=4 #1",
         "client:9 accepted epoch=500 next_index=2\n" ASSIGNED("1.1", "produced=5,6 #1")},
        {2, "worker:2 output rid=1.1 role=decode first_index=2 items=7",
         "client:9 tokens first_index=2 items=7"},
        {3, "worker:2 output rid=1.1 role=decode first_index=3 items=8 finish=length",
         "client:9 tokens first_index=3 items=8\n" ENDED("1.1", "#1", "finished",
                                                         "next_index=4 finish=length")},
        /* All that was asked for is produced: only the End was lost. */
        {4, "client:9 " GENERATE("b") "next_index=4 produced=5,6,7,8 #2",
         "client:9 accepted next_index=4\ndrop #2\nclient:9 end request_id=b next_index=4 finish=length "
         "reason=none\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "resumed", steps);
}

static void test_detached(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "client:9 " GENERATE("a") "#1", "client:9 accepted\n*"},
        {1, "client:9 " GENERATE("b") "reattach_ms=50 #2", "client:9 accepted\n*"},
        {2, "client:9 unreachable", "client:9 disconnect"},
        {3, "worker:1 output rid=1.1 role=prefill first_index=0 items=5", ""}, /* kept, not sent */
        {10, "client:8 " GENERATE("a") "#3",
         "client:8 accepted\nclient:8 tokens first_index=0 items=5\ndrop #3"},
        {51, "tick", ""},
        {52, "tick",
         RELEASED("2.1", "client_lost") "\ndrop #2\ntrace trace.request_id=b trace.finish=cancelled "
                                        "trace.reason=client_lost"},
        /* Silence detaches as well; a heartbeat is a sign of life and is answered. */
        {900, "client:8 heartbeat", "client:8 heartbeat load.running=1"},
        {1899, "tick", ""},
        {1900, "tick", "client:8 disconnect"},
        {11899, "tick", ""},
        {11900, "tick", RELEASED("1.1", "client_lost") "\ndrop #1\ntrace trace.request_id=a"},
    };
    struct router_settings settings = router_test_settings();
    settings.client_timeout_ms = 1000;
    ROUTER_CASE(router_begin_cluster(&settings), "detached", steps);
}

static void test_deadline_and_cancel(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "client:9 " GENERATE("a") "remaining_ms=100 #1",
         "client:9 accepted\n" ASSIGNED("1.1", "remaining_ms=101 #1")},
        {99, "tick", ""},
        {100, "tick", ENDED("1.1", "#1", "deadline", "finish=deadline reason=deadline")},
        {101, "client:9 " GENERATE("b") "#2", "client:9 accepted\n*"},
        /* An operator cancels: the client has the End, the operator an answer. */
        {102, "client:5 cancel client=c request_id=b",
         RELEASED("2.1",
                  "cancelled") "\ndrop #2\nclient:9 end request_id=b finish=cancelled reason=cancelled\n"
                               "trace\nclient:5 end request_id=b finish=cancelled"},
        {103, "client:9 " GENERATE("c") "#3", "client:9 accepted\n*"},
        {104, "client:9 cancel client=c request_id=c",
         RELEASED("3.1", "cancelled") "\ndrop #3\nclient:9 end request_id=c finish=cancelled\ntrace"},
        {104, "client:9 cancel client=c request_id=c", ""},
    };
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "deadline and cancel", steps);
}

/* Ended records are bounded by number as well as by age. */
static void test_ended_kept(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n*"},
        {2, "client:9 cancel client=c request_id=a", "*"},
        {3, "client:9 " GENERATE("b") "#2", "client:9 accepted\n*"},
        {4, "client:9 cancel client=c request_id=b", "*"},
        {5, "client:9 " GENERATE("c") "#3", "client:9 accepted\n*"},
        {6, "client:9 cancel client=c request_id=c", "*"},
        {7, "client:9 " GENERATE("b") "#4",
         "client:9 accepted\nclient:9 end request_id=b finish=cancelled\ndrop #4"},
        {8, "client:8 cancel client=c request_id=a", "client:8 end reason=not_found"},
    };
    struct router_settings settings = router_test_settings();
    settings.ended_keep_count = 2;
    ROUTER_CASE(router_begin_cluster(&settings), "ended", steps);

    static const struct core_step none_kept[] = {
        {1, "client:9 " GENERATE("a") "#1", "client:9 accepted\n*"},
        {2, "client:9 cancel client=c request_id=a", ENDED("1.1", "#1", "cancelled", "finish=cancelled")},
        {3, "client:9 cancel client=c request_id=a", "client:9 end reason=not_found"},
    };
    settings.ended_keep_count = 0;
    ROUTER_CASE(router_begin_cluster(&settings), "none kept", none_kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),       cmocka_unit_test(test_text_with_nul),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_silent_request),
        cmocka_unit_test(test_draining),   cmocka_unit_test(test_no_worker),
        cmocka_unit_test(test_attach),     cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_detached),   cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_ended_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
