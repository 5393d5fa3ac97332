#include "services/tsctl/tsctl_cost_predict.h"

#include <math.h>

/* Mean prompt of the Helix study, whose rows give the tokens of a batch only. */
#define HELIX_PROMPT_TOKENS 750.0

struct cost_stack cost_stack_none(void)
{
    return (struct cost_stack){.flops = 1, .memory = 1, .layer = 1, .attention = 1, .context = 1, .link = 1};
}

const char *cost_source_name(enum cost_source source)
{
    static const char *const names[] = {"kernels", "vidur", "helix", "splitwise", "nccl", "other"};
    return source < COST_SOURCE_COUNT ? names[source] : "unknown";
}

static struct ts_device_type under(const struct ts_device_type *device, const struct ts_model *model,
                                   const struct cost_stack *stack)
{
    struct ts_device_type out = *device;
    double share = (double)model->heads / model->kv_heads;
    out.fit.flops_efficiency *= stack->flops;
    out.fit.memory_efficiency *= stack->memory;
    out.fit.layer_s *= stack->layer;
    out.fit.attention_efficiency *= stack->attention;
    out.fit.context_efficiency *= stack->context / (1 + stack->group * (share - 1));
    out.peer.bytes_per_s *= stack->link;
    return out;
}

static double layer_s(const struct cost_row *row, const struct ts_model *model,
                      const struct ts_device_type *device)
{
    if (row->phase == COST_LINEAR)
        return ts_cost_linear_s(device, model, row->tp, row->batch * row->tokens);
    if (row->phase == COST_DECODE)
        return ts_cost_layer_decode_s(device, model, &device->peer, row->tp, row->batch,
                                      row->batch * row->tokens);
    double tokens = row->batch * row->tokens;
    double longest = row->source == COST_HELIX ? fmin(row->tokens, HELIX_PROMPT_TOKENS) : row->tokens;
    return ts_cost_layer_prefill_s(device, model, &device->peer, row->tp, tokens, tokens * longest);
}

static double collective_s(const struct cost_row *row, const struct ts_device_type *device,
                           const struct cost_links *links, const struct cost_stack *stack)
{
    struct ts_link link = row->link == COST_LINK_PCIE     ? links->pcie
                          : row->link == COST_LINK_FABRIC ? links->fabric
                                                          : device->peer;
    if (row->link == COST_LINK_FABRIC) /* two devices share an adapter */
        link.bytes_per_s *= fmax(1, row->tp_node / 2.0);
    return row->phase == COST_SEND_RECV ? stack->send_s + ts_cost_send_s(&link, row->bytes)
                                        : stack->call_s + ts_cost_allreduce_s(&link, row->tp, row->bytes);
}

double cost_predict(const struct cost_row *row, const struct ts_model *model,
                    const struct ts_device_type *device, const struct cost_links *links,
                    const struct cost_stack *stack)
{
    if (row->phase == COST_ALL_REDUCE || row->phase == COST_SEND_RECV)
        return collective_s(row, device, links, stack);
    struct ts_device_type as_run = under(device, model, stack);
    double seconds = layer_s(row, model, &as_run);
    if (stack->kernels_only)
        seconds -= ts_cost_passes_s(&as_run, model, row->tp,
                                    row->phase == COST_DECODE ? row->batch : row->batch * row->tokens);
    if (!row->whole)
        return seconds;
    /* Device and host work side by side: the slower one is seen, with a round corner between. */
    double layers = model->layers;
    double computes = layers * seconds + ts_cost_head_s(&as_run, model, row->tp, row->batch);
    double host = row->phase == COST_DECODE ? stack->host_decode : stack->host_prefill;
    double launches = layers * host * device->fit.layer_s;
    double most = fmax(computes, launches), share = fmin(computes, launches) / most;
    double fourth = share * share * share * share;
    return most * sqrt(sqrt(sqrt(1 + fourth * fourth)));
}
