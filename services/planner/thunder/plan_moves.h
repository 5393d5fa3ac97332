/*
 * Moves of the search over groups, as values: a move takes up to three groups out of a state and puts up to
 * three in. The paper's four (flip a phase, split a group, merge two, move devices between groups) are all of
 * this form, and so are a change of the tensor-parallel degree, an exchange of devices between two groups,
 * and growing from or shrinking to the devices that are idle.
 *
 * plan_moves_list walks the neighbourhood of a state and keeps the most promising moves; the linear program
 * is then run for few. A move is valued by the lesser of two estimates: the coarse gauge of what the groups
 * serve (plan_gauge.h), and the bound by the prices of the last program (plan_worth.h), which knows classes,
 * memory and cards. One thread; everything is owned by the caller.
 */
#ifndef PLAN_MOVES_H
#define PLAN_MOVES_H

#include "common/base/ts_rng.h"
#include "services/planner/thunder/plan_gauge.h"
#include "services/planner/thunder/plan_worth.h"

#define PLAN_MOVE_GROUPS 3

enum plan_move_kind {
    PLAN_MOVE_FLIP,    /* another phase */
    PLAN_MOVE_RESHAPE, /* another TP degree */
    PLAN_MOVE_SPLIT,   /* one into two, or one into one and idle devices */
    PLAN_MOVE_MERGE,   /* two into one */
    PLAN_MOVE_SHIFT,   /* devices between two groups, an exchange included */
    PLAN_MOVE_GROW     /* with devices that are idle: a group grows, or a new one */
};

struct plan_move {
    enum plan_move_kind kind;
    uint8_t out_count, in_count;
    uint32_t out[PLAN_MOVE_GROUPS];         /* indices of groups, ascending */
    struct plan_group in[PLAN_MOVE_GROUPS]; /* with their shapes */
    double estimate;                        /* of the objective afterwards */
};

void plan_move_apply(struct plan_state *state, const struct plan_move *move);
/* Equal for groups of equal parts, TP and phase: what the tabu list holds. */
uint64_t plan_group_key(const struct plan_group *group);

/*
 * The best TP of given parts and phase, remembered: that of plan_shape_choose for one part; for several the
 * best of the four in which each part has the largest degree up to 1, 2, 4 or 8 (moves try the others). To
 * make a shape costs more than a run of the linear program, so a neighbourhood is granted a number of new
 * ones; parts not seen before are passed over when it is used up, until another time.
 */
struct plan_picks;
struct plan_picks *plan_picks_new(struct plan_shapes *shapes);
void plan_picks_destroy(struct plan_picks **picks);
void plan_picks_grant(struct plan_picks *picks, uint32_t fresh); /* UINT32_MAX: as many as it takes */
/* Sets tp of all parts and the shape; false when the parts cannot hold the model, or are passed over. */
bool plan_picks_find(struct plan_picks *picks, struct plan_group *group);
struct plan_shapes *plan_picks_shapes(const struct plan_picks *picks);

/* The tabu list: groups that were taken out a short while ago may not come back. */
#define PLAN_TABU_MAX 64
struct plan_tabu {
    uint64_t keys[PLAN_TABU_MAX];
    uint32_t length, next; /* length 0 = nothing is tabu */
};
void plan_tabu_reset(struct plan_tabu *tabu, uint32_t length);
/* What `move` takes out of `state`, which it has not been applied to yet. */
void plan_tabu_add(struct plan_tabu *tabu, const struct plan_state *state, const struct plan_move *move);
bool plan_tabu_has(const struct plan_tabu *tabu, const struct plan_move *move);

/* What to keep of a neighbourhood. */
#define PLAN_MOVES_TOP 40 /* by estimate */
#define PLAN_MOVES_ANY 6  /* drawn evenly from all: estimates are optimistic where prices are zero */

struct plan_moves {
    struct plan_move items[PLAN_MOVES_TOP + PLAN_MOVES_ANY]; /* by falling estimate, the drawn ones last */
    uint32_t count, top_count;
    uint64_t offered; /* moves seen */
};

struct plan_moves_from {
    struct plan_picks *picks;
    struct plan_worth *worth; /* set to the state's prices */
    struct plan_gauge *gauge; /* set to the state */
    const struct plan_state *state;
    const struct plan_result *result;
    uint64_t limit; /* about how many moves to value; beyond it the neighbourhood is sampled */
    uint32_t fresh; /* new shapes granted */
    bool inside;    /* new groups stand in one node each */
    struct ts_rng *rng;
};

void plan_moves_list(const struct plan_moves_from *from, struct plan_moves *moves);

/* For the pieces of plan_moves. */
struct plan_moves_walk {
    const struct plan_moves_from *from;
    const struct plan_problem *problem;
    struct plan_moves *moves;
    uint64_t valued;   /* moves valued so far */
    double served;     /* the gauge of the state */
    uint32_t any_seen; /* for drawing evenly */
    uint32_t worst;    /* index of the lowest estimate of the full list */
    uint32_t *idle;    /* per cell */
    uint32_t *twin;    /* per group: the first group equal to it */
};
void plan_moves_begin(struct plan_moves_walk *walk, const struct plan_moves_from *from,
                      struct plan_moves *moves); /* nothing kept yet */
void plan_moves_offer(struct plan_moves_walk *walk, struct plan_move *move);
void plan_moves_settle(struct plan_moves *moves);    /* orders what was offered */
void plan_moves_pools(struct plan_moves_walk *walk); /* split, merge, shift, grow */

#endif
