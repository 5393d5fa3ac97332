#include "services/tsctl/tsctl_plan_why.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"

/* Prices below this share of the objective are the rounding of a linear program. */
#define PRICE_LEAST 1e-6

/* The objective with group `index` in another phase. The evaluator's results are lost. */
static double objective_as(const struct tsctl_plan_world *world, struct tsctl_plan_score *score,
                           const struct ts_plan *plan, uint32_t index, enum ts_phase phase, char reason[160])
{
    struct ts_group changed = plan->groups[index];
    struct plan_group kept = score->state.groups[index];
    struct ts_error err = {0};
    double objective = NAN;
    changed.phase = phase;
    if (phase == TS_PHASE_BOTH && !world->problem.colocate)
        snprintf(reason, 160, "--no-colocate forbids it");
    else if (plan_shape_of_group(score->shapes, &changed, &score->state.groups[index], &err))
        objective = plan_eval_run(score->eval, &score->state, NULL);
    else
        snprintf(reason, 160, "%.150s", err.text);
    score->state.groups[index] = kept;
    return objective;
}

/* And without the group at all. */
static double objective_without(struct tsctl_plan_score *score, uint32_t index)
{
    struct plan_state *state = &score->state;
    struct plan_group kept = state->groups[index];
    state->groups[index] = state->groups[--state->count];
    double objective = state->count > 0 ? plan_eval_run(score->eval, state, NULL) : 0;
    state->count++;
    state->groups[index] = kept;
    return objective;
}

static int dearest_first(const void *a, const void *b)
{
    const struct tsctl_plan_price *x = a, *y = b;
    if (x->gain != y->gain)
        return x->gain > y->gain ? -1 : 1;
    if (x->price.limit != y->price.limit)
        return x->price.limit < y->price.limit ? -1 : 1;
    return x->price.index < y->price.index ? -1 : x->price.index > y->price.index;
}

static double limit_of(const struct tsctl_plan_world *world, const struct plan_price *price)
{
    if (price->limit == PLAN_LIMIT_NIC_OUT)
        return world->cluster->nodes[price->index].nic_out_bytes_per_s;
    if (price->limit == PLAN_LIMIT_NIC_IN)
        return world->cluster->nodes[price->index].nic_in_bytes_per_s;
    if (price->limit == PLAN_LIMIT_LINK)
        return world->cluster->links[price->index].bytes_per_s;
    return price->limit == PLAN_LIMIT_DEMAND ? world->demand.classes[price->index].rate : 1;
}

static void fill_prices(const struct tsctl_plan_world *world, const struct plan_result *result,
                        struct tsctl_plan_why *out)
{
    out->prices = ts_xcalloc(result->price_count + 1, sizeof *out->prices);
    for (uint32_t i = 0; i < result->price_count; i++) {
        const struct plan_price *price = &result->prices[i];
        double gain = price->price * limit_of(world, price);
        if (world->problem.objective == PLAN_ATTAINMENT)
            gain = fmin(gain, 1 - result->objective); /* the price holds for the first part only */
        if (gain > PRICE_LEAST * result->objective)
            out->prices[out->price_count++] = (struct tsctl_plan_price){.price = *price, .gain = gain};
    }
    qsort(out->prices, out->price_count, sizeof *out->prices, dearest_first);
}

enum ts_status tsctl_plan_why(const struct tsctl_plan_world *world, const struct ts_plan *plan,
                              struct tsctl_plan_why *out, struct ts_error *err)
{
    struct tsctl_plan_score score;
    enum ts_status status = tsctl_plan_score(world, plan, &score, err);
    if (status != TS_OK)
        return status;
    *out = (struct tsctl_plan_why){.objective = score.result.objective, .replica_count = plan->group_count};
    out->replicas = ts_xcalloc(plan->group_count + 1, sizeof *out->replicas);
    fill_prices(world, &score.result, out);
    for (uint32_t g = 0; g < plan->group_count; g++) {
        struct tsctl_plan_replica_why *why = &out->replicas[g];
        why->worth = out->objective - objective_without(&score, g);
        for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++)
            why->as[phase] = phase == plan->groups[g].phase
                                 ? out->objective
                                 : objective_as(world, &score, plan, g, phase, why->reason[phase]);
    }
    tsctl_plan_score_fini(&score);
    uint32_t capacity = plan->group_count + 4 * world->cluster->type_count;
    out->advice = ts_xcalloc(capacity, sizeof *out->advice);
    status = plan_money_advise(&world->problem, plan, out->advice, capacity, &out->advice_count, err);
    if (status != TS_OK)
        tsctl_plan_why_fini(out);
    return status;
}

void tsctl_plan_why_fini(struct tsctl_plan_why *why)
{
    ts_free(why->replicas);
    ts_free(why->prices);
    ts_free(why->advice);
}

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

static const char *limit_name(enum plan_limit limit)
{
    static const char *const names[] = {
        "demand", "prefill", "decode compute", "decode memory", "network out", "network in", "link"};
    return names[limit];
}

static struct ts_json *replica_json(const struct tsctl_plan_doc *doc,
                                    const struct tsctl_plan_replica_why *why, uint32_t index,
                                    double objective)
{
    struct ts_json *out = ts_json_new_object(), *others = ts_json_new_array();
    enum ts_phase now = doc->plan->groups[index].phase;
    ts_json_put_integer(out, "index", index);
    put_text(out, "phase", tsctl_plan_phase_name(now));
    ts_json_put_number(out, "worth", why->worth);
    for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++) {
        if (phase == now)
            continue;
        struct ts_json *other = ts_json_new_object();
        put_text(other, "phase", tsctl_plan_phase_name(phase));
        ts_json_put_number(other, "objective", why->as[phase]);
        ts_json_put_number(other, "loss", objective - why->as[phase]);
        if (why->reason[phase][0])
            put_text(other, "reason", why->reason[phase]);
        ts_json_put(others, NULL, &other);
    }
    ts_json_put(out, "alternatives", &others);
    return out;
}

static struct ts_json *price_json(const struct tsctl_plan_doc *doc, const struct tsctl_plan_price *item)
{
    struct ts_json *out = ts_json_new_object();
    const struct plan_price *price = &item->price;
    put_text(out, "limit", limit_name(price->limit));
    if (price->limit == PLAN_LIMIT_DEMAND)
        ts_json_put_integer(out, "class", price->index);
    else if (price->limit == PLAN_LIMIT_NIC_OUT || price->limit == PLAN_LIMIT_NIC_IN)
        put_text(out, "node", doc->cluster->nodes[price->index].name);
    else if (price->limit == PLAN_LIMIT_LINK) {
        put_text(out, "from", doc->cluster->nodes[price->index / doc->cluster->node_count].name);
        put_text(out, "to", doc->cluster->nodes[price->index % doc->cluster->node_count].name);
    } else
        ts_json_put_integer(out, "replica", price->index);
    ts_json_put_number(out, "use", price->use);
    ts_json_put_number(out, "gain", item->gain);
    return out;
}

static struct ts_json *advice_json(const struct tsctl_plan_doc *doc, const struct plan_advice *advice)
{
    struct ts_json *out = ts_json_new_object();
    put_text(out, "do", advice->rent ? "rent" : "give back");
    put_text(out, "type", doc->cluster->types[advice->type].name);
    ts_json_put_integer(out, "count", advice->count);
    if (!advice->idle)
        put_text(out, "phase", tsctl_plan_phase_name(advice->phase));
    if (!advice->idle && !advice->rent)
        ts_json_put_integer(out, "replica", advice->group);
    ts_json_put_number(out, "dollars_per_hour", advice->dollars_per_hour);
    ts_json_put_number(out, "gain", advice->gain);
    return out;
}

struct ts_json *tsctl_plan_why_json(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why)
{
    struct ts_json *out = ts_json_new_object(), *replicas = ts_json_new_array(),
                   *prices = ts_json_new_array();
    struct ts_json *advice = ts_json_new_array();
    ts_json_put_number(out, "objective", why->objective);
    ts_json_put_number(out, "bound", doc->plan->bound);
    ts_json_put_number(out, "gap", tsctl_plan_gap(doc->plan));
    put_text(out, "limit", doc->plan->limit);
    for (uint32_t g = 0; g < why->replica_count; g++) {
        struct ts_json *item = replica_json(doc, &why->replicas[g], g, why->objective);
        ts_json_put(replicas, NULL, &item);
    }
    for (uint32_t i = 0; i < why->price_count; i++) {
        struct ts_json *item = price_json(doc, &why->prices[i]);
        ts_json_put(prices, NULL, &item);
    }
    ts_json_put(out, "replicas", &replicas);
    for (uint32_t i = 0; i < why->advice_count; i++) {
        struct ts_json *item = advice_json(doc, &why->advice[i]);
        ts_json_put(advice, NULL, &item);
    }
    ts_json_put(out, "prices", &prices);
    ts_json_put(out, "advice", &advice);
    return out;
}

/* --- For people --- */

/* How a difference of the objective reads: points of a share, or requests/s. */
struct unit {
    double scale;
    const char *name;
};

static struct unit unit_of(const struct tsctl_plan_doc *doc)
{
    if (strcmp(doc->inputs.objective, "goodput") == 0)
        return (struct unit){1, "requests/s"};
    return (struct unit){100, "points"};
}

/* Never "-0.000". */
static double rounded(double change)
{
    return round(1000 * change) / 1000 + 0.0;
}

static void print_change(FILE *to, double as, double objective, double scale, bool now)
{
    char cell[32];
    if (now)
        snprintf(cell, sizeof cell, "now");
    else if (isnan(as))
        snprintf(cell, sizeof cell, "cannot");
    else
        snprintf(cell, sizeof cell, "%+.3f", rounded(scale * (as - objective)));
    fprintf(to, " %10s", cell);
}

static void print_replicas(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why,
                           struct unit unit, FILE *to)
{
    const struct ts_plan *plan = doc->plan;
    fprintf(
        to,
        "What the objective gains or loses (in %s) when one replica alone changes its phase, its devices,\n",
        unit.name);
    fprintf(to, "TP and layers staying, and what it loses without it:\n\n");
    fprintf(to, "%-5s %10s %10s %10s %10s  devices\n", "#", "prefill", "decode", "colocated", "without");
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        char name[16], words[TSCTL_PLAN_WORDS], shape[TSCTL_PLAN_WORDS];
        snprintf(name, sizeof name, "%c%u", tsctl_plan_phase_letter(group->phase), g);
        fprintf(to, "%-5s", name);
        for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++)
            print_change(to, why->replicas[g].as[phase], why->objective, unit.scale, phase == group->phase);
        fprintf(to, " %+10.3f  %s, %s\n", rounded(-unit.scale * why->replicas[g].worth),
                tsctl_plan_gpus_brief(doc, group, words), tsctl_plan_shape_words(group, shape));
    }
}

/* The closest alternative of each replica, in a sentence, and alternatives that would even gain. */
static void print_reasons(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why,
                          struct unit unit, FILE *to)
{
    fprintf(to, "\n");
    for (uint32_t g = 0; g < why->replica_count; g++) {
        enum ts_phase now = doc->plan->groups[g].phase, best = TS_PHASE_NONE;
        const struct tsctl_plan_replica_why *r = &why->replicas[g];
        for (enum ts_phase phase = TS_PHASE_PREFILL; phase <= TS_PHASE_BOTH; phase++)
            if (phase != now && !isnan(r->as[phase]) && (best == TS_PHASE_NONE || r->as[phase] > r->as[best]))
                best = phase;
        fprintf(to, "%c%u ", tsctl_plan_phase_letter(now), g);
        double loss = best == TS_PHASE_NONE ? 0 : unit.scale * (why->objective - r->as[best]);
        const char *as = best == TS_PHASE_BOTH ? "colocated" : tsctl_plan_phase_name(best);
        const char *is = now == TS_PHASE_BOTH     ? "is colocated"
                         : now == TS_PHASE_DECODE ? "decodes"
                                                  : "prefills";
        if (best == TS_PHASE_NONE)
            fprintf(to, "%s: it can do nothing else\n", is);
        else if (loss > 5e-4)
            fprintf(to, "%s: as %s, the next best, the plan would lose %.3f %s\n", is, as, loss, unit.name);
        else if (loss < -5e-4)
            fprintf(to, "%s, although as %s the plan would gain %.3f %s: the search did not see it\n", is, as,
                    -loss, unit.name);
        else
            fprintf(to, "%s; as %s it would do as well\n", is, as);
    }
}

static void print_price(const struct tsctl_plan_doc *doc, const struct tsctl_plan_price *item,
                        struct unit unit, FILE *to)
{
    const struct plan_price *price = &item->price;
    char what[TSCTL_PLAN_WORDS + 64], words[TSCTL_PLAN_WORDS];
    if (price->limit == PLAN_LIMIT_DEMAND) {
        const struct ts_class *c = &doc->demand->classes[price->index];
        snprintf(what, sizeof what, "class %u (%.0f tokens in, %.0f out), %.0f %% served", price->index,
                 c->prompt_tokens, c->output_tokens, 100 * price->use);
    } else if (price->limit == PLAN_LIMIT_NIC_OUT || price->limit == PLAN_LIMIT_NIC_IN) {
        snprintf(what, sizeof what, "%s of node %s, %.0f %% used", limit_name(price->limit),
                 doc->cluster->nodes[price->index].name, 100 * price->use);
    } else if (price->limit == PLAN_LIMIT_LINK) {
        snprintf(what, sizeof what, "%s from node %s to node %s, %.0f %% used", limit_name(price->limit),
                 doc->cluster->nodes[price->index / doc->cluster->node_count].name,
                 doc->cluster->nodes[price->index % doc->cluster->node_count].name, 100 * price->use);
    } else {
        const struct ts_group *group = &doc->plan->groups[price->index];
        snprintf(what, sizeof what, "%s of %c%u (%s), %.0f %% used", limit_name(price->limit),
                 tsctl_plan_phase_letter(group->phase), price->index,
                 tsctl_plan_gpus_brief(doc, group, words), 100 * price->use);
    }
    fprintf(to, "%+10.3f  %s\n", unit.scale * item->gain, what);
}

#define PRICES_SHOWN 10
#define ADVICE_SHOWN 3 /* of each kind */

/* Rents that gain nothing are no advice. */
static void print_advice(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why, struct unit unit,
                         bool rent, FILE *to)
{
    uint32_t shown = 0;
    for (uint32_t i = 0; i < why->advice_count && shown < ADVICE_SHOWN; i++) {
        const struct plan_advice *a = &why->advice[i];
        char what[TSCTL_PLAN_WORDS + 32], words[TSCTL_PLAN_WORDS];
        const char *type = doc->cluster->types[a->type].name;
        const char *as = a->phase == TS_PHASE_BOTH ? "colocated" : tsctl_plan_phase_name(a->phase);
        if (a->rent != rent || (rent && unit.scale * a->gain < 5e-4))
            continue;
        if (a->idle)
            snprintf(what, sizeof what, "%ux %s, not used", a->count, type);
        else if (rent)
            snprintf(what, sizeof what, "%ux %s, %s", a->count, type, as);
        else
            snprintf(what, sizeof what, "%c%u, %s", tsctl_plan_phase_letter(a->phase), a->group,
                     tsctl_plan_gpus_brief(doc, &doc->plan->groups[a->group], words));
        if (shown++ == 0)
            fprintf(to, "\n%s (the flows alone change, the groups stay):\n",
                    rent ? "What to rent next" : "What to give back first");
        fprintf(to, "%+10.3f  %s, %s %.3f $/h\n", rounded(unit.scale * a->gain), what, rent ? "for" : "saves",
                a->dollars_per_hour);
    }
}

void tsctl_plan_why_table(const struct tsctl_plan_doc *doc, const struct tsctl_plan_why *why, FILE *to)
{
    struct unit unit = unit_of(doc);
    uint32_t shown = 0;
    if (fabs(why->objective - doc->plan->objective) > 1e-6 * why->objective)
        fprintf(
            to,
            "The plan's own routing attains %.6g %s, the best one over its groups %.6g, of which all below "
            "speaks.\n\n",
            unit.scale * doc->plan->objective, unit.name, unit.scale * why->objective);
    print_replicas(doc, why, unit, to);
    print_reasons(doc, why, unit, to);
    fprintf(to, "\nWhat limits the plan: %s\n", doc->plan->limit[0] ? doc->plan->limit : "nothing is full");
    for (uint32_t i = 0; i < why->price_count && shown < PRICES_SHOWN; i++) {
        if (why->prices[i].price.limit == PLAN_LIMIT_DEMAND)
            continue; /* more demand is no remedy */
        if (shown++ == 0)
            fprintf(to, "As much again of one of these would gain (in %s, to first order):\n", unit.name);
        print_price(doc, &why->prices[i], unit, to);
    }
    print_advice(doc, why, unit, true, to);
    print_advice(doc, why, unit, false, to);
}
