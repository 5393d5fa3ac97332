/* The attention kernels on a GPU, against a softmax in double precision: the tests of kernel_attention, and
 * larger shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "tests/gpu/attention_fixture.h"
#include "tests/gpu/cuda_open.h"

static uint32_t processors;

/* Heads as models have them; long and short rows together. */
static void test_large(void **state)
{
    static const struct cuda_attention_shape shapes[] = {
        {32, 8, 128, 0, true},    {32, 4, 64, 0, false}, {28, 4, 128, 0, true}, {9, 3, 64, 0, false},
        {32, 8, 128, 500, false}, {24, 8, 80, 0, true},  {8, 1, 256, 0, true},  {12, 12, 112, 0, false}};
    static const struct attention_row rows[] = {{0, 700},  {300, 1}, {1500, 257},
                                                {1999, 1}, {0, 64},  {900, 5}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct attention_case c = {.shape = shapes[i],
                                   .row_count = sizeof rows / sizeof *rows,
                                   .multiprocessors = processors,
                                   .sampled = 8,
                                   .seed = i};
        for (size_t r = 0; r < c.row_count; r++)
            c.rows[r] = rows[r];
        ts_free(attention_run(&c));
    }
}

/* A full bucket of rows of one token, and one long row alone. */
static void test_decode(void **state)
{
    struct attention_case c = {
        .shape = {32, 8, 128, 0, true}, .row_count = 128, .multiprocessors = processors};
    (void)state;
    for (uint32_t r = 0; r < c.row_count; r++)
        c.rows[r] = (struct attention_row){r * 37 % 1024, 1};
    ts_free(attention_run(&c));
    c.row_count = 1;
    c.rows[0] = (struct attention_row){16383, 1};
    ts_free(attention_run(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention_test_groups),
                                       cmocka_unit_test(attention_test_widths),
                                       cmocka_unit_test(attention_test_windows),
                                       cmocka_unit_test(attention_test_tiles),
                                       cmocka_unit_test(attention_test_cuts),
                                       cmocka_unit_test(attention_test_spans),
                                       cmocka_unit_test(test_large),
                                       cmocka_unit_test(test_decode)};
    struct ts_cuda *cuda;
    int status = cuda_open_or_skip(&cuda);
    if (status != 0)
        return status;
    processors = ts_cuda_properties(cuda)->multiprocessors;
    attention_use(cuda, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
