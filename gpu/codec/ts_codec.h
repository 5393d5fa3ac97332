/*
 * The KV codec: what the wire carries instead of 16-bit keys and values. A *tile* is one (layer, K|V,
 * kv_head, 16 tokens) run of the paged pool; a *chunk* is one layer, K and V, a head range and a token range
 * that begins on a block boundary. The encoded payload of a chunk is structure-of-arrays with sizes that
 * follow from its shape alone, so a receiver can compute every offset before reading a byte:
 *
 *     escape bitmap (1 bit per tile) | scales fp16 | minima fp16 | codes | raw 16-bit tiles of the escaped
 * ones
 *
 * each section 16-byte aligned; tiles in the order [K|V][head][block]. Only the escape section depends on the
 * data; its length is declared in the chunk header and checked against the bitmap's population count.
 *
 * Codec `i4`: 4 bits in groups along head_dim, asymmetric, fp16 scale and fp16 minimum. The group in effect
 * is the descriptor's (64) or, when smaller, the largest power of two that divides head_dim; groups never
 * cross a head. Per group: zero = RN16(min), scale = RN16((max - zero) / 15), inv = 1 / scale, code =
 * RNE((x - zero) * inv) clamped to 0..15, restored = RN_dtype(zero + code * scale). Byte j of a group's codes
 * holds element j (low nibble) and j + group/2 (high nibble). A tile escapes, at every dispatch level, when
 * an element is NaN or infinite, when zero or scale is not finite, or when RN_dtype(zero) or RN_dtype(zero +
 * 15 * scale) is not finite. Codec `none` is the raw tiles.
 *
 * Anything that no encoder writes is refused on decoding: bytes other than zero in padding or in the
 * parameters and codes of escaped tiles, scales that are negative or not finite, minima that are not finite.
 * All functions are pure and thread-safe, whatever rounding mode the caller has set; every dispatch level
 * writes equal bytes.
 */
#ifndef TS_GPU_CODEC_H
#define TS_GPU_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"
#include "common/core/ts_model.h"

enum ts_codec_id { TS_CODEC_NONE = 1, TS_CODEC_I4 = 2 };

#define TS_CODEC_ASYM 1u

/* Travels in every OPEN; a receiver refuses what it does not know. */
struct ts_codec {
    enum ts_codec_id id;
    uint8_t key_bits, value_bits;
    uint16_t group;
    uint32_t flags; /* TS_CODEC_ASYM */
};

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
};

/* Layer and heads are relative to the pool, tokens to the sequence. token_begin is a multiple of 16; the last
 * block may be partial: the encoder then treats the tail tokens of the tile as zeros, so that the bytes do
 * not depend on what lies there. */
struct ts_codec_chunk {
    uint32_t layer;
    uint32_t head_begin, head_count;
    uint32_t token_begin, token_count;
};

enum ts_status ts_codec_parse(const char *name, struct ts_codec *out, struct ts_error *err);
enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err);

/* Whether a chunk announced by a peer is one that the functions below take: begins on a block, and its sizes
 * can be computed. That heads, layer and blocks lie inside of the pool is for the caller to check. */
bool ts_codec_shape_ok(uint32_t head_dim, const struct ts_codec_chunk *chunk);

/* Largest payload of a chunk of that shape (all tiles escaped), and the payload when `escapes` tiles are
 * escaped. */
size_t ts_codec_bytes_max(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens);
size_t ts_codec_bytes(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens,
                      uint32_t escapes);

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
enum ts_status ts_codec_digest(const struct ts_codec *codec, uint32_t head_dim, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest);

/* Dispatch: "scalar", "avx2", "avx512". The best level the processor has is used unless TS_CPU_LEVEL or this
 * call lowers it. */
enum ts_status ts_codec_set_level(const char *level);

#endif
