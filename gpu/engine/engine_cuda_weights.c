/* Where the weights of a shard lie in device memory, and what is loaded there. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/engine/engine_cuda.h"
#include "gpu/engine/engine_cuda_load.h"

#define LAYER_MATRICES 4u

/* The parts of all layers, and what follows from them. */
struct plan {
    struct cuda_engine *e;
    struct engine_layer_parts *layers;
    struct engine_end_parts ends;
    struct cuda_load *loads;
    size_t load_count;
    struct cuda_matrix embedding; /* as a thing to load */
    bool tied;
    /* Vectors of fp32 follow the matrices: they are put together on the host. */
    uint64_t at, vectors_at;
    float *vectors; /* NULL while places are given */
};

static ts_cuda_address take(struct plan *p, uint64_t bytes)
{
    uint64_t at = p->at;
    p->at += (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
    return p->e->weights + at;
}

static uint64_t part_rows(const struct engine_part *parts, uint32_t count)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < count; i++)
        rows += parts[i].rows;
    return rows;
}

/* A place for a matrix of these parts; `int8`: as such. */
static void matrix(struct plan *p, struct cuda_matrix *to, const struct engine_part *parts, uint32_t count,
                   bool take_turns, bool int8)
{
    enum ts_dtype dtype = p->e->base.info.model.kv_dtype;
    *to = (struct cuda_matrix){.type = int8                     ? CUDA_MATRIX_I8
                                       : dtype == TS_DTYPE_BF16 ? CUDA_MATRIX_BF16
                                                                : CUDA_MATRIX_F16,
                               .outputs = (uint32_t)part_rows(parts, count),
                               .inputs = (uint32_t)parts[0].columns};
    to->data = take(p, (uint64_t)to->outputs * to->inputs * (int8 ? 1 : 2));
    to->scales = int8 ? take(p, (uint64_t)to->outputs * 4) : 0;
    struct cuda_load *load = &p->loads[p->load_count++];
    *load = (struct cuda_load){.to = to, .part_count = count, .take_turns = take_turns};
    memcpy(load->parts, parts, count * sizeof *parts);
}

/* A place for a vector, and its elements once there is memory for them. */
static ts_cuda_address vector(struct plan *p, const struct engine_part *parts, uint32_t count,
                              bool take_turns)
{
    struct cuda_load order = {.part_count = count, .take_turns = take_turns};
    uint64_t rows = part_rows(parts, count);
    if (rows == 0)
        return 0;
    memcpy(order.parts, parts, count * sizeof *parts);
    ts_cuda_address at = take(p, rows * 4);
    for (uint64_t i = 0; p->vectors && i < rows; i++) {
        uint64_t place;
        const struct engine_part *part = cuda_load_row(&order, i, &place);
        p->vectors[(at - p->e->weights - p->vectors_at) / 4 + i] =
            part->tensor ? engine_part_element(part, place) : 1.0f; /* random weights: norms of 1 */
    }
    return at;
}

static void place_matrices(struct plan *p)
{
    struct cuda_engine *e = p->e;
    p->load_count = 0;
    for (uint32_t i = 0; i < e->layer_count; i++) {
        const struct engine_layer_parts *from = &p->layers[i];
        const struct engine_part pair[] = {from->gate, from->up};
        struct cuda_layer *to = &e->layers[i];
        matrix(p, &to->qkv, from->qkv, 3, false, e->int8);
        matrix(p, &to->o, &from->o, 1, false, e->int8);
        matrix(p, &to->gate_up, pair, 2, true, e->int8);
        matrix(p, &to->down, &from->down, 1, false, e->int8);
    }
    bool tied = p->tied && e->last;
    if (e->first || tied) {
        matrix(p, &p->embedding, &p->ends.embedding, 1, false, false);
        e->embedding = p->embedding.data;
    }
    if (tied)
        e->lm_head = p->embedding;
    else if (e->last)
        matrix(p, &e->lm_head, &p->ends.lm_head, 1, false, false);
}

static void place_vectors(struct plan *p)
{
    struct cuda_engine *e = p->e;
    const struct ts_model *m = &e->base.info.model;
    uint64_t table = (uint64_t)m->context_tokens * (m->head_dim / 2) * 4;
    p->vectors_at = p->at;
    for (uint32_t i = 0; i < e->layer_count; i++) {
        const struct engine_layer_parts *from = &p->layers[i];
        const struct engine_part pair[] = {from->gate_bias, from->up_bias};
        struct cuda_layer *to = &e->layers[i];
        to->attention_norm = vector(p, &from->attention_norm, 1, false);
        to->mlp_norm = vector(p, &from->mlp_norm, 1, false);
        to->q_norm = vector(p, &from->q_norm, 1, false);
        to->k_norm = vector(p, &from->k_norm, 1, false);
        to->qkv_bias = vector(p, from->qkv_bias, 3, false);
        to->o_bias = vector(p, &from->o_bias, 1, false);
        to->gate_up_bias = vector(p, pair, 2, true);
        to->down_bias = vector(p, &from->down_bias, 1, false);
    }
    e->final_norm = vector(p, &p->ends.final_norm, 1, false);
    e->cosines = take(p, table);
    e->sines = take(p, table);
}

static enum ts_status find_parts(struct plan *p, const struct ts_hf *hf, struct ts_error *err)
{
    const struct ts_shard *shard = &p->e->base.info.shard;
    enum ts_status status = engine_end_parts(hf, shard, &p->ends, err);
    for (uint32_t i = 0; i < p->e->layer_count && status == TS_OK; i++)
        status = engine_layer_parts(hf, shard, shard->layer_begin + i, &p->layers[i], err);
    return status;
}

static enum ts_status send_vectors(struct plan *p, const struct ts_hf *hf, struct ts_error *err)
{
    struct cuda_engine *e = p->e;
    const struct ts_model *m = &e->base.info.model;
    p->vectors = ts_xcalloc((size_t)(e->weights_bytes - p->vectors_at) / 4, sizeof *p->vectors);
    p->at = p->vectors_at;
    place_vectors(p);
    TS_ASSERT(p->at == e->weights_bytes);
    e->frequencies = ts_xcalloc(m->head_dim / 2, sizeof *e->frequencies);
    e->base.info.inverse_frequencies = e->frequencies;
    engine_rope(hf, m->context_tokens, e->frequencies,
                p->vectors + (e->cosines - e->weights - p->vectors_at) / 4,
                p->vectors + (e->sines - e->weights - p->vectors_at) / 4);
    enum ts_status status = ts_cuda_upload(e->cuda, e->weights + p->vectors_at, p->vectors,
                                           (size_t)(e->weights_bytes - p->vectors_at), err);
    enum ts_status waited = ts_cuda_wait(e->cuda, status == TS_OK ? err : NULL);
    ts_free(p->vectors);
    return status != TS_OK ? status : waited;
}

static enum ts_status alloc_weights(struct plan *p, struct ts_error *err)
{
    struct cuda_engine *e = p->e;
    uint64_t unused = 0, total = 0;
    place_matrices(p);
    place_vectors(p);
    e->weights_bytes = p->at;
    enum ts_status status = ts_cuda_memory(e->cuda, &unused, &total, err);
    if (status == TS_OK)
        status = ts_cuda_alloc(e->cuda, (size_t)e->weights_bytes, &e->weights, err);
    if (status == TS_ENOMEM)
        return ts_error_set(
            err, TS_ENOMEM,
            "%s: the weights need %llu MiB, and %llu of its %llu MiB are free: take weights = "
            "int8, a smaller model or a shard, or free the device",
            ts_cuda_name(e->cuda), (unsigned long long)(e->weights_bytes >> 20),
            (unsigned long long)(unused >> 20), (unsigned long long)(total >> 20));
    p->at = 0;
    place_matrices(p); /* now at their addresses */
    return status;
}

enum ts_status cuda_weights_load(struct cuda_engine *e, const struct ts_hf *hf, struct ts_error *err)
{
    struct plan p = {.e = e, .tied = hf->tied};
    const struct cuda_load_options options = {.dtype = e->base.info.model.kv_dtype,
                                              .threads = e->options.threads,
                                              .random = e->options.random_weights};
    e->layers = ts_xcalloc(e->layer_count, sizeof *e->layers);
    p.layers = ts_xcalloc(e->layer_count, sizeof *p.layers);
    p.loads = ts_xcalloc((size_t)e->layer_count * LAYER_MATRICES + 2, sizeof *p.loads);
    enum ts_status status = find_parts(&p, hf, err);
    if (status == TS_OK)
        status = alloc_weights(&p, err);
    if (status == TS_OK)
        status = send_vectors(&p, hf, err);
    if (status == TS_OK)
        status = cuda_load_all(e->cuda, &options, p.loads, p.load_count, err);
    for (uint32_t i = 0; i < e->layer_count; i++) {
        uint32_t layer = e->base.info.shard.layer_begin + i;
        e->layers[i].window = hf->windowed[layer] ? e->base.info.model.sliding_window : 0;
    }
    ts_free(p.layers);
    ts_free(p.loads);
    return status;
}

void cuda_weights_free(struct cuda_engine *e)
{
    ts_cuda_free(e->cuda, &e->weights);
    ts_free(e->layers);
    ts_free(e->frequencies);
}
