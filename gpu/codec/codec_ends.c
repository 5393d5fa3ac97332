/* What the two ends of a transfer do with a payload besides encoding and restoring: checksum and digests. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_crc32c.h"
#include "gpu/codec/codec_impl.h"

static void clear(const struct ts_codec_chunk *chunk, struct ts_codec_sums *sums)
{
    if (chunk->head_count > 0)
        memset(sums->digest, 0, chunk->head_count * sizeof *sums->digest);
}

size_t ts_codec_give(const struct ts_codec *codec, const struct ts_codec_view *from,
                     const struct ts_codec_chunk *chunk, void *out, uint32_t *escapes,
                     struct ts_codec_sums *sums)
{
    struct ts_codec_cache cache = {from->head_dim, from->dtype};
    size_t bytes = ts_codec_encode(codec, from, chunk, out, escapes);
    sums->crc = ts_crc32c(0, out, bytes);
    clear(chunk, sums);
    enum ts_status status = ts_codec_digest(codec, cache, out, bytes, chunk, sums->digest);
    TS_ASSERT(status == TS_OK);
    return bytes;
}

enum ts_status ts_codec_take(const struct ts_codec *codec, const void *payload, size_t bytes,
                             const struct ts_codec_chunk *chunk, const struct ts_codec_view *to,
                             struct ts_codec_sums *sums)
{
    struct ts_codec_cache cache = {to->head_dim, to->dtype};
    if (ts_crc32c(0, payload, bytes) != sums->crc)
        return TS_EAGAIN;
    enum ts_status status = ts_codec_decode(codec, payload, bytes, chunk, to);
    if (status != TS_OK)
        return status;
    clear(chunk, sums);
    return ts_codec_digest(codec, cache, payload, bytes, chunk, sums->digest);
}
