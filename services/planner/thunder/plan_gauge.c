#include "services/planner/thunder/plan_gauge.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_columns.h"

struct gauge_node {
    double prefill, decode; /* requests/s of the groups here */
    double out, in;         /* requests/s that the card carries */
    uint32_t stamp;         /* of the change at hand */
    double prefill_by, decode_by;
};

struct gauge_sums {
    double prefill, decode, both; /* scores */
    double kept, sent, received;
};

struct plan_gauge {
    const struct plan_problem *problem;
    double rate;
    struct gauge_node *nodes;
    struct gauge_sums sums;
    uint32_t stamp;
    uint32_t touched[TS_CLUSTER_NODES_MAX], touched_count;
    double both_by, prefill_by, decode_by;
};

struct plan_gauge *plan_gauge_new(const struct plan_shapes *shapes)
{
    struct plan_gauge *gauge = ts_xcalloc(1, sizeof *gauge);
    const struct plan_problem *problem = plan_shapes_problem(shapes);
    const struct ts_cluster *cluster = problem->cluster;
    double bytes = 0; /* of a mean request's KV, by the smallest codec allowed */
    gauge->problem = problem;
    gauge->rate = ts_demand_rate(problem->demand);
    for (uint32_t k = 0; k < problem->demand->class_count; k++) {
        const struct ts_class *class_ = &problem->demand->classes[k];
        double ratio = 1;
        for (int codec = 1; codec < TS_COST_CODEC_COUNT; codec++) {
            if (problem->codec_allowed[codec])
                ratio = fmin(ratio, ts_cost_codec_ratio((enum ts_cost_codec)codec, class_->prompt_tokens));
        }
        bytes += class_->rate * ratio * class_->prompt_tokens *
                 (double)ts_model_kv_token_bytes(problem->model) / gauge->rate;
    }
    gauge->nodes = ts_xcalloc(cluster->node_count, sizeof *gauge->nodes);
    for (uint32_t n = 0; n < cluster->node_count; n++) {
        gauge->nodes[n].out = PLAN_NIC_SHARE * cluster->nodes[n].nic_out_bytes_per_s / bytes;
        gauge->nodes[n].in = PLAN_NIC_SHARE * cluster->nodes[n].nic_in_bytes_per_s / bytes;
    }
    return gauge;
}

void plan_gauge_destroy(struct plan_gauge **gauge)
{
    if (*gauge)
        ts_free((*gauge)->nodes);
    ts_free(*gauge);
    *gauge = NULL;
}

static void add_group(struct plan_gauge *gauge, const struct plan_group *group, double sign)
{
    double score = sign * group->shape->score;
    if (group->phase == TS_PHASE_BOTH) {
        gauge->both_by += score;
        return;
    }
    for (uint32_t i = 0; i < group->part_count; i++) {
        const struct ts_cell *cell = &gauge->problem->cluster->cells[group->parts[i].cell];
        struct gauge_node *node = &gauge->nodes[cell->node];
        if (node->stamp != gauge->stamp) {
            node->stamp = gauge->stamp;
            node->prefill_by = node->decode_by = 0;
            gauge->touched[gauge->touched_count++] = cell->node;
        }
        double share = score * group->parts[i].count / group->shape->gpus;
        if (group->phase == TS_PHASE_PREFILL) {
            node->prefill_by += share;
            gauge->prefill_by += share;
        } else {
            node->decode_by += share;
            gauge->decode_by += share;
        }
    }
}

static void add_node(struct gauge_sums *sums, const struct gauge_node *node, double prefill, double decode,
                     double sign)
{
    double kept = fmin(prefill, decode);
    sums->kept += sign * kept;
    sums->sent += sign * fmin(prefill - kept, node->out);
    sums->received += sign * fmin(decode - kept, node->in);
}

static struct gauge_sums changed_sums(const struct plan_gauge *gauge)
{
    struct gauge_sums sums = gauge->sums;
    sums.prefill += gauge->prefill_by;
    sums.decode += gauge->decode_by;
    sums.both += gauge->both_by;
    for (uint32_t i = 0; i < gauge->touched_count; i++) {
        const struct gauge_node *node = &gauge->nodes[gauge->touched[i]];
        add_node(&sums, node, node->prefill, node->decode, -1);
        add_node(&sums, node, node->prefill + node->prefill_by, node->decode + node->decode_by, 1);
    }
    return sums;
}

static void begin(struct plan_gauge *gauge)
{
    gauge->stamp++;
    gauge->touched_count = 0;
    gauge->both_by = gauge->prefill_by = gauge->decode_by = 0;
}

void plan_gauge_set(struct plan_gauge *gauge, const struct plan_state *state)
{
    for (uint32_t n = 0; n < gauge->problem->cluster->node_count; n++)
        gauge->nodes[n].prefill = gauge->nodes[n].decode = 0;
    gauge->sums = (struct gauge_sums){0};
    begin(gauge);
    for (uint32_t i = 0; i < state->count; i++)
        add_group(gauge, &state->groups[i], 1);
    gauge->sums = changed_sums(gauge);
    for (uint32_t i = 0; i < gauge->touched_count; i++) {
        struct gauge_node *node = &gauge->nodes[gauge->touched[i]];
        node->prefill = node->prefill_by;
        node->decode = node->decode_by;
    }
}

/* (a^-4 + b^-4)^(-1/4) */
static double soft_min(double a, double b)
{
    double low = fmin(a, b), ratio = low / fmax(a, b), square = ratio * ratio;
    return low <= 0 ? 0 : low / sqrt(sqrt(1 + square * square));
}

double plan_gauge_of(struct plan_gauge *gauge, const struct plan_group *const *out, uint32_t out_count,
                     const struct plan_group *const *in, uint32_t in_count)
{
    begin(gauge);
    for (uint32_t i = 0; i < out_count; i++)
        add_group(gauge, out[i], -1);
    for (uint32_t i = 0; i < in_count; i++)
        add_group(gauge, in[i], 1);
    struct gauge_sums sums = changed_sums(gauge);
    double weaker = fmin(sums.prefill, sums.decode), capacity = fmax(sums.both, 0);
    if (weaker > 1e-9)
        capacity += soft_min(sums.prefill, sums.decode) *
                    fmin(1, (sums.kept + fmin(sums.sent, sums.received)) / weaker);
    return gauge->problem->objective == PLAN_GOODPUT ? capacity : soft_min(capacity, gauge->rate);
}
