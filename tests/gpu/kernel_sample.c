/* The kernels of sample.cu, compiled for the CPU, with the threads of a block in three orders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/sample_fixture.h"

static uint32_t turn;

/* Each case in another order than the one before. */
static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    kernel_host_set_order(orders[turn++ % 3]);
}

static void run(void (*test)(void **state))
{
    struct ts_cuda *cuda = kernel_host_open(sample_host_kernels);
    sample_use(cuda, next_order, false);
    test(NULL);
    ts_cuda_close(&cuda);
}

static void test_greedy(void **state)
{
    (void)state;
    run(sample_test_greedy);
}

static void test_draws(void **state)
{
    (void)state;
    run(sample_test_draws);
}

static void test_crowded(void **state)
{
    (void)state;
    run(sample_test_crowded);
}

static void test_distribution(void **state)
{
    (void)state;
    run(sample_test_distribution);
}

static void test_bounds(void **state)
{
    (void)state;
    run(sample_test_bounds);
}

static void test_room(void **state)
{
    (void)state;
    run(sample_test_room);
}

static void test_graph(void **state)
{
    (void)state;
    run(sample_test_graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_draws),  cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_bounds), cmocka_unit_test(test_room),
        cmocka_unit_test(test_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
