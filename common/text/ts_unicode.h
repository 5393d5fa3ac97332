/*
 * What the splitting rules and normalisers of tokenizers ask about code points. The only file that includes
 * utf8proc.h. Models were trained on what the `tokenizers` library answers, so where its Unicode versions
 * differ from utf8proc's (15.0), this file follows the library: classes of Unicode 16, normalisation of
 * Unicode 9. Pure functions; any thread.
 */
#ifndef TS_TEXT_UNICODE_H
#define TS_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum ts_unicode_class {
    TS_UC_LETTER = 1,   /* L */
    TS_UC_NUMBER = 2,   /* N */
    TS_UC_SPACE = 4,    /* White_Space */
    TS_UC_NEWLINE = 8,  /* CR and LF */
    TS_UC_UPPER = 16,   /* Lu, Lt, Lm, Lo, M: what may open a word of the Tekken pattern */
    TS_UC_LOWER = 32,   /* Ll, Lm, Lo, M: what may follow there */
    TS_UC_NUMERIC = 64, /* N as the Digits splitter knows it */
    TS_UC_WORD = 128    /* \w: the neighbours that a single_word token may not have */
};

unsigned ts_unicode_class(uint32_t code); /* a set of enum ts_unicode_class */

/* Canonical composition. `text` is valid UTF-8; the caller owns the result (ts_free). Linear in the length
 * whatever the text. */
char *ts_unicode_nfc(const char *text, size_t bytes, size_t *out_bytes);

#endif
