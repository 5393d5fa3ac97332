/* For planner_live.c, planner_cluster.c and planner_shares.c: a running cluster as a problem. */
#ifndef PLANNER_LIVE_IMPL_H
#define PLANNER_LIVE_IMPL_H

#include "services/planner/eval/plan_eval.h"
#include "services/planner/live/planner_live.h"

/* Up to so many workers each one is a group of its own. Of more, a part stands for the rest. */
#define LIVE_EACH_MAX  48
#define LIVE_PARTS_MAX 32 /* about; at least one of each kind */
#define LIVE_UNITS_MAX 256

/* Like workers, of which the first stands in the problem. One worker in a cluster that is not large. */
struct live_unit {
    uint32_t begin, count; /* of live_model.members */
};

struct live_share {           /* of the requests of its class */
    uint32_t prefill, decode; /* groups of `current` */
    uint32_t length_class;
    double share;
    enum ts_cost_codec codec;
    bool codec_known;
};

struct live_shares { /* by class */
    struct live_share *items;
    uint32_t count;
    size_t capacity;
};

struct live_plan {
    struct ts_plan *plan; /* groups are those of `current`, in its order; NULL = none */
    struct live_shares shares;
    double served; /* requests/s of the demand within deadlines */
};

enum live_flip_stage {
    LIVE_FLIP_ALL,   /* phases that serve all requests */
    LIVE_FLIP_MOST,  /* phases that carry most of the mix */
    LIVE_FLIP_SHARES /* the shares over the phases that were found */
};

/* The usable workers of one model: a problem of its own. */
struct live_model {
    uint32_t *workers; /* indices into the snapshot */
    uint32_t count;
    uint32_t *members; /* the same by units */
    struct live_unit *units;
    uint32_t unit_count;
    double per_unit, weight;    /* workers per unit; of all workers */
    struct ts_cluster *cluster; /* NULL: the workers do not state their shape */
    bool *known;                /* [from * nodes + to]: the link was measured or is in the cluster file */
    struct ts_model model;
    struct ts_demand demand; /* of the units */
    struct plan_problem problem;
    struct ts_plan *current;
    uint32_t *group_unit, *willing; /* of the groups of `current` */
    struct plan_search *search;     /* NULL: the algorithm has refused; or it is done */
    bool searched, settled;         /* re-route; flip */
    bool relaxed;                   /* less than the usual share in time is asked for */
    enum live_flip_stage stage;
    struct ts_demand more;  /* a little more than `demand` */
    struct ts_plan *turned; /* phases that were found */
    struct live_plan route, flip;
    bool adopted; /* the flip */
    char words[200], verdict[240];
};

struct planner_live {
    const struct planner_live_inputs *inputs;
    const struct ts_msg_snapshot *snapshot;
    const struct planner_live_past *past; /* NULL = at the re-route */
    struct ts_demand demand;
    bool measured;
    struct live_model *models;
    uint32_t model_count;
};

/* planner_cluster.c: units, cluster, current plan and what each group is willing to be. False, with words,
 * when the workers cannot be modelled. */
bool live_describe(const struct planner_live *live, struct live_model *m);
void live_forget(struct live_model *m);
/* Whether two workers are equal in all but name, host and phase. */
bool live_same_make(const struct ts_plan_worker *a, const struct ts_plan_worker *b);
/* planner_take.c: takes the plan over, with its shares and what it serves; or another one over its groups. */
void live_take(const struct planner_live *live, struct live_model *m, struct ts_plan *plan,
               struct live_plan *out);
void live_forget_plan(struct live_plan *plan);
/* planner_live.c */
void live_search(const struct planner_live *live, struct live_model *m, enum plan_depth depth);
/* The algorithm's plan over the groups as they stand. NULL when it has none, or over others. */
struct ts_plan *live_algorithm_plan(const struct planner_live *live, struct live_model *m);
/* The linear program over the groups of problem->current. */
struct ts_plan *live_route(const struct plan_problem *problem, struct ts_error *err);
uint32_t live_count_flips(const struct ts_plan *from, const struct ts_plan *plan);
/* Some requests are late whatever is done: then it is the rest that goodput asks for. True when there is such
 * a rest and it is to be searched anew. */
bool live_relax(struct live_model *m, double ceiling);
/* planner_flip.c */
bool live_worth_a_flip(const struct planner_live *live, struct live_model *m); /* could it pay at all? */
void live_open_flip(const struct planner_live *live, struct live_model *m);
bool live_settle_flip(const struct planner_live *live, struct live_model *m); /* false: the search goes on */
/* planner_shares.c */
void live_shares_of(const struct planner_live *live, const struct live_model *m, const struct ts_plan *plan,
                    struct live_shares *out);
void live_shares_add(struct live_shares *out, const struct live_share *share);
bool live_has_pair(const struct planner_live *live, const struct live_model *m);
/* planner_symmetry.c: the same shares, spread evenly over equal workers. */
void live_shares_even(const struct planner_live *live, const struct live_model *m, const struct ts_plan *plan,
                      struct live_shares *shares);

#endif
