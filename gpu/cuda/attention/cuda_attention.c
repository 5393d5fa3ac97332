/* From a batch to a plan, from a plan to the arguments of the kernels of prefill.cu and decode.cu. */
#include "gpu/cuda/attention/cuda_attention.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/cuda/attention/attention_args.h"

#define POSITIONS_MAX (1u << 30) /* of a context, and of a window: sums of some of them are positive */
#define SPAN_GRAIN    (ATTENTION_BLOCK * ATTENTION_WARPS)
#define SPAN_LEAST    128u /* keys: below, beginning and ending take as long */
#define SPAN_USUAL    256u /* grown to before there are more than FEW_WAVES */
#define FEW_WAVES     1u   /* blocks of threads for each processor: they keep the memory busy */
#define WAVES         4u   /* so many end at about the same time; more are not worth their sums (README) */
#define TILE_WAVES    2u   /* and of tiles before they are made larger */
#define NARROW_TILE   (ATTENTION_WARPS * ATTENTION_SLAB)
#define WIDE_TILE     (2 * NARROW_TILE)

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

static uint64_t round_up(uint64_t a, uint64_t grain)
{
    return ceil_div(a, grain) * grain;
}

/* --- shapes --------------------------------------------------------------------------------------------- */

static const uint32_t widths[] = {
#define WIDTH(w) w,
    ATTENTION_WIDTHS(WIDTH)
#undef WIDTH
};

/* Of the kernels that take the head, the narrowest. 0: none does. */
static uint32_t width_of(uint32_t head_dim)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        if (head_dim <= widths[i])
            return widths[i];
    }
    return 0;
}

static bool has_wide_tiles(uint32_t width)
{
#define IS(w) || width == (w)
    return false ATTENTION_WIDE_TILES(IS);
#undef IS
}

enum ts_status cuda_attention_check(const struct cuda_attention_shape *shape, struct ts_error *err)
{
    uint32_t d = shape->head_dim;
    if (d == 0 || d > 256 || d % (d < 32 ? 4 : 8) != 0)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "attention on a device: head_dim %" PRIu32
                            ", where kernels take 4 to 32 in steps of 4 and up to 256 in steps of 8",
                            d);
    if (shape->kv_heads == 0 || shape->q_heads == 0 || shape->q_heads % shape->kv_heads != 0)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "attention on a device: %" PRIu32 " query heads for %" PRIu32 " KV heads",
                            shape->q_heads, shape->kv_heads);
    return TS_OK;
}

static uint32_t group_of(const struct cuda_attention_shape *shape)
{
    return shape->q_heads / shape->kv_heads;
}

/* Blocks of threads for each span. */
static uint64_t span_blocks(const struct cuda_attention_shape *shape)
{
    return shape->kv_heads * ceil_div(group_of(shape), ATTENTION_SLAB);
}

/* --- sizes ---------------------------------------------------------------------------------------------- */

/* Spans that are so many blocks of threads for each processor. */
static uint64_t spans_of(const struct cuda_attention_shape *shape, const struct cuda_attention_limits *limits,
                         uint64_t waves)
{
    return ceil_div(limits->multiprocessors * waves + 1, span_blocks(shape));
}

/* Keys of a span: wished, and not so few that a row of `longest` has too many spans. */
static uint64_t span_length(uint64_t wished, uint64_t longest)
{
    uint64_t least = ceil_div(longest, ATTENTION_SPANS_MAX);
    return round_up(wished > least ? wished : least, SPAN_GRAIN);
}

/* Either each row has its own full number, or together they have the wanted one, and one each for what is
 * left of a row; and none is shorter than the least. */
static uint64_t spans_max(const struct cuda_attention_shape *shape,
                          const struct cuda_attention_limits *limits, uint32_t rows)
{
    TS_ASSERT(limits->context <= POSITIONS_MAX && limits->multiprocessors < 1u << 16 && rows <= 1u << 20);
    if (limits->batch_invariant || rows == 0)
        return 0;
    if (limits->span_tokens)
        return rows * ceil_div(limits->context, span_length(limits->span_tokens, limits->context));
    uint64_t together = spans_of(shape, limits, WAVES) + rows,
             alone = rows * ceil_div(limits->context, SPAN_LEAST);
    return together < alone ? together : alone;
}

static uint64_t tiles_max(const struct cuda_attention_shape *shape,
                          const struct cuda_attention_limits *limits)
{
    return limits->rows + (uint64_t)limits->tokens * group_of(shape) / NARROW_TILE;
}

size_t cuda_attention_plan_bytes(const struct cuda_attention_shape *shape,
                                 const struct cuda_attention_limits *limits)
{
    if (limits->rows == 0)
        return 0;
    return sizeof(struct attention_head) +
           spans_max(shape, limits, limits->rows) * sizeof(struct attention_span) +
           tiles_max(shape, limits) * sizeof(struct attention_tile);
}

/* The workspace: tickets, maxima, partial sums, each aligned to 256 bytes. */
struct workspace {
    size_t maxima, partial, bytes;
};

static struct workspace workspace_of(const struct cuda_attention_shape *shape,
                                     const struct cuda_attention_limits *limits)
{
    uint64_t heads = spans_max(shape, limits, limits->rows) * shape->q_heads;
    struct workspace w = {0};
    if (heads == 0)
        return w;
    w.maxima = round_up(limits->rows * span_blocks(shape) * sizeof(uint32_t), 256);
    w.partial = w.maxima + round_up(heads * 4 * sizeof(uint32_t), 256);
    w.bytes = w.partial + round_up(heads * shape->head_dim * sizeof(float), 256);
    return w;
}

size_t cuda_attention_workspace_bytes(const struct cuda_attention_shape *shape,
                                      const struct cuda_attention_limits *limits)
{
    return workspace_of(shape, limits).bytes;
}

/* --- plans ---------------------------------------------------------------------------------------------- */

static bool is_spanned(const struct cuda_attention_limits *limits, const struct cuda_attention_rows *rows,
                       uint32_t row)
{
    return rows->count[row] == 1 && !limits->batch_invariant;
}

/* First key of a row of one token, of a whole block. */
static uint32_t row_begin(const struct cuda_attention_shape *shape, uint32_t length)
{
    uint32_t begin = shape->window && length > shape->window ? length - shape->window : 0;
    return begin / ATTENTION_BLOCK * ATTENTION_BLOCK;
}

/* Keys of a span of this batch. */
static uint64_t batch_span(const struct cuda_attention_shape *shape,
                           const struct cuda_attention_limits *limits, const struct cuda_attention_rows *rows)
{
    uint64_t keys = 0, longest = 0;
    if (limits->span_tokens)
        return span_length(limits->span_tokens, limits->context);
    for (uint32_t r = 0; r < rows->rows; r++) {
        if (!is_spanned(limits, rows, r))
            continue;
        uint32_t length = rows->start[r] + 1, own = length - row_begin(shape, length);
        keys += own;
        longest = own > longest ? own : longest;
    }
    uint64_t few = ceil_div(keys, spans_of(shape, limits, FEW_WAVES));
    uint64_t wished = ceil_div(keys, spans_of(shape, limits, WAVES));
    few = few < SPAN_LEAST ? SPAN_LEAST : few < SPAN_USUAL ? few : SPAN_USUAL;
    return span_length(wished > few ? wished : few, longest);
}

/* Spans of equal length, whole multiples of what the warps take at once. */
static uint32_t add_spans(const struct cuda_attention_shape *shape, const struct cuda_attention_rows *rows,
                          uint32_t row, uint64_t most, struct attention_span *spans, uint32_t at)
{
    uint32_t length = rows->start[row] + 1, begin = row_begin(shape, length);
    uint32_t step = (uint32_t)round_up(ceil_div(length - begin, ceil_div(length - begin, most)), SPAN_GRAIN);
    uint32_t first = at, of = (uint32_t)ceil_div(length - begin, step);
    for (uint32_t i = 0; i < of; i++, begin += step) {
        uint32_t end = length - begin < step ? length : begin + step;
        spans[at++] = (struct attention_span){.row = row,
                                              .token = rows->first[row],
                                              .begin = begin,
                                              .end = end,
                                              .length = length,
                                              .first = first,
                                              .of = of};
    }
    return at;
}

static uint64_t count_tiles(const struct cuda_attention_limits *limits,
                            const struct cuda_attention_rows *rows, uint32_t group, uint32_t pairs)
{
    uint64_t tiles = 0;
    for (uint32_t r = 0; r < rows->rows; r++)
        tiles += is_spanned(limits, rows, r) ? 0 : ceil_div((uint64_t)rows->count[r] * group, pairs);
    return tiles;
}

/* The last tile of a row has the most keys and is started first. */
static uint32_t add_tiles(const struct cuda_attention_rows *rows, uint32_t row, uint32_t group,
                          uint32_t pairs, struct attention_tile *tiles, uint32_t at)
{
    for (uint64_t i = ceil_div((uint64_t)rows->count[row] * group, pairs); i > 0; i--) {
        tiles[at++] = (struct attention_tile){.row = row,
                                              .token = rows->first[row],
                                              .start = rows->start[row],
                                              .count = rows->count[row],
                                              .begin = (uint32_t)(i - 1) * pairs};
    }
    return at;
}

static void check_batch(const struct cuda_attention_limits *limits, const struct cuda_attention_rows *rows)
{
    uint64_t tokens = 0;
    TS_ASSERT(rows->rows <= limits->rows);
    for (uint32_t r = 0; r < rows->rows; r++) {
        TS_ASSERT((uint64_t)rows->start[r] + rows->count[r] <= limits->context);
        tokens += rows->count[r];
    }
    TS_ASSERT(tokens <= limits->tokens);
}

void cuda_attention_plan_make(const struct cuda_attention_shape *shape,
                              const struct cuda_attention_limits *limits,
                              const struct cuda_attention_rows *rows, void *array,
                              struct cuda_attention_plan *plan)
{
    uint32_t group = group_of(shape), width = width_of(shape->head_dim);
    struct attention_head *head = array;
    *plan = (struct cuda_attention_plan){.tile_rows = NARROW_TILE};
    if (limits->rows == 0)
        return;
    struct attention_span *spans = (struct attention_span *)(head + 1);
    check_batch(limits, rows);
    uint64_t most = batch_span(shape, limits, rows);
    for (uint32_t r = 0; r < rows->rows; r++) {
        if (is_spanned(limits, rows, r))
            plan->spans = add_spans(shape, rows, r, most, spans, plan->spans);
    }
    const uint32_t padded = limits->batch_invariant ? rows->padded : 0;
    if (padded == 0 && has_wide_tiles(width) &&
        count_tiles(limits, rows, group, WIDE_TILE) * shape->kv_heads >=
            (uint64_t)limits->multiprocessors * TILE_WAVES)
        plan->tile_rows = WIDE_TILE;
    struct attention_tile *tiles = (struct attention_tile *)(spans + plan->spans);
    for (uint32_t r = 0; r < rows->rows; r++) {
        if (!is_spanned(limits, rows, r))
            plan->tiles = add_tiles(rows, r, group, plan->tile_rows, tiles, plan->tiles);
    }
    while (plan->tiles < padded * ceil_div(group, NARROW_TILE))
        tiles[plan->tiles++] = (struct attention_tile){.count = 0};
    *head = (struct attention_head){.spans = plan->spans};
    plan->tiles_at = (size_t)((uint8_t *)tiles - (uint8_t *)array);
    plan->bytes = plan->tiles_at + plan->tiles * sizeof *tiles;
    TS_ASSERT(plan->bytes <= cuda_attention_plan_bytes(shape, limits));
}

/* --- launches ------------------------------------------------------------------------------------------- */

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static struct attention_args args_of(const struct cuda_attention_shape *shape,
                                     const struct cuda_attention_io *io)
{
    return (struct attention_args){.q = at(io->q),
                                   .pool = at(io->pool),
                                   .out = at(io->out),
                                   .table = at(io->table),
                                   .plan = at(io->plan),
                                   .table_step = io->table_step,
                                   .kv_heads = shape->kv_heads,
                                   .group = group_of(shape),
                                   .head_dim = shape->head_dim,
                                   .window = shape->window < POSITIONS_MAX ? shape->window : 0,
                                   .slabs = (uint32_t)ceil_div(group_of(shape), ATTENTION_SLAB),
                                   .scale = (float)(M_LOG2E / sqrt(shape->head_dim))};
}

enum ts_status cuda_prefill_attention(struct ts_cuda *cuda, const struct cuda_attention_shape *shape,
                                      const struct cuda_attention_io *io,
                                      const struct cuda_attention_plan *plan, struct ts_error *err)
{
    uint32_t width = width_of(shape->head_dim), slabs = plan->tile_rows / NARROW_TILE;
    struct attention_args args = args_of(shape, io);
    struct ts_cuda_dim grid = {plan->tiles * shape->kv_heads, 1, 1}, block = {ATTENTION_THREADS, 1, 1};
    char name[40];
    if (plan->tiles == 0)
        return TS_OK;
    args.tiles = at(io->plan + plan->tiles_at);
    snprintf(name, sizeof name, "cuda_prefill_%s_%" PRIu32 "_%" PRIu32, shape->bf16 ? "bf16" : "f16", width,
             slabs);
    return ts_cuda_launch(cuda, name, grid, block, ATTENTION_PREFILL_BYTES(width, slabs), &args, sizeof args,
                          err);
}

enum ts_status cuda_decode_attention(struct ts_cuda *cuda, const struct cuda_attention_shape *shape,
                                     const struct cuda_attention_limits *limits,
                                     const struct cuda_attention_io *io, uint32_t rows, struct ts_error *err)
{
    uint32_t width = width_of(shape->head_dim);
    struct attention_args args = args_of(shape, io);
    struct workspace w = workspace_of(shape, limits);
    TS_ASSERT(rows <= limits->rows);
    uint64_t blocks = spans_max(shape, limits, rows) * span_blocks(shape);
    struct ts_cuda_dim grid = {(uint32_t)blocks, 1, 1}, block = {32 * ATTENTION_SPAN_WARPS(width), 1, 1};
    char name[40];
    if (blocks == 0)
        return TS_OK;
    args.tickets = at(io->workspace);
    args.maxima = at(io->workspace + w.maxima);
    args.partial = at(io->workspace + w.partial);
    snprintf(name, sizeof name, "cuda_decode_%s_%" PRIu32, shape->bf16 ? "bf16" : "f16", width);
    return ts_cuda_launch(cuda, name, grid, block, ATTENTION_DECODE_BYTES(width), &args, sizeof args, err);
}
