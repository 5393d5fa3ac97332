#include "gpu/cuda/weights/cuda_weights.h"

#include "gpu/cuda/weights/weights_args.h"

#define FILL_BLOCKS 2048u

/* An address as kernels take it. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static struct ts_cuda_dim threads(void)
{
    return (struct ts_cuda_dim){WEIGHTS_THREADS, 1, 1};
}

enum ts_status cuda_weights_fill(struct ts_cuda *cuda, ts_cuda_address to, uint64_t count, uint64_t seed,
                                 double deviation, enum ts_dtype dtype, struct ts_error *err)
{
    struct weights_fill_args args = {.to = at(to),
                                     .count = count,
                                     .seed = seed,
                                     .scale = (float)(deviation * 1.7320508075688772), /* sqrt 3: uniform */
                                     .bf16 = dtype == TS_DTYPE_BF16};
    uint64_t blocks = (count / WEIGHTS_RUN + WEIGHTS_THREADS - 1) / WEIGHTS_THREADS;
    struct ts_cuda_dim grid = {blocks < FILL_BLOCKS ? (uint32_t)blocks : FILL_BLOCKS, 1, 1};
    return blocks == 0 ? TS_OK
                       : ts_cuda_launch(cuda, "weights_fill", grid, threads(), 0, &args, sizeof args, err);
}

enum ts_status cuda_weights_quantise(struct ts_cuda *cuda, ts_cuda_address from, uint32_t rows,
                                     uint32_t inputs, enum ts_dtype dtype, ts_cuda_address to,
                                     ts_cuda_address scales, struct ts_error *err)
{
    struct weights_quantise_args args = {.from = at(from),
                                         .to = at(to),
                                         .scales = at(scales),
                                         .inputs = inputs,
                                         .bf16 = dtype == TS_DTYPE_BF16};
    return rows == 0 ? TS_OK
                     : ts_cuda_launch(cuda, "weights_quantise", (struct ts_cuda_dim){rows, 1, 1}, threads(),
                                      0, &args, sizeof args, err);
}

enum ts_status cuda_weights_bias(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address bias,
                                 uint32_t tokens, uint32_t width, enum ts_dtype dtype, struct ts_error *err)
{
    struct weights_bias_args args = {.to = at(to),
                                     .bias = at(bias),
                                     .count = (uint64_t)tokens * width,
                                     .width = width,
                                     .kind = dtype == TS_DTYPE_F32   ? WEIGHTS_BIAS_F32
                                             : dtype == TS_DTYPE_F16 ? WEIGHTS_BIAS_F16
                                                                     : WEIGHTS_BIAS_BF16};
    uint64_t blocks = (args.count + WEIGHTS_THREADS - 1) / WEIGHTS_THREADS;
    struct ts_cuda_dim grid = {(uint32_t)blocks, 1, 1};
    return tokens == 0 ? TS_OK
                       : ts_cuda_launch(cuda, "weights_bias", grid, threads(), 0, &args, sizeof args, err);
}
