#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/model/hf_impl.h"

#define INDEX      "model.safetensors.index.json"
#define SINGLE     "model.safetensors"
#define SHARDS_MAX 1024

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ts_hf_tensor *)a)->name, ((const struct ts_hf_tensor *)b)->name);
}

static struct ts_hf_tensor *lookup(const struct ts_hf *hf, const char *name)
{
    struct ts_hf_tensor key = {.name = (char *)(uintptr_t)name};
    return bsearch(&key, hf->tensors, hf->tensor_count, sizeof *hf->tensors, by_name);
}

static enum ts_status read_file(const struct hf_folder *folder, const char *file, const char *remedy,
                                struct ts_hf *hf, struct ts_error *err)
{
    enum ts_status status = hf_open_file(folder, file, hf, err);
    if (status == TS_ENOTFOUND)
        return ts_error_set(err, status, "cannot open %s/%s: there is none; %s", folder->name, file, remedy);
    if (status != TS_OK)
        return status;
    status = hf_read_safetensors(hf, err);
    if (status != TS_OK)
        ts_error_prefix(err, "%s/%s", folder->name, file);
    return status;
}

static bool is_open(const struct ts_hf *hf, const char *file)
{
    for (size_t i = 0; i < hf->map_count; i++) {
        if (strcmp(hf->maps[i].name, file) == 0)
            return true;
    }
    return false;
}

/* Opens each file that the index names, once. */
static enum ts_status open_shards(const struct hf_folder *folder, const struct ts_json *weights,
                                  struct ts_hf *hf, struct ts_error *err)
{
    const char *name;
    void *cursor = NULL;
    size_t before = hf->map_count;
    for (const struct ts_json *value; (value = ts_json_next(weights, &cursor, &name, NULL));) {
        const char *file = ts_json_string(value, NULL);
        size_t length = file ? strlen(file) : 0;
        if (length < 12 || strchr(file, '/') || strcmp(file + length - 12, ".safetensors") != 0)
            return ts_error_set(
                err, TS_EINVAL,
                "%s/" INDEX ": weight_map puts %.128s into \"%.128s\": expected a .safetensors file of the "
                "folder",
                folder->name, name, file ? file : "");
        if (is_open(hf, file))
            continue;
        if (hf->map_count - before == SHARDS_MAX)
            return ts_error_set(err, TS_ELIMIT, "%s/" INDEX ": more than %d files", folder->name, SHARDS_MAX);
        enum ts_status status = read_file(folder, file, "get the missing part of the model", hf, err);
        if (status != TS_OK)
            return status;
    }
    if (hf->map_count == before)
        return ts_error_set(err, TS_EINVAL, "%s/" INDEX ": weight_map is missing or empty", folder->name);
    return TS_OK;
}

static enum ts_status sort_tensors(const struct hf_folder *folder, struct ts_hf *hf, struct ts_error *err)
{
    qsort(hf->tensors, hf->tensor_count, sizeof *hf->tensors, by_name);
    for (size_t i = 1; i < hf->tensor_count; i++) {
        const struct ts_hf_tensor *a = &hf->tensors[i - 1], *b = &hf->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return ts_error_set(err, TS_EINVAL, "%s: tensor %s stands in both %s and %s", folder->name,
                                a->name, hf->maps[a->file].name, hf->maps[b->file].name);
    }
    return TS_OK;
}

/* Each tensor of the index is where it says. */
static enum ts_status check_index(const struct hf_folder *folder, const struct ts_json *weights,
                                  const struct ts_hf *hf, struct ts_error *err)
{
    const char *name;
    void *cursor = NULL;
    for (const struct ts_json *value; (value = ts_json_next(weights, &cursor, &name, NULL));) {
        const struct ts_hf_tensor *t = lookup(hf, name);
        const char *file = ts_json_string(value, NULL);
        if (!t || strcmp(hf->maps[t->file].name, file) != 0)
            return ts_error_set(err, TS_EINVAL,
                                "%s/" INDEX ": tensor %.128s is not in %s: get the files again", folder->name,
                                name, file);
    }
    return TS_OK;
}

static enum ts_status open_weights(const struct hf_folder *folder, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_json *index = NULL;
    enum ts_status status = hf_open_json(folder, INDEX, hf, &index, err);
    const struct ts_json *weights = ts_json_get(index, "weight_map");
    if (status == TS_OK && index)
        status = open_shards(folder, weights, hf, err);
    else if (status == TS_OK)
        status =
            read_file(folder, SINGLE, "a model folder has this file, or parts of it and " INDEX, hf, err);
    if (status == TS_OK)
        status = sort_tensors(folder, hf, err);
    if (status == TS_OK && index)
        status = check_index(folder, weights, hf, err);
    ts_json_destroy(&index);
    return status;
}

uint64_t ts_hf_tensor_bytes(const struct ts_hf_tensor *t)
{
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->dims; i++)
        elements *= t->shape[i];
    return elements * ts_dtype_bytes(t->dtype);
}

enum ts_status ts_hf_tensor(const struct ts_hf *hf, const char *name, uint64_t rows, uint64_t columns,
                            const struct ts_hf_tensor **out, struct ts_error *err)
{
    const struct ts_hf_tensor *t = lookup(hf, name);
    if (!t)
        return ts_error_set(err, TS_ENOTFOUND, "the weights have no tensor %s, which config.json asks for",
                            name);
    if (t->shape[0] != rows || t->dims != (columns ? 2u : 1u) || (columns && t->shape[1] != columns))
        return ts_error_set(err, TS_EINVAL,
                            "tensor %s has shape [%llu, %llu], config.json asks for [%llu, %llu]", name,
                            (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
                            (unsigned long long)rows, (unsigned long long)columns);
    *out = t;
    return TS_OK;
}

/* Finds what a model of this configuration consists of, and notes it. */
struct inventory {
    const struct ts_hf *hf;
    bool *used; /* [tensor_count] */
    struct ts_error *err;
    enum ts_status status; /* the first failure */
};

static void expect(struct inventory *v, bool wanted, const char *name, uint64_t rows, uint64_t columns)
{
    const struct ts_hf_tensor *t = NULL;
    if (!wanted || v->status != TS_OK)
        return;
    v->status = ts_hf_tensor(v->hf, name, rows, columns, &t, v->err);
    if (t)
        v->used[t - v->hf->tensors] = true;
}

static void expect_layer(struct inventory *v, uint32_t layer)
{
    const struct ts_hf *hf = v->hf;
    const struct ts_model *m = &hf->model;
    uint64_t q = (uint64_t)m->heads * m->head_dim, kv = (uint64_t)m->kv_heads * m->head_dim;
    const struct {
        bool wanted;
        const char *suffix;
        uint64_t rows, columns;
    } parts[] = {{true, "input_layernorm.weight", m->hidden, 0},
                 {true, "post_attention_layernorm.weight", m->hidden, 0},
                 {true, "self_attn.q_proj.weight", q, m->hidden},
                 {true, "self_attn.k_proj.weight", kv, m->hidden},
                 {true, "self_attn.v_proj.weight", kv, m->hidden},
                 {true, "self_attn.o_proj.weight", m->hidden, q},
                 {true, "mlp.gate_proj.weight", m->intermediate, m->hidden},
                 {true, "mlp.up_proj.weight", m->intermediate, m->hidden},
                 {true, "mlp.down_proj.weight", m->hidden, m->intermediate},
                 {hf->qkv_bias, "self_attn.q_proj.bias", q, 0},
                 {hf->qkv_bias, "self_attn.k_proj.bias", kv, 0},
                 {hf->qkv_bias, "self_attn.v_proj.bias", kv, 0},
                 {hf->o_bias, "self_attn.o_proj.bias", m->hidden, 0},
                 {hf->mlp_bias, "mlp.gate_proj.bias", m->intermediate, 0},
                 {hf->mlp_bias, "mlp.up_proj.bias", m->intermediate, 0},
                 {hf->mlp_bias, "mlp.down_proj.bias", m->hidden, 0},
                 {hf->qk_norm, "self_attn.q_norm.weight", m->head_dim, 0},
                 {hf->qk_norm, "self_attn.k_norm.weight", m->head_dim, 0}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(parts); i++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.%u.%s", layer, parts[i].suffix);
        expect(v, parts[i].wanted, name, parts[i].rows, parts[i].columns);
    }
}

/* Tensors that older exporters leave behind and that the configuration replaces. */
static bool is_leftover(const struct ts_hf *hf, const char *name)
{
    return (hf->tied && strcmp(name, "lm_head.weight") == 0) || strstr(name, ".rotary_emb.inv_freq") != NULL;
}

/* A tensor that no step would use means that the configuration leaves a part of the model out. */
static enum ts_status check_inventory(struct ts_hf *hf, struct ts_error *err)
{
    const struct ts_model *m = &hf->model;
    struct inventory v = {.hf = hf, .used = ts_xcalloc(hf->tensor_count + 1, sizeof *v.used), .err = err};
    expect(&v, true, "model.embed_tokens.weight", m->vocab, m->hidden);
    expect(&v, true, "model.norm.weight", m->hidden, 0);
    expect(&v, !hf->tied, "lm_head.weight", m->vocab, m->hidden);
    for (uint32_t i = 0; i < m->layers && v.status == TS_OK; i++)
        expect_layer(&v, i);
    for (size_t i = 0; i < hf->tensor_count && v.status == TS_OK; i++) {
        if (!v.used[i] && !is_leftover(hf, hf->tensors[i].name))
            v.status = ts_error_set(
                err, TS_EUNSUPPORTED,
                "tensor %s is no part of the model that config.json describes: they do not belong "
                "together, or the model needs what is not supported",
                hf->tensors[i].name);
    }
    ts_free(v.used);
    return v.status;
}

enum ts_status hf_read_weights(const struct hf_folder *folder, struct ts_hf *hf, struct ts_error *err)
{
    enum ts_status status = open_weights(folder, hf, err);
    if (status != TS_OK)
        return status;
    if (!lookup(hf, "lm_head.weight"))
        hf->tied = true; /* whatever the configuration says */
    status = check_inventory(hf, err);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", folder->name);
    return status;
}

/* fp16 bits to fp32, exact. */
static float widen_f16(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
    if (exponent == 0) {
        v.f = (float)fraction * 0x1p-24f;
        v.u |= (uint32_t)(bits & 0x8000) << 16;
        return v.f;
    }
    v.u = (uint32_t)(bits & 0x8000) << 16 | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) |
          fraction << 13;
    return v.f;
}

float ts_hf_element(const struct ts_hf_tensor *tensor, uint64_t index)
{
    float value;
    uint16_t half;
    if (tensor->dtype == TS_DTYPE_F32) {
        memcpy(&value, tensor->data + index * 4, 4);
        return value;
    }
    memcpy(&half, tensor->data + index * 2, 2);
    if (tensor->dtype == TS_DTYPE_F16)
        return widen_f16(half);
    uint32_t bits = (uint32_t)half << 16;
    memcpy(&value, &bits, 4);
    return value;
}
