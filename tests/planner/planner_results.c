/*
 * Judges the planner: thunder against the optimum of small clusters, against the bound, against every
 * baseline on random clusters and on the paper's two. Without arguments a short run that fails when a bound
 * lies below a plan or a search above an optimum. `--part head|small|large|random|paper|tail` prints one part
 * of tests/planner/RESULTS.md (scripts/planner-results). Numbers of cases: --small N --large N --random N.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "services/planner/eval/plan_eval.h"
#include "tests/planner/fixture_table3.h"
#include "tests/planner/results_run.h"

#define ALGORITHMS_MAX  16
#define THUNDER_WORK    60000
#define BASELINE_WORK   60000
#define EXHAUSTIVE_WORK 2000000
#define LOSSES_MAX      100

struct tally { /* of one algorithm */
    double *values, *seconds;
    size_t count, equal;
    uint32_t wins, ties, losses; /* of thunder against it */
    double sum, worst;
};

struct results {
    bool full;
    uint32_t small, large, random;
    const struct plan_algorithm *algorithms[ALGORITHMS_MAX]; /* thunder first; not exhaustive */
    size_t algorithm_count;
    uint64_t compared, violations; /* of a plan with a bound */
    uint64_t faults;               /* thunder above an optimum */
    uint64_t outside;              /* any above an optimum */
    char losses[LOSSES_MAX][160];
    uint32_t loss_count;
};

static void list_algorithms(struct results *results)
{
    results->algorithms[results->algorithm_count++] = &plan_algorithm_thunder;
    for (size_t i = 0; plan_algorithm_at(i) != NULL; ++i) {
        const struct plan_algorithm *one = plan_algorithm_at(i);
        if (one != &plan_algorithm_thunder && one != &plan_algorithm_exhaustive &&
            results->algorithm_count < ALGORITHMS_MAX)
            results->algorithms[results->algorithm_count++] = one;
    }
}

static void tally_init(struct tally *tally, size_t count)
{
    *tally = (struct tally){.worst = INFINITY};
    tally->values = ts_xcalloc(count + 1, sizeof *tally->values);
    tally->seconds = ts_xcalloc(count + 1, sizeof *tally->seconds);
}

static void tally_fini(struct tally *tally)
{
    ts_free(tally->values);
    ts_free(tally->seconds);
}

static void tally_add(struct tally *tally, double value, double seconds)
{
    tally->values[tally->count] = value;
    tally->seconds[tally->count++] = seconds;
    tally->sum += value;
    tally->worst = fmin(tally->worst, value);
}

static void progress(const struct results *results, const char *what, uint32_t at, uint32_t of)
{
    if (results->full)
        (void)fprintf(stderr, "%s %u of %u\n", what, at, of);
}

static void hold_to_bound(struct results *results, const char *what, uint64_t seed, double bound,
                          double objective)
{
    ++results->compared;
    if (objective <= bound * (1 + 1e-9))
        return;
    ++results->violations;
    (void)fprintf(stderr, "%s, seed %llu: objective %.9g above the bound %.9g\n", what,
                  (unsigned long long)seed, objective, bound);
}

static bool random_problem(struct planner_fixture *fixture, uint64_t seed, uint32_t least, uint32_t most)
{
    planner_fixture_random(fixture, seed, least, most);
    if (plan_problem_check(&fixture->problem, NULL) == TS_OK)
        return true;
    planner_fixture_fini(fixture);
    return false;
}

/* --- Small clusters --- */

static void small_case(struct results *results, struct planner_fixture *fixture, uint64_t seed,
                       struct tally *tallies, struct tally *gaps)
{
    struct results_outcome optimum =
        results_run(&plan_algorithm_exhaustive, &fixture->problem, EXHAUSTIVE_WORK, INFINITY);
    if (!optimum.finished || optimum.objective <= 0) {
        results_outcome_fini(&optimum);
        return;
    }
    struct results_bound bound = results_bound(&fixture->problem);
    hold_to_bound(results, "optimum", seed, bound.value, optimum.objective);
    tally_add(gaps, results_gap(bound.value, optimum.objective), optimum.seconds);
    for (size_t i = 0; i < results->algorithm_count; ++i) {
        struct results_outcome one =
            results_run(results->algorithms[i], &fixture->problem, THUNDER_WORK, optimum.objective);
        double ratio = one.objective / optimum.objective;
        tally_add(&tallies[i], ratio, one.seconds);
        tallies[i].equal += !results_above(optimum.objective, one.objective);
        if (results_above(one.objective, optimum.objective)) {
            results->faults += i == 0; /* thunder moves in the same space; others may leave it */
            ++results->outside;
            (void)fprintf(stderr, "%s, seed %llu: %.9g above the optimum %.9g\n",
                          results->algorithms[i]->name, (unsigned long long)seed, one.objective,
                          optimum.objective);
        }
        results_outcome_fini(&one);
    }
    results_outcome_fini(&optimum);
}

static void small_clusters(struct results *results)
{
    struct tally tallies[ALGORITHMS_MAX] = {{.count = 0}}, gaps;
    uint64_t seed = 0;
    tally_init(&gaps, results->small);
    for (size_t i = 0; i < results->algorithm_count; ++i)
        tally_init(&tallies[i], results->small);
    while (gaps.count < results->small && seed < 20u * results->small) {
        struct planner_fixture fixture;
        if (!random_problem(&fixture, ++seed, 2, 8))
            continue;
        small_case(results, &fixture, seed, tallies, &gaps);
        planner_fixture_fini(&fixture);
        progress(results, "small", (uint32_t)gaps.count, results->small);
    }
    (void)printf(
        "## Small clusters against the optimum\n\n%zu random clusters of 2 to 8 devices (seeds 1 to %llu), "
        "each solved by `exhaustive`: median %.3f s, at most %.2f s. The optimum is over all replicas whose "
        "layers "
        "the lower level cuts; `helix` cuts its own.\n\n| algorithm "
        "| equal to the "
        "optimum | median of objective / optimum | worst |\n|---|---|---|---|\n",
        gaps.count, (unsigned long long)seed, results_quantile(gaps.seconds, gaps.count, 0.5),
        results_quantile(gaps.seconds, gaps.count, 1));
    for (size_t i = 0; i < results->algorithm_count; ++i) {
        struct tally *t = &tallies[i];
        (void)printf("| `%s` | %zu of %zu (%.1f %%) | %.4f | %.6f |\n", results->algorithms[i]->name,
                     t->equal, t->count, 100.0 * (double)t->equal / (double)(t->count > 0 ? t->count : 1),
                     results_quantile(t->values, t->count, 0.5), results_quantile(t->values, t->count, 0));
        tally_fini(t);
    }
    (void)printf(
        "\nGap of the bound to the optimum there: median %.2f %%, 90 %% of the cases below %.2f %%.\n\n",
        100 * results_quantile(gaps.values, gaps.count, 0.5),
        100 * results_quantile(gaps.values, gaps.count, 0.9));
    tally_fini(&gaps);
}

/* --- 32 devices against the bound --- */

/* Links so fast that they do not matter. */
static void speed_up(struct ts_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->node_count; ++i) {
        cluster->nodes[i].nic_in_bytes_per_s = 1e12;
        cluster->nodes[i].nic_out_bytes_per_s = 1e12;
        for (uint32_t j = 0; j < cluster->node_count; ++j) {
            if (i != j)
                cluster->links[i * cluster->node_count + j].bytes_per_s = 1e11;
        }
    }
}

static void large_row(struct results *results, double factor, bool fast, const char *name)
{
    struct tally gaps, bounds;
    tally_init(&gaps, results->large);
    tally_init(&bounds, results->large);
    double *objectives = ts_xcalloc(results->large + 1, sizeof *objectives);
    for (uint64_t seed = 1; gaps.count < results->large; ++seed) {
        struct planner_fixture fixture;
        if (!random_problem(&fixture, seed, 32, 32))
            continue;
        if (fast)
            speed_up(fixture.cluster);
        if (factor > 0)
            results_at_capacity(&fixture, factor);
        struct results_bound bound = results_bound(&fixture.problem);
        struct results_outcome one =
            results_run(&plan_algorithm_thunder, &fixture.problem, THUNDER_WORK, bound.value);
        hold_to_bound(results, "32 devices", seed, bound.value, one.objective);
        objectives[gaps.count] = one.objective;
        tally_add(&gaps, results_gap(bound.value, one.objective), one.seconds);
        tally_add(&bounds, bound.value, bound.seconds);
        results_outcome_fini(&one);
        planner_fixture_fini(&fixture);
        progress(results, name, (uint32_t)gaps.count, results->large);
    }
    (void)printf(
        "| %s | %.4f | %.4f | %.2f %% | %.2f %% | %.2f %% | %.2f s | %.2f s |\n", name,
        results_quantile(objectives, gaps.count, 0.5), results_quantile(bounds.values, gaps.count, 0.5),
        100 * results_quantile(gaps.values, gaps.count, 0.5),
        100 * results_quantile(gaps.values, gaps.count, 0.75),
        100 * results_quantile(gaps.values, gaps.count, 1), results_quantile(gaps.seconds, gaps.count, 0.5),
        results_quantile(bounds.seconds, gaps.count, 0.5));
    ts_free(objectives);
    tally_fini(&gaps);
    tally_fini(&bounds);
}

static void large_clusters(struct results *results)
{
    (void)printf(
        "## 32 devices against the bound\n\n%u random clusters of 32 devices. Gap = (bound - thunder) / "
        "bound. The generator draws rates between easy and too much; `capacity` scales each demand to "
        "what its cluster could serve at 90 %% attainment by the bound on goodput.\n\n| rate | median "
        "objective | median bound | median gap | 75 %% below | worst | thunder | bound |\n"
        "|---|---|---|---|---|---|---|---|\n",
        results->large);
    large_row(results, 0, false, "as drawn");
    if (results->full) {
        large_row(results, 0, true, "as drawn, fast links");
        large_row(results, 0.7, false, "0.7 of capacity");
        large_row(results, 1, false, "capacity");
        large_row(results, 1, true, "capacity, fast links");
    }
    (void)printf("\n");
}

/* --- Random clusters against every baseline --- */

static void note_loss(struct results *results, uint64_t seed, const struct planner_fixture *fixture,
                      const char *against, double thunder, double other)
{
    if (results->loss_count == LOSSES_MAX)
        return;
    (void)snprintf(results->losses[results->loss_count++], sizeof results->losses[0],
                   "seed %llu (%u devices): `%s` %.6f, thunder %.6f", (unsigned long long)seed,
                   fixture->cluster->gpu_count, against, other, thunder);
}

static void compare(struct results *results, struct tally *tally, uint64_t seed,
                    const struct planner_fixture *fixture, const char *against, double thunder, double other)
{
    if (results_above(thunder, other)) {
        ++tally->wins;
    } else if (results_above(other, thunder)) {
        ++tally->losses;
        note_loss(results, seed, fixture, against, thunder, other);
    } else {
        ++tally->ties;
    }
}

/* One problem: all baselines, then thunder without and with the best baseline plan as its start. */
static void random_case(struct results *results, struct planner_fixture *fixture, uint64_t seed,
                        struct tally *alone, struct tally *started)
{
    struct results_bound bound = results_bound(&fixture->problem);
    struct results_outcome outcomes[ALGORITHMS_MAX];
    size_t best = 1;
    for (size_t i = 1; i < results->algorithm_count; ++i) {
        outcomes[i] = results_run(results->algorithms[i], &fixture->problem, BASELINE_WORK, INFINITY);
        hold_to_bound(results, results->algorithms[i]->name, seed, bound.value, outcomes[i].objective);
        if (outcomes[i].objective > outcomes[best].objective)
            best = i;
    }
    outcomes[0] = results_run(&plan_algorithm_thunder, &fixture->problem, THUNDER_WORK, bound.value);
    struct plan_problem with = fixture->problem;
    with.current = outcomes[best].plan;
    struct results_outcome start = results_run(&plan_algorithm_thunder, &with, THUNDER_WORK, bound.value);
    hold_to_bound(results, "thunder", seed, bound.value, fmax(outcomes[0].objective, start.objective));
    tally_add(&started[0], start.objective, start.seconds);
    tally_add(&alone[0], outcomes[0].objective, outcomes[0].seconds);
    for (size_t i = 1; i < results->algorithm_count; ++i) {
        const char *name = results->algorithms[i]->name;
        tally_add(&alone[i], outcomes[i].objective, outcomes[i].seconds);
        alone[i].equal += outcomes[i].opened;
        compare(results, &alone[i], seed, fixture, name, outcomes[0].objective, outcomes[i].objective);
        char words[64];
        (void)snprintf(words, sizeof words, "%s (thunder started from the best)", name);
        compare(results, &started[i], seed, fixture, words, start.objective, outcomes[i].objective);
    }
    for (size_t i = 0; i < results->algorithm_count; ++i)
        results_outcome_fini(&outcomes[i]);
    results_outcome_fini(&start);
}

static void random_table(struct results *results, struct tally *alone, struct tally *started, uint64_t seeds)
{
    size_t count = alone[0].count;
    (void)printf(
        "## Random clusters against every baseline\n\n%zu random clusters of 4 to 64 devices (seeds 1 to "
        "%llu). `thunder` runs once from its own starts and once with the best baseline plan as the "
        "current one. Mean attainment: thunder %.4f alone, %.4f started; processor time: median %.2f s "
        "alone.\n\n| baseline | mean objective | time, median | thunder wins / ties / losses | with starts "
        "|\n"
        "|---|---|---|---|---|\n",
        count, (unsigned long long)seeds, alone[0].sum / (double)count, started[0].sum / (double)count,
        results_quantile(alone[0].seconds, count, 0.5));
    for (size_t i = 1; i < results->algorithm_count; ++i)
        (void)printf("| `%s` | %.4f | %.3f s | %u / %u / %u | %u / %u / %u |\n", results->algorithms[i]->name,
                     alone[i].sum / (double)count, results_quantile(alone[i].seconds, count, 0.5),
                     alone[i].wins, alone[i].ties, alone[i].losses, started[i].wins, started[i].ties,
                     started[i].losses);
    (void)printf("\nLosses: %s\n", results->loss_count == 0 ? "none." : "");
    for (uint32_t i = 0; i < results->loss_count; ++i)
        (void)printf("%s- %s\n", i == 0 ? "\n" : "", results->losses[i]);
    (void)printf("\n");
}

static void random_clusters(struct results *results)
{
    struct tally alone[ALGORITHMS_MAX] = {{.count = 0}}, started[ALGORITHMS_MAX] = {{.count = 0}};
    uint64_t seed = 0;
    for (size_t i = 0; i < results->algorithm_count; ++i) {
        tally_init(&alone[i], results->random);
        tally_init(&started[i], results->random);
    }
    while (alone[0].count < results->random) {
        struct planner_fixture fixture;
        if (!random_problem(&fixture, ++seed, 4, results->full ? 64 : 12))
            continue;
        random_case(results, &fixture, seed, alone, started);
        planner_fixture_fini(&fixture);
        progress(results, "random", (uint32_t)alone[0].count, results->random);
    }
    random_table(results, alone, started, seed);
    for (size_t i = 0; i < results->algorithm_count; ++i) {
        tally_fini(&alone[i]);
        tally_fini(&started[i]);
    }
}

/* --- The paper's two clusters --- */

static bool paper_fixture(struct planner_fixture *fixture, const char *cluster, const char *workload)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_error err = {.text = ""};
    bool good =
        ts_catalogue_load(TS_CONF_DIR, "paper", &catalogue, &err) == TS_OK &&
        ts_inputs_cluster(catalogue, TS_CONF_DIR, cluster, &fixture->cluster, &err) == TS_OK &&
        ts_inputs_model(TS_CONF_DIR, "llama-30b", &fixture->model, &err) == TS_OK &&
        ts_inputs_demand(TS_CONF_DIR, workload, 4, &fixture->demand, &err) == TS_OK &&
        ts_inputs_slo(catalogue, TS_CONF_DIR, "scale-5", &fixture->model, &fixture->demand, &err) == TS_OK;
    ts_catalogue_destroy(&catalogue);
    if (good)
        fixture->problem = plan_problem_defaults(fixture->cluster, &fixture->model, &fixture->demand);
    else
        (void)fprintf(stderr, "%s\n", err.text);
    return good;
}

static double table3_objective(const struct planner_fixture *fixture, bool coding)
{
    struct plan_shapes *shapes = plan_shapes_new(&fixture->problem);
    struct plan_eval *eval = plan_eval_new(shapes);
    struct ts_plan *plan = fixture_table3(fixture->cluster, &fixture->model, coding);
    struct plan_state state;
    double objective = NAN;
    plan_state_init(&state);
    if (plan_state_of_plan(shapes, plan, &state, NULL) == TS_OK)
        objective = plan_eval_run(eval, &state, NULL);
    plan_state_fini(&state);
    ts_plan_destroy(&plan);
    plan_eval_destroy(&eval);
    plan_shapes_destroy(&shapes);
    return objective;
}

static void paper_row(struct results *results, const char *cluster, const char *workload, double factor)
{
    struct planner_fixture fixture;
    if (!paper_fixture(&fixture, cluster, workload))
        return;
    results_at_capacity(&fixture, factor);
    struct results_bound bound = results_bound(&fixture.problem);
    (void)printf("| %s, %s, %.2f requests/s | %.4f |", cluster, workload, ts_demand_rate(&fixture.demand),
                 bound.value);
    double thunder = 0;
    for (size_t i = 0; i < results->algorithm_count; ++i) {
        struct results_outcome one =
            results_run(results->algorithms[i], &fixture.problem, THUNDER_WORK, bound.value);
        hold_to_bound(results, cluster, 0, bound.value, one.objective);
        thunder = i == 0 ? one.objective : thunder;
        bool above = i > 0 && results_above(one.objective, thunder);
        if (one.opened)
            (void)printf(" %s%.4f%s |", above ? "**" : "", one.objective, above ? "**" : "");
        else
            (void)printf(" - |");
        results_outcome_fini(&one);
    }
    double table = NAN;
    if (strcmp(cluster, "paper-cloud") == 0)
        table = table3_objective(&fixture, strcmp(workload, "azure-code") == 0);
    if (isnan(table)) {
        (void)printf(" - |\n");
    } else {
        hold_to_bound(results, "table 3", 0, bound.value, table);
        (void)printf(" %.4f |\n", table);
    }
    planner_fixture_fini(&fixture);
}

static void paper_clusters(struct results *results)
{
    static const char *const clusters[] = {"paper-cloud", "paper-inhouse"};
    static const char *const workloads[] = {"azure-code", "azure-conv"};
    static const double factors[] = {0.6, 0.9, 1.2};
    (void)printf("## The paper's clusters\n\nLLaMA-30B, devices as in the paper's table, deadlines of 5 "
                 "times an A100, rates of 0.6, 0.9 and 1.2 of capacity as above. `table 3` is the "
                 "paper's own deployment, routed by our evaluator. Bold: above thunder.\n\n| | bound |");
    for (size_t i = 0; i < results->algorithm_count; ++i)
        (void)printf(" `%s` |", results->algorithms[i]->name);
    (void)printf(" table 3 |\n|---|");
    for (size_t i = 0; i < results->algorithm_count + 2; ++i)
        (void)printf("---|");
    (void)printf("\n");
    for (size_t c = 0; c < 2; ++c) {
        for (size_t w = 0; w < 2; ++w) {
            for (size_t f = 0; f < 3; ++f) {
                paper_row(results, clusters[c], workloads[w], factors[f]);
                progress(results, "paper", (uint32_t)(c * 6 + w * 3 + f + 1), 12);
            }
        }
    }
    (void)printf("\n");
}

/* --- The page --- */

static void head(void)
{
    (void)printf(
        "# How good the planner's plans are\n\nGenerated by `scripts/planner-results`; not edited by hand. "
        "Objectives are the evaluator's: the share of requests within all their deadlines. Problems come "
        "from the "
        "seeded generator of `planner_fixture.h` (1 to 8 types of device, nodes of 1 to 8, links of 1 to 100 "
        "Gbit/s, LLaMA-30B or a model of 8 billion parameters, 2 to 6 classes of length). Budgets are in "
        "work, not "
        "time, so all but the times comes out equal everywhere: %d units for thunder and the baselines "
        "(these end "
        "by themselves long before), fewer once the bound is reached. Times are processor time of one core. "
        "What "
        "differs by less than %.0e, relative, is a tie.\n\n",
        THUNDER_WORK, RESULTS_EQUAL);
}

static void print_summary(const struct results *results)
{
    (void)printf(
        "%llu plans of this section were held against the bound of their problem: %llu lay above it. "
        "%llu searches ended above an optimum.\n\n",
        (unsigned long long)results->compared, (unsigned long long)results->violations,
        (unsigned long long)results->faults);
}

static void print_relaxation(void)
{
    (void)printf(
        "## What the bound ignores\n\n"
        "- Limits of links and network cards, and slow links: each flow has the best transfer that the "
        "cluster has anywhere. The rows with fast links above show how much of the gap that is.\n"
        "- That replicas are whole, beyond counts of devices, and keep one phase: it mixes ways to divide "
        "the cluster.\n"
        "- Which nodes devices stand in, except for TP.\n"
        "- That the halves of a request meet: each is judged with the best partner.\n"
        "- That unlike stages have one order and one cut of the layers: latency, throughput and memory "
        "each get their best.\n\nservices/planner/bound/README.md derives it.\n");
}

struct section {
    const char *name;
    void (*print)(struct results *results);
    bool counted, only_full;
};

static const struct section sections[] = {
    {"small", small_clusters, true, false},
    {"large", large_clusters, true, false},
    {"random", random_clusters, true, false},
    {"paper", paper_clusters, true, true},
};

static bool print_part(struct results *results, const char *part)
{
    bool found = strcmp(part, "head") == 0 || strcmp(part, "tail") == 0;
    if (strcmp(part, "head") == 0)
        head();
    else if (strcmp(part, "tail") == 0)
        print_relaxation();
    for (size_t i = 0; i < sizeof sections / sizeof *sections; ++i) {
        if (strcmp(part, sections[i].name) != 0)
            continue;
        found = true;
        sections[i].print(results);
        print_summary(results);
    }
    return found;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"part", required_argument, NULL, 'p'},
                                            {"small", required_argument, NULL, 's'},
                                            {"large", required_argument, NULL, 'l'},
                                            {"random", required_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct results *results = ts_xcalloc(1, sizeof *results);
    const char *part = NULL;
    uint32_t small = 0, large = 0, random = 0;
    for (int c = 0; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        uint32_t number = c == 'p' || optarg == NULL ? 0 : (uint32_t)strtoul(optarg, NULL, 10);
        part = c == 'p' ? optarg : part;
        small = c == 's' ? number : small;
        large = c == 'l' ? number : large;
        random = c == 'r' ? number : random;
        if (c == '?')
            return 2;
    }
    results->full = part != NULL;
    results->small = small > 0 ? small : results->full ? 120 : 8;
    results->large = large > 0 ? large : results->full ? 32 : 1;
    results->random = random > 0 ? random : results->full ? 200 : 3;
    list_algorithms(results);
    if (part != NULL && !print_part(results, part)) {
        (void)fprintf(stderr, "no part \"%s\"\n", part);
        return 2;
    }
    for (size_t i = 0; i < sizeof sections / sizeof *sections && part == NULL; ++i) {
        if (!sections[i].only_full)
            (void)print_part(results, sections[i].name);
    }
    bool bad = results->violations > 0 || results->faults > 0;
    ts_free(results);
    return bad ? 1 : 0;
}
