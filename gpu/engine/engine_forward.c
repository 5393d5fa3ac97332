/*
 * The forward pass over one ragged batch. All operations are rows times something, each row by itself, so
 * what a token gets does not depend on its neighbours. Keys and values of the whole batch are written before
 * attention reads them. The sum of a block's result to the hidden states is left to the norm that follows.
 */
#include <math.h>
#include <string.h>

#include "gpu/engine/engine_cpu.h"

struct gemm_work {
    struct cpu_engine *e;
    const struct cpu_matrix *w;
    float *y;
    uint32_t rows;
};

static void gemm_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct gemm_work *g = context;
    (void)thread;
    g->e->level->gemm(g->w, g->e->input, cpu_x_step(g->e, g->w), g->rows, g->y, cpu_y_step(g->w->outputs),
                      begin, end);
}

/* y = e->input times the matrix. */
static void multiply(struct cpu_engine *e, const struct cpu_matrix *w, uint32_t rows, float *y)
{
    struct gemm_work g = {e, w, y, rows};
    uint32_t panels = (w->outputs + CPU_PANEL - 1) / CPU_PANEL;
    uint32_t grain = (panels / (4 * cpu_threads_count(e->threads)) + 4) / 4 * 4;
    cpu_threads_for(e->threads, panels, grain, gemm_part, &g);
}

/* Columns first..first+count-1 of one row of the input of `w`. */
static void put_input(struct cpu_engine *e, const struct cpu_matrix *w, uint32_t token, uint32_t first,
                      const float *from, uint32_t count)
{
    void *row = e->input + token * cpu_x_step(e, w);
    bool bf16 = cpu_takes_bf16(e, w), last = first + count == w->inputs;
    size_t size = bf16 ? 2 : 4;
    if (bf16)
        e->level->narrow(from, count, TS_DTYPE_BF16, (uint16_t *)row + first);
    else
        memcpy((float *)row + first, from, count * sizeof(float));
    if (last)
        memset((uint8_t *)row + w->inputs * size, 0, (w->depth - w->inputs) * size);
}

struct norm_work {
    struct cpu_engine *e;
    const float *weight;
    const struct cpu_matrix *to;
    const float *add;      /* to the hidden states before, or NULL */
    const uint32_t *which; /* tokens, or NULL = all */
};

static void norm_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct norm_work *n = context;
    struct cpu_engine *e = n->e;
    uint32_t hidden = e->base.info.model.hidden;
    float *scratch = e->scratch + thread * e->scratch_step;
    for (uint32_t t = begin; t < end; t++) {
        float *x = e->hidden + (size_t)(n->which ? n->which[t] : t) * hidden;
        const float *add = n->add ? n->add + t * cpu_y_step(hidden) : NULL;
        for (uint32_t i = 0; add && i < hidden; i++)
            x[i] += add[i];
        if (!n->weight)
            continue;
        e->level->rms_norm(x, n->weight, hidden, (float)e->hf->rms_eps, scratch);
        put_input(e, n->to, t, 0, scratch, hidden);
    }
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
    e->level->narrow(x, m->head_dim, m->kv_dtype, at);
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
    uint32_t d = e->base.info.model.head_dim;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        const struct ts_engine_row *row = &e->batch->rows[e->token_row[t]];
        uint32_t position = e->token_position[t], block = row->blocks[position / TS_KV_BLOCK_TOKENS];
        float *x = e->qkv + t * cpu_y_step(w->layer->qkv.outputs);
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

/* Items: spans times KV heads. The later a span, the more keys it has: those are started first. */
static void attention_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct layer_work *w = context;
    struct cpu_engine *e = w->e;
    const struct ts_model *m = &e->base.info.model;
    const struct cpu_matrix *o = &w->layer->o;
    uint32_t d = m->head_dim, group = e->q_heads / e->kv_heads, width = group * d;
    size_t q_step = cpu_y_step(w->layer->qkv.outputs);
    float *scratch = e->scratch + thread * e->scratch_step;
    for (uint32_t i = begin; i < end; i++) {
        const struct cpu_span *s = &e->spans[e->span_count - 1 - i / e->kv_heads];
        uint32_t head = i % e->kv_heads;
        struct cpu_attention a = {.query = e->qkv + s->token * q_step + (size_t)head * width,
                                  .query_step = q_step,
                                  .out = scratch,
                                  .out_step = width,
                                  .pool_layer = pool_layer(e, w->index),
                                  .blocks = e->batch->rows[s->row].blocks,
                                  .kv_heads = e->kv_heads,
                                  .kv_head = head,
                                  .head_dim = d,
                                  .group = group,
                                  .kv_dtype = m->kv_dtype,
                                  .position = e->token_position[s->token],
                                  .count = s->count,
                                  .window = e->hf->windowed[w->index] ? m->sliding_window : 0,
                                  .work = e->attention_work + thread * e->attention_step};
        e->level->attend(&a);
        for (uint32_t t = 0; t < s->count; t++)
            put_input(e, o, s->token + t, head * width, scratch + (size_t)t * width, width);
    }
}

static void silu_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct layer_work *w = context;
    struct cpu_engine *e = w->e;
    uint32_t n = e->base.info.model.intermediate;
    float *scratch = e->scratch + thread * e->scratch_step;
    for (uint32_t t = begin; t < end; t++) {
        const float *pair = e->gate_up + t * cpu_y_step(2 * n);
        e->level->silu_mul(pair, pair + n, n, scratch);
        put_input(e, &w->layer->down, t, 0, scratch, n);
    }
}

static void run_layer(struct cpu_engine *e, uint32_t index)
{
    uint32_t first = e->base.info.shard.layer_begin, tokens = e->token_count;
    const struct cpu_layer *layer = &e->layers[index - first];
    struct layer_work w = {e, layer, index};
    struct norm_work before = {e, layer->attention_norm, &layer->qkv, index > first ? e->product : NULL,
                               NULL};
    struct norm_work between = {e, layer->mlp_norm, &layer->gate_up, e->product, NULL};
    cpu_threads_for(e->threads, tokens, 4, norm_part, &before);
    multiply(e, &layer->qkv, tokens, e->qkv);
    cpu_threads_for(e->threads, tokens, 4, qkv_part, &w);
    cpu_threads_for(e->threads, e->span_count * e->kv_heads, 1, attention_part, &w);
    multiply(e, &layer->o, tokens, e->product);
    cpu_threads_for(e->threads, tokens, 4, norm_part, &between);
    multiply(e, &layer->gate_up, tokens, e->gate_up);
    cpu_threads_for(e->threads, tokens, 2, silu_part, &w);
    multiply(e, &layer->down, tokens, e->product);
}

static void embed_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct cpu_engine *e = context;
    uint32_t hidden = e->base.info.model.hidden;
    (void)thread;
    for (uint32_t t = begin; t < end; t++) {
        const struct ts_engine_row *row = &e->batch->rows[e->token_row[t]];
        uint64_t from = (uint64_t)row->tokens[e->token_position[t] - row->position] * hidden;
        for (uint32_t i = 0; i < hidden; i++)
            e->hidden[(size_t)t * hidden + i] = ts_hf_element(e->embedding, from + i);
    }
}

static void flatten(struct cpu_engine *e)
{
    uint32_t at = 0, group = e->q_heads / e->kv_heads;
    uint32_t span = group < CPU_ATTENTION_ROWS ? CPU_ATTENTION_ROWS / group : 1;
    e->span_count = 0;
    for (uint32_t r = 0; r < e->batch->row_count; r++) {
        const struct ts_engine_row *row = &e->batch->rows[r];
        for (uint32_t i = 0; i < row->token_count; i += span) {
            uint32_t count = row->token_count - i < span ? row->token_count - i : span;
            e->spans[e->span_count++] = (struct cpu_span){r, at + i, count};
        }
        for (uint32_t i = 0; i < row->token_count; i++, at++) {
            e->token_row[at] = r;
            e->token_position[at] = row->position + i;
        }
    }
    e->token_count = at;
    if (e->base.info.shard.layer_begin == 0)
        cpu_threads_for(e->threads, at, 16, embed_part, e);
    else if (e->batch->hidden_in)
        memcpy(e->hidden, e->batch->hidden_in, (size_t)at * e->base.info.model.hidden * sizeof(float));
}

struct finish_work {
    struct cpu_engine *e;
    const uint32_t *wanting;
    struct ts_engine_sample *samples; /* of wanting[0] on */
};

static void finish_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct finish_work *f = context;
    struct cpu_engine *e = f->e;
    size_t vocab = e->base.info.model.vocab;
    for (uint32_t i = begin; i < end; i++) {
        const struct ts_engine_row *row = &e->batch->rows[f->wanting[i]];
        float *logits = e->logits + i * cpu_y_step((uint32_t)vocab);
        if (e->batch->logits_out)
            memcpy(e->batch->logits_out + f->wanting[i] * vocab, logits, vocab * sizeof(float));
        for (size_t j = e->options.token_ids; e->options.token_ids && j < vocab; j++)
            logits[j] = -INFINITY; /* padding rows of the embedding: no text stands for them */
        if (row->sample)
            ts_sample(e->samplers[thread], logits, row, &f->samples[i]);
    }
}

/* Final norm and lm_head of the last position of each row that wants it, then sampling. */
static uint32_t finish_rows(struct cpu_engine *e)
{
    uint32_t at = 0, wanting = 0, samples = 0;
    for (uint32_t r = 0; r < e->batch->row_count; r++) {
        at += e->batch->rows[r].token_count;
        if (e->batch->rows[r].sample || e->batch->logits_out) {
            e->last_token[wanting] = at - 1;
            e->wanting[wanting++] = r;
        }
    }
    for (uint32_t i = 0, n; i < wanting; i += n) {
        n = wanting - i < e->logits_rows ? wanting - i : e->logits_rows;
        struct norm_work norm = {e, e->final_norm, &e->lm_head, NULL, e->last_token + i};
        struct finish_work finish = {e, e->wanting + i, e->samples + i};
        cpu_threads_for(e->threads, n, 4, norm_part, &norm);
        multiply(e, &e->lm_head, n, e->logits);
        cpu_threads_for(e->threads, n, 1, finish_part, &finish);
    }
    for (uint32_t i = 0; i < wanting; i++) { /* closes the gaps of rows that wanted logits alone */
        if (e->batch->rows[e->wanting[i]].sample)
            e->samples[samples++] = e->samples[i];
    }
    return samples;
}

uint32_t cpu_forward(struct cpu_engine *e)
{
    const struct ts_shard *shard = &e->base.info.shard;
    struct norm_work add = {e, NULL, NULL, e->product, NULL};
    flatten(e);
    for (uint32_t i = shard->layer_begin; i < shard->layer_end; i++) {
        run_layer(e, i);
        engine_runner_layer(&e->runner, i);
    }
    cpu_threads_for(e->threads, e->token_count, 16, norm_part, &add);
    if (e->batch->hidden_out)
        memcpy(e->batch->hidden_out, e->hidden,
               (size_t)e->token_count * e->base.info.model.hidden * sizeof(float));
    return shard->layer_end == e->base.info.model.layers ? finish_rows(e) : 0;
}
