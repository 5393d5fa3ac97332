#include "services/planner/eval/plan_eval.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval_impl.h"

/* Rounds of pricing. Each adds columns that were not there, so it ends without; this bounds what a stall near
 * the tolerance may cost. */
#define ROUNDS_MAX 500
/* The program is kept while at most one in so many kinds of the state is new to it, and while it has no more
 * kinds and columns than so many for each of them. */
#define NEW_KINDS_SHARE  6
#define KINDS_PER_KIND   4
#define COLUMNS_PER_KIND 60
/* Columns that lose no more than this by each request come along when the program starts over. */
#define LIFT_KEPT 0.02
/* A card that was not short for so many runs leaves the program when that starts over. */
#define CARD_IDLE_RUNS 16
/* What a request takes at least of its decode replica, so that a row with limit 0 keeps it away. */
#define SHARE_MIN 1e-12

struct plan_eval *eval_new(struct plan_shapes *shapes, struct plan_columns *source)
{
    struct plan_eval *eval = ts_xcalloc(1, sizeof *eval);
    eval->shapes = shapes;
    eval->problem = plan_shapes_problem(shapes);
    eval->source = source ? source : plan_columns_new(shapes);
    eval->borrows_source = source != NULL;
    eval->lp = plan_lp_new();
    eval->rate = ts_demand_rate(eval->problem->demand);
    eval_find_cards(eval);
    return eval;
}

struct plan_eval *plan_eval_new(struct plan_shapes *shapes)
{
    return eval_new(shapes, NULL);
}

void plan_eval_destroy(struct plan_eval **eval)
{
    struct plan_eval *old = *eval;
    if (!old) {
        return;
    }
    if (!old->borrows_source) {
        plan_columns_destroy(&old->source);
    }
    plan_lp_destroy(&old->lp);
    ts_free(old->kinds);
    ts_free(old->pairs);
    ts_free(old->columns);
    ts_free(old->slot_of_kind);
    ts_free(old->slot_of_pair);
    ts_free(old->kind_of_group);
    ts_free(old->last_price);
    ts_free(old->present);
    ts_free(old->present_pairs);
    ts_free(old->cards);
    ts_free(old->cells);
    ts_free(old->kept);
    ts_free(old->flows);
    ts_free(old->prices);
    ts_free(old->worth);
    ts_free(old);
    *eval = NULL;
}

/* --- From groups to kinds and pairs --- */

/* The slot of an id; ids that are new have none. */
static uint32_t *slot_of(uint32_t **slots, size_t *capacity, uint32_t *count, uint32_t id)
{
    ts_array_reserve((void **)slots, capacity, (size_t)id + 1, sizeof **slots);
    for (; *count <= id; ++*count) {
        (*slots)[*count] = 0;
    }
    return &(*slots)[id];
}

/* The last price, or what replicas of this phase go for. */
static double guess(const struct plan_eval *eval, const struct plan_kind *kind, int resource)
{
    if (kind->id < eval->last_price_count && eval->last_price[kind->id][0] >= 0) {
        return eval->last_price[kind->id][resource];
    }
    return eval->going[kind->shape->phase][resource] * kind->shape->score;
}

static uint32_t find_kind(struct plan_eval *eval, const struct plan_kind *kind)
{
    uint32_t *slot = slot_of(&eval->slot_of_kind, &eval->slot_of_kind_capacity, &eval->kind_ids, kind->id);
    if (!*slot) {
        EVAL_RESERVE(eval, kinds, eval->kind_count + 1);
        struct eval_kind *fresh = &eval->kinds[eval->kind_count++];
        fresh->kind = kind;
        fresh->count = fresh->limit = 0;
        fresh->guessed = true;
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            fresh->row[r] = EVAL_NONE;
            fresh->price[r] = guess(eval, kind, r);
        }
        *slot = eval->kind_count;
    }
    return *slot - 1;
}

static void find_kinds(struct plan_eval *eval, const struct plan_state *state)
{
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        eval->kinds[i].count = 0;
    }
    eval->present_count = 0;
    eval->group_count = state->count;
    EVAL_RESERVE(eval, kind_of_group, state->count + 1);
    EVAL_RESERVE(eval, present, state->count + 1);
    for (uint32_t g = 0; g < state->count; g++) {
        uint32_t i = find_kind(eval, plan_columns_kind(eval->source, &state->groups[g]));
        if (eval->kinds[i].count++ == 0) {
            eval->present[eval->present_count++] = i;
        }
        eval->kind_of_group[g] = i;
    }
}

static void touch_cards(struct plan_eval *eval, const struct plan_card *cards, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        eval_card_of(eval, &cards[i])->touched = true;
    }
}

void eval_find_cards(struct plan_eval *eval)
{
    uint32_t count = plan_columns_card_count(eval->source);
    EVAL_RESERVE(eval, cards, count);
    for (; eval->card_count < count; eval->card_count++) {
        eval->cards[eval->card_count] = (struct eval_card){
            .row = EVAL_NONE,
            .limit = PLAN_NIC_SHARE * plan_columns_card_speed(eval->source, eval->card_count)};
    }
}

enum plan_limit eval_card_limit(const struct plan_eval *eval, uint32_t card, uint32_t *index)
{
    uint32_t from, to;
    if (plan_columns_card_is_link(eval->source, card, &from, &to)) {
        *index = from * eval->problem->cluster->node_count + to;
        return PLAN_LIMIT_LINK;
    }
    *index = card / 2;
    return card % 2 ? PLAN_LIMIT_NIC_IN : PLAN_LIMIT_NIC_OUT;
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

static uint32_t find_pair(struct plan_eval *eval, const struct plan_pair *pair, uint32_t i, uint32_t j)
{
    uint32_t *slot = slot_of(&eval->slot_of_pair, &eval->slot_of_pair_capacity, &eval->pair_ids, pair->id);
    if (!*slot) {
        EVAL_RESERVE(eval, pairs, eval->pair_count + 1);
        struct eval_pair *fresh = &eval->pairs[eval->pair_count++];
        *fresh = (struct eval_pair){.pair = pair, .prefill = i, .decode = j};
        for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
            fresh->last[k] = EVAL_NONE;
        }
        *slot = eval->pair_count;
    }
    return *slot - 1;
}

static void add_pair(struct plan_eval *eval, uint32_t i, uint32_t j)
{
    const struct plan_kind *prefill = eval->kinds[i].kind, *decode = eval->kinds[j].kind;
    const struct plan_pair *pair = plan_columns_pair(eval->source, prefill, decode);
    eval_find_cards(eval);
    if (!pair->table || !passable(eval, pair->cards, pair->card_count) ||
        !passable(eval, prefill->cards, prefill->card_count) ||
        !passable(eval, decode->cards, decode->card_count)) {
        return;
    }
    EVAL_RESERVE(eval, present_pairs, eval->present_pair_count + 1);
    eval->present_pairs[eval->present_pair_count++] = find_pair(eval, pair, i, j);
    touch_cards(eval, pair->cards, pair->card_count);
    touch_cards(eval, prefill->cards, prefill->card_count);
    touch_cards(eval, decode->cards, decode->card_count);
}

static void find_pairs(struct plan_eval *eval)
{
    eval->present_pair_count = 0;
    for (uint32_t i = 0; i < eval->card_count; i++) {
        eval->cards[i].touched = false;
    }
    for (uint32_t a = 0; a < eval->present_count; a++) {
        uint32_t i = eval->present[a];
        enum ts_phase phase = eval->kinds[i].kind->shape->phase;
        if (phase == TS_PHASE_BOTH) {
            add_pair(eval, i, i);
        }
        for (uint32_t b = 0; phase == TS_PHASE_PREFILL && b < eval->present_count; b++) {
            if (eval->kinds[eval->present[b]].kind->shape->phase == TS_PHASE_DECODE) {
                add_pair(eval, i, eval->present[b]);
            }
        }
    }
}

/* Forgets the program; prices and active cards stay. */
static void start_over(struct plan_eval *eval)
{
    eval->kind_count = eval->pair_count = eval->column_count = 0;
    eval->kind_ids = eval->pair_ids = 0;
    eval->built = eval->solved = false;
}

static void find_state(struct plan_eval *eval, const struct plan_state *state)
{
    find_kinds(eval, state);
    eval_find_cards(eval); /* a pipeline's own, even where it has no partner */
    find_pairs(eval);
}

/* --- The program --- */

static void add_rate_column(struct plan_eval *eval)
{
    struct plan_lp_term terms[TS_CLASSES_MAX + 1];
    uint32_t count = 0;
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        double share = eval->rate > 0 ? eval_class(eval, k)->rate / eval->rate : 0;
        terms[count++] = (struct plan_lp_term){eval->class_row[k], -share};
    }
    terms[count++] = (struct plan_lp_term){eval->attainment_row, eval->problem->attainment};
    (void)plan_lp_add_column(eval->lp, 0, terms, count);
}

/* Rows of classes and cards. PLAN_GOODPUT: the rate R of all classes is a column. Class k has its share of R,
 * and sum D z >= attainment * R. */
static void build(struct plan_eval *eval)
{
    bool goodput = eval->problem->objective == PLAN_GOODPUT;
    plan_lp_reset(eval->lp);
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        eval->class_row[k] = plan_lp_add_row(eval->lp, goodput ? 0 : eval_class(eval, k)->rate);
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        card->active = card->active && card->idle_runs < CARD_IDLE_RUNS;
        card->row = card->active ? plan_lp_add_row(eval->lp, card->limit) : EVAL_NONE;
        card->price = 0;
    }
    eval->attainment_row = goodput ? plan_lp_add_row(eval->lp, 0) : EVAL_NONE;
    eval->column_base = goodput ? 1 : 0;
    if (goodput) {
        add_rate_column(eval);
    }
    eval->built = true;
}

/* Rows of kinds that are new, and limits of those whose number has changed. */
static void sync_kinds(struct plan_eval *eval)
{
    static const enum ts_phase phases[EVAL_RESOURCES] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_DECODE};
    for (uint32_t i = 0; i < eval->kind_count; i++) {
        struct eval_kind *kind = &eval->kinds[i];
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            if (!(kind->kind->shape->phase & phases[r])) {
                continue;
            }
            if (kind->row[r] == EVAL_NONE) {
                kind->row[r] = plan_lp_add_row(eval->lp, kind->count);
            } else if (kind->limit != kind->count) {
                plan_lp_set_limit(eval->lp, kind->row[r], kind->count);
            }
        }
        kind->limit = kind->count;
    }
}

struct terms {
    struct plan_lp_term items[8 + 3 * 6 * TS_STAGES_MAX];
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

static void traffic_of(const struct plan_eval *eval, const struct plan_pair *pair, uint32_t k,
                       enum ts_cost_codec codec, struct traffic traffic[3])
{
    const struct ts_class *class_ = eval_class(eval, k);
    traffic[0] = (struct traffic){pair->cards, pair->card_count, plan_columns_bytes(eval->source, k, codec)};
    traffic[1] = (struct traffic){pair->prefill->cards, pair->prefill->card_count, class_->prompt_tokens};
    traffic[2] = (struct traffic){pair->decode->cards, pair->decode->card_count, class_->output_tokens};
}

void eval_load_cards(const struct plan_eval *eval, const struct plan_pair *pair, uint32_t k,
                     enum ts_cost_codec codec, double rate)
{
    struct traffic traffic[3];
    traffic_of(eval, pair, k, codec, traffic);
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < traffic[t].count; i++) {
            const struct plan_card *card = &traffic[t].cards[i];
            eval_card_of(eval, card)->load += rate * card->load * traffic[t].bytes;
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
    add_term(&terms, decode->row[EVAL_COMPUTE], fmax(q->compute[k], SHARE_MIN));
    add_term(&terms, decode->row[EVAL_MEMORY], q->memory[k]);
    add_term(&terms, eval->attainment_row, -column->gain);
    struct traffic traffic[3];
    traffic_of(eval, pair->pair, k, column->codec, traffic);
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < traffic[t].count; i++) {
            const struct plan_card *card = &traffic[t].cards[i];
            add_term(&terms, eval_card_of(eval, card)->row, card->load * traffic[t].bytes);
        }
    }
    (void)plan_lp_add_column(eval->lp, column->gain, terms.items, terms.count);
}

double eval_value(const struct plan_eval *eval, uint32_t column)
{
    return plan_lp_value(eval->lp, eval->column_base + column);
}

/* --- Solving --- */

static void read_prices(struct plan_eval *eval)
{
    for (uint32_t k = 0; k < eval->problem->demand->class_count; k++) {
        eval->class_price[k] = plan_lp_dual(eval->lp, eval->class_row[k]);
    }
    for (uint32_t i = 0; i < eval->present_count; i++) {
        struct eval_kind *kind = &eval->kinds[eval->present[i]];
        for (int r = 0; r < EVAL_RESOURCES && !kind->guessed; r++) {
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

static bool solve(struct plan_eval *eval)
{
    eval->solved = plan_lp_solve(eval->lp, NULL) == TS_OK;
    if (eval->solved) {
        read_prices(eval);
    }
    return eval->solved;
}

/* What the next guesses go by: of each kind, and of each phase by what its replicas could do alone. */
static void keep_prices(struct plan_eval *eval)
{
    double score[TS_PHASE_BOTH + 1] = {0}, price[TS_PHASE_BOTH + 1][EVAL_RESOURCES] = {{0}};
    for (uint32_t i = 0; i < eval->present_count; i++) {
        const struct eval_kind *kind = &eval->kinds[eval->present[i]];
        const struct plan_shape *shape = kind->kind->shape;
        EVAL_RESERVE(eval, last_price, (size_t)kind->kind->id + 1);
        for (; eval->last_price_count <= kind->kind->id; eval->last_price_count++) {
            eval->last_price[eval->last_price_count][0] = -1;
        }
        memcpy(eval->last_price[kind->kind->id], kind->price, sizeof kind->price);
        score[shape->phase] += kind->count * shape->score;
        for (int r = 0; r < EVAL_RESOURCES; r++) {
            price[shape->phase][r] += kind->count * kind->price[r];
        }
    }
    for (int phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
        for (int r = 0; r < EVAL_RESOURCES && score[phase] > 0; r++) {
            eval->going[phase][r] = price[phase][r] / score[phase];
        }
    }
}

/* The guesses have served. True when there were any. */
static bool end_guesses(struct plan_eval *eval)
{
    bool any = false;
    for (uint32_t i = 0; i < eval->present_count; i++) {
        any = any || eval->kinds[eval->present[i]].guessed;
        eval->kinds[eval->present[i]].guessed = false;
    }
    return any;
}

/* Columns that were not worth loading. */
static void drop_columns(struct plan_eval *eval, uint32_t keep)
{
    while (eval->column_count > keep) {
        const struct eval_column *column = &eval->columns[--eval->column_count];
        eval->pairs[column->pair].last[column->length_class] = column->before;
    }
}

/* To the optimum over all columns. False when the simplex gave up. */
static bool generate(struct plan_eval *eval)
{
    for (uint32_t round = 0; round < ROUNDS_MAX; round++) {
        uint32_t before = eval->column_count;
        bool more = eval_price_columns(eval);
        more = end_guesses(eval) || more;
        if (!more && eval->solved) {
            drop_columns(eval, before);
            return true;
        }
        for (uint32_t c = before; c < eval->column_count; c++) {
            load_column(eval, &eval->columns[c]);
        }
        if (!solve(eval)) {
            return false;
        }
    }
    return true;
}

static double load_of(const struct plan_eval *eval, const struct eval_column *column, uint32_t card)
{
    struct traffic traffic[3];
    double load = 0;
    traffic_of(eval, eval->pairs[column->pair].pair, column->length_class, column->codec, traffic);
    for (int t = 0; t < 3; t++) {
        for (uint32_t i = 0; i < traffic[t].count; i++) {
            bool same = eval_card_of(eval, &traffic[t].cards[i]) == &eval->cards[card];
            load += same ? traffic[t].cards[i].load * traffic[t].bytes : 0;
        }
    }
    return load;
}

static void add_card(struct plan_eval *eval, uint32_t index)
{
    uint32_t count = 0;
    EVAL_RESERVE(eval, cells, eval->column_count + 1);
    for (uint32_t c = 0; c < eval->column_count; c++) {
        double load = load_of(eval, &eval->columns[c], index);
        if (load > 0) {
            eval->cells[count++] = (struct plan_lp_cell){eval->column_base + c, load};
        }
    }
    struct eval_card *card = &eval->cards[index];
    card->active = true;
    card->row = plan_lp_add_cut(eval->lp, card->limit, eval->cells, count);
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
            const struct eval_column *column = &eval->columns[c];
            eval_load_cards(eval, eval->pairs[column->pair].pair, column->length_class, column->codec, rate);
        }
    }
    for (uint32_t i = 0; i < eval->card_count; i++) {
        struct eval_card *card = &eval->cards[i];
        card->idle_runs = card->row == EVAL_NONE || card->price > 0 ? 0 : card->idle_runs + 1;
        if (card->row == EVAL_NONE && card->load > card->limit) {
            add_card(eval, i);
            any = true;
        }
    }
    return any;
}

/* To the optimum over all columns and cards, from the program at hand. False when the simplex gave up. */
static bool settle(struct plan_eval *eval)
{
    do {
        if (!generate(eval)) {
            return false;
        }
        if (!add_cards(eval)) {
            return true;
        }
    } while (solve(eval));
    return false;
}

/* Whether the program at hand is a good start for the state that was just found. */
static bool worth_keeping(const struct plan_eval *eval)
{
    uint32_t fresh = 0;
    for (uint32_t i = 0; i < eval->present_count; i++) {
        fresh += eval->kinds[eval->present[i]].guessed;
    }
    return fresh * NEW_KINDS_SHARE <= eval->present_count &&
           eval->kind_count <= KINDS_PER_KIND * eval->present_count &&
           eval->column_count <= COLUMNS_PER_KIND * eval->present_count;
}

/* Columns of the program at hand that are worth having in the next: those in use, and those that would be at
 * slightly other prices. Returns how many. */
static uint32_t keep_columns(struct plan_eval *eval)
{
    uint32_t count = 0;
    EVAL_RESERVE(eval, kept, eval->column_count + 1);
    for (uint32_t c = 0; c < eval->column_count; c++) {
        const struct eval_column *column = &eval->columns[c];
        const struct eval_pair *pair = &eval->pairs[column->pair];
        if (eval->kinds[pair->prefill].count > 0 && eval->kinds[pair->decode].count > 0 &&
            eval_lift(eval, column) > -LIFT_KEPT) {
            eval->kept[count++] = (struct eval_kept){pair->pair, *column};
        }
    }
    return count;
}

static void load_kept(struct plan_eval *eval, uint32_t count)
{
    for (uint32_t c = 0; c < count; c++) {
        struct eval_column column = eval->kept[c].column;
        const struct plan_pair *pair = eval->kept[c].pair;
        column.pair = find_pair(eval, pair, find_kind(eval, pair->prefill), find_kind(eval, pair->decode));
        if (eval_add_column(eval, &column)) {
            load_column(eval, &eval->columns[eval->column_count - 1]);
        }
    }
}

static double optimise(struct plan_eval *eval, const struct plan_state *state)
{
    uint32_t kept = 0;
    if (eval->built) {
        find_state(eval, state);
        kept = keep_columns(eval);
    }
    if (eval->built && worth_keeping(eval)) {
        sync_kinds(eval);
        if (solve(eval) && settle(eval)) {
            keep_prices(eval);
            return plan_lp_objective(eval->lp);
        }
    }
    start_over(eval);
    build(eval);
    find_state(eval, state);
    sync_kinds(eval);
    load_kept(eval, kept);
    if (settle(eval)) {
        keep_prices(eval);
        return plan_lp_objective(eval->lp);
    }
    start_over(eval);
    return 0;
}

void eval_trim(struct plan_eval *eval)
{
    if (!eval->borrows_source && plan_columns_trim(eval->source)) {
        eval->built = false;
        eval->last_price_count = 0;
    }
}

double plan_eval_run(struct plan_eval *eval, const struct plan_state *state, struct plan_result *out)
{
    eval->runs++;
    eval_trim(eval);
    double objective = optimise(eval, state);
    if (eval->problem->objective == PLAN_ATTAINMENT) {
        objective = eval->rate > 0 ? objective / eval->rate : 0;
    }
    if (out) {
        eval_read_result(eval, state, objective, out);
    }
    return objective;
}

uint64_t plan_eval_runs(const struct plan_eval *eval)
{
    return eval->runs;
}

uint64_t plan_eval_work(const struct plan_eval *eval)
{
    return eval->runs + plan_lp_iterations(eval->lp);
}
