/*
 * What a KV codec is, without its kernels (gpu/codec): a description of its two *sides*, keys and values,
 * which travels in every stream header. The names none, i8, i4, ... are presets; text may add bits for single
 * layers, "i4h,0=8/16,1=8": layer 0 with keys of 8 and values of 16 bits, layer 1 with 8 for both.
 *
 * The router fixes the text when it accepts a request. Both workers make the same description of it and of
 * the prompt's length; the relay believes the prefill worker, and the decode worker refuses a stream whose
 * description is not its own. All functions are pure and thread-safe.
 */
#ifndef TS_CORE_CODEC_SPEC_H
#define TS_CORE_CODEC_SPEC_H

#include "common/core/ts_schema.h"

#define TS_CODEC_ASYM     1u /* 4 bits: a minimum beside the scale */
#define TS_CODEC_HADAMARD 2u /* Walsh-Hadamard transform over head_dim before, its inverse after */
#define TS_CODEC_CENTRE   4u /* keys: without their rotation, less the mean of a span of tokens */
#define TS_CODEC_LOSSLESS 8u /* 16 bits, exponents coded */

#define TS_CODEC_SPAN_TOKENS   256 /* absolute tokens that share a mean */
#define TS_CODEC_DIM_MAX       1024u
#define TS_CODEC_OVERRIDES_MAX 256u

struct ts_codec_side {
    uint32_t bits;  /* 16, 8 (symmetric), 4 */
    uint32_t flags; /* TS_CODEC_* */
    uint32_t group; /* elements that share parameters, along head_dim; 0 = all of them */
};

/* Bits of one layer that differ from the codec's; 0 = as the codec says. */
struct ts_codec_override {
    uint32_t layer, key_bits, value_bits;
};

struct ts_codec_overrides {
    const struct ts_codec_override *data;
    uint32_t count;
};

/* A receiver refuses what it does not know. */
struct ts_codec {
    struct ts_codec_side key, value;
    uint32_t raw_tokens;   /* the first ones of a sequence, sent in 16 bits besides: at most 16 */
    uint32_t short_tokens; /* prompts of fewer tokens go as i8 */
    struct ts_codec_overrides layers;
};

/* Of a preset. TS_EUNSUPPORTED lists those there are. */
enum ts_status ts_codec_parse(const char *name, struct ts_codec *out, struct ts_error *err);
/* Of a preset with bits for single layers, which are put into the arena. */
enum ts_status ts_codec_parse_text(struct ts_str text, struct ts_arena *arena, struct ts_codec *out,
                                   struct ts_error *err);
/* Whether a setting `codec` can be one, or "auto"; words name it. */
enum ts_status ts_codec_check_option(const char *text, struct ts_error *err);
const char *ts_codec_name(const struct ts_codec *codec); /* of the preset, else "custom" */
const char *ts_codec_preset(size_t index);               /* NULL behind the last one */
/* Whether the kernels know it, overrides included, for that head_dim. */
enum ts_status ts_codec_check(const struct ts_codec *codec, uint32_t head_dim, struct ts_error *err);

/* What a prompt of so many tokens goes as. */
struct ts_codec ts_codec_for_prompt(const struct ts_codec *codec, uint32_t tokens);
/* What a layer goes as, counted as the model counts; without overrides. */
struct ts_codec ts_codec_for_layer(const struct ts_codec *codec, uint32_t layer);
/* Chunks begin at multiples of so many tokens. */
uint32_t ts_codec_span(const struct ts_codec *codec);
/* Bits on the wire for each number of the cache, without filling up and messages: of groups of parameters,
 * of means, of `lz16` what it takes of bf16 when nothing is exceptional. Overrides are left out. */
double ts_codec_bits(const struct ts_codec *codec, uint32_t head_dim);

extern const struct ts_schema ts_codec_schema;

#endif
