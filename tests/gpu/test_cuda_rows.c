/* The kernels of rows.cu on a GPU: the tests of kernel_rows, and shapes of real models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/gpu/rows_fixture.h"

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_test_embed), cmocka_unit_test(rows_test_norm),
                                       cmocka_unit_test(rows_test_qkv), cmocka_unit_test(rows_test_silu)};
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
    rows_use(cuda, NULL, true);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
