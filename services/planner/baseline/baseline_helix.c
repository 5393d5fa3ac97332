/*
 * `helix`: Mei et al., "Helix: Serving Large Language Models over Heterogeneous GPUs and Network via
 * Max-Flow", ASPLOS 2025. Modelled: machines with TP inside hold consecutive layers; the throughput of a
 * placement is a maximum flow over machines (rates by layers held) and links (activations); the placement
 * comes from mixed-integer programming (section 4) on small clusters, and from the heuristics that the
 * paper starts its solver with on larger ones: even stages over all machines (Swarm) and separate pipelines
 * for each type of device. No phases.
 *
 * Helix gives each request a pipeline of its own through the flow graph (section 5), so a machine serves
 * several predecessors and successors. Our replicas are fixed chains of stages: the flow is cut into chains,
 * the widest path first, each machine in one chain, and requests are shared out by the chains' rates. What
 * that loses is in the line of describe: the chains' rates together against the flow value. Left out: partial
 * inference (a machine that computes only some of the layers it holds) and the Petals start.
 */
#include "services/planner/baseline/baseline_helix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define EXACT_UNITS       4 /* machines, for the mixed-integer program */
#define EXACT_BLOCKS      6
#define EXACT_BLOCKS_FULL 4   /* with that many machines */
#define EXACT_SECONDS     600 /* far from what the above takes; past it the heuristics answer alone */
#define BATCH_MAX         256

struct unit { /* a machine: devices of one cell with TP among all of them */
    uint32_t cell, tp;
    uint32_t gpus[TS_TP_MAX];
};

enum step { STEP_EXACT, STEP_STAGES, STEP_TYPES, STEP_CHAINS };

struct plan_search {
    struct baseline base;
    struct unit *units;
    struct helix_problem place; /* blocks are layers */
    double *rate, *link;
    uint32_t *words;                      /* of the two placements */
    struct helix_placement trial, chosen; /* `chosen` has the greatest flow */
    double flow, chains;                  /* of `chosen`; of the chains cut so far */
    enum step step;
    uint32_t next; /* stages or type of the step */
    double *chain_rate;
    bool exact;
};

/* Requests/s of a machine that holds `layers`, by the cost model: prefill of each request alone, decode at
 * the batch that the memory left allows. */
static double unit_rate(const struct plan_problem *problem, const struct unit *unit, uint32_t layers)
{
    const struct ts_cell *cell = &problem->cluster->cells[unit->cell];
    const struct ts_device_type *type = &problem->cluster->types[cell->type];
    const struct ts_link *link = ts_cluster_inner(problem->cluster, cell->node, cell->type);
    const struct ts_model *model = problem->model;
    double prefill = 0, context = 0, tokens = 0, total = ts_demand_rate(problem->demand);
    for (uint32_t k = 0; k < problem->demand->class_count; k++) {
        const struct ts_class *c = &problem->demand->classes[k];
        double share = c->rate / total;
        prefill += share * ts_cost_layer_prefill_s(type, model, link, unit->tp, c->prompt_tokens,
                                                   c->prompt_tokens_sq);
        context += share * c->output_tokens * (c->prompt_tokens + c->output_tokens / 2);
        tokens += share * c->output_tokens;
    }
    context /= fmax(tokens, 1e-9); /* of a sequence in decode, on average over steps */
    double weights =
        (layers * ts_cost_layer_weight_bytes(model) + ts_cost_head_weight_bytes(model)) / unit->tp;
    double each = layers * fmax(context, 1) * ts_cost_kv_layer_token_bytes(model, unit->tp);
    double batch = floor(fmin(BATCH_MAX, (ts_cost_usable_bytes(type) - weights) / each));
    if (batch < 1)
        return 0;
    double step = layers * ts_cost_layer_decode_s(type, model, link, unit->tp, batch, batch * context) +
                  ts_cost_step_s(type);
    return 1 / (layers * prefill + ts_cost_step_s(type) + tokens * step / batch);
}

/* Each cell becomes machines of the largest TP that the model allows. */
static uint32_t make_units(const struct plan_problem *problem, struct unit *units)
{
    const struct ts_cluster *cluster = problem->cluster;
    uint32_t count = 0, gpu = 0;
    for (uint32_t cell = 0; cell < cluster->cell_count; cell++) {
        uint32_t left = cluster->cells[cell].count;
        while (left > 0) {
            struct unit unit = {.cell = cell, .tp = 1};
            while (unit.tp * 2 <= left && unit.tp * 2 <= TS_TP_MAX &&
                   problem->model->heads % (unit.tp * 2) == 0)
                unit.tp *= 2;
            for (uint32_t i = 0; i < unit.tp; gpu++) {
                if (cluster->gpus[gpu].alive)
                    unit.gpus[i++] = gpu;
            }
            left -= unit.tp;
            units[count++] = unit;
        }
    }
    return count;
}

static double mean_hop_bytes(const struct plan_problem *problem)
{
    double tokens = 0;
    for (uint32_t k = 0; k < problem->demand->class_count; k++) {
        const struct ts_class *c = &problem->demand->classes[k];
        tokens += c->rate * (c->prompt_tokens + c->output_tokens);
    }
    return fmax(1, ts_cost_hop_bytes(problem->model, tokens / ts_demand_rate(problem->demand)));
}

static double unit_link(const struct plan_problem *problem, const struct unit *a, const struct unit *b)
{
    const struct ts_cell *from = &problem->cluster->cells[a->cell], *to = &problem->cluster->cells[b->cell];
    if (from->node == to->node)
        return ts_cluster_inner(problem->cluster, from->node, from->type)->bytes_per_s;
    return ts_cluster_link(problem->cluster, from->node, to->node)->bytes_per_s;
}

static struct plan_search *helix_open_on(struct plan_search *search)
{
    const struct plan_problem *problem = search->base.problem;
    const uint32_t layers = problem->model->layers;
    search->units = ts_xcalloc(problem->cluster->gpu_count + 1, sizeof *search->units);
    const uint32_t n = make_units(problem, search->units);
    search->rate = ts_xcalloc((size_t)n * (layers + 1) + 1, sizeof *search->rate);
    search->link = ts_xcalloc((size_t)n * n + 1, sizeof *search->link);
    double bytes = mean_hop_bytes(problem);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t held = 1; held <= layers; held++)
            search->rate[(size_t)i * (layers + 1) + held] = unit_rate(problem, &search->units[i], held);
        for (uint32_t j = 0; j < n; j++)
            search->link[(size_t)i * n + j] =
                unit_link(problem, &search->units[i], &search->units[j]) / bytes;
    }
    search->place = (struct helix_problem){n, layers, search->rate, search->link};
    search->words = ts_xcalloc((size_t)n * 4 + 1, sizeof *search->words);
    search->trial = (struct helix_placement){search->words, search->words + n};
    search->chosen = (struct helix_placement){search->words + 2 * (size_t)n, search->words + 3 * (size_t)n};
    search->chain_rate = ts_xcalloc(n + 1, sizeof *search->chain_rate);
    return search;
}

static void choose_trial(struct plan_search *search, double flow)
{
    const size_t bytes = search->place.units * sizeof(uint32_t);
    if (flow <= search->flow * (1 + 1e-9))
        return;
    search->flow = flow;
    memcpy(search->chosen.begin, search->trial.begin, bytes);
    memcpy(search->chosen.end, search->trial.end, bytes);
}

/* The program over blocks of several layers. */
static void try_exact(struct plan_search *search)
{
    const uint32_t n = search->place.units, layers = search->place.blocks;
    const uint32_t blocks = n < EXACT_UNITS ? EXACT_BLOCKS : EXACT_BLOCKS_FULL;
    double rate[EXACT_UNITS * (EXACT_BLOCKS + 1)], flow;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t held = 0; held <= blocks; held++) /* layers rounded up: no run is longer */
            rate[i * (blocks + 1) + held] =
                search->rate[(size_t)i * (layers + 1) + (held * layers + blocks - 1) / blocks];
    }
    struct helix_problem coarse = {n, blocks, rate, search->link};
    if (helix_exact(&coarse, EXACT_SECONDS, &search->trial, &flow, NULL) != TS_OK)
        return;
    for (uint32_t i = 0; i < n; i++) {
        search->trial.begin[i] = search->trial.begin[i] * layers / blocks;
        search->trial.end[i] = search->trial.end[i] * layers / blocks;
    }
    choose_trial(search, helix_flow(&search->place, &search->trial));
    search->exact = true;
}

/* The pipelines of one type that raise the flow most beside those of the types before it. */
static void try_type(struct plan_search *search, uint32_t type, uint32_t stages_max)
{
    const struct ts_cluster *cluster = search->base.problem->cluster;
    const uint32_t n = search->place.units;
    bool *member = ts_xcalloc(n + 1, sizeof *member);
    uint32_t best = 0;
    double best_flow = 0;
    for (uint32_t i = 0; i < n; i++)
        member[i] = cluster->cells[search->units[i].cell].type == type;
    for (uint32_t stages = 1; stages <= stages_max; stages++) {
        if (!helix_stages(&search->place, stages, member, &search->trial))
            continue;
        double flow = helix_flow(&search->place, &search->trial);
        if (flow > best_flow * (1 + 1e-9)) {
            best = stages;
            best_flow = flow;
        }
    }
    if (best > 0)
        (void)helix_stages(&search->place, best, member, &search->trial);
    else
        for (uint32_t i = 0; i < n; i++)
            search->trial.end[i] = member[i] ? search->trial.begin[i] : search->trial.end[i];
    ts_free(member);
}

/* The stages of a path as a group of the draft, with the layers that the placement gives them. */
static bool add_chain(struct plan_search *search, const uint32_t *path, uint32_t length)
{
    struct ts_group from = {.phase = TS_PHASE_BOTH, .stage_count = length};
    struct plan_group group;
    if (length > TS_STAGES_MAX)
        return false;
    for (uint32_t i = 0; i < length; i++) {
        const struct unit *unit = &search->units[path[i]];
        from.stages[i] = (struct ts_stage){
            .tp = unit->tp, .layers = search->chosen.end[path[i]] - search->chosen.begin[path[i]]};
        memcpy(from.stages[i].gpus, unit->gpus, sizeof unit->gpus);
    }
    if (!plan_shape_of_group(search->base.shapes, &from, &group, NULL))
        return false;
    (void)plan_state_add(&search->base.draft, &group);
    return true;
}

/* Takes the widest path of what is left out of the flow. True when nothing is left. */
static bool cut_chain(struct plan_search *search)
{
    struct baseline *base = &search->base;
    const uint32_t n = search->place.units;
    uint32_t count, *path = ts_xcalloc(n + 1, sizeof *path);
    struct baseline_edge *edges = helix_graph(&search->place, &search->chosen, &count);
    (void)baseline_max_flow(edges, count, 2 * n + 2, 2 * n, 2 * n + 1);
    uint32_t length = helix_path(&search->place, edges, count, path);
    double rate = INFINITY;
    for (uint32_t i = 0; i < length; i++) {
        rate = fmin(rate, helix_rate(&search->place, &search->chosen, path[i]));
        if (i > 0)
            rate = fmin(rate, search->link[(size_t)path[i - 1] * n + path[i]]);
    }
    if (length > 0 && add_chain(search, path, length)) {
        search->chain_rate[base->draft.count - 1] = rate;
        search->chains += rate;
    }
    for (uint32_t i = 0; i < length; i++)
        search->chosen.end[path[i]] = search->chosen.begin[path[i]];
    ts_free(edges);
    ts_free(path);
    return length == 0;
}

static void answer(struct plan_search *search)
{
    struct baseline *base = &search->base;
    uint32_t count = 0;
    struct plan_share *shares =
        baseline_shares(&base->draft, NULL, search->chain_rate, TS_COST_CODEC_NONE, &count);
    if (shares)
        baseline_answer(base, &base->draft, shares, count);
}

/* One placement or one chain in each call. */
static bool helix_advance(struct plan_search *search)
{
    const struct plan_problem *problem = search->base.problem;
    uint32_t stages_max = problem->max_stages ? problem->max_stages : 8;
    stages_max = stages_max < search->place.blocks ? stages_max : search->place.blocks;
    switch (search->step) {
    case STEP_EXACT:
        if (search->place.units <= EXACT_UNITS && search->place.blocks >= EXACT_BLOCKS)
            try_exact(search);
        search->step = STEP_STAGES;
        search->next = 1;
        return false;
    case STEP_STAGES:
        if (helix_stages(&search->place, search->next, NULL, &search->trial))
            choose_trial(search, helix_flow(&search->place, &search->trial));
        if (++search->next > stages_max) {
            search->step = STEP_TYPES;
            search->next = 0;
            memset(search->words, 0, 2 * search->place.units * sizeof *search->words); /* the trial */
        }
        return false;
    case STEP_TYPES:
        try_type(search, search->next++, stages_max);
        if (search->next == problem->cluster->type_count) {
            choose_trial(search, helix_flow(&search->place, &search->trial));
            search->step = STEP_CHAINS;
        }
        return false;
    case STEP_CHAINS:
        break;
    }
    if (!cut_chain(search))
        return false;
    answer(search);
    return true;
}

static void helix_describe(const struct plan_search *search, char *out, size_t size)
{
    const char *by = search->exact ? "mixed-integer program and heuristics" : "heuristics";
    double lost = search->flow > 0 ? 100 * (1 - search->chains / search->flow) : 0;
    if (search->base.found)
        (void)snprintf(
            out, size,
            "flow %.4g requests/s (%s), fixed chains carry %.4g of it: the cut loses %.1f %%; best "
            "%.4g",
            search->flow, by, search->chains, fmax(0, lost), search->base.objective);
    else
        (void)snprintf(out, size, "flow %.4g requests/s (%s), no plan yet", search->flow, by);
}

static void helix_fini(struct plan_search *search)
{
    ts_free(search->units);
    ts_free(search->rate);
    ts_free(search->link);
    ts_free(search->words);
    ts_free(search->chain_rate);
}

static const struct baseline_kind kind = {
    .name = "helix",
    .size = sizeof(struct plan_search),
    .only_colocates = true,
    .advance = helix_advance,
    .fini = helix_fini,
};

static struct plan_search *helix_open(const struct plan_problem *problem, struct ts_error *err)
{
    struct plan_search *search = baseline_open(&kind, problem, err);
    return search ? helix_open_on(search) : NULL;
}

const struct plan_algorithm plan_algorithm_helix = {
    .version = PLAN_ALGORITHM_VERSION,
    .name = "helix",
    .summary = "layer placement by maximum flow, cut into fixed chains (ASPLOS 2025)",
    .open = helix_open,
    .step = baseline_step,
    .best = baseline_best,
    .describe = helix_describe,
    .close = baseline_close,
};
