#include "gpu/cuda/products/cuda_tile.h"

#include "common/base/ts_assert.h"
#include "gpu/cuda/products/cuda_skinny.h"
#include "gpu/cuda/products/tile_args.h"

/* For each type: fp16, bf16, int8 with fp16, int8 with bf16. */
#define NAME(name, ...) #name,
static const char *const names[][CUDA_TILE_VARIANTS] = {{TILE_KERNELS_OF(NAME, f16, , )},
                                                        {TILE_KERNELS_OF(NAME, bf16, , )},
                                                        {TILE_KERNELS_OF(NAME, i8f16, , )},
                                                        {TILE_KERNELS_OF(NAME, i8bf16, , )}};
#define ROW_TILES(name, bf16, int8, row_tiles) row_tiles,
static const uint32_t row_tiles[CUDA_TILE_VARIANTS] = {TILE_KERNELS_OF(ROW_TILES, , , )};

_Static_assert(TILE_SPLIT == CUDA_SKINNY_INVARIANT_WARPS, "the same bits");
_Static_assert(TILE_BYTES(false, 4) <= 99u << 10 && TILE_BYTES(true, 4) <= 99u << 10,
               "a block of any device from sm_80 on may have as much shared memory (sm_86 and 89: 99 KiB)");

static uint32_t blocks_of(uint32_t count, uint32_t block)
{
    return (count + block - 1) / block;
}

uint32_t cuda_tile_outputs(uint32_t variant)
{
    return TILE_OUTPUTS(row_tiles[variant]);
}

uint32_t cuda_tile_guess(uint32_t outputs, uint32_t m, uint32_t multiprocessors)
{
    uint64_t large = (uint64_t)blocks_of(outputs, cuda_tile_outputs(1)) * blocks_of(m, TILE_TOKENS);
    return large >= multiprocessors ? 1 : 0;
}

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

enum ts_status cuda_tile_launch(struct ts_cuda *cuda, uint32_t variant, bool bf16,
                                const struct cuda_matrix *w, ts_cuda_address x, uint32_t m, ts_cuda_address y,
                                enum cuda_gemm_y y_kind, struct ts_error *err)
{
    TS_ASSERT(variant < CUDA_TILE_VARIANTS && m > 0);
    const bool int8 = w->type == CUDA_MATRIX_I8;
    const struct skinny_args args = {.w = at(w->data),
                                     .scales = at(w->scales),
                                     .x = at(x),
                                     .y = at(y),
                                     .outputs = w->outputs,
                                     .inputs = w->inputs,
                                     .m = m,
                                     .y_kind = y_kind};
    struct ts_cuda_dim block = {TILE_THREADS, 1, 1}, grid = {1, 1, 1};
    grid.x = blocks_of(w->outputs, cuda_tile_outputs(variant)) * blocks_of(m, TILE_TOKENS);
    return ts_cuda_launch(cuda, names[(int8 ? 2 : 0) + (bf16 ? 1 : 0)][variant], grid, block,
                          int8 ? TILE_BYTES(true, row_tiles[variant]) : TILE_BYTES(false, row_tiles[variant]),
                          &args, sizeof args, err);
}
