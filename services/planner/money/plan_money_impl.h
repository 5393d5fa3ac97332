/*
 * Inner to plan_money*.c: the machine of plan_money.h and its pieces. A *purchase* is a set of devices that
 * live; it is judged by a search on the sub-cluster. The *incumbent* is the best purchase of the goal at hand
 * (of one budget, where a frontier is asked).
 */
#ifndef PLAN_MONEY_IMPL_H
#define PLAN_MONEY_IMPL_H

#include "services/planner/bound/plan_bound.h"
#include "services/planner/money/plan_money.h"

#define MONEY_EPS  1e-9
#define MONEY_MORE 6 /* times the effort: for all offers, and for the incumbent at the end */

enum money_stage {
    MONEY_BOUND,    /* all offers, then the fractional program */
    MONEY_STARTS,   /* purchases to begin with */
    MONEY_EXCHANGE, /* the incumbent's neighbours */
    MONEY_POLISH,   /* the incumbent again, with more effort; then the next budget of a frontier */
    MONEY_LIMITS,   /* the bound of each point of the frontier */
    MONEY_DONE
};

struct money_move {
    int32_t drop;              /* group of the incumbent's plan; -1 = none */
    uint32_t from, from_count; /* cell, and how many of the incumbent's devices there to give up; 0 = none */
    uint32_t cell, count;      /* devices to add; 0 = none */
    double rank;               /* tried from the highest */
};

/* Of which size the first that reaches the target is searched, by halving. */
struct money_ladder {
    uint32_t fails, reaches;
};

struct plan_money {
    struct plan_problem problem; /* over all offers */
    struct ts_cluster *cluster;  /* all alive: its cells are the offers */
    uint32_t *cell_first;        /* first device of each cell */
    struct plan_money_ask ask;
    const struct plan_algorithm *algorithm;
    uint64_t allowed, spent;
    enum money_stage stage;
    uint32_t purchases;

    /* The goal at hand. */
    double budget, target;
    uint32_t point;            /* of a frontier */
    struct ts_plan *incumbent; /* NULL = none yet */
    double price, objective;   /* its */

    /* The purchase being judged. */
    struct ts_cluster *sub;
    struct plan_problem sub_problem;
    struct ts_plan *base; /* what its search starts from; may be NULL */
    struct plan_search *search;
    uint64_t search_spent, search_effort;
    bool *alive; /* scratch */

    /* Starts. */
    struct ts_plan *all_plan; /* of all offers */
    uint32_t start, attempt;  /* which start, and how often it has been tried */
    struct money_ladder ladder;
    uint32_t size;         /* tried last */
    double last_objective; /* of the purchase judged last; negative = no plan */
    uint32_t last_devices;
    double *type_value; /* objective per device where the type stands alone */

    /* Exchange: around a centre, which is the incumbent, then the cheaper points next to it. */
    struct ts_plan *centre;
    double centre_price, centre_objective;
    uint32_t centres;
    uint64_t exchange_from; /* work spent when it began */
    struct money_move *moves;
    uint32_t move_count, move_next, tried;
    size_t move_capacity;
    uint64_t *seen; /* purchases judged, by hash */
    size_t seen_count, seen_capacity;

    /* The fractional program. */
    struct plan_shapes *shapes;
    struct plan_bound *bound;
    double bound_value;    /* while the price of a target is halved: that cannot do */
    double fraction_price; /* and that can */
    uint32_t bisections;
    double *fraction; /* devices of each type */

    struct plan_money_point *points; /* none beats another; cheapest first */
    uint32_t point_count;
    size_t point_capacity;
};

/* plan_money.c. Judges `m->alive` from `base` (taken); false when it was judged before or cannot hold the
 * model. `times` the usual effort; `again`: even if it was judged before. */
bool money_judge(struct plan_money *m, struct ts_plan *base, uint32_t times, bool again);
bool money_reaches(const struct plan_money *m, double objective); /* the target; true without one */
void money_clear_alive(struct plan_money *m);
void money_set_alive(struct plan_money *m, const struct ts_plan *plan);      /* its devices, besides others */
void money_add_devices(struct plan_money *m, uint32_t cell, uint32_t count); /* of those not alive */
double money_price_of_type(const struct plan_money *m, uint32_t type);

/* plan_money_starts.c. All offers, once, before the fractional program, which takes long: an answer to be
 * stopped with. False when that is done. */
bool money_start_all(struct plan_money *m);
/* The next start that was opened for judgement; false after the last. */
bool money_next_start(struct plan_money *m);
/* One solution of the fractional program for the goal at hand; true when purchase and bound are known. */
bool money_fraction(struct plan_money *m);

/* plan_money_moves.c */
void money_list_moves(struct plan_money *m); /* of the centre */
bool money_next_move(struct plan_money *m);  /* opened for judgement; false after the last */

/* plan_money_plan.c: pieces of plans. Results are the caller's. */
double money_plan_price(const struct ts_cluster *cluster, const struct ts_plan *plan);
uint32_t money_plan_devices(const struct ts_plan *plan);
double money_group_price(const struct ts_cluster *cluster, const struct ts_group *group);
double money_group_use(const struct ts_plan *plan, uint32_t group); /* requests/s attained through it; half
                                                                      where two groups share them */
struct ts_plan *money_plan_copy(const struct ts_plan *plan,
                                const bool *keep); /* groups; flows between kept */
void money_plan_prune(struct ts_plan **plan);      /* groups that nothing flows through go */

#endif
