/*
 * What the harness promises: a seed means one course, found cases stay found, a failure becomes small. The
 * seeds themselves are run by ts-sim-seed (sim.cmake).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/sim/sim.h"

/* Seeds beyond those of sim.cmake that found something, and what. A change of what is drawn makes other
 * worlds of them: look for such seeds again. */
static const uint64_t cases[] = {
    2682,   3644, /* found it: a Welcome that came again started its session over */
    199,    489,    1899,
    4284,  /* found it: a cancel that met a router started anew was forgotten, and its stream ended twice */
    542,   /* found it: who waited for memory behind an older request waited on when its time was over */
    35701, /* found it: token 0 of prefill ended the wait for what decode was asked for: a gap, it seemed */
    16583,  18783, /* the harness: a relay tells again, if asked, what is at decode */
    18352,  /* the harness: a repeated assignment, ignored in the instant in which the first of it came */
    23450,  /* the harness: a link that is closed brings what was under way, and its Reset reaches nobody */
    32193,  /* the harness: the end of the longest fault, not of the last, begins the rest */
    200475, /* the harness: calm, but one small decode worker: all attempts failed for want of memory */
    171366, /* the harness: a Drain in a session that the router had ended, for want of a PhaseReply */
    119668, /* the harness: a chunk was sent again, and in the same step the pool was found to be lost */
    19946,  33338,  33958,
    56376,  100954, /* found it: a Welcome of an earlier session came late and became the session */
    37824,  39978,  40813,
    42717,          /* found it: an operator's word for another replica left a plan without end */
    78616,  199712, /* the harness: in the step of its Resync a worker found its relay lost, and failed what
               it had listed */
    250013,         /* the harness: a refusal came in a session that its planner had given up */
    251044,         /* the cloud: a second freeze turned the order of a worker's batches */
};

static struct sim_result result, other;

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sim_options options = {.seed = cases[i]};
        sim_run(&options, &result);
        if (!result.ok)
            print_message("seed %d: %s\n", (int)cases[i], result.why);
        assert_true(result.ok);
    }
}

/* The same seed gives the same steps. */
static void test_repeatable(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_options options = {.seed = seed};
        sim_run(&options, &result);
        sim_run(&options, &other);
        assert_int_equal(result.steps, other.steps);
        assert_true(result.digest == other.digest);
    }
}

/* A world is at least as large as promised. */
static void test_size(void **state)
{
    static struct sim_script script;
    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        uint32_t workers = 0, kinds = 0, faults = 0;
        bool seen[SIM_FAULT_KIND_COUNT] = {false};
        script.calm = false;
        sim_script_draw(&script, seed, "", "");
        for (uint32_t i = 0; i < script.node_count; i++)
            workers += script.nodes[i].kind == CLOUD_WORKER;
        for (uint32_t i = 0; i < script.fault_count; i++) {
            enum sim_fault_kind kind = script.faults[i].kind;
            kinds += !seen[kind];
            seen[kind] = true;
            faults++;
        }
        assert_true(workers >= 5 && script.request_count >= 50);
        assert_true(script.calm || (faults >= 10 && kinds >= 4));
    }
}

/* Without entries that do not matter a run is smaller; what is drawn of the others stays. */
static void test_masks(void **state)
{
    bool faults[SIM_FAULTS_MAX], requests[SIM_REQUESTS_MAX];
    (void)state;
    assert_true(sim_mask_read("none", faults, SIM_FAULTS_MAX));
    assert_true(sim_mask_read("0,3-5", requests, SIM_REQUESTS_MAX));
    assert_false(sim_mask_read("3-", faults, SIM_FAULTS_MAX));
    assert_true(sim_mask_read("none", faults, SIM_FAULTS_MAX));
    struct sim_options options = {.seed = 7, .faults = faults, .requests = requests};
    sim_run(&options, &result);
    assert_true(result.ok);
    assert_int_equal(result.requests, 4);
    assert_int_equal(result.faults, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_size), cmocka_unit_test(test_masks),
                                       cmocka_unit_test(test_cases), cmocka_unit_test(test_repeatable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
