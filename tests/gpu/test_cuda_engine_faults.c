/*
 * The CUDA engine where its device fails, over a driver made for the test: what is short of memory says which
 * memory and how much, what fails in a batch ends it, and nothing is left behind.
 */
#include "tests/gpu/engine_fixture.h"

#include "gpu/cuda/device/ts_cuda.h"
#include "tests/gpu/emulated_fixture.h"

#define TOKENS 20u
#define MIB    ((uint64_t)1 << 20)

static const struct ts_random_model tiny = {.type = "llama",
                                            .hidden = 64,
                                            .intermediate = 128,
                                            .layers = 2,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .head_dim = 64,
                                            .vocab = 64,
                                            .context = 64,
                                            .dtype = TS_DTYPE_BF16,
                                            .gain = 1,
                                            .seed = 1};
static char dir[64];

static enum ts_status open_engine(uint64_t kv_blocks, uint64_t reserve, struct ts_engine **out,
                                  struct ts_error *err)
{
    struct ts_engine_options options = {.model_dir = dir,
                                        .device = "cuda:0",
                                        .kv_blocks = (uint32_t)kv_blocks,
                                        .reserve_bytes = reserve,
                                        .threads = 2,
                                        .max_batch_tokens = 32,
                                        .max_batch_rows = 4};
    *out = NULL;
    *err = (struct ts_error){0};
    return ts_engine_open(&options, out, err);
}

/* Each call of a function that may be short of memory is, in turn, until one opening gets through. How often
 * one of the words was said. */
static uint32_t run_short(const char *function, const char *const words[3], uint32_t said[3])
{
    char fault[64];
    struct ts_engine *engine;
    struct ts_error err;
    for (uint32_t nth = 1;; nth++) {
        snprintf(fault, sizeof fault, "%s:%u:2", function, nth);
        emulated->set_faults(fault);
        enum ts_status status = open_engine(8, 0, &engine, &err);
        ts_engine_close(&engine);
        emulated_nothing_left();
        if (status == TS_OK) {
            emulated->set_faults("");
            return nth - 1;
        }
        if (status != TS_ENOMEM || err.text[0] == '\0' || nth == 100)
            fail_msg("%s: %s: %s", fault, ts_status_name(status), err.text);
        for (uint32_t i = 0; i < 3; i++)
            said[i] += strstr(err.text, words[i]) != NULL;
    }
}

static void short_of_memory(void **state)
{
    static const char *const words[] = {"the weights need", "the workspace needs", "the KV pool needs"};
    uint32_t said[3] = {0, 0, 0}, none[3] = {0, 0, 0};
    (void)state;
    assert_true(run_short("cuMemAlloc_v2", words, said) >= 3);
    assert_true(said[0] == 1 && said[1] == 1 && said[2] == 1);
    assert_true(run_short("cuMemHostAlloc", words, none) >= 3);
}

static void too_large_a_pool(void **state)
{
    struct ts_engine *engine;
    struct ts_error err;
    (void)state;
    assert_int_equal(open_engine(1 << 20, 0, &engine, &err), TS_ENOMEM);
    if (!strstr(err.text, "the KV pool needs 16384 MiB") || !strstr(err.text, "lower kv_cache_mib"))
        fail_msg("%s", err.text);
    emulated_nothing_left();
}

/* Without a size the pool takes what is free, but for the reserve. */
static void what_is_free(void **state)
{
    struct ts_engine *engine;
    struct ts_error err;
    uint64_t unused = 0, total = 0;
    (void)state;
    if (open_engine(0, 4000 * MIB, &engine, &err) != TS_OK)
        fail_msg("%s", err.text);
    const struct ts_engine_info *info = ts_engine_info(engine);
    assert_int_equal(ts_cuda_memory(info->device, &unused, &total, NULL), TS_OK);
    assert_true(info->pool_bytes > 50 * MIB);
    assert_true(unused >= 4000 * MIB && unused < 4001 * MIB);
    ts_engine_close(&engine);
    assert_int_equal(open_engine(0, 5000 * MIB, &engine, &err), TS_ENOMEM);
    if (!strstr(err.text, "a reserve"))
        fail_msg("%s", err.text);
}

/* A batch during which the device is lost (719: CUDA_ERROR_LAUNCH_FAILED): by launches, by graph. */
static void lose(const char *fault, uint32_t tokens, bool report)
{
    struct ts_engine *engine;
    struct ts_error err;
    uint32_t ids[TOKENS] = {0}, blocks[] = {0, 1, 2, 3};
    struct ts_engine_row row = {.token_count = tokens, .tokens = ids, .blocks = blocks, .block_count = 4};
    struct ts_engine_batch batch = {.rows = &row, .row_count = 1, .report_layers = report};
    struct ts_engine_event event = {.kind = TS_ENGINE_LAYER_DONE};
    if (open_engine(8, 0, &engine, &err) != TS_OK)
        fail_msg("%s", err.text);
    fixture_run(engine, &row, 1, NULL, NULL);
    emulated->set_faults(fault);
    assert_int_equal(ts_engine_submit(engine, &batch, NULL), TS_OK);
    while (event.kind != TS_ENGINE_BATCH_DONE)
        assert_int_equal(ts_engine_wait(engine, &event), TS_OK);
    if (event.status != TS_EIO || !ts_engine_fault(engine))
        fail_msg("%s: the batch ends with %s", fault, ts_status_name(event.status));
    assert_int_equal(event.sample_count, 0);
    assert_int_equal(ts_engine_submit(engine, &batch, &err), TS_EIO);
    assert_string_equal(err.text, ts_engine_fault(engine));
    ts_engine_close(&engine);
    emulated->set_faults("");
    emulated_nothing_left();
}

static void lost_in_a_batch(void **state)
{
    (void)state;
    lose("cuLaunchKernelEx:3:719:sticky", TOKENS, false);
    lose("cuLaunchKernelEx:11:719:sticky", TOKENS, true);
    lose("cuMemcpyHtoDAsync_v2:1:719:sticky", TOKENS, false);
    lose("cuEventSynchronize:2:719:sticky", TOKENS, true);
    lose("cuStreamSynchronize:1:719:sticky", TOKENS, false);
    lose("cuGraphLaunch:1:719:sticky", 1, false);
}

static int make_model(void **state)
{
    (void)state;
    fixture_model(&tiny, dir);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    ts_random_model_remove(dir);
    return 0;
}

/* What `device` may be, and what is said of the rest. */
static void wrong_devices(void **state)
{
    static const char *const wrong[] = {"gpu",     "cuda",    "cuda:",   "cuda:x",
                                        "cuda:0x", "cuda:-1", "cudaa:0", "cuda:99999"};
    struct ts_engine_options options = {
        .model_dir = dir, .kv_blocks = 8, .threads = 1, .max_batch_tokens = 32, .max_batch_rows = 4};
    struct ts_engine *engine = NULL;
    struct ts_error err;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        err = (struct ts_error){0};
        options.device = wrong[i];
        assert_int_equal(ts_engine_open(&options, &engine, &err), TS_EINVAL);
        assert_non_null(strstr(err.text, wrong[i]));
        assert_non_null(strstr(err.text, "expected auto, cpu, cuda:N or modelled"));
    }
    options.device = "cuda:7";
    assert_int_equal(ts_engine_open(&options, &engine, &err), TS_ENOTFOUND);
    assert_non_null(strstr(err.text, "device \"cuda:7\" is not to be had, take auto or cpu"));
    options.device = "auto"; /* a device that is there and too small is no reason to be slow unasked */
    options.kv_blocks = 0;
    options.reserve_bytes = 5000 * MIB;
    assert_int_equal(ts_engine_open(&options, &engine, &err), TS_ENOMEM);
    assert_non_null(strstr(err.text, "device \"auto\" is cuda:0 here, take cpu to do without it"));
    emulated_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_devices),    cmocka_unit_test(short_of_memory),
        cmocka_unit_test(too_large_a_pool), cmocka_unit_test(what_is_free),
        cmocka_unit_test(lost_in_a_batch),
    };
    if (!emulated_find())
        return 1;
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
