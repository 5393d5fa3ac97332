/* Column generation: which columns would lift the objective at the prices (duals) of the last solve. */
#include <math.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval_impl.h"

/* A run ends when no column could lift the objective by more than this share of all requests. */
#define IMPROVEMENT 1e-9

static double price_of_cards(const struct plan_eval *eval, const struct plan_card *cards, uint32_t count)
{
    double price = 0;
    for (uint32_t i = 0; i < count; i++) {
        price += cards[i].load * eval_card_of(eval, &cards[i])->price;
    }
    return price;
}

static void price_kinds(struct plan_eval *eval)
{
    for (uint32_t i = 0; i < eval->present_count; i++) {
        struct eval_kind *kind = &eval->kinds[eval->present[i]];
        const struct plan_shape *shape = kind->kind->shape;
        const double *price = kind->price;
        kind->hop_price = price_of_cards(eval, kind->kind->cards, kind->kind->card_count);
        for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
            kind->offers[k].lift = 0;
            kind->least_p[k] = kind->least_q[k] = INFINITY;
            for (uint32_t p = 0; p < shape->point_count; p++) {
                const struct plan_point *point = &shape->points[p];
                kind->cost_p[k][p] = price[EVAL_PREFILL] * point->prefill[k];
                kind->cost_q[k][p] =
                    price[EVAL_COMPUTE] * point->compute[k] + price[EVAL_MEMORY] * point->memory[k];
                kind->least_p[k] = fmin(kind->least_p[k], kind->cost_p[k][p]);
                kind->least_q[k] = fmin(kind->least_q[k], kind->cost_q[k][p]);
            }
        }
    }
}

/* The best column of pair and class at the prices at hand, if it lifts the objective by more than `most` for
 * each request/s. Returns that lift, or `most`. */
static double best_column(const struct plan_eval *eval, const struct eval_pair *pair, uint32_t k,
                          double card_price, double most, struct eval_column *best)
{
    const struct plan_table *table = pair->pair->table;
    const struct eval_kind *prefill = &eval->kinds[pair->prefill], *decode = &eval->kinds[pair->decode];
    const double *cost_p = prefill->cost_p[k], *cost_q = decode->cost_q[k];
    const struct ts_class *class_ = eval_class(eval, k);
    double fixed = eval->class_price[k] + prefill->hop_price * class_->prompt_tokens +
                   decode->hop_price * class_->output_tokens;
    double weight = 1 + eval->attainment_price, points = prefill->least_p[k] + decode->least_q[k];
    for (enum ts_cost_codec c = 0; c < TS_COST_CODEC_COUNT; c++) {
        uint32_t slot = plan_columns_slot(k, c), end = table->first[slot + 1];
        double least = fixed + card_price * plan_columns_bytes(eval->source, k, c);
        if (weight * table->gain_max[slot] - least - points <= most) {
            continue;
        }
        for (uint32_t x = table->first[slot]; x < end; x++) {
            double lift = weight * table->gain[x] - least - cost_p[table->p[x]] - cost_q[table->q[x]];
            if (lift > most) {
                most = lift;
                *best = (struct eval_column){.length_class = k,
                                             .codec = c,
                                             .p = table->p[x],
                                             .q = table->q[x],
                                             .gain = table->gain[x]};
            }
        }
    }
    return most;
}

/* Keeps what is better than all that the kinds on both sides were offered so far. */
static void price_pair(struct plan_eval *eval, uint32_t index)
{
    const struct eval_pair *pair = &eval->pairs[index];
    struct eval_kind *prefill = &eval->kinds[pair->prefill], *decode = &eval->kinds[pair->decode];
    double card_price = price_of_cards(eval, pair->pair->cards, pair->pair->card_count);
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        struct eval_offer *a = &prefill->offers[k], *b = &decode->offers[k];
        struct eval_column best = {.length_class = k};
        double floor = fmin(a->lift, b->lift);
        double lift =
            eval_class(eval, k)->rate > 0 ? best_column(eval, pair, k, card_price, floor, &best) : floor;
        best.pair = index;
        if (lift > a->lift) {
            *a = (struct eval_offer){lift, best};
        }
        if (lift > b->lift) {
            *b = (struct eval_offer){lift, best};
        }
    }
}

double eval_lift(const struct plan_eval *eval, const struct eval_column *column)
{
    const struct eval_pair *pair = &eval->pairs[column->pair];
    const struct eval_kind *prefill = &eval->kinds[pair->prefill], *decode = &eval->kinds[pair->decode];
    const struct plan_point *p = &prefill->kind->shape->points[column->p];
    const struct plan_point *q = &decode->kind->shape->points[column->q];
    const struct plan_pair *way = pair->pair;
    uint32_t k = column->length_class;
    double cards = price_of_cards(eval, way->cards, way->card_count);
    return (1 + eval->attainment_price) * column->gain - eval->class_price[k] -
           prefill->price[EVAL_PREFILL] * p->prefill[k] - decode->price[EVAL_COMPUTE] * q->compute[k] -
           decode->price[EVAL_MEMORY] * q->memory[k] -
           cards * plan_columns_bytes(eval->source, k, column->codec) -
           prefill->hop_price * eval_class(eval, k)->prompt_tokens -
           decode->hop_price * eval_class(eval, k)->output_tokens;
}

/* False when it is there already: it gains by no more than the tolerance of the last solve. */
bool eval_add_column(struct plan_eval *eval, const struct eval_column *column)
{
    uint32_t *last = &eval->pairs[column->pair].last[column->length_class];
    for (uint32_t c = *last; c != EVAL_NONE; c = eval->columns[c].before) {
        const struct eval_column *old = &eval->columns[c];
        if (old->p == column->p && old->q == column->q && old->codec == column->codec) {
            return false;
        }
    }
    EVAL_RESERVE(eval, columns, eval->column_count + 1);
    struct eval_column *fresh = &eval->columns[eval->column_count];
    *fresh = *column;
    fresh->before = *last;
    *last = eval->column_count++;
    return true;
}

bool eval_price_columns(struct plan_eval *eval)
{
    double lift = 0;
    price_kinds(eval);
    for (uint32_t i = 0; i < eval->present_pair_count; i++) {
        price_pair(eval, eval->present_pairs[i]);
    }
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        double most = 0;
        for (uint32_t i = 0; i < eval->present_count; i++) {
            const struct eval_offer *offer = &eval->kinds[eval->present[i]].offers[k];
            if (offer->lift > 0 && eval_add_column(eval, &offer->column)) {
                most = fmax(most, offer->lift);
            }
        }
        lift += most * eval_class(eval, k)->rate;
    }
    return lift > IMPROVEMENT * eval->rate;
}
