/*
 * From ids to text, one id at a time. Each token has its piece of text or bytes worked out at load; this puts
 * pieces together. Bytes of a character that is not complete yet are held back, at most three. What cannot
 * become UTF-8 is U+FFFD: one for each maximal ill-formed part in byte-level vocabularies, one for each byte
 * where bytes are the fallback, as the reference has it. (The reference gives up a whole run of fallback
 * bytes when any of it is ill-formed; text that was streamed already could not follow it there.) Keeps the
 * pieces; one thread.
 */
#ifndef TS_TEXT_DETOK_H
#define TS_TEXT_DETOK_H

#include <stdbool.h>

#include "common/text/ts_split.h"
#include "common/text/ts_textbuf.h"

enum ts_piece_flags {
    TS_PIECE_PRESENT = 1,
    TS_PIECE_BYTES = 2, /* not text by itself: joins its neighbours */
    TS_PIECE_SPECIAL = 4,
    TS_PIECE_MARKED = 8 /* its spaces are space marks of the vocabulary */
};

struct ts_piece {
    size_t offset;
    uint32_t bytes, flags;
};

struct ts_piece_table { /* of a tokenizer */
    struct ts_textbuf text;
    struct ts_piece *pieces; /* by id */
    size_t count;
    bool bad_each_byte; /* U+FFFD for every byte that does not fit */
    bool strip_marks;   /* the first token of a text loses its space marks */
    char strip;         /* up to strip_count of this character are dropped where a text begins */
    uint32_t strip_count;
};

struct ts_detok {
    const struct ts_piece_table *table;
    bool skip_special, first;
    uint32_t strip_left;
    size_t held;
    char hold[4];
};

/* `flags` of enum ts_decode_flags. */
void ts_detok_init(struct ts_detok *detok, const struct ts_piece_table *table, unsigned flags);
void ts_detok_push(struct ts_detok *detok, uint32_t id,
                   struct ts_textbuf *out);                          /* appends what is certain now */
void ts_detok_flush(struct ts_detok *detok, struct ts_textbuf *out); /* at the end */

#endif
