#include "services/planner/plan_eval.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_eval_impl.h"

/* A run ends when no column could lift the objective by more than this share of all requests. */
#define IMPROVEMENT 1e-9
/* Rounds of pricing. Each adds columns that were not there, so it ends without; this bounds what a
 * stall near the tolerance may cost. */
#define ROUNDS_MAX 200
/* A card that was not short for so many runs leaves the program until it is overloaded again. */
#define CARD_IDLE_RUNS 16

#define RESERVE(eval, array, need)                                                                           \
    ts_array_reserve((void **)&(eval)->array, &(eval)->array##_capacity, (need), sizeof *(eval)->array)

static const struct ts_class *class_of(const struct plan_eval *eval, uint32_t k)
{
    return &eval->problem->demand->classes[k];
}

struct plan_eval *plan_eval_new(struct plan_shapes *shapes)
{
    struct plan_eval *eval = ts_xcalloc(1, sizeof *eval);
    eval->shapes = shapes;
    eval->problem = plan_shapes_problem(shapes);
    eval->source = plan_columns_new(shapes);
    eval->lp = plan_lp_new();
    eval->rate = ts_demand_rate(eval->problem->demand);
    const struct ts_cluster *cluster = eval->problem->cluster;
    eval->card_count = cluster->node_count * 2;
    eval->cards = ts_xcalloc(eval->card_count, sizeof *eval->cards);
    for (uint32_t n = 0; n < cluster->node_count; n++) {
        eval->cards[(size_t)n * 2].limit = PLAN_NIC_SHARE * cluster->nodes[n].nic_out_bytes_per_s;
        eval->cards[(size_t)n * 2 + 1].limit = PLAN_NIC_SHARE * cluster->nodes[n].nic_in_bytes_per_s;
    }
    return eval;
}

void plan_eval_destroy(struct plan_eval **eval)
{
    struct plan_eval *old = *eval;
    if (!old) {
        return;
    }
    plan_columns_destroy(&old->source);
    plan_lp_destroy(&old->lp);
    ts_free(old->kinds);
    ts_free(old->pairs);
    ts_free(old->columns);
    ts_free(old->kind_of_group);
    ts_free(old->cards);
    ts_free(old->flows);
    ts_free(old->prices);
    ts_free(old->worth);
    ts_free(old);
    *eval = NULL;
}

/* --- From groups to kinds and pairs --- */

static void find_kinds(struct plan_eval *eval, const struct plan_state *state)
{
    eval->kind_count = 0;
    eval->group_count = state->count;
    RESERVE(eval, kind_of_group, state->count + 1);
    RESERVE(eval, kinds, state->count + 1);
    for (uint32_t g = 0; g < state->count; g++) {
        struct plan_kind *kind = plan_columns_kind(eval->source, &state->groups[g]);
        uint32_t i = 0;
        while (i < eval->kind_count && eval->kinds[i].kind != kind) {
            i++;
        }
        if (i == eval->kind_count) {
            struct eval_kind *fresh = &eval->kinds[eval->kind_count++];
            fresh->kind = kind;
            fresh->count = 0;
            memcpy(fresh->price, kind->price, sizeof fresh->price);
        }
        eval->kinds[i].count++;
        eval->kind_of_group[g] = i;
    }
}

static void touch_cards(struct plan_eval *eval, const struct plan_card *cards, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        eval_card_of(eval, &cards[i])->touched = true;
    }
}

/* A card without bandwidth carries nothing. */
static bool passable(const struct plan_eval *eval, const struct plan_card *cards, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!(eval_card_of(eval, &cards[i])->limit > 0)) {
            return false;
        }
    }
    return true;
}

static void add_pair(struct plan_eval *eval, uint32_t i, uint32_t j)
{
    const struct plan_kind *prefill = eval->kinds[i].kind, *decode = eval->kinds[j].kind;
    const struct plan_pair *pair = plan_columns_pair(eval->source, prefill, decode);
    if (!pair->table || !passable(eval, pair->cards, pair->card_count) ||
        !passable(eval, prefill->cards, prefill->card_count) ||
        !passable(eval, decode->cards, decode->card_count)) {
        return;
    }
    RESERVE(eval, pairs, eval->pair_count + 1);
    struct eval_pair *item = &eval->pairs[eval->pair_count++];
    item->pair = pair;
    item->prefill = i;
    item->decode = j;
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        item->last[k] = EVAL_NONE;
    }
    touch_cards(eval, pair->cards, pair->card_count);
    touch_cards(eval, prefill->cards, prefill->card_count);
    touch_cards(eval, decode->cards, decode->card_count);
}

static void find_pairs(struct plan_eval *eval)
{
    eval->pair_count = 0;
    for (uint32_t i = 0; i < eval->card_count; i++) {
        eval->cards[i].touched = false;
    }
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        enum ts_phase phase = eval->kinds[i].kind->shape->phase;
        if (phase == TS_PHASE_BOTH) {
            add_pair(eval, i, i);
        }
        for (uint32_t j = 0; phase == TS_PHASE_PREFILL && j < eval->kind_count; j++) {
            if (eval->kinds[j].kind->shape->phase == TS_PHASE_DECODE) {
                add_pair(eval, i, j);
            }
        }
    }
}

/* --- The program --- */

static void add_rows(struct plan_eval *eval)
{
    static const enum ts_phase phases[EVAL_RESOURCES] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_DECODE};
    bool goodput = eval->problem->objective == PLAN_GOODPUT;
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        eval->class_row[k] = plan_lp_add_row(eval->lp, goodput ? 0 : class_of(eval, k)->rate);
    }
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        struct eval_kind *kind = &eval->kinds[i];
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            kind->row[r] =
                kind->kind->shape->phase & phases[r] ? plan_lp_add_row(eval->lp, kind->count) : EVAL_NONE;
        }
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        card->row = card->active && card->touched ? plan_lp_add_row(eval->lp, card->limit) : EVAL_NONE;
    }
    eval->attainment_row = goodput ? plan_lp_add_row(eval->lp, 0) : EVAL_NONE;
}

/* PLAN_GOODPUT: the rate R of all classes. Class k has its share of R, and sum D z >= attainment * R. */
static void add_rate_column(struct plan_eval *eval)
{
    struct plan_lp_term terms[TS_CLASSES_MAX + 1];
    uint32_t count = 0;
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        double share = eval->rate > 0 ? class_of(eval, k)->rate / eval->rate : 0;
        terms[count++] = (struct plan_lp_term){eval->class_row[k], -share};
    }
    terms[count++] = (struct plan_lp_term){eval->attainment_row, eval->problem->attainment};
    (void)plan_lp_add_column(eval->lp, 0, terms, count);
}

struct terms {
    struct plan_lp_term items[8 + 4 * TS_STAGES_MAX * 2];
    uint32_t count;
};

static void add_term(struct terms *terms, uint32_t row, double value)
{
    if (row != EVAL_NONE) {
        terms->items[terms->count++] = (struct plan_lp_term){row, value};
    }
}

/* What one request/s of a column puts on the cards: KV of the pair, activations of both pipelines. */
struct traffic {
    const struct plan_card *cards;
    uint32_t count;
    double bytes; /* by which the loads are multiplied */
};

static void traffic_of(const struct plan_eval *eval, const struct eval_column *column,
                       struct traffic traffic[3])
{
    const struct plan_pair *pair = eval->pairs[column->pair].pair;
    const struct ts_class *class_ = class_of(eval, column->length_class);
    traffic[0] = (struct traffic){pair->cards, pair->card_count,
                                  plan_columns_bytes(eval->source, column->length_class, column->codec)};
    traffic[1] = (struct traffic){pair->prefill->cards, pair->prefill->card_count, class_->prompt_tokens};
    traffic[2] = (struct traffic){pair->decode->cards, pair->decode->card_count, class_->output_tokens};
}

void eval_load_cards(const struct plan_eval *eval, const struct eval_column *column, double rate)
{
    struct traffic traffic[3];
    traffic_of(eval, column, traffic);
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < traffic[t].count; i++) {
            eval_card_of(eval, &traffic[t].cards[i])->load +=
                rate * traffic[t].cards[i].load * traffic[t].bytes;
        }
    }
}

static void load_column(struct plan_eval *eval, const struct eval_column *column)
{
    const struct eval_pair *pair = &eval->pairs[column->pair];
    const struct eval_kind *prefill = &eval->kinds[pair->prefill], *decode = &eval->kinds[pair->decode];
    const struct plan_point *p = &prefill->kind->shape->points[column->p];
    const struct plan_point *q = &decode->kind->shape->points[column->q];
    uint32_t k = column->length_class;
    struct terms terms = {.count = 0};
    add_term(&terms, eval->class_row[k], 1);
    add_term(&terms, prefill->row[EVAL_PREFILL], p->prefill[k]);
    add_term(&terms, decode->row[EVAL_COMPUTE], q->compute[k]);
    add_term(&terms, decode->row[EVAL_MEMORY], q->memory[k]);
    add_term(&terms, eval->attainment_row, -column->gain);
    struct traffic traffic[3];
    traffic_of(eval, column, traffic);
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < traffic[t].count; i++) {
            const struct plan_card *card = &traffic[t].cards[i];
            add_term(&terms, eval_card_of(eval, card)->row, card->load * traffic[t].bytes);
        }
    }
    (void)plan_lp_add_column(eval->lp, column->gain, terms.items, terms.count);
}

static void build(struct plan_eval *eval)
{
    plan_lp_reset(eval->lp);
    eval->solved = false;
    add_rows(eval);
    eval->column_base = 0;
    if (eval->problem->objective == PLAN_GOODPUT) {
        add_rate_column(eval);
        eval->column_base = 1;
    }
    for (uint32_t c = 0; c < eval->column_count; c++) {
        load_column(eval, &eval->columns[c]);
    }
}

double eval_value(const struct plan_eval *eval, uint32_t column)
{
    return plan_lp_value(eval->lp, eval->column_base + column);
}

/* --- Pricing --- */

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
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        struct eval_kind *kind = &eval->kinds[i];
        const struct plan_shape *shape = kind->kind->shape;
        kind->hop_price = price_of_cards(eval, kind->kind->cards, kind->kind->card_count);
        for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
            for (uint32_t p = 0; p < shape->point_count; p++) {
                const struct plan_point *point = &shape->points[p];
                kind->cost_p[k][p] = kind->price[EVAL_PREFILL] * point->prefill[k];
                kind->cost_q[k][p] = kind->price[EVAL_COMPUTE] * point->compute[k] +
                                     kind->price[EVAL_MEMORY] * point->memory[k];
            }
        }
    }
}

/* The best column of pair and class at the prices at hand. Returns what it would gain by each request. */
static double best_column(const struct plan_eval *eval, const struct eval_pair *pair, uint32_t k,
                          double card_price, struct eval_column *best)
{
    const struct plan_table *table = pair->pair->table;
    const struct eval_kind *prefill = &eval->kinds[pair->prefill], *decode = &eval->kinds[pair->decode];
    const double *cost_p = prefill->cost_p[k], *cost_q = decode->cost_q[k];
    const struct ts_class *class_ = class_of(eval, k);
    double fixed = eval->class_price[k] + prefill->hop_price * class_->prompt_tokens +
                   decode->hop_price * class_->output_tokens;
    double weight = 1 + eval->attainment_price, most = 0;
    for (enum ts_cost_codec c = 0; c < TS_COST_CODEC_COUNT; c++) {
        uint32_t slot = plan_columns_slot(k, c);
        double least = fixed + card_price * plan_columns_bytes(eval->source, k, c);
        if (weight * table->gain_max[slot] - least <= most) {
            continue;
        }
        for (uint32_t x = table->first[slot]; x < table->first[slot + 1]; x++) {
            double gain = weight * table->gain[x] - least - cost_p[table->p[x]] - cost_q[table->q[x]];
            if (gain > most) {
                most = gain;
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

/* False when it is there already: it gains by no more than the tolerance of the last solve. */
static bool add_column(struct plan_eval *eval, uint32_t pair, const struct eval_column *column)
{
    uint32_t *last = &eval->pairs[pair].last[column->length_class];
    for (uint32_t c = *last; c != EVAL_NONE; c = eval->columns[c].before) {
        const struct eval_column *old = &eval->columns[c];
        if (old->p == column->p && old->q == column->q && old->codec == column->codec) {
            return false;
        }
    }
    RESERVE(eval, columns, eval->column_count + 1);
    struct eval_column *fresh = &eval->columns[eval->column_count];
    *fresh = *column;
    fresh->pair = pair;
    fresh->before = *last;
    *last = eval->column_count++;
    return true;
}

static void drop_columns(struct plan_eval *eval, uint32_t keep)
{
    while (eval->column_count > keep) {
        const struct eval_column *column = &eval->columns[--eval->column_count];
        eval->pairs[column->pair].last[column->length_class] = column->before;
    }
}

/* Adds the best column of each pair and class. True when the columns that are not there yet might still lift
 * the objective. */
static bool price_columns(struct plan_eval *eval)
{
    double lift = 0;
    double most[TS_CLASSES_MAX] = {0};
    price_kinds(eval);
    for (uint32_t i = 0; i < eval->pair_count; i++) {
        const struct eval_pair *pair = &eval->pairs[i];
        double card_price = price_of_cards(eval, pair->pair->cards, pair->pair->card_count);
        for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
            struct eval_column best = {0};
            double gain = class_of(eval, k)->rate > 0 ? best_column(eval, pair, k, card_price, &best) : 0;
            if (gain > 0 && add_column(eval, i, &best)) {
                most[k] = fmax(most[k], gain);
            }
        }
    }
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        lift += most[k] * class_of(eval, k)->rate;
    }
    return lift > IMPROVEMENT * eval->rate;
}

static void read_prices(struct plan_eval *eval)
{
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        eval->class_price[k] = plan_lp_dual(eval->lp, eval->class_row[k]);
    }
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        struct eval_kind *kind = &eval->kinds[i];
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            kind->price[r] = kind->row[r] == EVAL_NONE ? 0 : plan_lp_dual(eval->lp, kind->row[r]);
        }
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        card->price = card->row == EVAL_NONE ? 0 : plan_lp_dual(eval->lp, card->row);
    }
    eval->attainment_price =
        eval->attainment_row == EVAL_NONE ? 0 : plan_lp_dual(eval->lp, eval->attainment_row);
}

/* Cold once more where the warm start failed. */
static bool solve(struct plan_eval *eval)
{
    eval->solved = plan_lp_solve(eval->lp, NULL) == TS_OK;
    if (!eval->solved) {
        build(eval);
        eval->solved = plan_lp_solve(eval->lp, NULL) == TS_OK;
    }
    if (eval->solved) {
        read_prices(eval);
    }
    return eval->solved;
}

/* Cards that are not in the program and yet carry too much come in. */
static bool add_cards(struct plan_eval *eval)
{
    bool any = false;
    for (uint32_t i = 0; i < eval->card_count; i++) {
        eval->cards[i].load = 0;
    }
    for (uint32_t c = 0; c < eval->column_count; c++) {
        double rate = eval_value(eval, c);
        if (rate > 0) {
            eval_load_cards(eval, &eval->columns[c], rate);
        }
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        if (card->row == EVAL_NONE && card->load > card->limit) {
            card->active = any = true;
            card->idle_runs = 0;
        }
    }
    return any;
}

/* What the next run starts from. */
static void keep_prices(struct plan_eval *eval)
{
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        memcpy(eval->kinds[i].kind->price, eval->kinds[i].price, sizeof eval->kinds[i].price);
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        card->idle_runs = card->row == EVAL_NONE || card->price > 0 ? 0 : card->idle_runs + 1;
        card->active = card->active && card->idle_runs < CARD_IDLE_RUNS;
    }
}

static double optimise(struct plan_eval *eval)
{
    eval->column_count = 0;
    (void)price_columns(eval); /* at the prices of earlier runs */
    build(eval);
    if (!solve(eval)) {
        return 0;
    }
    for (uint32_t round = 0; round < ROUNDS_MAX; round++) {
        uint32_t before = eval->column_count;
        bool more = price_columns(eval);
        if (more) {
            for (uint32_t c = before; c < eval->column_count; c++) {
                load_column(eval, &eval->columns[c]);
            }
        } else {
            drop_columns(eval, before);
            if (!add_cards(eval)) {
                break;
            }
            build(eval);
        }
        if (!solve(eval)) {
            return 0;
        }
    }
    keep_prices(eval);
    return plan_lp_objective(eval->lp);
}

double plan_eval_run(struct plan_eval *eval, const struct plan_state *state, struct plan_result *out)
{
    eval->runs++;
    (void)plan_columns_trim(eval->source);
    find_kinds(eval, state);
    find_pairs(eval);
    double objective = optimise(eval);
    if (eval->problem->objective == PLAN_ATTAINMENT) {
        objective = eval->rate > 0 ? objective / eval->rate : 0;
    }
    if (out) {
        eval_read_result(eval, state, objective, out);
    }
    return objective;
}

bool plan_eval_verify(const struct plan_eval *eval, struct ts_error *err)
{
    return plan_lp_verify(eval->lp, err);
}

uint64_t plan_eval_runs(const struct plan_eval *eval)
{
    return eval->runs;
}

uint64_t plan_eval_work(const struct plan_eval *eval)
{
    return eval->runs + plan_lp_iterations(eval->lp);
}
