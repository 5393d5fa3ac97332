#include <math.h>
#include <string.h>

#include "services/tsctl/tsctl_plan.h"

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

/* The flags, so that the inputs can be loaded again. */
static struct ts_json *inputs_json(const struct tsctl_plan_inputs *in)
{
    struct ts_json *out = ts_json_new_object();
    put_text(out, "cluster", in->cluster);
    put_text(out, "devices", in->devices);
    put_text(out, "model", in->model);
    put_text(out, "workload", in->workload);
    put_text(out, "slo", in->slo);
    put_text(out, "conf_dir", in->conf_dir);
    put_text(out, "objective", in->objective);
    put_text(out, "codec", in->codec);
    ts_json_put_number(out, "attainment", in->attainment);
    ts_json_put_number(out, "rate", in->rate);
    ts_json_put_number(out, "link_gbit", in->link_gbit);
    ts_json_put_number(out, "scale_lengths", in->scale_lengths);
    ts_json_put_bool(out, "no_colocate", in->no_colocate);
    ts_json_put_integer(out, "max_stages", in->max_stages);
    ts_json_put_number(out, "effort", in->effort);
    return out;
}

static struct ts_json *types_json(const struct ts_cluster *cluster)
{
    struct ts_json *out = ts_json_new_array();
    for (uint32_t t = 0; t < cluster->type_count; t++) {
        struct ts_json *type = ts_json_new_object();
        put_text(type, "name", cluster->types[t].name);
        ts_json_put_number(type, "memory_bytes", cluster->types[t].memory_bytes);
        ts_json_put_number(type, "price_per_hour", cluster->types[t].price_per_hour);
        ts_json_put(out, NULL, &type);
    }
    return out;
}

/* Devices of a node in the order of their places: runs of one type, and the places of dead ones. */
static struct ts_json *node_json(const struct ts_cluster *cluster, uint32_t node, uint32_t *gpu)
{
    struct ts_json *out = ts_json_new_object(), *runs = ts_json_new_array(), *dead = ts_json_new_array();
    uint32_t first = *gpu;
    put_text(out, "name", cluster->nodes[node].name);
    while (*gpu < cluster->gpu_count && cluster->gpus[*gpu].node == node) {
        uint16_t type = cluster->gpus[*gpu].type;
        struct ts_json *run = ts_json_new_object();
        uint32_t count = 0;
        for (; *gpu < cluster->gpu_count && cluster->gpus[*gpu].node == node &&
               cluster->gpus[*gpu].type == type;
             (*gpu)++, count++)
            if (!cluster->gpus[*gpu].alive)
                ts_json_put_integer(dead, NULL, *gpu - first);
        put_text(run, "type", cluster->types[type].name);
        ts_json_put_integer(run, "count", count);
        ts_json_put(runs, NULL, &run);
    }
    ts_json_put(out, "gpus", &runs);
    ts_json_put(out, "dead", &dead);
    return out;
}

static struct ts_json *nodes_json(const struct ts_cluster *cluster)
{
    struct ts_json *out = ts_json_new_array();
    for (uint32_t n = 0, gpu = 0; n < cluster->node_count; n++) {
        struct ts_json *node = node_json(cluster, n, &gpu);
        ts_json_put(out, NULL, &node);
    }
    return out;
}

static struct ts_json *model_json(const struct ts_model *model)
{
    struct ts_json *out = ts_json_new_object();
    ts_json_put_integer(out, "layers", model->layers);
    ts_json_put_integer(out, "hidden", model->hidden);
    ts_json_put_integer(out, "intermediate", model->intermediate);
    ts_json_put_integer(out, "heads", model->heads);
    ts_json_put_integer(out, "kv_heads", model->kv_heads);
    ts_json_put_integer(out, "head_dim", model->head_dim);
    ts_json_put_integer(out, "vocab", model->vocab);
    ts_json_put_bool(out, "mlp_plain", model->mlp_plain);
    ts_json_put_bool(out, "tied", model->tied);
    ts_json_put_integer(out, "weight_bytes_per_element", (int64_t)ts_dtype_bytes(model->weight_dtype));
    ts_json_put_integer(out, "kv_bytes_per_element", (int64_t)ts_dtype_bytes(model->kv_dtype));
    return out;
}

static struct ts_json *classes_json(const struct ts_demand *demand)
{
    struct ts_json *out = ts_json_new_array();
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *c = &demand->classes[k];
        struct ts_json *item = ts_json_new_object();
        ts_json_put_number(item, "rate", c->rate);
        ts_json_put_number(item, "prompt_tokens", c->prompt_tokens);
        ts_json_put_number(item, "prompt_tokens_sq", c->prompt_tokens_sq);
        ts_json_put_number(item, "prompt_begin", c->prompt_begin);
        ts_json_put_number(item, "prompt_end", c->prompt_end);
        ts_json_put_number(item, "output_tokens", c->output_tokens);
        ts_json_put_number(item, "output_tokens_sq", c->output_tokens_sq);
        ts_json_put_number(item, "ttft_s", c->ttft_s);
        ts_json_put_number(item, "tpot_s", c->tpot_s);
        ts_json_put_number(item, "e2e_s", c->e2e_s);
        ts_json_put(out, NULL, &item);
    }
    return out;
}

/* The devices of a replica in the order of its stages. */
static struct ts_json *gpus_json(const struct ts_cluster *cluster, const struct ts_group *group)
{
    struct ts_json *out = ts_json_new_array();
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t gpu = group->stages[s].gpus[i];
            struct ts_json *item = ts_json_new_object();
            put_text(item, "node", cluster->nodes[cluster->gpus[gpu].node].name);
            put_text(item, "type", tsctl_plan_type(cluster, gpu)->name);
            ts_json_put_integer(item, "index", tsctl_plan_place(cluster, gpu));
            ts_json_put(out, NULL, &item);
        }
    }
    return out;
}

static struct ts_json *replica_json(const struct tsctl_plan_doc *doc, uint32_t index)
{
    const struct ts_group *group = &doc->plan->groups[index];
    struct ts_json *out = ts_json_new_object(), *gpus = gpus_json(doc->cluster, group);
    struct ts_json *layers = ts_json_new_array(), *tps = ts_json_new_array(), *bytes = ts_json_new_array();
    char words[TSCTL_PLAN_WORDS];
    for (uint32_t s = 0; s < group->stage_count; s++) {
        ts_json_put_integer(layers, NULL, group->stages[s].layers);
        ts_json_put_integer(tps, NULL, group->stages[s].tp);
        ts_json_put_number(bytes, NULL, tsctl_plan_stage_bytes(doc->model, group, s));
    }
    ts_json_put_integer(out, "index", index);
    put_text(out, "phase", tsctl_plan_phase_name(group->phase));
    put_text(out, "type", tsctl_plan_gpus_words(doc, group, false, words));
    ts_json_put(out, "gpus", &gpus);
    ts_json_put_integer(out, "tp", tsctl_plan_group_tp(group));
    ts_json_put_integer(out, "pp", group->stage_count);
    ts_json_put(out, "layers", &layers);
    ts_json_put(out, "stage_tp", &tps);
    ts_json_put(out, "stage_weight_bytes_per_gpu", &bytes);
    ts_json_put_number(out, "rate", tsctl_plan_group_rate(doc->plan, index));
    ts_json_put_number(out, "price_per_hour", tsctl_plan_group_price(doc, index));
    return out;
}

static struct ts_json *flow_json(const struct tsctl_plan_doc *doc, const struct ts_flow *flow)
{
    struct ts_json *out = ts_json_new_object();
    ts_json_put_integer(out, "prefill", flow->prefill);
    ts_json_put_integer(out, "decode", flow->decode);
    ts_json_put_integer(out, "class", flow->length_class);
    ts_json_put_number(out, "rate", flow->rate);
    ts_json_put_number(out, "attained", flow->attained);
    put_text(out, "codec", ts_cost_codec_name(flow->codec));
    ts_json_put_number(out, "kv_bytes_per_request", tsctl_plan_flow_bytes(doc, flow, false));
    ts_json_put_number(out, "cross_node_kv_bytes_per_request", tsctl_plan_flow_bytes(doc, flow, true));
    return out;
}

static struct ts_json *attained_json(const struct tsctl_plan_doc *doc)
{
    struct ts_json *out = ts_json_new_object();
    ts_json_put_number(out, "ttft", doc->plan->attained_ttft);
    ts_json_put_number(out, "tpot", doc->plan->attained_tpot);
    ts_json_put_number(out, "e2e", doc->plan->attained_e2e);
    ts_json_put_number(out, "all", tsctl_plan_attained(doc));
    return out;
}

static void put_summary(struct ts_json *out, const struct tsctl_plan_doc *doc)
{
    const struct ts_plan *plan = doc->plan;
    double served = 0;
    for (uint32_t i = 0; i < plan->flow_count; i++)
        served += plan->flows[i].rate;
    struct ts_json *attained = attained_json(doc);
    ts_json_put_number(out, "objective", plan->objective);
    ts_json_put_number(out, "bound", plan->bound);
    ts_json_put_number(out, "gap", tsctl_plan_gap(plan));
    ts_json_put_number(out, "price_per_hour", plan->price_per_hour);
    put_text(out, "limit", plan->limit);
    put_text(out, "cluster", doc->cluster->name);
    put_text(out, "model", doc->model->name);
    put_text(out, "workload", doc->demand->name);
    put_text(out, "algorithm", plan->algorithm);
    ts_json_put_integer(out, "seed", (int64_t)doc->inputs.seed);
    ts_json_put_integer(out, "work", (int64_t)doc->work);
    ts_json_put_bool(out, "finished", doc->finished);
    ts_json_put_number(out, "rate", doc->plan->rate);
    ts_json_put_number(out, "served_rate", served);
    ts_json_put(out, "attained", &attained);
    ts_json_put_number(out, "cross_node_kv_bytes_per_request", tsctl_plan_crossing_bytes(doc));
}

struct ts_json *tsctl_plan_json(const struct tsctl_plan_doc *doc)
{
    struct ts_json *out = ts_json_new_object();
    struct ts_json *replicas = ts_json_new_array(), *flows = ts_json_new_array();
    struct ts_json *inputs = inputs_json(&doc->inputs), *types = types_json(doc->cluster);
    struct ts_json *nodes = nodes_json(doc->cluster), *model = model_json(doc->model);
    struct ts_json *classes = classes_json(doc->demand);
    put_summary(out, doc);
    for (uint32_t g = 0; g < doc->plan->group_count; g++) {
        struct ts_json *replica = replica_json(doc, g);
        ts_json_put(replicas, NULL, &replica);
    }
    for (uint32_t f = 0; f < doc->plan->flow_count; f++) {
        struct ts_json *flow = flow_json(doc, &doc->plan->flows[f]);
        ts_json_put(flows, NULL, &flow);
    }
    ts_json_put(out, "replicas", &replicas);
    ts_json_put(out, "flows", &flows);
    ts_json_put(out, "inputs", &inputs);
    ts_json_put(out, "types", &types);
    ts_json_put(out, "nodes", &nodes);
    ts_json_put(out, "model_shape", &model);
    ts_json_put(out, "classes", &classes);
    return out;
}
