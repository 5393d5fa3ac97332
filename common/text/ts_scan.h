/*
 * The splitting patterns of byte-level tokenizers, written as scanners over code points instead of regular
 * expressions. A file names its pattern by the expression's text; ts_scan_find knows the spellings. Every
 * pattern matches everywhere, so splitting is repeated calls of ts_scan_next, and each scanner reads a byte
 * at most a few times whatever the text. Pure functions; any thread.
 */
#ifndef TS_TEXT_SCAN_H
#define TS_TEXT_SCAN_H

#include <stdbool.h>
#include <stddef.h>

enum ts_scan { TS_SCAN_GPT2, TS_SCAN_LLAMA3, TS_SCAN_QWEN2, TS_SCAN_TEKKEN };

bool ts_scan_find(const char *pattern, size_t bytes, enum ts_scan *out);

/* Length of the match at the start of `text`: valid UTF-8, bytes > 0. The end of `text` counts as the end of
 * the string. */
size_t ts_scan_next(enum ts_scan scan, const char *text, size_t bytes);

#endif
