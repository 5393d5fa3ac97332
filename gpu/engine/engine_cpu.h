/*
 * The CPU engine from the inside: packed weights of a shard, workspace for one batch, and the forward pass
 * over it.
 */
#ifndef TS_GPU_ENGINE_CPU_H
#define TS_GPU_ENGINE_CPU_H

#include <pthread.h>

#include "gpu/cpu/cpu_level.h"
#include "gpu/cpu/cpu_threads.h"
#include "gpu/engine/ts_engine_impl.h"
#include "gpu/engine/ts_sampler.h"
#include "gpu/model/ts_hf.h"

struct cpu_layer {
    struct cpu_matrix qkv;     /* [(q heads + 2 kv heads) * head_dim of the shard][hidden] */
    struct cpu_matrix o;       /* [hidden][q heads * head_dim of the shard] */
    struct cpu_matrix gate_up; /* [2 * intermediate][hidden] */
    struct cpu_matrix down;    /* [hidden][intermediate] */
    float *attention_norm, *mlp_norm, *q_norm, *k_norm; /* the last two NULL without qk-norm */
};

struct cpu_engine {
    struct ts_engine base;
    struct ts_engine_options options;
    struct ts_hf *hf; /* keeps the embedding's mapping */
    const struct cpu_level *level;
    struct cpu_threads *threads;
    struct ts_sampler *sampler;
    uint32_t q_heads, kv_heads; /* of the shard */
    struct cpu_layer *layers;   /* [layer_end - layer_begin] */
    const struct ts_hf_tensor *embedding;
    float *final_norm;
    struct cpu_matrix lm_head;
    float *cos, *sin; /* [context][head_dim / 2] */
    /* workspace for max_batch_tokens tokens */
    float *hidden, *normed, *qkv, *attended, *gate_up, *product, *scores, *logits;
    uint32_t *token_row, *token_position; /* of each token of the batch */
    struct ts_engine_sample *samples;
    /* the batch under way */
    struct ts_engine_batch batch;
    uint32_t token_count;
    /* thread and its mailbox */
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool busy;    /* from submit until the end of the batch was polled */
    bool pending; /* submitted, and not yet taken by the thread */
    bool stop;
    struct ts_engine_event *events; /* ring of finished layers and the batch */
    size_t event_capacity, event_head, event_tail;
};

enum ts_status cpu_weights_load(struct cpu_engine *e, struct ts_error *err);
void cpu_weights_free(struct cpu_engine *e);
/* Runs e->batch; calls layer_done after each layer. Returns the number of samples. */
uint32_t cpu_forward(struct cpu_engine *e, void (*layer_done)(struct cpu_engine *e, uint32_t layer));

#endif
