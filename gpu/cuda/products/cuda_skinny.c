#include "gpu/cuda/products/cuda_skinny.h"

#include "common/base/ts_assert.h"
#include "gpu/cuda/products/skinny_args.h"

/* For each type: fp16, bf16, int8 with fp16, int8 with bf16. */
#define NAME(name, ...) #name,
static const char *const mma_names[] = {SKINNY_MMA(NAME)};
static const char *const ring_names[] = {SKINNY_RING(NAME)};
static const char *const wide_names[] = {SKINNY_WIDE(NAME)};
static const char *const gemv_names[] = {SKINNY_GEMV(NAME)};

#define MMA(name, bf16, int8, row_tiles, token_tiles, ahead, threads)                                        \
    {false, (row_tiles)*SKINNY_ROWS, (token_tiles)*SKINNY_TOKENS, (threads) / 32, 0},
#define RING(name, bf16, int8, row_tiles, token_tiles, ahead, threads)                                       \
    {false, (row_tiles)*SKINNY_ROWS, (token_tiles)*SKINNY_TOKENS, (threads) / 32,                            \
     SKINNY_RING_BYTES(false, token_tiles, ahead, threads)},
#define GEMV(name, bf16, int8, pairs, tokens, ahead, threads) {true, 2 * (pairs), tokens, (threads) / 32, 0},
const struct cuda_skinny_variant cuda_skinny_variants[] = {SKINNY_MMA_OF(MMA, , , ) SKINNY_RING_OF(
    RING, , , ) SKINNY_WIDE_OF(RING, , , ) SKINNY_GEMV_OF(GEMV, , , )};

#define COUNT(names)  (sizeof names / sizeof *names / 4) /* of one type */
#define MMA_VARIANTS  COUNT(mma_names)
#define RING_VARIANTS COUNT(ring_names)
#define WIDE_VARIANTS COUNT(wide_names)
#define GEMV_VARIANTS COUNT(gemv_names)

#define TENSOR_VARIANTS (MMA_VARIANTS + RING_VARIANTS + WIDE_VARIANTS)

_Static_assert(TENSOR_VARIANTS + GEMV_VARIANTS == CUDA_SKINNY_VARIANTS &&
                   sizeof cuda_skinny_variants == CUDA_SKINNY_VARIANTS * sizeof *cuda_skinny_variants,
               "each variant is there for four types");
_Static_assert(CUDA_GEMM_Y_16 == SKINNY_Y_16 && CUDA_GEMM_Y_F32 == SKINNY_Y_F32 &&
                   CUDA_GEMM_Y_ADD_F32 == SKINNY_Y_ADD_F32 && CUDA_GEMM_SWIGLU == SKINNY_SWIGLU,
               "kernels know the kinds by the same numbers");

static const char *name_of(uint32_t variant, bool bf16, bool int8)
{
    uint32_t type = (int8 ? 2 : 0) + (bf16 ? 1 : 0);
    if (variant < MMA_VARIANTS)
        return mma_names[type * MMA_VARIANTS + variant];
    if (variant < MMA_VARIANTS + RING_VARIANTS)
        return ring_names[type * RING_VARIANTS + variant - MMA_VARIANTS];
    if (variant < TENSOR_VARIANTS)
        return wide_names[type * WIDE_VARIANTS + variant - MMA_VARIANTS - RING_VARIANTS];
    return gemv_names[type * GEMV_VARIANTS + variant - TENSOR_VARIANTS];
}

/* Dynamic shared memory: tokens of an int8 product are twice as much for each weight byte. */
static uint32_t shared_of(const struct cuda_skinny_variant *v, bool int8)
{
    uint32_t bytes = v->ring_bytes * (int8 ? 2 : 1);
    return bytes == 0 || bytes > SKINNY_SUMS_BYTES ? bytes : SKINNY_SUMS_BYTES;
}

bool cuda_skinny_fits(uint32_t variant, bool int8, uint32_t shared_bytes_max)
{
    return shared_of(&cuda_skinny_variants[variant], int8) <= shared_bytes_max;
}

struct cuda_skinny_choice cuda_skinny_guess(uint32_t outputs, uint32_t m, bool int8, uint32_t multiprocessors,
                                            uint32_t shared_bytes_max)
{
    struct cuda_skinny_choice choice = {0, CUDA_SKINNY_INVARIANT_WARPS};
    uint32_t tokens_max = 0;
    for (uint32_t v = 0; v < TENSOR_VARIANTS; v++) {
        uint32_t tokens = cuda_skinny_variants[v].tokens;
        if (cuda_skinny_fits(v, int8, shared_bytes_max) && tokens > tokens_max)
            tokens_max = tokens;
    }
    uint32_t wanted = m < tokens_max ? m : tokens_max;
    for (uint32_t v = 0; v < TENSOR_VARIANTS; v++) {
        const struct cuda_skinny_variant *now = &cuda_skinny_variants[choice.variant],
                                         *next = &cuda_skinny_variants[v];
        bool enough = next->tokens >= wanted, had = now->tokens >= wanted;
        bool busy = (outputs + next->rows - 1) / next->rows >= multiprocessors;
        if (cuda_skinny_fits(v, int8, shared_bytes_max) && enough &&
            (!had || (next->tokens == now->tokens && next->rows > now->rows && busy)))
            choice.variant = v;
    }
    return choice;
}

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

enum ts_status cuda_skinny_launch(struct ts_cuda *cuda, struct cuda_skinny_choice choice, bool bf16,
                                  const struct cuda_matrix *w, ts_cuda_address x, uint32_t m,
                                  ts_cuda_address y, enum cuda_gemm_y y_kind, struct ts_error *err)
{
    const struct cuda_skinny_variant *v = &cuda_skinny_variants[choice.variant];
    bool int8 = w->type == CUDA_MATRIX_I8;
    uint32_t rows = v->gemv ? v->rows * choice.warps : v->rows; /* of a block */
    uint64_t y_bytes = y_kind == CUDA_GEMM_SWIGLU ? w->outputs : (uint64_t)w->outputs * (y_kind ? 4 : 2);
    uint32_t outputs = v->gemv ? (w->outputs + SKINNY_ROWS - 1) / SKINNY_ROWS * SKINNY_ROWS : w->outputs;
    TS_ASSERT(choice.variant < CUDA_SKINNY_VARIANTS && choice.warps >= 1 && choice.warps <= v->warps_max);
    for (uint32_t begin = 0; begin < m; begin += v->tokens) {
        uint32_t count = m - begin < v->tokens ? m - begin : v->tokens;
        struct skinny_args args = {.w = at(w->data),
                                   .scales = at(w->scales),
                                   .x = at(x + (uint64_t)begin * w->inputs * 2),
                                   .y = at(y + begin * y_bytes),
                                   .outputs = w->outputs,
                                   .inputs = w->inputs,
                                   .m = count,
                                   .y_kind = y_kind};
        struct ts_cuda_dim grid = {(outputs + rows - 1) / rows, 1, 1}, block = {choice.warps * 32, 1, 1};
        enum ts_status status = ts_cuda_launch(cuda, name_of(choice.variant, bf16, int8), grid, block,
                                               shared_of(v, int8), &args, sizeof args, err);
        if (status != TS_OK)
            return status;
    }
    return TS_OK;
}

enum ts_status cuda_skinny_widen(struct ts_cuda *cuda, bool bf16, const struct cuda_matrix *w,
                                 ts_cuda_address out, struct ts_error *err)
{
    struct skinny_widen_args args = {
        .w = at(w->data), .scales = at(w->scales), .out = at(out), .inputs = w->inputs};
    struct ts_cuda_dim grid = {w->outputs, 1, 1}, block = {SKINNY_WIDEN_THREADS, 1, 1};
    return ts_cuda_launch(cuda, bf16 ? "skinny_widen_bf16" : "skinny_widen_f16", grid, block, 0, &args,
                          sizeof args, err);
}
