/* The solution of a run as flows between groups, prices of rows and worth of groups. */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval_impl.h"

/* Flows below this share of the demand are rounding. */
#define RATE_MIN 1e-9

struct usage { /* sums over all columns */
    double class_rate[TS_CLASSES_MAX];
    double ttft, tpot, e2e; /* requests/s that meet each deadline */
    double *kinds;          /* [kind * EVAL_RESOURCES + resource] */
};

static void add_usage(const struct plan_eval *eval, const struct eval_column *column, double rate,
                      struct usage *usage)
{
    const struct eval_pair *pair = &eval->pairs[column->pair];
    const struct plan_point *p = &eval->kinds[pair->prefill].kind->shape->points[column->p];
    const struct plan_point *q = &eval->kinds[pair->decode].kind->shape->points[column->q];
    uint32_t k = column->length_class;
    struct plan_miss miss =
        plan_columns_miss(eval->source, pair->pair, k, column->codec, column->p, column->q);
    usage->class_rate[k] += rate;
    usage->ttft += rate * (1 - miss.ttft);
    usage->tpot += rate * (1 - miss.tpot);
    usage->e2e += rate * (1 - miss.e2e);
    usage->kinds[pair->prefill * EVAL_RESOURCES + EVAL_PREFILL] += rate * p->prefill[k];
    usage->kinds[pair->decode * EVAL_RESOURCES + EVAL_COMPUTE] += rate * q->compute[k];
    usage->kinds[pair->decode * EVAL_RESOURCES + EVAL_MEMORY] += rate * q->memory[k];
    eval_load_cards(eval, pair->pair, k, column->codec, rate);
}

/* A flow of equal groups is spread evenly over each pair of them; a colocated one over each of them. */
static void spread(struct plan_eval *eval, const struct plan_state *state, const struct eval_pair *pair,
                   const struct ts_flow *total, uint32_t *count)
{
    bool both = pair->prefill == pair->decode;
    double pieces = eval->kinds[pair->prefill].count * (both ? 1.0 : eval->kinds[pair->decode].count);
    EVAL_RESERVE(eval, flows, *count + (size_t)pieces);
    for (uint32_t i = 0; i < state->count; i++) {
        for (uint32_t j = both ? i : 0; j < (both ? i + 1 : state->count); j++) {
            if (eval->kind_of_group[i] == pair->prefill && eval->kind_of_group[j] == pair->decode) {
                struct ts_flow *flow = &eval->flows[(*count)++];
                *flow = *total;
                flow->prefill = i;
                flow->decode = j;
                flow->rate = total->rate / pieces;
                flow->attained = total->attained / pieces;
            }
        }
    }
}

/* Columns that differ by their points only are one flow. */
static uint32_t read_flows(struct plan_eval *eval, const struct plan_state *state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < eval->present_pair_count; i++) {
        const struct eval_pair *pair = &eval->pairs[eval->present_pairs[i]];
        for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
            struct ts_flow totals[TS_COST_CODEC_COUNT] = {0};
            for (uint32_t c = pair->last[k]; c != EVAL_NONE; c = eval->columns[c].before) {
                const struct eval_column *column = &eval->columns[c];
                double rate = eval_value(eval, c);
                double charge = column->codec == TS_COST_CODEC_NONE ? 0 : PLAN_LOSSY_CHARGE;
                totals[column->codec].rate += rate;
                totals[column->codec].attained += rate * fmin(1, column->gain + charge);
            }
            for (enum ts_cost_codec codec = 0; codec < TS_COST_CODEC_COUNT; codec++) {
                totals[codec].length_class = k;
                totals[codec].codec = codec;
                if (totals[codec].rate > RATE_MIN * eval->rate) {
                    spread(eval, state, pair, &totals[codec], &count);
                }
            }
        }
    }
    return count;
}

static void add_price(struct plan_eval *eval, uint32_t *count, enum plan_limit limit, uint32_t index,
                      double price, double use)
{
    eval->prices[(*count)++] = (struct plan_price){limit, index, price, fmin(fmax(use, 0), 1)};
}

/* `per_unit`: what the objective is divided by. */
static uint32_t read_prices(struct plan_eval *eval, const struct usage *usage, double rate, double per_unit)
{
    static const enum plan_limit limits[] = {PLAN_LIMIT_PREFILL, PLAN_LIMIT_COMPUTE, PLAN_LIMIT_MEMORY};
    const struct ts_demand *demand = eval->problem->demand;
    uint32_t count = 0;
    EVAL_RESERVE(eval, prices,
                 demand->class_count + (size_t)eval->group_count * EVAL_RESOURCES + eval->card_count);
    for (uint32_t k = 0; k < demand->class_count; k++) {
        double asked = eval->rate > 0 ? demand->classes[k].rate / eval->rate * rate : 0;
        add_price(eval, &count, PLAN_LIMIT_DEMAND, k, eval->class_price[k] / per_unit,
                  asked > 0 ? usage->class_rate[k] / asked : 1);
    }
    for (uint32_t g = 0; g < eval->group_count; g++) {
        uint32_t i = eval->kind_of_group[g];
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            if (eval->kinds[i].row[r] != EVAL_NONE) {
                add_price(eval, &count, limits[r], g, eval->kinds[i].price[r] / per_unit,
                          usage->kinds[i * EVAL_RESOURCES + (uint32_t)r] / eval->kinds[i].count);
            }
        }
    }
    for (uint32_t c = 0; c < eval->card_count; c++) {
        const struct eval_card *card = &eval->cards[c];
        if (card->touched) {
            uint32_t index;
            enum plan_limit limit = eval_card_limit(eval, c, &index);
            add_price(eval, &count, limit, index, (card->row == EVAL_NONE ? 0 : card->price) / per_unit,
                      card->load / card->limit);
        }
    }
    return count;
}

static void read_worth(struct plan_eval *eval, double per_unit)
{
    EVAL_RESERVE(eval, worth, eval->group_count + 1);
    for (uint32_t g = 0; g < eval->group_count; g++) {
        const struct eval_kind *kind = &eval->kinds[eval->kind_of_group[g]];
        eval->worth[g] = 0;
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            eval->worth[g] += kind->row[r] == EVAL_NONE ? 0 : kind->price[r] / per_unit;
        }
    }
}

static struct usage sum_up(struct plan_eval *eval)
{
    struct usage usage = {.kinds = ts_xcalloc(eval->kinds_capacity * EVAL_RESOURCES + 1, sizeof(double))};
    for (uint32_t i = 0; i < eval->card_count; i++) {
        eval->cards[i].load = 0;
    }
    for (uint32_t c = 0; c < eval->column_count; c++) {
        double rate = eval_value(eval, c);
        if (rate > 0) {
            add_usage(eval, &eval->columns[c], rate, &usage);
        }
    }
    return usage;
}

/* The simplex gave up: nothing flows, and nothing has a price. */
static void forget_solution(struct plan_eval *eval)
{
    eval->column_count = 0;
    eval->present_pair_count = 0;
    for (uint32_t i = 0; i < eval->present_count; i++) {
        memset(eval->kinds[eval->present[i]].price, 0, sizeof eval->kinds[0].price);
    }
    for (uint32_t c = 0; c < eval->card_count; c++) {
        eval->cards[c].price = 0;
    }
    memset(eval->class_price, 0, sizeof eval->class_price);
}

void eval_read_result(struct plan_eval *eval, const struct plan_state *state, double objective,
                      struct plan_result *out)
{
    bool goodput = eval->problem->objective == PLAN_GOODPUT;
    *out = (struct plan_result){.objective = objective, .rate = goodput ? 0 : eval->rate};
    if (!eval->solved) {
        forget_solution(eval);
    }
    if (goodput && eval->solved) {
        out->rate = plan_lp_value(eval->lp, 0);
    }
    struct usage usage = sum_up(eval);
    if (out->rate > 0) {
        out->attained_ttft = usage.ttft / out->rate;
        out->attained_tpot = usage.tpot / out->rate;
        out->attained_e2e = usage.e2e / out->rate;
    }
    double per_unit = goodput || !(eval->rate > 0) ? 1 : eval->rate;
    out->flow_count = read_flows(eval, state);
    out->price_count = read_prices(eval, &usage, out->rate, per_unit);
    read_worth(eval, per_unit);
    out->flows = eval->flows;
    out->prices = eval->prices;
    out->group_worth = eval->worth;
    ts_free(usage.kinds);
}
