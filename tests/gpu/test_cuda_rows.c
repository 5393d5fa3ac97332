/* The kernels of rows.cu on a GPU: the tests of kernel_rows, and shapes of real models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gpu/cuda_open.h"
#include "tests/gpu/rows_fixture.h"

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_test_embed), cmocka_unit_test(rows_test_norm),
                                       cmocka_unit_test(rows_test_qkv), cmocka_unit_test(rows_test_silu)};
    struct ts_cuda *cuda;
    int status = cuda_open_or_skip(&cuda);
    if (status != 0)
        return status;
    rows_use(cuda, NULL, true);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
