#include "gpu/engine/engine_tensors.h"

#include <math.h>
#include <stdio.h>

struct finder {
    const struct ts_hf *hf;
    uint32_t layer;
    struct ts_error *err;
    enum ts_status status; /* the first failure */
};

/* The tensor of that shape, whole. */
static struct engine_part whole(struct finder *f, const char *name, uint64_t rows, uint64_t columns)
{
    struct engine_part part = {.rows = rows, .columns = columns};
    if (f->status == TS_OK && f->hf->tensor_count > 0)
        f->status = ts_hf_tensor(f->hf, name, rows, columns, &part.tensor, f->err);
    return part;
}

static struct engine_part of_layer(struct finder *f, const char *suffix, uint64_t rows, uint64_t columns)
{
    char name[256];
    snprintf(name, sizeof name, "model.layers.%u.%s", f->layer, suffix);
    return whole(f, name, rows, columns);
}

static struct engine_part rows_of(struct engine_part part, uint64_t begin, uint64_t rows)
{
    part.row_begin = begin;
    part.rows = rows;
    return part;
}

static void find_attention(struct finder *f, const struct ts_shard *shard, struct engine_layer_parts *out)
{
    const struct ts_hf *hf = f->hf;
    const struct ts_model *m = &hf->model;
    uint64_t d = m->head_dim, group = m->heads / m->kv_heads, heads = shard->head_end - shard->head_begin;
    uint64_t begin[] = {shard->head_begin * group * d, shard->head_begin * d, shard->head_begin * d};
    uint64_t all[] = {m->heads * d, m->kv_heads * d, m->kv_heads * d};
    uint64_t rows[] = {heads * group * d, heads * d, heads * d};
    static const char *const weights[] = {"self_attn.q_proj.weight", "self_attn.k_proj.weight",
                                          "self_attn.v_proj.weight"};
    static const char *const biases[] = {"self_attn.q_proj.bias", "self_attn.k_proj.bias",
                                         "self_attn.v_proj.bias"};
    for (size_t i = 0; i < 3; i++) {
        out->qkv[i] = rows_of(of_layer(f, weights[i], all[i], m->hidden), begin[i], rows[i]);
        if (hf->qkv_bias)
            out->qkv_bias[i] = rows_of(of_layer(f, biases[i], all[i], 0), begin[i], rows[i]);
    }
    out->o = of_layer(f, "self_attn.o_proj.weight", m->hidden, m->heads * d);
    out->o.column_begin = begin[0];
    out->o.columns = rows[0];
    if (hf->o_bias && shard->head_begin == 0)
        out->o_bias = of_layer(f, "self_attn.o_proj.bias", m->hidden, 0);
    if (hf->qk_norm) {
        out->q_norm = of_layer(f, "self_attn.q_norm.weight", d, 0);
        out->k_norm = of_layer(f, "self_attn.k_norm.weight", d, 0);
    }
}

static void find_mlp(struct finder *f, struct engine_layer_parts *out)
{
    const struct ts_model *m = &f->hf->model;
    out->gate = of_layer(f, "mlp.gate_proj.weight", m->intermediate, m->hidden);
    out->up = of_layer(f, "mlp.up_proj.weight", m->intermediate, m->hidden);
    out->down = of_layer(f, "mlp.down_proj.weight", m->hidden, m->intermediate);
    out->attention_norm = of_layer(f, "input_layernorm.weight", m->hidden, 0);
    out->mlp_norm = of_layer(f, "post_attention_layernorm.weight", m->hidden, 0);
    if (!f->hf->mlp_bias)
        return;
    out->gate_bias = of_layer(f, "mlp.gate_proj.bias", m->intermediate, 0);
    out->up_bias = of_layer(f, "mlp.up_proj.bias", m->intermediate, 0);
    out->down_bias = of_layer(f, "mlp.down_proj.bias", m->hidden, 0);
}

enum ts_status engine_layer_parts(const struct ts_hf *hf, const struct ts_shard *shard, uint32_t layer,
                                  struct engine_layer_parts *out, struct ts_error *err)
{
    struct finder f = {.hf = hf, .layer = layer, .err = err};
    *out = (struct engine_layer_parts){.o = {.rows = 0}};
    find_attention(&f, shard, out);
    find_mlp(&f, out);
    return f.status;
}

enum ts_status engine_end_parts(const struct ts_hf *hf, const struct ts_shard *shard,
                                struct engine_end_parts *out, struct ts_error *err)
{
    const struct ts_model *m = &hf->model;
    struct finder f = {.hf = hf, .err = err};
    *out =
        (struct engine_end_parts){.embedding = whole(&f, "model.embed_tokens.weight", m->vocab, m->hidden)};
    if (shard->layer_end != m->layers)
        return f.status;
    out->final_norm = whole(&f, "model.norm.weight", m->hidden, 0);
    out->lm_head = hf->tied ? out->embedding : whole(&f, "lm_head.weight", m->vocab, m->hidden);
    return f.status;
}

enum ts_status engine_shard(const struct ts_model *m, const struct ts_shard *asked, struct ts_shard *out,
                            struct ts_error *err)
{
    struct ts_shard s = *asked;
    if (s.layer_end == 0)
        s.layer_end = m->layers;
    if (s.head_end == 0)
        s.head_end = m->kv_heads;
    if (s.layer_begin >= s.layer_end || s.layer_end > m->layers || s.head_begin >= s.head_end ||
        s.head_end > m->kv_heads)
        return ts_error_set(
            err, TS_EINVAL,
            "shard of layers %u..%u and heads %u..%u does not fit a model of %u layers and %u KV heads",
            s.layer_begin, s.layer_end, s.head_begin, s.head_end, m->layers, m->kv_heads);
    *out = s;
    return TS_OK;
}

float engine_part_element(const struct engine_part *part, uint64_t index)
{
    return ts_hf_element(part->tensor, part->row_begin + index);
}

void engine_rope(const struct ts_hf *hf, uint32_t positions, float *frequencies, float *cosines, float *sines)
{
    uint32_t half = hf->model.head_dim / 2;
    double inverse[512], factor;
    ts_rope_table(&hf->rope, hf->model.head_dim, inverse, &factor);
    for (uint32_t i = 0; i < half; i++)
        frequencies[i] = (float)inverse[i];
    for (uint32_t t = 0; t < positions; t++) {
        for (uint32_t i = 0; i < half; i++) {
            cosines[(size_t)t * half + i] = (float)(cos(t * inverse[i]) * factor);
            sines[(size_t)t * half + i] = (float)(sin(t * inverse[i]) * factor);
        }
    }
}
