#include "services/tsctl/tsctl_plan_money.h"

#include <math.h>
#include <string.h>

#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_clock.h"

#define STEP_WORK 64 /* between two looks at the clock */

bool tsctl_plan_money_asked(const struct tsctl_plan_flags *flags)
{
    return flags->budget > 0 || flags->min_cost || flags->frontier;
}

/* What is asked, and what was asked over. */
struct money {
    const struct tsctl_plan_flags *flags;
    struct tsctl_plan_world *world;
    struct plan_money_ask ask;
    struct plan_money *run;
    bool finished;
    uint64_t work;
};

static bool goodput(const struct money *m)
{
    return m->world->problem.objective == PLAN_GOODPUT;
}

/* Every device of the cluster may be rented. */
static enum ts_status offer_all(struct ts_cluster *cluster, struct ts_error *err)
{
    for (uint32_t i = 0; i < cluster->gpu_count; i++)
        cluster->gpus[i].alive = true;
    return ts_cluster_seal(cluster, err);
}

static int check(const struct tsctl_plan_flags *f, struct ts_error *err)
{
    if ((f->budget > 0) + f->min_cost + f->frontier > 1) {
        ts_error_set(err, TS_EINVAL,
                     "--budget, --min-cost and --frontier are three questions: give one of them");
        return 2;
    }
    if (f->min_cost && strcmp(f->inputs.objective, "goodput") == 0) {
        ts_error_set(err, TS_EINVAL,
                     "--min-cost serves a given --rate with at least --attainment of it in time: leave out "
                     "--objective goodput");
        return 2;
    }
    if (strcmp(f->depth, "regroup") != 0) {
        ts_error_set(err, TS_EINVAL, "--depth %s changes a plan on the devices that are there: it rents none",
                     f->depth);
        return 2;
    }
    return 0;
}

static enum ts_status search(struct money *m, struct ts_error *err)
{
    struct tsctl_plan_clock clock;
    m->run = plan_money_open(&m->world->problem, &m->ask, err);
    if (!m->run)
        return err->status;
    tsctl_plan_clock_start(&clock, m->flags->time_limit, m->flags->progress);
    do {
        char words[160] = "";
        m->finished = plan_money_step(m->run, STEP_WORK);
        m->work += STEP_WORK;
        plan_money_describe(m->run, words, sizeof words);
        tsctl_plan_clock_show(&clock, "money", words);
    } while (!m->finished && !tsctl_plan_clock_out(&clock));
    tsctl_plan_clock_stop(&clock);
    if (!m->finished)
        fprintf(stderr, "tsctl plan: stopped before the end of the search; this is the best so far\n");
    return TS_OK;
}

const char *tsctl_plan_bought_words(const struct ts_cluster *cluster, const struct ts_plan *plan,
                                    char out[TSCTL_PLAN_WORDS])
{
    uint32_t counts[TS_CLUSTER_TYPES_MAX] = {0};
    size_t used = 0;
    for (uint32_t g = 0; g < plan->group_count; g++)
        for (uint32_t s = 0; s < plan->groups[g].stage_count; s++)
            counts[cluster->gpus[plan->groups[g].stages[s].gpus[0]].type] += plan->groups[g].stages[s].tp;
    out[0] = '\0';
    for (uint32_t t = 0; t < cluster->type_count && used < TSCTL_PLAN_WORDS; t++)
        if (counts[t])
            used += (size_t)snprintf(out + used, TSCTL_PLAN_WORDS - used, "%s%ux %s", used ? ", " : "",
                                     counts[t], cluster->types[t].name);
    return out;
}

/* A document over a purchase. `plan` receives a copy whose bound and price are those of the purchase; it
 * borrows the rest. */
static struct tsctl_plan_doc doc_of(const struct money *m, const struct plan_money_point *point,
                                    struct ts_plan *plan)
{
    *plan = *point->plan;
    plan->bound = point->bound;
    plan->price_per_hour = point->dollars_per_hour;
    struct tsctl_plan_doc doc = tsctl_plan_world_doc(m->world, plan);
    doc.work = m->work;
    doc.finished = m->finished;
    return doc;
}

static void put_number(struct ts_json *object, const char *key, double value)
{
    ts_json_put_number(object, key, value);
}

static struct ts_json *ask_json(const struct money *m)
{
    static const char *const goals[] = {"budget", "min_cost", "frontier"};
    struct ts_json *out = ts_json_new_object();
    const char *goal = goals[m->ask.goal];
    ts_json_put_string(out, "goal", goal, strlen(goal));
    if (m->ask.goal == PLAN_MONEY_BUDGET)
        put_number(out, "budget_per_hour", m->ask.dollars_per_hour);
    if (m->ask.goal == PLAN_MONEY_TARGET)
        put_number(out, "attainment", m->ask.objective);
    put_number(out, m->ask.goal == PLAN_MONEY_TARGET ? "price_bound" : "objective_bound",
               plan_money_bound(m->run));
    return out;
}

static struct ts_json *point_json(const struct money *m, const struct plan_money_point *point)
{
    struct ts_plan plan;
    struct tsctl_plan_doc doc = doc_of(m, point, &plan);
    struct ts_json *out = ts_json_new_object(), *json = tsctl_plan_json(&doc);
    char words[TSCTL_PLAN_WORDS];
    tsctl_plan_bought_words(m->world->cluster, &plan, words);
    put_number(out, "price_per_hour", point->dollars_per_hour);
    put_number(out, "objective", point->objective);
    put_number(out, "bound", point->bound);
    ts_json_put_string(out, "gpus", words, strlen(words));
    ts_json_put(out, "plan", &json);
    return out;
}

static struct ts_json *frontier_json(const struct money *m, const struct plan_money_point *points,
                                     uint32_t count)
{
    struct ts_json *out = ts_json_new_object(), *list = ts_json_new_array(), *ask = ask_json(m);
    for (uint32_t i = 0; i < count; i++) {
        struct ts_json *item = point_json(m, &points[i]);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(out, "frontier", &list);
    ts_json_put(out, "money", &ask);
    return out;
}

static void print_frontier(const struct money *m, const struct plan_money_point *points, uint32_t count)
{
    const struct tsctl_plan_world *w = m->world;
    double scale = goodput(m) ? 1 : 100;
    char words[TSCTL_PLAN_WORDS];
    printf("%s on offers of %s, %s: what money buys\n\n", w->model.name, w->cluster->name, w->demand.name);
    printf("%10s %12s %12s %12s  devices\n", "$/h", goodput(m) ? "requests/s" : "in time, %", "at most",
           goodput(m) ? "$/million" : "");
    for (uint32_t i = 0; i < count; i++) {
        char bound[24] = "-", million[24] = "";
        if (!isnan(points[i].bound))
            snprintf(bound, sizeof bound, "%.4g", scale * points[i].bound);
        if (goodput(m) && points[i].objective > 0)
            snprintf(million, sizeof million, "%.4g",
                     points[i].dollars_per_hour / points[i].objective / 3600e-6);
        printf("%10.3f %12.4g %12s %12s  %s\n", points[i].dollars_per_hour, scale * points[i].objective,
               bound, million, tsctl_plan_bought_words(w->cluster, points[i].plan, words));
    }
}

static enum ts_status write_frontier(const struct money *m, struct ts_error *err)
{
    const struct tsctl_plan_flags *f = m->flags;
    uint32_t count = 0;
    const struct plan_money_point *points = plan_money_frontier(m->run, &count);
    enum ts_status status = TS_OK;
    if (count == 0)
        return ts_error_set(err, TS_ENOTFOUND,
                            "no purchase serves anything; give it more time (--time-limit), or "
                            "other offers");
    if (!f->json)
        print_frontier(m, points, count);
    int last = *f->out ? 1 : 0;
    for (int to_file = f->json ? 0 : 1; to_file <= last && status == TS_OK; to_file++) {
        struct ts_json *json = frontier_json(m, points, count);
        status = tsctl_plan_write_json(&json, to_file ? f->out : NULL, err);
    }
    if (status == TS_OK && *f->svg) {
        struct ts_plan plan;
        struct tsctl_plan_doc doc = doc_of(m, &points[count - 1], &plan);
        FILE *to = tsctl_plan_open(f->svg, err);
        if (to)
            tsctl_plan_svg_frontier(&doc, points, count, to);
        status = to ? tsctl_plan_close(to, f->svg, err) : err->status;
    }
    return status;
}

static enum ts_status no_purchase(const struct money *m, struct ts_error *err)
{
    double all = ts_cluster_price_per_hour(m->world->cluster);
    if (!m->finished)
        return ts_error_set(err, TS_ENOTFOUND, "no purchase was found in %g s; give it more (--time-limit)",
                            m->flags->time_limit);
    if (m->ask.goal == PLAN_MONEY_TARGET)
        return ts_error_set(
            err, TS_ENOTFOUND,
            "not even all offers (%.2f $/h) serve %g requests/s with %.4g %% of them in time; add "
            "offers, or lower --rate or --attainment",
            all, ts_demand_rate(&m->world->demand), 100 * m->ask.objective);
    return ts_error_set(
        err, TS_ENOTFOUND,
        "%g $/h rent no devices that hold the model \"%s\"; all offers together cost %.2f $/h",
        m->ask.dollars_per_hour, m->world->model.name, all);
}

static void print_purchase(const struct money *m, const struct tsctl_plan_doc *doc)
{
    double bound = plan_money_bound(m->run);
    char words[TSCTL_PLAN_WORDS];
    printf("Rent        %s for %.3f $/h", tsctl_plan_bought_words(doc->cluster, doc->plan, words),
           doc->plan->price_per_hour);
    if (m->ask.goal == PLAN_MONEY_TARGET && !isnan(bound))
        printf("; nothing that attains %.4g %% costs less than %.3f $/h", 100 * m->ask.objective, bound);
    else if (!isnan(bound))
        printf("; nothing within %.3f $/h exceeds %.4g%s", m->ask.dollars_per_hour,
               bound * (goodput(m) ? 1 : 100), goodput(m) ? " requests/s" : " %");
    printf("\n\n");
}

static enum ts_status write_purchase(const struct money *m, struct ts_error *err)
{
    const struct tsctl_plan_flags *f = m->flags;
    const struct plan_money_point *best = plan_money_best(m->run);
    struct ts_plan plan;
    enum ts_status status = TS_OK;
    if (!best)
        return no_purchase(m, err);
    struct tsctl_plan_doc doc = doc_of(m, best, &plan);
    if (!f->json) {
        print_purchase(m, &doc);
        tsctl_plan_table(&doc, f->by_class, stdout);
    }
    int last = *f->out ? 1 : 0;
    for (int to_file = f->json ? 0 : 1; to_file <= last && status == TS_OK; to_file++) {
        struct ts_json *json = tsctl_plan_json(&doc), *ask = ask_json(m);
        ts_json_put(json, "money", &ask);
        status = tsctl_plan_write_json(&json, to_file ? f->out : NULL, err);
    }
    if (status == TS_OK && *f->svg)
        status = tsctl_plan_write_svg(&doc, f->svg, err);
    return status;
}

int tsctl_plan_money(struct tsctl_plan_flags *f, struct ts_error *err)
{
    struct tsctl_plan_world world;
    struct money m = {.flags = f, .world = &world};
    int code = check(f, err);
    if (code == 0)
        code = tsctl_plan_flags_check(f, &m.ask.algorithm, err);
    if (code)
        return code;
    if (!f->min_cost && !ts_conf_given(f->conf, "objective"))
        f->inputs.objective = "goodput"; /* the most requests in time that money buys */
    if (tsctl_plan_world_load(&f->inputs, &world, err) != TS_OK)
        return 1;
    m.ask.goal = f->min_cost ? PLAN_MONEY_TARGET : f->frontier ? PLAN_MONEY_FRONTIER : PLAN_MONEY_BUDGET;
    m.ask.dollars_per_hour = f->budget;
    m.ask.objective = f->inputs.attainment;
    m.ask.points = f->points;
    enum ts_status status = offer_all(world.cluster, err);
    if (status == TS_OK && *f->current)
        status = tsctl_plan_world_current(&world, f->current, err);
    if (status == TS_OK)
        status = search(&m, err);
    if (status == TS_OK)
        status = f->frontier ? write_frontier(&m, err) : write_purchase(&m, err);
    if (m.run)
        plan_money_close(&m.run);
    tsctl_plan_world_fini(&world);
    return status == TS_OK ? 0 : 1;
}
