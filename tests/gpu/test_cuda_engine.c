/* The CUDA engine on a real device; skips without one. */
#include <math.h>

#include "gpu/cuda/device/ts_cuda.h"
#include "tests/gpu/cuda_engine_fixture.h"
#include "tests/gpu/engine_fixture.h"
#include "tests/gpu/model_fixture.h"

static enum ts_status open_device(const struct ts_engine_options *options, struct ts_engine **out,
                                  struct ts_error *err)
{
    struct ts_engine_options first = *options;
    first.device = "cuda:0";
    return ts_engine_open(&first, out, err);
}

/* The demo model continues a text greedily as on the CPU, as long as the CPU's best token leads clearly. */
static void demo(void **state)
{
    enum { PROMPT = 64, STEPS = 64, BLOCKS = (PROMPT + STEPS) / TS_KV_BLOCK_TOKENS };
    uint32_t tokens[PROMPT + STEPS], blocks[BLOCKS];
    struct ts_engine *engines[2] = {NULL, NULL};
    struct ts_error err;
    uint32_t agreed = 0;
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct ts_engine_options options = {.model_dir = TS_TEST_DATA "/models/demo",
                                            .device = i ? "cuda:0" : "cpu",
                                            .kv_blocks = BLOCKS,
                                            .max_batch_tokens = PROMPT,
                                            .max_batch_rows = 1};
        if (ts_engine_open(&options, &engines[i], &err) != TS_OK)
            fail_msg("%s", err.text);
    }
    uint32_t vocab = ts_engine_info(engines[0])->model.vocab;
    float *logits[2] = {ts_xcalloc(vocab, sizeof(float)), ts_xcalloc(vocab, sizeof(float))};
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = i * 7 % 256;
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = i;
    for (uint32_t at = PROMPT; at < PROMPT + STEPS; at++) {
        uint32_t first = at == PROMPT ? 0 : at - 1, best[2] = {0, 0};
        for (uint32_t i = 0; i < 2; i++) {
            struct ts_engine_row row = {.position = first,
                                        .token_count = at - first,
                                        .tokens = tokens + first,
                                        .blocks = blocks,
                                        .block_count = BLOCKS};
            fixture_run(engines[i], &row, 1, logits[i], NULL);
            for (uint32_t j = 1; j < vocab; j++)
                best[i] = logits[i][j] > logits[i][best[i]] ? j : best[i];
        }
        agreed += best[0] == best[1];
        tokens[at] = best[0];
    }
    print_message("%u of %u best tokens agree\n", agreed, STEPS);
    assert_true(agreed >= STEPS - 2);
    for (uint32_t i = 0; i < 2; i++) {
        ts_engine_close(&engines[i]);
        ts_free(logits[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {CUDA_ENGINE_TESTS, cmocka_unit_test(demo)};
    struct ts_error err;
    uint32_t count = 0;
    if (ts_cuda_count(&count, &err) != TS_OK || count == 0) {
        printf("SKIP: no-gpu %s\n", count == 0 && err.text[0] ? err.text : "no device");
        return 77;
    }
    cuda_engine_use(open_device);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
