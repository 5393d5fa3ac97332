/* Outputs of an engine batch in one message, and what clients get of it: TokensBatch for those that take it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "router_fixture.h"

#define BATCHES(id) GENERATE(id) "token_batches=1 "
#define ASSIGNED(rid, slot)                                                                                  \
    "worker:2 assign rid=" rid " role=decode\nworker:1 assign rid=" rid " role=prefill " slot
#define RELEASED(rid) "worker:1 release rid=" rid "\nworker:2 release rid=" rid

static void test_batches(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "client:9 " BATCHES("a") "#1", "client:9 accepted\n" ASSIGNED("1.1", "#1")},
        {1, "client:9 " BATCHES("b") "#2", "client:9 accepted\n" ASSIGNED("2.1", "#2")},
        {1, "client:8 " BATCHES("c") "#3", "client:8 accepted\n" ASSIGNED("3.1", "#3")},
        {1, "client:9 " GENERATE("d") "#4", "client:9 accepted\n" ASSIGNED("4.1", "#4")},
        /* One message for each connection; one stream did not ask for it. What is no attempt is counted. */
        {2,
         "worker:2 output_batch "
         "outputs=1.1:decode:0:5,9.1:decode:0:5,3.1:decode:0:7,2.1:decode:0:6,4.1:decode:0:8",
         "client:9 tokens request_id=d items=8\nclient:9 tokens_batch streams=a:500:0:5,b:500:0:6\n"
         "client:8 tokens_batch streams=c:500:0:7"},
        /* A single Output is a batch of one; repeats are dropped. */
        {3, "worker:2 output rid=1.1 role=decode first_index=0 items=5,9",
         "client:9 tokens_batch streams=a:500:1:9"},
        {4, "worker:2 output_batch outputs=1.1:decode:1:9,2.1:decode:1:6",
         "client:9 tokens_batch streams=b:500:1:6"},
        /* The End comes after the tokens, and what is pending is not sent twice. */
        {5, "worker:2 output_batch outputs=2.1:decode:2:1,1.1:decode:2:3:stop",
         RELEASED("1.1") "\ndrop #1\nclient:9 tokens request_id=a first_index=2 items=3\nclient:9 end "
                         "request_id=a next_index=3\ntrace\nclient:9 tokens_batch streams=b:500:2:1"},
        /* A gap fails that attempt alone. */
        {6, "worker:2 output_batch outputs=3.1:decode:5:1,2.1:decode:3:2",
         RELEASED("3.1") "\nclient:9 tokens_batch streams=b:500:3:2"},
        /* The same attempt twice: never right, and harmless. */
        {7, "worker:2 output_batch outputs=4.1:decode:1:1,4.1:decode:2:2,4.1:decode:3:3",
         "client:9 tokens request_id=d first_index=1 items=1,2,3"},
        {8, "client:9 unreachable", "client:9 disconnect"},
        {9, "worker:2 output_batch outputs=4.1:decode:4:9,2.1:decode:4:7", ""},
        /* It comes back to another connection without batches, and has all from where it was. */
        {10, "client:7 " GENERATE("b") "next_index=2 #5",
         "client:7 accepted next_index=2\nclient:7 tokens first_index=2 items=1,2,7\ndrop #5"},
        {11, "client:7 cancel client=c request_id=d",
         RELEASED("4.1") "\ndrop #4\ntrace\nclient:7 end request_id=d"},
        {11, "client:7 cancel client=c request_id=b", RELEASED("2.1") "\ndrop #2\nclient:7 end\ntrace"},
        {11, "client:8 cancel client=c request_id=c", "drop #3\nclient:8 end\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    struct core_fixture *f = router_begin_cluster(&settings);
    CORE_RUN(f, "batches", steps);
    assert_int_equal(router_core_counts(router_of(f)).stale, 1);
    router_end(&f);
}

/* A connection that ends in the step in which it was to be sent something. */
static void test_lost_while_pending(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "client:9 " BATCHES("a") "#1", "client:9 accepted\n" ASSIGNED("1.1", "#1")},
        {999, "tick", ""},
        {1000, "worker:2 output_batch outputs=1.1:decode:0:5", "client:9 disconnect"},
        {1001, "client:8 " BATCHES("a") "#2", "client:8 accepted\nclient:8 tokens items=5\ndrop #2"},
        {1002, "client:8 cancel client=c request_id=a", RELEASED("1.1") "\ndrop #1\nclient:8 end\ntrace"},
    };
    struct router_settings settings = router_test_settings();
    settings.client_timeout_ms = 1000;
    ROUTER_CASE(router_begin_cluster(&settings), "lost while pending", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_batches),
                                       cmocka_unit_test(test_lost_while_pending)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
