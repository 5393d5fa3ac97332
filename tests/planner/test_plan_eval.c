/* The evaluator: against its whole program, and the identities of planner.md section 4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glpk.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/eval/plan_columns.h"
#include "tests/planner/eval_fixture.h"

static struct eval_fixture *open_on(struct ts_cluster *cluster, enum planner_fixture_work work, double rate)
{
    struct eval_fixture *fixture = ts_xcalloc(1, sizeof *fixture);
    planner_fixture_init(&fixture->base, cluster, work, rate);
    eval_fixture_open(fixture);
    return fixture;
}

static struct eval_fixture *open_cluster(const char *spec, double gbit, double rate)
{
    return open_on(planner_fixture_cluster(spec, gbit), PLANNER_FIXTURE_CONVERSATION, rate);
}

static void shut(struct eval_fixture **fixture)
{
    eval_fixture_fini(*fixture);
    ts_free(*fixture);
    *fixture = NULL;
}

static void assert_close(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance * fmax(1, fabs(b)))) {
        fail_msg("%.12g is not %.12g", a, b);
    }
}

static void assert_words(struct eval_fixture *fixture, const char *words)
{
    struct ts_plan *plan = plan_eval_plan(fixture->eval, &fixture->state, "test");
    assert_true(strlen(plan->limit) + 1 < sizeof plan->limit); /* not cut off */
    if (!strstr(plan->limit, words)) {
        fail_msg("\"%s\" does not say \"%s\"", plan->limit, words);
    }
    ts_plan_destroy(&plan);
}

/* Column generation, merged groups and lazy cards against everything at once. */
static void against_full(enum plan_objective objective, uint64_t seeds)
{
    uint32_t tried = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct eval_fixture *fixture = ts_xcalloc(1, sizeof *fixture);
        planner_fixture_random(&fixture->base, seed, 4, 24);
        fixture->base.problem.objective = objective;
        fixture->base.problem.codec_allowed[TS_COST_CODEC_I4] = seed % 3 != 0;
        eval_fixture_open(fixture);
        for (uint64_t state = 0; state < 4; state++) {
            eval_fixture_random_groups(fixture, seed * 100 + state);
            double run = eval_fixture_run(fixture, NULL), full = eval_fixture_full(fixture);
            if (!(fabs(run - full) <= 1e-7 * fmax(1, full))) {
                fail_msg("seed %llu, state %llu: %.12g by generation, %.12g in full",
                         (unsigned long long)seed, (unsigned long long)state, run, full);
            }
            tried += full > 0 && (objective == PLAN_GOODPUT || full < 1);
        }
        shut(&fixture);
    }
    print_message("%u of %u states at work and short of something\n", tried, (uint32_t)seeds * 4);
    assert_true(tried > seeds);
}

static void test_full_program(void **state)
{
    (void)state;
    against_full(PLAN_ATTAINMENT, 25);
}

static void test_full_goodput(void **state)
{
    (void)state;
    against_full(PLAN_GOODPUT, 12);
}

/* After any walk the objective is that of the state alone: what is kept from earlier states shows nowhere. */
static void test_history(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct eval_fixture *fixture = ts_xcalloc(1, sizeof *fixture);
        planner_fixture_random(&fixture->base, seed, 8, 40);
        fixture->base.problem.objective = seed % 3 == 0 ? PLAN_GOODPUT : PLAN_ATTAINMENT;
        eval_fixture_open(fixture);
        struct plan_state first;
        plan_state_init(&first);
        double at_first = 0;
        for (uint64_t step = 0; step < 60; step++) {
            if (step % 20 == 0) {
                eval_fixture_random_groups(fixture, seed * 1000 + step);
            } else if (fixture->state.count > 1) { /* a phase flips, or a group goes for good */
                struct plan_group *group = &fixture->state.groups[step % fixture->state.count], kept = *group;
                group->phase = (enum ts_phase)(1 + (group->phase + step) % 3);
                *group = plan_shape_choose(fixture->shapes, group) ? *group : kept;
                if (step % 7 == 0) {
                    plan_state_remove(&fixture->state, 0);
                }
            }
            double warm = eval_fixture_run(fixture, NULL);
            struct plan_eval *fresh = plan_eval_new(fixture->shapes);
            assert_close(warm, plan_eval_run(fresh, &fixture->state, NULL), 1e-7);
            plan_eval_destroy(&fresh);
            if (step == 0) {
                plan_state_copy(&first, &fixture->state);
                at_first = warm;
            }
        }
        plan_state_copy(&fixture->state, &first);
        assert_close(eval_fixture_run(fixture, NULL), at_first, 1e-7);
        plan_state_fini(&first);
        shut(&fixture);
    }
}

/* Four equal prefill and four equal decode replicas: each flow is like the others. */
static void test_symmetric(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("16xA100", 10, 6);
    eval_fixture_groups(fixture, "P 0:2/2, P 0:2/2, D 0:2/2, P 0:2/2, D 0:2/2, D 0:2/2, P 0:2/2, D 0:2/2");
    struct plan_result result;
    assert_true(eval_fixture_run(fixture, &result) > 0.5);
    double rate[8][8] = {{0}};
    for (uint32_t f = 0; f < result.flow_count; f++) {
        rate[result.flows[f].prefill][result.flows[f].decode] += result.flows[f].rate;
    }
    for (uint32_t i = 0; i < 8; i++) {
        for (uint32_t j = 0; j < 8; j++) {
            bool flows = fixture->state.groups[i].phase == TS_PHASE_PREFILL &&
                         fixture->state.groups[j].phase == TS_PHASE_DECODE;
            assert_close(rate[i][j], flows ? rate[0][2] : 0, 1e-12);
        }
    }
    assert_close(result.group_worth[0], result.group_worth[1], 1e-12);
    shut(&fixture);
}

static void test_doubling(void **state)
{
    (void)state;
    for (double rate = 0.5; rate < 20; rate *= 2) {
        struct eval_fixture *one = open_cluster("8xA40", 10, rate),
                            *two = open_cluster("16xA40", 10, 2 * rate);
        struct eval_fixture *apart = open_cluster("8xA40|8xA40", 10, 2 * rate);
        eval_fixture_groups(one, "P 0:2/2, B 0:4/2, D 0:2/2");
        eval_fixture_groups(two, "P 0:2/2, B 0:4/2, D 0:2/2, P 0:2/2, B 0:4/2, D 0:2/2");
        eval_fixture_groups(apart, "P 0:2/2, B 0:4/2, D 0:2/2, P 1:2/2, B 1:4/2, D 1:2/2");
        double single = eval_fixture_run(one, NULL);
        assert_close(eval_fixture_run(two, NULL), single, 1e-7);
        assert_true(eval_fixture_run(apart, NULL) >= single - 1e-7); /* flows may cross as well */
        one->base.problem.objective = two->base.problem.objective = PLAN_GOODPUT;
        eval_fixture_reopen(one);
        eval_fixture_reopen(two);
        assert_close(eval_fixture_run(two, NULL), 2 * eval_fixture_run(one, NULL), 1e-6);
        shut(&one);
        shut(&two);
        shut(&apart);
    }
}

static void test_removal(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 115; seed++) {
        struct eval_fixture *fixture = ts_xcalloc(1, sizeof *fixture);
        planner_fixture_random(&fixture->base, seed, 8, 32);
        eval_fixture_open(fixture);
        eval_fixture_random_groups(fixture, seed);
        struct plan_state all;
        plan_state_init(&all);
        plan_state_copy(&all, &fixture->state);
        struct plan_result result;
        double whole = eval_fixture_run(fixture, &result);
        double worth[8];
        memcpy(worth, result.group_worth, all.count * sizeof *worth);
        for (uint32_t g = 0; g < all.count; g++) {
            plan_state_copy(&fixture->state, &all);
            plan_state_remove(&fixture->state, g);
            double less = eval_fixture_run(fixture, NULL);
            assert_true(less <= whole + 1e-7);
            assert_true(whole - less >=
                        worth[g] - 1e-6); /* a dual is the least that a whole unit can bring */
        }
        plan_state_fini(&all);
        shut(&fixture);
    }
}

static void test_no_link(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA40", 10, 1);
    eval_fixture_groups(fixture, "P 0:2/2, D 1:2/2, D 0:2/2");
    struct ts_cluster *cluster = fixture->base.cluster;
    assert_true(eval_fixture_run(fixture, NULL) > 0);
    struct ts_link *link = &cluster->links[1], kept = *link;
    struct plan_result result;
    for (int what = 0; what < 2; what++) { /* the link, then the card */
        link->bytes_per_s = what ? kept.bytes_per_s : 0;
        cluster->nodes[1].nic_in_bytes_per_s = what ? 0 : kept.bytes_per_s;
        struct plan_state groups = fixture->state;
        fixture->state = (struct plan_state){0};
        eval_fixture_open(fixture); /* shapes are kept per problem: all anew */
        fixture->state = groups;
        for (uint32_t g = 0; g < groups.count; g++) {
            assert_true(plan_shape_find(fixture->shapes, &groups.groups[g]));
        }
        eval_fixture_run(fixture, &result);
        assert_true(result.flow_count > 0);
        for (uint32_t f = 0; f < result.flow_count; f++) {
            assert_int_equal(result.flows[f].decode, 2);
        }
    }
    shut(&fixture);
}

/* A link that is slower than the adapters at its ends is what fills up, and the plan says so. */
static void test_slow_link(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA40", 100, 4);
    struct ts_link *link = &fixture->base.cluster->links[1];
    link->bytes_per_s = 2e9;
    fixture->base.problem.codec_allowed[TS_COST_CODEC_I4] = false;
    for (uint32_t k = 0; k < fixture->base.demand.class_count; k++) {
        fixture->base.demand.classes[k].tpot_s = fixture->base.demand.classes[k].e2e_s =
            0; /* time is no matter */
    }
    eval_fixture_open(fixture);
    eval_fixture_groups(fixture, "P 0:4/4, D 1:4/4");
    struct plan_result result;
    double objective = eval_fixture_run(fixture, &result), bytes = 0;
    assert_true(objective > 0 && objective < 0.9);
    for (uint32_t f = 0; f < result.flow_count; f++) {
        const struct ts_class *class_ = &fixture->base.demand.classes[result.flows[f].length_class];
        bytes += result.flows[f].rate * class_->prompt_tokens *
                 (double)ts_model_kv_token_bytes(&fixture->base.model) *
                 ts_cost_codec_ratio(TS_COST_CODEC_NONE, class_->prompt_tokens);
    }
    assert_close(bytes / link->bytes_per_s, PLAN_NIC_SHARE, 1e-6);
    assert_words(fixture, "the link from node");
    uint32_t links = 0;
    for (uint32_t i = 0; i < result.price_count; i++) {
        const struct plan_price *price = &result.prices[i];
        if (price->limit == PLAN_LIMIT_LINK) {
            assert_true(price->index == 1 && price->price > 0 && price->use > 0.999);
            links++;
        }
    }
    assert_int_equal(links, 1);
    shut(&fixture);
}

static void test_load(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_on(planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CODING, 0.25);
    double last = 1, first = 0;
    for (int step = 0; step < 14; step++) {
        struct plan_state none = {0};
        fixture->state = none;
        eval_fixture_open(fixture);
        eval_fixture_random_groups(fixture, 9);
        double objective = eval_fixture_run(fixture, NULL);
        first = step ? first : objective;
        assert_true(objective <= last + 1e-9);
        last = objective;
        ts_demand_scale_rate(&fixture->base.demand, 1.6);
        plan_state_fini(&fixture->state);
    }
    assert_true(first > 0.5 && last < first / 2);
    shut(&fixture);
}

/* Requests/s by codec between two nodes. */
static double lossy_share(double gbit, bool allowed)
{
    struct eval_fixture *fixture = open_cluster("4xA40|4xA40", gbit, 0.8);
    fixture->base.problem.codec_allowed[TS_COST_CODEC_I4] = allowed;
    eval_fixture_open(fixture);
    eval_fixture_groups(fixture, "P 0:4/4, D 1:4/4");
    struct plan_result result;
    eval_fixture_run(fixture, &result);
    double all = 1e-300, lossy = 0;
    for (uint32_t f = 0; f < result.flow_count; f++) {
        all += result.flows[f].rate;
        lossy += result.flows[f].codec == TS_COST_CODEC_I4 ? result.flows[f].rate : 0;
    }
    shut(&fixture);
    return lossy / all;
}

static void test_codec(void **state)
{
    (void)state;
    assert_true(lossy_share(400, true) < 1e-9);
    assert_true(lossy_share(5, true) > 0.5);
    assert_true(lossy_share(5, false) < 1e-9);
}

static void test_goodput(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA6000", 40, 1);
    eval_fixture_groups(fixture, "P 0:2/2, P 0:2/2, D 1:2/2, D 1:2/2");
    fixture->base.problem.objective = PLAN_GOODPUT;
    fixture->base.problem.attainment = 0.9;
    eval_fixture_reopen(fixture);
    struct plan_result result;
    double goodput = eval_fixture_run(fixture, &result), rate = result.rate;
    assert_true(goodput > 0 && goodput >= 0.9 * rate * (1 - 1e-7) && goodput <= rate);
    /* At that rate the attainment is there; at a rate beyond it no more requests are served well. */
    fixture->base.problem.objective = PLAN_ATTAINMENT;
    ts_demand_scale_rate(&fixture->base.demand, rate / ts_demand_rate(&fixture->base.demand));
    eval_fixture_reopen(fixture);
    assert_close(eval_fixture_run(fixture, NULL), goodput / rate, 1e-6);
    shut(&fixture);
}

static void test_plan(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_on(planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CONVERSATION, 4);
    struct ts_error err = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        eval_fixture_random_groups(fixture, seed);
        double objective = eval_fixture_run(fixture, NULL);
        struct ts_plan *plan = plan_eval_plan(fixture->eval, &fixture->state, "test");
        if (ts_plan_check(plan, fixture->base.cluster, &fixture->base.model, &fixture->base.demand, &err) !=
            TS_OK) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
        }
        assert_close(plan->objective, objective, 1e-7);
        assert_true(plan->limit[0] != '\0' && plan->price_per_hour > 0);
        assert_true(plan->price_per_hour <= ts_cluster_price_per_hour(fixture->base.cluster) + 1e-9);
        struct plan_state back, kept = fixture->state;
        plan_state_init(&back);
        assert_int_equal(plan_state_of_plan(fixture->shapes, plan, &back, &err), TS_OK);
        fixture->state = back;
        assert_close(eval_fixture_run(fixture, NULL), objective, 1e-7);
        if (seed < 6) {
            print_message("%.4f: %s\n", plan->objective, plan->limit);
        }
        plan_state_fini(&fixture->state);
        fixture->state = kept;
        ts_plan_destroy(&plan);
    }
    shut(&fixture);
}

static void test_nothing_flows(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA40", 10, 1);
    assert_close(eval_fixture_run(fixture, NULL), 0, 0);
    assert_words(fixture, "there is no replica");
    eval_fixture_groups(fixture, "P 0:4/4");
    assert_close(eval_fixture_run(fixture, NULL), 0, 0);
    assert_words(fixture, "no replica for decode");
    eval_fixture_groups(fixture, "D 1:4/4");
    assert_true(eval_fixture_run(fixture, NULL) > 0);
    for (uint32_t k = 0; k < fixture->base.demand.class_count; k++) {
        fixture->base.demand.classes[k].ttft_s = 1e-3;
    }
    eval_fixture_reopen(fixture);
    assert_close(eval_fixture_run(fixture, NULL), 0, 0);
    assert_words(fixture, "the deadline 0.001 s");
    fixture->base.problem.objective = PLAN_GOODPUT;
    eval_fixture_reopen(fixture);
    assert_close(eval_fixture_run(fixture, NULL), 0, 0);
    ts_demand_scale_rate(&fixture->base.demand, 0);
    for (int goodput = 0; goodput < 2; goodput++) {
        fixture->base.problem.objective = goodput ? PLAN_GOODPUT : PLAN_ATTAINMENT;
        eval_fixture_reopen(fixture);
        struct plan_result result;
        assert_close(plan_eval_run(fixture->eval, &fixture->state, &result), 0, 0);
        assert_int_equal(result.flow_count, 0);
        assert_words(fixture, "rate of the workload is 0");
    }
    shut(&fixture);
}

/* All devices in replicas of 2 or 4, as good plans have them. */
static void fill_with_small_groups(struct eval_fixture *fixture)
{
    const struct ts_cluster *cluster = fixture->base.cluster;
    fixture->state.count = 0;
    for (uint32_t c = 0; c < cluster->cell_count; c++) {
        uint32_t size = cluster->types[cluster->cells[c].type].memory_bytes > 40e9 ? 2 : 4;
        for (uint32_t n = 0; n + size <= cluster->cells[c].count; n += size) {
            struct plan_group group = {.phase = n ? TS_PHASE_DECODE : TS_PHASE_PREFILL, .part_count = 1};
            group.parts[0] = (struct plan_part){.cell = (uint16_t)c, .count = (uint8_t)size};
            if (plan_shape_choose(fixture->shapes, &group)) {
                (void)plan_state_add(&fixture->state, &group);
            }
        }
    }
}

/* Who and where, in words. */
static void test_words(void **state)
{
    (void)state;
    struct ts_cluster *cluster = planner_fixture_cluster("4xA40|4xA40|2xA40+4x3090Ti|4xA40|4xA6000", 100);
    struct eval_fixture *fixture = open_on(cluster, PLANNER_FIXTURE_CODING, 9);
    eval_fixture_groups(fixture, "P 0:4/4, D 5:4/4");
    assert_words(fixture, "time of the replica on 4x A40 (TP4 PP1) in node ");
    fixture->state.count = 1;
    eval_fixture_groups(fixture, "P 1:4/4, D 5:4/4");
    assert_words(fixture, "time of each of the 2 replicas on 4x A40 (TP4 PP1) in nodes ");
    fixture->state.count = 2;
    eval_fixture_groups(fixture, "P 4:4/4, D 5:4/4");
    assert_words(
        fixture,
        "time of each of the 3 replicas on 4x A40 (TP4 PP1) in 3 nodes is full; one more would add up to");
    fixture->state.count = 0;
    eval_fixture_groups(fixture, "P 0:2/2+1:2/2+2:2/2+3:4/2, D 5:4/4");
    assert_words(fixture, "the replica on 6x A40 + 4x 3090Ti (TP2 PP5) in 3 nodes is full");
    fixture->state.count = 0;
    ts_demand_scale_rate(&fixture->base.demand, 0.01);
    eval_fixture_reopen(fixture);
    eval_fixture_groups(fixture, "P 0:4/4, D 5:4/4");
    assert_words(fixture, "nothing is short");
    shut(&fixture);
}

/* A price that is the rounding of the program is none. */
static void test_words_of_rounding(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA6000", 40, 1);
    eval_fixture_groups(fixture, "P 0:4/4, D 1:4/4");
    struct plan_price price = {.limit = PLAN_LIMIT_PREFILL, .use = 1, .price = 1e-12};
    struct ts_flow flow = {.decode = 1, .rate = 1, .attained = 0.98};
    struct plan_result result = {
        .objective = 0.98, .rate = 1, .flows = &flow, .flow_count = 1, .prices = &price, .price_count = 1};
    char words[200];
    plan_limit_words(&fixture->base.problem, &fixture->state, &result, words, sizeof words);
    assert_string_equal(words,
                        "no resource is full: 2 % of the requests miss deadlines, by chance or even on idle "
                        "replicas");
    price.price = 0.01;
    plan_limit_words(&fixture->base.problem, &fixture->state, &result, words, sizeof words);
    assert_non_null(strstr(words, "prefill time of the replica on 4x A40"));
    price.price = 0; /* a rule that is not optimised has no prices */
    plan_limit_words(&fixture->base.problem, &fixture->state, &result, words, sizeof words);
    assert_non_null(strstr(words, "prefill time of the replica on 4x A40"));
    shut(&fixture);
}

static void test_words_without_goodput(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_cluster("4xA40|4xA6000", 40, 1);
    fixture->base.problem.objective = PLAN_GOODPUT;
    fixture->base.problem.attainment = 1;
    eval_fixture_reopen(fixture);
    eval_fixture_groups(fixture, "P 0:4/4, D 1:4/4");
    assert_words(fixture, "no rate, however low, has 100 % of its requests within all deadlines");
    shut(&fixture);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A walk over neighbours, as a search does: a phase flips, or two groups of the state trade places with other
 * groups of another state. */
static void walk(const char *name, struct eval_fixture *fixture, uint32_t steps)
{
    static double times[4000];
    struct ts_rng rng;
    ts_rng_init(&rng, 4);
    uint64_t work = plan_eval_work(fixture->eval);
    for (uint32_t s = 0; s < steps; s++) {
        struct plan_group *group = &fixture->state.groups[ts_rng_below(&rng, fixture->state.count)];
        struct plan_group kept = *group;
        static const enum ts_phase phases[] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_BOTH};
        group->phase = phases[ts_rng_below(&rng, 3)];
        if (!plan_shape_choose(fixture->shapes, group)) {
            *group = kept;
        }
        double start = now_us();
        (void)plan_eval_run(fixture->eval, &fixture->state, NULL);
        times[s] = now_us() - start;
    }
    double total = 0;
    for (uint32_t s = 0; s < steps; s++) {
        total += times[s];
    }
    qsort(times, steps, sizeof *times, by_value);
    print_message("%s: %u groups, neighbour %.0f us (median), %.0f mean, %.0f at worst; %.1f work each\n",
                  name, fixture->state.count, times[steps / 2], total / steps, times[steps - 1],
                  (double)(plan_eval_work(fixture->eval) - work) / steps);
}

static struct eval_fixture *open_256(void)
{
    char spec[400] = "";
    static const char *types[] = {"A40", "A6000", "A5000", "3090Ti", "A100", "4090", "L4", "H100"};
    for (int n = 0; n < 32; n++) {
        (void)snprintf(spec + strlen(spec), sizeof spec - strlen(spec), "%s8x%s", n ? "|" : "", types[n / 4]);
    }
    struct eval_fixture *fixture = open_cluster(spec, 40, 150);
    fill_with_small_groups(fixture);
    return fixture;
}

/* Where GLPK gives up (here: no memory) a state is worth nothing, and the next run is as good as ever. Nearly
 * all memory is taken before, so that it fails where it asks for its first block: a block that it fails to
 * enlarge it never frees. */
static void test_simplex_fails(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_256();
    struct plan_result result;
    size_t held = 0;
    glp_mem_limit(1); /* MiB */
    glp_mem_usage(NULL, NULL, &held, NULL);
    (void)glp_alloc(1, (int)((1 << 20) - held - 1000));
    double none = plan_eval_run(fixture->eval, &fixture->state, &result);
    assert_true(none == 0 && result.flow_count == 0 && result.group_worth[0] == 0);
    assert_true(eval_fixture_run(fixture, &result) > 0.1 && result.flow_count > 0);
    shut(&fixture);
}

static void test_speed(void **state)
{
    (void)state;
    struct eval_fixture *fixture = open_on(planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CONVERSATION, 12);
    fill_with_small_groups(fixture);
    walk("32 GPUs", fixture, 2000);
    shut(&fixture);
    fixture = open_256();
    walk("256 GPUs", fixture, 60);
    shut(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_program),
        cmocka_unit_test(test_full_goodput),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_symmetric),
        cmocka_unit_test(test_doubling),
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_no_link),
        cmocka_unit_test(test_slow_link),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_codec),
        cmocka_unit_test(test_goodput),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_nothing_flows),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_words_of_rounding),
        cmocka_unit_test(test_words_without_goodput),
        cmocka_unit_test(test_simplex_fails),
        cmocka_unit_test(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
