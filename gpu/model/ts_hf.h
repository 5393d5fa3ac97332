/*
 * A model as a Hugging Face folder: config.json, model.safetensors (or shards with an index),
 * generation_config.json. Everything that decides the computation is read or refused by name: silent
 * fallbacks are the classic quality bug. Weights stay mapped files until an engine packs them.
 *
 * Owns the mappings and names; tensors borrow them until ts_hf_close. One thread.
 */
#ifndef TS_GPU_HF_H
#define TS_GPU_HF_H

#include <stdbool.h>

#include "common/base/ts_error.h"
#include "common/core/ts_model.h"
#include "common/core/ts_sampling.h"

enum ts_rope_kind { TS_ROPE_DEFAULT, TS_ROPE_LINEAR, TS_ROPE_LLAMA3, TS_ROPE_YARN };

struct ts_rope {
    enum ts_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor;      /* llama3 */
    double beta_fast, beta_slow, attention_factor; /* yarn; attention_factor 0 = from factor */
    bool truncate;                                 /* yarn: round the correction range to whole dimensions */
    double original_context;
};

struct ts_hf_tensor {
    char *name;
    enum ts_dtype dtype;
    uint32_t dims;
    uint64_t shape[2];
    const uint8_t *data; /* of any alignment */
    uint32_t file;       /* which of the folder's */
};

struct ts_hf_map;

struct ts_hf {
    struct ts_model model;
    struct ts_rope rope;
    double rms_eps;
    bool qkv_bias, o_bias, mlp_bias, qk_norm, tied;
    bool windowed[TS_MODEL_LAYERS_MAX]; /* layers with a sliding window */
    struct ts_sampling defaults;        /* of generation_config.json; `given` = what it names */
    struct ts_hf_tensor *tensors;
    size_t tensor_count;
    struct ts_hf_map *maps;
    size_t map_count;
};

/* A folder that lies in memory: the same checks on the same bytes, for tests. */
struct ts_hf_file {
    const char *name;
    const void *data; /* borrowed until ts_hf_close */
    size_t bytes;
};

/* Refusals name the file, the key or tensor, its value and the remedy. TS_ENOTFOUND: a file or tensor is
 * missing; TS_EINVAL: malformed or in contradiction; TS_EUNSUPPORTED: not computed here; TS_ELIMIT: absurdly
 * large; TS_EIO. */
enum ts_status ts_hf_open(const char *dir, struct ts_hf **out, struct ts_error *err);
enum ts_status ts_hf_open_files(const char *name, const struct ts_hf_file *files, size_t count,
                                struct ts_hf **out, struct ts_error *err);
/* The configuration alone: no tensors, and whether the embedding is tied as config.json says. */
enum ts_status ts_hf_open_config(const char *dir, struct ts_hf **out, struct ts_error *err);
void ts_hf_close(struct ts_hf **hf); /* null-safe */

/* The tensor of that name and shape (columns 0 = a vector), or an error that names both. */
enum ts_status ts_hf_tensor(const struct ts_hf *hf, const char *name, uint64_t rows, uint64_t columns,
                            const struct ts_hf_tensor **out, struct ts_error *err);
uint64_t ts_hf_tensor_bytes(const struct ts_hf_tensor *tensor);
/* Element `index` widened to fp32. */
float ts_hf_element(const struct ts_hf_tensor *tensor, uint64_t index);

/* Inverse frequencies [head_dim / 2] and the factor on cos and sin, in double (Hugging Face
 * modeling_rope_utils conventions: llama3 of the Llama 3.1 report, yarn of arXiv 2309.00071). */
void ts_rope_table(const struct ts_rope *rope, uint32_t head_dim, double *inverse_frequencies,
                   double *attention_factor);

#endif
