/* From the layout of a payload to the arguments of the kernels of codec.cu. */
#include "gpu/cuda/ts_cuda_codec.h"

#include "common/base/ts_assert.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cuda/codec_args.h"

#define LOST_OFFSET 64u /* of the workspace: behind struct codec_state */

_Static_assert(sizeof(struct codec_state) <= LOST_OFFSET, "the state has its place in the workspace");

static bool takes_side(const struct codec_side *s)
{
    return s->bits == 4 && s->asym && !s->centred;
}

static bool takes_layout(const struct codec_layout *l)
{
    return takes_side(&l->sides[0].side) && takes_side(&l->sides[1].side);
}

bool ts_cuda_codec_takes(const struct ts_codec *codec, uint32_t head_dim)
{
    const struct ts_codec_chunk chunk = {.head_count = 1, .token_count = 1};
    if (ts_codec_check(codec, head_dim, NULL) != TS_OK)
        return false;
    struct codec_layout l = codec_layout_of(codec, (struct ts_codec_cache){head_dim, TS_DTYPE_F16}, &chunk);
    return takes_layout(&l);
}

size_t ts_cuda_codec_workspace_bytes(uint32_t tiles)
{
    return LOST_OFFSET + (size_t)tiles;
}

static struct codec_args_side side_of(const struct codec_side_layout *s)
{
    return (struct codec_args_side){.scales = s->scales,
                                    .minima = s->minima,
                                    .codes = s->codes,
                                    .group = s->side.group,
                                    .hadamard = s->side.hadamard,
                                    .limit = s->side.limit};
}

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static struct codec_args args_of(const struct codec_layout *l, const struct ts_cuda_codec_view *view,
                                 const struct ts_codec_chunk *chunk, ts_cuda_address workspace)
{
    TS_ASSERT(workspace && view->pool && view->blocks);
    TS_ASSERT((uint64_t)chunk->head_begin + chunk->head_count <= view->pool_heads);
    TS_ASSERT((uint64_t)chunk->token_begin + chunk->token_count <= (uint64_t)view->block_count * CODEC_ROWS);
    return (struct codec_args){.pool = at(view->pool),
                               .blocks =
                                   at(view->blocks + chunk->token_begin / CODEC_ROWS * sizeof(uint32_t)),
                               .state = at(workspace),
                               .lost = at(workspace + LOST_OFFSET),
                               .sides = {side_of(&l->sides[0]), side_of(&l->sides[1])},
                               .layer_tiles = (uint64_t)chunk->layer * view->pool_blocks,
                               .bitmap_bytes = l->means,
                               .first_tokens = l->first_tokens,
                               .tail = l->tail,
                               .pool_heads = view->pool_heads,
                               .head_begin = chunk->head_begin,
                               .heads = l->heads,
                               .block_count = l->blocks,
                               .tokens = l->tokens,
                               .tiles = l->tiles,
                               .raw_rows = l->raw_rows,
                               .head_dim = view->head_dim,
                               .bf16 = view->dtype == TS_DTYPE_BF16};
}

/* A block of threads for each tile, one also when there is none. A tile has head_dim slices. */
static enum ts_status launch(struct ts_cuda *cuda, const char *kernel, const struct codec_args *args,
                             struct ts_error *err)
{
    uint32_t threads = (args->head_dim + 31) / 32 * 32;
    struct ts_cuda_dim grid = {args->tiles ? args->tiles : 1, 1, 1},
                       block = {threads < CODEC_THREADS_MAX ? threads : CODEC_THREADS_MAX, 1, 1};
    return ts_cuda_launch(cuda, kernel, grid, block, 0, args, sizeof *args, err);
}

static enum ts_status unsupported(const struct ts_codec *codec, struct ts_error *err)
{
    return ts_error_set(err, TS_EUNSUPPORTED, "codec %s has no kernel: let the CPU encode and restore it",
                        ts_codec_name(codec));
}

enum ts_status ts_cuda_codec_encode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    const struct ts_cuda_codec_view *from, const struct ts_codec_chunk *chunk,
                                    ts_cuda_address out, ts_cuda_address workspace, struct ts_error *err)
{
    struct codec_layout l =
        codec_layout_of(codec, (struct ts_codec_cache){from->head_dim, from->dtype}, chunk);
    if (!takes_layout(&l))
        return unsupported(codec, err);
    struct codec_args args = args_of(&l, from, chunk, workspace);
    args.payload = at(out);
    return launch(cuda, "cuda_codec_encode", &args, err);
}

enum ts_status ts_cuda_codec_decode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    ts_cuda_address payload, size_t bytes, const struct ts_codec_chunk *chunk,
                                    const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                    struct ts_error *err)
{
    struct codec_layout l = codec_layout_of(codec, (struct ts_codec_cache){to->head_dim, to->dtype}, chunk);
    if (!takes_layout(&l))
        return unsupported(codec, err);
    if (bytes < l.tail || (bytes - l.tail) % l.tile_bytes != 0 || (bytes - l.tail) / l.tile_bytes > l.tiles)
        return ts_error_set(err, TS_ECORRUPT, "a payload of %zu bytes has not the length of its shape",
                            bytes);
    struct codec_args args = args_of(&l, to, chunk, workspace);
    args.payload = at(payload);
    args.raw_tiles = (uint32_t)((bytes - l.tail) / l.tile_bytes);
    return launch(cuda, "cuda_codec_decode", &args, err);
}

enum ts_status ts_cuda_codec_answer(struct ts_cuda *cuda, ts_cuda_address workspace, uint32_t *escapes,
                                    struct ts_error *err)
{
    struct codec_state state;
    enum ts_status status = ts_cuda_download(cuda, &state, workspace, sizeof state, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status != TS_OK)
        return status;
    *escapes = state.escapes;
    if (state.faults)
        return ts_error_set(err, TS_ECORRUPT, "a payload that no encoder writes:%s%s",
                            state.faults & CODEC_FAULT_CONTENT ? " its content" : "",
                            state.faults & CODEC_FAULT_ESCAPES ? " its escaped tiles" : "");
    return TS_OK;
}
