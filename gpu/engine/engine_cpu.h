/*
 * The CPU engine from the inside: packed weights of a shard, workspace for one batch, and the forward pass
 * over it.
 */
#ifndef TS_GPU_ENGINE_CPU_H
#define TS_GPU_ENGINE_CPU_H

#include "gpu/cpu/cpu_level.h"
#include "gpu/cpu/cpu_threads.h"
#include "gpu/engine/engine_runner.h"
#include "gpu/engine/ts_sampler.h"
#include "gpu/model/ts_hf.h"

struct cpu_layer {
    struct cpu_matrix qkv;     /* [(q heads + 2 kv heads) * head_dim of the shard][hidden] */
    struct cpu_matrix o;       /* [hidden][q heads * head_dim of the shard] */
    struct cpu_matrix gate_up; /* [2 * intermediate][hidden] */
    struct cpu_matrix down;    /* [hidden][intermediate] */
    float *attention_norm, *mlp_norm, *q_norm, *k_norm; /* the last two NULL without qk-norm */
};

/* Consecutive tokens of one row of the batch. */
struct cpu_span {
    uint32_t row, token, count; /* token: index in the batch */
};

struct cpu_engine {
    struct ts_engine base;
    struct ts_engine_options options;
    struct ts_hf *hf; /* keeps the embedding's mapping */
    const struct cpu_level *level;
    struct cpu_threads *threads;
    struct ts_sampler **samplers; /* one for each thread */
    uint32_t q_heads, kv_heads;   /* of the shard */
    struct cpu_layer *layers;     /* [layer_end - layer_begin] */
    const struct ts_hf_tensor *embedding;
    float *final_norm;
    struct cpu_matrix lm_head;
    float *cos, *sin;   /* [context][head_dim / 2] */
    float *frequencies; /* [head_dim / 2], the info's */
    /* Workspace for max_batch_tokens tokens. `input` holds the rows that the next matrix takes, in the type
     * it wants; the other rows are fp32, cpu_y_step() apart. */
    float *hidden;
    uint8_t *input;
    float *qkv, *gate_up, *product, *logits;
    uint32_t logits_rows; /* that fit `logits` */
    float *scratch;       /* [threads][scratch_step] */
    size_t scratch_step;
    float *attention_work; /* [threads][attention_step] */
    size_t attention_step;
    uint32_t *token_row, *token_position; /* of each token of the batch */
    struct cpu_span *spans;               /* what attention takes at a time; [tokens] */
    uint32_t span_count;
    uint32_t *last_token; /* of each row that wants logits, */
    uint32_t *wanting;    /* and its index; [max_batch_rows] */
    struct ts_engine_sample *samples;
    const struct ts_engine_batch *batch; /* under way */
    uint32_t token_count;                /* of it */
    struct engine_runner runner;
};

/* Memory that kernels stream through: on huge pages when it is big, since the rows of a tile lie on as many
 * pages as there are rows. Contents undefined; ts_free. */
void *cpu_alloc(size_t bytes);

/* Rows of a matrix's results lie a cache line further apart than they are long: a power of two would put them
 * all into the same few lines of the cache. The same holds for its inputs, in bytes. */
static inline size_t cpu_y_step(uint32_t outputs)
{
    return (outputs + CPU_PANEL - 1) / CPU_PANEL * CPU_PANEL + CPU_PANEL;
}

static inline bool cpu_takes_bf16(const struct cpu_engine *e, const struct cpu_matrix *w)
{
    return e->level->bf16_inputs && w->dtype == TS_DTYPE_BF16;
}

static inline size_t cpu_x_step(const struct cpu_engine *e, const struct cpu_matrix *w)
{
    return (size_t)w->depth * (cpu_takes_bf16(e, w) ? 2 : 4) + 64;
}

/* Needs e->threads. */
enum ts_status cpu_weights_load(struct cpu_engine *e, struct ts_error *err);
void cpu_weights_free(struct cpu_engine *e);
/* Runs e->batch; tells the runner of each layer. Returns the number of samples. */
uint32_t cpu_forward(struct cpu_engine *e);

#endif
