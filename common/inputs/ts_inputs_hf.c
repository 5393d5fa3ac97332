#include "common/inputs/ts_inputs_hf.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"

bool inputs_dtype(const char *name, enum ts_dtype *out)
{
    static const struct {
        const char *name;
        enum ts_dtype dtype;
    } table[] = {{"float32", TS_DTYPE_F32}, {"float16", TS_DTYPE_F16}, {"bfloat16", TS_DTYPE_BF16}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(table); i++) {
        if (strcmp(table[i].name, name) == 0) {
            *out = table[i].dtype;
            return true;
        }
    }
    return false;
}

enum ts_dtype inputs_kv_dtype(enum ts_dtype weights)
{
    return weights == TS_DTYPE_F32 ? TS_DTYPE_F16 : weights;
}

struct size_key {
    const char *name;
    size_t offset;
    int64_t max;
    bool needed;
};

static const struct size_key size_keys[] = {
    {"hidden_size", offsetof(struct ts_model, hidden), 1 << 20, true},
    {"intermediate_size", offsetof(struct ts_model, intermediate), 1 << 22, true},
    {"num_hidden_layers", offsetof(struct ts_model, layers), TS_MODEL_LAYERS_MAX, true},
    {"num_attention_heads", offsetof(struct ts_model, heads), 4096, true},
    {"num_key_value_heads", offsetof(struct ts_model, kv_heads), 4096, false},
    {"head_dim", offsetof(struct ts_model, head_dim), 1024, false},
    {"vocab_size", offsetof(struct ts_model, vocab), 1 << 22, true},
    {"max_position_embeddings", offsetof(struct ts_model, context_tokens), 1 << 24, true},
};

static enum ts_status read_sizes(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(size_keys); i++) {
        const struct size_key *key = &size_keys[i];
        int64_t value = 0;
        enum ts_status status = ts_json_read_integer(config, key->name, 1, key->max, &value, err);
        if (status == TS_OK)
            *(uint32_t *)((char *)m + key->offset) = (uint32_t)value;
        else if (status != TS_ENOTFOUND || key->needed)
            return status;
    }
    if (m->kv_heads == 0)
        m->kv_heads = m->heads;
    if (m->head_dim == 0)
        m->head_dim = m->hidden / m->heads;
    if (m->heads % m->kv_heads != 0)
        return ts_error_set(err, TS_EINVAL,
                            "num_key_value_heads %u: expected a divisor of num_attention_heads %u",
                            m->kv_heads, m->heads);
    return m->head_dim > 0
               ? TS_OK
               : ts_error_set(err, TS_EINVAL, "hidden_size %u is less than num_attention_heads %u", m->hidden,
                              m->heads);
}

static enum ts_status read_dtype(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    const char *key = ts_json_is_null(ts_json_get(config, "dtype")) ? "torch_dtype" : "dtype";
    const char *name = "bfloat16";
    enum ts_status status = ts_json_read_string(config, key, &name, NULL, err);
    if (status != TS_OK && status != TS_ENOTFOUND)
        return status;
    if (!inputs_dtype(name, &m->weight_dtype))
        return ts_error_set(err, TS_EUNSUPPORTED, "%s \"%.64s\": expected float32, float16 or bfloat16", key,
                            name);
    m->kv_dtype = inputs_kv_dtype(m->weight_dtype);
    return TS_OK;
}

/* Keys whose meaning would change the costs and which the cost model does not know. */
static enum ts_status refuse_others(const struct ts_json *config, struct ts_error *err)
{
    static const char *const keys[] = {
        "quantization_config", "num_local_experts", "num_experts", "n_routed_experts",
        "kv_lora_rank",        "text_config",       "ssm_cfg",     "is_encoder_decoder"};
    char words[80];
    for (size_t i = 0; i < TS_ARRAY_SIZE(keys); i++) {
        const struct ts_json *value = ts_json_get(config, keys[i]);
        bool flag = true;
        if (ts_json_is_null(value) || (ts_json_bool(value, &flag) && !flag))
            continue;
        return ts_error_set(
            err, TS_EUNSUPPORTED,
            "%s %s is not understood: expected a dense decoder with 16-bit weights; describe the "
            "model by a file as in conf/models instead",
            keys[i], ts_json_describe(value, words, sizeof words));
    }
    return TS_OK;
}

/* The families differ in what a window key means: Qwen uses it only when told to, Llama never. */
static enum ts_status read_rest(const struct ts_json *config, struct ts_model *m, struct ts_error *err)
{
    static const char *const plain[] = {"gpt2",  "gpt_neox",    "opt",       "phi",
                                        "bloom", "gpt_bigcode", "starcoder2"};
    const char *type = "llama";
    int64_t window = 0;
    bool use = true;
    enum ts_status status = ts_json_read_string(config, "model_type", &type, NULL, err);
    if (status == TS_OK || status == TS_ENOTFOUND)
        status = ts_json_read_bool(config, "tie_word_embeddings", &m->tied, err);
    if (status == TS_OK || status == TS_ENOTFOUND)
        status = ts_json_read_bool(config, "use_sliding_window", &use, err);
    if (status == TS_OK || status == TS_ENOTFOUND)
        status = ts_json_read_integer(config, "sliding_window", 1, 1 << 24, &window, err);
    if (status != TS_OK && status != TS_ENOTFOUND)
        return status;
    m->sliding_window = use && strcmp(type, "llama") != 0 ? (uint32_t)window : 0;
    for (size_t i = 0; i < TS_ARRAY_SIZE(plain); i++)
        m->mlp_plain = m->mlp_plain || strcmp(type, plain[i]) == 0;
    return TS_OK;
}

/* A model is called by its folder. */
static void name_after(const char *path, struct ts_model *out)
{
    const char *end = strrchr(path, '/');
    const char *begin = end;
    while (begin && begin > path && begin[-1] != '/')
        begin--;
    if (begin && begin < end)
        snprintf(out->name, sizeof out->name, "%.*s", (int)(end - begin), begin);
    else
        snprintf(out->name, sizeof out->name, "model");
}

enum ts_status inputs_hf_file(const char *path, struct ts_model *out, struct ts_error *err)
{
    struct ts_json *config = NULL;
    *out = (struct ts_model){.layers = 0};
    enum ts_status status = ts_json_load(path, &config, err);
    if (status != TS_OK)
        return status;
    if (ts_json_type(config) != TS_JSON_OBJECT)
        status = ts_error_set(err, TS_EINVAL, "a config.json is an object, this is %s",
                              ts_json_type_name(ts_json_type(config)));
    if (status == TS_OK)
        status = refuse_others(config, err);
    if (status == TS_OK)
        status = read_sizes(config, out, err);
    if (status == TS_OK)
        status = read_dtype(config, out, err);
    if (status == TS_OK)
        status = read_rest(config, out, err);
    ts_json_destroy(&config);
    name_after(path, out);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", path);
    return status;
}

enum ts_status inputs_hf_folder(const char *path, struct ts_model *out, struct ts_error *err)
{
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    char *file = ts_xasprintf("%.*s/config.json", (int)bytes, path);
    enum ts_status status = inputs_hf_file(file, out, err);
    ts_free(file);
    return status;
}
