/* Several engine batches under way at a time, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "worker_fixture.h"

#define BEGIN(rid, blocks) "pool:1 kv_begin rid=" rid " blocks=" blocks

static struct core_fixture *begin(enum ts_phase phase, uint32_t batches, uint32_t tokens)
{
    struct worker_settings settings = worker_test_settings(phase);
    settings.batches_max = batches;
    settings.max_batch_tokens = tokens;
    return worker_begin_joined(&settings);
}

/* Two chunks of a prompt: the second enters while the first runs, and each says which layers of which tokens.
 */
static void test_chunks_in_a_row(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*60",
         BEGIN("1.1", "0,1,2,3") "\ntext_open tag=1\n"
                                 "batch batch=1 report_layers=1 rows=1:0:*32:0+1+2+3:0\n"
                                 "batch batch=2 report_layers=1 rows=1:32:*28:0+1+2+3:1:0"},
        {3, "layer_done batch=1 layer=0", "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:32"},
        {4, "layer_done batch=2 layer=0", "pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:32:28"},
        {4, "layer_done batch=1 layer=1", "pool:1 kv_ready layer_begin=1 layer_end=2 items=1.1:0:32"},
        {5, "worker:1 " PREFILL("2.1") "#2", "tokenise job=2 #2\ndrop #2"},
        {5, "tokenised job=2 ids=*16", BEGIN("2.1", "4") "\ntext_open tag=2"}, /* two are under way */
        {6, "batch_done batch=2 samples=1:42", ""},                            /* not the one that is due */
        {6, "batch_done batch=1", "batch batch=3 report_layers=1 rows=2:0:*16:4:1:0"},
        {7, "batch_done batch=2 samples=1:42",
         "worker:1 report role=prefill rid=1.1\ntext_close tag=1\nworker:1 output rid=1.1 first_index=0 "
         "items=42\npool:1 kv_seal rid=1.1"},
        {8, "layer_done batch=2 layer=1", ""},
        {8, "batch_done batch=3 samples=2:43",
         "worker:1 report rid=2.1\ntext_close tag=2\nworker:1 output rid=2.1\npool:1 kv_seal rid=2.1"},
        {9, "pool:1 kv_freed rid=1.1", ""},
        {9, "pool:1 kv_freed rid=2.1", ""},
        {9, "worker:1 release rid=1.1", "pool:1 release"},
        {9, "worker:1 release rid=2.1", "pool:1 release"},
    };
    WORKER_CASE(begin(TS_PHASE_PREFILL, 2, 32), "chunks in a row", steps);
}

/* Released or failed with two chunks under way: the blocks stay until the last of them is over. */
static void test_dies_under_way(void **state)
{
    (void)state;
    static const struct core_step started[] = {
        {1, "worker:1 " PREFILL("1.1") "#1", "tokenise job=1 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*60", BEGIN("1.1", "0,1,2,3") "\ntext_open\nbatch batch=1\nbatch batch=2"},
    };
    static const struct core_step released[] = {
        {3, "worker:1 release rid=1.1", "text_close tag=1\npool:1 release rid=1.1"},
        {3, "pool:1 kv_freed rid=1.1", ""},
        {4, "batch_done batch=1", ""},
    };
    static const struct core_step failed[] = {
        {3, "batch_done batch=1 reason=engine",
         "worker:1 attempt_failed rid=1.1 reason=engine\ntext_close tag=1\npool:1 release rid=1.1"},
        {4, "pool:1 kv_freed rid=1.1", ""},
    };
    for (int i = 0; i < 2; i++) {
        struct core_fixture *f = begin(TS_PHASE_PREFILL, 2, 32);
        CORE_RUN(f, "started", started);
        if (i)
            CORE_RUN(f, "failed", failed);
        else
            CORE_RUN(f, "released", released);
        assert_int_equal(worker_core_blocks_used(worker_of(f)), 4);
        core_step_one(f, 5, "batch_done batch=2 samples=1:42", "");
        worker_end(&f);
    }
}

static struct core_fixture *begin_colocated(uint32_t blocks)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.batches_max = 2;
    settings.relay_endpoint = "";
    settings.pool.kv_blocks = blocks;
    return worker_begin_alone(&settings);
}

#define ASSIGNED(at, rid, tag)                                                                               \
    {                                                                                                        \
        at, "worker:1 " BOTH(rid) "#1", "tokenise job=" tag " #1\ndrop #1"                                   \
    }

/* What is ready is spread evenly over the batches, the oldest of those that are free first. */
static void test_spread(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ASSIGNED(1, "1.1", "1"),
        ASSIGNED(1, "2.1", "2"),
        ASSIGNED(1, "3.1", "3"),
        ASSIGNED(1, "4.1", "4"),
        ASSIGNED(1, "5.1", "5"),
        {2, "tokenised job=1 ids=*16", "text_open tag=1\nbatch batch=1 rows=1:0:*16"},
        {2, "tokenised job=2 ids=*16", "text_open tag=2\nbatch batch=2 rows=2:0:*16"},
        {2, "tokenised job=3 ids=*16", "text_open tag=3"},
        {2, "tokenised job=4 ids=*16", "text_open tag=4"},
        {2, "tokenised job=5 ids=*16", "text_open tag=5"},
        {3, "batch_done batch=1 samples=1:5",
         "worker:1 report\nworker:1 output\nbatch batch=3 rows=1:16:5,3:0:*16,4:0:*16,5:0:*16"},
        {4, "batch_done batch=2 samples=2:5", "worker:1 report\nworker:1 output\nbatch batch=4 rows=2:16:5"},
        {5, "batch_done batch=3 samples=1:6,3:6,4:6,5:6",
         "worker:1 output rid=1.1\nworker:1 report rid=3.1\nworker:1 output rid=3.1\nworker:1 report\n"
         "worker:1 output rid=4.1\nworker:1 report\nworker:1 output rid=5.1\n"
         "batch batch=5 rows=1:17:6,3:16:6,4:16:6"}, /* three of five */
        {6, "batch_done batch=4 samples=2:7", "worker:1 output rid=2.1\nbatch batch=6 rows=2:17:7,5:16:6"},
        {7, "batch_done batch=5 samples=1:7,3:7,4:7",
         "worker:1 output rid=1.1\nworker:1 output rid=3.1\nworker:1 output rid=4.1\n"
         "batch batch=7 rows=1:18:7,3:17:7,4:17:7"},
        {8, "worker:1 release rid=1.1", "text_close tag=1"},
        {8, "worker:1 release rid=3.1", "text_close tag=3"},
        {8, "worker:1 release rid=4.1", "text_close tag=4"},
        {9, "batch_done batch=6 samples=2:8,5:8",
         "worker:1 output rid=2.1\nworker:1 output rid=5.1\nbatch batch=8 rows=2:18:8"}, /* one of two */
        {10, "batch_done batch=7 samples=1:8,3:8,4:8", "batch batch=9 rows=5:17:8"},
        {11, "worker:1 release rid=2.1", "text_close tag=2"},
        {11, "worker:1 release rid=5.1", "text_close tag=5"},
        {12, "batch_done batch=8 samples=2:9", ""},
        {12, "batch_done batch=9 samples=5:9", ""},
    };
    WORKER_CASE(begin_colocated(32), "spread", steps);
}

/* The youngest gives way while it is in a batch: its blocks come with the end of that, for the one that
 * waits. */
static void test_preempted_under_way(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        ASSIGNED(1, "1.1", "1"),
        ASSIGNED(1, "2.1", "2"),
        ASSIGNED(1, "3.1", "3"),
        {2, "tokenised job=1 ids=*31", "text_open tag=1\nbatch batch=1 rows=1:0:*31:0+1"},
        {2, "tokenised job=2 ids=*47", "text_open tag=2\nbatch batch=2 rows=2:0:*47:2+3+4"},
        {3, "batch_done batch=1 samples=1:5", "worker:1 report\nworker:1 output\nbatch batch=3 rows=1:31:5"},
        {4, "batch_done batch=2 samples=2:5", "worker:1 report\nworker:1 output\nbatch batch=4 rows=2:47:5"},
        {5, "batch_done batch=3 samples=1:6",
         "worker:1 output rid=1.1\nworker:1 attempt_failed rid=2.1 reason=preempted\ntext_close tag=2"},
        {6, "tokenised job=3 ids=*4", ""}, /* nothing is free */
        {6, "worker:1 heartbeat", ""},     /* nobody else is preempted meanwhile */
        {7, "batch_done batch=4 samples=2:6",
         "batch batch=5 rows=1:32:6:0+1+2\ntext_open tag=3\n"
         "batch batch=6 rows=3:0:*4:3"},
        {8, "worker:1 release rid=1.1", "text_close tag=1"},
        {8, "worker:1 release rid=3.1", "text_close tag=3"},
        {9, "batch_done batch=5 samples=1:7", ""},
        {9, "batch_done batch=6 samples=3:7", ""},
    };
    struct core_fixture *f = begin_colocated(5);
    CORE_RUN(f, "preempted under way", steps);
    assert_int_equal(worker_core_counts(worker_of(f)).preempted, 1);
    worker_end(&f);
}

static struct ts_msg_output_batch batch_in(const struct core_fixture *f)
{
    for (size_t i = 0; i < f->out.count; i++) {
        if (f->out.items[i].kind == TS_ACTION_SEND && f->out.items[i].send.msg.kind == TS_MSG_OUTPUT_BATCH)
            return f->out.items[i].send.msg.output_batch;
    }
    fail();
    return (struct ts_msg_output_batch){.outputs = {NULL, 0}};
}

/* A router that takes them gets the outputs of one batch in one message, an only one alone. */
static void test_output_batch(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {0, "worker:1 welcome output_batches=1", "worker:1 resync items="},
        ASSIGNED(1, "1.1", "1"),
        ASSIGNED(1, "2.1", "2"),
        {2, "tokenised job=1 ids=*16", "text_open tag=1\nbatch batch=1"},
        {2, "tokenised job=2 ids=*16", "text_open tag=2"},
        {3, "batch_done batch=1 samples=1:5",
         "worker:1 report\nworker:1 output rid=1.1 role=both items=5\nbatch batch=2"},
        {4, "batch_done batch=2 samples=1:6,2:7:stop",
         "worker:1 report rid=2.1\ntext_close tag=2\n"
         "worker:1 output_batch outputs=1.1:both:1,2.1:both:0\nbatch batch=3 rows=1:17:6"},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.relay_endpoint = "";
    struct core_fixture *f = worker_begin(&settings);
    CORE_RUN(f, "output batch", steps);
    struct ts_msg_output_batch b = batch_in(f);
    assert_int_equal(b.outputs.data[0].items.count, 1);
    assert_int_equal(b.outputs.data[0].items.data[0].token, 6);
    assert_int_equal(b.outputs.data[0].finish, TS_FINISH_NONE);
    assert_int_equal(b.outputs.data[1].items.count, 1);
    assert_int_equal(b.outputs.data[1].items.data[0].token, 7);
    assert_int_equal(b.outputs.data[1].finish, TS_FINISH_STOP);
    static const struct core_step lost[] = {
        {5, "worker:1 unreachable", "worker:1 hello"}, /* nobody to tell */
        {6, "batch_done batch=3 samples=1:8", "batch batch=4"},
        {7, "worker:1 welcome", "worker:1 resync items=1.1:both:3,2.1:both:1"}, /* it is an older one now */
        {8, "worker:1 resync_reply items=1.1:both:resend:1,2.1:both:keep:1",
         "worker:1 output rid=1.1 first_index=1 items=6,8"},
        {9, "worker:1 release rid=1.1", "text_close tag=1"},
        {9, "worker:1 release rid=2.1", ""},
        {10, "batch_done batch=4 samples=1:9", ""},
    };
    CORE_RUN(f, "lost", lost);
    worker_end(&f);
}

/* Two routers, each with its own; one of them takes no batches. */
static void test_output_batch_of_each(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "*"},
        {0, "worker:1 welcome output_batches=1", "worker:1 resync"},
        {0, "worker:2 welcome", "worker:2 resync"},
        ASSIGNED(1, "1.1", "1"),
        ASSIGNED(1, "2.1", "2"),
        {1, "worker:2 " BOTH("3.1") "#1", "tokenise job=3 #1\ndrop #1"},
        {1, "worker:2 " BOTH("4.1") "#1", "tokenise job=4 #1\ndrop #1"},
        {2, "tokenised job=1 ids=*8", "text_open tag=1\nbatch batch=1"},
        {2, "tokenised job=2 ids=*8", "text_open tag=2"},
        {2, "tokenised job=3 ids=*8", "text_open tag=3"},
        {2, "tokenised job=4 ids=*8", "text_open tag=4"},
        {3, "batch_done batch=1 samples=1:5", "worker:1 report\nworker:1 output rid=1.1\nbatch batch=2"},
        {4, "batch_done batch=2 samples=1:6:stop,2:7:stop,3:8:stop,4:9:stop",
         "text_close tag=1\nworker:1 report rid=2.1\ntext_close tag=2\n"
         "worker:2 report rid=3.1\nworker:2 output rid=3.1 items=8\ntext_close tag=3\n"
         "worker:2 report rid=4.1\nworker:2 output rid=4.1 items=9\ntext_close tag=4\n"
         "worker:1 output_batch outputs=1.1:both:1,2.1:both:0"},
        {5, "worker:1 release rid=1.1", ""},
        {5, "worker:1 release rid=2.1", ""},
        {5, "worker:2 release rid=3.1", ""},
        {5, "worker:2 release rid=4.1", ""},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.relay_endpoint = "";
    settings.routers[1] = "tcp://router2";
    settings.router_count = 2;
    WORKER_CASE(worker_begin(&settings), "output batch of each", steps);
}

/* The profile says how many batches the engine takes. */
static void test_announced(void **state)
{
    (void)state;
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.batches_max = 3;
    settings.relay_endpoint = "";
    struct core_fixture *f = worker_begin(&settings);
    core_step_one(f, 0, "start", "worker:1 connect\nworker:1 hello profile.batches_max=3");
    worker_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_in_a_row), cmocka_unit_test(test_dies_under_way),
        cmocka_unit_test(test_spread),          cmocka_unit_test(test_preempted_under_way),
        cmocka_unit_test(test_output_batch),    cmocka_unit_test(test_output_batch_of_each),
        cmocka_unit_test(test_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
