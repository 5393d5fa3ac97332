#include "common/text/ts_tokenizer.h"

#include <string.h>

#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_tokenizer_impl.h"
#include "common/text/ts_utf8.h"

static enum ts_status build(const struct ts_json *root, const char *name, struct ts_tokenizer **out,
                            struct ts_error *err)
{
    struct ts_tokenizer *tok = ts_xcalloc(1, sizeof *tok);
    ts_arena_init(&tok->arena);
    ts_bpe_init(&tok->bpe);
    tok->added_ids = ts_map_new();
    enum ts_status status = ts_tokenizer_load(tok, root, err);
    if (status != TS_OK) {
        ts_error_prefix(err, "%s", name);
        ts_tokenizer_destroy(&tok);
        return status;
    }
    *out = tok;
    return TS_OK;
}

enum ts_status ts_tokenizer_open(const char *path, struct ts_tokenizer **out, struct ts_error *err)
{
    struct ts_json *root = NULL;
    enum ts_status status = ts_json_load(path, &root, err);
    if (status == TS_OK)
        status = build(root, path, out, err);
    ts_json_destroy(&root);
    return status;
}

enum ts_status ts_tokenizer_parse(const char *json, size_t bytes, const char *name, struct ts_tokenizer **out,
                                  struct ts_error *err)
{
    struct ts_json *root = NULL;
    enum ts_status status = ts_json_parse(json, bytes, name, &root, err);
    if (status == TS_OK)
        status = build(root, name, out, err);
    ts_json_destroy(&root);
    return status;
}

void ts_tokenizer_destroy(struct ts_tokenizer **tok)
{
    struct ts_tokenizer *t = *tok;
    if (!t)
        return;
    ts_free(t->special);
    ts_free(t->table.pieces);
    ts_free(t->table.text.data);
    ts_free(t->prefix.data);
    ts_free(t->suffix.data);
    ts_map_destroy(&t->added_ids);
    ts_added_fini(&t->raw_added);
    ts_added_fini(&t->normalized_added);
    ts_bpe_fini(&t->bpe);
    ts_arena_fini(&t->arena);
    ts_free(t);
    *tok = NULL;
}

struct encoding { /* of one call */
    const struct ts_tokenizer *tok;
    bool parse_special;
    struct ts_textbuf normalized;
    struct ts_pieces pieces, spare;
    struct ts_bpe_scratch scratch;
    struct ts_idbuf ids;
};

static void encode_words(struct encoding *e, const char *text, size_t bytes, bool at_start)
{
    ts_split(e->tok->splits, e->tok->split_count, text, bytes, at_start, &e->pieces, &e->spare);
    for (size_t i = 0, from = 0; i < e->pieces.count; from = e->pieces.ends[i++])
        ts_bpe_encode(&e->tok->bpe, &e->scratch, e->pieces.text.data + from, e->pieces.ends[i] - from,
                      e->parse_special, &e->ids);
}

/* A stretch of the user's text between two added tokens. */
static enum ts_status encode_stretch(struct encoding *e, const char *text, size_t bytes, bool at_start)
{
    e->normalized.bytes = 0;
    ts_textbuf_append(&e->normalized, text, bytes);
    enum ts_status status =
        ts_normalize(e->tok->norms, e->tok->norm_count, TS_ENCODE_BYTES_MAX * 8, &e->normalized);
    if (status != TS_OK)
        return status;
    struct ts_added_cursor cursor = {.text = e->normalized.data, .bytes = e->normalized.bytes};
    struct ts_added_part part;
    while (ts_added_next(&e->tok->normalized_added, &cursor, e->parse_special, &part)) {
        if (part.id != TS_TOKEN_NONE)
            ts_idbuf_append(&e->ids, part.id);
        else
            encode_words(e, cursor.text + part.from, part.to - part.from, at_start && part.from == 0);
    }
    return TS_OK;
}

static enum ts_status encode_text(struct encoding *e, const char *text, size_t bytes)
{
    struct ts_added_cursor cursor = {.text = text, .bytes = bytes};
    struct ts_added_part part;
    enum ts_status status = TS_OK;
    while (status == TS_OK && ts_added_next(&e->tok->raw_added, &cursor, e->parse_special, &part)) {
        if (part.id != TS_TOKEN_NONE)
            ts_idbuf_append(&e->ids, part.id);
        else
            status = encode_stretch(e, text + part.from, part.to - part.from, part.from == 0);
    }
    return status;
}

static void append_ids(struct ts_idbuf *to, const struct ts_idbuf *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        ts_idbuf_append(to, ids->data[i]);
}

enum ts_status ts_tokenizer_encode(const struct ts_tokenizer *tok, const char *text, size_t bytes,
                                   unsigned flags, uint32_t **ids, size_t *count, struct ts_error *err)
{
    struct encoding e = {.tok = tok, .parse_special = flags & TS_ENCODE_PARSE_SPECIAL};
    char *repaired = NULL;
    enum ts_status status = TS_OK;
    if (bytes > TS_ENCODE_BYTES_MAX)
        return ts_error_set(err, TS_ELIMIT,
                            "a text of %zu bytes is longer than the %zu that are encoded at once", bytes,
                            TS_ENCODE_BYTES_MAX);
    if (!ts_utf8_valid(text, bytes))
        text = repaired = ts_utf8_lossy(text, bytes, &bytes);
    if (flags & TS_ENCODE_ADD_SPECIAL)
        append_ids(&e.ids, &tok->prefix);
    status = encode_text(&e, text, bytes);
    if (status != TS_OK) {
        ts_error_set(err, status, "a text of %zu bytes grows too long by normalisation", bytes);
        goto out;
    }
    if (flags & TS_ENCODE_ADD_SPECIAL)
        append_ids(&e.ids, &tok->suffix);
    *count = e.ids.count;
    *ids = e.ids.data ? e.ids.data : ts_xmalloc(sizeof **ids);
    e.ids.data = NULL;
out:
    ts_free(e.ids.data);
    ts_free(e.normalized.data);
    ts_pieces_fini(&e.pieces);
    ts_pieces_fini(&e.spare);
    ts_bpe_scratch_fini(&e.scratch);
    ts_free(repaired);
    return status;
}

void ts_tokenizer_decode(const struct ts_tokenizer *tok, const uint32_t *ids, size_t count, unsigned flags,
                         char **text, size_t *bytes)
{
    struct ts_detok detok;
    struct ts_textbuf out = {0};
    ts_detok_init(&detok, &tok->table, flags);
    for (size_t i = 0; i < count; i++)
        ts_detok_push(&detok, ids[i], &out);
    ts_detok_flush(&detok, &out);
    ts_textbuf_append(&out, "", 1);
    *text = out.data;
    *bytes = out.bytes - 1;
}

uint32_t ts_tokenizer_vocab_size(const struct ts_tokenizer *tok)
{
    return (uint32_t)tok->table.count;
}

uint32_t ts_tokenizer_token_id(const struct ts_tokenizer *tok, const char *token)
{
    uintptr_t added = (uintptr_t)ts_map_get(tok->added_ids, token, strlen(token));
    return added ? (uint32_t)(added - 1) : ts_bpe_find(&tok->bpe, token, strlen(token));
}

bool ts_tokenizer_is_special(const struct ts_tokenizer *tok, uint32_t id)
{
    return id < tok->table.count && tok->special[id];
}

const char *ts_tokenizer_token_bytes(const struct ts_tokenizer *tok, uint32_t id, size_t *bytes)
{
    *bytes = 0;
    if (id >= tok->table.count || !(tok->table.pieces[id].flags & TS_PIECE_PRESENT))
        return "";
    *bytes = tok->table.pieces[id].bytes;
    return tok->table.text.data + tok->table.pieces[id].offset;
}
