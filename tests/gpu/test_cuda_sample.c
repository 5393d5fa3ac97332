/* The kernels of sample.cu on a GPU: the tests of kernel_sample, and vocabularies of real models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gpu/sample_fixture.h"

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sample_test_greedy),  cmocka_unit_test(sample_test_draws),
        cmocka_unit_test(sample_test_crowded), cmocka_unit_test(sample_test_distribution),
        cmocka_unit_test(sample_test_bounds),  cmocka_unit_test(sample_test_room),
        cmocka_unit_test(sample_test_graph),
    };
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    enum ts_status status = ts_cuda_open(0, &cuda, &err);
    if (status == TS_EUNSUPPORTED || status == TS_ENOTFOUND) {
        printf("SKIP: no-gpu %s\n", err.text);
        return 77;
    }
    if (status != TS_OK) {
        printf("%s\n", err.text);
        return 1;
    }
    printf("device: %s\n", ts_cuda_name(cuda));
    sample_use(cuda, NULL, true);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
