/*
 * The lower level: what one group can do in one phase. Given the parts of a group (cells with counts and TP
 * degrees) it finds the order of the stages (dynamic programming over links) and the layers of each stage
 * (dynamic programming under the memory limits: least latency for prefill, most throughput for decode and for
 * colocated), and derives from the cost model the operating points that the linear program chooses among.
 * TP only inside a node among equal devices; PP elsewhere.
 *
 * Shapes are cached by what matters (types, counts, TP, links, phase), so two groups of equal make share one.
 * A shape is immutable and lives as long as its cache. One thread.
 *
 * Operating points. A prefill replica may run at several utilisations: the higher, the longer the wait. A
 * decode replica at several step times: the longer, the larger the batch. A colocated one at pairs of both. A
 * point states what one request/s of a class takes of the replica (shares: the sum over requests is at most 1
 * for each of prefill, compute, memory) and how long requests wait there. Shares are convex along the points,
 * so a mixture of points never does better than a point between them could.
 *
 * Waits of prefill are those of an M/G/1 queue, by Allen and Cunneen for bursts, after hold_s, which is left
 * of the decode step that a colocated prompt comes upon: P(wait > x) = wait_share e^(-(x - hold_s) / wait_s).
 * Short prompts also follow long ones through the stages of a pipeline (struct plan_follow).
 *
 * The time between n tokens is normal: mean step_s + start_s / n, variance step_sd_s^2 (the batch fluctuates)
 * + stall_s2 / n + start_s2 / n^2 (colocated: prompts that are computed between two steps, and before the
 * first).
 *
 * README.md derives all of it.
 */
#ifndef PLAN_SHAPE_H
#define PLAN_SHAPE_H

#include "services/planner/plan_problem.h"

#define PLAN_POINTS_MAX 16

/* A prompt that comes after a longer one meets it again at each stage, and cannot leave the last before it.
 */
struct plan_follow {
    uint32_t count;
    double share; /* of a prefill: what comes after the first stage */
    double most;  /* prefill time of a whole batch: longer prompts are computed in pieces */
    double prefill_s[TS_CLASSES_MAX], weight[TS_CLASSES_MAX]; /* at most `most` */
};

struct plan_point { /* the arrays have an item for each class of the demand and are never NULL */
    double wait_share, wait_s, hold_s;
    double follow_rate; /* prompts/s that come, over the idle share, at which gaps between them close */
    const struct plan_follow *follow; /* NULL: one stage */
    double step_s, step_sd_s, stall_s2, start_s, start_s2;
    double batch; /* mean sequences in decode */
    const double *prefill, *compute, *memory;
};

struct plan_shape_stage {
    uint8_t part; /* in the order of plan_shape_parts */
    uint8_t tp;
    uint16_t layers;
};

struct plan_shape {
    enum ts_phase phase;
    uint32_t id;   /* dense, in order of making */
    uint32_t gpus; /* devices in all */
    uint32_t stage_count;
    struct plan_shape_stage stages[TS_STAGES_MAX];
    double prefill_s[TS_CLASSES_MAX]; /* alone: arrival to token 0 */
    bool fits[TS_CLASSES_MAX];        /* a request of the class fits in the KV memory */
    double score;                     /* plan_shape_score */
    uint32_t point_count;
    const struct plan_point *points;
};

struct plan_shapes; /* the cache, for one problem */

struct plan_shapes *plan_shapes_new(const struct plan_problem *problem);
void plan_shapes_destroy(struct plan_shapes **shapes);
const struct plan_problem *plan_shapes_problem(const struct plan_shapes *shapes);

/* Sets group->shape. False when the group cannot hold the model, has too many stages or a TP that does not
 * divide: shape is NULL then (the answer is cached too). Every part has its tp. */
bool plan_shape_find(struct plan_shapes *shapes, struct plan_group *group);
/* Chooses tp for each part (the best by plan_shape_score among all that fit; beyond 64 choices, a descent by
 * one part at a time), then as above. */
bool plan_shape_choose(struct plan_shapes *shapes, struct plan_group *group);
/* The next choice of tp values after the present ones, in a fixed order, fitting or not; false after the
 * last. Starts from all parts with tp 0. For exhaustive search and for moves that change TP. */
bool plan_shape_next_tp(const struct plan_shapes *shapes, struct plan_group *group);
/* A shape with stages as given (a plan from elsewhere, with its own layers); parts follow from the stages. A
 * part whose stages differ in tp has tp 0. */
bool plan_shape_of_group(struct plan_shapes *shapes, const struct ts_group *from, struct plan_group *group,
                         struct ts_error *err);

/* A shape numbers the parts of its groups in an order of its own, the same for all groups that share it:
 * order[i] is the index in group->parts of the part that stages call i. */
void plan_shape_parts(struct plan_shapes *shapes, const struct plan_group *group,
                      uint8_t order[PLAN_PARTS_MAX]);

/* The group's standing alone: requests/s of the demand's mix within deadlines if it had an ideal partner.
 * What tp is chosen by; a first guess for searches. */
double plan_shape_score(const struct plan_shapes *shapes, const struct plan_shape *shape);

/* Fractions that a request misses its deadlines with, by kind; the one place where waits meet deadlines.
 * `visible_s` is the KV transfer's (0 when colocated). `p` the point of prefill, `d` of decode (the same when
 * colocated). */
struct plan_miss {
    double ttft, tpot, e2e; /* each alone */
    double any;             /* what the objective charges: min(1, misses at prefill + misses at decode) */
};
struct plan_miss plan_miss_of(const struct ts_class *class_, double prefill_s, const struct plan_point *p,
                              const struct plan_point *d, double visible_s);

#endif
