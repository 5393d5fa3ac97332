#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/trial/plan_trial.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_money.h"

#define PROMISE_TRIALS 4 /* that a promise is the mean of; fewer where each has more requests */

#define F(field) offsetof(struct tsctl_plan_flags, field)

static const struct ts_option options[] = {
    {"cluster", TS_OPTION_STRING, F(inputs.cluster), NULL, 0, 0, "file, or name in conf/clusters"},
    {"model", TS_OPTION_STRING, F(inputs.model), NULL, 0, 0,
     "name in conf/models, or a .conf, a config.json, a folder with one"},
    {"workload", TS_OPTION_STRING, F(inputs.workload), NULL, 0, 0,
     "file or name in conf/workloads, or a trace CSV"},
    {"slo", TS_OPTION_STRING, F(inputs.slo), NULL, 0, 0,
     "ttft=500ms,tpot=50ms,e2e=10s (any of them); scale=5,reference=A100; a name in conf/slo; none"},
    {"conf_dir", TS_OPTION_STRING, F(inputs.conf_dir), NULL, 0, 0,
     "where names are looked up; default: conf here, or that of the source tree"},
    {"devices", TS_OPTION_STRING, F(inputs.devices), "measured", 0, 0,
     "catalogue of devices: measured, paper"},
    {"rate", TS_OPTION_F64, F(inputs.rate), NULL, 1e-6, 1e6, "requests/s, instead of the workload's own"},
    {"scale_lengths", TS_OPTION_F64, F(inputs.scale_lengths), "1", 0.01, 100,
     "prompts and outputs times this"},
    {"link_gbit", TS_OPTION_F64, F(inputs.link_gbit), NULL, 0, 1e5,
     "Gbit/s between nodes, instead of the cluster's"},
    {"objective", TS_OPTION_CHOICE, F(inputs.objective), "attainment|goodput", 0, 0,
     "share of requests in time at the given rate, or most requests/s in time"},
    {"attainment", TS_OPTION_F64, F(inputs.attainment), "0.9", 0.01, 1, "least share in time, for goodput"},
    {"no_colocate", TS_OPTION_BOOL, F(inputs.no_colocate), "false", 0, 0, "every request is split"},
    {"codec", TS_OPTION_CHOICE, F(inputs.codec), "auto|none|i4", 0, 0, "of KV on the wire"},
    {"max_stages", TS_OPTION_U32, F(inputs.max_stages), "0", 0, TS_STAGES_MAX,
     "pipeline stages of a replica; 0 = the planner's default"},
    {"seed", TS_OPTION_U64, F(inputs.seed), "1", 0, 9e15, "same seed, same plan"},
    {"effort", TS_OPTION_F64, F(inputs.effort), "1", 0.01, 1e4,
     "thunder: times its usual work; 10 often finds one or two points more"},
    {"trial", TS_OPTION_U32, F(trial), "2000", 0, 1000000,
     "requests that plans are tried on; 0 = only the linear program judges"},
    {"algorithm", TS_OPTION_STRING, F(algorithm), "thunder", 0, 0, "who plans: one of the above"},
    {"load", TS_OPTION_STRING, F(load), NULL, 0, 0,
     "an algorithm of your own: shared object, see services/planner"},
    {"time_limit", TS_OPTION_F64, F(time_limit), "600", 0.001, 1e6, "seconds; then the best so far counts"},
    {"max_work", TS_OPTION_U64, F(max_work), "0", 0, 9e15,
     "evaluations and simplex iterations of the search; then the best so far counts; 0 = no bound"},
    {"no_bound", TS_OPTION_BOOL, F(no_bound), "false", 0, 0, "do not prove how good the plan is"},
    {"budget", TS_OPTION_F64, F(budget), NULL, 1e-3, 1e9,
     "$/h: the devices to rent for the most requests in time"},
    {"min_cost", TS_OPTION_BOOL, F(min_cost), "false", 0, 0,
     "the cheapest devices for the rate with --attainment in time"},
    {"frontier", TS_OPTION_BOOL, F(frontier), "false", 0, 0,
     "rate against price, as a table and with --svg a picture"},
    {"points", TS_OPTION_U32, F(points), "0", 0, 100,
     "budgets that --frontier tries; 0 = the planner's default"},
    {"depth", TS_OPTION_CHOICE, F(depth), "regroup|flip|reroute", 0, 0, "what may change against --current"},
    {"current", TS_OPTION_STRING, F(current), NULL, 0, 0, "the plan in force, as JSON"},
    {"window_s", TS_OPTION_F64, F(window_s), "600", 1, 1e9,
     "adopt: for how long load and cluster are expected to stay as they are"},
    {"load_gb_per_s", TS_OPTION_F64, F(load_gb_per_s), "1", 1e-3, 1e4,
     "adopt: weights that a node loads in a second"},
    {"flip_s", TS_OPTION_F64, F(flip_s), "5", 0, 1e6, "adopt: seconds to drain a replica for another phase"},
    {"since_s", TS_OPTION_F64, F(since_s), "0", 0, 1e9, "adopt: seconds since the last change; 0 = none"},
    {"json", TS_OPTION_BOOL, F(json), "false", 0, 0, "print JSON instead of tables"},
    {"out", TS_OPTION_STRING, F(out), NULL, 0, 0, "write the plan into this file, as JSON"},
    {"svg", TS_OPTION_STRING, F(svg), NULL, 0, 0, "draw the plan into this file"},
    {"by_class", TS_OPTION_BOOL, F(by_class), "false", 0, 0, "the routing matrix of each length class too"},
    {"progress", TS_OPTION_BOOL, F(progress), "false", 0, 0,
     "progress on stderr even if that is no terminal"},
};

static int missing(const struct tsctl_plan_flags *f, struct ts_error *err)
{
    const struct {
        const char *flag, *value, *example;
    } needed[] = {{"--cluster", f->inputs.cluster, "paper-cloud"},
                  {"--model", f->inputs.model, "llama-30b"},
                  {"--workload", f->inputs.workload, "azure-code"},
                  {"--slo", f->inputs.slo, "ttft=2s,tpot=150ms"}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(needed); i++) {
        if (*needed[i].value)
            continue;
        ts_error_set(err, TS_EINVAL, "%s is missing, for example %s %s; --help lists the flags",
                     needed[i].flag, needed[i].flag, needed[i].example);
        return 2;
    }
    if (strcmp(f->depth, "regroup") != 0 && !*f->current) {
        ts_error_set(err, TS_EINVAL, "--depth %s changes a plan in force: give it with --current PLAN.json",
                     f->depth);
        return 2;
    }
    return 0;
}

static const struct plan_algorithm *algorithm_of(const struct tsctl_plan_flags *f, struct ts_error *err)
{
    if (*f->load)
        return plan_algorithm_load(f->load, err);
    const struct plan_algorithm *found = plan_algorithm_find(f->algorithm), *other;
    if (found)
        return found;
    char names[400] = "";
    for (size_t i = 0, used = 0; (other = plan_algorithm_at(i)) && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", other->name);
    ts_error_set(err, TS_EINVAL, "--algorithm %.60s is unknown: there are %s; --load takes one from a file",
                 f->algorithm, names);
    return NULL;
}

static const char help[] =
    "Plans a cluster: groups of devices, what each does (prefill, decode, or both), TP, PP and layers, and\n"
    "which share of the requests goes from where to where. Prints tables; with --json one document.\n\n"
    "  tsctl plan --cluster C --model M --workload W --slo S [flags]    make a plan\n"
    "  tsctl plan ... --budget $/h | --min-cost | --frontier    what to rent of the devices that are "
    "offered\n"
    "  tsctl plan explain PLAN.json | [flags]    why it is so, what limits it, what to rent next\n"
    "  tsctl plan adopt --current PLAN.json [flags]    is re-routing, flipping or regrouping worth it now\n"
    "  tsctl plan diff A.json B.json [--json]    what changes, and what must be loaded anew\n"
    "  tsctl plan show PLAN.json [--json] [--by-class] [--svg FILE]    a plan from a file\n\n"
    "Exit codes: 0 done; 1 it failed, and a line says why; 2 wrong usage. Ctrl-C ends a search, and the\n"
    "best plan so far is printed.\n\n";

static void print_help(void)
{
    const struct plan_algorithm *algorithm;
    printf("%sAlgorithms:\n", help);
    for (size_t i = 0; (algorithm = plan_algorithm_at(i)); i++)
        printf("  %-28s %s\n", algorithm->name, algorithm->summary);
    printf("\n");
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            return true;
    return false;
}

int tsctl_plan_flags_load(int argc, char **argv, const char *name, struct tsctl_plan_flags *f,
                          struct ts_conf_strings *arguments, struct ts_error *err)
{
    *f = (struct tsctl_plan_flags){.conf = NULL};
    if (asks_for_help(argc, argv))
        print_help();
    switch (ts_conf_load("plan", options, TS_ARRAY_SIZE(options), argc, argv, f, arguments, &f->conf, err)) {
    case TS_CONF_EXIT:
        ts_conf_destroy(&f->conf);
        return -1;
    case TS_CONF_ERROR:
        return tsctl_fail(name, 2, err->text);
    case TS_CONF_RUN:
        break;
    }
    if (!ts_conf_given(f->conf, "link_gbit"))
        f->inputs.link_gbit = -1;
    return 0;
}

void tsctl_plan_flags_free(struct tsctl_plan_flags *f)
{
    ts_conf_destroy(&f->conf);
}

int tsctl_plan_flags_check(const struct tsctl_plan_flags *f, const struct plan_algorithm **algorithm,
                           struct ts_error *err)
{
    int code = missing(f, err);
    if (code)
        return code;
    *algorithm = algorithm_of(f, err);
    return *algorithm ? 0 : 2;
}

void tsctl_plan_promise(const struct tsctl_plan_world *world, struct ts_plan *plan)
{
    const struct plan_problem *problem = &world->problem;
    if (problem->trial_requests == 0)
        return;
    uint32_t requests = plan_trial_requests(plan, problem->trial_requests);
    uint32_t times = PROMISE_TRIALS * problem->trial_requests / requests;
    struct plan_trial trial = plan_trial_mean(problem, plan, requests, times > 0 ? times : 1, problem->seed);
    plan->attained_ttft = trial.ttft;
    plan->attained_tpot = trial.tpot;
    plan->attained_e2e = trial.e2e;
    plan->attained_all = trial.all;
}

int tsctl_plan_make(const struct tsctl_plan_flags *f, struct tsctl_plan_world *world,
                    struct tsctl_plan_search *search, struct ts_error *err)
{
    *search = (struct tsctl_plan_search){
        .seconds = f->time_limit, .max_work = f->max_work, .bound = !f->no_bound, .progress = f->progress};
    int code = tsctl_plan_flags_check(f, &search->algorithm, err);
    if (code)
        return code;
    if (tsctl_plan_world_load(&f->inputs, world, err) != TS_OK)
        return 1;
    world->problem.depth = strcmp(f->depth, "reroute") == 0 ? PLAN_REROUTE
                           : strcmp(f->depth, "flip") == 0  ? PLAN_FLIP
                                                            : PLAN_REGROUP;
    if (world->problem.objective == PLAN_ATTAINMENT)
        world->problem.trial_requests = f->trial;
    if ((*f->current && tsctl_plan_world_current(world, f->current, err) != TS_OK) ||
        tsctl_plan_search(world, search, err) != TS_OK) {
        tsctl_plan_world_fini(world);
        return 1;
    }
    tsctl_plan_promise(world, search->plan);
    if (!search->finished)
        fprintf(stderr, "tsctl plan: stopped before the end of the search; this is the best plan so far\n");
    if (search->plan->objective <= 0)
        fprintf(stderr, "tsctl plan: %s\n", search->plan->limit);
    return 0;
}

static enum ts_status print(const struct tsctl_plan_flags *f, const struct tsctl_plan_world *world,
                            const struct tsctl_plan_search *search, struct ts_error *err)
{
    struct tsctl_plan_doc doc = tsctl_plan_world_doc(world, search->plan);
    struct ts_json *json = NULL;
    enum ts_status status = TS_OK;
    doc.work = search->work;
    doc.finished = search->finished;
    if (f->json) { /* first of all: a file that cannot be written must not cost the plan */
        json = tsctl_plan_json(&doc);
        status = tsctl_plan_write_json(&json, NULL, err);
    } else {
        tsctl_plan_table(&doc, f->by_class, stdout);
    }
    if (status == TS_OK && *f->out) {
        json = tsctl_plan_json(&doc);
        status = tsctl_plan_write_json(&json, f->out, err);
    }
    if (status == TS_OK && *f->svg)
        status = tsctl_plan_write_svg(&doc, f->svg, err);
    return status;
}

int tsctl_plan_main(int argc, char **argv)
{
    struct tsctl_plan_flags f;
    struct tsctl_plan_world world;
    struct tsctl_plan_search search;
    struct ts_error err = {0};
    int code = tsctl_plan_flags_load(argc, argv, "plan", &f, NULL, &err);
    if (code)
        return code < 0 ? 0 : code;
    if (tsctl_plan_money_asked(&f)) {
        code = tsctl_plan_money(&f, &err);
    } else if ((code = tsctl_plan_make(&f, &world, &search, &err)) == 0) {
        code = print(&f, &world, &search, &err) == TS_OK ? 0 : 1;
        ts_plan_destroy(&search.plan);
        tsctl_plan_world_fini(&world);
    }
    tsctl_plan_flags_free(&f);
    return code ? tsctl_fail("plan", code, err.text) : 0;
}
