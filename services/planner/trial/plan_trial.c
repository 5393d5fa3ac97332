#include "services/planner/trial/plan_trial.h"

#include <math.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/trial/plan_trial_impl.h"

#define FEW_REPLICAS 32
#define BATCH_TOKENS 2048 /* of all batches of prompts under way in a colocated replica, else of each */

/* --- Replicas --- */

static const struct ts_link *link_between(const struct ts_cluster *cluster, uint32_t from, uint32_t to,
                                          uint32_t type)
{
    return from == to ? ts_cluster_inner(cluster, from, type) : ts_cluster_link(cluster, from, to);
}

static uint32_t blocks_of(const struct ts_model *model, const struct trial_replica *replica)
{
    double tokens = INFINITY;
    for (uint32_t i = 0; i < replica->stage_count; i++) {
        const struct trial_stage *stage = &replica->stages[i];
        double weights =
            ts_cost_stage_weight_bytes(model, i == 0, i + 1 == replica->stage_count, stage->layers) /
            stage->tp;
        double left = ts_cost_usable_bytes(stage->device) - weights;
        tokens = fmin(tokens, left / (stage->layers * ts_cost_kv_layer_token_bytes(model, stage->tp)));
    }
    return tokens > 0 ? (uint32_t)fmin(tokens / TS_KV_BLOCK_TOKENS, 1e8) : 0;
}

static void make_replica(const struct plan_problem *problem, const struct ts_group *group,
                         struct trial_replica *out)
{
    const struct ts_cluster *cluster = problem->cluster;
    uint32_t count = group->stage_count;
    TS_ASSERT(count > 0 && count <= TS_STAGES_MAX);
    out->phase = group->phase;
    out->stage_count = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct ts_gpu *gpu = &cluster->gpus[group->stages[i].gpus[0]];
        const struct ts_gpu *next = &cluster->gpus[group->stages[(i + 1) % count].gpus[0]];
        const struct ts_link *to = link_between(cluster, gpu->node, next->node, gpu->type);
        out->stages[i] = (struct trial_stage){.device = &cluster->types[gpu->type],
                                              .type = gpu->type,
                                              .inner = ts_cluster_inner(cluster, gpu->node, gpu->type),
                                              .next = i + 1 < count ? to : NULL,
                                              .tp = group->stages[i].tp,
                                              .layers = group->stages[i].layers,
                                              .node = gpu->node};
        out->back_s = count > 1 ? to->latency_s : 0;
    }
    out->budget = BATCH_TOKENS / (group->phase == TS_PHASE_BOTH ? count : 1);
    out->blocks = out->free_blocks = blocks_of(problem->model, out);
    out->route = (struct route_worker){
        .model = 1, .fingerprint = 1, .phases = group->phase, .sends = true, .kv_blocks = out->blocks};
}

/* Seconds of one layer; chunks of prompts and decode rows of one batch pass the products together. */
static double layer_s(const struct trial_stage *stage, const struct ts_model *model, double prompt,
                      double pairs, double rows, double context)
{
    const struct ts_device_type *device = stage->device;
    double seconds = 0;
    if (prompt > 0)
        seconds += ts_cost_layer_prefill_s(device, model, stage->inner, stage->tp, prompt, pairs);
    if (rows > 0)
        seconds += ts_cost_layer_decode_s(device, model, stage->inner, stage->tp, rows, context);
    if (prompt > 0 && rows > 0)
        seconds += ts_cost_linear_s(device, model, stage->tp, prompt + rows) -
                   ts_cost_linear_s(device, model, stage->tp, prompt) -
                   ts_cost_linear_s(device, model, stage->tp, rows);
    return seconds;
}

static double windowed(const struct ts_model *model, double tokens)
{
    return model->sliding_window > 0 ? fmin(tokens, model->sliding_window) : tokens;
}

/* Twice the pairs of tokens that a prompt of so many attends to. */
static double pairs_of(const struct ts_model *model, double tokens)
{
    double window = windowed(model, tokens);
    return window * (2 * tokens - window);
}

double trial_pass(struct trial *trial, struct trial_replica *replica, const struct trial_batch *batch)
{
    const struct ts_model *model = trial->problem->model;
    double prompt = 0, pairs = 0, rows = 0, context = 0, sampled = 0, now = trial->now;
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct trial_row *row = &batch->rows[i];
        const struct trial_request *r = &trial->requests[row->request];
        sampled += row->last;
        if (row->prompt) {
            prompt += row->tokens;
            pairs += pairs_of(model, r->issued) - pairs_of(model, r->issued - row->tokens);
        } else {
            rows += 1;
            context += windowed(model, r->prompt + r->produced);
        }
    }
    double hop_bytes = ts_cost_hop_bytes(model, prompt + rows);
    for (uint32_t i = 0; i < replica->stage_count; i++) {
        struct trial_stage *stage = &replica->stages[i];
        double lasts = ts_cost_step_s(stage->device) +
                       stage->layers * layer_s(stage, model, prompt, pairs, rows, context);
        if (!stage->next && sampled > 0)
            lasts += ts_cost_head_s(stage->device, model, stage->tp, sampled);
        now = stage->free_at = fmax(now, stage->free_at) + lasts;
        if (!stage->next)
            break;
        stage->link_free_at = fmax(now, stage->link_free_at) + hop_bytes / stage->next->bytes_per_s;
        now = stage->link_free_at + stage->next->latency_s;
    }
    return now + replica->back_s;
}

/* --- Shares --- */

/* Layers of both pipelines that overlap, by their nodes. */
static void add_lanes(struct trial *trial, struct trial_share *share)
{
    const struct trial_replica *from = &trial->replicas[share->prefill],
                               *to = &trial->replicas[share->decode];
    share->lane_first = (uint32_t)trial->lane_count;
    if (share->prefill == share->decode)
        return;
    for (uint32_t i = 0, a = 0; i < from->stage_count; a += from->stages[i++].layers) {
        for (uint32_t j = 0, b = 0; j < to->stage_count; b += to->stages[j++].layers) {
            double begin = fmax(a, b), end = fmin(a + from->stages[i].layers, b + to->stages[j].layers);
            if (begin >= end)
                continue;
            ts_array_reserve((void **)&trial->lanes, &trial->lane_capacity, trial->lane_count + 1,
                             sizeof *trial->lanes);
            trial->lanes[trial->lane_count++] =
                (struct trial_lane){.from = from->stages[i].node,
                                    .to = to->stages[j].node,
                                    .part = (end - begin) / trial->problem->model->layers,
                                    .link = link_between(trial->problem->cluster, from->stages[i].node,
                                                         to->stages[j].node, from->stages[i].type)};
            share->lane_count++;
        }
    }
}

void trial_add_share(struct trial *trial, uint32_t prefill, uint32_t decode, enum ts_cost_codec codec)
{
    ts_array_reserve((void **)&trial->shares, &trial->share_capacity, (size_t)trial->share_count + 1,
                     sizeof *trial->shares);
    struct trial_share *share = &trial->shares[trial->share_count++];
    *share = (struct trial_share){.prefill = prefill, .decode = decode, .codec = codec};
    add_lanes(trial, share);
}

/* The flows of a class; those of all classes where it has none. */
static void make_shares(struct trial *trial)
{
    const struct ts_plan *plan = trial->plan;
    const struct ts_demand *demand = trial->problem->demand;
    size_t most = (size_t)plan->flow_count * (demand->class_count + 1) + 1;
    trial->route_shares = ts_xcalloc(most, sizeof *trial->route_shares);
    for (uint32_t k = 0; k < demand->class_count; k++) {
        uint32_t first = trial->share_count;
        double sum = 0;
        for (int all = 0; all < 2 && sum <= 0; all++) {
            for (uint32_t f = 0; f < plan->flow_count; f++) {
                const struct ts_flow *flow = &plan->flows[f];
                if (!(flow->rate > 0) || (!all && flow->length_class != k))
                    continue;
                trial->route_shares[trial->share_count] =
                    (struct route_share){flow->prefill, flow->decode, flow->rate, 0, ""};
                trial_add_share(trial, flow->prefill, flow->decode, flow->codec);
                sum += flow->rate;
            }
        }
        for (uint32_t i = first; i < trial->share_count; i++)
            trial->route_shares[i].share /= sum;
        trial->classes[k].shares = trial->route_shares + first;
        trial->classes[k].share_count = trial->share_count - first;
    }
}

/* What the plan sends to each replica, as the router counts it. */
static void count_flows(struct trial *trial)
{
    const struct ts_demand *demand = trial->problem->demand;
    double prompts = 0, rows = 0;
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *class_ = &demand->classes[k];
        for (size_t i = 0; i < trial->classes[k].share_count; i++) {
            const struct route_share *z = &trial->classes[k].shares[i];
            double prompt = class_->rate * z->share * class_->prompt_tokens;
            double row = class_->rate * z->share * class_->output_tokens;
            trial->routes[z->prefill].prompt_flow += prompt;
            trial->routes[z->decode].row_flow += row;
            prompts += prompt;
            rows += row;
        }
    }
    for (uint32_t k = 0; k < demand->class_count; k++) {
        trial->classes[k].prompt_flow = prompts;
        trial->classes[k].row_flow = rows;
    }
}

/* --- The trial --- */

static void open_trial(const struct plan_problem *problem, const struct ts_plan *plan, uint32_t requests,
                       struct trial *out)
{
    *out = (struct trial){.problem = problem, .plan = plan, .request_count = requests};
    out->requests = ts_xcalloc((size_t)requests + 1, sizeof *out->requests);
    out->replicas = ts_xcalloc((size_t)plan->group_count + 1, sizeof *out->replicas);
    out->workers = ts_xcalloc((size_t)plan->group_count + 1, sizeof *out->workers);
    out->routes = ts_xcalloc((size_t)plan->group_count + 1, sizeof *out->routes);
    out->out_free = ts_xcalloc((size_t)problem->cluster->node_count + 1, sizeof *out->out_free);
    out->in_free = ts_xcalloc((size_t)problem->cluster->node_count + 1, sizeof *out->in_free);
    out->token_bytes = (double)ts_model_kv_token_bytes(problem->model);
    for (uint32_t g = 0; g < plan->group_count; g++) {
        make_replica(problem, &plan->groups[g], &out->replicas[g]);
        out->replicas[g].route.key = g + 1;
        out->workers[g] = &out->replicas[g].route;
        out->routes[g].worker = out->workers[g];
    }
    make_shares(out);
    count_flows(out);
}

static void close_trial(struct trial *trial)
{
    for (uint32_t g = 0; g < trial->plan->group_count; g++) {
        struct trial_replica *replica = &trial->replicas[g];
        ts_free(replica->waiting.items);
        ts_free(replica->prefilling.items);
        ts_free(replica->grants.items);
        ts_free(replica->ready.items);
        for (uint32_t i = 0; i < replica->stage_count; i++)
            ts_free(replica->batches[i].rows);
    }
    ts_free(trial->requests);
    ts_free(trial->replicas);
    ts_free(trial->workers);
    ts_free(trial->routes);
    ts_free(trial->route_shares);
    ts_free(trial->shares);
    ts_free(trial->lanes);
    ts_free(trial->out_free);
    ts_free(trial->in_free);
    ts_free(trial->held.items);
    ts_free(trial->events);
}

static struct plan_trial count_in_time(const struct trial *trial)
{
    struct plan_trial out = {.requests = trial->request_count};
    double each = 1.0 / trial->request_count;
    for (uint32_t i = 0; i < trial->request_count; i++) {
        const struct trial_request *r = &trial->requests[i];
        bool served = r->end > 0;
        double tpot = r->output > 1 ? (r->end - r->first) / (r->output - 1) : 0;
        bool ttft_met = served && (!(r->ttft_s > 0) || r->first - r->at <= r->ttft_s);
        bool tpot_met = served && (!(r->tpot_s > 0) || tpot <= r->tpot_s);
        bool e2e_met = served && (!(r->e2e_s > 0) || r->end - r->at <= r->e2e_s);
        out.ttft += ttft_met * each;
        out.tpot += tpot_met * each;
        out.e2e += e2e_met * each;
        out.all += (ttft_met && tpot_met && e2e_met) * each;
    }
    return out;
}

struct plan_trial plan_trial_run(const struct plan_problem *problem, const struct ts_plan *plan, double scale,
                                 uint32_t requests, uint64_t seed)
{
    struct trial trial;
    if (requests == 0 || !(scale * ts_demand_rate(problem->demand) > 0))
        return (struct plan_trial){.requests = 0};
    open_trial(problem, plan, requests, &trial);
    trial_draw(&trial, scale, seed);
    trial_play(&trial);
    struct plan_trial out = count_in_time(&trial);
    close_trial(&trial);
    return out;
}

uint32_t plan_trial_requests(const struct ts_plan *plan, uint32_t least)
{
    return least * (1 + plan->group_count / FEW_REPLICAS);
}

struct plan_trial plan_trial_mean(const struct plan_problem *problem, const struct ts_plan *plan,
                                  uint32_t requests, uint32_t times, uint64_t seed)
{
    struct plan_trial mean = {.requests = requests * times};
    for (uint32_t i = 0; i < times; i++) {
        struct plan_trial one = plan_trial_run(problem, plan, 1, requests, seed + i);
        mean.ttft += one.ttft / times;
        mean.tpot += one.tpot / times;
        mean.e2e += one.e2e / times;
        mean.all += one.all / times;
    }
    return mean;
}
