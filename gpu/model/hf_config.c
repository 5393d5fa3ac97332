#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/text/ts_json.h"
#include "gpu/model/ts_hf.h"

#define CONTEXT_MAX (1 << 20)

static enum ts_status read_u32(const struct ts_json *config, const char *key, uint32_t min, uint32_t max,
                               uint32_t *out, struct ts_error *err)
{
    int64_t value = 0;
    enum ts_status status = ts_json_read_integer(config, key, min, max, &value, err);
    if (status == TS_OK)
        *out = (uint32_t)value;
    return status;
}

/* As read_u32, but absent or null keeps what is in *out. */
static enum ts_status read_u32_or(const struct ts_json *config, const char *key, uint32_t min, uint32_t max,
                                  uint32_t *out, struct ts_error *err)
{
    if (ts_json_is_null(ts_json_get(config, key)))
        return TS_OK;
    return read_u32(config, key, min, max, out, err);
}

static enum ts_status read_number_or(const struct ts_json *object, const char *key, double min, double max,
                                     double *out, struct ts_error *err)
{
    if (ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    return ts_json_read_number(object, key, min, max, out, err);
}

static enum ts_status read_bool_or(const struct ts_json *object, const char *key, bool *out,
                                   struct ts_error *err)
{
    if (ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    return ts_json_read_bool(object, key, out, err);
}

static enum ts_status read_shapes(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    enum ts_status status = read_u32(config, "hidden_size", 1, 1 << 20, &m->hidden, err);
    if (status == TS_OK)
        status = read_u32(config, "intermediate_size", 1, 1 << 22, &m->intermediate, err);
    if (status == TS_OK)
        status = read_u32(config, "num_hidden_layers", 1, TS_MODEL_LAYERS_MAX, &m->layers, err);
    if (status == TS_OK)
        status = read_u32(config, "num_attention_heads", 1, 4096, &m->heads, err);
    if (status == TS_OK)
        status = read_u32(config, "vocab_size", 1, 1 << 22, &m->vocab, err);
    if (status == TS_OK)
        status = read_u32(config, "max_position_embeddings", 1, CONTEXT_MAX, &m->context_tokens, err);
    if (status != TS_OK)
        return status;
    m->kv_heads = m->heads;
    m->head_dim = m->hidden / m->heads;
    status = read_u32_or(config, "num_key_value_heads", 1, m->heads, &m->kv_heads, err);
    if (status == TS_OK)
        status = read_u32_or(config, "head_dim", 2, 512, &m->head_dim, err);
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
    const char *key = ts_json_is_null(ts_json_get(config, "dtype")) ? "torch_dtype" : "dtype";
    const char *name = ts_json_string(ts_json_get(config, key), NULL);
    m->weight_dtype = TS_DTYPE_F32;
    for (size_t i = 0; name && i < TS_ARRAY_SIZE(table); i++) {
        if (strcmp(name, table[i].name) == 0) {
            m->weight_dtype = table[i].dtype;
            name = NULL;
        }
    }
    if (name)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "%s \"%s\" is not supported: expected float32, float16 or bfloat16", key, name);
    m->kv_dtype = m->weight_dtype == TS_DTYPE_BF16 ? TS_DTYPE_BF16 : TS_DTYPE_F16;
    return TS_OK;
}

static enum ts_status read_llama3(const struct ts_json *scaling, struct ts_rope *rope, struct ts_error *err)
{
    enum ts_status status =
        ts_json_read_number(scaling, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor, err);
    if (status == TS_OK)
        status = ts_json_read_number(scaling, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor, err);
    if (status == TS_OK)
        status = ts_json_read_number(scaling, "original_max_position_embeddings", 1, CONTEXT_MAX,
                                     &rope->original_context, err);
    if (status == TS_OK && rope->high_freq_factor <= rope->low_freq_factor)
        return ts_error_set(err, TS_EINVAL,
                            "rope_scaling: high_freq_factor %g must exceed low_freq_factor %g",
                            rope->high_freq_factor, rope->low_freq_factor);
    return status;
}

static enum ts_status read_yarn(const struct ts_json *scaling, struct ts_rope *rope, struct ts_error *err)
{
    static const char *const refused[] = {"mscale", "mscale_all_dim"};
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->truncate = true;
    for (size_t i = 0; i < TS_ARRAY_SIZE(refused); i++) {
        if (!ts_json_is_null(ts_json_get(scaling, refused[i])))
            return ts_error_set(err, TS_EUNSUPPORTED, "rope_scaling key \"%s\" (yarn) is not supported",
                                refused[i]);
    }
    enum ts_status status = read_number_or(scaling, "beta_fast", 1e-6, 1e6, &rope->beta_fast, err);
    if (status == TS_OK)
        status = read_number_or(scaling, "beta_slow", 1e-6, 1e6, &rope->beta_slow, err);
    if (status == TS_OK)
        status = read_number_or(scaling, "attention_factor", 1e-6, 1e6, &rope->attention_factor, err);
    if (status == TS_OK)
        status = read_bool_or(scaling, "truncate", &rope->truncate, err);
    if (status == TS_OK)
        status = read_number_or(scaling, "original_max_position_embeddings", 1, CONTEXT_MAX,
                                &rope->original_context, err);
    return status;
}

/* rope_scaling with `type` or `rope_type`, or the newer rope_parameters that holds rope_theta as well. */
static enum ts_status read_rope(const struct ts_json *config, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_rope *rope = &hf->rope;
    const struct ts_json *newer = ts_json_get(config, "rope_parameters");
    const struct ts_json *scaling = ts_json_is_null(newer) ? ts_json_get(config, "rope_scaling") : newer;
    *rope = (struct ts_rope){.theta = 10000, .factor = 1, .original_context = hf->model.context_tokens};
    enum ts_status status = read_number_or(config, "rope_theta", 1, 1e12, &rope->theta, err);
    if (status != TS_OK || ts_json_is_null(scaling))
        return status;
    status = read_number_or(scaling, "rope_theta", 1, 1e12, &rope->theta, err);
    if (status != TS_OK)
        return status;
    const char *key = ts_json_is_null(ts_json_get(scaling, "rope_type")) ? "type" : "rope_type";
    const char *type = ts_json_string(ts_json_get(scaling, key), NULL);
    if (!type || strcmp(type, "default") == 0)
        return type ? TS_OK : ts_error_set(err, TS_EINVAL, "rope_scaling has neither rope_type nor type");
    status = ts_json_read_number(scaling, "factor", 1, 1e6, &rope->factor, err);
    if (status != TS_OK)
        return status;
    if (strcmp(type, "linear") == 0) {
        rope->kind = TS_ROPE_LINEAR;
        return TS_OK;
    }
    if (strcmp(type, "llama3") == 0) {
        rope->kind = TS_ROPE_LLAMA3;
        return read_llama3(scaling, rope, err);
    }
    if (strcmp(type, "yarn") == 0) {
        rope->kind = TS_ROPE_YARN;
        return read_yarn(scaling, rope, err);
    }
    return ts_error_set(err, TS_EUNSUPPORTED,
                        "%s \"%s\" is not supported: expected default, linear, llama3 or yarn", key, type);
}

static enum ts_status read_window(const struct ts_json *config, const char *type, struct ts_hf *hf,
                                  struct ts_error *err)
{
    struct ts_model *m = &hf->model;
    bool use = strncmp(type, "qwen", 4) != 0; /* Qwen names a window that it does not use */
    uint32_t from = 0;
    const struct ts_json *types = ts_json_get(config, "layer_types");
    enum ts_status status = read_bool_or(config, "use_sliding_window", &use, err);
    if (status == TS_OK && strcmp(type, "llama") == 0)
        use = false;
    if (status != TS_OK || !use || ts_json_is_null(ts_json_get(config, "sliding_window")))
        return status;
    status = read_u32(config, "sliding_window", 1, CONTEXT_MAX, &m->sliding_window, err);
    if (status == TS_OK && strncmp(type, "qwen", 4) == 0) {
        from = m->layers;
        status = read_u32_or(config, "max_window_layers", 0, 1 << 20, &from, err);
    }
    for (uint32_t i = 0; status == TS_OK && i < m->layers; i++) {
        const char *name = ts_json_string(ts_json_at(types, i), NULL);
        hf->windowed[i] = ts_json_count(types) ? name && strcmp(name, "sliding_attention") == 0 : i >= from;
        if (ts_json_count(types) && (!name || (!hf->windowed[i] && strcmp(name, "full_attention") != 0)))
            status = ts_error_set(err, TS_EUNSUPPORTED, "layer_types[%u] \"%s\" is not supported", i,
                                  name ? name : "(none)");
    }
    return status;
}

static enum ts_status read_family(const struct ts_json *config, const char *type, struct ts_hf *hf,
                                  struct ts_error *err)
{
    static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3"};
    size_t i = 0;
    while (i < TS_ARRAY_SIZE(families) && strcmp(families[i], type) != 0)
        i++;
    if (i == TS_ARRAY_SIZE(families))
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "model_type \"%s\" is not supported: expected llama, mistral, qwen2 or qwen3",
                            type);
    const char *act = ts_json_string(ts_json_get(config, "hidden_act"), NULL);
    if (act && strcmp(act, "silu") != 0)
        return ts_error_set(err, TS_EUNSUPPORTED, "hidden_act \"%s\" is not supported: expected silu", act);
    if (!ts_json_is_null(ts_json_get(config, "quantization_config")))
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "quantization_config: quantised weights are not supported, use a 16-bit or 32-bit copy");
    double partial = 1;
    enum ts_status status = read_number_or(config, "partial_rotary_factor", 0, 1, &partial, err);
    if (status == TS_OK && partial != 1)
        return ts_error_set(err, TS_EUNSUPPORTED, "partial_rotary_factor %g is not supported: expected 1",
                            partial);
    hf->qkv_bias = strcmp(type, "qwen2") == 0; /* implied by the family, no key */
    hf->qk_norm = strcmp(type, "qwen3") == 0;
    bool bias = false;
    if (status == TS_OK)
        status = read_bool_or(config, "attention_bias", &bias, err);
    if (bias && strcmp(type, "qwen2") != 0)
        hf->qkv_bias = hf->o_bias = true;
    if (status == TS_OK)
        status = read_bool_or(config, "mlp_bias", &hf->mlp_bias, err);
    if (status == TS_OK)
        status = read_bool_or(config, "tie_word_embeddings", &hf->tied, err);
    hf->rms_eps = 1e-6;
    if (status == TS_OK)
        status = read_number_or(config, "rms_norm_eps", 0, 1, &hf->rms_eps, err);
    return status;
}

static void add_eos(struct ts_model *m, int64_t id)
{
    for (uint32_t i = 0; i < m->eos_count; i++) {
        if (m->eos[i] == (uint32_t)id)
            return;
    }
    if (id >= 0 && id < m->vocab && m->eos_count < TS_MODEL_EOS_MAX)
        m->eos[m->eos_count++] = (uint32_t)id;
}

/* eos_token_id is a number or a list. */
static enum ts_status read_eos(const struct ts_json *object, struct ts_model *m, struct ts_error *err)
{
    const struct ts_json *eos = ts_json_get(object, "eos_token_id");
    int64_t id;
    if (ts_json_is_null(eos))
        return TS_OK;
    if (ts_json_integer(eos, &id)) {
        add_eos(m, id);
        return TS_OK;
    }
    for (size_t i = 0; i < ts_json_count(eos); i++) {
        if (!ts_json_integer(ts_json_at(eos, i), &id))
            return ts_error_set(err, TS_EINVAL, "eos_token_id[%zu] is not a token id", i);
        add_eos(m, id);
    }
    return TS_OK;
}

static enum ts_status read_generation(const char *dir, struct ts_hf *hf, struct ts_error *err)
{
    char path[4096];
    struct ts_json *doc = NULL;
    struct ts_sampling *s = &hf->defaults;
    double temperature = s->temperature, top_p = s->top_p, min_p = s->min_p,
           repetition = s->repetition_penalty;
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    *s = ts_sampling_defaults();
    if (access(path, F_OK) != 0)
        return TS_OK;
    enum ts_status status = ts_json_load(path, &doc, err);
    temperature = s->temperature, top_p = s->top_p, repetition = s->repetition_penalty;
    if (status == TS_OK)
        status = read_eos(doc, &hf->model, err);
    if (status == TS_OK)
        status = read_number_or(doc, "temperature", 0, 1000, &temperature, err);
    if (status == TS_OK)
        status = read_number_or(doc, "top_p", 0, 1, &top_p, err);
    if (status == TS_OK)
        status = read_number_or(doc, "min_p", 0, 1, &min_p, err);
    if (status == TS_OK)
        status = read_number_or(doc, "repetition_penalty", 0.01, 100, &repetition, err);
    if (status == TS_OK)
        status = read_u32_or(doc, "top_k", 0, 1 << 20, &s->top_k, err);
    s->temperature = (float)temperature;
    s->top_p = (float)top_p;
    s->min_p = (float)min_p;
    s->repetition_penalty = (float)repetition;
    ts_json_destroy(&doc);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", path);
    return status;
}

enum ts_status ts_hf_read_config(const char *dir, struct ts_hf *hf, struct ts_error *err)
{
    char path[4096];
    struct ts_json *config = NULL;
    const char *type = NULL;
    snprintf(path, sizeof path, "%s/config.json", dir);
    enum ts_status status = ts_json_load(path, &config, err);
    if (status == TS_ENOTFOUND)
        return ts_error_set(err, status,
                            "cannot open %s: there is none; give the folder of a Hugging Face model", path);
    if (status != TS_OK)
        return status;
    status = ts_json_read_string(config, "model_type", &type, NULL, err);
    if (status == TS_OK)
        status = read_family(config, type, hf, err);
    if (status == TS_OK)
        status = read_shapes(config, &hf->model, err);
    if (status == TS_OK)
        status = read_dtype(config, &hf->model, err);
    if (status == TS_OK)
        status = read_rope(config, hf, err);
    if (status == TS_OK)
        status = read_window(config, type, hf, err);
    if (status == TS_OK)
        status = read_eos(config, &hf->model, err);
    ts_json_destroy(&config);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", path);
    else
        status = read_generation(dir, hf, err);
    return status;
}
