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
 * Codec `i4`: 4 bits, groups of 64 along head_dim (head_dim itself when smaller; groups never cross a head),
 * asymmetric, fp16 scale and fp16 minimum. Bit-exact rules: kernels.md 1.7. Byte j of a group's codes holds
 * element j (low nibble) and j + group/2 (high nibble). Codec `none` is the raw tiles. All functions are pure
 * and thread-safe; every dispatch level writes equal bytes.
 */
#ifndef TS_GPU_CODEC_H
#define TS_GPU_CODEC_H

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
const char *ts_codec_name(const struct ts_codec *codec);
enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err);

/* Largest payload of a chunk of that shape (all tiles escaped), and the payload when `escapes` tiles are
 * escaped. */
size_t ts_codec_bytes_max(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens);
size_t ts_codec_bytes(const struct ts_codec *codec, uint32_t head_dim, uint32_t heads, uint32_t tokens,
                      uint32_t escapes);

/* Encodes a chunk from the pool into `out` (capacity at least ts_codec_bytes_max, 16-byte aligned). Cannot
 * fail for a valid shape. */
size_t ts_codec_encode(const struct ts_codec *codec, const struct ts_codec_view *from,
                       const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes);
/* Restores a payload into the pool's tiles. TS_ECORRUPT when the length or the bitmap does not fit the shape;
 * nothing is written then. */
enum ts_status ts_codec_decode(const struct ts_codec *codec, const void *payload, size_t bytes,
                               const struct ts_codec_chunk *chunk, const struct ts_codec_view *to);

/* Digest of the encoded bytes per (layer, kv_head), order-independent over tiles, so that both ends agree
 * however a transfer was cut. XORs into digest[0 .. head_count). */
enum ts_status ts_codec_digest(const struct ts_codec *codec, uint32_t head_dim, const void *payload,
                               size_t bytes, const struct ts_codec_chunk *chunk, uint64_t *digest);

/* Dispatch: "scalar", "avx2", "avx512". The best level the processor has is used unless TS_CPU_LEVEL or this
 * call lowers it. */
enum ts_status ts_codec_set_level(const char *level);
const char *ts_codec_level(void);

#endif
