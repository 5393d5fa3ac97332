#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan.h"

/* What a document that was read owns. */
struct owned {
    struct ts_cluster *cluster;
    struct ts_plan *plan;
    struct ts_model model;
    struct ts_demand demand;
    char *strings[8];
    uint32_t string_count;
};

static const double big = 1e300; /* any finite number */

static enum ts_status read_name(const struct ts_json *object, const char *key, char *out, size_t size,
                                struct ts_error *err)
{
    const char *text = NULL;
    size_t bytes = 0;
    if (ts_json_read_string(object, key, &text, &bytes, err) != TS_OK)
        return err->status;
    if (bytes >= size || strlen(text) != bytes)
        return ts_error_set(err, TS_EINVAL, "%s = \"%.60s\" is longer than %zu bytes", key, text, size - 1);
    memcpy(out, text, bytes + 1);
    return TS_OK;
}

static enum ts_status read_u32(const struct ts_json *object, const char *key, int64_t min, int64_t max,
                               uint32_t *out, struct ts_error *err)
{
    int64_t value = 0;
    enum ts_status status = ts_json_read_integer(object, key, min, max, &value, err);
    *out = (uint32_t)value;
    return status;
}

/* Finite, from 0 up. */
static enum ts_status read_amount(const struct ts_json *object, const char *key, double *out,
                                  struct ts_error *err)
{
    return ts_json_read_number(object, key, 0, big, out, err);
}

struct text_field {
    const char *key;
    const char **into;
};

static enum ts_status read_inputs(const struct ts_json *json, struct owned *own, struct tsctl_plan_inputs *in,
                                  struct ts_error *err)
{
    const struct text_field texts[] = {
        {"cluster", &in->cluster},     {"devices", &in->devices}, {"model", &in->model},
        {"workload", &in->workload},   {"slo", &in->slo},         {"conf_dir", &in->conf_dir},
        {"objective", &in->objective}, {"codec", &in->codec}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = NULL;
        if (ts_json_read_string(json, texts[i].key, &text, NULL, err) != TS_OK)
            return err->status;
        own->strings[own->string_count] = ts_xstrdup(text);
        *texts[i].into = own->strings[own->string_count++];
    }
    if (ts_json_read_number(json, "attainment", 0, 1, &in->attainment, err) != TS_OK ||
        read_amount(json, "rate", &in->rate, err) != TS_OK ||
        ts_json_read_number(json, "link_gbit", -1, big, &in->link_gbit, err) != TS_OK ||
        read_amount(json, "scale_lengths", &in->scale_lengths, err) != TS_OK ||
        ts_json_read_bool(json, "no_colocate", &in->no_colocate, err) != TS_OK ||
        read_amount(json, "effort", &in->effort, err) != TS_OK)
        return err->status;
    return read_u32(json, "max_stages", 0, TS_STAGES_MAX, &in->max_stages, err);
}

static enum ts_status find_type(const struct ts_cluster *cluster, const struct ts_json *object, uint32_t *out,
                                struct ts_error *err)
{
    char name[TS_CLUSTER_NAME_BYTES];
    if (read_name(object, "type", name, sizeof name, err) != TS_OK)
        return err->status;
    for (*out = 0; *out < cluster->type_count; (*out)++)
        if (strcmp(cluster->types[*out].name, name) == 0)
            return TS_OK;
    return ts_error_set(err, TS_EINVAL, "type \"%s\" is not in types", name);
}

static enum ts_status read_types(const struct ts_json *json, struct ts_cluster *cluster, struct ts_error *err)
{
    for (uint32_t t = 0; t < cluster->type_count; t++) {
        const struct ts_json *item = ts_json_at(json, t);
        struct ts_device_type *type = &cluster->types[t];
        if (read_name(item, "name", type->name, sizeof type->name, err) != TS_OK ||
            read_amount(item, "memory_bytes", &type->memory_bytes, err) != TS_OK ||
            read_amount(item, "price_per_hour", &type->price_per_hour, err) != TS_OK)
            return ts_error_prefix(err, "types[%u]", t);
    }
    return TS_OK;
}

/* The sum of all counts of nodes[].gpus[]; wrong ones are found when they are read one by one. */
static size_t count_gpus(const struct ts_json *nodes)
{
    size_t sum = 0;
    for (size_t n = 0; n < ts_json_count(nodes); n++) {
        const struct ts_json *runs = ts_json_get(ts_json_at(nodes, n), "gpus");
        for (size_t r = 0; r < ts_json_count(runs); r++) {
            int64_t count = 0;
            if (ts_json_integer(ts_json_get(ts_json_at(runs, r), "count"), &count) && count > 0 &&
                count <= TS_CLUSTER_GPUS_MAX)
                sum += (size_t)count;
        }
    }
    return sum;
}

static enum ts_status read_node(const struct ts_json *item, uint32_t node, uint32_t *gpu,
                                struct ts_cluster *cluster, struct ts_error *err)
{
    const struct ts_json *runs = ts_json_get(item, "gpus"), *dead = ts_json_get(item, "dead");
    uint32_t first = *gpu;
    struct ts_node *into = &cluster->nodes[node];
    if (read_name(item, "name", into->name, sizeof into->name, err) != TS_OK)
        return err->status;
    for (size_t r = 0; r < ts_json_count(runs); r++) {
        uint32_t type = 0, count = 0;
        if (find_type(cluster, ts_json_at(runs, r), &type, err) != TS_OK ||
            read_u32(ts_json_at(runs, r), "count", 1, TS_CLUSTER_GPUS_MAX, &count, err) != TS_OK)
            return ts_error_prefix(err, "gpus[%zu]", r);
        for (uint32_t i = 0; i < count; i++)
            cluster->gpus[(*gpu)++] =
                (struct ts_gpu){.type = (uint16_t)type, .node = (uint16_t)node, .alive = true};
    }
    for (size_t d = 0; d < ts_json_count(dead); d++) {
        int64_t place = -1;
        if (!ts_json_integer(ts_json_at(dead, d), &place) || place < 0 || place >= *gpu - first)
            return ts_error_set(err, TS_EINVAL, "dead[%zu] is not the place of a device of this node", d);
        cluster->gpus[first + place].alive = false;
    }
    return TS_OK;
}

static enum ts_status read_cluster(const struct ts_json *json, struct owned *own, struct ts_error *err)
{
    const struct ts_json *types = ts_json_get(json, "types"), *nodes = ts_json_get(json, "nodes");
    size_t gpus = count_gpus(nodes), type_count = ts_json_count(types), node_count = ts_json_count(nodes);
    if (type_count == 0 || type_count > TS_CLUSTER_TYPES_MAX || node_count == 0 ||
        node_count > TS_CLUSTER_NODES_MAX || gpus == 0 || gpus > TS_CLUSTER_GPUS_MAX)
        return ts_error_set(
            err, TS_EINVAL,
            "types, nodes and their gpus: %zu, %zu and %zu of them; expected 1 to %d, %d and %d", type_count,
            node_count, gpus, TS_CLUSTER_TYPES_MAX, TS_CLUSTER_NODES_MAX, TS_CLUSTER_GPUS_MAX);
    own->cluster = ts_cluster_new((uint32_t)type_count, (uint32_t)node_count, (uint32_t)gpus);
    if (read_name(json, "cluster", own->cluster->name, sizeof own->cluster->name, err) != TS_OK ||
        read_types(types, own->cluster, err) != TS_OK)
        return err->status;
    for (uint32_t n = 0, gpu = 0; n < node_count; n++)
        if (read_node(ts_json_at(nodes, n), n, &gpu, own->cluster, err) != TS_OK)
            return ts_error_prefix(err, "nodes[%u]", n);
    return TS_OK;
}

static enum ts_status read_dtype(const struct ts_json *json, const char *key, enum ts_dtype *out,
                                 struct ts_error *err)
{
    uint32_t bytes = 0;
    if (read_u32(json, key, 2, 4, &bytes, err) != TS_OK)
        return err->status;
    *out = bytes == 4 ? TS_DTYPE_F32 : TS_DTYPE_F16;
    return TS_OK;
}

static enum ts_status read_model(const struct ts_json *root, struct ts_model *model, struct ts_error *err)
{
    const struct ts_json *json = ts_json_get(root, "model_shape");
    const struct {
        const char *key;
        uint32_t *into;
        int64_t max;
    } numbers[] = {{"layers", &model->layers, TS_MODEL_LAYERS_MAX},
                   {"hidden", &model->hidden, 1 << 20},
                   {"intermediate", &model->intermediate, 1 << 24},
                   {"heads", &model->heads, 1 << 16},
                   {"kv_heads", &model->kv_heads, 1 << 16},
                   {"head_dim", &model->head_dim, 1 << 16},
                   {"vocab", &model->vocab, 1 << 24}};
    if (read_name(root, "model", model->name, sizeof model->name, err) != TS_OK)
        return err->status;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (read_u32(json, numbers[i].key, 1, numbers[i].max, numbers[i].into, err) != TS_OK)
            return ts_error_prefix(err, "model_shape");
    if (ts_json_read_bool(json, "mlp_plain", &model->mlp_plain, err) != TS_OK ||
        ts_json_read_bool(json, "tied", &model->tied, err) != TS_OK ||
        read_dtype(json, "weight_bytes_per_element", &model->weight_dtype, err) != TS_OK ||
        read_dtype(json, "kv_bytes_per_element", &model->kv_dtype, err) != TS_OK)
        return ts_error_prefix(err, "model_shape");
    return TS_OK;
}

static enum ts_status read_class(const struct ts_json *json, struct ts_class *c, struct ts_error *err)
{
    const struct {
        const char *key;
        double *into;
    } numbers[] = {{"rate", &c->rate},
                   {"prompt_tokens", &c->prompt_tokens},
                   {"prompt_tokens_sq", &c->prompt_tokens_sq},
                   {"output_tokens", &c->output_tokens},
                   {"output_tokens_sq", &c->output_tokens_sq},
                   {"ttft_s", &c->ttft_s},
                   {"tpot_s", &c->tpot_s},
                   {"e2e_s", &c->e2e_s}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (read_amount(json, numbers[i].key, numbers[i].into, err) != TS_OK)
            return err->status;
    if (!ts_json_get(json, "prompt_end")) /* a file of before there were ranges */
        return TS_OK;
    enum ts_status status = read_amount(json, "prompt_begin", &c->prompt_begin, err);
    return status == TS_OK ? read_amount(json, "prompt_end", &c->prompt_end, err) : status;
}

static enum ts_status read_demand(const struct ts_json *root, struct ts_demand *demand, struct ts_error *err)
{
    const struct ts_json *json = ts_json_get(root, "classes");
    size_t count = ts_json_count(json);
    if (count == 0 || count > TS_CLASSES_MAX)
        return ts_error_set(err, TS_EINVAL, "classes: %zu of them; expected 1 to %d", count, TS_CLASSES_MAX);
    demand->class_count = (uint32_t)count;
    demand->burst = 1;
    for (uint32_t k = 0; k < count; k++)
        if (read_class(ts_json_at(json, k), &demand->classes[k], err) != TS_OK)
            return ts_error_prefix(err, "classes[%u]", k);
    return read_name(root, "workload", demand->name, sizeof demand->name, err);
}

/* The device with this name, type and place; cluster->gpu_count when there is none. */
static uint32_t find_gpu(const struct ts_cluster *cluster, const char *node, const char *type, uint32_t place)
{
    for (uint32_t g = 0; g < cluster->gpu_count; g++) {
        if (strcmp(cluster->nodes[cluster->gpus[g].node].name, node) != 0)
            continue;
        g += place; /* devices of a node stand together */
        if (g < cluster->gpu_count && strcmp(cluster->nodes[cluster->gpus[g].node].name, node) == 0 &&
            strcmp(tsctl_plan_type(cluster, g)->name, type) == 0)
            return g;
        break;
    }
    return cluster->gpu_count;
}

static enum ts_status read_gpu(const struct ts_json *item, const struct ts_cluster *cluster, uint32_t *out,
                               struct ts_error *err)
{
    char node[TS_CLUSTER_NAME_BYTES], type[TS_CLUSTER_NAME_BYTES];
    uint32_t place = 0;
    if (read_name(item, "node", node, sizeof node, err) != TS_OK ||
        read_name(item, "type", type, sizeof type, err) != TS_OK ||
        read_u32(item, "index", 0, TS_CLUSTER_GPUS_MAX, &place, err) != TS_OK)
        return err->status;
    *out = find_gpu(cluster, node, type, place);
    if (*out == cluster->gpu_count)
        return ts_error_set(err, TS_EINVAL, "node \"%s\" has no %s at place %u", node, type, place);
    return TS_OK;
}

static enum ts_status read_phase(const struct ts_json *item, enum ts_phase *out, struct ts_error *err)
{
    char name[16];
    if (read_name(item, "phase", name, sizeof name, err) != TS_OK)
        return err->status;
    for (*out = TS_PHASE_PREFILL; *out <= TS_PHASE_BOTH; (*out)++)
        if (strcmp(name, tsctl_plan_phase_name(*out)) == 0)
            return TS_OK;
    return ts_error_set(err, TS_EINVAL, "phase = \"%s\": expected prefill, decode or both", name);
}

/* `stage_tp` may be absent: then every stage has `tp`. */
static enum ts_status read_stages(const struct ts_json *item, struct ts_group *group, struct ts_error *err)
{
    const struct ts_json *layers = ts_json_get(item, "layers"), *tps = ts_json_get(item, "stage_tp");
    size_t count = ts_json_count(layers);
    uint32_t tp = 0;
    if (read_u32(item, "tp", 1, TS_TP_MAX, &tp, err) != TS_OK)
        return err->status;
    if (count == 0 || count > TS_STAGES_MAX || (tps && ts_json_count(tps) != count))
        return ts_error_set(err, TS_EINVAL, "layers: %zu stages; expected 1 to %d, as many as stage_tp has",
                            count, TS_STAGES_MAX);
    group->stage_count = (uint32_t)count;
    for (size_t s = 0; s < count; s++) {
        int64_t number = 0, own_tp = tp;
        if (!ts_json_integer(ts_json_at(layers, s), &number) || number < 1 || number > TS_MODEL_LAYERS_MAX ||
            (tps && !ts_json_integer(ts_json_at(tps, s), &own_tp)) || own_tp < 1 || own_tp > TS_TP_MAX)
            return ts_error_set(err, TS_EINVAL, "stage %zu: layers or stage_tp is out of range", s);
        group->stages[s].layers = (uint32_t)number;
        group->stages[s].tp = (uint32_t)own_tp;
    }
    return TS_OK;
}

static enum ts_status read_replica(const struct ts_json *item, const struct ts_cluster *cluster,
                                   struct ts_group *group, struct ts_error *err)
{
    const struct ts_json *gpus = ts_json_get(item, "gpus");
    uint32_t at = 0;
    if (read_phase(item, &group->phase, err) != TS_OK || read_stages(item, group, err) != TS_OK)
        return err->status;
    if (ts_json_count(gpus) != ts_group_gpus(group))
        return ts_error_set(err, TS_EINVAL, "gpus: %zu devices; its stages need %u", ts_json_count(gpus),
                            ts_group_gpus(group));
    for (uint32_t s = 0; s < group->stage_count; s++)
        for (uint32_t i = 0; i < group->stages[s].tp; i++, at++)
            if (read_gpu(ts_json_at(gpus, at), cluster, &group->stages[s].gpus[i], err) != TS_OK)
                return ts_error_prefix(err, "gpus[%u]", at);
    return TS_OK;
}

static enum ts_status read_flow(const struct ts_json *item, uint32_t groups, uint32_t classes,
                                struct ts_flow *flow, struct ts_error *err)
{
    char codec[16];
    if (read_u32(item, "prefill", 0, (int64_t)groups - 1, &flow->prefill, err) != TS_OK ||
        read_u32(item, "decode", 0, (int64_t)groups - 1, &flow->decode, err) != TS_OK ||
        read_u32(item, "class", 0, (int64_t)classes - 1, &flow->length_class, err) != TS_OK ||
        read_amount(item, "rate", &flow->rate, err) != TS_OK ||
        read_amount(item, "attained", &flow->attained, err) != TS_OK ||
        read_name(item, "codec", codec, sizeof codec, err) != TS_OK)
        return err->status;
    for (flow->codec = 0; flow->codec < TS_COST_CODEC_COUNT; flow->codec++)
        if (strcmp(codec, ts_cost_codec_name(flow->codec)) == 0)
            return TS_OK;
    return ts_error_set(err, TS_EINVAL, "codec = \"%s\" is unknown", codec);
}

static enum ts_status read_summary(const struct ts_json *root, struct tsctl_plan_doc *doc,
                                   struct ts_plan *plan, struct ts_error *err)
{
    const struct ts_json *attained = ts_json_get(root, "attained");
    int64_t seed = 0, work = 0;
    if (read_amount(root, "objective", &plan->objective, err) != TS_OK ||
        read_amount(root, "price_per_hour", &plan->price_per_hour, err) != TS_OK ||
        read_name(root, "limit", plan->limit, sizeof plan->limit, err) != TS_OK ||
        read_name(root, "algorithm", plan->algorithm, sizeof plan->algorithm, err) != TS_OK ||
        read_amount(attained, "ttft", &plan->attained_ttft, err) != TS_OK ||
        read_amount(attained, "tpot", &plan->attained_tpot, err) != TS_OK ||
        read_amount(attained, "e2e", &plan->attained_e2e, err) != TS_OK ||
        read_amount(attained, "all", &plan->attained_all, err) != TS_OK ||
        read_amount(root, "rate", &plan->rate, err) != TS_OK ||
        ts_json_read_integer(root, "seed", 0, INT64_MAX, &seed, err) != TS_OK ||
        ts_json_read_integer(root, "work", 0, INT64_MAX, &work, err) != TS_OK ||
        ts_json_read_bool(root, "finished", &doc->finished, err) != TS_OK)
        return err->status;
    if (!ts_json_number(ts_json_get(root, "bound"), &plan->bound))
        plan->bound = NAN;
    doc->inputs.seed = (uint64_t)seed;
    doc->work = (uint64_t)work;
    return TS_OK;
}

static enum ts_status read_plan(const struct ts_json *root, struct owned *own, struct tsctl_plan_doc *doc,
                                struct ts_error *err)
{
    const struct ts_json *replicas = ts_json_get(root, "replicas"), *flows = ts_json_get(root, "flows");
    size_t group_count = ts_json_count(replicas), flow_count = ts_json_count(flows);
    if (group_count > own->cluster->gpu_count)
        return ts_error_set(err, TS_EINVAL, "replicas: %zu of them; there are %u devices", group_count,
                            own->cluster->gpu_count);
    own->plan = ts_plan_new((uint32_t)group_count, (uint32_t)flow_count);
    for (uint32_t g = 0; g < group_count; g++)
        if (read_replica(ts_json_at(replicas, g), own->cluster, &own->plan->groups[g], err) != TS_OK)
            return ts_error_prefix(err, "replicas[%u]", g);
    for (uint32_t f = 0; f < flow_count; f++)
        if (read_flow(ts_json_at(flows, f), (uint32_t)group_count, own->demand.class_count,
                      &own->plan->flows[f], err) != TS_OK)
            return ts_error_prefix(err, "flows[%u]", f);
    return read_summary(root, doc, own->plan, err);
}

enum ts_status tsctl_plan_parse(const struct ts_json *json, struct tsctl_plan_doc **out, struct ts_error *err)
{
    struct ts_error own_err = {0};
    struct tsctl_plan_doc *doc = ts_xcalloc(1, sizeof *doc);
    struct owned *own = doc->owned = ts_xcalloc(1, sizeof *own);
    enum ts_status status;
    err = err ? err : &own_err;
    if (!ts_json_get(json, "replicas"))
        status = ts_error_set(err, TS_EINVAL, "no \"replicas\": it is no plan; tsctl plan --json prints one");
    else if ((status = read_inputs(ts_json_get(json, "inputs"), own, &doc->inputs, err)) != TS_OK)
        ts_error_prefix(err, "inputs");
    else if ((status = read_cluster(json, own, err)) == TS_OK &&
             (status = read_model(json, &own->model, err)) == TS_OK &&
             (status = read_demand(json, &own->demand, err)) == TS_OK &&
             (status = read_plan(json, own, doc, err)) == TS_OK)
        status = ts_plan_check(own->plan, own->cluster, &own->model, &own->demand, err);
    doc->cluster = own->cluster;
    doc->model = &own->model;
    doc->demand = &own->demand;
    doc->plan = own->plan;
    if (status != TS_OK)
        tsctl_plan_doc_destroy(&doc);
    *out = doc;
    return status;
}

enum ts_status tsctl_plan_read(const char *path, struct tsctl_plan_doc **out, struct ts_error *err)
{
    struct ts_json *root = NULL;
    enum ts_status status = ts_json_load(path, &root, err);
    *out = NULL;
    if (status != TS_OK)
        return status;
    status = tsctl_plan_parse(root, out, err);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", path);
    ts_json_destroy(&root);
    return status;
}

void tsctl_plan_doc_destroy(struct tsctl_plan_doc **doc)
{
    if (!*doc)
        return;
    struct owned *own = (*doc)->owned;
    ts_cluster_destroy(&own->cluster);
    ts_plan_destroy(&own->plan);
    for (uint32_t i = 0; i < own->string_count; i++)
        ts_free(own->strings[i]);
    ts_free(own);
    ts_free(*doc);
    *doc = NULL;
}

uint32_t tsctl_plan_same_gpu(const struct ts_cluster *from, uint32_t gpu, const struct ts_cluster *to)
{
    return find_gpu(to, from->nodes[from->gpus[gpu].node].name, tsctl_plan_type(from, gpu)->name,
                    tsctl_plan_place(from, gpu));
}

/* False when a device is gone or dead. */
static bool bind_group(const struct tsctl_plan_doc *doc, const struct ts_cluster *cluster,
                       struct ts_group *group)
{
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t old = group->stages[s].gpus[i];
            uint32_t gpu =
                find_gpu(cluster, doc->cluster->nodes[doc->cluster->gpus[old].node].name,
                         tsctl_plan_type(doc->cluster, old)->name, tsctl_plan_place(doc->cluster, old));
            if (gpu == cluster->gpu_count || !cluster->gpus[gpu].alive)
                return false;
            group->stages[s].gpus[i] = gpu;
        }
    }
    return true;
}

enum ts_status tsctl_plan_bind(const struct tsctl_plan_doc *doc, const struct ts_cluster *cluster,
                               struct ts_plan **out, uint32_t *lost, struct ts_error *err)
{
    const struct ts_plan *from = doc->plan;
    struct ts_plan *plan = ts_plan_new(from->group_count, from->flow_count);
    uint32_t *place = ts_xcalloc(from->group_count + 1, sizeof *place), groups = 0, flows = 0;
    for (uint32_t g = 0; g < from->group_count; g++) {
        plan->groups[groups] = from->groups[g];
        place[g] = bind_group(doc, cluster, &plan->groups[groups]) ? groups++ : UINT32_MAX;
    }
    for (uint32_t f = 0; f < from->flow_count; f++) {
        struct ts_flow flow = from->flows[f];
        flow.prefill = place[flow.prefill];
        flow.decode = place[flow.decode];
        if (flow.prefill != UINT32_MAX && flow.decode != UINT32_MAX)
            plan->flows[flows++] = flow;
    }
    ts_free(place);
    struct ts_group *kept_groups = plan->groups;
    struct ts_flow *kept_flows = plan->flows;
    *plan = *from; /* what it was worth before the loss */
    plan->groups = kept_groups;
    plan->flows = kept_flows;
    plan->group_count = groups;
    plan->flow_count = flows;
    if (lost)
        *lost = from->group_count - groups;
    if (groups == 0) {
        ts_plan_destroy(&plan);
        return ts_error_set(
            err, TS_EINVAL,
            "none of the %u replicas of the plan stands on live devices of cluster \"%s\": is "
            "it a plan of this cluster?",
            from->group_count, cluster->name);
    }
    *out = plan;
    return TS_OK;
}
