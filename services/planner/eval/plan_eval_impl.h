/*
 * Inside the evaluator. plan_eval.c builds and solves the program, plan_eval_price.c finds columns worth
 * adding, plan_eval_result.c reads the solution, plan_eval_plan.c makes a plan of it.
 *
 * The program may outlive a run: kinds and pairs that were seen keep their rows and columns, and a kind that
 * the state at hand does not have is a row with limit 0. Where a state differs from the last by few of its
 * kinds the last basis is nearly right. Otherwise, and when too much of the program is absent, it starts
 * over, with the columns that are best at the last prices of each kind.
 */
#ifndef PLAN_EVAL_IMPL_H
#define PLAN_EVAL_IMPL_H

#include "services/planner/eval/plan_columns.h"
#include "services/planner/eval/plan_eval.h"
#include "services/planner/eval/plan_lp.h"

#define EVAL_NONE UINT32_MAX

enum eval_resource { EVAL_PREFILL, EVAL_COMPUTE, EVAL_MEMORY, EVAL_RESOURCES };

struct eval_column { /* a column of the program; index + `column_base` there */
    uint32_t pair, length_class;
    enum ts_cost_codec codec;
    uint8_t p, q;
    double gain;
    uint32_t before; /* the next older of the same pair and class, or EVAL_NONE */
};

struct eval_kind { /* equal groups */
    const struct plan_kind *kind;
    uint32_t count;               /* in the state at hand; 0 = absent */
    uint32_t limit;               /* of the rows, as the program has it */
    uint32_t row[EVAL_RESOURCES]; /* EVAL_NONE where the phase has none */
    double price[EVAL_RESOURCES];
    bool guessed;     /* the price is: no column of this kind is in the program yet */
    double hop_price; /* of one token through the pipeline, by the cards */
    /* What one request/s of class k costs at a point, by the prices: prefill side and decode side. */
    double cost_p[TS_CLASSES_MAX][PLAN_POINTS_MAX], cost_q[TS_CLASSES_MAX][PLAN_POINTS_MAX];
    double least_p[TS_CLASSES_MAX], least_q[TS_CLASSES_MAX];
    struct eval_offer { /* the best column of the class that has this kind on either side */
        double lift;    /* of the objective, by each request/s */
        struct eval_column column;
    } offers[TS_CLASSES_MAX];
};

struct eval_pair {
    const struct plan_pair *pair;
    uint32_t prefill, decode;      /* of `kinds` */
    uint32_t last[TS_CLASSES_MAX]; /* newest of `columns` of the class, or EVAL_NONE */
};

struct eval_card {
    uint32_t row;       /* EVAL_NONE while it is not in the program */
    bool active;        /* belongs into the program: it was overloaded without */
    uint32_t idle_runs; /* in the program since it had a price */
    bool touched;       /* some pair or kind of the state loads it */
    double limit;       /* bytes/s, usable */
    double price, load;
};

struct plan_eval {
    struct plan_shapes *shapes;
    const struct plan_problem *problem;
    struct plan_columns *source;
    bool borrows_source; /* of another evaluator */
    struct plan_lp *lp;
    uint64_t runs;
    double rate; /* of the demand */

    /* The program. */
    struct eval_kind *kinds;
    struct eval_pair *pairs;
    struct eval_column *columns;
    uint32_t *slot_of_kind, *slot_of_pair; /* [id] of plan_columns: index + 1 of `kinds`, `pairs`; 0 = none */
    uint32_t kind_count, pair_count, column_count;
    size_t kinds_capacity, pairs_capacity, columns_capacity, slot_of_kind_capacity, slot_of_pair_capacity;
    double (*last_price)[EVAL_RESOURCES]; /* [id of kind] when it was last in a state; below 0 = never */
    size_t last_price_capacity;
    uint32_t last_price_count;
    uint32_t kind_ids, pair_ids;                        /* how many of the slots are set */
    uint32_t class_row[TS_CLASSES_MAX], attainment_row; /* EVAL_NONE: none */
    double class_price[TS_CLASSES_MAX], attainment_price;
    double going[TS_PHASE_BOTH + 1][EVAL_RESOURCES]; /* price of a row by the shape's score: for guesses */
    struct eval_card *cards;                         /* [id] */
    uint32_t card_count;
    size_t cards_capacity;
    struct eval_kept {
        const struct plan_pair *pair;
        struct eval_column column;
    } * kept; /* scratch: columns that outlive the program */
    size_t kept_capacity;
    struct plan_lp_cell *cells; /* scratch of a card's row */
    size_t cells_capacity;
    uint32_t column_base; /* 1 when the program's first column is the rate of PLAN_GOODPUT */
    bool built, solved;   /* the program has its first rows; its values are those of `columns` */

    /* The state at hand. */
    uint32_t *kind_of_group, *present, *present_pairs; /* indices of kinds and pairs */
    uint32_t group_count, present_count, present_pair_count;
    size_t kind_of_group_capacity, present_capacity, present_pairs_capacity;

    /* Its result. */
    struct ts_flow *flows;
    struct plan_price *prices;
    double *worth;
    size_t flows_capacity, prices_capacity, worth_capacity;
};

#define EVAL_RESERVE(eval, array, need)                                                                      \
    ts_array_reserve((void **)&(eval)->array, &(eval)->array##_capacity, (need), sizeof *(eval)->array)

static inline const struct ts_class *eval_class(const struct plan_eval *eval, uint32_t k)
{
    return &eval->problem->demand->classes[k];
}

static inline struct eval_card *eval_card_of(const struct plan_eval *eval, const struct plan_card *card)
{
    return &eval->cards[card->id];
}

struct plan_eval *eval_new(struct plan_shapes *shapes, struct plan_columns *source); /* NULL: its own */

/* What each request of a column gains at the prices at hand. */
double eval_lift(const struct plan_eval *eval, const struct eval_column *column);
bool eval_add_column(struct plan_eval *eval, const struct eval_column *column); /* false: it is there */
/* Adds, for each class, the best column of each kind at the prices at hand to `columns`. True when columns
 * that were not there might still lift the objective. */
bool eval_price_columns(struct plan_eval *eval);

void eval_find_cards(struct plan_eval *eval); /* those that pairs have brought up since */
/* What a card is to a person: its limit and index in struct plan_price. */
enum plan_limit eval_card_limit(const struct plan_eval *eval, uint32_t card, uint32_t *index);

double eval_value(const struct plan_eval *eval, uint32_t column); /* requests/s */
/* Adds what `rate` requests/s of a class put on each card to its `load`: KV of the pair, and activations of
 * both pipelines. */
void eval_load_cards(const struct plan_eval *eval, const struct plan_pair *pair, uint32_t k,
                     enum ts_cost_codec codec, double rate);
void eval_trim(struct plan_eval *eval); /* before kinds and pairs are asked for: plan_columns_trim */
void eval_read_result(struct plan_eval *eval, const struct plan_state *state, double objective,
                      struct plan_result *out);
struct ts_plan *eval_make_plan(const struct plan_eval *eval, const struct plan_state *state,
                               const struct plan_result *result, const char *algorithm);

#endif
