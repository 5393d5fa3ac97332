#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "gpu/engine/engine_cpu.h"
#include "gpu/engine/engine_tensors.h"

#define HUGE_PAGE ((size_t)2 << 20)

void *cpu_alloc(size_t bytes)
{
    void *p = ts_xaligned(bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes);
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

struct pack_work {
    struct cpu_matrix *m;
    const struct engine_part *parts;
    size_t count;
    const uint8_t *zeros; /* a row of them, for outputs past the last */
};

/* Where the row of an output begins in its tensor. */
static const uint8_t *source_of(const struct pack_work *w, uint64_t output)
{
    for (size_t i = 0; i < w->count; i++) {
        const struct engine_part *p = &w->parts[i];
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
        const struct engine_part *p = &w->parts[i];
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

static void pack(struct cpu_engine *e, struct cpu_matrix *m, const struct engine_part *parts, size_t count)
{
    uint64_t outputs = 0;
    uint32_t inputs = (uint32_t)parts[0].columns;
    enum ts_dtype dtype = parts[0].tensor->dtype;
    for (size_t i = 0; i < count; i++) {
        outputs += parts[i].rows;
        dtype = parts[i].tensor->dtype == dtype ? dtype : TS_DTYPE_F32;
    }
    *m = (struct cpu_matrix){.outputs = (uint32_t)outputs, .inputs = inputs, .depth = inputs, .dtype = dtype};
    if (dtype == TS_DTYPE_BF16)
        m->depth = (inputs + CPU_DEPTH - 1) / CPU_DEPTH * CPU_DEPTH;
    uint32_t panels = (uint32_t)((outputs + CPU_PANEL - 1) / CPU_PANEL);
    size_t bytes = (size_t)panels * m->depth * CPU_PANEL * ts_dtype_bytes(dtype);
    m->panels = cpu_alloc(bytes);
    uint8_t *zeros = ts_xcalloc(inputs, 4);
    struct pack_work w = {m, parts, count, zeros};
    cpu_threads_for(e->threads, panels, 4, pack_part, &w);
    ts_free(zeros);
    for (size_t i = 0; i < count; i++)
        drop_pages(parts[i].tensor);
}

/* Vectors one after the other; NULL where the model has none. */
static float *vectors(const struct engine_part *parts, size_t count)
{
    uint64_t total = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        total += parts[i].rows;
    float *v = total ? ts_xcalloc(total, sizeof *v) : NULL;
    for (size_t i = 0; i < count; i++) {
        for (uint64_t j = 0; j < parts[i].rows; j++)
            v[at++] = engine_part_element(&parts[i], j);
    }
    return v;
}

static void load_layer(struct cpu_engine *e, const struct engine_layer_parts *p, struct cpu_layer *layer)
{
    const struct engine_part pair[] = {p->gate, p->up}, biases[] = {p->gate_bias, p->up_bias};
    pack(e, &layer->qkv, p->qkv, 3);
    pack(e, &layer->o, &p->o, 1);
    pack(e, &layer->gate_up, pair, 2);
    pack(e, &layer->down, &p->down, 1);
    layer->qkv.bias = vectors(p->qkv_bias, 3);
    layer->o.bias = vectors(&p->o_bias, 1);
    layer->gate_up.bias = vectors(biases, 2);
    layer->down.bias = vectors(&p->down_bias, 1);
    layer->attention_norm = vectors(&p->attention_norm, 1);
    layer->mlp_norm = vectors(&p->mlp_norm, 1);
    layer->q_norm = vectors(&p->q_norm, 1);
    layer->k_norm = vectors(&p->k_norm, 1);
}

static enum ts_status load_ends(struct cpu_engine *e, struct ts_error *err)
{
    struct engine_end_parts ends;
    enum ts_status status = engine_end_parts(e->hf, &e->base.info.shard, &ends, err);
    if (status != TS_OK)
        return status;
    e->embedding = ends.embedding.tensor;
    e->final_norm = vectors(&ends.final_norm, 1);
    if (ends.lm_head.rows > 0)
        pack(e, &e->lm_head, &ends.lm_head, 1);
    return TS_OK;
}

static void fill_rope(struct cpu_engine *e)
{
    const struct ts_model *m = &e->base.info.model;
    size_t half = m->head_dim / 2, count = (size_t)m->context_tokens * half;
    e->frequencies = ts_xcalloc(half, sizeof *e->frequencies);
    e->cos = ts_xcalloc(count, sizeof *e->cos);
    e->sin = ts_xcalloc(count, sizeof *e->sin);
    engine_rope(e->hf, m->context_tokens, e->frequencies, e->cos, e->sin);
    e->base.info.inverse_frequencies = e->frequencies;
}

enum ts_status cpu_weights_load(struct cpu_engine *e, struct ts_error *err)
{
    const struct ts_shard *shard = &e->base.info.shard;
    enum ts_status status = TS_OK;
    e->layers = ts_xcalloc(shard->layer_end - shard->layer_begin, sizeof *e->layers);
    for (uint32_t i = shard->layer_begin; i < shard->layer_end && status == TS_OK; i++) {
        struct engine_layer_parts parts;
        status = engine_layer_parts(e->hf, shard, i, &parts, err);
        if (status == TS_OK)
            load_layer(e, &parts, &e->layers[i - shard->layer_begin]);
    }
    if (status == TS_OK)
        status = load_ends(e, err);
    if (status == TS_OK)
        fill_rope(e);
    return status;
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
