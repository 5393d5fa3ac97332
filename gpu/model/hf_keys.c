#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/model/hf_impl.h"

enum ts_status hf_read_u32(const struct ts_json *object, const char *key, uint32_t min, uint32_t max,
                           bool required, uint32_t *out, struct ts_error *err)
{
    int64_t value = 0;
    if (!required && ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    enum ts_status status = ts_json_read_integer(object, key, min, max, &value, err);
    if (status == TS_OK)
        *out = (uint32_t)value;
    return status;
}

enum ts_status hf_read_number(const struct ts_json *object, const char *key, double min, double max,
                              bool required, double *out, struct ts_error *err)
{
    if (!required && ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    return ts_json_read_number(object, key, min, max, out, err);
}

enum ts_status hf_read_bool(const struct ts_json *object, const char *key, bool *out, struct ts_error *err)
{
    if (ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    return ts_json_read_bool(object, key, out, err);
}

enum ts_status hf_read_string(const struct ts_json *object, const char *key, const char **out,
                              struct ts_error *err)
{
    if (ts_json_is_null(ts_json_get(object, key)))
        return TS_OK;
    return ts_json_read_string(object, key, out, NULL, err);
}

/* Keys of config.json that this loader reads, some only to refuse values. */
static const char *const read_keys[] = {"architectures",
                                        "attention_bias",
                                        "dtype",
                                        "eos_token_id",
                                        "head_dim",
                                        "hidden_act",
                                        "hidden_size",
                                        "intermediate_size",
                                        "layer_types",
                                        "max_position_embeddings",
                                        "max_window_layers",
                                        "mlp_bias",
                                        "model_type",
                                        "num_attention_heads",
                                        "num_hidden_layers",
                                        "num_key_value_heads",
                                        "partial_rotary_factor",
                                        "quantization_config",
                                        "rms_norm_eps",
                                        "rope_parameters",
                                        "rope_scaling",
                                        "rope_theta",
                                        "sliding_window",
                                        "tie_word_embeddings",
                                        "torch_dtype",
                                        "use_sliding_window",
                                        "vocab_size"};

/* Keys that say how the model was made, trained or should be sampled. `*` stands for anything. */
static const char *const harmless_keys[] = {"_*",
                                            "*_token_id",
                                            "*_version",
                                            "*dropout",
                                            "*_pdrop",
                                            "transformers*",
                                            "output_*",
                                            "is_llama_config",
                                            "auto_map",
                                            "initializer_range",
                                            "use_cache",
                                            "pretraining_tp",
                                            "max_sequence_length",
                                            "name_or_path",
                                            "return_dict",
                                            "return_dict_in_generate",
                                            "torchscript",
                                            "use_bfloat16",
                                            "tokenizer_class",
                                            "task_specific_params",
                                            "finetuning_task",
                                            "problem_type",
                                            "id2label",
                                            "label2id",
                                            "gradient_checkpointing",
                                            "pruned_heads",
                                            "max_length",
                                            "min_length",
                                            "do_sample",
                                            "num_beams",
                                            "num_beam_groups",
                                            "num_return_sequences",
                                            "temperature",
                                            "top_k",
                                            "top_p",
                                            "typical_p",
                                            "repetition_penalty",
                                            "length_penalty",
                                            "diversity_penalty",
                                            "model_max_length"};

static bool matches(const char *pattern, const char *key)
{
    size_t pattern_bytes = strlen(pattern), key_bytes = strlen(key);
    if (pattern[0] == '*')
        return key_bytes >= pattern_bytes - 1 &&
               strcmp(key + key_bytes - (pattern_bytes - 1), pattern + 1) == 0;
    if (pattern[pattern_bytes - 1] == '*')
        return strncmp(key, pattern, pattern_bytes - 1) == 0;
    return strcmp(key, pattern) == 0;
}

static bool listed(const char *const *patterns, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++) {
        if (matches(patterns[i], key))
            return true;
    }
    return false;
}

/* A feature that is switched off: null, false, zero or empty. */
static bool is_off(const struct ts_json *value)
{
    bool flag;
    double number;
    if (ts_json_is_null(value) || (ts_json_bool(value, &flag) && !flag) ||
        (ts_json_number(value, &number) && number == 0))
        return true;
    enum ts_json_type type = ts_json_type(value);
    return (type == TS_JSON_ARRAY || type == TS_JSON_OBJECT) && ts_json_count(value) == 0;
}

enum ts_status hf_check_config_keys(const struct ts_json *config, struct ts_error *err)
{
    void *cursor = NULL;
    const char *key;
    char words[128];
    for (const struct ts_json *value; (value = ts_json_next(config, &cursor, &key, NULL));) {
        if (!listed(read_keys, TS_ARRAY_SIZE(read_keys), key) &&
            !listed(harmless_keys, TS_ARRAY_SIZE(harmless_keys), key) && !is_off(value))
            return ts_error_set(
                err, TS_EUNSUPPORTED,
                "key \"%.64s\" = %s is not known and may change what the model computes; if it does not, "
                "remove it from the file",
                key, ts_json_describe(value, words, sizeof words));
    }
    return TS_OK;
}

enum ts_status hf_check_rope_keys(const struct ts_json *scaling, struct ts_error *err)
{
    static const char *const keys[] = {"rope_type",
                                       "type",
                                       "rope_theta",
                                       "factor",
                                       "low_freq_factor",
                                       "high_freq_factor",
                                       "original_max_position_embeddings",
                                       "beta_fast",
                                       "beta_slow",
                                       "attention_factor",
                                       "truncate",
                                       "partial_rotary_factor",
                                       "finetuned"};
    void *cursor = NULL;
    const char *key;
    char words[128];
    for (const struct ts_json *value; (value = ts_json_next(scaling, &cursor, &key, NULL));) {
        if (!listed(keys, TS_ARRAY_SIZE(keys), key) && !is_off(value))
            return ts_error_set(err, TS_EUNSUPPORTED, "rope key \"%.64s\" = %s is not supported", key,
                                ts_json_describe(value, words, sizeof words));
    }
    return TS_OK;
}
