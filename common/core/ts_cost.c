#include "common/core/ts_cost.h"

#include <math.h>

#include "common/core/ts_codec_spec.h"
#include "common/core/ts_msg_common.h"

#define ACTIVATION_BYTES 2.0 /* of one element between two kernels */
#define HEAD_DIM         128 /* of nearly all models: the scale of a row counts only where prompts go as i8 */

/* All-reduce between the sizes that one kernel does at once and those that fill the link: network_dev.csv,
 * A100 and H200, 2 to 8 ranks, 256 B to 1 GiB. */
#define RAMP_S     85e-6
#define RAMP_BYTES 8388608.0

/* Usable memory: vLLM's default share of the device, less what the runtime, its graphs, the collectives and
 * the activations of one step take. */
#define USABLE_SHARE  0.90
#define RUNTIME_BYTES 1.5e9

/* Products of one transformer layer on one rank, in matrix elements. The KV heads of a rank are copies when
 * there are fewer of them than ranks. */
static double kv_heads_of_rank(const struct ts_model *model, uint32_t tp)
{
    return model->kv_heads > tp ? (double)model->kv_heads / tp : 1;
}

static double layer_elements(const struct ts_model *model, uint32_t tp)
{
    double hidden = model->hidden, head = model->head_dim;
    double query = (double)model->heads / tp * head;
    double kv = kv_heads_of_rank(model, tp) * head;
    double mlp = (model->mlp_plain ? 2 : 3) * hidden * model->intermediate / tp;
    return hidden * (2 * query + 2 * kv) + mlp;
}

/* A product of `rows` rows with a matrix of `elements`: it reads the matrix, and it computes. Small row
 * counts leave the tensor cores half empty: the time is that of rows + tokens_half rows at full speed. The
 * greater of the two decides; a norm of degree 4 rounds the corner, convex in rows like both parts. */
static double product_s(const struct ts_device_type *device, double bytes, double elements, double rows)
{
    const struct ts_device_fit *fit = &device->fit;
    double reads = bytes / (device->memory_bytes_per_s * fit->memory_efficiency);
    double computes = 2 * elements * (rows + fit->tokens_half) / (device->flops * fit->flops_efficiency);
    double most = fmax(reads, computes), least = fmin(reads, computes);
    double square = most > 0 ? (least / most) * (least / most) : 0;
    return most * sqrt(sqrt(1 + square * square));
}

struct ts_device_fit ts_cost_fit_generic(void)
{
    return (struct ts_device_fit){.flops_efficiency = 0.7,
                                  .memory_efficiency = 0.8,
                                  .context_efficiency = 0.7,
                                  .attention_efficiency = 0.4,
                                  .layer_s = 35e-6,
                                  .step_s = 5e-3,
                                  .tokens_half = 16};
}

static bool within(double value, double least, double most)
{
    return value >= least && value <= most; /* false for what is not a number */
}

bool ts_cost_measured(const struct ts_measured *m, struct ts_device_type *out)
{
    if (!within(m->memory_bytes, 1e6, 1e15) || !within(m->product_flops, 1e6, 1e18) ||
        !within(m->attention_flops, 1e5, 1e19) || !within(m->weight_bytes_per_s, 1e6, 1e15) ||
        !within(m->context_bytes_per_s, 1e5, 1e16) || !within(m->layer_s, 0, 1) ||
        !within(m->step_s, 0, 10) || !within(m->tokens_half, 0, 1e4))
        return false;
    out->memory_bytes = m->memory_bytes;
    out->memory_bytes_per_s = m->weight_bytes_per_s;
    out->flops = m->product_flops;
    out->fit = (struct ts_device_fit){.flops_efficiency = 1,
                                      .memory_efficiency = 1,
                                      .context_efficiency = m->context_bytes_per_s / m->weight_bytes_per_s,
                                      .attention_efficiency = m->attention_flops / m->product_flops,
                                      .layer_s = m->layer_s,
                                      .step_s = m->step_s,
                                      .tokens_half = m->tokens_half};
    return true;
}

double ts_cost_passes_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                        double tokens)
{
    /* Elements of a row that are read or written: two norms and a residual sum, rotation of queries and keys,
     * the MLP's activation. */
    double attention = ((double)model->heads / tp + kv_heads_of_rank(model, tp)) * model->head_dim;
    double mlp = (model->mlp_plain ? 2.0 : 3.0) * model->intermediate / tp;
    double bytes = tokens * (7.0 * model->hidden + 2 * attention + mlp) * ACTIVATION_BYTES;
    return bytes / (device->memory_bytes_per_s * device->fit.memory_efficiency);
}

double ts_cost_linear_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                        double tokens)
{
    double elements = layer_elements(model, tp);
    double bytes = elements * (double)ts_dtype_bytes(model->weight_dtype);
    return device->fit.layer_s + product_s(device, bytes, elements, tokens) +
           ts_cost_passes_s(device, model, tp, tokens);
}

double ts_cost_layer_prefill_s(const struct ts_device_type *device, const struct ts_model *model,
                               const struct ts_link *link, uint32_t tp, double tokens, double tokens_sq)
{
    /* Two products of s * s / 2 pairs (causal) for each head. */
    double flops = 2 * tokens_sq * model->heads / tp * model->head_dim;
    double core = flops / (device->flops * device->fit.attention_efficiency);
    double sums = tp > 1 ? 2 * ts_cost_allreduce_s(link, tp, ts_cost_hop_bytes(model, tokens)) : 0;
    return ts_cost_linear_s(device, model, tp, tokens) + core + sums;
}

/* The chord of ts_cost_allreduce_s over the messages of decode: affine, so that a step stays convex. */
static double small_allreduce_s(const struct ts_link *link, uint32_t tp, double bytes)
{
    if (link->bytes_per_s <= 0)
        return INFINITY;
    double none = ts_cost_allreduce_s(link, tp, 0), large = ts_cost_allreduce_s(link, tp, RAMP_BYTES);
    return none + (large - none) * bytes / RAMP_BYTES;
}

double ts_cost_layer_decode_s(const struct ts_device_type *device, const struct ts_model *model,
                              const struct ts_link *link, uint32_t tp, double batch, double context)
{
    double core = context * ts_cost_kv_layer_token_bytes(model, tp) /
                  (device->memory_bytes_per_s * device->fit.context_efficiency);
    double sums = tp > 1 ? 2 * small_allreduce_s(link, tp, ts_cost_hop_bytes(model, batch)) : 0;
    return ts_cost_linear_s(device, model, tp, batch) + core + sums;
}

double ts_cost_head_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                      double rows)
{
    double elements = (double)model->vocab * model->hidden / tp;
    /* Logits are written once and read twice in 32 bits: maximum, then sum or sample. */
    double logits =
        rows * model->vocab / tp * 12 / (device->memory_bytes_per_s * device->fit.memory_efficiency);
    return product_s(device, elements * (double)ts_dtype_bytes(model->weight_dtype), elements, rows) + logits;
}

double ts_cost_step_s(const struct ts_device_type *device)
{
    return device->fit.step_s;
}

double ts_cost_send_s(const struct ts_link *link, double bytes)
{
    return link->bytes_per_s > 0 ? link->latency_s + bytes / link->bytes_per_s : INFINITY;
}

/* Reduce-scatter, then all-gather: each rank moves a share of the message to every other one, twice. Large
 * messages go in pieces through a pipeline, which has to fill: the ramp. */
double ts_cost_allreduce_s(const struct ts_link *link, uint32_t tp, double bytes)
{
    if (tp <= 1)
        return 0;
    return 2 * ts_cost_send_s(link, bytes * (tp - 1) / tp) + RAMP_S * bytes / (bytes + RAMP_BYTES);
}

double ts_cost_hop_bytes(const struct ts_model *model, double tokens)
{
    return tokens * model->hidden * ACTIVATION_BYTES;
}

double ts_cost_layer_weight_bytes(const struct ts_model *model)
{
    double norms = 2.0 * model->hidden;
    return (layer_elements(model, 1) + norms) * (double)ts_dtype_bytes(model->weight_dtype);
}

double ts_cost_head_weight_bytes(const struct ts_model *model)
{
    double matrices = model->tied ? 1 : 2;
    return matrices * model->vocab * model->hidden * (double)ts_dtype_bytes(model->weight_dtype);
}

double ts_cost_stage_weight_bytes(const struct ts_model *model, bool first, bool last, uint32_t layers)
{
    double matrix = ts_cost_head_weight_bytes(model) / (model->tied ? 1 : 2);
    int matrices = first + last - (first && last && model->tied);
    return layers * ts_cost_layer_weight_bytes(model) + matrices * matrix;
}

double ts_cost_kv_layer_token_bytes(const struct ts_model *model, uint32_t tp)
{
    return 2 * kv_heads_of_rank(model, tp) * model->head_dim * (double)ts_dtype_bytes(model->kv_dtype);
}

double ts_cost_usable_bytes(const struct ts_device_type *device)
{
    return fmax(0, USABLE_SHARE * device->memory_bytes - RUNTIME_BYTES);
}

const char *ts_cost_codec_name(enum ts_cost_codec codec)
{
    switch (codec) {
    case TS_COST_CODEC_NONE:
        return "none";
    case TS_COST_CODEC_I4:
        return "i4";
    case TS_COST_CODEC_COUNT:
        break;
    }
    return "unknown";
}

double ts_cost_codec_ratio(enum ts_cost_codec codec, double prompt_tokens)
{
    struct ts_codec described;
    uint32_t tokens = prompt_tokens < UINT32_MAX ? (uint32_t)prompt_tokens : UINT32_MAX;
    if (prompt_tokens <= 0 || ts_codec_parse(ts_cost_codec_name(codec), &described, NULL) != TS_OK)
        return 1;
    described = ts_codec_for_prompt(&described, tokens);
    return ts_codec_bits(&described, HEAD_DIM) / 16;
}

double ts_cost_kv_visible_s(const struct ts_link *link, const struct ts_model *model, double bytes,
                            double prefill_s)
{
    double layers = model->layers;
    double last = ts_cost_send_s(link, bytes / layers);
    return fmax(last, ts_cost_send_s(link, bytes) - prefill_s * (layers - 1) / layers);
}
