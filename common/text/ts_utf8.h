/*
 * UTF-8, one code point at a time, with one rule for bytes that are not UTF-8: each maximal part of an
 * ill-formed sequence stands for one U+FFFD (Unicode 3.9, "U+FFFD substitution of maximal subparts").
 * Overlong forms, surrogates and values above U+10FFFF are ill-formed. All functions are pure; any thread.
 */
#ifndef TS_TEXT_UTF8_H
#define TS_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TS_UTF8_REPLACEMENT 0xFFFDu
#define TS_UTF8_BAD         0xFFFFFFFFu /* ill-formed: the returned length is that of the maximal subpart */
#define TS_UTF8_CUT         0xFFFFFFFEu /* the text ends inside a sequence that more bytes could complete */

/* Reads the code point at `text`; bytes > 0. Returns how many bytes it takes (at least 1). */
size_t ts_utf8_next(const char *text, size_t bytes, uint32_t *code);

/* Writes `code` (a scalar value) and returns its length, 1 to 4. */
size_t ts_utf8_put(uint32_t code, char out[4]);

bool ts_utf8_valid(const char *text, size_t bytes);

/* A copy with every ill-formed part replaced by U+FFFD, NUL-terminated; the caller owns it (ts_free). */
char *ts_utf8_lossy(const char *text, size_t bytes, size_t *out_bytes);

#endif
