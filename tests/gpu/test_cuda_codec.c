/* The kernels of the codec on a GPU, against the codec of the CPU: the tests of kernel_codec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gpu/cuda_open.h"
#include "tests/gpu/kernel_fixture.h"
#include "tests/gpu/lossless_fixture.h"

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernel_test_shapes),       cmocka_unit_test(kernel_test_values),
        cmocka_unit_test(kernel_test_numbers),      cmocka_unit_test(kernel_test_escapes),
        cmocka_unit_test(kernel_test_refusals),     cmocka_unit_test(kernel_test_means),
        cmocka_unit_test(kernel_test_layers),       cmocka_unit_test(lossless_test_shapes),
        cmocka_unit_test(lossless_test_exceptions), cmocka_unit_test(lossless_test_many_tiles),
        cmocka_unit_test(lossless_test_escapes),    cmocka_unit_test(lossless_test_layers),
        cmocka_unit_test(lossless_test_next_codec), cmocka_unit_test(lossless_test_refusals),
        cmocka_unit_test(kernel_test_crowd),
    };
    struct ts_cuda *cuda;
    int status = cuda_open_or_skip(&cuda);
    if (status != 0)
        return status;
    kernel_use(cuda, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
