#include "gpu/cuda/products/cuda_gemm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/products/cuda_gemm_impl.h"
#include "gpu/cuda/rows/cuda_rows.h"

/* Of what the table of own variants does not show: choices that were made among others are not read. */
#define KERNELS_VERSION 2u

/* --- a product by a given way --------------------------------------------------------------------------- */

struct cuda_blaslt_product gemm_library_product(const struct cuda_gemm *gemm, const struct cuda_matrix *w,
                                                uint32_t m, enum cuda_gemm_y kind)
{
    return (struct cuda_blaslt_product){.outputs = w->outputs,
                                        .inputs = w->inputs,
                                        .m = m,
                                        .bf16 = gemm->bf16,
                                        .kind = kind == CUDA_GEMM_SWIGLU ? CUDA_GEMM_Y_16 : kind};
}

static enum ts_status do_with_library(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                      const struct cuda_blaslt_algorithm *algorithm,
                                      const struct gemm_product *p, struct ts_error *err)
{
    const struct cuda_blaslt_product product = gemm_library_product(gemm, p->w, p->m, p->kind);
    bool swiglu = p->kind == CUDA_GEMM_SWIGLU;
    ts_cuda_address weights = p->w->data;
    enum ts_status status = TS_OK;
    if (p->w->type == CUDA_MATRIX_I8) {
        TS_ASSERT((size_t)p->w->outputs * p->w->inputs * 2 <= gemm->widened_bytes);
        weights = gemm->widened;
        status = cuda_skinny_widen(cuda, gemm->bf16, p->w, weights, err);
    }
    if (status == TS_OK)
        status = cuda_blaslt_run(gemm->blaslt, cuda, &product, algorithm, weights, p->x,
                                 swiglu ? p->scratch : p->y, err);
    if (status != TS_OK || !swiglu)
        return status;
    const struct cuda_silu silu = {.gate_up = p->scratch,
                                   .out = p->y,
                                   .intermediate = p->w->outputs / 2,
                                   .tokens = p->m,
                                   .bf16 = gemm->bf16};
    return cuda_silu_mul(cuda, &silu, err);
}

enum ts_status gemm_do(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct gemm_choice *choice,
                       const struct gemm_product *p, struct ts_error *err)
{
    if (choice->way == GEMM_LIBRARY)
        return do_with_library(gemm, cuda, &choice->algorithm, p, err);
    if (choice->way == GEMM_TILE)
        return cuda_tile_launch(cuda, choice->tile, gemm->bf16, p->w, p->x, p->m, p->y, p->kind, err);
    return cuda_skinny_launch(cuda, choice->own, gemm->bf16, p->w, p->x, p->m, p->y, p->kind, err);
}

/* --- which way ------------------------------------------------------------------------------------------ */

struct gemm_choice gemm_guess(const struct cuda_gemm *gemm, const struct cuda_matrix *w, uint32_t m)
{
    if (m > GEMM_SLICE_ROWS)
        return (struct gemm_choice){.way = GEMM_TILE,
                                    .tile = cuda_tile_guess(w->outputs, m, gemm->multiprocessors)};
    return (struct gemm_choice){.way = GEMM_OWN,
                                .own = cuda_skinny_guess(w->outputs, m, w->type == CUDA_MATRIX_I8,
                                                         gemm->multiprocessors, gemm->shared_bytes_max)};
}

bool gemm_has_library(const struct cuda_gemm *gemm, const struct cuda_matrix *w)
{
    return gemm->blaslt &&
           (w->type != CUDA_MATRIX_I8 || (size_t)w->outputs * w->inputs * 2 <= gemm->widened_bytes);
}

static bool library_takes(const struct cuda_gemm *gemm, const struct cuda_matrix *w, uint32_t m,
                          enum cuda_gemm_y kind, const struct gemm_choice *choice)
{
    struct cuda_blaslt_product product = gemm_library_product(gemm, w, m, kind);
    return gemm_has_library(gemm, w) && cuda_blaslt_takes(gemm->blaslt, &product, &choice->algorithm);
}

static bool is_own(const struct gemm_choice *choice)
{
    return choice->way == GEMM_OWN || choice->way == GEMM_TILE;
}

/* For more rows than decode steps have: the bucket's algorithm if it takes as many, else the library's first
 * guess. */
static struct gemm_choice find_large(struct cuda_gemm *gemm, const struct gemm_shape *shape,
                                     const struct cuda_matrix *w, uint32_t m)
{
    uint32_t bucket = gemm_bucket_of(m), count;
    struct gemm_choice choice = {.way = GEMM_LIBRARY};
    struct cuda_blaslt_product product = gemm_library_product(gemm, w, m, shape->kind);
    if (bucket < GEMM_BUCKETS && is_own(&shape->choices[bucket]))
        return shape->choices[bucket];
    if (bucket < GEMM_BUCKETS && shape->choices[bucket].way == GEMM_LIBRARY &&
        library_takes(gemm, w, m, shape->kind, &shape->choices[bucket]))
        return shape->choices[bucket];
    if (gemm_has_library(gemm, w) &&
        cuda_blaslt_query(gemm->blaslt, &product, &choice.algorithm, 1, &count, NULL) == TS_OK)
        return choice;
    return gemm_guess(gemm, w, m);
}

static struct gemm_choice choose(struct cuda_gemm *gemm, const struct cuda_matrix *w, uint32_t m,
                                 enum cuda_gemm_y kind)
{
    struct gemm_shape *shape = gemm_table_find(&gemm->table, w, kind);
    if (!shape)
        return gemm_guess(gemm, w, m);
    if (m > GEMM_ROWS_DECODE) {
        if (shape->last_m != m)
            shape->last = find_large(gemm, shape, w, m);
        shape->last_m = m;
        return shape->last;
    }
    const struct gemm_choice *choice = &shape->choices[gemm_bucket_of(m)];
    if (is_own(choice) || (choice->way == GEMM_LIBRARY && shape->takes[m]))
        return *choice;
    return gemm_guess(gemm, w, m);
}

static enum ts_status run(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct gemm_product *product,
                          struct ts_error *err)
{
    if (product->m == 0)
        return TS_OK;
    struct gemm_choice choice = choose(gemm, product->w, product->m, product->kind);
    return gemm_do(gemm, cuda, &choice, product, err);
}

enum ts_status cuda_gemm_run(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *w,
                             ts_cuda_address x, uint32_t m, ts_cuda_address y, enum cuda_gemm_y y_kind,
                             struct ts_error *err)
{
    TS_ASSERT(y_kind != CUDA_GEMM_SWIGLU);
    return run(gemm, cuda, &(struct gemm_product){.w = w, .x = x, .y = y, .m = m, .kind = y_kind}, err);
}

enum ts_status cuda_gemm_swiglu(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                const struct cuda_matrix *gate_up, ts_cuda_address x, uint32_t m,
                                ts_cuda_address out, ts_cuda_address scratch, struct ts_error *err)
{
    const struct gemm_product product = {
        .w = gate_up, .x = x, .y = out, .scratch = scratch, .m = m, .kind = CUDA_GEMM_SWIGLU};
    return run(gemm, cuda, &product, err);
}

/* --- preparing ------------------------------------------------------------------------------------------ */

/* The file of choices for this device, driver, library and T, and these kernels; `key` gets them as one word.
 * NULL: none is kept. */
static char *cache_path(const struct cuda_gemm *gemm, char *key, size_t key_bytes)
{
    const struct ts_cuda_properties *p = ts_cuda_properties(gemm->cuda);
    const char *folder = gemm->options.cache_folder, *home = getenv("HOME"), *xdg = getenv("XDG_CACHE_HOME");
    uint64_t kernels = ts_hash64(cuda_skinny_variants, sizeof cuda_skinny_variants, KERNELS_VERSION);
    snprintf(key, key_bytes, "%s/sm_%u/%u/driver-%u/library-%zu/%s/invariant-%d/kernels-%016llx", p->name,
             p->capability, p->multiprocessors, p->driver_version,
             gemm->blaslt ? cuda_blaslt_version(gemm->blaslt) : 0, ts_dtype_name(gemm->options.activations),
             gemm->options.batch_invariant, (unsigned long long)kernels);
    for (char *c = key; *c; c++)
        *c = *c == ' ' ? '_' : *c;
    unsigned long long hash = ts_hash64(key, strlen(key), 0);
    if (folder)
        return folder[0] ? ts_xasprintf("%s/gemm-%016llx.txt", folder, hash) : NULL;
    if (xdg && xdg[0] == '/')
        return ts_xasprintf("%s/thunderserve/gemm-%016llx.txt", xdg, hash);
    return home && home[0] ? ts_xasprintf("%s/.cache/thunderserve/gemm-%016llx.txt", home, hash) : NULL;
}

static enum ts_status check(const struct cuda_gemm *gemm, const struct cuda_gemm_use *use,
                            struct ts_error *err)
{
    enum cuda_matrix_type t = gemm->bf16 ? CUDA_MATRIX_BF16 : CUDA_MATRIX_F16;
    const struct cuda_matrix *w = &use->w;
    uint32_t step = w->type == CUDA_MATRIX_I8 ? 16 : 8;
    if (w->type != CUDA_MATRIX_I8 && w->type != t)
        return ts_error_set(err, TS_EINVAL, "weights and activations are of two 16-bit types");
    if (w->outputs == 0 || w->inputs == 0 || w->inputs % step)
        return ts_error_set(err, TS_EINVAL, "a matrix of %u x %u: inputs must be a multiple of %u",
                            w->outputs, w->inputs, step);
    if (use->y == CUDA_GEMM_SWIGLU && w->outputs % 16)
        return ts_error_set(err, TS_EINVAL, "gate and up of %u outputs are no runs of 8", w->outputs);
    return TS_OK;
}

enum ts_status gemm_make_widened(struct cuda_gemm *gemm, const struct cuda_matrix *w, struct ts_error *err)
{
    size_t bytes = (size_t)w->outputs * w->inputs * 2;
    if (!gemm->blaslt || w->type != CUDA_MATRIX_I8 || bytes <= gemm->widened_bytes)
        return TS_OK;
    enum ts_status status = ts_cuda_wait(gemm->cuda, err);
    ts_cuda_free(gemm->cuda, &gemm->widened);
    gemm->widened_bytes = 0;
    if (status == TS_OK)
        status = ts_cuda_alloc(gemm->cuda, bytes, &gemm->widened, err);
    if (status == TS_OK)
        gemm->widened_bytes = bytes;
    return status == TS_ENOMEM ? TS_OK : status;
}

static bool same_use(const struct cuda_gemm_use *a, const struct cuda_gemm_use *b)
{
    return a->y == b->y && a->w.type == b->w.type && a->w.outputs == b->w.outputs &&
           a->w.inputs == b->w.inputs;
}

/* All matrices of the shape and use of uses[first], unless an earlier one had them. */
static enum ts_status tune_one(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_gemm_use *uses,
                               size_t count, size_t first, uint32_t m_max, struct ts_error *err)
{
    for (size_t i = 0; i < first; i++) {
        if (same_use(&uses[i], &uses[first]))
            return TS_OK;
    }
    struct cuda_matrix *matrices = ts_xcalloc(count, sizeof *matrices);
    size_t found = 0;
    for (size_t i = first; i < count; i++) {
        if (same_use(&uses[i], &uses[first]))
            matrices[found++] = uses[i].w;
    }
    enum ts_status status = gemm_tune(gemm, cuda, matrices, found, uses[first].y, m_max, err);
    struct gemm_shape *shape = gemm_table_find(&gemm->table, &matrices[0], uses[first].y);
    for (uint32_t m = 1; m <= GEMM_ROWS_DECODE && status == TS_OK; m++) {
        const struct gemm_choice *choice = &shape->choices[gemm_bucket_of(m)];
        shape->takes[m] =
            choice->way == GEMM_LIBRARY && library_takes(gemm, &matrices[0], m, uses[first].y, choice);
    }
    ts_free(matrices);
    return status;
}

enum ts_status cuda_gemm_prepare(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                 const struct cuda_gemm_use *uses, size_t count, uint32_t m_max,
                                 struct ts_error *err)
{
    char key[320];
    enum ts_status status = TS_OK;
    for (size_t i = 0; i < count && status == TS_OK; i++)
        status = check(gemm, &uses[i], err);
    if (status != TS_OK || (ts_cuda_properties(cuda)->emulated && !gemm->options.measure_always))
        return status;
    char *path = cache_path(gemm, key, sizeof key);
    if (path)
        gemm_table_load(&gemm->table, path, key);
    for (size_t i = 0; i < count && status == TS_OK; i++)
        status = gemm_make_widened(gemm, &uses[i].w, err);
    for (size_t i = 0; i < count && status == TS_OK; i++)
        status = tune_one(gemm, cuda, uses, count, i, m_max, err);
    if (status == TS_OK && path)
        gemm_table_save(&gemm->table, path, key);
    ts_free(path);
    return status;
}

enum ts_status cuda_gemm_new(struct ts_cuda *cuda, const struct cuda_gemm_options *options,
                             struct cuda_gemm **out, struct ts_error *err)
{
    struct ts_error why = {0};
    enum ts_status status = TS_OK;
    TS_ASSERT(options->activations == TS_DTYPE_F16 || options->activations == TS_DTYPE_BF16);
    struct cuda_gemm *g = ts_xcalloc(1, sizeof *g);
    g->cuda = cuda;
    g->options = *options;
    g->bf16 = options->activations == TS_DTYPE_BF16;
    g->multiprocessors = ts_cuda_properties(cuda)->multiprocessors;
    g->shared_bytes_max = ts_cuda_properties(cuda)->shared_bytes_max;
    if (options->cache_folder)
        g->options.cache_folder = ts_xstrdup(options->cache_folder);
    if (options->batch_invariant)
        ts_error_set(&why, TS_EUNSUPPORTED, "its results depend on the batch");
    else if (options->no_library)
        ts_error_set(&why, TS_EUNSUPPORTED, "not wanted");
    else
        status = cuda_blaslt_open(cuda, &g->blaslt, &why);
    snprintf(g->library, sizeof g->library, "%s%s",
             g->blaslt ? cuda_blaslt_name(g->blaslt) : "no cuBLASLt: ", g->blaslt ? "" : why.text);
    *out = g;
    if (status == TS_OK || status == TS_EUNSUPPORTED)
        return TS_OK;
    cuda_gemm_free(out);
    return ts_error_set(err, status, "%s", why.text);
}

void cuda_gemm_free(struct cuda_gemm **gemm)
{
    struct cuda_gemm *g = *gemm;
    if (!g)
        return;
    ts_cuda_wait(g->cuda, NULL);
    cuda_blaslt_close(&g->blaslt);
    ts_cuda_free(g->cuda, &g->widened);
    gemm_table_fini(&g->table);
    ts_free((void *)(uintptr_t)g->options.cache_folder);
    ts_free(g);
    *gemm = NULL;
}

const char *cuda_gemm_library(const struct cuda_gemm *gemm)
{
    return gemm->library;
}
