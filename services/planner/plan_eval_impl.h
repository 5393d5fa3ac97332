/*
 * Inside the evaluator: one run, from the groups of a state to rows, columns and duals. plan_eval.c builds
 * and solves, plan_eval_result.c reads the solution, plan_eval_plan.c makes a plan of it.
 */
#ifndef PLAN_EVAL_IMPL_H
#define PLAN_EVAL_IMPL_H

#include "services/planner/plan_columns.h"
#include "services/planner/plan_eval.h"
#include "services/planner/plan_lp.h"

#define EVAL_NONE UINT32_MAX

enum eval_resource { EVAL_PREFILL, EVAL_COMPUTE, EVAL_MEMORY, EVAL_RESOURCES };

struct eval_kind { /* equal groups of the state */
    struct plan_kind *kind;
    uint32_t count;
    uint32_t row[EVAL_RESOURCES]; /* EVAL_NONE where the phase has none */
    double price[EVAL_RESOURCES];
    double hop_price; /* of one token through the pipeline, by the cards */
    /* What one request/s of class k costs at a point, by the prices: prefill side and decode side. */
    double cost_p[TS_CLASSES_MAX][PLAN_POINTS_MAX], cost_q[TS_CLASSES_MAX][PLAN_POINTS_MAX];
};

struct eval_pair {
    const struct plan_pair *pair;
    uint32_t prefill, decode;      /* of `kinds` */
    uint32_t last[TS_CLASSES_MAX]; /* newest of `columns` of the class, or EVAL_NONE */
};

struct eval_column { /* a column of the program; index + `column_base` there */
    uint32_t pair, length_class;
    enum ts_cost_codec codec;
    uint8_t p, q;
    double gain;
    uint32_t before; /* the next older of the same pair and class */
};

struct eval_card {
    uint32_t row;        /* EVAL_NONE while it is not in the program */
    uint32_t idle_runs;  /* since its price was above 0 */
    bool active;         /* belongs into the program: it was short of late */
    bool touched;        /* some pair or kind of the state loads it */
    double limit, price; /* bytes/s, usable */
    double load;         /* scratch */
};

struct plan_eval {
    struct plan_shapes *shapes;
    const struct plan_problem *problem;
    struct plan_columns *source;
    struct plan_lp *lp;
    uint64_t runs;
    double rate; /* of the demand */

    /* The run at hand. */
    struct eval_kind *kinds;
    struct eval_pair *pairs;
    struct eval_column *columns;
    uint32_t *kind_of_group;
    uint32_t kind_count, pair_count, column_count, group_count;
    size_t kinds_capacity, pairs_capacity, columns_capacity, kind_of_group_capacity;
    uint32_t class_row[TS_CLASSES_MAX], attainment_row; /* EVAL_NONE: none */
    double class_price[TS_CLASSES_MAX], attainment_price;
    struct eval_card *cards; /* [node * 2 + in] */
    uint32_t card_count;
    uint32_t column_base; /* 1 when the program's first column is the rate of PLAN_GOODPUT */
    bool solved;          /* the values of the program are those of `columns` */

    /* Its result. */
    struct ts_flow *flows;
    struct plan_price *prices;
    double *worth;
    size_t flows_capacity, prices_capacity, worth_capacity;
};

static inline struct eval_card *eval_card_of(const struct plan_eval *eval, const struct plan_card *card)
{
    return &eval->cards[(size_t)card->node * 2 + card->in];
}

double eval_value(const struct plan_eval *eval, uint32_t column); /* requests/s */
/* Adds what one request/s of the column puts on each card, times `rate`, to its `load`. */
void eval_load_cards(const struct plan_eval *eval, const struct eval_column *column, double rate);
void eval_read_result(struct plan_eval *eval, const struct plan_state *state, double objective,
                      struct plan_result *out);
struct ts_plan *eval_make_plan(const struct plan_eval *eval, const struct plan_state *state,
                               const struct plan_result *result, const char *algorithm);

#endif
