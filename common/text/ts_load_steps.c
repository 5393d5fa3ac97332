#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/text/ts_load.h"

enum ts_status ts_load_refuse(struct ts_error *err, const char *path, const char *key,
                              const struct ts_json *value, const char *supported)
{
    char shown[160];
    if (!value)
        return ts_error_set(err, TS_EINVAL, "%s%s%s is missing; supported: %s", path, *path ? "." : "", key,
                            supported);
    ts_json_describe(value, shown, sizeof shown);
    return ts_error_set(err, TS_EUNSUPPORTED, "%s%s%s is %s; supported: %s", path, *path ? "." : "", key,
                        shown, supported);
}

enum ts_status ts_load_check_keys(const struct ts_json *object, const char *path, const char *const *known,
                                  struct ts_error *err)
{
    void *cursor = NULL;
    const char *key;
    size_t key_bytes;
    const struct ts_json *value;
    while ((value = ts_json_next(object, &cursor, &key, &key_bytes)) != NULL) {
        const char *const *name = known;
        while (*name && strcmp(*name, key) != 0)
            name++;
        if (!*name)
            return ts_load_refuse(err, path, key, value, "the key is not known");
    }
    return TS_OK;
}

enum ts_status ts_load_bool(const struct ts_json *object, const char *path, const char *key, bool fallback,
                            bool *out, struct ts_error *err)
{
    const struct ts_json *value = ts_json_get(object, key);
    *out = fallback;
    if (!ts_json_is_null(value) && !ts_json_bool(value, out))
        return ts_load_refuse(err, path, key, value, "true and false");
    return TS_OK;
}

struct ts_slice ts_load_slice(struct ts_tokenizer *tok, const char *text, size_t bytes)
{
    return (struct ts_slice){ts_arena_copy(&tok->arena, text, bytes), bytes};
}

/* object[key] as a string that is not empty, copied. */
static enum ts_status load_text(struct ts_tokenizer *tok, const struct ts_json *object, const char *path,
                                const char *key, struct ts_slice *out, struct ts_error *err)
{
    size_t bytes = 0;
    const struct ts_json *value = ts_json_get(object, key);
    const char *text = ts_json_string(value, &bytes);
    if (!text || bytes == 0)
        return ts_load_refuse(err, path, key, value, "a string that is not empty");
    *out = ts_load_slice(tok, text, bytes);
    return TS_OK;
}

/* {"String": "..."} and what it is replaced by, which may be empty. */
static enum ts_status load_replace(struct ts_tokenizer *tok, const struct ts_json *object, const char *path,
                                   struct ts_norm_step *out, struct ts_error *err)
{
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    const struct ts_json *pattern = ts_json_get(object, "pattern");
    size_t from_bytes = 0, to_bytes = 0;
    const char *from = ts_json_string(ts_json_get(pattern, "String"), &from_bytes);
    const char *to = ts_json_string(ts_json_get(object, "content"), &to_bytes);
    enum ts_status status = ts_load_check_keys(object, path, keys, err);
    if (status != TS_OK)
        return status;
    if (!from || from_bytes == 0 || ts_json_count(pattern) != 1)
        return ts_load_refuse(err, path, "pattern", pattern, "{\"String\": ...}, not empty");
    if (!to || to_bytes > 64) /* the bound keeps a replacement from multiplying a prompt without end */
        return ts_load_refuse(err, path, "content", ts_json_get(object, "content"),
                              "a string of at most 64 bytes");
    *out = (struct ts_norm_step){TS_NORM_REPLACE, ts_load_slice(tok, from, from_bytes),
                                 ts_load_slice(tok, to, to_bytes)};
    return TS_OK;
}

/* Calls `load` for each item of the array object[key], with the item's path. */
static enum ts_status load_each(struct ts_tokenizer *tok, const struct ts_json *object, const char *path,
                                const char *key,
                                enum ts_status (*load)(struct ts_tokenizer *, const struct ts_json *,
                                                       const char *, struct ts_error *),
                                struct ts_error *err)
{
    const char *const keys[] = {"type", key, NULL};
    const struct ts_json *list = ts_json_get(object, key);
    enum ts_status status = ts_load_check_keys(object, path, keys, err);
    if (status == TS_OK && ts_json_type(list) != TS_JSON_ARRAY)
        status = ts_load_refuse(err, path, key, list, "an array");
    for (size_t i = 0; i < ts_json_count(list) && status == TS_OK; i++) {
        char item_path[TS_LOAD_PATH_BYTES];
        snprintf(item_path, sizeof item_path, "%s.%s[%zu]", path, key, i);
        status = load(tok, ts_json_at(list, i), item_path, err);
    }
    return status;
}

static const char *type_of(const struct ts_json *object)
{
    const char *type = ts_json_string(ts_json_get(object, "type"), NULL);
    return type ? type : "";
}

enum ts_status ts_load_normalizer(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                  struct ts_error *err)
{
    static const char *const nfc_keys[] = {"type", NULL};
    static const char *const prepend_keys[] = {"type", "prepend", NULL};
    const char *type = type_of(value);
    struct ts_norm_step step = {0};
    enum ts_status status;
    if (ts_json_is_null(value))
        return TS_OK;
    if (strcmp(type, "Sequence") == 0)
        return load_each(tok, value, path, "normalizers", ts_load_normalizer, err);
    if (strcmp(type, "NFC") == 0) {
        status = ts_load_check_keys(value, path, nfc_keys, err);
        step.kind = TS_NORM_NFC;
    } else if (strcmp(type, "Prepend") == 0) {
        status = ts_load_check_keys(value, path, prepend_keys, err);
        step.kind = TS_NORM_PREPEND;
        if (status == TS_OK)
            status = load_text(tok, value, path, "prepend", &step.to, err);
    } else if (strcmp(type, "Replace") == 0) {
        status = load_replace(tok, value, path, &step, err);
    } else {
        return ts_load_refuse(err, path, "type", ts_json_get(value, "type"),
                              "NFC, Prepend, Replace, Sequence");
    }
    if (status != TS_OK)
        return status;
    if (tok->norm_count == TS_STEPS_MAX)
        return ts_error_set(err, TS_ELIMIT, "%s: there are more than %d normalizers", path, TS_STEPS_MAX);
    tok->norms[tok->norm_count++] = step;
    return TS_OK;
}

static enum ts_status add_split(struct ts_tokenizer *tok, const char *path, struct ts_split_step step,
                                struct ts_error *err)
{
    if (tok->split_count == TS_STEPS_MAX)
        return ts_error_set(err, TS_ELIMIT, "%s: there are more than %d splitting steps", path, TS_STEPS_MAX);
    tok->splits[tok->split_count++] = step;
    return TS_OK;
}

static enum ts_status load_byte_level(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                      struct ts_error *err)
{
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL};
    bool prefix = true, scan = true;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "add_prefix_space", true, &prefix, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "use_regex", true, &scan, err);
    if (status == TS_OK && prefix)
        status = add_split(tok, path, (struct ts_split_step){.kind = TS_SPLIT_SPACE_PREFIX}, err);
    if (status == TS_OK && scan)
        status =
            add_split(tok, path, (struct ts_split_step){.kind = TS_SPLIT_SCAN, .scan = TS_SCAN_GPT2}, err);
    if (status == TS_OK)
        status = add_split(tok, path, (struct ts_split_step){.kind = TS_SPLIT_BYTES}, err);
    return status;
}

/* The patterns match everywhere, so that keeping every match and removing all that lies between matches are
 * the same. */
static enum ts_status load_split(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                 struct ts_error *err)
{
    static const char *const keys[] = {"type", "pattern", "behavior", "invert", NULL};
    const struct ts_json *pattern = ts_json_get(value, "pattern"), *behavior = ts_json_get(value, "behavior");
    size_t bytes = 0;
    const char *regex = ts_json_string(ts_json_get(pattern, "Regex"), &bytes);
    const char *name = ts_json_string(behavior, NULL);
    bool invert = false;
    enum ts_scan scan;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "invert", false, &invert, err);
    if (status != TS_OK)
        return status;
    if (!regex || ts_json_count(pattern) != 1 || !ts_scan_find(regex, bytes, &scan))
        return ts_load_refuse(err, path, "pattern", pattern,
                              "the expressions of GPT-2, Llama 3, Qwen2 and Tekken");
    if (!name || strcmp(name, invert ? "Removed" : "Isolated") != 0)
        return ts_load_refuse(err, path, "behavior", behavior, "\"Isolated\", and \"Removed\" with invert");
    return add_split(tok, path, (struct ts_split_step){.kind = TS_SPLIT_SCAN, .scan = scan}, err);
}

static enum ts_status load_digits(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                  struct ts_error *err)
{
    static const char *const keys[] = {"type", "individual_digits", NULL};
    bool each = false;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "individual_digits", false, &each, err);
    if (status == TS_OK)
        status = add_split(tok, path,
                           (struct ts_split_step){.kind = each ? TS_SPLIT_DIGITS : TS_SPLIT_DIGIT_RUNS}, err);
    return status;
}

/* The keys that the Metaspace of a pre-tokenizer and of a decoder have in common. */
static enum ts_status load_metaspace(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                     struct ts_slice *mark, enum ts_prefix *prefix, bool *split,
                                     struct ts_error *err)
{
    static const char *const keys[] = {
        "type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep", NULL};
    const struct ts_json *scheme = ts_json_get(value, "prepend_scheme");
    const char *name = ts_json_is_null(scheme) ? "always" : ts_json_string(scheme, NULL);
    bool add_prefix = true;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    if (status == TS_OK)
        status = load_text(tok, value, path, "replacement", mark, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "split", true, split, err);
    if (status == TS_OK)
        status = ts_load_bool(value, path, "add_prefix_space", true, &add_prefix, err);
    if (status != TS_OK)
        return status;
    if (name && strcmp(name, "never") == 0)
        *prefix = TS_PREFIX_NEVER;
    else if (name && strcmp(name, "first") == 0)
        *prefix = TS_PREFIX_FIRST;
    else if (name && strcmp(name, "always") == 0)
        *prefix = TS_PREFIX_ALWAYS;
    else
        return ts_load_refuse(err, path, "prepend_scheme", scheme, "\"always\", \"first\", \"never\"");
    if (!add_prefix)
        *prefix = TS_PREFIX_NEVER; /* the older spelling, without prepend_scheme */
    return TS_OK;
}

enum ts_status ts_load_pre_tokenizer(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                     struct ts_error *err)
{
    const char *type = type_of(value);
    if (ts_json_is_null(value))
        return TS_OK;
    if (strcmp(type, "Sequence") == 0)
        return load_each(tok, value, path, "pretokenizers", ts_load_pre_tokenizer, err);
    if (strcmp(type, "ByteLevel") == 0)
        return load_byte_level(tok, value, path, err);
    if (strcmp(type, "Split") == 0)
        return load_split(tok, value, path, err);
    if (strcmp(type, "Digits") == 0)
        return load_digits(tok, value, path, err);
    if (strcmp(type, "Metaspace") == 0) {
        struct ts_split_step step = {.kind = TS_SPLIT_SPACE_MARK};
        bool split;
        enum ts_status status = load_metaspace(tok, value, path, &step.mark, &step.prefix, &split, err);
        if (status == TS_OK)
            status = add_split(tok, path, step, err);
        step.kind = TS_SPLIT_BEFORE_MARK;
        if (status == TS_OK && split)
            status = add_split(tok, path, step, err);
        return status;
    }
    return ts_load_refuse(err, path, "type", ts_json_get(value, "type"),
                          "ByteLevel, Digits, Metaspace, Sequence, Split");
}

/* Order in which the decoders of a sequence must stand; an equal stage may repeat only for Replace. */
enum decoder_stage { STAGE_NONE, STAGE_REPLACE, STAGE_BYTE_FALLBACK, STAGE_FUSE, STAGE_STRIP, STAGE_WHOLE };

static enum decoder_stage stage_of(const char *type)
{
    static const struct {
        const char *type;
        enum decoder_stage stage;
    } stages[] = {{"Replace", STAGE_REPLACE}, {"ByteFallback", STAGE_BYTE_FALLBACK},
                  {"Fuse", STAGE_FUSE},       {"Strip", STAGE_STRIP},
                  {"ByteLevel", STAGE_WHOLE}, {"Metaspace", STAGE_WHOLE}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(stages); i++)
        if (strcmp(stages[i].type, type) == 0)
            return stages[i].stage;
    return STAGE_NONE;
}

/* {"content": " ", "start": 1, "stop": 0}: what SentencePiece put before the first word. */
static enum ts_status load_strip(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                 struct ts_error *err)
{
    static const char *const keys[] = {"type", "content", "start", "stop", NULL};
    size_t bytes = 0;
    const char *content = ts_json_string(ts_json_get(value, "content"), &bytes);
    int64_t start = -1, stop = -1;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    if (status != TS_OK)
        return status;
    if (!content || bytes != 1 || (uint8_t)content[0] >= 0x80)
        return ts_load_refuse(err, path, "content", ts_json_get(value, "content"), "one ASCII character");
    if (!ts_json_integer(ts_json_get(value, "start"), &start) || start < 0 || start > 1024)
        return ts_load_refuse(err, path, "start", ts_json_get(value, "start"), "0 to 1024");
    if (!ts_json_integer(ts_json_get(value, "stop"), &stop) ||
        stop != 0) /* would need the end of a text that still grows */
        return ts_load_refuse(err, path, "stop", ts_json_get(value, "stop"), "0");
    tok->table.strip = content[0];
    tok->table.strip_count = (uint32_t)start;
    return TS_OK;
}

static enum ts_status load_decoder_item(struct ts_tokenizer *tok, const struct ts_json *value,
                                        const char *path, enum decoder_stage *stage,
                                        struct ts_load_decoder *out, struct ts_error *err)
{
    const char *type = type_of(value);
    enum decoder_stage next = stage_of(type);
    bool in_order = next > *stage || (next == STAGE_REPLACE && *stage == STAGE_REPLACE);
    if (next == STAGE_NONE)
        return ts_load_refuse(err, path, "type", ts_json_get(value, "type"),
                              "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip");
    if (!in_order || (next == STAGE_STRIP && *stage != STAGE_FUSE) ||
        (next == STAGE_WHOLE && *stage != STAGE_NONE))
        return ts_load_refuse(
            err, path, "type", ts_json_get(value, "type"),
            "Replace, ByteFallback, Fuse, Strip in this order, Strip only after Fuse, the others alone");
    *stage = next;
    switch (next) {
    case STAGE_REPLACE:
        if (out->replace_count == TS_STEPS_MAX)
            return ts_error_set(err, TS_ELIMIT, "%s: there are more than %d replacements", path,
                                TS_STEPS_MAX);
        return load_replace(tok, value, path, &out->replaces[out->replace_count++], err);
    case STAGE_BYTE_FALLBACK:
        out->byte_fallback = true;
        return TS_OK;
    case STAGE_STRIP:
        return load_strip(tok, value, path, err);
    case STAGE_WHOLE: {
        enum ts_prefix prefix = TS_PREFIX_NEVER;
        bool split;
        out->byte_level = strcmp(type, "ByteLevel") == 0;
        out->metaspace = !out->byte_level;
        if (out->byte_level)
            return TS_OK; /* its options concern offsets and encoding */
        enum ts_status status = load_metaspace(tok, value, path, &out->mark, &prefix, &split, err);
        tok->table.strip_marks = prefix != TS_PREFIX_NEVER;
        return status;
    }
    default:
        return TS_OK;
    }
}

enum ts_status ts_load_decoder(struct ts_tokenizer *tok, const struct ts_json *value,
                               struct ts_load_decoder *out, struct ts_error *err)
{
    static const char *const keys[] = {"type", "decoders", NULL};
    enum decoder_stage stage = STAGE_NONE;
    const struct ts_json *list = ts_json_get(value, "decoders");
    if (strcmp(type_of(value), "Sequence") != 0)
        return load_decoder_item(tok, value, "decoder", &stage, out, err);
    enum ts_status status = ts_load_check_keys(value, "decoder", keys, err);
    if (status == TS_OK && (ts_json_type(list) != TS_JSON_ARRAY || ts_json_count(list) == 0))
        status = ts_load_refuse(err, "decoder", "decoders", list, "an array that is not empty");
    for (size_t i = 0; i < ts_json_count(list) && status == TS_OK; i++) {
        char path[TS_LOAD_PATH_BYTES];
        snprintf(path, sizeof path, "decoder.decoders[%zu]", i);
        status = load_decoder_item(tok, ts_json_at(list, i), path, &stage, out, err);
    }
    return status;
}
