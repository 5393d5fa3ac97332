/*
 * The tokenizer of a model folder: loads a Hugging Face tokenizer.json and gives the ids that the
 * `tokenizers` library gives. Byte-level BPE (GPT-2, Llama 3, Qwen2, SmolLM and Tekken splitting) and
 * SentencePiece-style BPE with byte fallback. What the file says and this code does not know is refused at
 * load with the key and the value; README.md lists what is known.
 *
 * Text of a user is encoded without TS_ENCODE_PARSE_SPECIAL: then no special token can come out of it,
 * however it is spelled. Bytes that are not UTF-8 count as U+FFFD, one for each maximal ill-formed part.
 *
 * Immutable after open: any number of threads may use one tokenizer. Results belong to the caller (ts_free).
 */
#ifndef TS_TEXT_TOKENIZER_H
#define TS_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

#define TS_TOKEN_NONE 0xFFFFFFFFu

/* Bounds one call, so that a long prompt cannot take the memory of a worker: about 100 bytes are needed for a
 * byte of text. */
#define TS_ENCODE_BYTES_MAX ((size_t)16 << 20)

enum ts_encode_flags {
    TS_ENCODE_ADD_SPECIAL = 1, /* what the post-processor adds: begin and end of sequence */
    TS_ENCODE_PARSE_SPECIAL =
        2 /* special tokens spelled in the text become their ids: templates, never user text */
};

enum ts_decode_flags {
    TS_DECODE_SKIP_SPECIAL = 1,
    TS_DECODE_CONTINUE = 2 /* the ids continue a text: a leading space belongs to it and stays */
};

struct ts_tokenizer;

enum ts_status ts_tokenizer_open(const char *path, struct ts_tokenizer **out, struct ts_error *err);
/* As ts_tokenizer_open, from memory. `name` is what error texts call the document. */
enum ts_status ts_tokenizer_parse(const char *json, size_t bytes, const char *name, struct ts_tokenizer **out,
                                  struct ts_error *err);
void ts_tokenizer_destroy(struct ts_tokenizer **tok);

/* `flags` of enum ts_encode_flags. Fails only when the text is longer than TS_ENCODE_BYTES_MAX (TS_ELIMIT).
 */
enum ts_status ts_tokenizer_encode(const struct ts_tokenizer *tok, const char *text, size_t bytes,
                                   unsigned flags, uint32_t **ids, size_t *count, struct ts_error *err);
/* `flags` of enum ts_decode_flags. The text is valid UTF-8 and NUL-terminated; ids without a token give
 * nothing. */
void ts_tokenizer_decode(const struct ts_tokenizer *tok, const uint32_t *ids, size_t count, unsigned flags,
                         char **text, size_t *bytes);

uint32_t ts_tokenizer_vocab_size(const struct ts_tokenizer *tok); /* largest id + 1 */
uint32_t ts_tokenizer_token_id(const struct ts_tokenizer *tok,
                               const char *token); /* as spelled in the file, or TS_TOKEN_NONE */
bool ts_tokenizer_is_special(const struct ts_tokenizer *tok, uint32_t id);
/* What the token stands for, as bytes: perhaps a part of a character. Empty for an id without a token.
 * Borrowed from `tok`. */
const char *ts_tokenizer_token_bytes(const struct ts_tokenizer *tok, uint32_t id, size_t *bytes);

#endif
