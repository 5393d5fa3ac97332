/*
 * The forward pass over one ragged batch. All operations are rows times something, each row by itself, so
 * what a token gets does not depend on its neighbours. Keys and values of the whole batch are written before
 * attention reads them.
 */
#include <math.h>
#include <string.h>

#include "gpu/engine/engine_cpu.h"

struct gemm_work {
    const struct cpu_level *level;
    const struct cpu_matrix *w;
    const float *x;
    float *y;
    uint32_t rows, stride;
};

static void gemm_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct gemm_work *g = context;
    (void)thread;
    g->level->gemm(g->w, g->x, g->rows, g->y, g->stride, begin, end);
}

static void multiply(struct cpu_engine *e, const struct cpu_matrix *w, const float *x, uint32_t rows,
                     float *y)
{
    struct gemm_work g = {e->level, w, x, y, rows, w->outputs};
    uint32_t panels = (w->outputs + CPU_PANEL - 1) / CPU_PANEL;
    cpu_threads_for(e->threads, panels, panels / (4 * cpu_threads_count(e->threads)) + 1, gemm_part, &g);
}

struct norm_work {
    struct cpu_engine *e;
    const float *weight, *in;
    float *out;
};

static void norm_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct norm_work *n = context;
    uint32_t hidden = n->e->base.info.model.hidden;
    (void)thread;
    for (uint32_t t = begin; t < end; t++)
        n->e->level->rms_norm(n->in + (size_t)t * hidden, n->weight, hidden, (float)n->e->hf->rms_eps,
                              n->out + (size_t)t * hidden);
}

static void normalise(struct cpu_engine *e, const float *in, const float *weight, uint32_t rows, float *out)
{
    struct norm_work n = {e, weight, in, out};
    cpu_threads_for(e->threads, rows, 16, norm_part, &n);
}

static void rotate(const struct cpu_engine *e, float *x, uint32_t position)
{
    uint32_t half = e->base.info.model.head_dim / 2;
    const float *c = e->cos + (size_t)position * half, *s = e->sin + (size_t)position * half;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * c[i] - b * s[i];
        x[i + half] = b * c[i] + a * s[i];
    }
}

static uint8_t *pool_layer(const struct cpu_engine *e, uint32_t layer)
{
    const struct ts_engine_info *info = &e->base.info;
    return (uint8_t *)info->pool + (size_t)(layer - info->shard.layer_begin) * info->kv_blocks *
                                       ts_model_kv_layer_block_bytes(&info->model, e->kv_heads);
}

static void store_kv(const struct cpu_engine *e, uint32_t layer, uint32_t block, uint32_t position,
                     uint32_t kv, uint32_t head, const float *x)
{
    const struct ts_model *m = &e->base.info.model;
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * m->head_dim;
    uint16_t *at = (uint16_t *)pool_layer(e, layer) + (((size_t)block * 2 + kv) * e->kv_heads + head) * tile +
                   (size_t)(position % TS_KV_BLOCK_TOKENS) * m->head_dim;
    for (uint32_t i = 0; i < m->head_dim; i++)
        at[i] = cpu_to_16(x[i], m->kv_dtype);
}

struct layer_work {
    struct cpu_engine *e;
    const struct cpu_layer *layer;
    uint32_t index;
};

static void heads_norm(const struct cpu_engine *e, float *x, const float *weight)
{
    if (weight)
        e->level->rms_norm(x, weight, e->base.info.model.head_dim, (float)e->hf->rms_eps, x);
}

/* q/k norm, rotation, keys and values to their pages. */
static void qkv_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct layer_work *w = context;
    const struct cpu_engine *e = w->e;
    uint32_t d = e->base.info.model.head_dim, stride = w->layer->qkv.outputs;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        const struct ts_engine_row *row = &e->batch.rows[e->token_row[t]];
        uint32_t position = e->token_position[t], block = row->blocks[position / TS_KV_BLOCK_TOKENS];
        float *x = e->qkv + (size_t)t * stride;
        for (uint32_t h = 0; h < e->q_heads; h++, x += d) {
            heads_norm(e, x, w->layer->q_norm);
            rotate(e, x, position);
        }
        for (uint32_t h = 0; h < e->kv_heads; h++, x += d) {
            heads_norm(e, x, w->layer->k_norm);
            rotate(e, x, position);
            store_kv(e, w->index, block, position, 0, h, x);
        }
        for (uint32_t h = 0; h < e->kv_heads; h++, x += d)
            store_kv(e, w->index, block, position, 1, h, x);
    }
}

static void attention_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct layer_work *w = context;
    const struct cpu_engine *e = w->e;
    const struct ts_model *m = &e->base.info.model;
    uint32_t d = m->head_dim, group = e->q_heads / e->kv_heads;
    float scale = 1.0f / sqrtf((float)d), query[512];
    for (uint32_t i = begin; i < end; i++) {
        uint32_t t = i / e->q_heads, h = i % e->q_heads, position = e->token_position[t];
        const float *q = e->qkv + (size_t)t * w->layer->qkv.outputs + (size_t)h * d;
        for (uint32_t j = 0; j < d; j++)
            query[j] = q[j] * scale;
        struct cpu_attention a = {.query = query,
                                  .pool_layer = pool_layer(e, w->index),
                                  .blocks = e->batch.rows[e->token_row[t]].blocks,
                                  .kv_heads = e->kv_heads,
                                  .kv_head = h / group,
                                  .head_dim = d,
                                  .kv_dtype = m->kv_dtype,
                                  .end = position + 1,
                                  .scores = e->scores + (size_t)thread * m->context_tokens,
                                  .out = e->attended + ((size_t)t * e->q_heads + h) * d};
        if (e->hf->windowed[w->index] && position + 1 > m->sliding_window)
            a.begin = position + 1 - m->sliding_window;
        e->level->attend(&a);
    }
}

static void silu_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct cpu_engine *e = context;
    uint32_t n = e->base.info.model.intermediate;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        const float *pair = e->gate_up + (size_t)t * 2 * n;
        e->level->silu_mul(pair, pair + n, n, e->attended + (size_t)t * n);
    }
}

static void add(float *to, const float *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] += from[i];
}

static void run_layer(struct cpu_engine *e, uint32_t index)
{
    const struct cpu_layer *layer = &e->layers[index - e->base.info.shard.layer_begin];
    struct layer_work w = {e, layer, index};
    uint32_t tokens = e->token_count;
    size_t elements = (size_t)tokens * e->base.info.model.hidden;
    normalise(e, e->hidden, layer->attention_norm, tokens, e->normed);
    multiply(e, &layer->qkv, e->normed, tokens, e->qkv);
    cpu_threads_for(e->threads, tokens, 8, qkv_part, &w);
    cpu_threads_for(e->threads, tokens * e->q_heads, 4, attention_part, &w);
    multiply(e, &layer->o, e->attended, tokens, e->product);
    add(e->hidden, e->product, elements);
    normalise(e, e->hidden, layer->mlp_norm, tokens, e->normed);
    multiply(e, &layer->gate_up, e->normed, tokens, e->gate_up);
    cpu_threads_for(e->threads, tokens, 8, silu_part, e);
    multiply(e, &layer->down, e->attended, tokens, e->product);
    add(e->hidden, e->product, elements);
}

static void flatten(struct cpu_engine *e)
{
    uint32_t at = 0, hidden = e->base.info.model.hidden;
    for (uint32_t r = 0; r < e->batch.row_count; r++) {
        const struct ts_engine_row *row = &e->batch.rows[r];
        for (uint32_t i = 0; i < row->token_count; i++, at++) {
            e->token_row[at] = r;
            e->token_position[at] = row->position + i;
            float *x = e->hidden + (size_t)at * hidden;
            for (uint32_t j = 0; e->base.info.shard.layer_begin == 0 && j < hidden; j++)
                x[j] = ts_hf_element(e->embedding, (uint64_t)row->tokens[i] * hidden + j);
        }
    }
    e->token_count = at;
    if (e->batch.hidden_in)
        memcpy(e->hidden, e->batch.hidden_in, (size_t)at * hidden * sizeof(float));
}

/* Final norm and lm_head of the last position of each row that wants it, then sampling. */
static uint32_t finish_rows(struct cpu_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    uint32_t last = 0, samples = 0;
    for (uint32_t r = 0; r < e->batch.row_count; r++) {
        const struct ts_engine_row *row = &e->batch.rows[r];
        last += row->token_count;
        if (!row->sample && !e->batch.logits_out)
            continue;
        normalise(e, e->hidden + (size_t)(last - 1) * m->hidden, e->final_norm, 1, e->normed);
        multiply(e, &e->lm_head, e->normed, 1, e->logits);
        if (e->batch.logits_out)
            memcpy(e->batch.logits_out + (size_t)r * m->vocab, e->logits, m->vocab * sizeof(float));
        if (row->sample)
            ts_sample(e->sampler, e->logits, row, &e->samples[samples++]);
    }
    return samples;
}

uint32_t cpu_forward(struct cpu_engine *e, void (*layer_done)(struct cpu_engine *e, uint32_t layer))
{
    const struct ts_shard *shard = &e->base.info.shard;
    flatten(e);
    for (uint32_t i = shard->layer_begin; i < shard->layer_end; i++) {
        run_layer(e, i);
        layer_done(e, i);
    }
    if (e->batch.hidden_out)
        memcpy(e->batch.hidden_out, e->hidden,
               (size_t)e->token_count * e->base.info.model.hidden * sizeof(float));
    return shard->layer_end == e->base.info.model.layers ? finish_rows(e) : 0;
}
