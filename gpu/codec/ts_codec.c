/* Descriptions of codecs, and the choice of a dispatch level. */
#include "gpu/codec/ts_codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/codec/codec_impl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

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
            p->raw_tokens == codec->raw_tokens && p->short_tokens == codec->short_tokens)
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

enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err)
{
    const struct ts_codec_side *k = &codec->key, *v = &codec->value;
    if (!side_known(*k, true) || !side_known(*v, false) || codec->raw_tokens > TS_KV_BLOCK_TOKENS)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "unknown KV codec: keys of %u bits, flags %u, group %u, values of %u bits, flags "
                            "%u, group %u, %u raw tokens",
                            k->bits, k->flags, k->group, v->bits, v->flags, v->group, codec->raw_tokens);
    if (head_dim == 0 || head_dim > CODEC_DIM_MAX)
        return ts_error_set(err, TS_EUNSUPPORTED, "the KV codecs take a head_dim of 1 to %u, not %u",
                            CODEC_DIM_MAX, head_dim);
    bool plain = k->bits == 16 && v->bits == 16 && ((k->flags | v->flags) & TS_CODEC_LOSSLESS) == 0;
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

static struct ts_codec_side side_with(struct ts_codec_side side, uint8_t bits)
{
    if (bits == 0 || bits == side.bits)
        return side;
    if (bits == 16)
        return (struct ts_codec_side)RAW;
    if (bits == 8)
        return (struct ts_codec_side){.bits = 8, .flags = side.flags & (TS_CODEC_HADAMARD | TS_CODEC_CENTRE)};
    return (struct ts_codec_side)HA4;
}

struct ts_codec ts_codec_for_layer(const struct ts_codec *codec, const struct ts_codec_override *overrides,
                                   size_t count, uint32_t layer)
{
    struct ts_codec result = *codec;
    for (size_t i = 0; i < count; i++) {
        if (overrides[i].layer != layer)
            continue;
        result.key = side_with(codec->key, overrides[i].key_bits);
        result.value = side_with(codec->value, overrides[i].value_bits);
    }
    return result;
}

uint32_t ts_codec_span(const struct ts_codec *codec)
{
    return codec->key.flags & TS_CODEC_CENTRE ? TS_CODEC_SPAN_TOKENS : TS_KV_BLOCK_TOKENS;
}

/* --- dispatch --- */

static const struct codec_level *const levels[] = {
#if defined(TS_CODEC_SIMD)
    &codec_avx512, &codec_avx2,
#endif
    &codec_scalar};

static _Atomic(const struct codec_level *) current;

#if defined(TS_CODEC_SIMD)
/* What clang 14 cannot ask for by name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}
#endif

static bool supported(const struct codec_level *l)
{
#if defined(TS_CODEC_SIMD)
    if (l == &codec_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (l == &codec_avx2)
        return __builtin_cpu_supports("avx2") && has_f16c();
#endif
    return l == &codec_scalar;
}

enum ts_status ts_codec_set_level(const char *name)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(levels); i++) {
        if (strcmp(levels[i]->name, name) == 0 && supported(levels[i])) {
            atomic_store(&current, levels[i]);
            return TS_OK;
        }
    }
    return TS_EUNSUPPORTED;
}

const struct codec_level *codec_level(void)
{
    const struct codec_level *l = atomic_load_explicit(&current, memory_order_relaxed);
    if (l)
        return l;
    const char *wish = getenv("TS_CPU_LEVEL");
    if (!wish || ts_codec_set_level(wish) != TS_OK) {
        size_t i = 0;
        while (i + 1 < TS_ARRAY_SIZE(levels) && !supported(levels[i])) /* the last one runs anywhere */
            i++;
        atomic_store(&current, levels[i]);
    }
    return atomic_load(&current);
}
