/*
 * tokenizer.json -> struct ts_tokenizer. Every key is either understood or refused: an option that is passed
 * over silently would show as wrong ids much later. Truncation and padding are the exception; they are
 * leftovers of training that the reference drops as well.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/text/ts_load.h"
#include "common/text/ts_utf8.h"

static enum ts_status load_vocab(struct ts_bpe *bpe, const struct ts_json *vocab, struct ts_error *err)
{
    void *cursor = NULL;
    const char *key;
    size_t key_bytes;
    const struct ts_json *value;
    while ((value = ts_json_next(vocab, &cursor, &key, &key_bytes)) != NULL) {
        int64_t id;
        if (!ts_json_integer(value, &id) || id < 0 || id >= TS_TOKEN_ID_MAX)
            return ts_load_refuse(err, "model.vocab", key, value, "an id below 2^20");
        if (!ts_bpe_add_token(bpe, key, key_bytes, (uint32_t)id))
            return ts_error_set(err, TS_EINVAL,
                                "model.vocab: id %lld is given to \"%s\" and to an earlier token",
                                (long long)id, key);
    }
    return TS_OK;
}

/* "left right" of older files, or ["left", "right"]. False: neither. */
static bool split_merge(const struct ts_json *item, struct ts_slice *left, struct ts_slice *right)
{
    size_t bytes = 0;
    const char *text = ts_json_string(item, &bytes);
    if (!text) {
        left->data = ts_json_string(ts_json_at(item, 0), &left->bytes);
        right->data = ts_json_string(ts_json_at(item, 1), &right->bytes);
        return left->data && right->data && ts_json_count(item) == 2;
    }
    const char *space = memchr(text, ' ', bytes);
    if (!space || memchr(space + 1, ' ', bytes - (size_t)(space + 1 - text)))
        return false;
    *left = (struct ts_slice){text, (size_t)(space - text)};
    *right = (struct ts_slice){space + 1, bytes - left->bytes - 1};
    return true;
}

static enum ts_status load_merges(struct ts_bpe *bpe, const struct ts_json *merges, struct ts_error *err)
{
    uint32_t rank = 0;
    for (size_t i = 0; i < ts_json_count(merges); i++) {
        const struct ts_json *item = ts_json_at(merges, i);
        const char *text = ts_json_string(item, NULL);
        struct ts_slice left, right;
        char key[40];
        if (text && strncmp(text, "#version", 8) == 0)
            continue;
        snprintf(key, sizeof key, "merges[%zu]", i);
        if (!split_merge(item, &left, &right))
            return ts_load_refuse(err, "model", key, item, "two tokens, as \"a b\" or [\"a\", \"b\"]");
        if (!ts_bpe_add_merge(bpe, left.data, left.bytes, right.data, right.bytes, rank++))
            return ts_load_refuse(err, "model", key, item,
                                  "merges whose parts and result are in model.vocab");
    }
    return TS_OK;
}

/* Options that exist for other vocabularies: absent, null, or a value that changes nothing. */
static enum ts_status check_unused(const struct ts_json *model, struct ts_error *err)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const struct ts_json *dropout = ts_json_get(model, "dropout");
    double rate;
    for (size_t i = 0; i < TS_ARRAY_SIZE(affixes); i++) {
        const struct ts_json *value = ts_json_get(model, affixes[i]);
        size_t bytes = 0;
        if (!ts_json_is_null(value) && (!ts_json_string(value, &bytes) || bytes > 0))
            return ts_load_refuse(err, "model", affixes[i], value, "null and \"\"");
    }
    if (!ts_json_is_null(dropout) && (!ts_json_number(dropout, &rate) || rate != 0.0))
        return ts_load_refuse(err, "model", "dropout", dropout, "null and 0");
    return TS_OK;
}

static enum ts_status load_model(struct ts_bpe *bpe, const struct ts_json *model, struct ts_error *err)
{
    static const char *const keys[] = {"type",
                                       "dropout",
                                       "unk_token",
                                       "continuing_subword_prefix",
                                       "end_of_word_suffix",
                                       "fuse_unk",
                                       "byte_fallback",
                                       "ignore_merges",
                                       "vocab",
                                       "merges",
                                       NULL};
    const struct ts_json *type = ts_json_get(model, "type"), *unk = ts_json_get(model, "unk_token");
    const struct ts_json *vocab = ts_json_get(model, "vocab"), *merges = ts_json_get(model, "merges");
    const char *name = type ? ts_json_string(type, NULL) : "BPE"; /* the oldest files do not say */
    size_t unk_bytes = 0;
    const char *unk_text = ts_json_string(unk, &unk_bytes);
    if (!name || strcmp(name, "BPE") != 0)
        return ts_load_refuse(err, "model", "type", type, "\"BPE\"");
    if (ts_json_type(vocab) != TS_JSON_OBJECT)
        return ts_load_refuse(err, "model", "vocab", vocab, "an object");
    if (ts_json_type(merges) != TS_JSON_ARRAY)
        return ts_load_refuse(err, "model", "merges", merges, "an array");
    enum ts_status status = ts_load_check_keys(model, "model", keys, err);
    if (status == TS_OK)
        status = check_unused(model, err);
    if (status == TS_OK)
        status = ts_load_bool(model, "model", "fuse_unk", false, &bpe->fuse_unk, err);
    if (status == TS_OK)
        status = ts_load_bool(model, "model", "byte_fallback", false, &bpe->byte_fallback, err);
    if (status == TS_OK)
        status = ts_load_bool(model, "model", "ignore_merges", false, &bpe->ignore_merges, err);
    if (status != TS_OK)
        return status;
    ts_bpe_reserve(bpe, ts_json_count(vocab), ts_json_count(merges));
    status = load_vocab(bpe, vocab, err);
    if (status == TS_OK)
        status = load_merges(bpe, merges, err);
    if (status != TS_OK)
        return status;
    if (unk_bytes > 0)
        bpe->unk_id = ts_bpe_find(bpe, unk_text, unk_bytes);
    if (!ts_json_is_null(unk) && (!unk_text || (unk_bytes > 0 && bpe->unk_id == TS_TOKEN_NONE)))
        return ts_load_refuse(err, "model", "unk_token", unk, "null and a token of model.vocab");
    ts_bpe_seal(bpe);
    return TS_OK;
}

struct added_entry { /* of the file */
    struct ts_added_token token;
    struct ts_slice content;
    bool normalized;
};

static enum ts_status read_added(struct ts_tokenizer *tok, const struct ts_json *item, const char *path,
                                 struct added_entry *out, struct ts_error *err)
{
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    struct ts_added_token *token = &out->token;
    int64_t id = -1;
    size_t bytes = 0;
    const char *content = ts_json_string(ts_json_get(item, "content"), &bytes);
    enum ts_status status = ts_load_check_keys(item, path, keys, err);
    if (status == TS_OK)
        status = ts_load_bool(item, path, "single_word", false, &token->single_word, err);
    if (status == TS_OK)
        status = ts_load_bool(item, path, "lstrip", false, &token->lstrip, err);
    if (status == TS_OK)
        status = ts_load_bool(item, path, "rstrip", false, &token->rstrip, err);
    if (status == TS_OK)
        status = ts_load_bool(item, path, "special", false, &token->special, err);
    if (status == TS_OK)
        status = ts_load_bool(item, path, "normalized", !token->special, &out->normalized, err);
    if (status != TS_OK)
        return status;
    if (!ts_json_integer(ts_json_get(item, "id"), &id) || id < 0 || id >= TS_TOKEN_ID_MAX)
        return ts_load_refuse(err, path, "id", ts_json_get(item, "id"), "an id below 2^20");
    if (!content || bytes > 1024) /* the search walks up to the length of the longest one at each place */
        return ts_load_refuse(err, path, "content", ts_json_get(item, "content"),
                              "a string of at most 1024 bytes");
    token->id = (uint32_t)id;
    out->content = ts_load_slice(tok, content, bytes);
    return TS_OK;
}

/* Whether the file says what the reference takes whatever the file says: the id of this spelling, or else the
 * next one behind all, which a vocabulary with holes may have given away. `*top` is one more than the largest
 * id of the added tokens so far. */
static bool has_own_id(const struct ts_tokenizer *tok, const struct added_entry *entry, size_t *top)
{
    size_t bytes;
    uintptr_t earlier = (uintptr_t)ts_map_get(tok->added_ids, entry->content.data, entry->content.bytes);
    size_t id = earlier ? earlier - 1 : ts_bpe_find(&tok->bpe, entry->content.data, entry->content.bytes);
    if (id == TS_TOKEN_NONE) {
        id = *top > tok->bpe.entry_count ? *top : tok->bpe.entry_count;
        if (ts_bpe_spelling(&tok->bpe, (uint32_t)id, &bytes))
            return false;
    }
    if (id >= *top)
        *top = id + 1;
    return id == entry->token.id;
}

/* Normalised tokens are searched, and later decoded, in their normalised spelling. */
static enum ts_status set_pattern(struct ts_tokenizer *tok, struct added_entry *entry)
{
    struct ts_textbuf text = {0};
    enum ts_status status = TS_OK;
    ts_textbuf_append(&text, entry->content.data, entry->content.bytes);
    if (entry->normalized)
        status = ts_normalize(tok->norms, tok->norm_count, 65536, &text);
    entry->token.pattern = ts_load_slice(tok, text.data, text.bytes).data;
    entry->token.bytes = text.bytes;
    ts_free(text.data);
    return status;
}

static enum ts_status load_added(struct ts_tokenizer *tok, const struct ts_json *list, struct ts_error *err)
{
    if (!ts_json_is_null(list) && ts_json_type(list) != TS_JSON_ARRAY)
        return ts_load_refuse(err, "", "added_tokens", list, "an array");
    size_t top = 0;
    for (size_t i = 0; i < ts_json_count(list); i++) {
        const struct ts_json *item = ts_json_at(list, i);
        struct added_entry entry = {0};
        char path[TS_LOAD_PATH_BYTES];
        snprintf(path, sizeof path, "added_tokens[%zu]", i);
        enum ts_status status = read_added(tok, item, path, &entry, err);
        if (status != TS_OK)
            return status;
        if (entry.content.bytes == 0)
            continue; /* the reference ignores these */
        if (!has_own_id(tok, &entry, &top))
            return ts_load_refuse(err, path, "id", ts_json_get(item, "id"),
                                  "the id of this content in model.vocab, or else the next one after all");
        if (set_pattern(tok, &entry) != TS_OK || entry.token.bytes == 0)
            return ts_load_refuse(err, path, "content", ts_json_get(item, "content"),
                                  "content that normalisation keeps");
        ts_map_put(tok->added_ids, entry.content.data, entry.content.bytes,
                   (void *)((uintptr_t)entry.token.id + 1));
        ts_added_put(entry.normalized ? &tok->normalized_added : &tok->raw_added, &entry.token);
        if (entry.token.id >= tok->table.count)
            tok->table.count = (size_t)entry.token.id + 1;
    }
    return TS_OK;
}

/* {"SpecialToken": {"id": "<s>"}}: its ids stand in special_tokens["<s>"].ids. */
static enum ts_status load_template_token(struct ts_tokenizer *tok, const struct ts_json *processor,
                                          const char *path, const struct ts_json *piece, struct ts_idbuf *to,
                                          struct ts_error *err)
{
    const char *name = ts_json_string(ts_json_get(ts_json_get(piece, "SpecialToken"), "id"), NULL);
    const struct ts_json *ids = NULL;
    if (name)
        ids = ts_json_get(ts_json_get(ts_json_get(processor, "special_tokens"), name), "ids");
    if (ts_json_type(ids) != TS_JSON_ARRAY)
        return ts_load_refuse(err, path, "single", piece,
                              "{\"Sequence\": A} and tokens named in special_tokens");
    for (size_t i = 0; i < ts_json_count(ids); i++) {
        int64_t id;
        if (!ts_json_integer(ts_json_at(ids, i), &id) || id < 0 || id >= (int64_t)tok->table.count)
            return ts_load_refuse(err, path, "special_tokens", ids, "ids of the vocabulary");
        ts_idbuf_append(to, (uint32_t)id);
    }
    return TS_OK;
}

static enum ts_status load_template(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                    struct ts_error *err)
{
    static const char *const keys[] = {"type", "single", "pair", "special_tokens", NULL};
    const struct ts_json *single = ts_json_get(value, "single");
    bool seen = false;
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    for (size_t i = 0; i < ts_json_count(single) && status == TS_OK; i++) {
        const struct ts_json *piece = ts_json_at(single, i);
        const char *sequence = ts_json_string(ts_json_get(ts_json_get(piece, "Sequence"), "id"), NULL);
        if (!sequence)
            status = load_template_token(tok, value, path, piece, seen ? &tok->suffix : &tok->prefix, err);
        else if (seen || strcmp(sequence, "A") != 0)
            status = ts_load_refuse(err, path, "single", single, "one sequence A");
        else
            seen = true;
    }
    if (status == TS_OK && !seen)
        status = ts_load_refuse(err, path, "single", single, "one sequence A");
    return status;
}

static enum ts_status load_post(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                bool *has_template, struct ts_error *err)
{
    static const char *const keys[] = {"type", "processors", NULL};
    const char *type = ts_json_string(ts_json_get(value, "type"), NULL);
    const struct ts_json *list = ts_json_get(value, "processors");
    if (ts_json_is_null(value) || (type && strcmp(type, "ByteLevel") == 0))
        return TS_OK; /* ByteLevel here adjusts offsets, which are not kept */
    if (type && strcmp(type, "TemplateProcessing") == 0 && !*has_template) {
        *has_template = true;
        return load_template(tok, value, path, err);
    }
    if (!type || strcmp(type, "Sequence") != 0)
        return ts_load_refuse(err, path, "type", ts_json_get(value, "type"),
                              "ByteLevel, Sequence, one TemplateProcessing");
    enum ts_status status = ts_load_check_keys(value, path, keys, err);
    for (size_t i = 0; i < ts_json_count(list) && status == TS_OK; i++) {
        char item_path[TS_LOAD_PATH_BYTES];
        snprintf(item_path, sizeof item_path, "%s.processors[%zu]", path, i);
        status = load_post(tok, ts_json_at(list, i), item_path, has_template, err);
    }
    return status;
}

static bool append_from_alphabet(struct ts_textbuf *to, const char *text, size_t bytes)
{
    size_t start = to->bytes;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += ts_utf8_next(text + at, bytes - at, &code);
        int byte = ts_byte_of_code(code);
        if (byte < 0) {
            to->bytes = start;
            return false;
        }
        ts_textbuf_append(to, &(char){(char)byte}, 1);
    }
    return true;
}

/* The byte of a token "<0x0A>", or -1. */
static int fallback_byte(const char *text, size_t bytes)
{
    unsigned value = 0;
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    for (size_t i = 3; i < 5; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (unsigned)(c - '0');
        else if ((c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f'))
            value = value * 16 + (unsigned)((c | 32) - 'a') + 10;
        else
            return -1;
    }
    return (int)value;
}

static void set_piece(struct ts_tokenizer *tok, const struct ts_load_decoder *decoder, uint32_t id,
                      const char *text, size_t bytes)
{
    struct ts_piece_table *table = &tok->table;
    struct ts_piece *piece = &table->pieces[id];
    piece->offset = table->text.bytes;
    piece->flags = TS_PIECE_PRESENT;
    if (decoder->byte_level) {
        piece->flags |= TS_PIECE_BYTES;
        if (!append_from_alphabet(&table->text, text, bytes))
            ts_textbuf_append(&table->text, text, bytes);
    } else {
        const struct ts_norm_step marks = {TS_NORM_REPLACE, decoder->mark, {" ", 1}};
        struct ts_textbuf plain = {0};
        ts_textbuf_append(&plain, text, bytes);
        bool had_space = memchr(text, ' ', bytes) != NULL;
        ts_normalize(decoder->metaspace ? &marks : decoder->replaces,
                     decoder->metaspace ? 1 : decoder->replace_count, SIZE_MAX, &plain);
        int byte = decoder->byte_fallback ? fallback_byte(plain.data, plain.bytes) : -1;
        if (byte >= 0) {
            piece->flags |= TS_PIECE_BYTES;
            ts_textbuf_append(&table->text, &(char){(char)byte}, 1);
        } else {
            piece->flags |= decoder->metaspace && !had_space ? TS_PIECE_MARKED : 0;
            ts_textbuf_append(&table->text, plain.data, plain.bytes);
        }
        ts_free(plain.data);
    }
    piece->bytes = (uint32_t)(table->text.bytes - piece->offset);
}

static void mark_added(struct ts_tokenizer *tok, const struct ts_load_decoder *decoder,
                       const struct ts_added_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        const struct ts_added_token *token = &set->tokens[i];
        set_piece(tok, decoder, token->id, token->pattern, token->bytes);
        tok->special[token->id] |= token->special;
    }
}

static void build_pieces(struct ts_tokenizer *tok, const struct ts_load_decoder *decoder)
{
    tok->table.pieces = ts_xcalloc(tok->table.count, sizeof *tok->table.pieces);
    tok->table.bad_each_byte = !decoder->byte_level;
    tok->special = ts_xcalloc(tok->table.count, 1);
    tok->bpe.special = tok->special;
    for (uint32_t id = 0; id < tok->table.count; id++) {
        size_t bytes;
        const char *text = ts_bpe_spelling(&tok->bpe, id, &bytes);
        if (text)
            set_piece(tok, decoder, id, text, bytes);
    }
    mark_added(tok, decoder, &tok->raw_added);
    mark_added(tok, decoder, &tok->normalized_added);
    for (uint32_t id = 0; id < tok->table.count; id++)
        if (tok->special[id])
            tok->table.pieces[id].flags |= TS_PIECE_SPECIAL;
}

enum ts_status ts_tokenizer_load(struct ts_tokenizer *tok, const struct ts_json *root, struct ts_error *err)
{
    static const char *const keys[] = {
        "version",       "truncation",     "padding", "added_tokens", "normalizer",
        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    const struct ts_json *version = ts_json_get(root, "version");
    const char *number = version ? ts_json_string(version, NULL) : "1.0";
    struct ts_load_decoder decoder = {0};
    bool has_template = false;
    if (ts_json_type(root) != TS_JSON_OBJECT)
        return ts_error_set(err, TS_EINVAL, "the document is %s, not an object",
                            ts_json_type_name(ts_json_type(root)));
    if (!number || strcmp(number, "1.0") != 0)
        return ts_load_refuse(err, "", "version", version, "\"1.0\"");
    enum ts_status status = ts_load_check_keys(root, "", keys, err);
    if (status == TS_OK)
        status = load_model(&tok->bpe, ts_json_get(root, "model"), err);
    if (status != TS_OK)
        return status;
    for (size_t i = tok->bpe.id_count; i > 0 && tok->table.count == 0; i--)
        tok->table.count = tok->bpe.entry_of_id[i - 1] ? i : 0;
    status = ts_load_normalizer(tok, ts_json_get(root, "normalizer"), "normalizer", err);
    if (status == TS_OK)
        status = load_added(tok, ts_json_get(root, "added_tokens"), err);
    if (status == TS_OK)
        status = ts_load_pre_tokenizer(tok, ts_json_get(root, "pre_tokenizer"), "pre_tokenizer", err);
    if (status == TS_OK)
        status = load_post(tok, ts_json_get(root, "post_processor"), "post_processor", &has_template, err);
    if (status == TS_OK)
        status = ts_load_decoder(tok, ts_json_get(root, "decoder"), &decoder, err);
    if (status == TS_OK)
        build_pieces(tok, &decoder);
    return status;
}
