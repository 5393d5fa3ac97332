/*
 * Inside the codec: what one dispatch level provides, and the layout of a payload. A level works on one tile:
 * 16 tokens of one KV head, keys or values, contiguous.
 */
#ifndef TS_GPU_CODEC_IMPL_H
#define TS_GPU_CODEC_IMPL_H

#include <stdbool.h>
#include <string.h>

#include "gpu/codec/ts_codec.h"

#define CODEC_ROWS         ((uint32_t)TS_KV_BLOCK_TOKENS)
#define CODEC_DIM_MAX      TS_CODEC_DIM_MAX
#define CODEC_TILE_GROUPS  1024u /* 16 tokens of head_dim 1024 in groups of 16 */
#define CODEC_HADAMARD_MAX 256u  /* longer transforms could restore to infinity (README.md) */

/* One side of a codec on a given cache, worked out. */
struct codec_side {
    enum ts_dtype dtype;
    uint32_t head_dim, bits;
    uint32_t group, groups; /* elements of one, their number in a tile; 0 for sides of 16 bits */
    uint32_t hadamard;      /* elements of a transform; 0 = none */
    bool asym, centred, lossless;
    uint16_t limit; /* an element with this magnitude or more makes its tile escape */
};

/* Of a tile of centred keys. Rows outside of [row_begin, row_end) are zeros. */
struct codec_centre {
    const float *turns; /* of its first row: [row][cos, sin][head_dim / 2]; NULL = not rotated */
    const float *mean;  /* [head_dim] */
    uint32_t row_begin, row_end;
};

struct codec_level {
    const char *name;
    /* Whether all magnitudes lie below the limit. */
    bool (*within)(const uint16_t *in, uint32_t count, uint16_t limit);
    /* Quantises 16 x head_dim elements; scales and minima (of asymmetric sides) are [row][group] fp16 bits,
     * codes [row][group]. `centre` is NULL for sides that are not centred. False: the tile must escape; the
     * output is then unspecified. `next` is the tile that follows, to be fetched meanwhile. */
    bool (*encode_tile)(const struct codec_side *side, const uint16_t *in, const uint16_t *next,
                        const struct codec_centre *centre, uint16_t *scales, uint16_t *minima,
                        uint8_t *codes);
    /* From anywhere in a payload, finite parameters; up to 14 bytes behind those are read, and are there,
     * since codes follow. `out` is aligned to 32 bytes; codec_fence() before another thread reads it. */
    void (*decode_tile)(const struct codec_side *side, const uint8_t *scales, const uint8_t *minima,
                        const uint8_t *codes, const struct codec_centre *centre, uint32_t rows,
                        uint16_t *out);
    /* sums[head_dim] += rows of the tile without their rotation, in order; centre->mean is not used, and
     * centre->turns those of rows within a tile. */
    void (*add_rows)(const struct codec_side *side, const uint16_t *in, const struct codec_centre *centre,
                     float *sums);
    /* fp16 at any address to floats; `count` is a multiple of 16. */
    void (*read_halves)(const uint8_t *from, uint32_t count, float *to);
    /* Lossless sides: a base for each row, planes, and the exponents that the planes do not hold. Returns the
     * number of these. */
    uint32_t (*pack_tile)(const struct codec_side *side, const uint16_t *in, uint8_t *bases, uint8_t *planes,
                          uint8_t *exceptions);
    /* Its inverse, of planes that are checked; `out` as above. Returns the number of exceptions, too. */
    uint32_t (*unpack_tile)(const struct codec_side *side, const uint8_t *bases, const uint8_t *planes,
                            const uint8_t *exceptions, uint32_t rows, uint16_t *out);
    /* The number of exceptions, of which `most` are there; CODEC_INSANE if codes or exceptions are none that
     * pack_tile writes. */
    uint32_t (*check_planes)(const struct codec_side *side, const uint8_t *bases, const uint8_t *planes,
                             const uint8_t *exceptions, size_t most, uint32_t rows);
};

#define CODEC_INSANE UINT32_MAX

extern const struct codec_level codec_scalar;
#if defined(__x86_64__)
extern const struct codec_level codec_avx2;
extern const struct codec_level codec_avx512;
extern const struct codec_level codec_avx512bf16;
#endif
const struct codec_level *codec_level(void);

/* --- layout --------------------------------------------------------------------------------------------- */

struct codec_side_layout {
    struct codec_side side;
    uint32_t scale_row, code_row; /* bytes of a row; minima have as many as scales, or none */
    size_t scales, minima, codes; /* offsets */
};

/* Byte offsets of the sections of a payload. Of the last block only the rows that hold tokens are there. */
struct codec_layout {
    uint32_t tiles, heads, blocks, tokens, spans, raw_rows;
    bool bitmapped; /* tiles can escape */
    struct codec_side_layout sides[2];
    size_t means, first_tokens, tail; /* tail: exceptions, then raw tiles */
    size_t tile_bytes, row_bytes;
};

/* Where one tile lies. */
struct codec_place {
    uint32_t index; /* in the bitmap */
    uint32_t rows;  /* that are there */
    size_t row;     /* of its side, before it */
};

static inline struct codec_place codec_place_of(const struct codec_layout *l, uint32_t kv, uint32_t head,
                                                uint32_t block)
{
    uint32_t left = l->tokens - block * CODEC_ROWS;
    return (struct codec_place){.index = (kv * l->heads + head) * l->blocks + block,
                                .rows = left < CODEC_ROWS ? left : CODEC_ROWS,
                                .row = (size_t)head * l->tokens + block * CODEC_ROWS};
}

/* Bytes of all scales, of all codes of a side. */
static inline size_t codec_scale_bytes(const struct codec_layout *l, const struct codec_side_layout *s)
{
    return (size_t)l->heads * l->tokens * s->scale_row;
}

static inline size_t codec_code_bytes(const struct codec_layout *l, const struct codec_side_layout *s)
{
    return (size_t)l->heads * l->tokens * s->code_row;
}

struct codec_layout codec_layout_of(const struct ts_codec *codec, struct ts_codec_cache cache,
                                    const struct ts_codec_chunk *chunk);
/* Bytes of the planes of one row of a lossless side: low bytes, nibbles, and for fp16 two bits. */
uint32_t codec_plane_bytes(const struct codec_side *side);
static inline size_t codec_align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static inline bool codec_escaped(const struct codec_layout *l, const uint8_t *payload, uint32_t index)
{
    return l->bitmapped && (payload[index / 8] >> index % 8 & 1);
}

uint16_t *codec_tile_at(const struct ts_codec_view *view, const struct ts_codec_chunk *chunk, uint32_t kv,
                        uint32_t head, uint32_t block);
/* Offset of the mean of a head in the span of that block. */
static inline size_t codec_mean_at(const struct codec_layout *l, uint32_t head, uint32_t block)
{
    return l->means + ((size_t)head * l->spans + block / (TS_CODEC_SPAN_TOKENS / CODEC_ROWS)) * l->row_bytes;
}

/* Rows of this block that travel in 16 bits. */
static inline uint32_t codec_raw_rows_of(const struct codec_layout *l, uint32_t block)
{
    return block == 0 ? l->raw_rows : 0;
}

/* The tile that follows in the order of the pool; of the last one itself. */
uint16_t *codec_tile_after(const struct codec_layout *l, const struct ts_codec_view *view,
                           const struct ts_codec_chunk *chunk, uint32_t kv, uint32_t head, uint32_t block);

void codec_check_shape(const struct ts_codec *codec, const struct ts_codec_view *view,
                       const struct ts_codec_chunk *chunk);
/* Rotations of a tile of keys; NULL where they are not rotated. */
const float *codec_turns_of(const struct ts_codec_view *view, const struct ts_codec_chunk *chunk,
                            uint32_t block);

/* --- checked payloads (codec_parts.c) ------------------------------------------------------------------- */

/* The sections of one tile: bytes, since a received payload lies at any address. */
struct codec_parts {
    uint32_t rows;
    const uint8_t *raw; /* or NULL */
    const uint8_t *scales, *minima, *codes;
    const uint8_t *exceptions; /* of a lossless side; the next ones follow after its own */
    uint32_t exception_count;  /* once they have been counted */
};

/* Goes through the tiles of a payload in the order [block][K|V][head], which is that of the pool. */
struct codec_reader {
    const struct codec_layout *layout;
    const uint8_t *payload;
    size_t exceptions, raw; /* offsets of the next ones */
    uint32_t kv, head, block;
};

/* The length against shape, bitmap and exceptions, whose number it tells, then the content. */
bool codec_payload_fits(const struct codec_layout *l, const uint8_t *payload, size_t bytes,
                        size_t *exceptions);
struct codec_reader codec_reader_of(const struct codec_layout *l, const uint8_t *payload, size_t exceptions);
struct codec_parts codec_next_tile(struct codec_reader *reader);
/* Once the exceptions of the tile are counted, and before the next one. */
static inline void codec_pass_exceptions(struct codec_reader *reader, struct codec_parts *p, uint32_t count)
{
    p->exception_count = count;
    reader->exceptions += count;
}

/* What the digest of a head is XORed with: for a tile, `block` in the chunk, and for the rest of all heads.
 */
uint64_t codec_tile_digest(const struct codec_layout *l, const struct ts_codec_chunk *chunk, uint32_t kv,
                           uint32_t block, const struct codec_parts *p);
void codec_rest_digest(const struct codec_layout *l, const uint8_t *payload,
                       const struct ts_codec_chunk *chunk, uint64_t *digest);

/* ts_codec_encode and ts_codec_decode, which digest besides where that is not NULL; the payload is checked.
 */
size_t codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                    const struct ts_codec_chunk *chunk, uint8_t *out, uint32_t *escapes, uint64_t *digest);
void codec_decode(const struct codec_layout *l, const uint8_t *payload, size_t exceptions,
                  const struct ts_codec_chunk *chunk, const struct ts_codec_view *to, uint64_t *digest);

/* --- numbers -------------------------------------------------------------------------------------------- */

static inline uint16_t codec_load16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return v;
}

float codec_f16_to_f32(uint16_t bits);
uint16_t codec_f32_to_f16(float value); /* round to nearest even; overflow gives infinity */
uint16_t codec_f32_to_bf16(float value);

static inline float codec_bf16_to_f32(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)bits << 16};
    return v.f;
}

static inline float codec_power_of_two(int exponent) /* -126 .. 127 */
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)(exponent + 127) << 23};
    return v.f;
}

/* 1 / sqrt(n) in two powers of two whose product is 1 / n: n = 128 gives 2^-3 before quantising and 2^-4
 * after the inverse. */
static inline float codec_factor_in(uint32_t hadamard)
{
    return codec_power_of_two(-(__builtin_ctz(hadamard) / 2));
}

static inline float codec_factor_out(uint32_t hadamard)
{
    return codec_power_of_two(-((__builtin_ctz(hadamard) + 1) / 2));
}

/* sums += x without its rotation, pairs (i, i + half) of elements; NULL = not rotated. */
static inline void codec_add_turned(const float *restrict x, const float *restrict turns, uint32_t half,
                                    float *restrict sums)
{
    for (uint32_t i = 0; !turns && i < 2 * half; i++)
        sums[i] += x[i];
    for (uint32_t i = 0; turns && i < half; i++) {
        float a = x[i], b = x[half + i], cosine = turns[i], sine = turns[half + i];
        float ac = a * cosine, bs = b * sine, bc = b * cosine, as = a * sine;
        sums[i] += ac + bs;
        sums[half + i] += bc - as;
    }
}

/* Other libraries of a process may have set another rounding mode, or flushing of subnormals, on a thread:
 * the bytes must not depend on it. */
#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned int codec_mode;

static inline codec_mode codec_mode_enter(void)
{
    codec_mode mode = _mm_getcsr();
    _mm_setcsr(0x1f80); /* to nearest even, exceptions masked, no FTZ, no DAZ */
    return mode;
}

static inline void codec_mode_leave(codec_mode mode)
{
    _mm_setcsr(mode);
}

/* Restored tiles are written past the caches: they are read much later, and what they replace is not. */
static inline void codec_fence(void)
{
    _mm_sfence();
}
#else
#include <fenv.h>
typedef fenv_t codec_mode;

static inline codec_mode codec_mode_enter(void)
{
    codec_mode mode;
    fegetenv(&mode);
    fesetenv(FE_DFL_ENV);
    return mode;
}

static inline void codec_mode_leave(codec_mode mode)
{
    fesetenv(&mode);
}

static inline void codec_fence(void)
{
}
#endif

#endif
