/*
 * Codecs with a side without loss, their kernels against the codec of the CPU: what depends on how many
 * exceptions stand where, and payloads whose list, codes or length are none that an encoder writes.
 */
#include "tests/gpu/lossless_fixture.h"
#include "tests/gpu/kernel_fixture_impl.h"

void lossless_test_shapes(void **state)
{
    static const struct variant variants[] = {
        {"lz16", 64, 0, 0},      {"lz16", 128, 0, 0},     {"lz16", 16, 0, 0},       {"lz16", 48, 0, 1},
        {"lz16", 80, 0, 0},      {"lz16", 112, 0, 0},     {"lz16", 256, 0, 0},      {"lz16", 272, 0, 0},
        {"lz16", 512, 0, 0},     {"lz16", 1008, 0, 0},    {"lz16", 1024, 0, 0},     {"lz16+i8", 64, 0, 1},
        {"i8+lz16", 80, 0, 1},   {"i4h+lz16", 128, 0, 1}, {"lz16+i4h", 128, 0, 0},  {"i4hc+lz16", 64, 0, 1},
        {"none+lz16", 64, 0, 0}, {"lz16+none", 96, 0, 1}, {"lz16+i4hs", 512, 0, 16}};
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        bool costly = variants[i].head_dim > 128; /* of these one type each */
        if (!costly || (i & 1))
            kernel_check_shapes(&variants[i], TS_DTYPE_F16);
        if (!costly || !(i & 1))
            kernel_check_shapes(&variants[i], TS_DTYPE_BF16);
    }
}

/* --- exceptions ----------------------------------------------------------------------------------------- */

/* An element of a row of a kind; `place` is where in its row it stands. */
static uint16_t element_of(uint64_t word, uint32_t kind, uint32_t place, uint32_t head_dim,
                           enum ts_dtype dtype)
{
    uint16_t bits = (uint16_t)word;
    bool f16 = dtype == TS_DTYPE_F16;
    uint16_t window = f16 ? 7 << 10 : 15 << 7, large = f16 ? 0x7800 : 0x7000;
    switch (kind) {
    case 0: /* one exponent */
        return (uint16_t)((bits & (f16 ? 0x83ff : 0x807f)) | large);
    case 1: /* exceptions but for one element: the first, the last, one in each quarter */
        return place == (word >> 40) % 4 * (head_dim / 4) || place + 1 == head_dim ? large : bits & 0x803f;
    case 2: /* as far from the largest as a code goes, and one farther */
        return place == head_dim / 2 + 1 ? large : (uint16_t)(large - window + (bits & 1 ? window >> 3 : 0));
    case 3: /* any bits: infinite and no numbers too */
        return bits;
    case 4: /* zeros of both signs */
        return bits & 0x8000;
    case 5: /* subnormals, and one number that is none */
        return place == 3 ? large : bits & (f16 ? 0x83ff : 0x807f);
    case 6: /* not a number beside small ones */
        return word >> 40 & 1 ? (uint16_t)(bits | 0x7fc0) : bits & 0x83ff;
    default: /* few exceptions, here and there */
        return (word >> 40) % 61 == 0 ? bits & 0x80ff : (uint16_t)((bits & 0x83ff) | (f16 ? 0x3000 : 0x3c00));
    }
}

#define KINDS 8u

/* Each row of a kind of its own; tiles without an exception among them. */
static void fill_rows(struct fixture *f, uint64_t seed)
{
    struct ts_rng rng;
    uint16_t *pool = (uint16_t *)(void *)f->view.pool;
    uint32_t head_dim = f->view.head_dim;
    ts_rng_init(&rng, seed);
    for (size_t i = 0; i < f->pool_bytes / 2; i++) {
        uint32_t row = (uint32_t)(i / head_dim), tile = row / 16, kind = (row * 5 + row / 8 + tile) % KINDS;
        pool[i] = element_of(ts_rng_u64(&rng), tile % 3 == 1 ? 4 * (row & 1) : kind, (uint32_t)(i % head_dim),
                             head_dim, f->view.dtype);
    }
}

void lossless_test_exceptions(void **state)
{
    static const struct variant kinds[] = {
        {"lz16", 64, 0, 0}, {"lz16", 128, 0, 0},      {"lz16", 80, 0, 0},
        {"lz16", 16, 0, 0}, {"lz16+i4", 128, 0, 0},   {"i4h+lz16", 64, 0, 1},
        {"lz16", 32, 0, 0}, {"none+lz16", 112, 0, 0}, {"lz16", 512, 0, 0}};
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof kinds / sizeof *kinds); i++) {
        struct fixture f;
        struct device d;
        kernel_variant_init(&f, &d, &kinds[i / 2], i & 1 ? TS_DTYPE_BF16 : TS_DTYPE_F16);
        f.chunk.token_count = f.view.head_dim > 128 ? 40 : 176 - (uint32_t)i % 4 / 2 * 7;
        fill_rows(&f, i);
        kernel_check_both(&d, &f);
        kernel_fill_kinds(&f, i);
        kernel_check_both(&d, &f);
        kernel_device_fini(&d);
        fixture_fini(&f);
    }
}

/* More tiles than a round of the scan has: a sequence with the blocks of the pool again and again. */
void lossless_test_many_tiles(void **state)
{
    enum { BLOCKS = 400 }; /* 2400 tiles */
    const struct variant v = {"lz16", 16, 0, 0};
    uint32_t blocks[BLOCKS];
    struct fixture f;
    struct device d;
    (void)state;
    kernel_variant_init(&f, &d, &v, TS_DTYPE_BF16);
    kernel_device_fini(&d);
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = i * 7 % FIXTURE_BLOCKS;
    f.view.blocks = blocks;
    f.view.block_count = BLOCKS;
    f.chunk.token_count = 16 * BLOCKS;
    ts_free(f.payload);
    f.payload = ts_xaligned(64, ts_codec_bytes_max(&f.codec, fixture_cache(&f), &f.chunk));
    kernel_device_init(&d, &f);
    fill_rows(&f, 1);
    kernel_check_both(&d, &f);
    kernel_device_fini(&d);
    fixture_fini(&f);
}

void lossless_test_escapes(void **state)
{
    static const uint32_t shares[] = {0, 3, 50, 100};
    static const struct variant kinds[] = {{"lz16+i4", 64, 0, 2}, {"i4h+lz16", 32, 0, 0}};
    (void)state;
    for (size_t i = 0; i < 8; i++)
        kernel_check_escapes(&kinds[i / 4], shares[i % 4], i);
}

void lossless_test_layers(void **state)
{
    static const struct variant kinds[] = {
        {"lz16", 128, 0, 0}, {"i4h+lz16", 64, 0, 1}, {"lz16+i8", 96, 0, 0}, {"lz16", 80, 0, 0}};
    (void)state;
    for (uint32_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        kernel_check_launch(&kinds[i], i);
}

/* A workspace keeps nothing of a codec that another one would take for its own. */
void lossless_test_next_codec(void **state)
{
    static const char *const codecs[] = {"lz16", "i4h", "lz16", "none", "i8"};
    const struct variant v = {"lz16", 64, 0, 0};
    struct fixture f;
    struct device d;
    (void)state;
    kernel_variant_init(&f, &d, &v, TS_DTYPE_F16);
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        fixture_random(&f, i);
        fixture_element(&f, 1, 1, 37)[5] = 0x7e00; /* a tile escapes, where tiles do */
        assert_int_equal(ts_codec_parse(codecs[i], &f.codec, NULL), TS_OK);
        kernel_check_both(&d, &f);
    }
    kernel_device_fini(&d);
    fixture_fini(&f);
}

/* --- refusals ------------------------------------------------------------------------------------------- */

/* One bit of each byte in turn. */
static uint32_t flip_bits(struct device *d, struct fixture *f, uint64_t seed)
{
    struct ts_rng rng;
    uint32_t refusals = 0;
    ts_rng_init(&rng, seed);
    for (size_t at = 0; at < f->bytes; at += 1 + f->bytes / 500) {
        uint8_t was = f->payload[at];
        f->payload[at] ^= (uint8_t)(1u << ts_rng_below(&rng, 8));
        refusals += kernel_refused_alike(d, f, f->bytes);
        f->payload[at] = was;
    }
    return refusals;
}

static void must_refuse(struct device *d, struct fixture *f, size_t at, uint8_t value)
{
    uint8_t was = f->payload[at];
    f->payload[at] = value;
    assert_true(kernel_refused_alike(d, f, f->bytes));
    f->payload[at] = was;
}

static void check_lengths(struct device *d, struct fixture *f, const struct codec_layout *l)
{
    static const int changes[] = {-1, 1, -16, 16, -17};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
        assert_true(kernel_refused_alike(d, f, (size_t)((long)f->bytes + changes[i])));
    assert_true(kernel_refused_alike(d, f, f->bytes + l->tile_bytes));
    assert_true(kernel_refused_alike(d, f, l->tail));
    assert_true(kernel_refused_alike(d, f, l->tail - 16));
    assert_true(kernel_refused_alike(d, f, 0));
}

/* Padding of sections and of the list, a base that fp16 has not. */
static void check_frame(struct device *d, struct fixture *f, const struct codec_layout *l, size_t exceptions)
{
    for (uint32_t i = 0; i < 4; i++) {
        const struct codec_side_layout *s = &l->sides[i & 1];
        size_t end = i < 2 ? s->scales + codec_scale_bytes(l, s) : s->codes + codec_code_bytes(l, s);
        for (size_t at = end; at < codec_align16(end); at++)
            must_refuse(d, f, at, 0x10);
    }
    for (size_t at = exceptions; at < codec_align16(exceptions); at++)
        must_refuse(d, f, l->tail + at, 1);
    if (f->view.dtype == TS_DTYPE_F16)
        must_refuse(d, f, l->sides[l->sides[0].side.lossless ? 0 : 1].scales, 32);
}

/* Rows of one exponent but for some zeros: the list holds zeros, and any base below is a code's fault. */
void lossless_test_refusals(void **state)
{
    static const struct variant kinds[] = {{"lz16", 16, 0, 0},
                                           {"lz16", 16, 0, 0},
                                           {"lz16+i4", 32, 0, 0},
                                           {"i4h+lz16", 16, 0, 1},
                                           {"lz16", 80, 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct fixture f;
        struct device d;
        bool f16 = (i & 1) == 0;
        kernel_variant_init(&f, &d, &kinds[i], f16 ? TS_DTYPE_F16 : TS_DTYPE_BF16);
        fixture_random(&f, i);
        f.chunk = (struct ts_codec_chunk){.head_begin = 1, .head_count = 1, .token_count = 21};
        for (uint32_t token = 0; token < 21; token++) {
            fixture_element(&f, 0, 1, token)[token % 16] = 0;
            fixture_element(&f, 1, 1, token)[15 - token % 16] = 0;
        }
        fixture_element(&f, 0, 1, 17)[2] = fixture_element(&f, 1, 1, 17)[3] = f16 ? 0x7c00 : 0x7f80;
        struct codec_layout l = codec_layout_of(&f.codec, fixture_cache(&f), &f.chunk);
        uint32_t kv = l.sides[0].side.lossless ? 0 : 1;
        const struct codec_side_layout *s = &l.sides[kv];
        size_t exceptions = 0;
        for (uint32_t k = 4; exceptions % 16 == 0; k++) { /* so that the list is filled up */
            fixture_element(&f, kv, 1, 19)[k] = 0;
            fixture_encode(&f);
            assert_true(codec_payload_fits(&l, f.payload, f.bytes, &exceptions));
        }
        assert_true(flip_bits(&d, &f, i) > 20);
        check_lengths(&d, &f, &l);
        check_frame(&d, &f, &l, exceptions);
        must_refuse(&d, &f, l.tail, f.payload[s->scales]); /* an exception that its window holds */
        must_refuse(&d, &f, s->scales, 1);                 /* codes below exponent zero */
        kernel_device_fini(&d);
        fixture_fini(&f);
    }
}
