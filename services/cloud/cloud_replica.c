#include "services/cloud/cloud_replica.h"

#include <math.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"

struct stage {
    const struct ts_device_type *device;
    const struct ts_link *inner; /* between its ranks */
    const struct ts_link *next;  /* to the next stage; NULL at the last */
    uint32_t tp, first_layer, layers, node;
    ts_time free_at, link_free_at;
    double busy_s;
};

struct cloud_replica {
    const struct ts_model *model;
    struct stage stages[TS_STAGES_MAX];
    uint32_t stage_count;
    double back_s; /* a token's way from the last stage to the first */
    double noise;
    struct ts_rng rng;
};

static const struct ts_link *link_between(const struct ts_cluster *cluster, const struct stage *a,
                                          const struct stage *b, uint32_t type)
{
    return a->node == b->node ? ts_cluster_inner(cluster, a->node, type)
                              : ts_cluster_link(cluster, a->node, b->node);
}

struct cloud_replica *cloud_replica_new(const struct ts_cluster *cluster, const struct ts_model *model,
                                        const struct ts_group *group, double noise, uint64_t seed)
{
    struct cloud_replica *r = ts_xcalloc(1, sizeof *r);
    uint32_t layer = 0, count = group->stage_count;
    TS_ASSERT(count > 0 && count <= TS_STAGES_MAX);
    r->model = model;
    r->stage_count = count;
    r->noise = noise;
    ts_rng_init(&r->rng, seed);
    for (uint32_t i = 0; i < count; i++) {
        const struct ts_stage *from = &group->stages[i];
        const struct ts_gpu *gpu = &cluster->gpus[from->gpus[0]];
        r->stages[i] = (struct stage){.device = &cluster->types[gpu->type],
                                      .inner = ts_cluster_inner(cluster, gpu->node, gpu->type),
                                      .tp = from->tp,
                                      .first_layer = layer,
                                      .layers = from->layers,
                                      .node = gpu->node};
        layer += from->layers;
    }
    for (uint32_t i = 0; i + 1 < count; i++)
        r->stages[i].next = link_between(cluster, &r->stages[i], &r->stages[i + 1],
                                         cluster->gpus[group->stages[i].gpus[0]].type);
    if (count > 1) {
        uint32_t type = cluster->gpus[group->stages[count - 1].gpus[0]].type;
        r->back_s = link_between(cluster, &r->stages[count - 1], &r->stages[0], type)->latency_s;
    }
    TS_ASSERT(layer == model->layers);
    return r;
}

void cloud_replica_destroy(struct cloud_replica **replica)
{
    ts_free(*replica);
    *replica = NULL;
}

void cloud_replica_clear(struct cloud_replica *r)
{
    for (uint32_t i = 0; i < r->stage_count; i++)
        r->stages[i].free_at = r->stages[i].link_free_at = 0;
}

/* Twice the pairs of tokens that a prompt of so many attends to, within the model's window. */
static double pairs(const struct ts_model *model, double tokens)
{
    double window = model->sliding_window;
    return window > 0 && tokens > window ? window * (2 * tokens - window) : tokens * tokens;
}

void cloud_replica_load_row(const struct cloud_replica *r, struct cloud_replica_load *load, uint32_t position,
                            uint32_t tokens, bool sampled)
{
    const struct ts_model *model = r->model;
    load->sampled += sampled;
    if (tokens == 1 && position > 0) {
        double context = (double)position + 1;
        bool cut = model->sliding_window > 0 && context > model->sliding_window;
        load->decode_rows += 1;
        load->decode_context += cut ? model->sliding_window : context;
    } else {
        load->prompt_tokens += tokens;
        load->prompt_pairs += pairs(model, (double)position + tokens) - pairs(model, position);
    }
}

/* One layer. Prompt chunks and decode rows of one batch pass the products together. */
static double layer_s(const struct stage *stage, const struct ts_model *model,
                      const struct cloud_replica_load *load)
{
    const struct ts_device_type *device = stage->device;
    uint32_t tp = stage->tp;
    double prompt = load->prompt_tokens, rows = load->decode_rows, seconds = 0;
    if (prompt > 0)
        seconds += ts_cost_layer_prefill_s(device, model, stage->inner, tp, prompt, load->prompt_pairs);
    if (rows > 0)
        seconds += ts_cost_layer_decode_s(device, model, stage->inner, tp, rows, load->decode_context);
    if (prompt > 0 && rows > 0)
        seconds += ts_cost_linear_s(device, model, tp, prompt + rows) -
                   ts_cost_linear_s(device, model, tp, prompt) - ts_cost_linear_s(device, model, tp, rows);
    return seconds;
}

static ts_time ns_of(double seconds)
{
    return (ts_time)(seconds * 1e9);
}

static ts_time later(ts_time a, ts_time b)
{
    return a > b ? a : b;
}

/* A part is done with the layer that is its last one. */
static uint32_t last_layer(const struct cloud_replica *r, uint32_t part, uint32_t parts)
{
    return (uint32_t)((uint64_t)(part + 1) * r->model->layers / parts) - 1;
}

static uint32_t stage_of(const struct cloud_replica *r, uint32_t layer)
{
    uint32_t i = 0;
    while (i + 1 < r->stage_count && layer >= r->stages[i + 1].first_layer)
        i++;
    return i;
}

ts_time cloud_replica_enter(struct cloud_replica *r, ts_time now, const struct cloud_replica_load *load,
                            uint32_t parts, ts_time *part_done)
{
    double factor =
        r->noise > 0 ? ts_math_exp(r->noise * ts_rng_normal(&r->rng) - r->noise * r->noise / 2) : 1;
    double hop_bytes = ts_cost_hop_bytes(r->model, load->prompt_tokens + load->decode_rows);
    uint32_t part = 0;
    for (uint32_t i = 0; i < r->stage_count; i++) {
        struct stage *s = &r->stages[i];
        bool last = i + 1 == r->stage_count;
        double layer = layer_s(s, r->model, load), step = ts_cost_step_s(s->device);
        double head = last && load->sampled ? ts_cost_head_s(s->device, r->model, s->tp, load->sampled) : 0;
        double lasts = (step + s->layers * layer + head) * factor;
        ts_time begin = later(now, s->free_at);
        for (; part < parts && last_layer(r, part, parts) < s->first_layer + s->layers; part++) {
            uint32_t done = last_layer(r, part, parts) + 1 - s->first_layer;
            part_done[part] = begin + ns_of((step + done * layer) * factor);
        }
        s->busy_s += lasts;
        now = s->free_at = begin + ns_of(lasts);
        if (!last) {
            now = later(now, s->link_free_at);
            s->link_free_at = now + ns_of(hop_bytes / s->next->bytes_per_s);
            now = s->link_free_at + ns_of(s->next->latency_s);
        }
    }
    return now + ns_of(r->back_s);
}

uint32_t cloud_replica_kv_blocks(const struct cloud_replica *r)
{
    double tokens = INFINITY;
    for (uint32_t i = 0; i < r->stage_count; i++) {
        const struct stage *s = &r->stages[i];
        double weights =
            ts_cost_stage_weight_bytes(r->model, i == 0, i + 1 == r->stage_count, s->layers) / s->tp;
        double left = ts_cost_usable_bytes(s->device) - weights;
        tokens = fmin(tokens, left / (s->layers * ts_cost_kv_layer_token_bytes(r->model, s->tp)));
    }
    return tokens > 0 ? (uint32_t)fmin(tokens / TS_KV_BLOCK_TOKENS, UINT32_MAX / TS_KV_BLOCK_TOKENS) : 0;
}

double cloud_replica_busy_s(const struct cloud_replica *r, uint32_t stage)
{
    return r->stages[stage].busy_s;
}

uint32_t cloud_replica_node(const struct cloud_replica *r, uint32_t part, uint32_t parts)
{
    return r->stages[stage_of(r, last_layer(r, part, parts))].node;
}
