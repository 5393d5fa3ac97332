/*
 * The kernels for sides without loss, compiled for the CPU, against the codec of the CPU, with the threads of
 * a block in ascending, descending and drawn orders (gpu/cuda/host/kernel_host.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/kernel_fixture.h"
#include "tests/gpu/lossless_fixture.h"

/* Each codec and type in another order than the one before. */
static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    static uint32_t turn;
    kernel_host_set_order(orders[turn++ % 3]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lossless_test_exceptions), cmocka_unit_test(lossless_test_many_tiles),
        cmocka_unit_test(lossless_test_escapes),    cmocka_unit_test(lossless_test_layers),
        cmocka_unit_test(lossless_test_next_codec), cmocka_unit_test(lossless_test_refusals),
        cmocka_unit_test(lossless_test_shapes),
    };
    struct ts_cuda *cuda = kernel_host_open(NULL);
    kernel_use(cuda, next_order);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
