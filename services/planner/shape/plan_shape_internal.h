/*
 * Between the files of the lower level (plan_shape*.c): the demand's mix, tables of the cost model for one
 * layer on one kind of rank, and a pipeline of such ranks on which order, layers and operating points work.
 */
#ifndef PLAN_SHAPE_INTERNAL_H
#define PLAN_SHAPE_INTERNAL_H

#include "services/planner/shape/plan_shape.h"

/* --- The demand, as all shapes see it --- */

struct plan_mix {
    uint32_t classes;
    double weight[TS_CLASSES_MAX];      /* share of the requests */
    double prompt[TS_CLASSES_MAX];      /* tokens */
    double attended_sq[TS_CLASSES_MAX]; /* sum of squares that the attention core pays for */
    double spread[TS_CLASSES_MAX];      /* E[s^2] / E[s]^2 of the prompt */
    double output[TS_CLASSES_MAX];      /* tokens that decode makes */
    double context[TS_CLASSES_MAX];     /* mean over a request's time in decode */
    double context_sq[TS_CLASSES_MAX];  /* mean of the square, likewise */
    double held_prompt[TS_CLASSES_MAX], total[TS_CLASSES_MAX]; /* tokens of KV after prefill, at the end */
    double step_limit[TS_CLASSES_MAX], step_limit_max; /* time between tokens that deadlines allow; 0 = any */
    double mean_prompt, mean_output;                   /* over requests */
    double mean_context, mean_context_sq;              /* over sequences in decode */
    double rate, burst;                                /* of the demand */
};

void plan_mix_init(struct plan_mix *mix, const struct ts_model *model, const struct ts_demand *demand);
/* Tokens of KV that a request of class k leaves behind in this phase; the most or least of all classes. */
double plan_mix_holds(const struct plan_mix *mix, enum ts_phase phase, uint32_t k);
double plan_mix_held(const struct plan_mix *mix, enum ts_phase phase, bool longest);
/* Squared coefficient of variation of the arrivals at a replica that gets `rate` of them: those that are
 * picked at random from a stream are the more Poisson the fewer they are (Whitt's Queueing Network Analyzer,
 * 1983). */
double plan_mix_burst(const struct plan_mix *mix, double rate);
/* Room, in mean sequences, for a mean batch with a variance of `noise` times itself to fluctuate in
 * (square-root staffing), and the other way. */
double plan_mix_capacity(double batch, double noise);
double plan_mix_batch(double capacity, double noise);

/* --- One layer, and the head, on one rank of `tp` equal devices --- */

#define PLAN_GRID_OCTAVE 4                           /* knots for each doubling of the batch */
#define PLAN_GRID_COUNT  (13 * PLAN_GRID_OCTAVE + 1) /* 1 .. 8,192 sequences */
#define PLAN_GRID_MOST   8192.0

struct plan_unit {
    uint16_t type, inner; /* of the cluster; id of the link between its ranks */
    uint8_t tp;
    double usable_bytes, layer_bytes, kv_bytes; /* of the rank; one layer; one layer and token */
    double head_bytes[2][2];                    /* beside layers: [first stage][last stage] */
    double step_s;
    double batch_prefill; /* a layer: a whole batch of prompts */
    double prefill[TS_CLASSES_MAX],
        busy[TS_CLASSES_MAX];          /* a layer: one prompt alone; its share of a batch */
    double step_share[TS_CLASSES_MAX]; /* of constants that a prompt bears in a batch */
    double head_alone, head_busy[TS_CLASSES_MAX];
    double context_s;             /* a layer: one token of context */
    double grid[PLAN_GRID_COUNT]; /* a layer: decode by batch, no context */
    double head[PLAN_GRID_COUNT];
};

/* type, inner and tp are set; the rest follows. */
void plan_unit_init(struct plan_unit *unit, const struct ts_cluster *cluster, const struct ts_model *model,
                    const struct plan_mix *mix, const struct ts_link *link);

/* Where a batch (>= 1) lies between the knots, and value and slope there: convex if the table is. */
struct plan_knot {
    uint32_t low;
    double over, inverse; /* from the knot below; 1 / distance of the two */
};
struct plan_slope {
    double value, slope;
};
double plan_grid_knot(uint32_t i); /* batch of knot i */
struct plan_knot plan_knot_of(double batch);

static inline struct plan_slope plan_unit_at(const double grid[PLAN_GRID_COUNT], const struct plan_knot *knot)
{
    double slope = (grid[knot->low + 1] - grid[knot->low]) * knot->inverse;
    return (struct plan_slope){grid[knot->low] + slope * knot->over, slope};
}

/* --- A pipeline --- */

struct plan_rank { /* one stage */
    const struct plan_unit *unit;
    uint8_t part;
    uint16_t layers;
    double hop_latency_s, hop_token_s; /* activations to the next stage, of one token; 0 at the last */
};

struct plan_pipe {
    enum ts_phase phase;
    uint32_t count;
    struct plan_rank ranks[TS_STAGES_MAX];
    uint32_t layers; /* of the model */
};

/* Bytes of weights on each device of stage i with `layers`, and tokens of KV that fit beside them. */
double plan_pipe_weights(const struct plan_pipe *pipe, uint32_t i, uint32_t layers);
double plan_pipe_kv_tokens(const struct plan_pipe *pipe); /* of the tightest stage; may be negative */
/* Most layers that stage i can hold with `tokens` of KV. */
uint32_t plan_pipe_most_layers(const struct plan_pipe *pipe, uint32_t i, double tokens);

/* Time between two tokens of a sequence with `batch` sequences of `context` tokens each in flight: each of
 * the `count` stages has one of as many micro-batches. Slopes per sequence and per token of context. */
struct plan_step {
    double time, per_sequence, per_token;
};
struct plan_step plan_pipe_step(const struct plan_pipe *pipe, double batch, double context);
/* The largest batch up to `most` whose step takes at most `limit`; 0 when not even the least (one sequence
 * for each stage, or `most`) does. */
double plan_pipe_batch(const struct plan_pipe *pipe, double context, double limit, double most);

/* --- Order of the stages (plan_shape_order.c) --- */

/* `cost[i * count + j]`: from part i to part j; `ends[i]`: what is better at the ends, by which ties are
 * broken (then by index). Writes the order of least cost; infinite costs are avoided if possible. */
double plan_order_parts(uint32_t count, const double *cost, const double *ends, uint8_t *order);

/* --- Layers (plan_shape_layers.c) --- */

#define PLAN_SPLITS_MAX 3

/* Ways to cut the layers that are worth scoring; returns how many (0 = the model does not fit). Each writes
 * `count` numbers of layers. */
uint32_t plan_layers_prefill(const struct plan_pipe *pipe, const struct plan_mix *mix,
                             uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX]);
/* `time_share`: of the time between tokens that is decode's own. */
uint32_t plan_layers_decode(const struct plan_pipe *pipe, const struct plan_mix *mix, double time_share,
                            uint16_t splits[PLAN_SPLITS_MAX][TS_STAGES_MAX]);

/* --- Operating points (plan_shape_points.c) --- */

struct plan_draft { /* a shape before it is kept */
    struct plan_shape shape;
    struct plan_point points[PLAN_POINTS_MAX];
    struct plan_follow follow;                         /* of all points, when there is more than one stage */
    double shares[PLAN_POINTS_MAX][3][TS_CLASSES_MAX]; /* prefill, compute, memory */
};

/* Fills times, fits, points and score of a pipe whose layers are set. */
void plan_points_make(const struct plan_pipe *pipe, const struct plan_mix *mix,
                      const struct ts_demand *demand, struct plan_draft *draft);

#endif
