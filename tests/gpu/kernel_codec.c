/*
 * The kernels of the codec, compiled for the CPU, against the codec of the CPU: encoded and restored bytes,
 * with the threads of a block in ascending, descending and drawn orders (gpu/cuda/host/kernel_host.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/kernel_fixture.h"

static uint32_t turn;

/* Each codec and type in another order than the one before. */
static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    kernel_host_set_order(orders[turn++ % 3]);
}

static void run(void (*test)(void **state), uint32_t rounds)
{
    struct ts_cuda *cuda = kernel_host_open(NULL);
    kernel_use(cuda, next_order);
    for (uint32_t round = 0; round < rounds; round++) {
        turn = round; /* so that three rounds see each case in each order */
        test(NULL);
    }
    ts_cuda_close(&cuda);
}

static void test_shapes(void **state)
{
    (void)state;
    run(kernel_test_shapes, 1);
}

static void test_values(void **state)
{
    (void)state;
    run(kernel_test_values, 3);
}

static void test_numbers(void **state)
{
    (void)state;
    run(kernel_test_numbers, 1);
}

static void test_means(void **state)
{
    (void)state;
    run(kernel_test_means, 1);
}

static void test_layers(void **state)
{
    (void)state;
    run(kernel_test_layers, 1);
}

static void test_escapes(void **state)
{
    (void)state;
    run(kernel_test_escapes, 3);
}

static void test_refusals(void **state)
{
    (void)state;
    run(kernel_test_refusals, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_values),   cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_escapes), cmocka_unit_test(test_refusals), cmocka_unit_test(test_means),
        cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
