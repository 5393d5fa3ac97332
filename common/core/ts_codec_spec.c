/* Descriptions of codecs: presets, what is known, what travels. */
#include "common/core/ts_codec_spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_model.h"
#include "common/core/ts_schema_table.h"

#define GROUP_MAX 256u
#define GROUP_MIN 16u

#define RAW                                                                                                  \
    {                                                                                                        \
        .bits = 16                                                                                           \
    }
#define LZ                                                                                                   \
    {                                                                                                        \
        .bits = 16, .flags = TS_CODEC_LOSSLESS                                                               \
    }
#define H8                                                                                                   \
    {                                                                                                        \
        .bits = 8, .flags = TS_CODEC_HADAMARD                                                                \
    }
#define A4                                                                                                   \
    {                                                                                                        \
        .bits = 4, .flags = TS_CODEC_ASYM, .group = 64                                                       \
    }
#define HA4                                                                                                  \
    {                                                                                                        \
        .bits = 4, .flags = TS_CODEC_HADAMARD | TS_CODEC_ASYM, .group = 64                                   \
    }
#define HS4                                                                                                  \
    {                                                                                                        \
        .bits = 4, .flags = TS_CODEC_HADAMARD, .group = 32                                                   \
    }
#define HAC4                                                                                                 \
    {                                                                                                        \
        .bits = 4, .flags = TS_CODEC_HADAMARD | TS_CODEC_ASYM | TS_CODEC_CENTRE, .group = 64                 \
    }
#define SHORT 32 /* below, parameters and means dominate and bytes do not matter (kernels.md 1.6) */

/* One first token in 16 bits: it draws most of the attention that sinks get, and four would take a prompt of
 * 512 tokens above 4.55 bits. */
static const struct {
    const char *name;
    struct ts_codec codec;
} presets[] = {
    {"none", {.key = RAW, .value = RAW}},
    {"lz16", {.key = LZ, .value = LZ}},
    {"i8", {.key = H8, .value = H8}},
    {"i4", {.key = A4, .value = A4, .short_tokens = SHORT}},
    {"i4h", {.key = HA4, .value = HA4, .raw_tokens = 1, .short_tokens = SHORT}},
    {"i4hs", {.key = HS4, .value = HS4, .raw_tokens = 1, .short_tokens = SHORT}},
    {"i4hc", {.key = HAC4, .value = HA4, .raw_tokens = 1, .short_tokens = SHORT}},
    {"k8v4h", {.key = H8, .value = HA4, .raw_tokens = 1, .short_tokens = SHORT}},
};

enum ts_status ts_codec_parse(const char *name, struct ts_codec *out, struct ts_error *err)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(presets); i++) {
        if (strcmp(name, presets[i].name) == 0) {
            *out = presets[i].codec;
            return TS_OK;
        }
    }
    return ts_error_set(err, TS_EUNSUPPORTED,
                        "unknown KV codec \"%s\": expected none, lz16, i8, i4, i4h, i4hs, i4hc or k8v4h",
                        name);
}

static bool sides_equal(struct ts_codec_side a, struct ts_codec_side b)
{
    return a.bits == b.bits && a.flags == b.flags && a.group == b.group;
}

const char *ts_codec_name(const struct ts_codec *codec)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(presets); i++) {
        const struct ts_codec *p = &presets[i].codec;
        if (sides_equal(p->key, codec->key) && sides_equal(p->value, codec->value) &&
            p->raw_tokens == codec->raw_tokens && p->short_tokens == codec->short_tokens &&
            codec->layers.count == 0)
            return presets[i].name;
    }
    return "custom";
}

const char *ts_codec_preset(size_t index)
{
    return index < TS_ARRAY_SIZE(presets) ? presets[index].name : NULL;
}

/* The combinations of bits, flags and group that exist. */
static bool side_known(struct ts_codec_side s, bool key)
{
    bool grouped = s.group >= GROUP_MIN && s.group <= GROUP_MAX && (s.group & (s.group - 1)) == 0;
    unsigned centre = key ? TS_CODEC_CENTRE : 0;
    switch (s.bits) {
    case 16:
        return (s.flags & ~TS_CODEC_LOSSLESS) == 0 && s.group == 0;
    case 8:
        return (s.flags & ~(TS_CODEC_HADAMARD | centre)) == 0 && (grouped || s.group == 0);
    case 4:
        return (s.flags & ~(TS_CODEC_ASYM | TS_CODEC_HADAMARD | centre)) == 0 && grouped &&
               (s.group < GROUP_MAX || (s.flags & TS_CODEC_ASYM) != 0); /* README.md, Arithmetic */
    default:
        return false;
    }
}

static bool bits_known(uint32_t bits)
{
    return bits == 0 || bits == 4 || bits == 8 || bits == 16;
}

enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err)
{
    const struct ts_codec_side *k = &codec->key, *v = &codec->value;
    if (!side_known(*k, true) || !side_known(*v, false) || codec->raw_tokens > TS_KV_BLOCK_TOKENS)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "unknown KV codec: keys of %u bits, flags %u, group %u, values of %u bits, flags "
                            "%u, group %u, %u raw tokens",
                            k->bits, k->flags, k->group, v->bits, v->flags, v->group, codec->raw_tokens);
    if (head_dim == 0 || head_dim > TS_CODEC_DIM_MAX)
        return ts_error_set(err, TS_EUNSUPPORTED, "the KV codecs take a head_dim of 1 to %u, not %u",
                            TS_CODEC_DIM_MAX, head_dim);
    for (uint32_t i = 0; i < codec->layers.count; i++) {
        const struct ts_codec_override *o = &codec->layers.data[i];
        if (!bits_known(o->key_bits) || !bits_known(o->value_bits))
            return ts_error_set(
                err, TS_EUNSUPPORTED,
                "KV codec: layer %u has keys of %u and values of %u bits: expected 4, 8 or 16", o->layer,
                o->key_bits, o->value_bits);
    }
    bool plain = codec->layers.count == 0 && k->bits == 16 && v->bits == 16 &&
                 ((k->flags | v->flags) & TS_CODEC_LOSSLESS) == 0;
    if (!plain && head_dim % GROUP_MIN != 0)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "codec %s needs a head_dim that 16 divides, not %u: use codec none",
                            ts_codec_name(codec), head_dim);
    return TS_OK;
}

struct ts_codec ts_codec_for_prompt(const struct ts_codec *codec, uint32_t tokens)
{
    return tokens < codec->short_tokens ? (struct ts_codec){.key = H8, .value = H8} : *codec;
}

static struct ts_codec_side side_with(struct ts_codec_side side, uint32_t bits)
{
    if (bits == 0 || bits == side.bits)
        return side;
    if (bits == 16)
        return (struct ts_codec_side)RAW;
    if (bits == 8)
        return (struct ts_codec_side){.bits = 8, .flags = side.flags & (TS_CODEC_HADAMARD | TS_CODEC_CENTRE)};
    return (struct ts_codec_side)HA4;
}

struct ts_codec ts_codec_for_layer(const struct ts_codec *codec, uint32_t layer)
{
    struct ts_codec result = *codec;
    result.layers = (struct ts_codec_overrides){.count = 0};
    for (uint32_t i = 0; i < codec->layers.count; i++) {
        const struct ts_codec_override *o = &codec->layers.data[i];
        if (o->layer != layer)
            continue;
        result.key = side_with(codec->key, o->key_bits);
        result.value = side_with(codec->value, o->value_bits);
    }
    return result;
}

uint32_t ts_codec_span(const struct ts_codec *codec)
{
    return codec->key.flags & TS_CODEC_CENTRE ? TS_CODEC_SPAN_TOKENS : TS_KV_BLOCK_TOKENS;
}

static double side_bits(struct ts_codec_side side, uint32_t head_dim)
{
    if (side.flags & TS_CODEC_LOSSLESS)
        return 12 + 8.0 / head_dim;
    if (side.bits == 16)
        return 16;
    double group = side.group && side.group < head_dim ? side.group : head_dim;
    double means = side.flags & TS_CODEC_CENTRE ? 16.0 / TS_CODEC_SPAN_TOKENS : 0;
    return side.bits + (side.flags & TS_CODEC_ASYM ? 32 : 16) / group + means;
}

double ts_codec_bits(const struct ts_codec *codec, uint32_t head_dim)
{
    return (side_bits(codec->key, head_dim) + side_bits(codec->value, head_dim)) / 2;
}

/* --- text --- */

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A decimal number of at most nine digits; the text behind it, or NULL. */
static const char *number(const char *at, uint32_t *out)
{
    uint32_t value = 0, digits = 0;
    for (; digit(*at) && digits < 9; at++, digits++)
        value = value * 10 + (uint32_t)(*at - '0');
    *out = value;
    return digits > 0 && !digit(*at) ? at : NULL;
}

/* "LAYER=BITS" or "LAYER=KEYBITS/VALUEBITS"; the text behind it, or NULL. */
static const char * override(const char *at, struct ts_codec_override *out)
{
    at = number(at, &out->layer);
    at = at && *at == '=' ? number(at + 1, &out->key_bits) : NULL;
    out->value_bits = out->key_bits;
    if (at && *at == '/')
        at = number(at + 1, &out->value_bits);
    return at && (*at == ',' || *at == '\0') && bits_known(out->key_bits) && bits_known(out->value_bits)
               ? at
               : NULL;
}

enum ts_status ts_codec_parse_text(struct ts_str text, struct ts_arena *arena, struct ts_codec *out,
                                   struct ts_error *err)
{
    char *name = ts_arena_printf(arena, "%.*s", (int)text.count, text.data ? text.data : "");
    char *list = strchr(name, ',');
    if (list)
        *list++ = '\0';
    enum ts_status status = ts_codec_parse(name, out, err);
    if (status != TS_OK || !list)
        return status;
    struct ts_codec_override *layers = ts_arena_alloc(arena, sizeof *layers * TS_CODEC_OVERRIDES_MAX);
    uint32_t count = 0;
    for (const char *at = list;; at++) {
        const char *begin = at;
        at = count < TS_CODEC_OVERRIDES_MAX ? override(at, &layers[count]) : NULL;
        if (!at)
            return ts_error_set(
                err, TS_EINVAL,
                "KV codec %s: \"%s\" is no LAYER=BITS or LAYER=KEYBITS/VALUEBITS with bits of "
                "4, 8 or 16",
                name, begin);
        count++;
        if (*at == '\0')
            break;
    }
    out->layers = (struct ts_codec_overrides){layers, count};
    return TS_OK;
}

enum ts_status ts_codec_check_option(const char *text, struct ts_error *err)
{
    struct ts_arena arena;
    struct ts_codec codec;
    struct ts_error why;
    ts_arena_init(&arena);
    enum ts_status status =
        strcmp(text, "auto") == 0 ? TS_OK : ts_codec_parse_text(ts_str_of(text), &arena, &codec, &why);
    if (status != TS_OK)
        ts_error_set(err, TS_EINVAL, "codec = %s: %s", text, why.text);
    ts_arena_fini(&arena);
    return status == TS_OK ? TS_OK : TS_EINVAL;
}

/* --- schema --- */

static const struct ts_field side_fields[] = {
    TS_F(codec_side, bits),
    TS_F(codec_side, flags),
    TS_F(codec_side, group),
};
static const struct ts_schema side_schema = TS_SCHEMA(codec_side, "CodecSide", side_fields);

static const struct ts_field override_fields[] = {
    TS_F(codec_override, layer),
    TS_F(codec_override, key_bits),
    TS_F(codec_override, value_bits),
};
static const struct ts_schema override_schema = TS_SCHEMA(codec_override, "CodecLayer", override_fields);

static const struct ts_field codec_fields[] = {
    TS_F_MSG(codec, key, side_schema),
    TS_F_MSG(codec, value, side_schema),
    TS_F(codec, raw_tokens),
    TS_F(codec, short_tokens),
    TS_F_LIST(codec, layers, TS_CODEC_OVERRIDES_MAX, override_schema),
};
const struct ts_schema ts_codec_schema = TS_SCHEMA(codec, "Codec", codec_fields);
