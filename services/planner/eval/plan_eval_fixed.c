/* A given routing rule, judged by the columns and limits of the evaluator's program (plan_eval.h). */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/eval/plan_eval_impl.h"

#define RATE_MIN    1e-9 /* of the demand: rounding */
#define SCALE_STEPS 40   /* halvings of the interval that holds the goodput */

struct side { /* how a replica runs: a share `mix` of its requests at point hi, the rest at lo */
    uint32_t lo, hi;
    double mix;
    double admit; /* share of what it is sent; the rest is refused */
};

struct rule {
    struct plan_eval *eval;
    const struct plan_state *state;
    const struct plan_share *shares;
    uint32_t count, classes;
    double scale;                   /* of the demand's rates */
    struct side *sides;             /* of each group */
    double *sent;                   /* [group][class] requests/s */
    double *passed;                 /* [share]: what the network cards let through, as a share */
    uint32_t *first, *next;         /* shares of a group: first[group], next[share * 2 + (decode side)] */
    const struct plan_kind **kind;  /* of each group */
    const struct plan_pair **pairs; /* of each share */
};

struct sums {
    double gain, attained, rate, ttft, tpot, e2e; /* requests/s */
};

static const struct plan_shape *shape_of(const struct rule *rule, uint32_t group)
{
    return rule->state->groups[group].shape;
}

/* A codec that the problem forbids gives way to the first that it allows. */
static enum ts_cost_codec codec_of(const struct rule *rule, uint32_t share)
{
    const struct plan_share *s = &rule->shares[share];
    const bool *allowed = rule->eval->problem->codec_allowed;
    if (s->prefill == s->decode)
        return TS_COST_CODEC_NONE;
    for (enum ts_cost_codec codec = 0; codec < TS_COST_CODEC_COUNT && !allowed[s->codec]; codec++) {
        if (allowed[codec])
            return codec;
    }
    return s->codec;
}

/* What the rule sends over this pair. Classes without a path or room are refused at the door. */
static double offered(const struct rule *rule, uint32_t share, uint32_t k)
{
    const struct plan_share *s = &rule->shares[share];
    const struct plan_shape *prefill = shape_of(rule, s->prefill), *decode = shape_of(rule, s->decode);
    bool open = (s->only_class == 0 || s->only_class == k + 1) && rule->pairs[share]->table &&
                prefill->fits[k] && decode->fits[k] && prefill->point_count > 0 && decode->point_count > 0;
    return open ? rule->scale * rule->eval->problem->demand->classes[k].rate * s->share : 0;
}

/* --- How a replica runs under a load --- */

static double load_at(const struct rule *rule, uint32_t group, uint32_t point)
{
    const struct plan_shape *shape = shape_of(rule, group);
    const struct plan_point *at = &shape->points[point];
    double load[EVAL_RESOURCES] = {0};
    for (uint32_t k = 0; k < rule->classes; k++) {
        double rate = rule->sent[(size_t)group * rule->classes + k];
        if (!(rate > 0))
            continue;
        if (shape->phase & TS_PHASE_PREFILL)
            load[EVAL_PREFILL] += rate * at->prefill[k];
        if (shape->phase & TS_PHASE_DECODE) {
            load[EVAL_COMPUTE] += rate * at->compute[k];
            load[EVAL_MEMORY] += rate * at->memory[k];
        }
    }
    return fmax(load[EVAL_PREFILL], fmax(load[EVAL_COMPUTE], load[EVAL_MEMORY]));
}

/* The lowest point up to `top` that carries the load, mixed with the one below it as far as that goes; when
 * none does, the one that carries most, refusing the excess. */
static struct side run_at(const struct rule *rule, uint32_t group, uint32_t top)
{
    double before = INFINITY, least = INFINITY;
    uint32_t best = 0;
    for (uint32_t p = 0; p <= top; p++) {
        double load = load_at(rule, group, p);
        if (load <= 1) {
            /* Loads of a mixture are at most the mixture of loads. */
            double mix = p > 0 ? (before - 1) / (before - load) : 1;
            return (struct side){p > 0 ? p - 1 : p, p, mix, 1};
        }
        if (load < least) {
            least = load;
            best = p;
        }
        before = load;
    }
    return (struct side){best, best, 1, 1 / least};
}

/* --- What a pair attains --- */

static void add_column(const struct rule *rule, uint32_t share, uint32_t k, uint32_t p, uint32_t q,
                       double rate, struct sums *sums)
{
    if (!(rate > 0))
        return;
    enum ts_cost_codec codec = codec_of(rule, share);
    struct plan_miss miss = plan_columns_miss(rule->eval->source, rule->pairs[share], k, codec, p, q);
    double charge = codec == TS_COST_CODEC_NONE ? 0 : PLAN_LOSSY_CHARGE;
    sums->rate += rate;
    sums->gain += rate * fmax(0, 1 - charge - miss.any);
    sums->attained += rate * (1 - miss.any);
    sums->ttft += rate * (1 - miss.ttft);
    sums->tpot += rate * (1 - miss.tpot);
    sums->e2e += rate * (1 - miss.e2e);
}

/* `rate` of one class over one pair, spread over the points of both sides. */
static void add_flow(const struct rule *rule, uint32_t share, uint32_t k, double rate, struct sums *sums)
{
    const struct plan_share *s = &rule->shares[share];
    const struct side *a = &rule->sides[s->prefill], *b = &rule->sides[s->decode];
    if (s->prefill == s->decode) {
        add_column(rule, share, k, a->lo, a->lo, rate * (1 - a->mix), sums);
        add_column(rule, share, k, a->hi, a->hi, rate * a->mix, sums);
        return;
    }
    add_column(rule, share, k, a->lo, b->lo, rate * (1 - a->mix) * (1 - b->mix), sums);
    add_column(rule, share, k, a->lo, b->hi, rate * (1 - a->mix) * b->mix, sums);
    add_column(rule, share, k, a->hi, b->lo, rate * a->mix * (1 - b->mix), sums);
    add_column(rule, share, k, a->hi, b->hi, rate * a->mix * b->mix, sums);
}

static double flow_rate(const struct rule *rule, uint32_t share, uint32_t k)
{
    const struct plan_share *s = &rule->shares[share];
    double admit = rule->sides[s->prefill].admit;
    if (s->prefill != s->decode)
        admit *= rule->sides[s->decode].admit;
    return offered(rule, share, k) * admit * rule->passed[share];
}

static uint32_t next_share(const struct rule *rule, uint32_t share, uint32_t group)
{
    bool decode = rule->shares[share].prefill != group;
    return rule->next[share * 2 + decode];
}

static double gain_of_group(const struct rule *rule, uint32_t group)
{
    struct sums sums = {0};
    for (uint32_t s = rule->first[group]; s != EVAL_NONE; s = next_share(rule, s, group)) {
        for (uint32_t k = 0; k < rule->classes; k++)
            add_flow(rule, s, k, flow_rate(rule, s, k), &sums);
    }
    return sums.gain;
}

/* --- The rule as a whole --- */

/* What groups are sent: prefill and colocated ones by the rule, decode ones by what prefill admits. */
static void send_to(const struct rule *rule, bool decode)
{
    for (uint32_t s = 0; s < rule->count; s++) {
        const struct plan_share *share = &rule->shares[s];
        uint32_t to = decode ? share->decode : share->prefill;
        double admit = decode ? rule->sides[share->prefill].admit : 1;
        for (uint32_t k = 0; k < rule->classes && !(decode && share->prefill == share->decode); k++)
            rule->sent[(size_t)to * rule->classes + k] += offered(rule, s, k) * admit;
    }
}

static bool is_decode(const struct rule *rule, uint32_t group)
{
    return shape_of(rule, group)->phase == TS_PHASE_DECODE;
}

/* Lower points than those that carry the load, as long as refusing more attains more. */
static void lower_points(const struct rule *rule, uint32_t group)
{
    struct side best = rule->sides[group];
    double most = gain_of_group(rule, group);
    while (best.hi > 0) {
        rule->sides[group] = run_at(rule, group, best.hi - 1);
        double gain = gain_of_group(rule, group);
        if (!(gain > most))
            break;
        most = gain;
        best = rule->sides[group];
    }
    rule->sides[group] = best;
}

static void lower_all(const struct rule *rule, bool decode)
{
    for (uint32_t g = 0; g < rule->state->count; g++) {
        if (is_decode(rule, g) == decode && rule->first[g] != EVAL_NONE)
            lower_points(rule, g);
    }
}

static void settle_sides(const struct rule *rule, bool decode)
{
    for (uint32_t g = 0; g < rule->state->count; g++) {
        for (uint32_t k = 0; k < rule->classes && is_decode(rule, g) == decode; k++)
            rule->sent[(size_t)g * rule->classes + k] = 0;
    }
    send_to(rule, decode);
    for (uint32_t g = 0; g < rule->state->count; g++) {
        if (is_decode(rule, g) == decode && shape_of(rule, g)->point_count > 0)
            rule->sides[g] = run_at(rule, g, shape_of(rule, g)->point_count - 1);
    }
}

static void load_cards(const struct rule *rule)
{
    struct plan_eval *eval = rule->eval;
    for (uint32_t c = 0; c < eval->card_count; c++)
        eval->cards[c].load = 0;
    for (uint32_t s = 0; s < rule->count; s++) {
        for (uint32_t k = 0; k < rule->classes; k++) {
            double rate = flow_rate(rule, s, k);
            if (rate > 0)
                eval_load_cards(eval, rule->pairs[s], k, codec_of(rule, s), rate);
        }
    }
}

static double least_pass(const struct rule *rule, const struct plan_card *cards, uint32_t count)
{
    double pass = 1;
    for (uint32_t i = 0; i < count; i++) {
        const struct eval_card *card = eval_card_of(rule->eval, &cards[i]);
        if (cards[i].load > 0 && card->load > card->limit)
            pass = fmin(pass, card->limit / card->load);
    }
    return pass;
}

/* A card that is asked for too much lets every flow over it through in part. */
static void pass_cards(const struct rule *rule)
{
    load_cards(rule);
    for (uint32_t s = 0; s < rule->count; s++) {
        const struct plan_pair *pair = rule->pairs[s];
        rule->passed[s] = fmin(least_pass(rule, pair->cards, pair->card_count),
                               fmin(least_pass(rule, pair->prefill->cards, pair->prefill->card_count),
                                    least_pass(rule, pair->decode->cards, pair->decode->card_count)));
    }
    load_cards(rule);
}

static struct sums judge(struct rule *rule, double scale)
{
    struct sums sums = {0};
    rule->eval->runs++;
    rule->scale = scale;
    for (uint32_t s = 0; s < rule->count; s++)
        rule->passed[s] = 1;
    for (uint32_t g = 0; g < rule->state->count; g++)
        rule->sides[g] = (struct side){0, 0, 1, 1};
    settle_sides(rule, false);
    settle_sides(rule, true);
    lower_all(rule, false);
    settle_sides(rule, true); /* prefill may admit less now */
    lower_all(rule, true);
    pass_cards(rule);
    for (uint32_t s = 0; s < rule->count; s++) {
        for (uint32_t k = 0; k < rule->classes; k++)
            add_flow(rule, s, k, flow_rate(rule, s, k), &sums);
    }
    return sums;
}

static bool attains(struct rule *rule, double scale)
{
    struct sums sums = judge(rule, scale);
    return sums.gain >= rule->eval->problem->attainment * scale * rule->eval->rate;
}

/* PLAN_GOODPUT: the largest scale of the demand at which enough of it is attained. */
static double largest_scale(struct rule *rule)
{
    double low = RATE_MIN, high = 1;
    if (!attains(rule, low))
        return 0; /* not even an idle cluster does */
    while (high < 1e9 && attains(rule, high)) {
        low = high;
        high *= 2;
    }
    for (int i = 0; i < SCALE_STEPS && high - low > 1e-6 * high; i++) {
        double middle = (low + high) / 2;
        if (attains(rule, middle))
            low = middle;
        else
            high = middle;
    }
    return low;
}

static struct rule make_rule(struct plan_eval *eval, const struct plan_state *state,
                             const struct plan_share *shares, uint32_t count)
{
    const uint32_t classes = eval->problem->demand->class_count;
    struct rule rule = {.eval = eval, .state = state, .shares = shares, .count = count, .classes = classes};
    rule.sides = ts_xcalloc(state->count + 1, sizeof *rule.sides);
    rule.sent = ts_xcalloc((size_t)(state->count + 1) * classes, sizeof *rule.sent);
    rule.passed = ts_xcalloc(count + 1, sizeof *rule.passed);
    rule.first = ts_xcalloc(state->count + 1, sizeof *rule.first);
    rule.next = ts_xcalloc((size_t)count * 2 + 1, sizeof *rule.next);
    rule.kind = ts_xcalloc(state->count + 1, sizeof *rule.kind);
    rule.pairs = ts_xcalloc(count + 1, sizeof *rule.pairs);
    eval_trim(eval);
    for (uint32_t g = 0; g < state->count; g++) {
        rule.first[g] = EVAL_NONE;
        rule.kind[g] = plan_columns_kind(eval->source, &state->groups[g]);
    }
    for (uint32_t s = 0; s < count; s++) {
        uint32_t i = shares[s].prefill, j = shares[s].decode;
        rule.pairs[s] = plan_columns_pair(eval->source, rule.kind[i], rule.kind[j]);
        rule.next[s * 2] = rule.first[i];
        rule.first[i] = s;
        if (i == j)
            continue;
        rule.next[s * 2 + 1] = rule.first[j];
        rule.first[j] = s;
    }
    eval_find_cards(eval);
    return rule;
}

static void free_rule(struct rule *rule)
{
    ts_free(rule->sides);
    ts_free(rule->sent);
    ts_free(rule->passed);
    ts_free(rule->first);
    ts_free(rule->next);
    ts_free(rule->kind);
    ts_free(rule->pairs);
}

/* --- The result --- */

static uint32_t read_flows(const struct rule *rule)
{
    struct plan_eval *eval = rule->eval;
    uint32_t count = 0;
    EVAL_RESERVE(eval, flows, (size_t)rule->count * rule->classes + 1);
    for (uint32_t s = 0; s < rule->count; s++) {
        for (uint32_t k = 0; k < rule->classes; k++) {
            struct sums sums = {0};
            add_flow(rule, s, k, flow_rate(rule, s, k), &sums);
            if (sums.rate > RATE_MIN * eval->rate)
                eval->flows[count++] =
                    (struct ts_flow){rule->shares[s].prefill, rule->shares[s].decode, k, sums.rate,
                                     sums.attained,           codec_of(rule, s)};
        }
    }
    return count;
}

/* A rule has no prices; what is full can be read from the uses. */
static uint32_t read_uses(const struct rule *rule)
{
    struct plan_eval *eval = rule->eval;
    uint32_t count = 0;
    EVAL_RESERVE(eval, prices, (size_t)rule->state->count + eval->card_count + 1);
    for (uint32_t g = 0; g < rule->state->count; g++) {
        const struct plan_shape *shape = shape_of(rule, g);
        if (shape->point_count == 0)
            continue;
        /* Full only where the highest point is reached or requests are refused; else there is room above. */
        double top = load_at(rule, g, shape->point_count - 1);
        enum plan_limit limit = shape->phase & TS_PHASE_PREFILL ? PLAN_LIMIT_PREFILL : PLAN_LIMIT_COMPUTE;
        double use = rule->sides[g].admit < 1 ? 1 : fmin(1, top);
        eval->prices[count++] = (struct plan_price){limit, g, 0, use};
    }
    for (uint32_t c = 0; c < eval->card_count; c++) {
        const struct eval_card *card = &eval->cards[c];
        if (card->load > 0) {
            uint32_t index;
            enum plan_limit limit = eval_card_limit(eval, c, &index);
            eval->prices[count++] = (struct plan_price){limit, index, 0, fmin(1, card->load / card->limit)};
        }
    }
    return count;
}

static void read_result(const struct rule *rule, const struct sums *sums, double objective,
                        struct plan_result *out)
{
    struct plan_eval *eval = rule->eval;
    double rate = rule->scale * eval->rate;
    *out = (struct plan_result){.objective = objective, .rate = rate};
    if (rate > 0) {
        out->attained_ttft = sums->ttft / rate;
        out->attained_tpot = sums->tpot / rate;
        out->attained_e2e = sums->e2e / rate;
    }
    EVAL_RESERVE(eval, worth, rule->state->count + 1);
    memset(eval->worth, 0, rule->state->count * sizeof *eval->worth);
    out->flow_count = read_flows(rule);
    out->price_count = read_uses(rule);
    out->flows = eval->flows;
    out->prices = eval->prices;
    out->group_worth = eval->worth;
}

double plan_eval_fixed(struct plan_eval *eval, const struct plan_state *state,
                       const struct plan_share *shares, uint32_t count, struct plan_result *out)
{
    struct rule rule = make_rule(eval, state, shares, count);
    bool goodput = eval->problem->objective == PLAN_GOODPUT;
    struct sums sums = judge(&rule, goodput ? largest_scale(&rule) : 1);
    double objective = goodput ? sums.gain : eval->rate > 0 ? sums.gain / eval->rate : 0;
    if (out)
        read_result(&rule, &sums, objective, out);
    free_rule(&rule);
    return objective;
}

struct ts_plan *plan_eval_fixed_plan(struct plan_eval *eval, const struct plan_state *state,
                                     const struct plan_share *shares, uint32_t count, const char *algorithm)
{
    struct plan_result result;
    (void)plan_eval_fixed(eval, state, shares, count, &result);
    return eval_make_plan(eval, state, &result, algorithm);
}
