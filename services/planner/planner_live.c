#include "services/planner/planner_live.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_eval.h"

/* Between workers of one host the KV moves through memory; between hosts nothing is known before the relays
 * have measured it: ordinary 10 Gbit/s Ethernet. */
static const struct ts_link same_host = {"host", 10e9, 20e-6}, other_host = {"10gbe", 1.25e9, 100e-6};

const struct ts_device_type planner_live_unknown = {
    .name = "unknown",
    .memory_bytes = 24e9,
    .memory_bytes_per_s = 600e9,
    .flops = 60e12,
    .fit = {.flops_efficiency = 0.6,
            .memory_efficiency = 0.75,
            .context_efficiency = 0.6,
            .attention_efficiency = 0.4,
            .layer_s = 2e-5,
            .step_s = 2e-3,
            .tokens_half = 64},
};

/* The usable workers of one model: a problem of its own. */
struct live_model {
    uint32_t *workers; /* indices into the snapshot; device i of the cluster is workers[i] */
    uint32_t count;
    struct ts_cluster *cluster; /* NULL: the workers do not state their shape */
    struct ts_model model;
    struct plan_problem problem;
    struct ts_plan *current;
    struct plan_search *search; /* NULL: the algorithm has refused; or it is done */
    struct ts_plan *plan;       /* over the workers as they are; NULL: equal shares */
    char words[200];
};

struct planner_live {
    const struct planner_live_inputs *inputs;
    const struct ts_msg_snapshot *snapshot;
    struct live_model *models;
    uint32_t model_count;
};

static bool usable(const struct ts_plan_worker *w)
{
    return w->ready && !w->draining;
}

static void copy_name(char *out, size_t size, struct ts_str name)
{
    size_t bytes = name.count < size - 1 ? name.count : size - 1;
    if (bytes)
        memcpy(out, name.data, bytes);
    out[bytes] = '\0';
}

static struct ts_device_type type_of(const struct planner_live_inputs *inputs, struct ts_str name)
{
    char text[TS_CLUSTER_NAME_BYTES];
    copy_name(text, sizeof text, name);
    const struct ts_device_type *type = inputs->device ? inputs->device(inputs->catalogue, text) : NULL;
    return type ? *type : planner_live_unknown;
}

static struct ts_model model_of(const struct ts_plan_worker *w)
{
    struct ts_model model = {.layers = w->layers,
                             .hidden = w->hidden,
                             .intermediate = w->intermediate,
                             .heads = w->heads,
                             .kv_heads = w->kv_heads,
                             .head_dim = w->head_dim,
                             .vocab = w->vocab,
                             .weight_dtype = TS_DTYPE_BF16,
                             .kv_dtype = w->kv_dtype ? (enum ts_dtype)w->kv_dtype : TS_DTYPE_BF16};
    copy_name(model.name, sizeof model.name, w->model);
    return model;
}

/* What it has loaded fits, whatever its catalogue entry says. */
static void widen_memory(struct ts_device_type *type, const struct ts_model *model, uint32_t kv_blocks)
{
    double loaded = model->layers * ts_cost_layer_weight_bytes(model) + ts_cost_head_weight_bytes(model) +
                    (double)kv_blocks * TS_KV_BLOCK_TOKENS * (double)ts_model_kv_token_bytes(model);
    if (ts_cost_usable_bytes(type) < loaded)
        type->memory_bytes = 1.2 * loaded + 4e9;
}

static void join(struct ts_cluster *cluster, const struct ts_msg_snapshot *snapshot,
                 const struct live_model *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        for (uint32_t j = 0; j < m->count; j++) {
            const struct ts_plan_worker *a = &snapshot->workers.data[m->workers[i]];
            const struct ts_plan_worker *b = &snapshot->workers.data[m->workers[j]];
            cluster->links[(size_t)i * m->count + j] =
                ts_str_equal(a->host, b->host) ? same_host : other_host;
        }
    }
}

static struct ts_cluster *cluster_of(const struct planner_live *live, const struct live_model *m)
{
    struct ts_cluster *cluster = ts_cluster_new(m->count, m->count, m->count);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct ts_plan_worker *w = &live->snapshot->workers.data[m->workers[i]];
        cluster->types[i] = type_of(live->inputs, w->device);
        widen_memory(&cluster->types[i], &m->model, w->kv_blocks);
        copy_name(cluster->nodes[i].name, sizeof cluster->nodes[i].name, w->id);
        cluster->nodes[i].nic_in_bytes_per_s = cluster->nodes[i].nic_out_bytes_per_s = same_host.bytes_per_s;
        cluster->gpus[i] = (struct ts_gpu){.type = (uint16_t)i, .node = (uint16_t)i, .alive = true};
    }
    join(cluster, live->snapshot, m);
    return cluster;
}

/* The workers as they are. A worker without a phase is left out. */
static struct ts_plan *current_of(const struct planner_live *live, const struct live_model *m)
{
    struct ts_plan *plan = ts_plan_new(m->count, 0);
    plan->group_count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        enum ts_phase phase = live->snapshot->workers.data[m->workers[i]].phase;
        if (phase != TS_PHASE_NONE)
            plan->groups[plan->group_count++] =
                (struct ts_group){.phase = phase,
                                  .stages = {{.gpus = {i}, .tp = 1, .layers = m->model.layers}},
                                  .stage_count = 1};
    }
    return plan;
}

static void open_model(struct planner_live *live, struct live_model *m)
{
    struct ts_error err = {0};
    m->model = model_of(&live->snapshot->workers.data[m->workers[0]]);
    if (m->model.layers == 0 || m->model.hidden == 0 || m->count > TS_CLUSTER_TYPES_MAX) {
        snprintf(m->words, sizeof m->words, "equal shares: %s",
                 m->model.layers && m->model.hidden ? "too many workers to model each one"
                                                    : "the workers do not state the shape of their model");
        return;
    }
    m->cluster = cluster_of(live, m);
    m->current = current_of(live, m);
    m->problem = plan_problem_defaults(m->cluster, &m->model, &live->inputs->demand);
    m->problem.objective = PLAN_GOODPUT;
    m->problem.max_stages = 1;
    m->problem.depth = PLAN_REROUTE;
    m->problem.current = m->current;
    m->problem.seed = live->inputs->seed;
    if (ts_cluster_seal(m->cluster, &err) != TS_OK || plan_problem_check(&m->problem, &err) != TS_OK) {
        snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
        ts_cluster_destroy(&m->cluster);
        return;
    }
    m->search = live->inputs->algorithm->open(&m->problem, &err);
    if (!m->search)
        snprintf(m->words, sizeof m->words, "phases as they are: %.170s", err.text);
}

static struct live_model *model_for(struct planner_live *live, struct ts_str name)
{
    const struct ts_plan_worker *all = live->snapshot->workers.data;
    for (uint32_t i = 0; i < live->model_count; i++) {
        if (ts_str_equal(all[live->models[i].workers[0]].model, name))
            return &live->models[i];
    }
    struct live_model *m = &live->models[live->model_count++];
    m->workers = ts_xcalloc(live->snapshot->workers.count, sizeof *m->workers);
    return m;
}

struct planner_live *planner_live_open(const struct planner_live_inputs *inputs,
                                       const struct ts_msg_snapshot *snapshot)
{
    struct planner_live *live = ts_xcalloc(1, sizeof *live);
    live->inputs = inputs;
    live->snapshot = snapshot;
    live->models = ts_xcalloc(snapshot->workers.count + 1, sizeof *live->models);
    for (uint32_t i = 0; i < snapshot->workers.count; i++) {
        if (!usable(&snapshot->workers.data[i]))
            continue;
        struct live_model *m = model_for(live, snapshot->workers.data[i].model);
        m->workers[m->count++] = i;
    }
    for (uint32_t i = 0; i < live->model_count; i++)
        open_model(live, &live->models[i]);
    return live;
}

/* Whether the plan is the workers as they are: each group one worker in the phase that it has. */
static bool keeps_workers(const struct planner_live *live, const struct live_model *m,
                          const struct ts_plan *plan)
{
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        if (group->stage_count != 1 || group->stages[0].tp != 1 ||
            live->snapshot->workers.data[m->workers[group->stages[0].gpus[0]]].phase != group->phase)
            return false;
    }
    return true;
}

/* The linear program over the workers as they are. */
static struct ts_plan *route_current(struct live_model *m)
{
    struct plan_shapes *shapes = plan_shapes_new(&m->problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct plan_state state;
    struct ts_plan *plan = NULL;
    struct ts_error err = {0};
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, m->current, &state, &err) == TS_OK)
        plan = plan_eval_plan(eval, &state, "re-route");
    else
        snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
    plan_state_fini(&state);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return plan;
}

static void settle(const struct planner_live *live, struct live_model *m)
{
    if (m->search) {
        m->plan = live->inputs->algorithm->best(m->search);
        live->inputs->algorithm->close(&m->search);
        if (m->plan && !keeps_workers(live, m, m->plan)) {
            ts_plan_destroy(&m->plan);
            snprintf(m->words, sizeof m->words, "phases as they are: %s would change phases or groups",
                     live->inputs->algorithm->name);
        }
    }
    if (!m->plan && m->cluster)
        m->plan = route_current(m);
    if (m->plan && !(m->plan->objective > 0)) {
        snprintf(m->words, sizeof m->words,
                 "equal shares: no request is expected within its deadlines (%.110s)", m->plan->limit);
        ts_plan_destroy(&m->plan);
    } else if (m->plan && !m->words[0]) {
        snprintf(m->words, sizeof m->words, "%s", m->plan->limit);
    }
}

bool planner_live_step(struct planner_live *live, uint64_t budget)
{
    for (uint32_t i = 0; i < live->model_count; i++) {
        struct live_model *m = &live->models[i];
        if (m->search && !live->inputs->algorithm->step(m->search, budget))
            return false;
        if (!m->plan)
            settle(live, m);
    }
    return true;
}

struct shares {
    struct ts_plan_share *items;
    uint32_t count;
};

static void add_share(struct shares *shares, uint32_t prefill, uint32_t decode, double share)
{
    for (uint32_t i = 0; i < shares->count; i++) {
        if (shares->items[i].prefill == prefill && shares->items[i].decode == decode) {
            shares->items[i].share += share;
            return;
        }
    }
    shares->items[shares->count++] =
        (struct ts_plan_share){.prefill = prefill, .decode = decode, .share = share};
}

/* Flows of all classes as shares of `weight`. No codec is named: that is for links whose speed is known. */
static void shares_of_plan(const struct live_model *m, double weight, struct shares *out)
{
    double total = 0;
    for (uint32_t f = 0; f < m->plan->flow_count; f++)
        total += m->plan->flows[f].rate;
    for (uint32_t f = 0; f < m->plan->flow_count; f++) {
        const struct ts_flow *flow = &m->plan->flows[f];
        uint32_t prefill = m->workers[m->plan->groups[flow->prefill].stages[0].gpus[0]];
        uint32_t decode = m->workers[m->plan->groups[flow->decode].stages[0].gpus[0]];
        if (flow->rate > 0)
            add_share(out, prefill, decode, weight * flow->rate / total);
    }
}

static void equal_shares(const struct planner_live *live, const struct live_model *m, double weight,
                         struct shares *out)
{
    const struct ts_plan_worker *all = live->snapshot->workers.data;
    uint32_t begin = out->count;
    for (uint32_t i = 0; i < m->count; i++) {
        for (uint32_t j = 0; j < m->count; j++) {
            if ((all[m->workers[i]].phase & TS_PHASE_PREFILL) && (all[m->workers[j]].phase & TS_PHASE_DECODE))
                out->items[out->count++] =
                    (struct ts_plan_share){.prefill = m->workers[i], .decode = m->workers[j]};
        }
    }
    for (uint32_t i = begin; i < out->count; i++)
        out->items[i].share = weight / (out->count - begin);
}

static double attained_share(const struct ts_plan *plan)
{
    double rate = 0, attained = 0;
    for (uint32_t f = 0; f < plan->flow_count; f++) {
        rate += plan->flows[f].rate;
        attained += plan->flows[f].attained;
    }
    return rate > 0 ? attained / rate : 0;
}

static bool has_pair(const struct planner_live *live, const struct live_model *m)
{
    uint32_t phases = 0;
    for (uint32_t i = 0; i < m->count; i++)
        phases |= live->snapshot->workers.data[m->workers[i]].phase;
    return phases == TS_PHASE_BOTH;
}

bool planner_live_best(struct planner_live *live, struct ts_arena *arena, struct ts_msg_plan *out)
{
    const struct ts_plan_workers *all = &live->snapshot->workers;
    struct ts_plan_replica *replicas = ts_arena_zalloc(arena, (all->count + 1) * sizeof *replicas);
    struct shares shares = {
        ts_arena_zalloc(arena, ((size_t)all->count * all->count + 1) * sizeof *shares.items), 0};
    uint32_t count = 0, workers = 0;
    for (uint32_t i = 0; i < live->model_count; i++)
        workers += has_pair(live, &live->models[i]) ? live->models[i].count : 0;
    out->binding = ts_str_of("");
    for (uint32_t i = 0; i < live->model_count; i++) {
        struct live_model *m = &live->models[i];
        double weight = (double)m->count / workers;
        if (!has_pair(live, m))
            continue;
        if (m->plan)
            shares_of_plan(m, weight, &shares);
        else
            equal_shares(live, m, weight, &shares);
        out->attainment += m->plan ? weight * attained_share(m->plan) : 0;
        out->binding =
            ts_str_of(ts_arena_printf(arena, "%.*s%s%s", (int)out->binding.count, out->binding.data,
                                      out->binding.count ? "; " : "", m->words));
    }
    for (uint32_t i = 0; i < all->count; i++) {
        if (usable(&all->data[i]))
            replicas[count++] =
                (struct ts_plan_replica){.id = i, .worker = all->data[i].id, .phase = all->data[i].phase};
    }
    out->replicas = (struct ts_plan_replicas){replicas, count};
    out->shares = (struct ts_plan_shares){shares.items, shares.count};
    return shares.count > 0;
}

void planner_live_close(struct planner_live **live)
{
    struct planner_live *l = *live;
    if (!l)
        return;
    for (uint32_t i = 0; i < l->model_count; i++) {
        struct live_model *m = &l->models[i];
        if (m->search)
            l->inputs->algorithm->close(&m->search);
        ts_plan_destroy(&m->plan);
        ts_plan_destroy(&m->current);
        ts_cluster_destroy(&m->cluster);
        ts_free(m->workers);
    }
    ts_free(l->models);
    ts_free(l);
    *live = NULL;
}
