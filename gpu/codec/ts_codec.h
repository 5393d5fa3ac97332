/*
 * The KV codec: what the wire carries instead of 16-bit keys and values. A *tile* is one (layer, K|V,
 * kv_head, 16 tokens) run of the paged pool; a *chunk* is one layer, K and V, a head range and a token range
 * that begins on a block boundary. A codec is a description of its two *sides*, keys and values
 * (common/core/ts_codec_spec.h), here always that of one layer: overrides are not looked at. README.md has
 * the format, the exact arithmetic and the table of presets.
 *
 * The encoded payload of a chunk is structure-of-arrays with sizes that follow from its shape alone, so a
 * receiver can compute every offset before reading a byte:
 *
 *     escape bitmap | means | scales | minima | codes | first tokens | exceptions | raw tiles of escaped ones
 *
 * each section 16-byte aligned, tiles in the order [K|V][head][block]. Only the last two depend on the data
 * and have the order of the pool, [block][K|V][head]: exceptions are of lossless sides, the number of escaped
 * tiles is declared in the chunk header; both are checked. A tile escapes, at every dispatch level, when it
 * cannot be restored to finite numbers.
 *
 * Anything that no encoder writes is refused on decoding: bytes other than zero in padding or in the
 * parameters and codes of escaped tiles, parameters that are not finite or of the wrong sign. All functions
 * are pure and thread-safe, whatever rounding mode the caller has set; every dispatch level writes equal
 * bytes, and they depend on absolute token positions alone, not on how a transfer was cut.
 */
#ifndef TS_GPU_CODEC_H
#define TS_GPU_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"
#include "common/core/ts_codec_spec.h"
#include "common/core/ts_model.h"

/* Cosines and sines of the rotation by 0 .. 255 positions, for sides with CENTRE: [token][cos, sin][head_dim
 * / 2]. Equal on every machine. Immutable, shared between threads. */
struct ts_codec_rope;

/* `inverse_frequencies` [head_dim / 2], radians for each position (element i turns with i + head_dim / 2). */
struct ts_codec_rope *ts_codec_rope_new(const float *inverse_frequencies, uint32_t head_dim);
void ts_codec_rope_destroy(struct ts_codec_rope **rope);

/* Where tiles lie. `pool` is the base of the whole pool; blocks[i] is the pool block of tokens 16*i ..
 * 16*i+15 of the sequence. */
struct ts_codec_view {
    uint8_t *pool;
    uint32_t pool_blocks; /* blocks in the pool: the stride of a layer */
    uint32_t pool_heads;  /* KV heads held by this pool */
    uint32_t head_dim;
    enum ts_dtype dtype; /* F16 or BF16 */
    const uint32_t *blocks;
    uint32_t block_count;
    const struct ts_codec_rope *rope; /* of keys, for CENTRE; NULL = they are not rotated */
};

/* Layer and heads are relative to the pool, tokens to the sequence. token_begin is a multiple of
 * ts_codec_span; the last block may be partial: the encoder then treats the tail tokens of the tile as zeros,
 * so that the bytes do not depend on what lies there. A chunk that ends elsewhere than on a span ends the
 * sequence. */
struct ts_codec_chunk {
    uint32_t layer;
    uint32_t head_begin, head_count;
    uint32_t token_begin, token_count;
};

/* Whether a chunk announced by a peer is one that the functions below take: begins on a span, and its sizes
 * can be computed. That heads, layer and blocks lie inside of the pool is for the caller to check. */
bool ts_codec_shape_ok(const struct ts_codec *codec, uint32_t head_dim, const struct ts_codec_chunk *chunk);

/* The cache of one stream: what sizes depend on besides the codec. */
struct ts_codec_cache {
    uint32_t head_dim;
    enum ts_dtype dtype;
};

/* Largest payload of a chunk of that shape, and the payload when `escapes` tiles are escaped and a lossless
 * side has no exceptions. */
size_t ts_codec_bytes_max(const struct ts_codec *codec, struct ts_codec_cache cache,
                          const struct ts_codec_chunk *chunk);
size_t ts_codec_bytes(const struct ts_codec *codec, struct ts_codec_cache cache,
                      const struct ts_codec_chunk *chunk, uint32_t escapes);

/* Encodes a chunk from the pool into `out` (capacity at least ts_codec_bytes_max, 16-byte aligned). Cannot
 * fail for a valid shape. */
size_t ts_codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                       const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes);
/* Restores a payload, at any address, into the pool's tiles. TS_ECORRUPT when its length does not fit the
 * shape or its content is none that an encoder writes; nothing is written then. */
enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to);

/* Digest of the encoded bytes per (layer, kv_head), order-independent over tiles, so that both ends agree
 * however a transfer was cut. XORs into digest[0 .. head_count). */
enum ts_status ts_codec_digest(const struct ts_codec *codec, struct ts_codec_cache cache, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest);

/* What each end of a transfer does with a payload, in as few passes over it as there can be.
 *
 * The sender: encodes as ts_codec_encode, with the crc32c of the payload and, set rather than XORed, the
 * digests of its heads. */
struct ts_codec_sums {
    uint32_t crc;
    uint64_t *digest; /* [head_count], the caller's */
};
size_t ts_codec_give(const struct ts_codec *codec, const struct ts_codec_view *from,
                     const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes,
                     struct ts_codec_sums *sums);
/* The receiver: restores a payload whose crc32c is `sums->crc` and sets the digests. The sum comes first:
 * TS_EAGAIN when it differs, nothing is written, and the peer can be asked for the chunk again. TS_ECORRUPT
 * when the sum is right and the content none that an encoder writes: the peer is at fault, and the tiles of
 * the chunk may hold anything. Digests are set on TS_OK alone. */
enum ts_status ts_codec_take(const struct ts_codec *codec, const void *payload, size_t bytes,
                             const struct ts_codec_chunk *chunk, const struct ts_codec_view *to,
                             struct ts_codec_sums *sums);

/* Dispatch: "scalar", "avx2", "avx512". The best level the processor has is used unless TS_CPU_LEVEL or this
 * call lowers it. */
enum ts_status ts_codec_set_level(const char *level);

#endif
