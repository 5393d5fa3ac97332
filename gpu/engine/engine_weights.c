#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "gpu/engine/engine_cpu.h"

#define HUGE_PAGE ((size_t)2 << 20)

/* A run of rows of one tensor that becomes a run of outputs of a packed matrix. */
struct piece {
    const struct ts_hf_tensor *tensor;
    uint64_t row_begin, rows;
    uint64_t column_begin; /* with the matrix's inputs as the number of columns */
};

void *cpu_alloc(size_t bytes)
{
    void *p = ts_xaligned(bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes);
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

struct pack_work {
    struct cpu_matrix *m;
    const struct piece *pieces;
    size_t count;
    const uint8_t *zeros; /* a row of them, for outputs past the last */
};

/* Where the row of an output begins in its tensor. */
static const uint8_t *source_of(const struct pack_work *w, uint64_t output)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct piece *p = &w->pieces[i];
        if (output < p->rows)
            return p->tensor->data + ((p->row_begin + output) * p->tensor->shape[1] + p->column_begin) *
                                         ts_dtype_bytes(p->tensor->dtype);
        output -= p->rows;
    }
    return w->zeros;
}

static void pack_bf16(const struct cpu_matrix *m, const uint8_t *const rows[CPU_PANEL], uint32_t *to)
{
    uint32_t pairs = m->inputs / 2;
    for (uint32_t k = 0; k < pairs; k++, to += CPU_PANEL) {
        for (uint32_t n = 0; n < CPU_PANEL; n++)
            memcpy(&to[n], rows[n] + (size_t)k * 4, 4);
    }
    memset(to, 0, (size_t)(m->depth / 2 - pairs) * CPU_PANEL * 4);
    for (uint32_t n = 0; m->inputs % 2 && n < CPU_PANEL; n++)
        memcpy(&to[n], rows[n] + (size_t)pairs * 4, 2);
}

static void pack_f16(const struct cpu_matrix *m, const uint8_t *const rows[CPU_PANEL], uint16_t *to)
{
    for (uint32_t k = 0; k < m->inputs; k++, to += CPU_PANEL) {
        for (uint32_t n = 0; n < CPU_PANEL; n++)
            memcpy(&to[n], rows[n] + (size_t)k * 2, 2);
    }
}

/* Any mix of types. */
static void pack_f32(const struct pack_work *w, uint32_t panel, float *to)
{
    uint64_t output = 0;
    for (size_t i = 0; i < w->count; i++) {
        const struct piece *p = &w->pieces[i];
        for (uint64_t r = 0; r < p->rows; r++, output++) {
            uint64_t from = (p->row_begin + r) * p->tensor->shape[1] + p->column_begin;
            for (uint32_t k = 0; output / CPU_PANEL == panel && k < w->m->inputs; k++)
                to[(size_t)k * CPU_PANEL + output % CPU_PANEL] = ts_hf_element(p->tensor, from + k);
        }
    }
    for (; output < (uint64_t)(panel + 1) * CPU_PANEL; output++) {
        for (uint32_t k = 0; k < w->m->inputs; k++)
            to[(size_t)k * CPU_PANEL + output % CPU_PANEL] = 0;
    }
}

static void pack_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct pack_work *w = context;
    struct cpu_matrix *m = w->m;
    (void)thread;
    for (uint32_t p = begin; p < end; p++) {
        const uint8_t *rows[CPU_PANEL];
        void *to = (uint8_t *)m->panels + (size_t)p * m->depth * CPU_PANEL * ts_dtype_bytes(m->dtype);
        for (uint32_t n = 0; n < CPU_PANEL; n++)
            rows[n] = source_of(w, (uint64_t)p * CPU_PANEL + n);
        if (m->dtype == TS_DTYPE_BF16)
            pack_bf16(m, rows, to);
        else if (m->dtype == TS_DTYPE_F16)
            pack_f16(m, rows, to);
        else
            pack_f32(w, p, to);
    }
}

/* The file's pages of a tensor are not wanted again: the packed copy is the one in use. */
static void drop_pages(const struct ts_hf_tensor *t)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)t->data + page - 1) / page * page;
    uint64_t bytes = (t->dims == 2 ? t->shape[0] * t->shape[1] : t->shape[0]) * ts_dtype_bytes(t->dtype);
    uintptr_t end = ((uintptr_t)t->data + bytes) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static void pack(struct cpu_engine *e, struct cpu_matrix *m, const struct piece *pieces, size_t count,
                 uint32_t inputs)
{
    uint64_t outputs = 0;
    enum ts_dtype dtype = pieces[0].tensor->dtype;
    for (size_t i = 0; i < count; i++) {
        outputs += pieces[i].rows;
        dtype = pieces[i].tensor->dtype == dtype ? dtype : TS_DTYPE_F32;
    }
    *m = (struct cpu_matrix){.outputs = (uint32_t)outputs, .inputs = inputs, .depth = inputs, .dtype = dtype};
    if (dtype == TS_DTYPE_BF16)
        m->depth = (inputs + CPU_DEPTH - 1) / CPU_DEPTH * CPU_DEPTH;
    uint32_t panels = (uint32_t)((outputs + CPU_PANEL - 1) / CPU_PANEL);
    size_t bytes = (size_t)panels * m->depth * CPU_PANEL * ts_dtype_bytes(dtype);
    m->panels = cpu_alloc(bytes);
    uint8_t *zeros = ts_xcalloc(inputs, 4);
    struct pack_work w = {m, pieces, count, zeros};
    cpu_threads_for(e->threads, panels, 4, pack_part, &w);
    ts_free(zeros);
    for (size_t i = 0; i < count; i++)
        drop_pages(pieces[i].tensor);
}

static float *vector(const struct ts_hf_tensor *t, uint64_t begin, uint64_t count)
{
    float *v = ts_xcalloc(count, sizeof *v);
    for (uint64_t i = 0; i < count; i++)
        v[i] = ts_hf_element(t, begin + i);
    return v;
}

struct loading {
    struct cpu_engine *e;
    uint32_t layer;
    struct ts_error *err;
    enum ts_status status; /* the first failure */
};

static const struct ts_hf_tensor *find(struct loading *l, const char *suffix, uint64_t rows, uint64_t columns)
{
    char name[256];
    const struct ts_hf_tensor *t = NULL;
    snprintf(name, sizeof name, "model.layers.%u.%s", l->layer, suffix);
    if (l->status == TS_OK)
        l->status = ts_hf_tensor(l->e->hf, name, rows, columns, &t, l->err);
    return l->status == TS_OK ? t : NULL;
}

/* Biases of the q, k and v rows of the shard, one after the other. */
static float *qkv_bias(struct loading *l, uint64_t q_begin, uint64_t kv_begin)
{
    const struct ts_model *m = &l->e->base.info.model;
    uint64_t d = m->head_dim, nq = l->e->q_heads * d, nkv = l->e->kv_heads * d;
    const struct ts_hf_tensor *q = find(l, "self_attn.q_proj.bias", m->heads * d, 0);
    const struct ts_hf_tensor *k = find(l, "self_attn.k_proj.bias", m->kv_heads * d, 0);
    const struct ts_hf_tensor *v = find(l, "self_attn.v_proj.bias", m->kv_heads * d, 0);
    if (l->status != TS_OK)
        return NULL;
    float *bias = ts_xcalloc(nq + 2 * nkv, sizeof *bias);
    for (uint64_t i = 0; i < nq; i++)
        bias[i] = ts_hf_element(q, q_begin * d + i);
    for (uint64_t i = 0; i < nkv; i++) {
        bias[nq + i] = ts_hf_element(k, kv_begin * d + i);
        bias[nq + nkv + i] = ts_hf_element(v, kv_begin * d + i);
    }
    return bias;
}

static void load_attention(struct loading *l, struct cpu_layer *layer)
{
    const struct ts_model *m = &l->e->base.info.model;
    const struct ts_shard *shard = &l->e->base.info.shard;
    uint64_t d = m->head_dim, group = m->heads / m->kv_heads, q_begin = shard->head_begin * group;
    uint64_t nq = l->e->q_heads * d, nkv = l->e->kv_heads * d;
    const struct ts_hf_tensor *q = find(l, "self_attn.q_proj.weight", m->heads * d, m->hidden);
    const struct ts_hf_tensor *k = find(l, "self_attn.k_proj.weight", m->kv_heads * d, m->hidden);
    const struct ts_hf_tensor *v = find(l, "self_attn.v_proj.weight", m->kv_heads * d, m->hidden);
    const struct ts_hf_tensor *o = find(l, "self_attn.o_proj.weight", m->hidden, m->heads * d);
    if (l->status != TS_OK)
        return;
    struct piece qkv[] = {
        {q, q_begin * d, nq, 0}, {k, shard->head_begin * d, nkv, 0}, {v, shard->head_begin * d, nkv, 0}};
    struct piece out[] = {{o, 0, m->hidden, q_begin * d}};
    pack(l->e, &layer->qkv, qkv, 3, m->hidden);
    pack(l->e, &layer->o, out, 1, (uint32_t)nq);
    if (l->e->hf->qkv_bias)
        layer->qkv.bias = qkv_bias(l, q_begin, shard->head_begin);
    if (l->e->hf->o_bias && shard->head_begin == 0) { /* added once, by the shard of head 0 */
        const struct ts_hf_tensor *bias = find(l, "self_attn.o_proj.bias", m->hidden, 0);
        layer->o.bias = bias ? vector(bias, 0, m->hidden) : NULL;
    }
    if (l->e->hf->qk_norm) {
        const struct ts_hf_tensor *qn = find(l, "self_attn.q_norm.weight", d, 0),
                                  *kn = find(l, "self_attn.k_norm.weight", d, 0);
        layer->q_norm = qn ? vector(qn, 0, d) : NULL;
        layer->k_norm = kn ? vector(kn, 0, d) : NULL;
    }
}

static void load_mlp(struct loading *l, struct cpu_layer *layer)
{
    const struct ts_model *m = &l->e->base.info.model;
    const struct ts_hf_tensor *gate = find(l, "mlp.gate_proj.weight", m->intermediate, m->hidden);
    const struct ts_hf_tensor *up = find(l, "mlp.up_proj.weight", m->intermediate, m->hidden);
    const struct ts_hf_tensor *down = find(l, "mlp.down_proj.weight", m->hidden, m->intermediate);
    const struct ts_hf_tensor *n1 = find(l, "input_layernorm.weight", m->hidden, 0);
    const struct ts_hf_tensor *n2 = find(l, "post_attention_layernorm.weight", m->hidden, 0);
    if (l->status != TS_OK)
        return;
    struct piece pair[] = {{gate, 0, m->intermediate, 0}, {up, 0, m->intermediate, 0}},
                 one[] = {{down, 0, m->hidden, 0}};
    pack(l->e, &layer->gate_up, pair, 2, m->hidden);
    pack(l->e, &layer->down, one, 1, m->intermediate);
    layer->attention_norm = vector(n1, 0, m->hidden);
    layer->mlp_norm = vector(n2, 0, m->hidden);
    if (!l->e->hf->mlp_bias)
        return;
    const struct ts_hf_tensor *gb = find(l, "mlp.gate_proj.bias", m->intermediate, 0),
                              *ub = find(l, "mlp.up_proj.bias", m->intermediate, 0);
    const struct ts_hf_tensor *db = find(l, "mlp.down_proj.bias", m->hidden, 0);
    if (l->status != TS_OK)
        return;
    layer->gate_up.bias = ts_xcalloc(2 * (size_t)m->intermediate, sizeof(float));
    for (uint32_t i = 0; i < m->intermediate; i++) {
        layer->gate_up.bias[i] = ts_hf_element(gb, i);
        layer->gate_up.bias[m->intermediate + i] = ts_hf_element(ub, i);
    }
    layer->down.bias = vector(db, 0, m->hidden);
}

static enum ts_status load_ends(struct cpu_engine *e, struct ts_error *err)
{
    const struct ts_model *m = &e->base.info.model;
    const struct ts_shard *shard = &e->base.info.shard;
    const struct ts_hf_tensor *norm, *head;
    enum ts_status status =
        ts_hf_tensor(e->hf, "model.embed_tokens.weight", m->vocab, m->hidden, &e->embedding, err);
    if (status != TS_OK || shard->layer_end != m->layers)
        return status;
    status = ts_hf_tensor(e->hf, "model.norm.weight", m->hidden, 0, &norm, err);
    if (status != TS_OK)
        return status;
    e->final_norm = vector(norm, 0, m->hidden);
    head = e->embedding;
    if (!e->hf->tied)
        status = ts_hf_tensor(e->hf, "lm_head.weight", m->vocab, m->hidden, &head, err);
    if (status == TS_OK)
        pack(e, &e->lm_head, &(struct piece){head, 0, m->vocab, 0}, 1, m->hidden);
    return status;
}

static void fill_rope(struct cpu_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    uint32_t half = m->head_dim / 2;
    double inverse[512], factor;
    ts_rope_table(&e->hf->rope, m->head_dim, inverse, &factor);
    e->frequencies = ts_xcalloc(half, sizeof *e->frequencies);
    for (uint32_t i = 0; i < half; i++)
        e->frequencies[i] = (float)inverse[i];
    e->base.info.inverse_frequencies = e->frequencies;
    e->cos = ts_xcalloc((size_t)m->context_tokens * half, sizeof *e->cos);
    e->sin = ts_xcalloc((size_t)m->context_tokens * half, sizeof *e->sin);
    for (uint32_t t = 0; t < m->context_tokens; t++) {
        for (uint32_t i = 0; i < half; i++) {
            e->cos[(size_t)t * half + i] = (float)(cos(t * inverse[i]) * factor);
            e->sin[(size_t)t * half + i] = (float)(sin(t * inverse[i]) * factor);
        }
    }
}

enum ts_status cpu_weights_load(struct cpu_engine *e, struct ts_error *err)
{
    const struct ts_shard *shard = &e->base.info.shard;
    struct loading l = {.e = e, .err = err};
    e->layers = ts_xcalloc(shard->layer_end - shard->layer_begin, sizeof *e->layers);
    for (uint32_t i = shard->layer_begin; i < shard->layer_end && l.status == TS_OK; i++) {
        l.layer = i;
        load_attention(&l, &e->layers[i - shard->layer_begin]);
        load_mlp(&l, &e->layers[i - shard->layer_begin]);
    }
    if (l.status == TS_OK)
        l.status = load_ends(e, err);
    if (l.status == TS_OK)
        fill_rope(e);
    return l.status;
}

static void free_matrix(struct cpu_matrix *m)
{
    ts_free(m->panels);
    ts_free(m->bias);
}

void cpu_weights_free(struct cpu_engine *e)
{
    const struct ts_shard *shard = &e->base.info.shard;
    for (uint32_t i = 0; e->layers && i < shard->layer_end - shard->layer_begin; i++) {
        struct cpu_layer *layer = &e->layers[i];
        free_matrix(&layer->qkv);
        free_matrix(&layer->o);
        free_matrix(&layer->gate_up);
        free_matrix(&layer->down);
        ts_free(layer->attention_norm);
        ts_free(layer->mlp_norm);
        ts_free(layer->q_norm);
        ts_free(layer->k_norm);
    }
    free_matrix(&e->lm_head);
    ts_free(e->layers);
    ts_free(e->final_norm);
    ts_free(e->cos);
    ts_free(e->sin);
    ts_free(e->frequencies);
}
