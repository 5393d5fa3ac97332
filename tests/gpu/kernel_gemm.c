/*
 * The own kernels for few rows, compiled for the CPU, against sums in double: every variant and type over
 * shapes with tails, all kinds of results, the threads of a block in ascending, descending and drawn orders
 * (gpu/cuda/host/kernel_host.h); and that a row's result does not depend on how many rows there are.
 */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/host/kernel_host.h"
#include "gpu/cuda/products/cuda_gemm_impl.h"
#include "tests/gpu/gemm_fixture.h"
#include "tests/gpu/gemm_tests.h"

static struct ts_cuda *cuda;

static void next_order(void)
{
    static const uint64_t orders[] = {KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING, 20261126};
    static uint32_t turn;
    kernel_host_set_order(orders[turn++ % 3]);
}

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static void test_refusals(void **state)
{
    static const struct {
        struct cuda_gemm_use use;
        const char *words;
    } cases[] = {
        {{{CUDA_MATRIX_BF16, 256, 0, 8, 8}, CUDA_GEMM_Y_16}, "two 16-bit types"},
        {{{CUDA_MATRIX_F16, 256, 0, 8, 12}, CUDA_GEMM_Y_16},
         "a matrix of 8 x 12: inputs must be a multiple of 8"},
        {{{CUDA_MATRIX_I8, 256, 256, 8, 24}, CUDA_GEMM_Y_16}, "a multiple of 16"},
        {{{CUDA_MATRIX_F16, 256, 0, 24, 8}, CUDA_GEMM_SWIGLU}, "24 outputs are no runs of 8"},
        {{{CUDA_MATRIX_F16, 256, 0, 0, 8}, CUDA_GEMM_Y_F32}, "0 x 8"},
    };
    struct ts_error err = {0};
    struct cuda_gemm *gemm;
    (void)state;
    ok(cuda_gemm_new(cuda, &(struct cuda_gemm_options){.activations = TS_DTYPE_F16, .cache_folder = ""},
                     &gemm, &err),
       &err);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(cuda_gemm_prepare(gemm, cuda, &cases[i].use, 1, 8, &err), TS_EINVAL);
        assert_non_null(strstr(err.text, cases[i].words));
    }
    cuda_gemm_free(&gemm);
}

/* The rule of thumb fills the device, and takes every number of rows. */
static void test_guess(void **state)
{
    (void)state;
    for (uint32_t outputs = 1; outputs <= 1u << 17; outputs = outputs * 3 + 1) {
        for (uint32_t m = 1; m <= 64; m++) {
            struct cuda_skinny_choice choice = cuda_skinny_guess(outputs, m, false, 132, 227 << 10);
            const struct cuda_skinny_variant *v = &cuda_skinny_variants[choice.variant];
            assert_false(v->gemv);
            assert_true(v->tokens >= m && (v->tokens == 8 || v->tokens < 2 * m));
            for (uint32_t other = 0; other < CUDA_SKINNY_VARIANTS; other++) {
                const struct cuda_skinny_variant *o = &cuda_skinny_variants[other];
                if (!o->gemv && o->tokens == v->tokens && o->rows < v->rows)
                    assert_true((outputs + v->rows - 1) / v->rows >= 132);
            }
        }
    }
}

/* Where blocks have less shared memory, slices are smaller; a launch that a device has no room for would be
 * the end of it. */
static void test_small_guess(void **state)
{
    const uint32_t small = 99 << 10;
    (void)state;
    for (uint32_t m = 1; m <= 64; m++) {
        for (uint32_t outputs = 16; outputs <= 1u << 17; outputs *= 2) {
            struct cuda_skinny_choice choice = cuda_skinny_guess(outputs, m, true, 128, small);
            assert_true(cuda_skinny_fits(choice.variant, true, small));
            assert_int_equal(cuda_skinny_variants[choice.variant].tokens, m <= 8 ? 8 : m <= 16 ? 16 : 32);
            choice = cuda_skinny_guess(outputs, m, false, 128, small);
            assert_true(cuda_skinny_fits(choice.variant, false, small));
            assert_true(cuda_skinny_variants[choice.variant].tokens >= m);
        }
    }
}

/* For more rows than slices are good for: large tiles when they keep the device busy, else small ones. */
static void test_tile_guess(void **state)
{
    const struct cuda_gemm gemm = {.multiprocessors = 132, .shared_bytes_max = 227 << 10};
    struct cuda_matrix w = {.type = CUDA_MATRIX_BF16, .outputs = 4096, .inputs = 4096};
    (void)state;
    assert_int_equal(gemm_guess(&gemm, &w, GEMM_SLICE_ROWS).way, GEMM_OWN);
    for (uint32_t outputs = 128; outputs <= 1u << 17; outputs *= 2) {
        for (uint32_t m = GEMM_SLICE_ROWS + 1; m <= 8192; m = m * 3 / 2) {
            w.outputs = outputs;
            struct gemm_choice choice = gemm_guess(&gemm, &w, m);
            assert_int_equal(choice.way, GEMM_TILE);
            uint32_t blocks = outputs / cuda_tile_outputs(1) * ((m + 127) / 128);
            assert_int_equal(cuda_tile_outputs(choice.tile), blocks >= 132 ? 128 : 64);
        }
    }
}

/* Whatever way was chosen for a number of rows, with `batch_invariant` a row has the bits of any other. */
static void test_invariant_rows(void **state)
{
    static const uint32_t counts[] = {1, 64, 70, 150};
    const struct cuda_gemm_options options = {
        .activations = TS_DTYPE_BF16, .batch_invariant = true, .cache_folder = ""};
    struct ts_error err = {0};
    struct cuda_gemm *gemm;
    struct gemm_case c;
    uint8_t *rows[4];
    size_t bytes;
    (void)state;
    ok(cuda_gemm_new(cuda, &options, &gemm, &err), &err);
    gemm_case_init(&c, cuda, true, false, 80, 560, 150, CUDA_GEMM_SWIGLU);
    gemm_table_add(&gemm->table, &c.w, c.kind)->choices[gemm_bucket_of(150)] =
        (struct gemm_choice){.way = GEMM_TILE, .tile = 1};
    for (uint32_t i = 0; i < 4; i++) {
        gemm_case_reset(&c);
        next_order();
        ok(cuda_gemm_swiglu(gemm, cuda, &c.w, c.x, counts[i], c.y, c.scratch, &err), &err);
        rows[i] = gemm_case_rows(&c, counts[i], &bytes);
        assert_memory_equal(rows[i], rows[i / 2], bytes / counts[i] * counts[i / 2]);
    }
    gemm_case_check(&c, "150 rows");
    for (uint32_t i = 0; i < 4; i++)
        ts_free(rows[i]);
    gemm_case_fini(&c);
    cuda_gemm_free(&gemm);
}

/* A folder for a test, and the only file in it. */
static void temporary(char *folder, size_t bytes)
{
    snprintf(folder, bytes, "%s/kernel_gemm.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(folder));
}

static void file_in(const char *folder, char *path, size_t bytes)
{
    glob_t found = {0};
    char pattern[256];
    snprintf(pattern, sizeof pattern, "%s/*", folder);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(path, bytes, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static char *text_of(const char *path)
{
    char *text = ts_xcalloc(1, 1 << 16);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void prepare(const struct cuda_gemm_use *use, uint32_t m_max, const char *folder, bool invariant)
{
    const struct cuda_gemm_options options = {.activations = TS_DTYPE_BF16,
                                              .batch_invariant = invariant,
                                              .cache_folder = folder,
                                              .measure_always = true};
    struct ts_error err = {0};
    struct cuda_gemm *gemm;
    ok(cuda_gemm_new(cuda, &options, &gemm, &err), &err);
    assert_non_null(strstr(cuda_gemm_library(gemm), "no cuBLASLt: "));
    ok(cuda_gemm_prepare(gemm, cuda, use, 1, m_max, &err), &err);
    const struct gemm_shape *shape = gemm_table_find(&gemm->table, &use->w, use->y);
    assert_non_null(shape);
    for (uint32_t b = 0; gemm_buckets[b] <= m_max; b++) {
        const struct gemm_choice *c = &shape->choices[b];
        assert_int_equal(c->way, GEMM_OWN);
        assert_true(cuda_skinny_variants[c->own.variant].tokens >= gemm_buckets[b]);
        if (invariant)
            assert_true(c->own.warps == CUDA_SKINNY_INVARIANT_WARPS &&
                        !cuda_skinny_variants[c->own.variant].gemv);
    }
    cuda_gemm_free(&gemm);
}

/* What was measured is written, and read by the next one, which measures no more; a damaged file is written
 * anew. */
static void test_choices(void **state)
{
    struct gemm_case c;
    char folder[200], path[256];
    (void)state;
    temporary(folder, sizeof folder);
    gemm_case_init(&c, cuda, true, false, 24, 64, 1, CUDA_GEMM_Y_16);
    const struct cuda_gemm_use use = {c.w, CUDA_GEMM_Y_16};
    kernel_host_set_order(KERNEL_HOST_ASCENDING);
    prepare(&use, 2, folder, false);
    file_in(folder, path, sizeof path);
    char *first = text_of(path), *digit = strstr(first, "\n24 64 1 0 2 own ");
    assert_non_null(digit);
    prepare(&use, 2, folder, false);
    char *second = text_of(path);
    assert_string_equal(first, second);
    ts_free(second);
    FILE *file = fopen(path, "r+e");
    assert_int_equal(fseek(file, digit + 1 - first, SEEK_SET), 0);
    assert_true(fputs("25", file) >= 0);
    fclose(file);
    prepare(&use, 2, folder, false);
    second = text_of(path);
    assert_non_null(strstr(second, "\n24 64 1 0 1 own "));
    assert_null(strstr(second, "\n25 64"));
    ts_free(first);
    ts_free(second);
    assert_int_equal(remove(path), 0);
    prepare(&use, 1, folder, true);
    file_in(folder, path, sizeof path);
    assert_int_equal(remove(path), 0);
    assert_int_equal(remove(folder), 0);
    gemm_case_fini(&c);
}

/* A file that is not sound counts as none, whatever is wrong with it. */
static void test_damage(void **state)
{
    static const char *const bodies[] = {
        "8 8 1 0 1 own 99 8 5\n", "8 8 1 0 1 own 0 64 5\n",  "8 8 1 0 3 own 0 8 5\n",
        "8 8 7 0 1 own 0 8 5\n",  "8 8 1 0 1 own 0 8 5 6\n", "8 8 1 0 1 lib 1 2 3 5\n",
        "8 8 1 9 1 own 0 8 5\n",  "8 8 1 0 128 tile 2 5\n",  "nothing\n"};
    const struct cuda_matrix w = {.type = CUDA_MATRIX_BF16, .outputs = 8, .inputs = 8};
    struct gemm_table table = {NULL, 0, 0};
    char folder[200], path[256];
    (void)state;
    temporary(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/deep/er", folder);
    gemm_table_add(&table, &w, CUDA_GEMM_Y_16)->choices[0] =
        (struct gemm_choice){.way = GEMM_LIBRARY, .algorithm = {{1, 2, 3, 4, 5, 6, 7, ~0ULL}}, .ns = 5};
    gemm_table_add(&table, &w, CUDA_GEMM_Y_16)->choices[11] =
        (struct gemm_choice){.way = GEMM_TILE, .tile = 1, .ns = 5};
    assert_true(gemm_table_save(&table, path, "key"));
    gemm_table_fini(&table);
    assert_false(gemm_table_load(&table, path, "another"));
    assert_true(gemm_table_load(&table, path, "key"));
    assert_true(gemm_table_find(&table, &w, CUDA_GEMM_Y_16)->choices[0].algorithm.data[7] == ~0ULL);
    assert_int_equal(gemm_table_find(&table, &w, CUDA_GEMM_Y_16)->choices[11].way, GEMM_TILE);
    assert_int_equal(gemm_table_find(&table, &w, CUDA_GEMM_Y_16)->choices[11].tile, 1);
    gemm_table_fini(&table);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char text[256];
        int bytes = snprintf(text, sizeof text, "thunderserve gemm 1 key\n%s", bodies[i]);
        FILE *file = fopen(path, "we");
        fprintf(file, "%send %016llx\n", text, (unsigned long long)ts_hash64(text, (size_t)bytes, 0));
        fclose(file);
        assert_false(gemm_table_load(&table, path, "key"));
        assert_int_equal(table.count, 0);
    }
    assert_int_equal(remove(path), 0);
    snprintf(path, sizeof path, "%s/deep", folder);
    assert_int_equal(remove(path), 0);
    assert_false(gemm_table_load(&table, path, "key"));
    assert_int_equal(remove(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemm_test_variants),   cmocka_unit_test(gemm_test_rows),
        cmocka_unit_test(gemm_test_invariance), cmocka_unit_test(gemm_test_tiles),
        cmocka_unit_test(gemm_test_tile_rows),  cmocka_unit_test(gemm_test_widen),
        cmocka_unit_test(test_choices),         cmocka_unit_test(test_damage),
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_guess),
        cmocka_unit_test(test_small_guess),     cmocka_unit_test(test_tile_guess),
        cmocka_unit_test(test_invariant_rows),
    };
    cuda = kernel_host_open(NULL);
    gemm_use(cuda, next_order);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_cuda_close(&cuda);
    return failed;
}
