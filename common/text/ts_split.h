/*
 * Between the raw text and BPE: normalisation, then splitting into words, as short lists of plain steps. The
 * loader unfolds what a tokenizer.json nests ("ByteLevel with a prefix space and its pattern" is three steps
 * here). A step maps a list of pieces to a list of pieces; steps never merge pieces. Steps are immutable; a
 * ts_pieces belongs to one thread.
 */
#ifndef TS_TEXT_SPLIT_H
#define TS_TEXT_SPLIT_H

#include <stdbool.h>

#include "common/base/ts_status.h"
#include "common/text/ts_scan.h"
#include "common/text/ts_textbuf.h"

#define TS_STEPS_MAX 16

struct ts_slice {
    const char *data;
    size_t bytes;
};

enum ts_norm_kind { TS_NORM_NFC, TS_NORM_PREPEND, TS_NORM_REPLACE };

struct ts_norm_step {
    enum ts_norm_kind kind;
    struct ts_slice from, to; /* REPLACE: every `from`, which is not empty, by `to`; PREPEND: `to` */
};

enum ts_split_kind {
    TS_SPLIT_SPACE_PREFIX, /* a space before each piece that has none */
    TS_SPLIT_SCAN,         /* cut by a pattern */
    TS_SPLIT_DIGITS,       /* every numeric code point alone */
    TS_SPLIT_DIGIT_RUNS,   /* runs of numeric code points apart from the rest */
    TS_SPLIT_BYTES,        /* every byte becomes its printable code point */
    TS_SPLIT_SPACE_MARK,   /* spaces become `mark`, and `prefix` says where one is put in front */
    TS_SPLIT_BEFORE_MARK   /* cut before every `mark` */
};

enum ts_prefix { TS_PREFIX_NEVER, TS_PREFIX_FIRST, TS_PREFIX_ALWAYS };

struct ts_split_step {
    enum ts_split_kind kind;
    enum ts_scan scan;
    enum ts_prefix prefix;
    struct ts_slice mark;
};

struct ts_pieces {
    struct ts_textbuf text; /* the pieces, one after another */
    size_t *ends;           /* where each ends; no piece is empty */
    size_t count, capacity;
};

/* Replaces `text` by its normalised form. TS_ELIMIT: it grew beyond `bytes_max`. */
enum ts_status ts_normalize(const struct ts_norm_step *steps, size_t count, size_t bytes_max,
                            struct ts_textbuf *text);

/* Fills `pieces` (its old content is dropped) from a text that is not empty; `spare` is working memory.
   `at_start`: the text begins where the user's does. */
void ts_split(const struct ts_split_step *steps, size_t count, const char *text, size_t bytes, bool at_start,
              struct ts_pieces *pieces, struct ts_pieces *spare);
void ts_pieces_fini(struct ts_pieces *pieces);

/* The byte that a code point of the byte-level alphabet stands for, or -1. */
int ts_byte_of_code(uint32_t code);

#endif
