/* config.json, generation_config.json and tokenizer_config.json: what well-known models say, and what is
 * refused. */
#include "tests/gpu/model_fixture.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/model/hf_impl.h"

/* The texts below are those of the published models, with ' for ". */
static struct ts_json *parse(const char *text)
{
    struct ts_json *doc = NULL;
    struct ts_error err = {0};
    char *copy = ts_xstrdup(text);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    if (ts_json_parse(copy, strlen(copy), "literal", &doc, &err) != TS_OK)
        fail_msg("%s in %s", err.text, copy);
    ts_free(copy);
    return doc;
}

struct published {
    const char *name, *text;
    uint32_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, context, window;
    enum ts_dtype dtype;
    double theta, eps;
    enum ts_rope_kind rope;
    bool qkv_bias, qk_norm, tied;
    uint32_t eos[3]; /* up to the first 0 */
};

static const struct published published[] = {
    {"Llama-2-7b",
     "{'_name_or_path': 'meta-llama/Llama-2-7b-hf', 'architectures': ['LlamaForCausalLM'], 'bos_token_id': 1,"
     "'eos_token_id': 2, 'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02,"
     "'intermediate_size': 11008, 'max_position_embeddings': 4096, 'model_type': 'llama', "
     "'num_attention_heads': 32,"
     "'num_hidden_layers': 32, 'num_key_value_heads': 32, 'pretraining_tp': 1, 'rms_norm_eps': 1e-05,"
     "'rope_scaling': null, 'tie_word_embeddings': false, 'torch_dtype': 'float16', 'transformers_version': "
     "'4.31.0',"
     "'use_cache': true, 'vocab_size': 32000}",
     32,
     4096,
     11008,
     32,
     32,
     128,
     32000,
     4096,
     0,
     TS_DTYPE_F16,
     1e4,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {2}},
    {"Meta-Llama-3-8B",
     "{'architectures': ['LlamaForCausalLM'], 'attention_bias': false, 'attention_dropout': 0.0,"
     "'bos_token_id': 128000, 'eos_token_id': 128001, 'hidden_act': 'silu', 'hidden_size': 4096,"
     "'initializer_range': 0.02, 'intermediate_size': 14336, 'max_position_embeddings': 8192, 'model_type': "
     "'llama',"
     "'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8, 'pretraining_tp': 1,"
     "'rms_norm_eps': 1e-05, 'rope_scaling': null, 'rope_theta': 500000.0, 'tie_word_embeddings': false,"
     "'torch_dtype': 'bfloat16', 'transformers_version': '4.40.0.dev0', 'use_cache': true, 'vocab_size': "
     "128256}",
     32,
     4096,
     14336,
     32,
     8,
     128,
     128256,
     8192,
     0,
     TS_DTYPE_BF16,
     5e5,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {128001}},
    {"Llama-3.1-8B-Instruct",
     "{'architectures': ['LlamaForCausalLM'], 'attention_bias': false, 'attention_dropout': 0.0,"
     "'bos_token_id': 128000, 'eos_token_id': [128001, 128008, 128009], 'hidden_act': 'silu', 'hidden_size': "
     "4096,"
     "'initializer_range': 0.02, 'intermediate_size': 14336, 'max_position_embeddings': 131072, 'mlp_bias': "
     "false,"
     "'model_type': 'llama', 'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,"
     "'pretraining_tp': 1, 'rms_norm_eps': 1e-05, 'rope_scaling': {'factor': 8.0, 'low_freq_factor': 1.0,"
     "'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192, 'rope_type': 'llama3'},"
     "'rope_theta': 500000.0, 'tie_word_embeddings': false, 'torch_dtype': 'bfloat16',"
     "'transformers_version': '4.42.3', 'use_cache': true, 'vocab_size': 128256}",
     32,
     4096,
     14336,
     32,
     8,
     128,
     128256,
     131072,
     0,
     TS_DTYPE_BF16,
     5e5,
     1e-5,
     TS_ROPE_LLAMA3,
     false,
     false,
     false,
     {128001, 128008, 128009}},
    {"Llama-3.2-1B",
     "{'architectures': ['LlamaForCausalLM'], 'attention_bias': false, 'attention_dropout': 0.0,"
     "'bos_token_id': 128000, 'eos_token_id': 128001, 'head_dim': 64, 'hidden_act': 'silu', 'hidden_size': "
     "2048,"
     "'initializer_range': 0.02, 'intermediate_size': 8192, 'max_position_embeddings': 131072, 'mlp_bias': "
     "false,"
     "'model_type': 'llama', 'num_attention_heads': 32, 'num_hidden_layers': 16, 'num_key_value_heads': 8,"
     "'pretraining_tp': 1, 'rms_norm_eps': 1e-05, 'rope_scaling': {'factor': 32.0, 'high_freq_factor': 4.0,"
     "'low_freq_factor': 1.0, 'original_max_position_embeddings': 8192, 'rope_type': 'llama3'},"
     "'rope_theta': 500000.0, 'tie_word_embeddings': true, 'torch_dtype': 'bfloat16',"
     "'transformers_version': '4.45.0.dev0', 'use_cache': true, 'vocab_size': 128256}",
     16,
     2048,
     8192,
     32,
     8,
     64,
     128256,
     131072,
     0,
     TS_DTYPE_BF16,
     5e5,
     1e-5,
     TS_ROPE_LLAMA3,
     false,
     false,
     true,
     {128001}},
    {"TinyLlama-1.1B-Chat",
     "{'architectures': ['LlamaForCausalLM'], 'attention_bias': false, 'bos_token_id': 1, 'eos_token_id': 2,"
     "'hidden_act': 'silu', 'hidden_size': 2048, 'initializer_range': 0.02, 'intermediate_size': 5632,"
     "'max_position_embeddings': 2048, 'model_type': 'llama', 'num_attention_heads': 32, "
     "'num_hidden_layers': 22,"
     "'num_key_value_heads': 4, 'pretraining_tp': 1, 'rms_norm_eps': 1e-05, 'rope_scaling': null,"
     "'rope_theta': 10000.0, 'tie_word_embeddings': false, 'torch_dtype': 'bfloat16',"
     "'transformers_version': '4.35.0', 'use_cache': true, 'vocab_size': 32000}",
     22,
     2048,
     5632,
     32,
     4,
     64,
     32000,
     2048,
     0,
     TS_DTYPE_BF16,
     1e4,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {2}},
    {"SmolLM2-135M",
     "{'architectures': ['LlamaForCausalLM'], 'attention_bias': false, 'attention_dropout': 0.0, "
     "'bos_token_id': 0,"
     "'eos_token_id': 0, 'hidden_act': 'silu', 'hidden_size': 576, 'initializer_range': 0.041666666666666664,"
     "'intermediate_size': 1536, 'is_llama_config': true, 'max_position_embeddings': 8192, 'model_type': "
     "'llama',"
     "'num_attention_heads': 9, 'num_hidden_layers': 30, 'num_key_value_heads': 3, 'pretraining_tp': 1,"
     "'rms_norm_eps': 1e-05, 'rope_interleaved': false, 'rope_scaling': null, 'rope_theta': 100000,"
     "'tie_word_embeddings': true, 'torch_dtype': 'bfloat16', 'transformers_version': '4.40.1', 'use_cache': "
     "true,"
     "'vocab_size': 49152}",
     30,
     576,
     1536,
     9,
     3,
     64,
     49152,
     8192,
     0,
     TS_DTYPE_BF16,
     1e5,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     true,
     {0}},
    {"Mistral-7B-v0.1",
     "{'architectures': ['MistralForCausalLM'], 'bos_token_id': 1, 'eos_token_id': 2, 'hidden_act': 'silu',"
     "'hidden_size': 4096, 'initializer_range': 0.02, 'intermediate_size': 14336, 'max_position_embeddings': "
     "32768,"
     "'model_type': 'mistral', 'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8,"
     "'rms_norm_eps': 1e-05, 'rope_theta': 10000.0, 'sliding_window': 4096, 'tie_word_embeddings': false,"
     "'torch_dtype': 'bfloat16', 'transformers_version': '4.34.0.dev0', 'use_cache': true, 'vocab_size': "
     "32000}",
     32,
     4096,
     14336,
     32,
     8,
     128,
     32000,
     32768,
     4096,
     TS_DTYPE_BF16,
     1e4,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {2}},
    {"Mistral-7B-Instruct-v0.3",
     "{'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 1, 'eos_token_id': "
     "2,"
     "'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02, 'intermediate_size': 14336,"
     "'max_position_embeddings': 32768, 'model_type': 'mistral', 'num_attention_heads': 32, "
     "'num_hidden_layers': 32,"
     "'num_key_value_heads': 8, 'rms_norm_eps': 1e-05, 'rope_theta': 1000000.0, 'sliding_window': null,"
     "'tie_word_embeddings': false, 'torch_dtype': 'bfloat16', 'transformers_version': '4.42.0.dev0',"
     "'use_cache': true, 'vocab_size': 32768}",
     32,
     4096,
     14336,
     32,
     8,
     128,
     32768,
     32768,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {2}},
    {"Mistral-Nemo-Base-2407",
     "{'architectures': ['MistralForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 1, 'eos_token_id': "
     "2,"
     "'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': 5120, 'initializer_range': 0.02,"
     "'intermediate_size': 14336, 'max_position_embeddings': 131072, 'model_type': 'mistral',"
     "'num_attention_heads': 32, 'num_hidden_layers': 40, 'num_key_value_heads': 8, 'rms_norm_eps': 1e-05,"
     "'rope_theta': 1000000.0, 'sliding_window': null, 'tie_word_embeddings': false, 'torch_dtype': "
     "'bfloat16',"
     "'transformers_version': '4.43.0.dev0', 'use_cache': true, 'vocab_size': 131072}",
     40,
     5120,
     14336,
     32,
     8,
     128,
     131072,
     131072,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-5,
     TS_ROPE_DEFAULT,
     false,
     false,
     false,
     {2}},
    {"Qwen2-7B-Instruct",
     "{'architectures': ['Qwen2ForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 151643,"
     "'eos_token_id': 151645, 'hidden_act': 'silu', 'hidden_size': 3584, 'initializer_range': 0.02,"
     "'intermediate_size': 18944, 'max_position_embeddings': 32768, 'max_window_layers': 28, 'model_type': "
     "'qwen2',"
     "'num_attention_heads': 28, 'num_hidden_layers': 28, 'num_key_value_heads': 4, 'rms_norm_eps': 1e-06,"
     "'rope_theta': 1000000.0, 'sliding_window': 131072, 'tie_word_embeddings': false, 'torch_dtype': "
     "'bfloat16',"
     "'transformers_version': '4.41.2', 'use_cache': true, 'use_sliding_window': false, 'vocab_size': "
     "152064}",
     28,
     3584,
     18944,
     28,
     4,
     128,
     152064,
     32768,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-6,
     TS_ROPE_DEFAULT,
     true,
     false,
     false,
     {151645}},
    {"Qwen2.5-0.5B",
     "{'architectures': ['Qwen2ForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 151643,"
     "'eos_token_id': 151643, 'hidden_act': 'silu', 'hidden_size': 896, 'initializer_range': 0.02,"
     "'intermediate_size': 4864, 'max_position_embeddings': 32768, 'max_window_layers': 24, 'model_type': "
     "'qwen2',"
     "'num_attention_heads': 14, 'num_hidden_layers': 24, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-06,"
     "'rope_theta': 1000000.0, 'sliding_window': 32768, 'tie_word_embeddings': true, 'torch_dtype': "
     "'bfloat16',"
     "'transformers_version': '4.40.1', 'use_cache': true, 'use_mrope': false, 'use_sliding_window': false,"
     "'vocab_size': 151936}",
     24,
     896,
     4864,
     14,
     2,
     64,
     151936,
     32768,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-6,
     TS_ROPE_DEFAULT,
     true,
     false,
     true,
     {151643}},
    {"Qwen2.5-7B-Instruct for long inputs, as its card says",
     "{'architectures': ['Qwen2ForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 151643,"
     "'eos_token_id': 151645, 'hidden_act': 'silu', 'hidden_size': 3584, 'initializer_range': 0.02,"
     "'intermediate_size': 18944, 'max_position_embeddings': 32768, 'max_window_layers': 28, 'model_type': "
     "'qwen2',"
     "'num_attention_heads': 28, 'num_hidden_layers': 28, 'num_key_value_heads': 4, 'rms_norm_eps': 1e-06,"
     "'rope_scaling': {'factor': 4.0, 'original_max_position_embeddings': 32768, 'type': 'yarn'},"
     "'rope_theta': 1000000.0, 'sliding_window': 131072, 'tie_word_embeddings': false, 'torch_dtype': "
     "'bfloat16',"
     "'transformers_version': '4.43.1', 'use_cache': true, 'use_sliding_window': false, 'vocab_size': "
     "152064}",
     28,
     3584,
     18944,
     28,
     4,
     128,
     152064,
     32768,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-6,
     TS_ROPE_YARN,
     true,
     false,
     false,
     {151645}},
    {"Qwen3-0.6B",
     "{'architectures': ['Qwen3ForCausalLM'], 'attention_bias': false, 'attention_dropout': 0.0,"
     "'bos_token_id': 151643, 'eos_token_id': 151645, 'head_dim': 128, 'hidden_act': 'silu', 'hidden_size': "
     "1024,"
     "'initializer_range': 0.02, 'intermediate_size': 3072, 'max_position_embeddings': 40960,"
     "'max_window_layers': 28, 'model_type': 'qwen3', 'num_attention_heads': 16, 'num_hidden_layers': 28,"
     "'num_key_value_heads': 8, 'rms_norm_eps': 1e-06, 'rope_scaling': null, 'rope_theta': 1000000,"
     "'sliding_window': null, 'tie_word_embeddings': true, 'torch_dtype': 'bfloat16',"
     "'transformers_version': '4.51.0', 'use_cache': true, 'use_sliding_window': false, 'vocab_size': "
     "151936}",
     28,
     1024,
     3072,
     16,
     8,
     128,
     151936,
     40960,
     0,
     TS_DTYPE_BF16,
     1e6,
     1e-6,
     TS_ROPE_DEFAULT,
     false,
     true,
     true,
     {151645}},
    {"a Llama as newer libraries save it",
     "{'architectures': ['LlamaForCausalLM'], 'dtype': 'bfloat16', 'eos_token_id': 2, 'head_dim': 64,"
     "'hidden_act': 'silu', 'hidden_size': 128, 'intermediate_size': 256, 'layer_types': ['full_attention'],"
     "'max_position_embeddings': 1024, 'model_type': 'llama', 'num_attention_heads': 2, 'num_hidden_layers': "
     "1,"
     "'pad_token_id': null, 'rms_norm_eps': 1e-05, 'rope_parameters': {'factor': 4.0, 'rope_theta': 20000.0,"
     "'rope_type': 'linear'}, 'transformers_version': '5.0.0', 'vocab_size': 300}",
     1,
     128,
     256,
     2,
     2,
     64,
     300,
     1024,
     0,
     TS_DTYPE_BF16,
     2e4,
     1e-5,
     TS_ROPE_LINEAR,
     false,
     false,
     false,
     {2}},
};

static void expect_published(const struct published *p)
{
    struct ts_hf hf = {0};
    struct ts_error err = {0};
    struct ts_json *doc = parse(p->text);
    const struct ts_model *m = &hf.model;
    if (hf_read_config(doc, &hf, &err) != TS_OK)
        fail_msg("%s: %s", p->name, err.text);
    const uint32_t got[] = {m->layers,   m->hidden, m->intermediate,   m->heads,         m->kv_heads,
                            m->head_dim, m->vocab,  m->context_tokens, m->sliding_window};
    const uint32_t want[] = {p->layers,   p->hidden, p->intermediate, p->heads, p->kv_heads,
                             p->head_dim, p->vocab,  p->context,      p->window};
    for (size_t i = 0; i < TS_ARRAY_SIZE(got); i++) {
        if (got[i] != want[i])
            fail_msg("%s: number %zu is %u, expected %u", p->name, i, got[i], want[i]);
    }
    assert_int_equal(m->weight_dtype, p->dtype);
    assert_int_equal(m->kv_dtype, p->dtype);
    assert_true(hf.rope.theta == p->theta && hf.rms_eps == p->eps);
    assert_int_equal(hf.rope.kind, p->rope);
    assert_true(hf.qkv_bias == p->qkv_bias && hf.qk_norm == p->qk_norm && hf.tied == p->tied);
    assert_false(hf.o_bias || hf.mlp_bias);
    for (uint32_t i = 0; i < m->layers; i++)
        assert_int_equal(hf.windowed[i], p->window != 0);
    for (uint32_t i = 0; i < m->eos_count; i++)
        assert_int_equal(m->eos[i], p->eos[i]);
    assert_true(m->eos_count >= 1 && (m->eos_count == 3 || p->eos[m->eos_count] == 0));
    ts_json_destroy(&doc);
}

static void published_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(published); i++)
        expect_published(&published[i]);
}

/* A small Llama as keys and values, so that a case can replace one and add another. */
static const char *const base[][2] = {{"model_type", "'llama'"},    {"hidden_size", "8"},
                                      {"intermediate_size", "16"},  {"num_hidden_layers", "4"},
                                      {"num_attention_heads", "4"}, {"num_key_value_heads", "2"},
                                      {"vocab_size", "100"},        {"max_position_embeddings", "64"},
                                      {"torch_dtype", "'float32'"}};

/* `changes` is a list of members; a base key among them is replaced. */
static struct ts_json *changed(const char *changes)
{
    char text[2048], member[64];
    size_t used = (size_t)snprintf(text, sizeof text, "{%s", changes);
    for (size_t i = 0; i < TS_ARRAY_SIZE(base); i++) {
        snprintf(member, sizeof member, "'%s':", base[i][0]);
        if (!strstr(changes, member))
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %s", used > 1 ? "," : "", member,
                                     base[i][1]);
    }
    assert_true(used + 2 < sizeof text);
    memcpy(text + used, "}", 2);
    return parse(text);
}

static enum ts_status read_changed(const char *changes, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_json *doc = changed(changes);
    *hf = (struct ts_hf){.defaults = ts_sampling_defaults()};
    *err = (struct ts_error){0};
    enum ts_status status = hf_read_config(doc, hf, err);
    ts_json_destroy(&doc);
    return status;
}

static const struct {
    const char *changes;
    enum ts_status status;
    const char *words[3];
} refused[] = {
    {"'model_type': 'mamba'", TS_EUNSUPPORTED, {"model_type", "mamba", "llama, mistral, qwen2 or qwen3"}},
    {"'model_type': null", TS_ENOTFOUND, {"model_type"}},
    {"'model_type': 'mixtral'", TS_EUNSUPPORTED, {"model_type", "mixtral"}},
    {"'architectures': ['LlamaForSequenceClassification']",
     TS_EUNSUPPORTED,
     {"architectures", "LlamaForSequenceClassification", "LlamaForCausalLM"}},
    {"'hidden_act': 'gelu'", TS_EUNSUPPORTED, {"hidden_act", "gelu", "silu"}},
    {"'hidden_act': 3", TS_EINVAL, {"hidden_act", "3"}},
    {"'quantization_config': {'quant_method': 'gptq', 'bits': 4}",
     TS_EUNSUPPORTED,
     {"quantization_config", "gptq"}},
    {"'partial_rotary_factor': 0.5", TS_EUNSUPPORTED, {"partial_rotary_factor", "0.5"}},
    {"'final_logit_softcapping': 30.0", TS_EUNSUPPORTED, {"final_logit_softcapping", "30.0", "remove it"}},
    {"'rope_interleaved': true", TS_EUNSUPPORTED, {"rope_interleaved", "true"}},
    {"'num_local_experts': 8", TS_EUNSUPPORTED, {"num_local_experts", "8"}},
    {"'dual_chunk_attention_config': {'chunk_size': 262144}",
     TS_EUNSUPPORTED,
     {"dual_chunk_attention_config"}},
    {"'hidden_size': 0", TS_EINVAL, {"hidden_size", "0"}},
    {"'hidden_size': '8'", TS_EINVAL, {"hidden_size", "\"8\"", "integer"}},
    {"'hidden_size': null", TS_ENOTFOUND, {"hidden_size"}},
    {"'num_hidden_layers': 1000", TS_EINVAL, {"num_hidden_layers", "1000"}},
    {"'num_key_value_heads': 3", TS_EINVAL, {"num_attention_heads 4", "num_key_value_heads 3"}},
    {"'num_key_value_heads': 5", TS_EINVAL, {"num_key_value_heads", "5"}},
    {"'head_dim': 7", TS_EINVAL, {"head_dim 7", "even"}},
    {"'head_dim': 1024", TS_EINVAL, {"head_dim", "1024"}},
    {"'hidden_size': 4", TS_EINVAL, {"head_dim 1"}},
    {"'torch_dtype': 'float8_e4m3fn'", TS_EUNSUPPORTED, {"torch_dtype", "float8_e4m3fn", "bfloat16"}},
    {"'torch_dtype': 16", TS_EINVAL, {"torch_dtype", "16"}},
    {"'dtype': 'int8'", TS_EUNSUPPORTED, {"dtype", "int8"}},
    {"'rms_norm_eps': -1", TS_EINVAL, {"rms_norm_eps", "-1"}},
    {"'rope_theta': 0", TS_EINVAL, {"rope_theta", "0"}},
    {"'rope_scaling': 2", TS_EINVAL, {"rope_scaling", "2", "object"}},
    {"'rope_scaling': {'factor': 2}", TS_EINVAL, {"neither rope_type nor type"}},
    {"'rope_scaling': {'type': 'dynamic', 'factor': 2}", TS_EUNSUPPORTED, {"rope type", "dynamic", "yarn"}},
    {"'rope_scaling': {'type': 'longrope', 'short_factor': [1]}", TS_EUNSUPPORTED, {"short_factor"}},
    {"'rope_scaling': {'type': 'linear', 'rope_type': 'yarn', 'factor': 2}", TS_EINVAL, {"linear", "yarn"}},
    {"'rope_scaling': {'type': 'linear'}", TS_ENOTFOUND, {"factor"}},
    {"'rope_scaling': {'type': 'linear', 'factor': 0.5}", TS_EINVAL, {"factor", "0.5"}},
    {"'rope_scaling': {'type': 'yarn', 'factor': 2, 'mscale': 0.5}", TS_EUNSUPPORTED, {"mscale", "0.5"}},
    {"'rope_scaling': {'rope_type': 'llama3', 'factor': 8}", TS_ENOTFOUND, {"low_freq_factor"}},
    {"'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 4, 'high_freq_factor': 1,"
     "'original_max_position_embeddings': 8}",
     TS_EINVAL,
     {"high_freq_factor 1", "low_freq_factor 4"}},
    {"'rope_parameters': {'full_attention': {'rope_type': 'default'}}", TS_EUNSUPPORTED, {"full_attention"}},
    {"'rope_parameters': {'rope_type': 'default', 'partial_rotary_factor': 0.25}",
     TS_EUNSUPPORTED,
     {"partial_rotary_factor", "0.25"}},
    {"'rope_parameters': {'rope_theta': 5}, 'rope_scaling': {'type': 'default'}",
     TS_EINVAL,
     {"rope_parameters", "rope_scaling"}},
    {"'model_type': 'mistral', 'sliding_window': 0", TS_EINVAL, {"sliding_window", "0"}},
    {"'layer_types': ['full_attention']", TS_EINVAL, {"layer_types", "1", "num_hidden_layers 4"}},
    {"'num_hidden_layers': 1, 'layer_types': ['chunked_attention']",
     TS_EUNSUPPORTED,
     {"layer_types[0]", "chunked_attention"}},
    {"'tie_word_embeddings': 1", TS_EINVAL, {"tie_word_embeddings", "1"}},
    {"'eos_token_id': 'x'", TS_EINVAL, {"eos_token_id", "x"}},
    {"'eos_token_id': [1, 'x']", TS_EINVAL, {"eos_token_id[1]", "x"}},
    {"'eos_token_id': [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", TS_ELIMIT, {"eos_token_id", "16"}},
};

static void refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(refused); i++) {
        struct ts_hf hf;
        struct ts_error err;
        enum ts_status status = read_changed(refused[i].changes, &hf, &err);
        if (status != refused[i].status)
            fail_msg("%s: %s, expected %s: %s", refused[i].changes, ts_status_name(status),
                     ts_status_name(refused[i].status), err.text);
        for (size_t w = 0; w < 3 && refused[i].words[w]; w++) {
            if (!strstr(err.text, refused[i].words[w]))
                fail_msg("%s: \"%s\" does not say %s", refused[i].changes, err.text, refused[i].words[w]);
        }
        assert_null(strchr(err.text, '\n'));
    }
}

static void harmless_keys(void **state)
{
    (void)state;
    struct ts_hf hf;
    struct ts_error err;
    const char *keys =
        "'_attn_implementation': 'eager', 'unsloth_version': '2025.1', 'final_logit_softcapping': null,"
        "'use_mrope': false, 'embd_pdrop': 0.1, 'transformers.js_config': {'dtype': 'q4'},"
        "'pruned_heads': {}, 'pad_token_id': 7, 'hidden_dropout': 0.1";
    if (read_changed(keys, &hf, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_true(hf.rms_eps == 1e-6 && hf.rope.theta == 10000 && !hf.tied && hf.model.eos_count == 0);
    assert_int_equal(hf.model.kv_dtype, TS_DTYPE_F16); /* of fp32 weights */
}

static void windows(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        uint32_t window;
        bool layers[4];
    } cases[] = {
        {"'sliding_window': 16", 0, {0}}, /* Llama has none, whatever it says */
        {"'model_type': 'mistral', 'sliding_window': 16", 16, {1, 1, 1, 1}},
        {"'model_type': 'mistral', 'sliding_window': null", 0, {0}},
        {"'model_type': 'mistral'", 4096, {1, 1, 1, 1}},
        {"'model_type': 'qwen2', 'sliding_window': 16", 0, {0}},
        {"'model_type': 'qwen2', 'sliding_window': 16, 'use_sliding_window': false, 'max_window_layers': 1",
         0,
         {0}},
        {"'model_type': 'qwen2', 'sliding_window': 16, 'use_sliding_window': true, 'max_window_layers': 3",
         16,
         {0, 0, 0, 1}},
        {"'model_type': 'qwen2', 'sliding_window': 16, 'use_sliding_window': true",
         16,
         {0}}, /* from layer 28 on */
        {"'model_type': 'qwen3', 'sliding_window': 16, 'use_sliding_window': true, 'max_window_layers': 4,"
         "'layer_types': ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention']",
         16,
         {1, 0, 1, 0}},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_hf hf;
        struct ts_error err;
        if (read_changed(cases[i].changes, &hf, &err) != TS_OK)
            fail_msg("%s: %s", cases[i].changes, err.text);
        if (hf.model.sliding_window != cases[i].window || memcmp(hf.windowed, cases[i].layers, 4) != 0)
            fail_msg("%s: window %u, layers %d %d %d %d", cases[i].changes, hf.model.sliding_window,
                     hf.windowed[0], hf.windowed[1], hf.windowed[2], hf.windowed[3]);
    }
}

static void biases(void **state)
{
    (void)state;
    struct ts_hf hf;
    struct ts_error err;
    assert_int_equal(read_changed("'attention_bias': true, 'mlp_bias': true", &hf, &err), TS_OK);
    assert_true(hf.qkv_bias && hf.o_bias && hf.mlp_bias && !hf.qk_norm);
    assert_int_equal(read_changed("'model_type': 'qwen2'", &hf, &err), TS_OK);
    assert_true(hf.qkv_bias && !hf.o_bias && !hf.mlp_bias);
    assert_int_equal(read_changed("'model_type': 'qwen3', 'attention_bias': true", &hf, &err), TS_OK);
    assert_true(hf.qkv_bias && hf.o_bias && hf.qk_norm);
}

static void ends_and_defaults_merge(void **state)
{
    (void)state;
    struct ts_hf hf;
    struct ts_error err;
    struct ts_json *generation =
        parse("{'eos_token_id': [2, 7, 2], 'temperature': 0.6, 'top_p': 0.9, 'top_k': 20, 'min_p': 0.05,"
              "'repetition_penalty': 1.1, 'do_sample': true, 'max_new_tokens': 100}");
    struct ts_json *tokenizer =
        parse("{'eos_token': {'content': '<|im_end|>'}, 'added_tokens_decoder':"
              "{'3': {'content': '<|pad|>'}, '9': {'content': '<|im_end|>', 'special': true}}}");
    struct ts_json *plain =
        parse("{'eos_token': '<|pad|>', 'added_tokens_decoder': {'3': {'content': '<|pad|>'}}}");
    assert_int_equal(read_changed("'eos_token_id': 2", &hf, &err), TS_OK);
    assert_int_equal(hf_read_generation(generation, &hf, &err), TS_OK);
    assert_int_equal(hf_read_tokenizer_config(tokenizer, &hf, &err), TS_OK);
    assert_int_equal(hf_read_tokenizer_config(plain, &hf, &err), TS_OK);
    static const uint32_t want[] = {2, 7, 9, 3};
    assert_int_equal(hf.model.eos_count, 4);
    assert_memory_equal(hf.model.eos, want, sizeof want);
    assert_true(hf.defaults.temperature == 0.6f && hf.defaults.top_p == 0.9f && hf.defaults.min_p == 0.05f);
    assert_true(hf.defaults.repetition_penalty == 1.1f);
    assert_int_equal(hf.defaults.top_k, 20);
    assert_int_equal(hf.defaults.given, TS_SAMPLING_ALL);
    struct ts_json *some = parse("{'min_p': 0, 'top_k': null, 'do_sample': false}");
    assert_int_equal(read_changed("'eos_token_id': 2", &hf, &err), TS_OK);
    assert_int_equal(hf.defaults.given, 0);
    assert_int_equal(hf_read_generation(some, &hf, &err), TS_OK);
    assert_int_equal(hf.defaults.given, TS_SAMPLING_MIN_P);
    assert_true(hf.defaults.temperature == 1 && hf.defaults.min_p == 0); /* do_sample is not asked */
    ts_json_destroy(&some);
    struct ts_json *bad = parse("{'top_p': 1.5}");
    assert_int_equal(hf_read_generation(bad, &hf, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, "top_p"));
    ts_json_destroy(&bad);
    ts_json_destroy(&generation);
    ts_json_destroy(&tokenizer);
    ts_json_destroy(&plain);
}

static void ids_outside_of_the_vocabulary(void **state)
{
    (void)state;
    struct ts_hf hf;
    struct ts_error err;
    assert_int_equal(read_changed("'eos_token_id': [-1, 99, 100]", &hf, &err), TS_OK);
    assert_int_equal(hf.model.eos_count, 1);
    assert_int_equal(hf.model.eos[0], 99);
}

/* By hand: head_dim 4, theta 10000: frequencies 1 and 0.01. */
static void rope_tables(void **state)
{
    (void)state;
    struct ts_rope rope = {
        .theta = 10000, .factor = 4, .original_context = 1000, .low_freq_factor = 1, .high_freq_factor = 4};
    double inv[2], factor;
    ts_rope_table(&rope, 4, inv, &factor);
    assert_true(inv[0] == 1 && inv[1] > 0.0099999 && inv[1] < 0.0100001 && factor == 1);
    rope.kind = TS_ROPE_LINEAR;
    ts_rope_table(&rope, 4, inv, &factor);
    assert_true(inv[0] == 0.25 && factor == 1);
    rope.kind = TS_ROPE_LLAMA3; /* wavelengths 6.28 (kept) and 628.3 (between 250 and 1000: blended) */
    ts_rope_table(&rope, 4, inv, &factor);
    double smooth = (1000 / (2 * 3.14159265358979 / 0.01) - 1) / 3;
    assert_true(inv[0] == 1);
    double want = 0.01 * ((1 - smooth) / 4 + smooth);
    assert_true(inv[1] > want * 0.999999 && inv[1] < want * 1.000001);
    rope = (struct ts_rope){.kind = TS_ROPE_YARN,
                            .theta = 10000,
                            .factor = 4,
                            .original_context = 1000,
                            .beta_fast = 32,
                            .beta_slow = 1,
                            .truncate = true};
    ts_rope_table(&rope, 4, inv, &factor); /* correction range 0 to 2: ramp 0 and 1/2 */
    assert_true(inv[0] == 1 && inv[1] > 0.00624 && inv[1] < 0.00626);
    assert_true(factor > 1.138629 && factor < 1.138630); /* 0.1 ln 4 + 1 */
    rope.attention_factor = 0.5;
    ts_rope_table(&rope, 4, inv, &factor);
    assert_true(factor == 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_models),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(harmless_keys),
                                       cmocka_unit_test(windows),
                                       cmocka_unit_test(biases),
                                       cmocka_unit_test(ends_and_defaults_merge),
                                       cmocka_unit_test(ids_outside_of_the_vocabulary),
                                       cmocka_unit_test(rope_tables)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
