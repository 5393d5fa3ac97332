/*
 * Many worlds, one seed each. TS_SIM_SEEDS sets how many; TS_SIM_SEED=N repeats one and prints what happened
 * in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define CONF TS_TEST_DATA "/../../conf/devices/modelled.json"

#if defined(__SANITIZE_ADDRESS__)
#define SEEDS 20
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SEEDS 20
#endif
#endif
#ifndef SEEDS
#define SEEDS 200
#endif

static uint64_t number(const char *variable, uint64_t fallback)
{
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : fallback;
}

/* Every fifth world is calm. */
static struct sim_options options_of(uint64_t seed)
{
    return (struct sim_options){.seed = seed, .calm = seed % 5 == 0, .device_conf = CONF};
}

static void print(uint64_t seed, const struct sim_result *r)
{
    print_message("seed %llu: %s%s\n", (unsigned long long)seed, r->ok ? "ok" : "FAILED: ", r->why);
    print_message(
        "  digest %016llx steps %llu, %.1f virtual s, requests %llu: completed %llu cancelled %llu late %llu "
        "failed %llu refused %llu\n",
        (unsigned long long)r->digest, (unsigned long long)r->steps, r->virtual_s,
        (unsigned long long)r->requests, (unsigned long long)r->completed, (unsigned long long)r->cancelled,
        (unsigned long long)r->late, (unsigned long long)r->failed, (unsigned long long)r->refused);
    print_message(
        "  messages %llu lost %llu cuts %llu stalls %llu corrupted %llu kills %llu retries %llu resyncs %llu "
        "preempted %llu\n",
        (unsigned long long)r->counts.messages, (unsigned long long)r->counts.lost,
        (unsigned long long)r->counts.cuts, (unsigned long long)r->counts.stalls,
        (unsigned long long)r->counts.corrupted, (unsigned long long)r->counts.kills,
        (unsigned long long)r->retries, (unsigned long long)r->resyncs, (unsigned long long)r->preempted);
    if (!r->ok)
        print_message("  repeat: TS_SIM_SEED=%llu build/release/tests-bin/test_sim_seeds\n",
                      (unsigned long long)seed);
}

static void test_seeds(void **state)
{
    uint64_t only = number("TS_SIM_SEED", 0), count = number("TS_SIM_SEEDS", SEEDS), failed = 0;
    (void)state;
    for (uint64_t seed = only ? only : 1; seed <= (only ? only : count); seed++) {
        struct sim_options options = options_of(seed);
        options.trace = number("TS_SIM_TRACE", 0) != 0;
        struct sim_result r = sim_run(&options);
        if (only || !r.ok)
            print(seed, &r);
        failed += !r.ok;
    }
    assert_int_equal(failed, 0);
}

/* The same seed gives the same steps. */
static void test_repeatable(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_options options = options_of(seed);
        struct sim_result a = sim_run(&options), b = sim_run(&options);
        assert_int_equal(a.steps, b.steps);
        assert_true(a.digest == b.digest);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds), cmocka_unit_test(test_repeatable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
