/* How long each way takes for a shape and a number of rows, on the device, with weights from memory. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/products/cuda_gemm_impl.h"
#include "gpu/cuda/weights/cuda_weights.h"

#define LIBRARY_DECODE_MAX  8u /* algorithms that are timed */
#define LIBRARY_PREFILL_MAX 6u
#define SCRATCH_BYTES_MAX   ((uint64_t)1 << 30)
#define BYTES_PER_RUN       ((uint64_t)800 << 20) /* of weights: a quarter of a millisecond on an H100 */
#define LAUNCHES_MAX        32u
#define SEED                20261126u

/* What the products of one shape need. */
struct tune {
    struct cuda_gemm *gemm;
    struct ts_cuda *cuda;
    const struct cuda_matrix *matrices;
    size_t count, turn; /* the matrix that is next */
    enum cuda_gemm_y kind;
    uint32_t rows_max; /* that x, y and scratch are large enough for */
    ts_cuda_address x, y, scratch;
    struct ts_cuda_event *begin, *end;
};

/* --- memory --------------------------------------------------------------------------------------------- */

static void tune_fini(struct tune *t)
{
    ts_cuda_free(t->cuda, &t->x);
    ts_cuda_free(t->cuda, &t->y);
    ts_cuda_free(t->cuda, &t->scratch);
    ts_cuda_event_free(&t->begin);
    ts_cuda_event_free(&t->end);
}

/* Room for `rows` rows; TS_ENOMEM also where that is more than these trials are worth. */
static enum ts_status take_memory(struct tune *t, uint32_t rows, struct ts_error *err)
{
    const struct cuda_matrix *w = t->matrices;
    bool swiglu = t->kind == CUDA_GEMM_SWIGLU;
    uint64_t x_bytes = (uint64_t)rows * w->inputs * 2, y_bytes = (uint64_t)rows * w->outputs * 4;
    if (x_bytes + y_bytes * (swiglu ? 2 : 1) > SCRATCH_BYTES_MAX)
        return TS_ENOMEM;
    enum ts_status status = ts_cuda_alloc(t->cuda, x_bytes, &t->x, err);
    if (status == TS_OK)
        status = ts_cuda_alloc(t->cuda, y_bytes, &t->y, err);
    if (status == TS_OK && swiglu)
        status = ts_cuda_alloc(t->cuda, y_bytes, &t->scratch, err);
    if (status == TS_OK) {
        t->rows_max = rows;
        return TS_OK;
    }
    ts_cuda_free(t->cuda, &t->x);
    ts_cuda_free(t->cuda, &t->y);
    return status;
}

/* As many rows as there is memory for; possibly none. */
static enum ts_status tune_init(struct tune *t, uint32_t m_max, struct ts_error *err)
{
    uint32_t bucket = gemm_bucket_of(m_max);
    enum ts_status status = TS_ENOMEM;
    bucket = bucket < GEMM_BUCKETS ? bucket : GEMM_BUCKETS - 1;
    for (uint32_t b = bucket + 1; b > 0 && status == TS_ENOMEM; b--)
        status = take_memory(t, gemm_buckets[b - 1], err);
    if (status == TS_ENOMEM)
        return TS_OK;
    if (status == TS_OK)
        status = cuda_weights_fill(t->cuda, t->x, (uint64_t)t->rows_max * t->matrices->inputs, SEED, 1,
                                   t->gemm->options.activations, err);
    if (status == TS_OK)
        status = ts_cuda_clear(t->cuda, t->y, (uint64_t)t->rows_max * t->matrices->outputs * 4, err);
    if (status == TS_OK)
        status = ts_cuda_event_new(t->cuda, &t->begin, err);
    if (status == TS_OK)
        status = ts_cuda_event_new(t->cuda, &t->end, err);
    return status;
}

/* --- time ----------------------------------------------------------------------------------------------- */

static enum ts_status launch(struct tune *t, const struct gemm_choice *choice, uint32_t rows,
                             uint32_t launches, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < launches && status == TS_OK; i++) {
        struct gemm_product p = {.w = &t->matrices[t->turn++ % t->count],
                                 .x = t->x,
                                 .y = t->y,
                                 .scratch = t->scratch,
                                 .m = rows,
                                 .kind = t->kind};
        status = gemm_do(t->gemm, t->cuda, choice, &p, err);
    }
    return status;
}

/* Captured, as decode steps are: then the host's part does not count. */
static enum ts_status launch_graph(struct tune *t, const struct gemm_choice *choice, uint32_t rows,
                                   uint32_t launches, struct ts_cuda_graph **graph, struct ts_error *err)
{
    enum ts_status status = ts_cuda_capture_begin(t->cuda, err);
    if (status != TS_OK)
        return status;
    enum ts_status launched = launch(t, choice, rows, launches, err);
    status = ts_cuda_capture_end(t->cuda, graph, err);
    return launched != TS_OK ? launched : status;
}

/* One round of launches; its time. */
static enum ts_status round_of(struct tune *t, const struct gemm_choice *choice, uint32_t rows,
                               uint32_t launches, struct ts_cuda_graph *graph, uint64_t *ns,
                               struct ts_error *err)
{
    enum ts_status status = ts_cuda_record(t->cuda, t->begin, err);
    if (status == TS_OK)
        status = graph ? ts_cuda_graph_launch(t->cuda, graph, err) : launch(t, choice, rows, launches, err);
    if (status == TS_OK)
        status = ts_cuda_record(t->cuda, t->end, err);
    if (status == TS_OK)
        status = ts_cuda_elapsed(t->begin, t->end, ns, err);
    return status;
}

static uint32_t launches_of(const struct tune *t, uint32_t rows)
{
    const struct cuda_matrix *w = t->matrices;
    uint64_t bytes = (uint64_t)w->outputs * w->inputs * (w->type == CUDA_MATRIX_I8 ? 1 : 2);
    uint64_t launches = BYTES_PER_RUN / bytes;
    if (rows > GEMM_ROWS_DECODE)
        return 2;
    return launches < 3 ? 3 : launches > LAUNCHES_MAX ? LAUNCHES_MAX : (uint32_t)launches;
}

/* The better of two rounds after one that warms up. */
static enum ts_status time_choice(struct tune *t, struct gemm_choice *choice, uint32_t rows,
                                  struct ts_error *err)
{
    struct ts_cuda_graph *graph = NULL;
    uint32_t launches = launches_of(t, rows);
    uint64_t best = UINT64_MAX, ns = 0;
    enum ts_status status = TS_OK;
    if (rows <= GEMM_ROWS_DECODE) {
        status =
            launch(t, choice, rows, 1, err); /* what a library does at first it may not do in a capture */
        if (status == TS_OK)
            status = launch_graph(t, choice, rows, launches, &graph, err);
    }
    for (int round = 0; round < 3 && status == TS_OK; round++) {
        status = round_of(t, choice, rows, launches, graph, &ns, err);
        if (round > 0 && ns < best)
            best = ns;
    }
    if (graph && status != TS_OK)
        status = ts_cuda_wait(t->cuda, err) == TS_OK ? status : TS_EIO; /* its launches must be over */
    ts_cuda_graph_free(&graph);
    choice->ns = best / launches > 0 ? best / launches : 1;
    return status;
}

/* Keeps the faster one. A way that fails is none, as long as the device lives. */
static enum ts_status try_choice(struct tune *t, struct gemm_choice choice, uint32_t rows,
                                 struct gemm_choice *best, struct ts_error *err)
{
    enum ts_status status = time_choice(t, &choice, rows, err);
    if (status == TS_OK && (best->way == GEMM_UNKNOWN || choice.ns < best->ns))
        *best = choice;
    return ts_cuda_fault(t->cuda) ? TS_EIO : TS_OK;
}

/* --- candidates ----------------------------------------------------------------------------------------- */

/* Whether variant `v` is meant for so many rows: the device has room for it, it takes them at once and no
 * smaller one does. */
static bool meant_for(const struct tune *t, uint32_t v, uint32_t rows)
{
    const struct cuda_gemm *gemm = t->gemm;
    const struct cuda_skinny_variant *all = cuda_skinny_variants;
    bool int8 = t->matrices->type == CUDA_MATRIX_I8;
    uint32_t least = UINT32_MAX, most = 0;
    if (all[v].gemv)
        return !gemm->options.batch_invariant && all[v].tokens == rows;
    for (uint32_t i = 0; i < CUDA_SKINNY_VARIANTS; i++) {
        if (all[i].gemv || !cuda_skinny_fits(i, int8, gemm->shared_bytes_max))
            continue;
        most = all[i].tokens > most ? all[i].tokens : most;
        if (all[i].tokens >= rows && all[i].tokens < least)
            least = all[i].tokens;
    }
    return cuda_skinny_fits(v, int8, gemm->shared_bytes_max) &&
           all[v].tokens == (least < most ? least : most);
}

static enum ts_status try_own(struct tune *t, uint32_t rows, struct gemm_choice *best, struct ts_error *err)
{
    bool invariant = t->gemm->options.batch_invariant;
    enum ts_status status = TS_OK;
    for (uint32_t v = 0; v < CUDA_SKINNY_VARIANTS; v++) {
        if (!meant_for(t, v, rows))
            continue;
        for (uint32_t warps = 4; warps <= cuda_skinny_variants[v].warps_max && status == TS_OK; warps *= 2) {
            struct gemm_choice choice = {.way = GEMM_OWN, .own = {v, warps}};
            if (!invariant || warps == CUDA_SKINNY_INVARIANT_WARPS)
                status = try_choice(t, choice, rows, best, err);
        }
    }
    return status;
}

static enum ts_status try_tiles(struct tune *t, uint32_t rows, struct gemm_choice *best, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t v = 0; v < CUDA_TILE_VARIANTS && status == TS_OK; v++)
        status = try_choice(t, (struct gemm_choice){.way = GEMM_TILE, .tile = v}, rows, best, err);
    return status;
}

static enum ts_status try_library(struct tune *t, uint32_t rows, struct gemm_choice *best,
                                  struct ts_error *err)
{
    struct cuda_blaslt_algorithm found[LIBRARY_DECODE_MAX];
    struct cuda_blaslt_product product = gemm_library_product(t->gemm, t->matrices, rows, t->kind);
    uint32_t count, max = rows <= GEMM_ROWS_DECODE ? LIBRARY_DECODE_MAX : LIBRARY_PREFILL_MAX;
    enum ts_status status = TS_OK;
    if (cuda_blaslt_query(t->gemm->blaslt, &product, found, max, &count, NULL) != TS_OK)
        return TS_OK;
    for (uint32_t i = 0; i < count && status == TS_OK; i++)
        status =
            try_choice(t, (struct gemm_choice){.way = GEMM_LIBRARY, .algorithm = found[i]}, rows, best, err);
    return status;
}

static bool complete(const struct gemm_shape *shape, uint32_t m_max)
{
    for (uint32_t b = 0; b < GEMM_BUCKETS && (b == 0 || gemm_buckets[b - 1] < m_max); b++) {
        if (shape->choices[b].way == GEMM_UNKNOWN)
            return false;
    }
    return true;
}

/* The best of each way. */
static enum ts_status measure(struct tune *t, uint32_t rows, struct gemm_choice *own,
                              struct gemm_choice *library, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    *own = *library = (struct gemm_choice){.way = GEMM_UNKNOWN};
    if (rows <= GEMM_ROWS_DECODE)
        status = try_own(t, rows, own, err);
    if (status == TS_OK && rows > GEMM_SLICE_ROWS)
        status = try_tiles(t, rows, own, err);
    if (status == TS_OK && gemm_has_library(t->gemm, t->matrices))
        status = try_library(t, rows, library, err);
    return status;
}

enum ts_status gemm_tune(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *matrices,
                         size_t count, enum cuda_gemm_y kind, uint32_t m_max, struct ts_error *err)
{
    struct gemm_shape *shape = gemm_table_add(&gemm->table, &matrices[0], kind);
    struct tune t = {.gemm = gemm, .cuda = cuda, .matrices = matrices, .count = count, .kind = kind};
    if (complete(shape, m_max))
        return TS_OK;
    enum ts_status status = tune_init(&t, m_max, err);
    for (uint32_t b = 0; b < GEMM_BUCKETS && gemm_buckets[b] <= t.rows_max && status == TS_OK; b++) {
        struct gemm_choice own, library;
        if (shape->choices[b].way != GEMM_UNKNOWN)
            continue;
        status = measure(&t, gemm_buckets[b], &own, &library, err);
        bool faster = library.way != GEMM_UNKNOWN && (own.way == GEMM_UNKNOWN || library.ns < own.ns);
        shape->choices[b] = faster ? library : own;
    }
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    tune_fini(&t);
    return status;
}

enum ts_status gemm_measure(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *matrices,
                            size_t count, enum cuda_gemm_y kind, uint32_t rows, struct gemm_choice *own,
                            struct gemm_choice *library, struct ts_error *err)
{
    struct tune t = {.gemm = gemm, .cuda = cuda, .matrices = matrices, .count = count, .kind = kind};
    *own = *library = (struct gemm_choice){.way = GEMM_UNKNOWN};
    enum ts_status status = gemm_make_widened(gemm, &matrices[0], err);
    if (status == TS_OK)
        status = tune_init(&t, rows, err);
    if (status == TS_OK && rows <= t.rows_max)
        status = measure(&t, rows, own, library, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    tune_fini(&t);
    return status;
}
