/*
 * A Hugging Face folder with random weights, written for tests and measurements: config.json and one
 * model.safetensors. Equal parameters give equal bytes. Weights are uniform with a standard deviation of
 * gain / sqrt(inputs), so that activations keep their size; norms lie around 1. There is no tokenizer: such a
 * model takes token ids only.
 *
 * Plain random models say little about KV codecs: attention is flat, so errors of keys average out, and no
 * channel sticks out. `sharpness` lets attention pick few tokens and gives it a larger part in the logits.
 * `outliers` and `key_bias` leave what the model computes as it is, but for rounding, and spoil only what its
 * keys look like: channels that are 8 times as large (where queries are 8 times smaller), and constants added
 * to the channels that turn most slowly, so that softmax hardly sees them, as in Qwen2.
 */
#ifndef TS_GPU_RANDOM_MODEL_H
#define TS_GPU_RANDOM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/ts_error.h"
#include "common/core/ts_model.h"

struct ts_random_model {
    const char *type; /* llama, mistral, qwen2 (with q/k/v bias) or qwen3 (with q/k norm) */
    uint32_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, context;
    uint32_t window; /* sliding window, 0 = none; type mistral */
    bool tied;
    enum ts_dtype dtype;
    double gain;
    uint64_t seed;
    double rope_theta; /* 0 = 10000 */
    double sharpness;  /* standard deviation of attention's scores, about; 0 = from `gain` alone */
    double key_bias;   /* type qwen2: on three channels of each KV head, and 0.4 of it on a fourth */
    uint32_t outliers; /* channels of each KV head, in pairs that turn together */
};

/* The folder exists. */
enum ts_status ts_random_model_write(const struct ts_random_model *model, const char *dir,
                                     struct ts_error *err);
void ts_random_model_remove(const char *dir); /* its files and the folder */

#endif
