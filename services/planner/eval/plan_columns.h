/*
 * The columns of the evaluator's linear program, and the caches that make them cheap: what a request of class
 * k gains and takes when prefill kind i at point p hands it to decode kind j at point q by codec c.
 *
 *   kind    equal groups of a state: same shape on the same parts. Knows its place: which share of the layers
 *           lies on which node, and what its own pipeline sends between nodes for each token.
 *   table   gains D by (class, codec, p, q) of a pair of shapes over a path; all pairs with equal shapes and
 * an equally fast path share it. Columns that another one beats in gain and in shares are left out. pair two
 * kinds: their table, and what one byte of KV puts on the network cards between them.
 *
 * Path of a pair: layer l goes from the node of the stage of i that owns it to the node of the stage of j
 * that does. All nodes send at once; the slowest link or card, for its share of the layers, sets the pace, at
 * most at that card's full speed. Nodes without a link between them have no path, and the pair no column.
 *
 * Owned by one evaluator, one thread. Grows with use; plan_columns_trim forgets everything when that is too
 * much, so pointers hold until the next trim.
 */
#ifndef PLAN_COLUMNS_H
#define PLAN_COLUMNS_H

#include "services/planner/shape/plan_shape.h"

/* The usable share of a network card. Transfers share it, so one takes 1 / (1 - share) of its time alone in
 * the mean (the processor-sharing queue M/G/1, whatever the sizes): up to three times. Tighter limits would
 * be truer, and cost minutes for a thousand devices. */
#define PLAN_NIC_SHARE 0.65

/* What a request loses in the objective when its KV was coded with loss, so that exact KV is preferred where
 * it costs nothing. Part of the objective of every plan and so of every bound. */
#define PLAN_LOSSY_CHARGE 1e-4

/* What nodes share: a card is one direction of a node's network card, or of a link between two nodes that is
 * slower than both of their cards. */
struct plan_card {
    uint32_t id; /* node * 2 for out, node * 2 + 1 for in; links come after, in order of first use */
    double load; /* kind: activation bytes per token; pair: bytes per byte of KV */
};

struct plan_kind {
    uint32_t id; /* dense, in order of making */
    const struct plan_shape *shape;
    uint32_t stage_count;
    struct plan_kind_stage {
        uint16_t node, type, layers;
    } stages[TS_STAGES_MAX];
    uint32_t card_count;
    const struct plan_card *cards; /* hops of the pipeline between nodes */
};

struct plan_table { /* of (class, codec): items first[x] .. first[x + 1], x = class * codecs + codec */
    const uint32_t *first;
    const double *gain;      /* D less the charge; above 0 */
    const uint8_t *p, *q;    /* points */
    const double *gain_max;  /* of (class, codec); 0 = no columns */
    const double *visible_s; /* of (class, codec) */
};

struct plan_pair {
    uint32_t id;                              /* dense, in order of making */
    const struct plan_kind *prefill, *decode; /* the same when colocated */
    const struct plan_table *table;           /* NULL: no path */
    uint32_t card_count;
    const struct plan_card *cards;
};

struct plan_columns;

struct plan_columns *plan_columns_new(struct plan_shapes *shapes);
void plan_columns_destroy(struct plan_columns **columns);
/* Forgets everything when it holds more than a few ten megabytes. True when it did. */
bool plan_columns_trim(struct plan_columns *columns);

struct plan_kind *plan_columns_kind(struct plan_columns *columns, const struct plan_group *group);
const struct plan_pair *plan_columns_pair(struct plan_columns *columns, const struct plan_kind *prefill,
                                          const struct plan_kind *decode);

/* Cards never lose their ids. `speed` is what the link or adapter has, of which PLAN_NIC_SHARE is usable. */
uint32_t plan_columns_card_count(const struct plan_columns *columns);
double plan_columns_card_speed(const struct plan_columns *columns, uint32_t id);
bool plan_columns_card_is_link(const struct plan_columns *columns, uint32_t id, uint32_t *from, uint32_t *to);

/* Bytes of KV of one request of class k on the wire. */
double plan_columns_bytes(const struct plan_columns *columns, uint32_t k, enum ts_cost_codec codec);
/* What a column (point p, point q) loses to deadlines, by kind of deadline. */
struct plan_miss plan_columns_miss(const struct plan_columns *columns, const struct plan_pair *pair,
                                   uint32_t k, enum ts_cost_codec codec, uint32_t p, uint32_t q);

static inline uint32_t plan_columns_slot(uint32_t k, enum ts_cost_codec codec)
{
    return k * TS_COST_CODEC_COUNT + (uint32_t)codec;
}

#endif
