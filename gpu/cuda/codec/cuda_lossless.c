#include "gpu/cuda/codec/cuda_lossless.h"

#include <stdio.h>

/* Of a processor, for each of which four words are on their way. */
#define THREADS_EACH 1024u

/* A tile at a time for each block of threads, which has head_dim of them, up to CODEC_THREADS_MAX. */
static enum ts_status launch_tiles(struct ts_cuda *cuda, const char *what, enum ts_dtype dtype,
                                   const struct codec_args *args, struct ts_error *err)
{
    char name[64];
    uint32_t threads = (args->head_dim + 31) / 32 * 32, tiles = args->tiles * args->parts;
    threads = threads < CODEC_THREADS_MAX ? threads : CODEC_THREADS_MAX;
    uint32_t most = ts_cuda_properties(cuda)->multiprocessors * (THREADS_EACH / threads),
             rounds = (tiles + most - 1) / most;
    struct ts_cuda_dim grid = {tiles ? (tiles + rounds - 1) / rounds : 1, 1, 1}, block = {threads, 1, 1};
    snprintf(name, sizeof name, "cuda_lossless_%s_%s", what, dtype == TS_DTYPE_BF16 ? "bf16" : "f16");
    return ts_cuda_launch(cuda, name, grid, block, 0, args, sizeof *args, err);
}

static enum ts_status launch_parts(struct ts_cuda *cuda, const char *name, const struct codec_args *args,
                                   struct ts_error *err)
{
    struct ts_cuda_dim grid = {args->parts, 1, 1}, block = {CODEC_THREADS_MAX, 1, 1};
    return ts_cuda_launch(cuda, name, grid, block, 0, args, sizeof *args, err);
}

enum ts_status cuda_lossless_encode(struct ts_cuda *cuda, enum ts_dtype dtype, const struct codec_args *args,
                                    struct ts_error *err)
{
    enum ts_status status = launch_tiles(cuda, "pack", dtype, args, err);
    if (status == TS_OK)
        status = launch_parts(cuda, "cuda_lossless_scan", args, err);
    return status == TS_OK ? launch_tiles(cuda, "list", dtype, args, err) : status;
}

enum ts_status cuda_lossless_decode(struct ts_cuda *cuda, enum ts_dtype dtype, const struct codec_args *args,
                                    struct ts_error *err)
{
    enum ts_status status = launch_tiles(cuda, "count", dtype, args, err);
    if (status == TS_OK)
        status = launch_parts(cuda, "cuda_lossless_check", args, err);
    return status == TS_OK ? launch_tiles(cuda, "unpack", dtype, args, err) : status;
}
