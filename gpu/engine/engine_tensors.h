/*
 * Which parts of a folder's tensors a shard computes with, alike for all backends: rows of q, k, v for its
 * KV heads and their queries, the columns of o that they feed, all of the rest. What a backend does with a
 * part (packing, copying to a device) is its own affair. A folder that was opened without weights
 * (ts_hf_open_config) gives the same parts with `tensor` NULL.
 */
#ifndef TS_GPU_ENGINE_TENSORS_H
#define TS_GPU_ENGINE_TENSORS_H

#include "gpu/model/ts_hf.h"

/* Rows and columns of a matrix; of a vector `rows` elements, and `columns` is 0. rows 0: the model has none.
 */
struct engine_part {
    const struct ts_hf_tensor *tensor;
    uint64_t row_begin, rows;
    uint64_t column_begin, columns;
};

struct engine_layer_parts {
    struct engine_part qkv[3], o, gate, up, down;
    struct engine_part qkv_bias[3], gate_bias, up_bias;
    struct engine_part o_bias, down_bias; /* added once, by the shard of head 0 */
    struct engine_part attention_norm, mlp_norm, q_norm, k_norm;
};

struct engine_end_parts {
    struct engine_part embedding;           /* of every shard */
    struct engine_part final_norm, lm_head; /* of the last layer's */
};

enum ts_status engine_layer_parts(const struct ts_hf *hf, const struct ts_shard *shard, uint32_t layer,
                                  struct engine_layer_parts *out, struct ts_error *err);
enum ts_status engine_end_parts(const struct ts_hf *hf, const struct ts_shard *shard,
                                struct engine_end_parts *out, struct ts_error *err);

/* The shard that was asked for with its zeros filled in, or an error that names both. */
enum ts_status engine_shard(const struct ts_model *model, const struct ts_shard *asked, struct ts_shard *out,
                            struct ts_error *err);

/* The element of a vector's part, widened to fp32. */
float engine_part_element(const struct engine_part *part, uint64_t index);

/* How positions turn: `frequencies` [head_dim / 2]; `cos` and `sin` [positions][head_dim / 2], computed in
 * double and rounded once. The caller gives the memory. */
void engine_rope(const struct ts_hf *hf, uint32_t positions, float *frequencies, float *cosines,
                 float *sines);

#endif
