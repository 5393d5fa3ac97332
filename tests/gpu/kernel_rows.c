/* The kernels of rows.cu, compiled for the CPU, with the threads of a block in three orders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/rows_fixture.h"

static uint32_t turn;

/* Each case in another order than the one before. */
static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    kernel_host_set_order(orders[turn++ % 3]);
}

static void run(void (*test)(void **state))
{
    struct ts_cuda *cuda = kernel_host_open(rows_host_kernels);
    rows_use(cuda, next_order, false);
    for (uint32_t round = 0; round < 3; round++) {
        turn = round;
        test(NULL);
    }
    ts_cuda_close(&cuda);
}

static void test_embed(void **state)
{
    (void)state;
    run(rows_test_embed);
}

static void test_norm(void **state)
{
    (void)state;
    run(rows_test_norm);
}

static void test_qkv(void **state)
{
    (void)state;
    run(rows_test_qkv);
}

static void test_silu(void **state)
{
    (void)state;
    run(rows_test_silu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_embed), cmocka_unit_test(test_norm),
                                       cmocka_unit_test(test_qkv), cmocka_unit_test(test_silu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
