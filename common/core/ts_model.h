/*
 * What a model is, as far as scheduling, KV transfer and the engine need it: shapes, no weights. Filled from
 * a Hugging Face config.json by gpu/model, or from conf/models by the planner. Plain data, freely copied.
 *
 * KV cache layout everywhere (one pool, 16-bit elements unless kv_dtype says otherwise):
 *
 *     [layer][block][K|V][kv_head][token in block][head_dim]          block = TS_KV_BLOCK_TOKENS tokens
 *
 * Head-major inside a block, so that one (layer, block, K|V, kv_head) tile is one contiguous run of
 * block_tokens * head_dim elements.
 */
#ifndef TS_CORE_MODEL_H
#define TS_CORE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TS_KV_BLOCK_TOKENS  16
#define TS_MODEL_NAME_BYTES 128
#define TS_MODEL_EOS_MAX    16
#define TS_MODEL_LAYERS_MAX 256

enum ts_dtype { TS_DTYPE_F32 = 1, TS_DTYPE_F16 = 2, TS_DTYPE_BF16 = 3 };

static inline size_t ts_dtype_bytes(enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_F32 ? 4 : 2;
}

const char *ts_dtype_name(enum ts_dtype dtype);

/* Half-open layer range and KV-head range: what a stage or a shard owns. */
struct ts_shard {
    uint32_t layer_begin, layer_end;
    uint32_t head_begin, head_end; /* KV heads */
};

struct ts_model {
    char name[TS_MODEL_NAME_BYTES]; /* as served: the folder's name unless told otherwise */
    uint64_t
        fingerprint; /* of config, dtype, rope table and weights index; equal on both ends of a KV transfer */
    uint32_t layers, hidden, intermediate;
    uint32_t heads, kv_heads, head_dim;
    uint32_t vocab;
    bool mlp_plain;          /* two matrices (up, down) instead of three (gate, up, down) */
    bool tied;               /* embedding and output share their matrix */
    uint32_t context_tokens; /* max_position_embeddings */
    uint32_t sliding_window; /* 0 = none */
    enum ts_dtype weight_dtype, kv_dtype;
    uint32_t eos[TS_MODEL_EOS_MAX];
    uint32_t eos_count;
};

/* Bytes of one (layer, block): K and V of `heads` KV heads. */
static inline size_t ts_model_kv_layer_block_bytes(const struct ts_model *model, uint32_t heads)
{
    return (size_t)2 * heads * TS_KV_BLOCK_TOKENS * model->head_dim * ts_dtype_bytes(model->kv_dtype);
}

/* Uncompressed KV bytes of one token over all layers and KV heads: kappa of planner.md section 4. */
static inline uint64_t ts_model_kv_token_bytes(const struct ts_model *model)
{
    return (uint64_t)2 * model->layers * model->kv_heads * model->head_dim * ts_dtype_bytes(model->kv_dtype);
}

static inline uint32_t ts_kv_blocks_for(uint32_t tokens)
{
    return (tokens + TS_KV_BLOCK_TOKENS - 1) / TS_KV_BLOCK_TOKENS;
}

#endif
