/* Models by name, by alias, from files and from a Hugging Face config.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "inputs_fixture.h"

static const char plain[] =
    "name = \"My Model\"; aliases = ( \"org/mine\", \"mm\" );\n"
    "layers = 4; hidden = 64; intermediate = 128; heads = 8; vocab = 1000; context_tokens = 512;\n";

static void test_names(void **state)
{
    struct ts_model model;
    struct ts_error err = {0};
    static const char *const names[] = {"my-model", "MYMODEL", "mm", "org/Mine", "file one"};
    (void)state;
    inputs_write("models", "file-one.conf", plain);
    for (size_t i = 0; i < TS_ARRAY_SIZE(names); i++) {
        if (ts_inputs_model(inputs_conf, names[i], &model, &err) != TS_OK)
            fail_msg("%s", err.text);
        assert_string_equal(model.name, "My Model");
        assert_int_equal(model.kv_heads, 8);
        assert_int_equal(model.head_dim, 8);
        assert_int_equal(model.weight_dtype, TS_DTYPE_BF16);
        assert_false(model.tied || model.mlp_plain);
    }
    assert_int_equal(ts_inputs_model(inputs_conf, "my-modal", &model, &err), TS_ENOTFOUND);
    inputs_expect(&err, "model \"my-modal\"");
    inputs_expect(&err, "did you mean My Model");
}

static void test_two_files_of_one_name(void **state)
{
    struct ts_model model;
    struct ts_error err = {0};
    (void)state;
    inputs_write("models", "file-one.conf", plain);
    const char *path = inputs_write("models", "file-two.conf", plain);
    assert_int_equal(ts_inputs_model(inputs_conf, "mm", &model, &err), TS_EINVAL);
    inputs_expect(&err, "model \"mm\" is a name in two files");
    assert_int_equal(remove(path), 0);
}

static void test_refused_files(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"kv_heads = 3;", "kv_heads = 3: expected a divisor of heads = 8"},
        {"kv_heads = 16;", "kv_heads = 16: expected a divisor"},
        {"dtype = \"int8\";", "dtype = \"int8\": expected float32, float16 or bfloat16"},
        {"kv_head = 2;", "unknown key; did you mean kv_heads?"},
        {"head_dim = 0;", "head_dim = 0: expected a whole number from 1"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char text[512];
        struct ts_model model;
        struct ts_error err = {0};
        snprintf(text, sizeof text, "%s%s", plain, cases[i].text);
        const char *path = inputs_write("wrong", "bad.conf", text);
        assert_int_equal(ts_inputs_model(inputs_conf, path, &model, &err), TS_EINVAL);
        inputs_expect(&err, cases[i].words);
        inputs_expect(&err, "bad.conf:");
    }
}

#define SIZES                                                                                                \
    "\"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": 32,"                        \
    "\"num_attention_heads\": 32, \"vocab_size\": 128256, \"max_position_embeddings\": 8192"

static void test_config_json(void **state)
{
    struct ts_model model;
    struct ts_error err = {0};
    (void)state;
    inputs_write("llama-x", "config.json",
                 "{\"model_type\": \"llama\", \"num_key_value_heads\": 8, \"torch_dtype\": \"float16\","
                 "\"tie_word_embeddings\": true, \"sliding_window\": 4096, " SIZES "}");
    char folder[256];
    snprintf(folder, sizeof folder, "%s/llama-x/", inputs_conf);
    if (ts_inputs_model(inputs_conf, folder, &model, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_string_equal(model.name, "llama-x");
    assert_int_equal(model.layers, 32);
    assert_int_equal(model.kv_heads, 8);
    assert_int_equal(model.head_dim, 128);
    assert_int_equal(model.context_tokens, 8192);
    assert_int_equal(model.weight_dtype, TS_DTYPE_F16);
    assert_int_equal(model.sliding_window, 0); /* Llama has none, whatever the key says */
    assert_true(model.tied && !model.mlp_plain);
    snprintf(folder, sizeof folder, "%s/llama-x/config.json", inputs_conf);
    assert_int_equal(ts_inputs_model(inputs_conf, folder, &model, &err), TS_OK);
    assert_string_equal(model.name, "llama-x");
}

static void test_refused_json(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"hidden_size\": 4}", "intermediate_size"},
        {"{" SIZES ", \"num_key_value_heads\": 5}", "num_key_value_heads 5: expected a divisor"},
        {"{" SIZES ", \"num_key_value_heads\": -1}", "num_key_value_heads"},
        {"{" SIZES ", \"torch_dtype\": \"int4\"}", "torch_dtype \"int4\": expected float32"},
        {"{" SIZES ", \"num_local_experts\": 8}", "num_local_experts 8 is not understood"},
        {"{" SIZES ", \"quantization_config\": {\"bits\": 4}}",
         "quantization_config {\"bits\":4} is not understood"},
        {"[1]", "a config.json is an object"},
        {"{", "config.json"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_model model;
        struct ts_error err = {0};
        const char *path = inputs_write("hf", "config.json", cases[i].text);
        assert_int_not_equal(ts_inputs_model(inputs_conf, path, &model, &err), TS_OK);
        inputs_expect(&err, cases[i].words);
        inputs_expect(&err, path);
    }
}

static void test_shipped(void **state)
{
    char names[64][64];
    size_t count = inputs_shipped("models", names, 64);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        struct ts_model model;
        struct ts_error err = {0};
        if (ts_inputs_model(TS_CONF_DIR, names[i], &model, &err) != TS_OK)
            fail_msg("%s", err.text);
        char name[TS_MODEL_NAME_BYTES];
        snprintf(name, sizeof name, "%s", model.name);
        if (ts_inputs_model(TS_CONF_DIR, name, &model, &err) != TS_OK) /* no other file claims it */
            fail_msg("%s", err.text);
        assert_string_equal(model.name, name);
    }
}

static void test_llama_30b(void **state)
{
    struct ts_model model;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_inputs_model(TS_CONF_DIR, "LLaMA 30B", &model, &err), TS_OK);
    assert_int_equal(model.layers, 60);
    assert_int_equal(model.hidden, 6656);
    assert_int_equal(model.intermediate, 17920);
    assert_int_equal(model.heads, 52);
    assert_int_equal(model.kv_heads, 52);
    assert_int_equal(ts_model_kv_token_bytes(&model), 2 * 2 * 60 * 6656);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_two_files_of_one_name),
        cmocka_unit_test(test_refused_files), cmocka_unit_test(test_config_json),
        cmocka_unit_test(test_refused_json),  cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_llama_30b),
    };
    return cmocka_run_group_tests(tests, inputs_setup, inputs_teardown);
}
