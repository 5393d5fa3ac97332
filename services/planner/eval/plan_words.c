/* What limits a plan, in one line for a person. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "services/planner/eval/plan_columns.h"
#include "services/planner/eval/plan_eval.h"

/* A row without a price is called full from here on: a rule that is not optimised has no prices. */
#define FULL 0.995

/* What a whole limit brings below this share of the objective is the rounding of the program. */
#define WEIGHT_LEAST 1e-6

struct line {
    char *out;
    size_t size, length;
};

static void say(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct line *line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(line->out + line->length, line->size - line->length, format, args);
    va_end(args);
    if (wrote > 0) {
        line->length +=
            (size_t)wrote < line->size - line->length ? (size_t)wrote : line->size - line->length - 1;
    }
}

struct words {
    const struct plan_problem *problem;
    const struct plan_state *state;
    const struct plan_result *result;
};

/* --- The row that the objective hangs on most --- */

static bool is_group_limit(enum plan_limit limit)
{
    return limit == PLAN_LIMIT_PREFILL || limit == PLAN_LIMIT_COMPUTE || limit == PLAN_LIMIT_MEMORY;
}

static bool same_row(const struct words *w, const struct plan_price *a, const struct plan_price *b)
{
    if (a->limit != b->limit) {
        return false;
    }
    if (!is_group_limit(a->limit)) {
        return a->index == b->index;
    }
    return w->state->groups[a->index].shape == w->state->groups[b->index].shape;
}

/* What the whole limit of the row brings to first order. */
static double weight_of(const struct words *w, const struct plan_price *price)
{
    const struct plan_problem *problem = w->problem;
    switch (price->limit) {
    case PLAN_LIMIT_NIC_OUT:
        return price->price * PLAN_NIC_SHARE * problem->cluster->nodes[price->index].nic_out_bytes_per_s;
    case PLAN_LIMIT_NIC_IN:
        return price->price * PLAN_NIC_SHARE * problem->cluster->nodes[price->index].nic_in_bytes_per_s;
    case PLAN_LIMIT_LINK:
        return price->price * PLAN_NIC_SHARE * problem->cluster->links[price->index].bytes_per_s;
    default:
        return price->price;
    }
}

/* Of replicas and cards. Rows of equal replicas count together. */
static const struct plan_price *most_binding(const struct words *w)
{
    const struct plan_price *best = NULL;
    double most = WEIGHT_LEAST * w->result->objective, most_use = FULL;
    bool priced = false;
    for (uint32_t i = 0; i < w->result->price_count; i++) {
        const struct plan_price *row = &w->result->prices[i];
        double weight = 0;
        priced = priced || row->price > 0;
        for (uint32_t j = 0; j < w->result->price_count && row->limit != PLAN_LIMIT_DEMAND; j++) {
            weight += same_row(w, row, &w->result->prices[j]) ? weight_of(w, &w->result->prices[j]) : 0;
        }
        if (weight > most * (1 + 1e-9)) {
            most = weight;
            best = row;
        }
    }
    for (uint32_t i = 0; i < w->result->price_count && !best && !priced; i++) {
        const struct plan_price *row = &w->result->prices[i];
        if (row->limit != PLAN_LIMIT_DEMAND && row->use > most_use) {
            most_use = row->use;
            best = row;
        }
    }
    return best;
}

/* --- Where it is --- */

/* "2x A5000 + 2x 3090Ti (TP2 PP2)": by type, whatever nodes they stand in. */
static void say_devices(struct line *line, const struct words *w, const struct plan_group *group)
{
    const struct ts_cluster *cluster = w->problem->cluster;
    uint32_t tp = 0;
    for (uint32_t p = 0; p < group->part_count; p++) {
        uint16_t type = cluster->cells[group->parts[p].cell].type;
        uint32_t count = 0, first = p;
        for (uint32_t o = 0; o < group->part_count; o++) {
            bool same = cluster->cells[group->parts[o].cell].type == type;
            count += same ? group->parts[o].count : 0;
            first = same && o < first ? o : first;
        }
        if (first == p) {
            say(line, "%s%ux %s", p ? " + " : "", count, cluster->types[type].name);
        }
    }
    for (uint32_t s = 0; s < group->shape->stage_count; s++) {
        tp = group->shape->stages[s].tp > tp ? group->shape->stages[s].tp : tp;
    }
    say(line, " (TP%u PP%u)", tp, group->shape->stage_count);
}

static uint32_t node_of(const struct words *w, const struct plan_part *part)
{
    return w->problem->cluster->cells[part->cell].node;
}

/* Up to two nodes by name, more by number. */
static void say_nodes(struct line *line, const struct words *w, const struct plan_shape *shape)
{
    const struct ts_node *nodes = w->problem->cluster->nodes;
    uint32_t count = 0, first = 0, last = 0;
    for (uint32_t n = 0; n < w->problem->cluster->node_count; n++) {
        bool has = false;
        for (uint32_t g = 0; g < w->state->count; g++) {
            const struct plan_group *group = &w->state->groups[g];
            for (uint32_t p = 0; p < group->part_count && group->shape == shape; p++) {
                has = has || node_of(w, &group->parts[p]) == n;
            }
        }
        if (has) {
            first = count++ == 0 ? n : first;
            last = n;
        }
    }
    if (count > 2) {
        say(line, " in %u nodes", count);
    } else if (count == 2) {
        say(line, " in nodes %s and %s", nodes[first].name, nodes[last].name);
    } else {
        say(line, " in node %s", nodes[first].name);
    }
}

static void say_replicas(struct line *line, const struct words *w, uint32_t index)
{
    const struct plan_group *first = &w->state->groups[index];
    uint32_t count = 0;
    for (uint32_t g = 0; g < w->state->count; g++) {
        count += w->state->groups[g].shape == first->shape;
    }
    if (count > 1) {
        say(line, "each of the %u replicas on ", count);
    } else {
        say(line, "the replica on ");
    }
    say_devices(line, w, first);
    say_nodes(line, w, first->shape);
}

static void say_gain(struct line *line, const struct words *w, double gain, const char *what)
{
    if (!(gain > 0)) {
        return;
    }
    if (w->problem->objective == PLAN_GOODPUT) {
        say(line, "; %s would add %.3g requests/s", what, gain);
    } else {
        double points =
            100 * fmin(gain, 1 - w->result->objective); /* the price holds for the first part only */
        say(line, "; %s would add up to %.2g points of attainment", what, points);
    }
}

static void say_network(struct line *line, const struct words *w, const struct plan_price *row)
{
    const struct ts_cluster *cluster = w->problem->cluster;
    double speed = cluster->links[row->limit == PLAN_LIMIT_LINK ? row->index : 0].bytes_per_s;
    if (row->limit == PLAN_LIMIT_LINK) {
        say(line, "the link from node %s to node %s", cluster->nodes[row->index / cluster->node_count].name,
            cluster->nodes[row->index % cluster->node_count].name);
    } else {
        const struct ts_node *node = &cluster->nodes[row->index];
        bool in = row->limit == PLAN_LIMIT_NIC_IN;
        speed = in ? node->nic_in_bytes_per_s : node->nic_out_bytes_per_s;
        say(line, "the network %s node %s", in ? "into" : "out of", node->name);
    }
    say(line, " (%.3g GB/s) is full", speed / 1e9);
    say_gain(line, w, row->price * 1e9, "1 GB/s more");
}

static void say_row(struct line *line, const struct words *w, const struct plan_price *row)
{
    if (!is_group_limit(row->limit)) {
        say_network(line, w, row);
        return;
    }
    say(line, row->limit == PLAN_LIMIT_PREFILL   ? "prefill time of "
              : row->limit == PLAN_LIMIT_COMPUTE ? "decode time of "
                                                 : "KV memory of ");
    say_replicas(line, w, row->index);
    say(line, " is full");
    say_gain(line, w, row->price, "one more");
}

/* --- When nothing flows --- */

static bool has_phase(const struct words *w, enum ts_phase phase)
{
    for (uint32_t g = 0; g < w->state->count; g++) {
        if (w->state->groups[g].phase == phase) {
            return true;
        }
    }
    return false;
}

/* The class that comes closest to its deadline on an idle replica, by the ratio of time to deadline. */
static bool say_deadline(struct line *line, const struct words *w)
{
    double least = INFINITY, time = 0, deadline = 0;
    const char *what = "";
    for (uint32_t g = 0; g < w->state->count; g++) {
        const struct plan_shape *shape = w->state->groups[g].shape;
        for (uint32_t k = 0; k < w->problem->demand->class_count; k++) {
            const struct ts_class *class_ = &w->problem->demand->classes[k];
            if ((shape->phase & TS_PHASE_PREFILL) && class_->ttft_s > 0 && class_->rate > 0 &&
                shape->prefill_s[k] / class_->ttft_s < least) {
                least = shape->prefill_s[k] / class_->ttft_s;
                time = shape->prefill_s[k];
                deadline = class_->ttft_s;
                what = "TTFT";
            }
        }
    }
    if (least >= 1 && isfinite(least)) {
        say(line,
            "no request meets its deadline: the best %s on an idle replica is %.3g s, the deadline %.3g s",
            what, time, deadline);
        return true;
    }
    return false;
}

static void say_nothing_flows(struct line *line, const struct words *w)
{
    bool both = has_phase(w, TS_PHASE_BOTH), prefill = has_phase(w, TS_PHASE_PREFILL);
    bool decode = has_phase(w, TS_PHASE_DECODE);
    if (w->state->count == 0) {
        say(line, "there is no replica");
    } else if (!(ts_demand_rate(w->problem->demand) > 0)) {
        say(line, "nothing is asked for: the rate of the workload is 0");
    } else if (!both && !(prefill && decode)) {
        say(line, "no request can be served: there is no replica for %s", prefill ? "decode" : "prefill");
    } else if (say_deadline(line, w)) {
        return;
    } else if (w->problem->objective == PLAN_GOODPUT) {
        say(line, "no rate, however low, has %.7g %% of its requests within all deadlines on these replicas",
            100 * w->problem->attainment);
    } else {
        say(line, "no request is within its deadlines: %s",
            both ? "steps are too slow, or prompts do not fit in the KV memory"
                 : "steps or KV transfers are too slow, replicas are not connected, or prompts do not fit");
    }
}

/* The share of what is asked that gets a replica at all. */
static double served_share(const struct words *w)
{
    double served = 0;
    for (uint32_t f = 0; f < w->result->flow_count; f++) {
        served += w->result->flows[f].rate;
    }
    return w->result->rate > 0 ? served / w->result->rate : 0;
}

void plan_limit_words(const struct plan_problem *problem, const struct plan_state *state,
                      const struct plan_result *result, char *out, size_t size)
{
    struct line line = {out, size, 0};
    const struct words w = {problem, state, result};
    out[0] = '\0';
    const struct plan_price *row = most_binding(&w);
    double served = served_share(&w);
    bool enough = served > FULL && problem->objective == PLAN_ATTAINMENT;
    if (result->flow_count == 0) {
        say_nothing_flows(&line, &w);
    } else if (enough && result->objective > FULL) {
        say(&line, "nothing is short: %.4g %% of %.3g requests/s are within their deadlines",
            100 * result->objective, result->rate);
    } else if (row) {
        say_row(&line, &w, row);
    } else if (enough) {
        say(&line,
            "no resource is full: %.2g %% of the requests miss deadlines, by chance or even on idle replicas",
            100 * (1 - result->objective));
    } else {
        say(&line,
            "no resource is full, and %.2g %% of the requests have no replica that meets their deadlines",
            100 * (1 - served));
    }
}
