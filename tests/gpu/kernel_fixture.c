#include "tests/gpu/kernel_fixture.h"

#include <stdio.h>

#include "tests/gpu/kernel_fixture_impl.h"

#define GUARD 64u /* bytes on either side of what the kernels may touch */

static struct ts_cuda *cuda;
static void (*before_case)(void);

void kernel_use(struct ts_cuda *device, void (*before)(void))
{
    cuda = device;
    before_case = before;
}

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static ts_cuda_address take(size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address address;
    ok(ts_cuda_alloc(cuda, bytes, &address, &err), &err);
    return address;
}

static void give(ts_cuda_address to, const void *from, size_t bytes)
{
    struct ts_error err = {0};
    ok(ts_cuda_upload(cuda, to, from, bytes, &err), &err);
    ok(ts_cuda_wait(cuda, &err), &err);
}

static void get(void *to, ts_cuda_address from, size_t bytes)
{
    struct ts_error err = {0};
    ok(ts_cuda_download(cuda, to, from, bytes, &err), &err);
    ok(ts_cuda_wait(cuda, &err), &err);
}

void kernel_device_init(struct device *d, const struct fixture *f)
{
    struct ts_error err = {0};
    uint32_t tiles = 2 * FIXTURE_HEADS * f->view.block_count;
    size_t table = f->view.block_count * sizeof(uint32_t);
    d->capacity = 6 * tiles * f->tile_elements;
    d->workspace_bytes = ts_cuda_codec_workspace_bytes(tiles);
    d->view = (struct ts_cuda_codec_view){.pool = take(f->pool_bytes + 2 * (size_t)GUARD) + GUARD,
                                          .pool_blocks = f->view.pool_blocks,
                                          .pool_heads = f->view.pool_heads,
                                          .head_dim = f->view.head_dim,
                                          .dtype = f->view.dtype,
                                          .blocks = take(table),
                                          .block_count = f->view.block_count};
    d->payload = take(d->capacity + 2 * (size_t)GUARD) + GUARD;
    d->workspace = take(d->workspace_bytes);
    d->bytes = ts_xmalloc(d->capacity + 2 * (size_t)GUARD);
    d->pool = ts_xmalloc(f->pool_bytes + 2 * (size_t)GUARD);
    ok(ts_cuda_clear(cuda, d->workspace, d->workspace_bytes, &err), &err);
    give(d->view.blocks, f->view.blocks, table);
    if (f->rope)
        ok(ts_cuda_codec_upload_rope(cuda, f->rope, f->view.head_dim, &d->view.turns, &err), &err);
}

void kernel_device_fini(struct device *d)
{
    ts_cuda_address pool = d->view.pool - GUARD, payload = d->payload - GUARD;
    ts_cuda_free(cuda, &pool);
    ts_cuda_free(cuda, &payload);
    ts_cuda_free(cuda, &d->view.blocks);
    ts_cuda_free(cuda, &d->workspace);
    ts_cuda_free(cuda, &d->view.turns);
    ts_free(d->bytes);
    ts_free(d->pool);
}

static bool guards_hold(const uint8_t *at, size_t bytes, uint8_t value)
{
    bool hold = true;
    for (size_t i = 0; i < GUARD; i++)
        hold &= at[i] == value && at[GUARD + bytes + i] == value;
    return hold;
}

static void describe(const struct fixture *f, const char *what)
{
    fail_msg("%s, head_dim %u, %s, groups %u and %u, heads %u + %u, tokens %u + %u: %s",
             ts_codec_name(&f->codec), f->view.head_dim, ts_dtype_name(f->view.dtype), f->codec.key.group,
             f->codec.value.group, f->chunk.head_begin, f->chunk.head_count, f->chunk.token_begin,
             f->chunk.token_count, what);
}

static void put_pool(const struct device *d, const struct fixture *f)
{
    memset(d->pool, 0x5a, f->pool_bytes + 2 * (size_t)GUARD);
    memcpy(d->pool + GUARD, f->view.pool, f->pool_bytes);
    give(d->view.pool - GUARD, d->pool, f->pool_bytes + 2 * (size_t)GUARD);
}

/* `bytes` of `capacity`, and a guard on either side. */
static void put_payload(const struct device *d, const void *from, size_t bytes, size_t capacity)
{
    assert_true(bytes <= capacity && capacity <= d->capacity);
    memset(d->bytes, 0x5a, capacity + 2 * (size_t)GUARD);
    memcpy(d->bytes + GUARD, from, bytes);
    give(d->payload - GUARD, d->bytes, capacity + 2 * (size_t)GUARD);
}

static size_t bytes_told(const struct fixture *f, const struct ts_cuda_codec_result *answer)
{
    return ts_codec_bytes(&f->codec, fixture_cache(f), &f->chunk, answer->escapes) +
           codec_align16(answer->exceptions);
}

/* Encoded here and there: the same bytes, no other byte, and the pool as it was. */
static void check_encode(struct device *d, struct fixture *f)
{
    struct ts_error err = {0};
    struct ts_cuda_codec_result answer;
    fixture_encode(f);
    put_pool(d, f);
    put_payload(d, f->payload, 0, f->bytes);
    ok(ts_cuda_codec_encode(cuda, &f->codec, &d->view, &f->chunk, d->payload, d->workspace, &err), &err);
    ok(ts_cuda_codec_answer(cuda, d->workspace, &answer, &err), &err);
    get(d->bytes, d->payload - GUARD, f->bytes + 2 * (size_t)GUARD);
    if (answer.escapes != f->escapes)
        describe(f, "another number of escaped tiles");
    if (f->bytes != bytes_told(f, &answer))
        describe(f, "another number of exceptions");
    for (size_t i = 0; i < f->bytes; i++) {
        if (d->bytes[GUARD + i] != f->payload[i]) {
            char where[96];
            snprintf(where, sizeof where, "encoded byte %zu of %zu is %02x, not %02x", i, f->bytes,
                     d->bytes[GUARD + i], f->payload[i]);
            describe(f, where);
        }
    }
    for (size_t i = 0; i < GUARD; i++) {
        if (d->bytes[i] != 0x5a || d->bytes[GUARD + f->bytes + i] != 0x5a)
            describe(f, "bytes outside of the payload are written");
    }
    get(d->pool, d->view.pool - GUARD, f->pool_bytes + 2 * (size_t)GUARD);
    if (memcmp(d->pool + GUARD, f->view.pool, f->pool_bytes) != 0 ||
        !guards_hold(d->pool, f->pool_bytes, 0x5a))
        describe(f, "encoding has changed the pool");
}

/* Restores f->payload on the device into a pool that holds 0x33. TS_OK or TS_ECORRUPT. */
static enum ts_status decode_there(struct device *d, const struct fixture *f, size_t bytes)
{
    struct ts_error err = {0};
    struct ts_cuda_codec_result answer;
    memset(d->pool, 0x33, f->pool_bytes + 2 * (size_t)GUARD);
    give(d->view.pool - GUARD, d->pool, f->pool_bytes + 2 * (size_t)GUARD);
    put_payload(d, f->payload, bytes, bytes);
    enum ts_status status =
        ts_cuda_codec_decode(cuda, &f->codec, d->payload, bytes, &f->chunk, &d->view, d->workspace, &err);
    if (status == TS_OK)
        status = ts_cuda_codec_answer(cuda, d->workspace, &answer, &err);
    if (status != TS_ECORRUPT)
        ok(status, &err);
    get(d->pool, d->view.pool - GUARD, f->pool_bytes + 2 * (size_t)GUARD);
    if (!guards_hold(d->pool, f->pool_bytes, 0x33))
        describe(f, "bytes outside of the pool are written");
    return status;
}

static void check_decode(struct device *d, struct fixture *f)
{
    memset(f->view.pool, 0x33, f->pool_bytes);
    assert_int_equal(fixture_decode(f), TS_OK);
    if (decode_there(d, f, f->bytes) != TS_OK)
        describe(f, "the kernel refuses a sound payload");
    if (memcmp(d->pool + GUARD, f->view.pool, f->pool_bytes) != 0)
        describe(f, "restored to another pool");
}

void kernel_check_both(struct device *d, struct fixture *f)
{
    check_encode(d, f);
    check_decode(d, f);
}

/* --- values --------------------------------------------------------------------------------------------- */

/* Bits of one element of a tile of a kind; as test_codec_levels, which compares the levels of the CPU. */
static uint16_t element_of(uint64_t word, uint32_t kind, enum ts_dtype dtype)
{
    uint16_t bits = (uint16_t)word;
    bool f16 = dtype == TS_DTYPE_F16;
    switch (kind) {
    case 0: /* any finite magnitude below one */
        return bits & (f16 ? 0xbbff : 0xbf7f);
    case 1: /* around the subnormals of fp16 */
        return (uint16_t)(f16 ? bits & 0x83ff : (bits & 0x83ff) + 0x3200);
    case 2: /* near the largest fp16 */
        return f16 ? (bits & 0x83ff) | 0x7800 : (bits & 0x807f) | 0x4700;
    case 3: /* around the magnitude from which moved tiles escape */
        return f16 ? (bits & 0x83ff) | 0x6800 : (bits & 0x807f) | 0x6f00;
    case 4: /* few values: ties of rounding, constant groups */
        return bits & 1 ? (f16 ? 0x3c00 : 0x3f80) : bits & 0x8002;
    case 5: /* subnormals of bf16, and zeros of both signs */
        return f16 ? bits & 0x8001 : bits & 0x807f;
    case 6: /* any bits, not finite ones too, in few elements */
        return (word >> 40) % 257 == 0 ? bits : (bits & 0x83ff) | (f16 ? 0x3000 : 0x3c00);
    default: /* a narrow band of exponents, as keys have */
        return f16 ? (bits & 0x8fff) | 0x3000 : (bits & 0x83ff) | 0x3c00;
    }
}

#define KINDS 8u

/* Each tile of a kind of its own. */
void kernel_fill_kinds(struct fixture *f, uint64_t seed)
{
    struct ts_rng rng;
    uint16_t *pool = (uint16_t *)(void *)f->view.pool;
    ts_rng_init(&rng, seed);
    for (size_t i = 0; i < f->pool_bytes / 2; i++) {
        uint32_t tile = (uint32_t)(i / f->tile_elements);
        pool[i] = element_of(ts_rng_u64(&rng), (tile * 5 + tile / 8) % KINDS, f->view.dtype);
    }
}

/* --- shapes --------------------------------------------------------------------------------------------- */

struct shape {
    uint32_t head_begin, head_count, token_begin, token_count;
};

/* Whole, a part of the heads, a tail of one token and of 15, from the middle of the sequence, less than the
 * first tokens, nothing. */
static const struct shape shapes[] = {{0, 3, 0, 80},  {1, 2, 0, 33}, {0, 1, 16, 15},
                                      {2, 1, 32, 17}, {0, 3, 0, 1},  {0, 2, 48, 5},
                                      {0, 0, 0, 16},  {0, 3, 0, 0},  {1, 1, 256, 37}};

static const struct variant variants[] = {
    {"i4", 64, 0, 0},      {"i4", 128, 0, 0},    {"i4h", 64, 0, 1},    {"i4h", 128, 0, 1},
    {"i4h", 128, 0, 16},   {"i4", 16, 0, 3},     {"i4", 80, 16, 0},    {"i4", 96, 32, 1},
    {"i4", 256, 256, 0},   {"i4", 1024, 128, 0}, {"i4h", 16, 0, 2},    {"i4h", 32, 16, 1},
    {"i4h", 80, 0, 1},     {"i4h", 96, 0, 1},    {"i4h", 112, 0, 1},   {"i4h", 128, 16, 4},
    {"i4h", 128, 128, 1},  {"i4h", 192, 64, 1},  {"i4h", 256, 256, 1}, {"i4h", 256, 64, 1},
    {"i4h", 512, 64, 1},   {"i4h", 1024, 32, 1}, {"none", 64, 0, 0},   {"none", 128, 0, 0},
    {"none", 80, 0, 3},    {"none", 1024, 0, 1}, {"i8", 64, 0, 0},     {"i8", 128, 0, 0},
    {"i8", 128, 32, 1},    {"i8", 80, 0, 1},     {"i8", 272, 0, 0},    {"i8", 512, 0, 2},
    {"i8", 1024, 0, 0},    {"i4hs", 64, 0, 1},   {"i4hs", 128, 0, 1},  {"i4hs", 96, 0, 1},
    {"i4hs", 256, 128, 1}, {"i4hc", 64, 0, 1},   {"i4hc", 128, 0, 1},  {"i4hc", 128, 0, 16},
    {"i4hc", 128, 32, 1},  {"i4hc", 80, 0, 1},   {"i4hc", 96, 0, 2},   {"i4hc", 256, 0, 1},
    {"i4hc", 272, 0, 1},   {"i4hc", 1024, 0, 1}, {"k8v4h", 64, 0, 1},  {"k8v4h", 128, 0, 1},
    {"k8v4h", 112, 0, 1}};

void kernel_variant_init(struct fixture *f, struct device *d, const struct variant *v, enum ts_dtype dtype)
{
    if (before_case)
        before_case();
    char keys[16];
    snprintf(keys, sizeof keys, "%.*s", (int)strcspn(v->codec, "+"), v->codec);
    fixture_init(f, keys, dtype, v->head_dim);
    if (v->codec[strlen(keys)]) {
        struct ts_codec other;
        assert_int_equal(ts_codec_parse(v->codec + strlen(keys) + 1, &other, NULL), TS_OK);
        f->codec.value = other.value;
    }
    f->codec.raw_tokens = v->raw_tokens;
    if (v->group)
        f->codec.key.group = f->codec.value.group = v->group;
    if (f->codec.key.flags & TS_CODEC_CENTRE)
        fixture_rotate(f);
    kernel_device_init(d, f);
}

void kernel_check_shapes(const struct variant *v, enum ts_dtype dtype)
{
    struct fixture f;
    struct device d;
    kernel_variant_init(&f, &d, v, dtype);
    kernel_fill_kinds(&f, v->head_dim + dtype);
    uint8_t *pool = ts_xmalloc(f.pool_bytes);
    memcpy(pool, f.view.pool, f.pool_bytes);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        if (s->token_begin % ts_codec_span(&f.codec) != 0 || (v->head_dim > 256 && s->token_count > 33))
            continue;
        f.chunk = (struct ts_codec_chunk){.head_begin = s->head_begin,
                                          .head_count = s->head_count,
                                          .token_begin = s->token_begin,
                                          .token_count = s->token_count};
        kernel_check_both(&d, &f);
        memcpy(f.view.pool, pool, f.pool_bytes);
    }
    ts_free(pool);
    kernel_device_fini(&d);
    fixture_fini(&f);
}

void kernel_test_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        bool costly = variants[i].head_dim > 128; /* of these one type each */
        if (!costly || (i & 1))
            kernel_check_shapes(&variants[i], TS_DTYPE_F16);
        if (!costly || !(i & 1))
            kernel_check_shapes(&variants[i], TS_DTYPE_BF16);
    }
}

void kernel_test_values(void **state)
{
    static const struct variant kinds[] = {{"i4", 64, 0, 0},   {"i4", 128, 32, 0}, {"i4h", 64, 0, 1},
                                           {"i4h", 128, 0, 1}, {"i4h", 96, 0, 2},  {"i4", 256, 128, 0},
                                           {"i8", 128, 0, 0},  {"i4hs", 64, 0, 1}, {"i4hs", 128, 0, 1},
                                           {"i4hc", 64, 0, 1}, {"i4hc", 128, 0, 1}};
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof kinds / sizeof *kinds); i++) {
        struct fixture f;
        struct device d;
        kernel_variant_init(&f, &d, &kinds[i / 2], i & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
        f.chunk.token_count = 176 - (uint32_t)i % 4 / 2 * 7;
        kernel_fill_kinds(&f, i);
        kernel_check_both(&d, &f);
        kernel_device_fini(&d);
        fixture_fini(&f);
    }
}

/* --- means ---------------------------------------------------------------------------------------------- */

/* Keys that are not rotated, keys with a large offset, and a span that is lost: so large that the mean of a
 * channel is not a number of fp16, which in bf16 no single tile tells. */
void kernel_test_means(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        static const struct variant kinds[] = {{"i4hc", 64, 0, 1}, {"i4hc", 128, 0, 3}, {"i4hc", 96, 0, 0}};
        struct fixture f;
        struct device d;
        kernel_variant_init(&f, &d, &kinds[i % 3], i & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
        fixture_random(&f, i);
        f.chunk.token_count = 16 * FIXTURE_BLOCKS - i;
        if (i / 2 % 2) {
            f.view.rope = NULL;
            ts_cuda_free(cuda, &d.view.turns);
        }
        for (uint32_t token = 0; token < 16 * FIXTURE_BLOCKS; token++) {
            float offset = i < 4 ? 30.0f : token < 256 ? 1e6f : 3.0f;
            uint16_t *at = fixture_element(&f, 0, 1, token) + 5;
            *at = fixture_narrow(offset, f.view.dtype);
        }
        kernel_check_both(&d, &f);
        if (i >= 4)
            assert_true(f.escapes >= 16);
        kernel_device_fini(&d);
        fixture_fini(&f);
    }
}

/* --- layers --------------------------------------------------------------------------------------------- */

#define LAYER_BLOCKS (FIXTURE_BLOCKS / 2)
#define LAYERS       3u

/* Two layers of half as many blocks, of which three parts are made: the last one is the first one again. */
struct layers {
    uint8_t *payloads[LAYERS];
    size_t bytes[LAYERS];
    uint32_t escapes[LAYERS];
    struct ts_cuda_codec_part parts[LAYERS];
    ts_cuda_address out;
};

static void encode_layers_here(struct layers *l, struct device *d, struct fixture *f)
{
    size_t step = (f->pool_bytes + 255) & ~(size_t)255;
    l->out = take(LAYERS * step);
    for (uint32_t i = 0; i < LAYERS; i++) {
        f->chunk.layer = i == 1;
        fixture_encode(f);
        assert_true(f->bytes <= step);
        l->payloads[i] = ts_xmalloc(f->bytes);
        memcpy(l->payloads[i], f->payload, f->bytes);
        l->bytes[i] = f->bytes;
        l->escapes[i] = f->escapes;
        l->parts[i] = (struct ts_cuda_codec_part){f->chunk.layer, l->out + i * step, f->bytes};
    }
    put_pool(d, f);
}

static void check_layers(struct layers *l, struct device *d, struct fixture *f)
{
    struct ts_error err = {0};
    struct ts_cuda_codec_result results[LAYERS];
    encode_layers_here(l, d, f);
    ok(ts_cuda_codec_encode_layers(cuda, &f->codec, &d->view, &f->chunk, l->parts, LAYERS, d->workspace,
                                   &err),
       &err);
    ok(ts_cuda_codec_answers(cuda, d->workspace, LAYERS, results, &err), &err);
    for (uint32_t i = 0; i < LAYERS; i++) {
        uint8_t *there = ts_xmalloc(l->bytes[i]);
        assert_int_equal(results[i].escapes, l->escapes[i]);
        get(there, l->parts[i].payload, l->bytes[i]);
        if (memcmp(there, l->payloads[i], l->bytes[i]) != 0)
            describe(f, "a layer of several is encoded to other bytes");
        ts_free(there);
    }
    /* The second one at fault: told of it alone, once. */
    struct codec_layout layout = codec_layout_of(&f->codec, fixture_cache(f), &f->chunk);
    const struct codec_side_layout *side = &layout.sides[layout.sides[1].side.lossless ? 0 : 1];
    const uint8_t nan[2] = {0xff, 0x7f}, zeros[2] = {0, 0};
    give(l->parts[1].payload + side->scales, side->side.lossless ? zeros : nan, 2);
    ok(ts_cuda_codec_decode_layers(cuda, &f->codec, l->parts, LAYERS, &f->chunk, &d->view, d->workspace,
                                   &err),
       &err);
    assert_int_equal(ts_cuda_codec_answers(cuda, d->workspace, LAYERS, results, &err), TS_ECORRUPT);
    assert_true(results[0].status == TS_OK && results[1].status == TS_ECORRUPT && results[2].status == TS_OK);
    give(l->parts[1].payload, l->payloads[1], l->bytes[1]);
    memset(f->view.pool, 0x33, f->pool_bytes);
    put_pool(d, f);
    ok(ts_cuda_codec_decode_layers(cuda, &f->codec, l->parts, LAYERS, &f->chunk, &d->view, d->workspace,
                                   &err),
       &err);
    ok(ts_cuda_codec_answers(cuda, d->workspace, LAYERS, results, &err), &err);
    for (uint32_t i = 0; i < 2; i++) {
        f->chunk.layer = i;
        assert_int_equal(ts_codec_decode(&f->codec, l->payloads[i], l->bytes[i], &f->chunk, &f->view), TS_OK);
    }
    get(d->pool, d->view.pool - GUARD, f->pool_bytes + 2 * (size_t)GUARD);
    if (memcmp(d->pool + GUARD, f->view.pool, f->pool_bytes) != 0)
        describe(f, "layers are restored to another pool");
}

void kernel_check_launch(const struct variant *v, uint32_t seed)
{
    struct fixture f;
    struct device d;
    struct layers l;
    kernel_variant_init(&f, &d, v, seed & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
    kernel_fill_kinds(&f, seed);
    if (seed == 2) /* nothing escapes in the first layer */
        memset(f.view.pool, 0, f.pool_bytes / 2);
    f.view.pool_blocks = d.view.pool_blocks = LAYER_BLOCKS;
    f.view.block_count = d.view.block_count = LAYER_BLOCKS;
    for (uint32_t b = 0; b < LAYER_BLOCKS; b++)
        f.blocks[b] = (b * 3 + 1) % LAYER_BLOCKS;
    give(d.view.blocks, f.blocks, sizeof f.blocks);
    f.chunk =
        (struct ts_codec_chunk){.head_begin = 1, .head_count = 2, .token_count = 16 * LAYER_BLOCKS - seed};
    check_layers(&l, &d, &f);
    for (uint32_t k = 0; k < LAYERS; k++)
        ts_free(l.payloads[k]);
    ts_cuda_free(cuda, &l.out);
    kernel_device_fini(&d);
    fixture_fini(&f);
}

void kernel_test_layers(void **state)
{
    static const struct variant kinds[] = {{"i4h", 128, 0, 1}, {"i4hc", 64, 0, 1}, {"k8v4h", 96, 0, 1}};
    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        kernel_check_launch(&kinds[i], i);
}

/* One layer as often as a launch has parts: more tiles than a device has warps at once. */
static void check_crowd(const struct variant *v, enum ts_dtype dtype)
{
    struct ts_error err = {0};
    struct fixture f;
    struct device d;
    struct ts_cuda_codec_part parts[TS_CUDA_CODEC_PARTS_MAX];
    struct ts_cuda_codec_result results[TS_CUDA_CODEC_PARTS_MAX];
    const uint32_t count = TS_CUDA_CODEC_PARTS_MAX;
    kernel_variant_init(&f, &d, v, dtype);
    kernel_fill_kinds(&f, v->head_dim);
    f.chunk.token_count = 16 * FIXTURE_BLOCKS - 3;
    size_t room = ts_cuda_codec_workspace_bytes(count * 2 * FIXTURE_HEADS * FIXTURE_BLOCKS);
    ts_cuda_address workspace = take(room), out = take(count * d.capacity);
    ok(ts_cuda_clear(cuda, workspace, room, &err), &err);
    put_pool(&d, &f);
    fixture_encode(&f);
    for (uint32_t i = 0; i < count; i++)
        parts[i] = (struct ts_cuda_codec_part){0, out + i * d.capacity, f.bytes};
    ok(ts_cuda_codec_encode_layers(cuda, &f.codec, &d.view, &f.chunk, parts, count, workspace, &err), &err);
    ok(ts_cuda_codec_answers(cuda, workspace, count, results, &err), &err);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(results[i].escapes, f.escapes);
        get(d.bytes, parts[i].payload, f.bytes);
        if (memcmp(d.bytes, f.payload, f.bytes) != 0)
            describe(&f, "a layer of very many is encoded to other bytes");
    }
    memset(f.view.pool, 0x33, f.pool_bytes);
    put_pool(&d, &f);
    ok(ts_cuda_codec_decode_layers(cuda, &f.codec, parts, count, &f.chunk, &d.view, workspace, &err), &err);
    ok(ts_cuda_codec_answers(cuda, workspace, count, results, &err), &err);
    assert_int_equal(ts_codec_decode(&f.codec, f.payload, f.bytes, &f.chunk, &f.view), TS_OK);
    get(d.pool, d.view.pool - GUARD, f.pool_bytes + 2 * (size_t)GUARD);
    if (memcmp(d.pool + GUARD, f.view.pool, f.pool_bytes) != 0)
        describe(&f, "very many layers are restored to another pool");
    ts_cuda_free(cuda, &workspace);
    ts_cuda_free(cuda, &out);
    kernel_device_fini(&d);
    fixture_fini(&f);
}

void kernel_test_crowd(void **state)
{
    static const struct variant kinds[] = {
        {"i4", 64, 0, 0}, {"i4h", 128, 0, 1}, {"i4hc", 128, 0, 1}, {"i4hc", 64, 0, 1}, {"k8v4h", 64, 0, 1}};
    (void)state;
    for (uint32_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check_crowd(&kinds[i], i % 2 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
}

/* Every fp16 value as the minimum of a group of equal elements, and every magnitude as its range. */
void kernel_test_numbers(void **state)
{
    struct fixture f;
    struct device d;
    const struct variant v = {"i4", 128, 16, 0};
    (void)state;
    kernel_variant_init(&f, &d, &v, TS_DTYPE_F16);
    uint16_t *pool = (uint16_t *)(void *)f.view.pool;
    const size_t elements = f.pool_bytes / 2, groups = elements / 16;
    for (uint32_t begin = 0; begin < 65536; begin += (uint32_t)groups) {
        for (size_t i = 0; i < elements; i++) {
            uint16_t bits = (uint16_t)(begin + i / 16);
            pool[i] = (bits & 0x7c00) == 0x7c00 ? 0 : i % 16 == 5 ? bits & 0x7fff : bits | 0x8000;
            pool[i] = i % 16 > 7 && (bits & 0x7c00) != 0x7c00 ? bits : pool[i];
        }
        kernel_check_both(&d, &f);
    }
    kernel_device_fini(&d);
    fixture_fini(&f);
}

/* --- escapes -------------------------------------------------------------------------------------------- */

/* A tile escapes where a draw of 0 .. 99 is below `share`; with 100 all do. */
void kernel_check_escapes(const struct variant *v, uint32_t share, uint64_t seed)
{
    struct fixture f;
    struct device d;
    struct ts_rng rng;
    kernel_variant_init(&f, &d, v, seed & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
    fixture_random(&f, seed);
    ts_rng_init(&rng, seed);
    f.chunk.token_count = 16 * FIXTURE_BLOCKS - 9;
    for (uint32_t t = 0; t < 2 * FIXTURE_HEADS * FIXTURE_BLOCKS; t++) {
        uint32_t token = t / (2 * FIXTURE_HEADS) * 16, draw = (uint32_t)ts_rng_below(&rng, 100);
        uint32_t row = (uint32_t)ts_rng_below(&rng, 7), element = (uint32_t)ts_rng_below(&rng, 16);
        if (draw < share)
            fixture_element(&f, t & 1, t / 2 % FIXTURE_HEADS, token + (row < 2 ? 2 : row))[element] =
                f.view.dtype == TS_DTYPE_F16 ? 0xfe00 : 0xffc0;
    }
    kernel_check_both(&d, &f);
    if (share == 100)
        assert_int_equal(f.escapes, FIXTURE_HEADS * FIXTURE_BLOCKS *
                                        ((f.codec.key.bits < 16) + (f.codec.value.bits < 16)));
    kernel_device_fini(&d);
    fixture_fini(&f);
}

void kernel_test_escapes(void **state)
{
    static const uint32_t shares[] = {0, 3, 50, 100};
    static const struct variant kinds[] = {
        {"i4", 64, 0, 2}, {"i4h", 128, 0, 1}, {"i4h", 16, 0, 1}, {"i4hc", 64, 0, 2}};
    (void)state;
    for (size_t i = 0; i < (sizeof kinds / sizeof *kinds) * (sizeof shares / sizeof *shares); i++)
        kernel_check_escapes(&kinds[i / 4], shares[i % 4], i);
}

/* --- refusals ------------------------------------------------------------------------------------------- */

/* Both must say the same of it. */
bool kernel_refused_alike(struct device *d, struct fixture *f, size_t bytes)
{
    enum ts_status here = ts_codec_decode(&f->codec, f->payload, bytes, &f->chunk, &f->view);
    enum ts_status there = decode_there(d, f, bytes);
    if (here != there)
        describe(f, here == TS_OK ? "the kernel refuses what the CPU takes"
                                  : "the kernel takes what the CPU refuses");
    return here != TS_OK;
}

static void damage(struct device *d, struct fixture *f, uint64_t seed)
{
    struct ts_rng rng;
    uint32_t refusals = 0;
    struct codec_layout l = codec_layout_of(&f->codec, fixture_cache(f), &f->chunk);
    const size_t ends[] = {l.means, l.sides[0].codes, l.tail};
    ts_rng_init(&rng, seed);
    for (uint32_t i = 0; i < 60; i++) {
        size_t from = i % 3 ? ends[i % 3 - 1] : 0, to = ends[i % 3];
        size_t at = from + (size_t)ts_rng_below(&rng, to - from);
        uint8_t was = f->payload[at];
        f->payload[at] ^= (uint8_t)(1u << ts_rng_below(&rng, 8));
        refusals += kernel_refused_alike(d, f, f->bytes);
        f->payload[at] = was;
    }
    assert_true(refusals > 10); /* all of the bitmap, signs and exponents */
}

/* Each byte of padding, and each length. */
static void damage_frame(struct device *d, struct fixture *f)
{
    struct codec_layout l = codec_layout_of(&f->codec, fixture_cache(f), &f->chunk);
    for (uint32_t i = 0; i < 6; i++) {
        const struct codec_side_layout *s = &l.sides[i & 1];
        size_t end = i < 2   ? s->scales + codec_scale_bytes(&l, s)
                     : i < 4 ? s->minima + codec_scale_bytes(&l, s)
                             : s->codes + codec_code_bytes(&l, s);
        for (size_t at = end; at < codec_align16(end); at++) {
            f->payload[at] = 0x10;
            assert_true(kernel_refused_alike(d, f, f->bytes));
            f->payload[at] = 0;
        }
    }
    for (size_t i = (l.tiles + 7) / 8; i < l.means; i++) {
        f->payload[i] = 1;
        assert_true(kernel_refused_alike(d, f, f->bytes));
        f->payload[i] = 0;
    }
    assert_true(kernel_refused_alike(d, f, f->bytes - 1));
    assert_true(kernel_refused_alike(d, f, f->bytes + 1));
    assert_true(kernel_refused_alike(d, f, f->bytes + l.tile_bytes));
    assert_true(kernel_refused_alike(d, f, f->bytes - l.tile_bytes)); /* it has escaped tiles */
    assert_true(kernel_refused_alike(d, f, l.tail - 16));
    assert_true(kernel_refused_alike(d, f, 0));
}

void kernel_test_refusals(void **state)
{
    static const struct variant kinds[] = {{"i4", 64, 0, 0},    {"i4h", 16, 0, 1},  {"i4h", 128, 0, 1},
                                           {"k8v4h", 64, 0, 1}, {"i4hs", 64, 0, 1}, {"i4hc", 64, 0, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct fixture f;
        struct device d;
        kernel_variant_init(&f, &d, &kinds[i], i & 1 ? TS_DTYPE_F16 : TS_DTYPE_BF16);
        fixture_random(&f, i);
        f.chunk = (struct ts_codec_chunk){.head_begin = 1, .head_count = 1, .token_count = 41};
        for (uint32_t token = 5; token < 41; token += 16) /* not all of the same side */
            fixture_element(&f, token / 16 & 1, 1, token)[3] = f.view.dtype == TS_DTYPE_F16 ? 0x7c00 : 0x7f80;
        fixture_encode(&f);
        assert_int_equal(f.escapes, 3);
        damage(&d, &f, i);
        damage_frame(&d, &f);
        kernel_device_fini(&d);
        fixture_fini(&f);
    }
}
