#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/codec/ts_codec.h"
#include "services/tsctl/tsctl.h"

struct codec_flags {
    struct ts_conf *conf;
    const char *codec, *dtype, *output;
    uint32_t head_dim, tokens;
};

static const struct ts_option options[] = {
    {"codec", TS_OPTION_STRING, offsetof(struct codec_flags, codec), "i4", 0, 0,
     "none, lz16, i8, i4, i4h, i4hs, i4hc or k8v4h"},
    {"dtype", TS_OPTION_STRING, offsetof(struct codec_flags, dtype), "bf16", 0, 0, "f16 or bf16"},
    {"head_dim", TS_OPTION_U32, offsetof(struct codec_flags, head_dim), "64", 2, 1024,
     "elements of one head"},
    {"tokens", TS_OPTION_U32, offsetof(struct codec_flags, tokens), "0", 0, 1e6,
     "decode: tokens in the file; 0 = as many whole blocks of 16 as it holds"},
    {"output", TS_OPTION_STRING, offsetof(struct codec_flags, output), NULL, 0, 0,
     "write here instead of to stdout"},
};

struct shape {
    struct ts_codec codec;
    struct ts_codec_view view;
    struct ts_codec_chunk chunk;
    uint32_t *blocks;
};

static void *read_file(const char *path, size_t *bytes, struct ts_error *err)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    size_t count = 0, capacity = 0, n;
    if (!file) {
        ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    do {
        ts_array_reserve((void **)&data, &capacity, count + (1 << 20), 1);
        n = fread(data + count, 1, 1 << 20, file);
        count += n;
    } while (n > 0);
    if (ferror(file)) { /* a folder, for example, opens */
        ts_error_set(err, TS_EIO, "cannot read %s: %s", path, strerror(errno));
        ts_free(data);
        data = NULL;
    }
    fclose(file);
    *bytes = count;
    return data;
}

/* A file holds one KV head of one layer: keys [tokens][head_dim], then values, as 16-bit elements. */
static enum ts_status shape_of(const struct codec_flags *f, uint32_t tokens, struct shape *s,
                               struct ts_error *err)
{
    bool f16 = strcmp(f->dtype, "f16") == 0;
    if (!f16 && strcmp(f->dtype, "bf16") != 0)
        return ts_error_set(err, TS_EINVAL, "unknown --dtype %s: expected f16 or bf16", f->dtype);
    if (ts_codec_parse(f->codec, &s->codec, err) != TS_OK ||
        ts_codec_check(&s->codec, f->head_dim, err) != TS_OK)
        return err->status;
    uint32_t count = ts_kv_blocks_for(tokens);
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * f->head_dim * 2;
    s->blocks = ts_xcalloc(count, sizeof *s->blocks);
    for (uint32_t i = 0; i < count; i++)
        s->blocks[i] = i;
    s->view = (struct ts_codec_view){.pool = ts_xcalloc(count, 2 * tile),
                                     .pool_blocks = count,
                                     .pool_heads = 1,
                                     .head_dim = f->head_dim,
                                     .dtype = f16 ? TS_DTYPE_F16 : TS_DTYPE_BF16,
                                     .blocks = s->blocks,
                                     .block_count = count};
    s->chunk = (struct ts_codec_chunk){.head_count = 1, .token_count = tokens};
    return TS_OK;
}

/* Moves plain [K|V][token][dim] data to or from the paged tiles [block][K|V][token][dim]. */
static void move_plain(const struct shape *s, uint8_t *plain, bool into_pool)
{
    size_t row = (size_t)s->view.head_dim * 2, tile = row * TS_KV_BLOCK_TOKENS;
    for (uint32_t kv = 0; kv < 2; kv++) {
        for (uint32_t t = 0; t < s->chunk.token_count; t++) {
            uint8_t *a = plain + ((size_t)kv * s->chunk.token_count + t) * row;
            uint8_t *b = s->view.pool + (size_t)(t / TS_KV_BLOCK_TOKENS) * 2 * tile + kv * tile +
                         t % TS_KV_BLOCK_TOKENS * row;
            memcpy(into_pool ? b : a, into_pool ? a : b, row);
        }
    }
}

static void shape_free(struct shape *s)
{
    ts_free(s->view.pool);
    ts_free(s->blocks);
}

static enum ts_status encode(const struct codec_flags *f, uint8_t *in, size_t bytes, uint8_t **out,
                             size_t *out_bytes, struct ts_error *err)
{
    struct shape s = {.blocks = NULL};
    size_t row = (size_t)f->head_dim * 2;
    if (bytes == 0 || bytes % (2 * row) != 0)
        return ts_error_set(err, TS_EINVAL, "%zu bytes are not keys and values of %u 16-bit elements a token",
                            bytes, f->head_dim);
    uint32_t tokens = (uint32_t)(bytes / (2 * row)), escapes;
    enum ts_status status = shape_of(f, tokens, &s, err);
    if (status == TS_OK) {
        *out = ts_xaligned(
            64, ts_codec_bytes_max(&s.codec, (struct ts_codec_cache){f->head_dim, s.view.dtype}, &s.chunk));
        move_plain(&s, in, true);
        *out_bytes = ts_codec_encode(&s.codec, &s.view, &s.chunk, *out, &escapes);
    }
    shape_free(&s);
    return status;
}

static enum ts_status decode_tokens(const struct codec_flags *f, uint32_t tokens, const uint8_t *in,
                                    size_t bytes, uint8_t **out, size_t *out_bytes, struct ts_error *err)
{
    struct shape s = {.blocks = NULL};
    enum ts_status status = shape_of(f, tokens, &s, err);
    if (status == TS_OK && (status = ts_codec_decode(&s.codec, in, bytes, &s.chunk, &s.view)) != TS_OK)
        ts_error_set(err, status,
                     "%zu bytes are not a payload of codec %s: check --codec, --head-dim and --tokens", bytes,
                     f->codec);
    if (status == TS_OK) {
        *out_bytes = (size_t)f->head_dim * 4 * tokens;
        *out = ts_xmalloc(*out_bytes);
        move_plain(&s, *out, false);
    }
    shape_free(&s);
    return status;
}

/* Without --tokens: escaped tiles and exceptions make payloads of several lengths for one number of blocks,
 * so each number that can give this length is tried. */
static enum ts_status decode(const struct codec_flags *f, const uint8_t *in, size_t bytes, uint8_t **out,
                             size_t *out_bytes, struct ts_error *err)
{
    struct shape s = {.blocks = NULL};
    if (f->tokens > 0)
        return decode_tokens(f, f->tokens, in, bytes, out, out_bytes, err);
    enum ts_status status = shape_of(f, TS_KV_BLOCK_TOKENS, &s, err);
    shape_free(&s);
    if (status != TS_OK)
        return status;
    const struct ts_codec_cache cache = {f->head_dim, s.view.dtype};
    bool lossless = ((s.codec.key.flags | s.codec.value.flags) & TS_CODEC_LOSSLESS) != 0;
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * f->head_dim * 2, least;
    while ((least = ts_codec_bytes(&s.codec, cache, &s.chunk, 0)) <= bytes) {
        if ((lossless || (bytes - least) % tile == 0) &&
            bytes <= ts_codec_bytes_max(&s.codec, cache, &s.chunk) &&
            decode_tokens(f, s.chunk.token_count, in, bytes, out, out_bytes, err) == TS_OK)
            return TS_OK;
        s.chunk.token_count += TS_KV_BLOCK_TOKENS;
    }
    return ts_error_set(err, TS_EINVAL,
                        "%zu bytes are not a payload of codec %s in whole blocks of %u tokens: check "
                        "--codec and --head-dim, or give --tokens",
                        bytes, f->codec, TS_KV_BLOCK_TOKENS);
}

static enum ts_status write_out(const struct codec_flags *f, const void *data, size_t bytes,
                                struct ts_error *err)
{
    FILE *to = *f->output ? fopen(f->output, "wb") : stdout;
    if (!to || fwrite(data, 1, bytes, to) != bytes || fflush(to) != 0)
        return ts_error_set(err, TS_EIO, "cannot write %s: %s", *f->output ? f->output : "stdout",
                            strerror(errno));
    if (to != stdout)
        fclose(to);
    return TS_OK;
}

static int run(const struct codec_flags *f, const struct ts_conf_strings *arguments)
{
    struct ts_error err = {0};
    size_t bytes = 0, out_bytes = 0;
    uint8_t *out = NULL;
    bool encodes = arguments->count == 2 && strcmp(arguments->items[0], "encode") == 0;
    if (arguments->count != 2 || (!encodes && strcmp(arguments->items[0], "decode") != 0))
        return tsctl_fail("codec", 2,
                          "usage: tsctl codec encode|decode --codec C --dtype D --head-dim N FILE");
    uint8_t *in = read_file(arguments->items[1], &bytes, &err);
    enum ts_status status = !in       ? err.status
                            : encodes ? encode(f, in, bytes, &out, &out_bytes, &err)
                                      : decode(f, in, bytes, &out, &out_bytes, &err);
    if (status == TS_OK)
        status = write_out(f, out, out_bytes, &err);
    ts_free(in);
    ts_free(out);
    return status == TS_OK ? 0 : tsctl_fail("codec", 1, err.text);
}

int tsctl_codec(int argc, char **argv)
{
    struct codec_flags f = {.conf = NULL};
    struct ts_conf_strings arguments;
    struct ts_error err = {0};
    int code = 0;
    switch (
        ts_conf_load("codec", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("codec", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f, &arguments);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
