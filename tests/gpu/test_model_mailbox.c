/* Batches follow each other without a pause: what a decode loop does. A batch submitted right after the end
 * of the one before was polled must run, whichever of the two threads comes first. */
#include "tests/gpu/model_fixture.h"

static void back_to_back(void **state)
{
    (void)state;
    struct ts_engine *engine = model_open("demo", (struct ts_shard){.layer_end = 1}, 4, 1, 4);
    uint32_t token = 65, blocks[] = {0};
    float hidden[256];
    struct ts_engine_row row = {.token_count = 1, .tokens = &token, .blocks = blocks, .block_count = 1};
    struct ts_engine_batch batch = {.rows = &row, .row_count = 1, .hidden_out = hidden};
    for (uint32_t i = 0; i < 5000; i++) {
        batch.id = i;
        row.position = i % TS_KV_BLOCK_TOKENS;
        assert_int_equal(model_run(engine, &batch).batch, i);
    }
    ts_engine_close(&engine);
    assert_null(engine);
}

/* Closing does not wait for somebody to poll. */
static void close_while_running(void **state)
{
    (void)state;
    uint32_t tokens[64] = {0}, blocks[] = {0, 1, 2, 3};
    float hidden[64 * 256];
    for (int i = 0; i < 20; i++) {
        struct ts_engine *engine = model_open("demo", (struct ts_shard){.layer_end = 1}, 64, 1, 4);
        struct ts_engine_row row = {.token_count = 64, .tokens = tokens, .blocks = blocks, .block_count = 4};
        struct ts_engine_batch batch = {.rows = &row, .row_count = 1, .hidden_out = hidden};
        assert_int_equal(ts_engine_submit(engine, &batch, NULL), TS_OK);
        assert_int_equal(ts_engine_submit(engine, &batch, NULL), TS_EAGAIN);
        ts_engine_close(&engine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(back_to_back), cmocka_unit_test(close_while_running)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
