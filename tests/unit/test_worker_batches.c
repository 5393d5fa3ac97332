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
    struct core_fixture *f = begin(TS_PHASE_PREFILL, 2, 32);
    CORE_RUN(f, "chunks in a row", steps);
    worker_end(&f);
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
        cmocka_unit_test(test_chunks_in_a_row),
        cmocka_unit_test(test_dies_under_way),
        cmocka_unit_test(test_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
