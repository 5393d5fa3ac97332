/* A small pool of one layer and one sequence whose blocks lie scattered, for the tests of the codec. */
#ifndef TS_TESTS_GPU_CODEC_FIXTURE_H
#define TS_TESTS_GPU_CODEC_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"

#define FIXTURE_BLOCKS 20u /* one span and a part of the next */
#define FIXTURE_HEADS  3u

struct fixture {
    struct ts_codec_rope *rope;
    uint32_t blocks[FIXTURE_BLOCKS];
    size_t pool_bytes, tile_elements;
    struct ts_codec codec;
    struct ts_codec_view view;
    struct ts_codec_chunk chunk;
    uint8_t *payload;
    size_t bytes;
    uint32_t escapes;
};

static inline struct ts_codec_cache fixture_cache(const struct fixture *f)
{
    return (struct ts_codec_cache){f->view.head_dim, f->view.dtype};
}

static inline void fixture_init(struct fixture *f, const char *codec, enum ts_dtype dtype, uint32_t head_dim)
{
    memset(f, 0, sizeof *f);
    assert_int_equal(ts_codec_parse(codec, &f->codec, NULL), TS_OK);
    for (uint32_t i = 0; i < FIXTURE_BLOCKS; i++)
        f->blocks[i] = (i * 7 + 3) % FIXTURE_BLOCKS;
    f->tile_elements = (size_t)16 * head_dim;
    f->pool_bytes = f->tile_elements * 2 * FIXTURE_BLOCKS * 2 * FIXTURE_HEADS;
    f->view = (struct ts_codec_view){.pool = ts_xaligned(64, f->pool_bytes),
                                     .pool_blocks = FIXTURE_BLOCKS,
                                     .pool_heads = FIXTURE_HEADS,
                                     .head_dim = head_dim,
                                     .dtype = dtype,
                                     .blocks = f->blocks,
                                     .block_count = FIXTURE_BLOCKS};
    memset(f->view.pool, 0, f->pool_bytes);
    f->chunk = (struct ts_codec_chunk){.head_count = FIXTURE_HEADS, .token_count = 16 * FIXTURE_BLOCKS};
    f->payload = ts_xaligned(64, 3 * f->pool_bytes); /* whatever groups a test asks for */
}

/* Keys are rotated as models do: frequencies from 1 down to about 1 / theta. */
static inline void fixture_rotate(struct fixture *f)
{
    float frequencies[CODEC_DIM_MAX / 2];
    double ratio = ts_math_pow(10000.0, -2.0 / f->view.head_dim), at = 1;
    for (uint32_t i = 0; i < f->view.head_dim / 2; i++, at *= ratio)
        frequencies[i] = (float)at;
    f->view.rope = f->rope = ts_codec_rope_new(frequencies, f->view.head_dim);
}

static inline void fixture_fini(struct fixture *f)
{
    ts_codec_rope_destroy(&f->rope);
    ts_free(f->view.pool);
    ts_free(f->payload);
}

static inline uint16_t fixture_narrow(float value, enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_F16 ? codec_f32_to_f16(value) : codec_f32_to_bf16(value);
}

static inline float fixture_widen(uint16_t bits, enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_F16 ? codec_f16_to_f32(bits) : codec_bf16_to_f32(bits);
}

static inline uint16_t *fixture_element(const struct fixture *f, uint32_t kv, uint32_t head, uint32_t token)
{
    size_t tile = ((size_t)f->blocks[token / 16] * 2 + kv) * FIXTURE_HEADS + head;
    return (uint16_t *)f->view.pool + tile * f->tile_elements + (size_t)(token % 16) * f->view.head_dim;
}

static inline void fixture_random(struct fixture *f, uint64_t seed)
{
    struct ts_rng rng;
    ts_rng_init(&rng, seed);
    for (size_t i = 0; i < f->pool_bytes / 2; i++)
        ((uint16_t *)f->view.pool)[i] = fixture_narrow((float)ts_rng_normal(&rng), f->view.dtype);
}

static inline void fixture_encode(struct fixture *f)
{
    f->bytes = ts_codec_encode(&f->codec, &f->view, &f->chunk, f->payload, &f->escapes);
    size_t expected = ts_codec_bytes(&f->codec, fixture_cache(f), &f->chunk, f->escapes);
    if ((f->codec.key.flags | f->codec.value.flags) & TS_CODEC_LOSSLESS) /* and a byte for each exception */
        assert_true(f->bytes >= expected && f->bytes % 16 == 0);
    else
        assert_int_equal(f->bytes, expected);
}

static inline enum ts_status fixture_decode(struct fixture *f)
{
    return ts_codec_decode(&f->codec, f->payload, f->bytes, &f->chunk, &f->view);
}

#endif
