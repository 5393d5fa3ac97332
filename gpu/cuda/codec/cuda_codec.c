/* From the layout of a payload to the arguments of the kernels of codec.cu. */
#include "gpu/cuda/codec/ts_cuda_codec.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/codec/codec_impl.h"
#include "gpu/cuda/codec/codec_args.h"
#include "gpu/cuda/codec/cuda_lossless.h"

/* Of the workspace: behind the states of all parts numbers of exceptions, then marks of lost tiles. */
#define COUNTS_OFFSET (CODEC_PARTS_MAX * sizeof(struct codec_state))

/* Threads of a processor: as many as are there at once, so that each goes through several tiles of a large
 * launch. */
#define THREADS_EACH 1024u
#define WARP         32u
#define WARP_BLOCK   128u /* threads of a block whose warps have tiles of their own */

_Static_assert(TS_CUDA_CODEC_PARTS_MAX == CODEC_PARTS_MAX, "what a launch takes");
_Static_assert(sizeof(struct codec_args) <= 4096, "what a launch takes");

size_t ts_cuda_codec_workspace_bytes(uint32_t tiles)
{
    return COUNTS_OFFSET + (size_t)tiles * (sizeof(uint32_t) + 1);
}

static bool any_lossless(const struct codec_layout *l)
{
    return l->sides[0].side.lossless || l->sides[1].side.lossless;
}

static bool all_lossless(const struct codec_layout *l)
{
    return l->sides[0].side.lossless && l->sides[1].side.lossless;
}

/* --- arguments ------------------------------------------------------------------------------------------ */

/* codec_args.h */
static uint32_t stretch_of(const struct codec_side *s)
{
    uint32_t power = s->head_dim & -s->head_dim, most = power < 256 ? power : 256;
    bool grouped = s->bits < 16 && (s->group & (s->group - 1)) == 0 && s->group < most;
    return grouped ? s->group : most;
}

static struct codec_args_side side_of(const struct codec_layout *l, uint32_t kv)
{
    const struct codec_side_layout *s = &l->sides[kv];
    bool transformed = s->side.hadamard != 0, coded = s->side.bits < 16;
    /* First tokens of keys stand before those of values. */
    size_t before = kv && l->sides[0].side.bits < 16 ? l->heads * l->raw_rows * l->row_bytes : 0;
    return (struct codec_args_side){.scales = s->scales,
                                    .minima = s->minima,
                                    .codes = s->codes,
                                    .first_tokens = l->first_tokens + before,
                                    .bits = s->side.bits,
                                    .stretch = stretch_of(&s->side),
                                    .group = s->side.group,
                                    .hadamard = s->side.hadamard,
                                    .limit = s->side.limit,
                                    .raw_rows = coded ? l->raw_rows : 0,
                                    .factor_in = transformed ? codec_factor_in(s->side.hadamard) : 1,
                                    .factor_out = transformed ? codec_factor_out(s->side.hadamard) : 1,
                                    .asym = s->side.asym,
                                    .centred = s->side.centred,
                                    .lossless = s->side.lossless};
}

/* Exact below 2^31: 2^(31 + b) / divisor, rounded up, has an error of less than divisor / 2^(31 + b), where
 * 2^b is the divisor or more. */
static struct codec_args_divisor divisor_of(uint32_t divisor)
{
    uint32_t bits = 0;
    while ((uint64_t)1 << bits < divisor)
        bits++;
    return (struct codec_args_divisor){.divisor = divisor,
                                       .factor =
                                           (uint32_t)((((uint64_t)1 << (31 + bits)) + divisor - 1) / divisor),
                                       .shift = 31 + bits};
}

/* Addresses of the device are pointers in its kernels. */
static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static void set_section_ends(struct codec_args *args, const struct codec_layout *l)
{
    for (uint32_t kv = 0; kv < 2; kv++) {
        const struct codec_side_layout *s = &l->sides[kv];
        args->section_ends[kv] = s->scales + codec_scale_bytes(l, s);
        args->section_ends[2 + kv] = s->minima + (s->side.asym ? codec_scale_bytes(l, s) : 0);
        args->section_ends[4 + kv] = s->codes + codec_code_bytes(l, s);
    }
}

static struct codec_args args_of(const struct codec_layout *l, const struct ts_cuda_codec_view *view,
                                 const struct ts_codec_chunk *chunk, ts_cuda_address workspace)
{
    TS_ASSERT(workspace && view->pool && view->blocks);
    TS_ASSERT((uint64_t)chunk->head_begin + chunk->head_count <= view->pool_heads);
    TS_ASSERT((uint64_t)chunk->token_begin + chunk->token_count <= (uint64_t)view->block_count * CODEC_ROWS);
    struct codec_args args = {.pool = at(view->pool),
                              .blocks = at(view->blocks + chunk->token_begin / CODEC_ROWS * sizeof(uint32_t)),
                              .turns = at(view->turns),
                              .state = at(workspace),
                              .counts = at(workspace + COUNTS_OFFSET),
                              .sides = {side_of(l, 0), side_of(l, 1)},
                              .bitmap_bytes = l->means,
                              .means = l->means,
                              .tail = l->tail,
                              .per_part = divisor_of(l->tiles ? l->tiles : 1),
                              .per_block = divisor_of(l->heads ? 2 * l->heads : 1),
                              .pool_heads = view->pool_heads,
                              .head_begin = chunk->head_begin,
                              .heads = l->heads,
                              .block_count = l->blocks,
                              .tokens = l->tokens,
                              .spans = l->spans,
                              .tiles = l->tiles,
                              .head_dim = view->head_dim};
    set_section_ends(&args, l);
    return args;
}

/* --- launches ------------------------------------------------------------------------------------------- */

/* Whether the kernels for that head_dim know it. */
static bool has_form(const struct codec_args_side *s, uint32_t head_dim)
{
    if (s->bits == 16)
        return s->stretch == head_dim;
    bool stretch = s->stretch == head_dim || s->stretch == 64 || (s->stretch == 32 && !s->centred);
    return stretch && s->group == s->stretch && (s->hadamard == 0 || s->hadamard == head_dim) &&
           (!s->centred || s->stretch == 64);
}

static const char *form_of(const struct codec_args *args)
{
    bool known = (args->head_dim == 64 || args->head_dim == 128) &&
                 has_form(&args->sides[0], args->head_dim) && has_form(&args->sides[1], args->head_dim);
    bool centred = args->sides[0].centred != 0;
    if (!known)
        return "any";
    return args->head_dim == 64 ? (centred ? "64c" : "64") : centred ? "128c" : "128";
}

static uint32_t ceil_div(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

/* A tile has head_dim slices. Where there is about one tile for each warp, a warp has it alone. Each block of
 * threads has equally many tiles, one also when there is none. */
static enum ts_status launch(struct ts_cuda *cuda, const char *what, const char *form, enum ts_dtype dtype,
                             struct codec_args *args, struct ts_error *err)
{
    char name[64];
    uint32_t threads = (args->head_dim + WARP - 1) / WARP * WARP, tiles = args->tiles * args->parts;
    uint32_t most = ts_cuda_properties(cuda)->multiprocessors * THREADS_EACH;
    bool by_warps = strcmp(form, "any") != 0 && tiles >= most / WARP / 4 * 3;
    threads = by_warps ? WARP_BLOCK : threads < CODEC_THREADS_MAX ? threads : CODEC_THREADS_MAX;
    args->team = by_warps ? WARP : threads;
    uint32_t blocks = ceil_div(tiles, threads / args->team), rounds = ceil_div(blocks, most / threads);
    struct ts_cuda_dim grid = {blocks ? ceil_div(blocks, rounds) : 1, 1, 1}, block = {threads, 1, 1};
    snprintf(name, sizeof name, "cuda_codec_%s_%s_%s", what, form, dtype == TS_DTYPE_BF16 ? "bf16" : "f16");
    return ts_cuda_launch(cuda, name, grid, block, 0, args, sizeof *args, err);
}

/* Before the keys are encoded: a block of threads for each head and span, as codec_means.cuh divides it. */
static enum ts_status launch_means(struct ts_cuda *cuda, enum ts_dtype dtype, const struct codec_args *args,
                                   struct ts_error *err)
{
    uint32_t lanes = args->head_dim / 8 < CODEC_MEANS_LANES ? args->head_dim / 8 : CODEC_MEANS_LANES;
    struct ts_cuda_dim grid = {args->parts * args->heads * args->spans, 1, 1},
                       block = {lanes * CODEC_ROWS, 1, 1};
    if (grid.x == 0)
        return TS_OK;
    return ts_cuda_launch(cuda, dtype == TS_DTYPE_BF16 ? "cuda_codec_means_bf16" : "cuda_codec_means_f16",
                          grid, block, 0, args, sizeof *args, err);
}

/* Rows of 16-byte pieces; places of exceptions are counted in 32 bits. */
static enum ts_status check_layout(const struct codec_layout *l, uint32_t head_dim, struct ts_error *err)
{
    if (head_dim % 16 != 0)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "the codecs of a device take a head_dim that 16 divides, not %u", head_dim);
    if (any_lossless(l) && l->tiles > (1u << 31) / (CODEC_ROWS * head_dim))
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "without loss a device takes chunks of 2^31 numbers at most");
    return TS_OK;
}

static void set_parts(struct codec_args *args, const struct ts_cuda_codec_view *view,
                      const struct ts_cuda_codec_part *parts, uint32_t count)
{
    TS_ASSERT(count >= 1 && count <= CODEC_PARTS_MAX && (uint64_t)count * args->tiles < 1u << 31);
    args->parts = count;
    args->lost = (uint8_t *)(args->counts + (size_t)count * args->tiles);
    for (uint32_t i = 0; i < count; i++)
        args->part[i] = (struct codec_args_part){.payload = at(parts[i].payload),
                                                 .layer_tiles = (uint64_t)parts[i].layer * view->pool_blocks};
}

enum ts_status ts_cuda_codec_encode_layers(struct ts_cuda *cuda, const struct ts_codec *codec,
                                           const struct ts_cuda_codec_view *from,
                                           const struct ts_codec_chunk *chunk,
                                           const struct ts_cuda_codec_part *parts, uint32_t count,
                                           ts_cuda_address workspace, struct ts_error *err)
{
    struct codec_layout l =
        codec_layout_of(codec, (struct ts_codec_cache){from->head_dim, from->dtype}, chunk);
    enum ts_status status = check_layout(&l, from->head_dim, err);
    if (status != TS_OK)
        return status;
    struct codec_args args = args_of(&l, from, chunk, workspace);
    set_parts(&args, from, parts, count);
    if (any_lossless(&l))
        status = cuda_lossless_encode(cuda, from->dtype, &args, err);
    if (status == TS_OK && l.sides[0].side.centred)
        status = launch_means(cuda, from->dtype, &args, err);
    if (status == TS_OK && !all_lossless(&l))
        status = launch(cuda, "encode", form_of(&args), from->dtype, &args, err);
    return status;
}

enum ts_status ts_cuda_codec_decode_layers(struct ts_cuda *cuda, const struct ts_codec *codec,
                                           const struct ts_cuda_codec_part *parts, uint32_t count,
                                           const struct ts_codec_chunk *chunk,
                                           const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                           struct ts_error *err)
{
    struct codec_layout l = codec_layout_of(codec, (struct ts_codec_cache){to->head_dim, to->dtype}, chunk);
    enum ts_status status = check_layout(&l, to->head_dim, err);
    if (status != TS_OK)
        return status;
    struct codec_args args = args_of(&l, to, chunk, workspace);
    set_parts(&args, to, parts, count);
    size_t most = ts_codec_bytes_max(codec, (struct ts_codec_cache){to->head_dim, to->dtype}, chunk),
           grain = any_lossless(&l) ? 16 : l.tile_bytes;
    for (uint32_t i = 0; i < count; i++) {
        size_t bytes = parts[i].bytes;
        if (bytes < l.tail || bytes > most || (bytes - l.tail) % grain != 0)
            return ts_error_set(err, TS_ECORRUPT, "a payload of %zu bytes has not the length of its shape",
                                bytes);
        args.part[i].tail_bytes = bytes - l.tail;
    }
    if (any_lossless(&l))
        status = cuda_lossless_decode(cuda, to->dtype, &args, err);
    if (status == TS_OK && !all_lossless(&l))
        status = launch(cuda, "decode", form_of(&args), to->dtype, &args, err);
    return status;
}

enum ts_status ts_cuda_codec_encode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    const struct ts_cuda_codec_view *from, const struct ts_codec_chunk *chunk,
                                    ts_cuda_address out, ts_cuda_address workspace, struct ts_error *err)
{
    const struct ts_cuda_codec_part part = {.layer = chunk->layer, .payload = out};
    return ts_cuda_codec_encode_layers(cuda, codec, from, chunk, &part, 1, workspace, err);
}

enum ts_status ts_cuda_codec_decode(struct ts_cuda *cuda, const struct ts_codec *codec,
                                    ts_cuda_address payload, size_t bytes, const struct ts_codec_chunk *chunk,
                                    const struct ts_cuda_codec_view *to, ts_cuda_address workspace,
                                    struct ts_error *err)
{
    const struct ts_cuda_codec_part part = {.layer = chunk->layer, .payload = payload, .bytes = bytes};
    return ts_cuda_codec_decode_layers(cuda, codec, &part, 1, chunk, to, workspace, err);
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* Of one state; those that tell of a fault must be cleared. */
static enum ts_status answer_of(const struct codec_state *state, struct ts_cuda_codec_result *out,
                                struct ts_error *err)
{
    *out = (struct ts_cuda_codec_result){
        .escapes = state->escapes, .exceptions = state->exceptions, .status = TS_OK};
    if (!state->faults)
        return TS_OK;
    out->status = ts_error_set(err, TS_ECORRUPT, "a payload that no encoder writes:%s%s%s",
                               state->faults & CODEC_FAULT_CONTENT ? " its content" : "",
                               state->faults & CODEC_FAULT_ESCAPES ? " its escaped tiles" : "",
                               state->faults & CODEC_FAULT_LIST ? " its exceptions" : "");
    return out->status;
}

enum ts_status ts_cuda_codec_answers(struct ts_cuda *cuda, ts_cuda_address workspace, uint32_t count,
                                     struct ts_cuda_codec_result *out, struct ts_error *err)
{
    struct codec_state states[CODEC_PARTS_MAX];
    TS_ASSERT(count >= 1 && count <= CODEC_PARTS_MAX);
    enum ts_status status = ts_cuda_download(cuda, states, workspace, count * sizeof *states, err),
                   first = TS_OK;
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status != TS_OK)
        return status;
    for (uint32_t i = count; i-- > 0;) {
        status = answer_of(&states[i], &out[i], err);
        first = status != TS_OK ? status : first;
    }
    if (first == TS_OK)
        return TS_OK;
    status = ts_cuda_clear(cuda, workspace, COUNTS_OFFSET, NULL);
    return status == TS_OK ? first : status;
}

enum ts_status ts_cuda_codec_answer(struct ts_cuda *cuda, ts_cuda_address workspace,
                                    struct ts_cuda_codec_result *out, struct ts_error *err)
{
    return ts_cuda_codec_answers(cuda, workspace, 1, out, err);
}

/* --- rotations ------------------------------------------------------------------------------------------ */

enum ts_status ts_cuda_codec_upload_rope(struct ts_cuda *cuda, const struct ts_codec_rope *rope,
                                         uint32_t head_dim, ts_cuda_address *out, struct ts_error *err)
{
    const struct ts_codec_view view = {.head_dim = head_dim, .rope = rope};
    const struct ts_codec_chunk chunk = {0};
    size_t bytes = (size_t)TS_CODEC_SPAN_TOKENS * head_dim * sizeof(float);
    enum ts_status status = ts_cuda_alloc(cuda, bytes, out, err);
    if (status != TS_OK)
        return status;
    status = ts_cuda_upload(cuda, *out, codec_turns_of(&view, &chunk, 0), bytes, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status != TS_OK)
        ts_cuda_free(cuda, out);
    return status;
}
