#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/model/hf_impl.h"

static bool is_qwen(const char *type)
{
    return strncmp(type, "qwen", 4) == 0;
}

static enum ts_status read_shapes(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    enum ts_status status = hf_read_u32(config, "hidden_size", 1, 1 << 20, true, &m->hidden, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "intermediate_size", 1, 1 << 22, true, &m->intermediate, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "num_hidden_layers", 1, TS_MODEL_LAYERS_MAX, true, &m->layers, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "num_attention_heads", 1, 4096, true, &m->heads, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "vocab_size", 1, 1 << 22, true, &m->vocab, err);
    if (status == TS_OK)
        status =
            hf_read_u32(config, "max_position_embeddings", 1, HF_CONTEXT_MAX, true, &m->context_tokens, err);
    if (status != TS_OK)
        return status;
    m->kv_heads = m->heads;
    m->head_dim = m->hidden / m->heads;
    status = hf_read_u32(config, "num_key_value_heads", 1, m->heads, false, &m->kv_heads, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "head_dim", 2, 512, false, &m->head_dim, err);
    if (status == TS_OK && m->heads % m->kv_heads != 0)
        return ts_error_set(err, TS_EINVAL,
                            "num_attention_heads %u is not a multiple of num_key_value_heads %u", m->heads,
                            m->kv_heads);
    if (status == TS_OK && (m->head_dim < 2 || m->head_dim > 512 || m->head_dim % 2 != 0))
        return ts_error_set(err, TS_EINVAL, "head_dim %u: expected an even number from 2 to 512",
                            m->head_dim);
    return status;
}

static enum ts_status read_dtype(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    static const struct {
        const char *name;
        enum ts_dtype dtype;
    } table[] = {{"float32", TS_DTYPE_F32}, {"float16", TS_DTYPE_F16}, {"bfloat16", TS_DTYPE_BF16}};
    const char *key = ts_json_is_null(ts_json_get(config, "dtype")) ? "torch_dtype" : "dtype",
               *name = "float32";
    enum ts_status status = hf_read_string(config, key, &name, err);
    size_t i = 0;
    while (status == TS_OK && i < TS_ARRAY_SIZE(table) && strcmp(name, table[i].name) != 0)
        i++;
    if (status != TS_OK)
        return status;
    if (i == TS_ARRAY_SIZE(table))
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "%s \"%.64s\" is not supported: expected float32, float16 or bfloat16", key,
                            name);
    m->weight_dtype = table[i].dtype;
    m->kv_dtype = m->weight_dtype == TS_DTYPE_BF16 ? TS_DTYPE_BF16 : TS_DTYPE_F16;
    return TS_OK;
}

/* layer_types, where given, has a known word for each layer. */
static enum ts_status check_layer_types(const struct ts_json *types, uint32_t layers, struct ts_error *err)
{
    char words[64];
    if (ts_json_is_null(types))
        return TS_OK;
    if (ts_json_count(types) != layers)
        return ts_error_set(err, TS_EINVAL, "layer_types has %zu entries for num_hidden_layers %u",
                            ts_json_count(types), layers);
    for (uint32_t i = 0; i < layers; i++) {
        const char *name = ts_json_string(ts_json_at(types, i), NULL);
        if (!name || (strcmp(name, "full_attention") != 0 && strcmp(name, "sliding_attention") != 0))
            return ts_error_set(
                err, TS_EUNSUPPORTED,
                "layer_types[%u] %s is not supported: expected full_attention or sliding_attention", i,
                ts_json_describe(ts_json_at(types, i), words, sizeof words));
    }
    return TS_OK;
}

/* Llama has no window. Mistral has one in all layers: 4096 unless the key says otherwise, null for none. Qwen
 * names a window that it uses only with use_sliding_window, from layer max_window_layers on. */
static enum ts_status read_window(const struct ts_json *config, const char *type, struct ts_hf *hf,
                                  struct ts_error *err)
{
    struct ts_model *m = &hf->model;
    const struct ts_json *types = ts_json_get(config, "layer_types"),
                         *window = ts_json_get(config, "sliding_window");
    bool use = !is_qwen(type);
    uint32_t from = is_qwen(type) ? 28 : 0;
    enum ts_status status = check_layer_types(types, m->layers, err);
    if (status == TS_OK)
        status = hf_read_bool(config, "use_sliding_window", &use, err);
    if (status == TS_OK)
        status = hf_read_u32(config, "max_window_layers", 0, 1 << 20, false, &from, err);
    if (status != TS_OK || !use || strcmp(type, "llama") == 0 || ts_json_type(window) == TS_JSON_NULL)
        return status;
    m->sliding_window = 4096;
    status = hf_read_u32(config, "sliding_window", 1, HF_CONTEXT_MAX, false, &m->sliding_window, err);
    for (uint32_t i = 0; status == TS_OK && i < m->layers; i++) {
        const char *name = ts_json_string(ts_json_at(types, i), NULL);
        hf->windowed[i] = name ? strcmp(name, "sliding_attention") == 0 : i >= from;
    }
    return status;
}

/* A folder with another head (classification, embedding) has the family's model_type too. */
static enum ts_status check_architecture(const struct ts_json *config, const char *expected,
                                         struct ts_error *err)
{
    const struct ts_json *names = ts_json_get(config, "architectures");
    char words[128];
    if (ts_json_is_null(names))
        return TS_OK;
    const char *name = ts_json_string(ts_json_at(names, 0), NULL);
    if (ts_json_count(names) == 1 && name && strcmp(name, expected) == 0)
        return TS_OK;
    return ts_error_set(err, TS_EUNSUPPORTED, "architectures %s is not supported: expected [\"%s\"]",
                        ts_json_describe(names, words, sizeof words), expected);
}

static enum ts_status refuse_variants(const struct ts_json *config, struct ts_error *err)
{
    const char *act = "silu";
    double partial = 1;
    char words[128];
    const struct ts_json *quantised = ts_json_get(config, "quantization_config");
    if (!ts_json_is_null(quantised))
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "quantization_config %s: quantised weights are not supported, use a 16-bit or 32-bit copy",
            ts_json_describe(quantised, words, sizeof words));
    enum ts_status status = hf_read_string(config, "hidden_act", &act, err);
    if (status == TS_OK && strcmp(act, "silu") != 0)
        return ts_error_set(err, TS_EUNSUPPORTED, "hidden_act \"%.64s\" is not supported: expected silu",
                            act);
    if (status == TS_OK)
        status = hf_read_number(config, "partial_rotary_factor", 0, 1, false, &partial, err);
    if (status == TS_OK && partial != 1)
        return ts_error_set(err, TS_EUNSUPPORTED, "partial_rotary_factor %g is not supported: expected 1",
                            partial);
    return status;
}

static enum ts_status read_family(const struct ts_json *config, const char *type, struct ts_hf *hf,
                                  struct ts_error *err)
{
    static const char *const families[][2] = {{"llama", "LlamaForCausalLM"},
                                              {"mistral", "MistralForCausalLM"},
                                              {"qwen2", "Qwen2ForCausalLM"},
                                              {"qwen3", "Qwen3ForCausalLM"}};
    size_t i = 0;
    while (i < TS_ARRAY_SIZE(families) && strcmp(families[i][0], type) != 0)
        i++;
    if (i == TS_ARRAY_SIZE(families))
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "model_type \"%.64s\" is not supported: expected llama, mistral, qwen2 or qwen3",
                            type);
    enum ts_status status = check_architecture(config, families[i][1], err);
    if (status == TS_OK)
        status = refuse_variants(config, err);
    hf->qkv_bias = strcmp(type, "qwen2") == 0; /* implied by the family, no key */
    hf->qk_norm = strcmp(type, "qwen3") == 0;
    bool bias = false;
    if (status == TS_OK)
        status = hf_read_bool(config, "attention_bias", &bias, err);
    if (bias && strcmp(type, "qwen2") != 0)
        hf->qkv_bias = hf->o_bias = true;
    if (status == TS_OK)
        status = hf_read_bool(config, "mlp_bias", &hf->mlp_bias, err);
    if (status == TS_OK)
        status = hf_read_bool(config, "tie_word_embeddings", &hf->tied, err);
    hf->rms_eps = 1e-6;
    if (status == TS_OK)
        status = hf_read_number(config, "rms_norm_eps", 0, 1, false, &hf->rms_eps, err);
    return status;
}

enum ts_status hf_read_config(const struct ts_json *config, struct ts_hf *hf, struct ts_error *err)
{
    const char *type = NULL;
    enum ts_status status = ts_json_read_string(config, "model_type", &type, NULL, err);
    if (status == TS_OK)
        status = read_family(config, type, hf, err);
    if (status == TS_OK)
        status = hf_check_config_keys(config, err);
    if (status == TS_OK)
        status = read_shapes(config, &hf->model, err);
    if (status == TS_OK)
        status = read_dtype(config, &hf->model, err);
    if (status == TS_OK)
        status = hf_read_rope(config, hf, err);
    if (status == TS_OK)
        status = read_window(config, type, hf, err);
    if (status == TS_OK)
        status = hf_read_eos(config, &hf->model, err);
    return status;
}
