/*
 * When a better plan is adopted, as a table; and what a change of plans takes, on two hand-made plans.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "services/planner/plan_adopt.h"
#include "tests/planner/planner_fixture.h"

/* Window 600 s, margin 0.2, noise 2 %, quiet 120 s, collapse at half. */
static const struct decision {
    const char *what;
    struct plan_adopt_now now;
    struct plan_adopt_candidate candidates[3];
    uint32_t count;
    int adopt;
    const char *reason; /* found in the sentence */
} decisions[] = {
    {"nothing to choose from", {10, 10, INFINITY}, {{PLAN_REROUTE, 0, 0, 0}}, 0, -1, "no other plan"},
    {"a free gain is taken", {10, 10, INFINITY}, {{PLAN_REROUTE, 11, 0, 10}}, 1, 0, "re-route: 11"},
    {"a gain of 1 % is noise", {10, 10, INFINITY}, {{PLAN_REROUTE, 10.1, 0, 10}}, 1, -1, "noise"},
    {"a loss is no gain", {10, 10, INFINITY}, {{PLAN_FLIP, 9, 5, 0}}, 1, -1, "noise"},
    /* 1 x (600 - 100) = 500 against 1.2 x 100 x 4 = 480, then 1.2 x 100 x 4.2 = 504 */
    {"repays within the window", {10, 10, INFINITY}, {{PLAN_REGROUP, 11, 100, 6}}, 1, 0, "regroup: 11"},
    {"does not repay", {10, 10, INFINITY}, {{PLAN_REGROUP, 11, 100, 5.8}}, 1, -1, "does not repay"},
    {"reload beyond the window", {1, 1, INFINITY}, {{PLAN_REGROUP, 50, 601, 1}}, 1, -1, "does not repay"},
    {"quiet after a change", {10, 10, 60}, {{PLAN_FLIP, 15, 1, 8}}, 1, -1, "quiet"},
    {"re-routing needs no quiet", {10, 10, 60}, {{PLAN_REROUTE, 15, 0, 10}}, 1, 0, "re-route"},
    {"a collapse breaks the quiet", {4, 10, 60}, {{PLAN_FLIP, 8, 1, 2}}, 1, 0, "flip: 8"},
    {"the cheapest is enough when the deeper adds noise",
     {10, 10, INFINITY},
     {{PLAN_REROUTE, 14, 0, 10}, {PLAN_FLIP, 14.1, 5, 7}, {PLAN_REGROUP, 14.2, 100, 2}},
     3,
     0,
     "re-route: 14"},
    {"each depth has to repay against the one before",
     {10, 10, INFINITY},
     {{PLAN_REROUTE, 12, 0, 10}, {PLAN_FLIP, 16, 5, 7}, {PLAN_REGROUP, 17, 200, 2}},
     3,
     1,
     "flip: 16"},
    {"all the way down",
     {10, 10, INFINITY},
     {{PLAN_REROUTE, 11, 0, 10}, {PLAN_FLIP, 13, 5, 7}, {PLAN_REGROUP, 30, 100, 2}},
     3,
     2,
     "regroup: 30"},
    {"nothing is served: any plan is better", {0, 10, 10}, {{PLAN_REGROUP, 3, 100, 0}}, 1, 0, "regroup: 3"},
};

static void test_decisions(void **state)
{
    (void)state;
    struct plan_adopt_rule rule = plan_adopt_defaults();
    for (size_t i = 0; i < sizeof decisions / sizeof decisions[0]; i++) {
        const struct decision *d = &decisions[i];
        struct plan_adopt_verdict verdict;
        plan_adopt_decide(&rule, &d->now, d->candidates, d->count, &verdict);
        if (verdict.adopt != d->adopt || !strstr(verdict.reason, d->reason))
            fail_msg("%s: adopt %d, \"%s\"", d->what, verdict.adopt, verdict.reason);
    }
}

/* Shorter windows and slower reloads never turn a refusal into an adoption. */
static void test_monotone(void **state)
{
    (void)state;
    struct plan_adopt_now now = {10, 10, INFINITY};
    for (double reload = 10; reload < 400; reload += 30) {
        bool held = false;
        for (double window = 600; window > 0; window -= 20) {
            struct plan_adopt_rule rule = plan_adopt_defaults();
            struct plan_adopt_candidate candidate = {PLAN_REGROUP, 13, reload, 4};
            struct plan_adopt_verdict verdict;
            rule.window_s = window;
            plan_adopt_decide(&rule, &now, &candidate, 1, &verdict);
            assert_true(verdict.adopt == -1 || !held);
            held = verdict.adopt == -1;
        }
        assert_true(held);
    }
}

static void set_group(struct ts_plan *plan, uint32_t index, enum ts_phase phase, uint32_t gpu, uint32_t tp)
{
    struct ts_group *group = &plan->groups[index];
    *group = (struct ts_group){.phase = phase, .stage_count = 1};
    group->stages[0].tp = tp;
    group->stages[0].layers = 60;
    for (uint32_t i = 0; i < tp; i++)
        group->stages[0].gpus[i] = gpu + i;
}

static void test_change(void **state)
{
    (void)state;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("4xA40|4xA40", 40), PLANNER_FIXTURE_CODING, 1);
    struct ts_plan *from = ts_plan_new(4, 2), *to = ts_plan_new(4, 0);
    f.model.layers = 60;
    double weights =
        f.model.layers * ts_cost_layer_weight_bytes(&f.model) + ts_cost_head_weight_bytes(&f.model);
    struct plan_change change;
    for (uint32_t i = 0; i < 4; i++)
        set_group(from, i, i < 2 ? TS_PHASE_PREFILL : TS_PHASE_DECODE, 2 * i, 2);
    from->flows[0] = (struct ts_flow){.prefill = 0, .decode = 2, .rate = 3, .attained = 2};
    from->flows[1] = (struct ts_flow){.prefill = 1, .decode = 3, .rate = 6, .attained = 5};

    memcpy(to->groups, from->groups, 4 * sizeof *to->groups);
    plan_change_of(f.cluster, &f.model, from, to, 1e9, 7, &change);
    assert_int_equal(change.groups_kept, 4);
    assert_true(change.load_bytes == 0 && change.reload_s == 0);
    assert_true(change.served_meanwhile == 7);

    to->groups[1].phase = TS_PHASE_DECODE;
    plan_change_of(f.cluster, &f.model, from, to, 1e9, 7, &change);
    assert_int_equal(change.groups_kept, 3);
    assert_int_equal(change.groups_flipped, 1);
    assert_true(change.load_bytes == 0 && change.reload_s == 7);
    assert_true(change.served_meanwhile == 2);

    /* Two groups of the second node become one of TP 4: each device loads a quarter of everything. */
    ts_plan_destroy(&to);
    to = ts_plan_new(3, 0);
    memcpy(to->groups, from->groups, 2 * sizeof *to->groups);
    set_group(to, 2, TS_PHASE_DECODE, 4, 4);
    plan_change_of(f.cluster, &f.model, from, to, 1e9, 7, &change);
    assert_int_equal(change.groups_kept, 2);
    assert_true(fabs(change.load_bytes / weights - 1) < 1e-9);
    assert_true(fabs(change.reload_s / (weights / 1e9) - 1) < 1e-9);
    assert_true(change.served_meanwhile == 0);
    ts_plan_destroy(&from);
    ts_plan_destroy(&to);
    planner_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_monotone),
        cmocka_unit_test(test_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
