/* What the two ends of a transfer do with a payload besides encoding and restoring: checksum and digests. */
#include <string.h>

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
    clear(chunk, sums);
    size_t bytes = codec_encode(codec, from, chunk, out, escapes, sums->digest);
    sums->crc = ts_crc32c(0, out, bytes);
    return bytes;
}

enum ts_status ts_codec_take(const struct ts_codec *codec, const void *payload, size_t bytes,
                             const struct ts_codec_chunk *chunk, const struct ts_codec_view *to,
                             struct ts_codec_sums *sums)
{
    struct ts_codec_cache cache = {to->head_dim, to->dtype};
    codec_check_shape(codec, to, chunk);
    if (ts_crc32c(0, payload, bytes) != sums->crc)
        return TS_EAGAIN;
    struct codec_layout l = codec_layout_of(codec, cache, chunk);
    size_t exceptions;
    if (!codec_payload_fits(&l, payload, bytes, &exceptions))
        return TS_ECORRUPT;
    clear(chunk, sums);
    codec_decode(&l, payload, exceptions, chunk, to, sums->digest);
    return TS_OK;
}
