/*
 * `tsctl plan adopt`: the plan in force against what re-routing, flipping and regrouping would give in the
 * present situation, and whether one of them is worth its change (services/planner/plan_adopt.h).
 */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_adopt.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_make.h"

#define DEPTHS 3

static const char *const depth_names[DEPTHS] = {
    [PLAN_REROUTE] = "re-route", [PLAN_FLIP] = "flip", [PLAN_REGROUP] = "regroup"};

struct adopt {
    struct tsctl_plan_world world;
    double served;       /* requests/s within deadlines, by the flows of the plan in force */
    struct ts_plan *now; /* the plan in force under the present demand */
    struct ts_plan *plans[DEPTHS];
    struct plan_change changes[DEPTHS];
    struct plan_adopt_candidate candidates[DEPTHS];
    struct plan_adopt_verdict verdict;
};

static double served_by(const struct ts_plan *plan)
{
    double served = 0;
    for (uint32_t f = 0; f < plan->flow_count; f++)
        served += plan->flows[f].attained;
    return served;
}

/* What a plan is said to serve: by trials where it was tried, else by its flows. */
static double promised(const struct ts_plan *plan)
{
    return isfinite(plan->attained_all) ? plan->attained_all * plan->rate : served_by(plan);
}

/* A deeper change may keep what a shallower one does, and re-routing the flows that there are. */
static void keep_better(struct adopt *a, enum plan_depth depth)
{
    const struct ts_plan *before = depth == PLAN_REROUTE ? a->now : a->plans[depth - 1];
    if (a->world.problem.trial_requests == 0 || promised(before) <= promised(a->plans[depth]))
        return;
    ts_plan_destroy(&a->plans[depth]);
    a->plans[depth] = ts_plan_copy(before);
}

static enum ts_status search(struct adopt *a, const struct tsctl_plan_flags *f, enum plan_depth depth,
                             const struct plan_algorithm *algorithm, struct ts_error *err)
{
    struct tsctl_plan_search run = {
        .algorithm = algorithm, .seconds = f->time_limit, .max_work = f->max_work, .progress = f->progress};
    struct plan_change *change = &a->changes[depth];
    double then = served_by(a->world.current);
    a->world.problem.depth = depth;
    if (tsctl_plan_search(&a->world, &run, err) != TS_OK)
        return ts_error_prefix(err, "%s", depth_names[depth]);
    a->plans[depth] = run.plan;
    tsctl_plan_promise(&a->world, run.plan);
    keep_better(a, depth);
    plan_change_of(a->world.cluster, &a->world.model, a->world.current, a->plans[depth],
                   f->load_gb_per_s * 1e9, f->flip_s, change);
    /* The change counts what flowed when the plan was made: its share of what flows now. */
    a->candidates[depth] = (struct plan_adopt_candidate){
        .depth = depth,
        .served = promised(a->plans[depth]),
        .reload_s = change->reload_s,
        .served_meanwhile = then > 0 ? a->served * change->served_meanwhile / then : 0};
    return TS_OK;
}

static bool same_classes(const struct ts_demand *a, const struct ts_demand *b)
{
    bool same = a->class_count == b->class_count;
    for (uint32_t k = 0; same && k < a->class_count; k++)
        same = fabs(a->classes[k].prompt_tokens / b->classes[k].prompt_tokens - 1) < 0.01 &&
               fabs(a->classes[k].output_tokens / b->classes[k].output_tokens - 1) < 0.01;
    return same;
}

/* What the plan in force serves now, by the shares that it was made with: of each class where the classes are
 * still the same, of all requests otherwise. `was`: what it was made for. */
static enum ts_status score_current(struct adopt *a, const struct ts_demand *was, struct ts_error *err)
{
    const struct ts_plan *current = a->world.current;
    struct tsctl_plan_score score;
    bool by_class = same_classes(was, &a->world.demand);
    if (tsctl_plan_score(&a->world, current, &score, err) != TS_OK)
        return err->status;
    struct plan_share *shares = ts_xcalloc(current->flow_count + 1, sizeof *shares);
    for (uint32_t i = 0; i < current->flow_count; i++) {
        const struct ts_flow *flow = &current->flows[i];
        double of = by_class ? was->classes[flow->length_class].rate : ts_demand_rate(was);
        shares[i] = (struct plan_share){.prefill = flow->prefill,
                                        .decode = flow->decode,
                                        .codec = flow->codec,
                                        .share = of > 0 ? fmin(flow->rate / of, 1) : 0,
                                        .only_class = by_class ? flow->length_class + 1 : 0};
    }
    struct ts_plan *now =
        plan_eval_fixed_plan(score.eval, &score.state, shares, current->flow_count, current->algorithm);
    tsctl_plan_promise(&a->world, now);
    a->served = promised(now);
    a->now = now;
    ts_free(shares);
    tsctl_plan_score_fini(&score);
    return TS_OK;
}

static enum ts_status decide(struct adopt *a, const struct tsctl_plan_flags *f,
                             const struct plan_algorithm *algorithm, struct ts_error *err)
{
    struct plan_adopt_rule rule = plan_adopt_defaults();
    struct tsctl_plan_doc *doc = NULL;
    enum ts_status status = tsctl_plan_world_current(&a->world, f->current, err);
    if (status == TS_OK)
        status = tsctl_plan_read(f->current, &doc, err);
    if (status == TS_OK)
        status = score_current(a, doc->demand, err);
    tsctl_plan_doc_destroy(&doc);
    for (int depth = 0; depth < DEPTHS && status == TS_OK; depth++)
        status = search(a, f, (enum plan_depth)depth, algorithm, err);
    if (status != TS_OK)
        return status;
    rule.window_s = f->window_s;
    const struct plan_adopt_now now = {.served = a->served,
                                       .served_adopted = promised(a->world.current),
                                       .since_s = f->since_s > 0 ? f->since_s : INFINITY};
    plan_adopt_decide(&rule, &now, a->candidates, DEPTHS, &a->verdict);
    return TS_OK;
}

static struct ts_json *to_json(const struct adopt *a)
{
    struct ts_json *out = ts_json_new_object(), *list = ts_json_new_array();
    const char *verdict = a->verdict.adopt < 0 ? "hold" : depth_names[a->verdict.adopt];
    ts_json_put_string(out, "verdict", verdict, strlen(verdict));
    ts_json_put_string(out, "reason", a->verdict.reason, strlen(a->verdict.reason));
    ts_json_put_number(out, "served_now", a->served);
    ts_json_put_number(out, "gain", a->verdict.gain);
    ts_json_put_number(out, "loss", a->verdict.loss);
    for (int i = 0; i < DEPTHS; i++) {
        struct ts_json *item = ts_json_new_object();
        ts_json_put_string(item, "depth", depth_names[i], strlen(depth_names[i]));
        ts_json_put_number(item, "objective", a->plans[i]->objective);
        ts_json_put_number(item, "served", a->candidates[i].served);
        ts_json_put_number(item, "reload_s", a->candidates[i].reload_s);
        ts_json_put_number(item, "load_bytes", a->changes[i].load_bytes);
        ts_json_put_number(item, "served_meanwhile", a->candidates[i].served_meanwhile);
        ts_json_put_integer(item, "groups_kept", a->changes[i].groups_kept);
        ts_json_put_integer(item, "groups_flipped", a->changes[i].groups_flipped);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(out, "candidates", &list);
    return out;
}

static void print_table(const struct adopt *a)
{
    printf("%-9s %10s %10s %9s %9s %6s %8s\n", "", "in time/s", "meanwhile", "until, s", "load, GB", "kept",
           "flipped");
    printf("%-9s %10.3f\n", "now", a->served);
    for (int i = 0; i < DEPTHS; i++)
        printf("%-9s %10.3f %10.3f %9.1f %9.1f %6u %8u\n", depth_names[i], a->candidates[i].served,
               a->candidates[i].served_meanwhile, a->candidates[i].reload_s, a->changes[i].load_bytes / 1e9,
               a->changes[i].groups_kept, a->changes[i].groups_flipped);
    printf("\n%s\n", a->verdict.reason);
}

static enum ts_status print(const struct adopt *a, const struct tsctl_plan_flags *f, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    struct ts_json *json;
    if (*f->out) {
        const struct ts_plan *plan = a->verdict.adopt < 0 ? a->world.current : a->plans[a->verdict.adopt];
        struct tsctl_plan_doc doc = tsctl_plan_world_doc(&a->world, plan);
        json = tsctl_plan_json(&doc);
        status = tsctl_plan_write_json(&json, f->out, err);
    }
    if (status == TS_OK && f->json) {
        json = to_json(a);
        status = tsctl_plan_write_json(&json, NULL, err);
    } else if (status == TS_OK) {
        print_table(a);
    }
    return status;
}

static int run(const struct tsctl_plan_flags *f, struct ts_error *err)
{
    struct adopt a = {.served = 0};
    const struct plan_algorithm *algorithm;
    int code = tsctl_plan_flags_check(f, &algorithm, err);
    if (code)
        return code;
    if (!*f->current) {
        ts_error_set(err, TS_EINVAL,
                     "--current is missing: the plan in force, as tsctl plan --out writes it");
        return 2;
    }
    if (tsctl_plan_world_load(&f->inputs, &a.world, err) != TS_OK)
        return 1;
    if (a.world.problem.objective == PLAN_ATTAINMENT)
        a.world.problem.trial_requests = f->trial;
    enum ts_status status = decide(&a, f, algorithm, err);
    if (status == TS_OK)
        status = print(&a, f, err);
    for (int i = 0; i < DEPTHS; i++)
        ts_plan_destroy(&a.plans[i]);
    ts_plan_destroy(&a.now);
    tsctl_plan_world_fini(&a.world);
    return status == TS_OK ? 0 : 1;
}

int tsctl_plan_adopt(int argc, char **argv)
{
    struct tsctl_plan_flags f;
    struct ts_error err = {0};
    int code = tsctl_plan_flags_load(argc, argv, "plan adopt", &f, NULL, &err);
    if (code)
        return code < 0 ? 0 : code;
    code = run(&f, &err);
    tsctl_plan_flags_free(&f);
    return code ? tsctl_fail("plan adopt", code, err.text) : 0;
}
