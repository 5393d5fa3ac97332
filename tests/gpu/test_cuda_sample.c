/* The kernels of sample.cu on a GPU: the tests of kernel_sample, and vocabularies of real models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gpu/cuda_open.h"
#include "tests/gpu/sample_fixture.h"

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample_test_greedy),  cmocka_unit_test(sample_test_draws),
        cmocka_unit_test(sample_test_crowded), cmocka_unit_test(sample_test_distribution),
        cmocka_unit_test(sample_test_bounds),  cmocka_unit_test(sample_test_room),
        cmocka_unit_test(sample_test_graph),
    };
    struct ts_cuda *cuda;
    int status = cuda_open_or_skip(&cuda);
    if (status != 0)
        return status;
    sample_use(cuda, NULL, true);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
