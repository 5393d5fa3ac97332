#include "common/text/ts_scan.h"

#include <stdint.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/text/ts_unicode.h"
#include "common/text/ts_utf8.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define OPENER       "[^\\r\\n\\p{L}\\p{N}]?"

static const struct {
    enum ts_scan scan;
    const char *pattern;
} patterns[] = {
    {TS_SCAN_GPT2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {TS_SCAN_LLAMA3, CONTRACTIONS OPENER "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
    {TS_SCAN_QWEN2, CONTRACTIONS OPENER "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES},
    {TS_SCAN_TEKKEN,
     OPENER UPPER "*" LOWER "+|" OPENER UPPER "+" LOWER "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES},
};

bool ts_scan_find(const char *pattern, size_t bytes, enum ts_scan *out)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(patterns); i++) {
        if (strlen(patterns[i].pattern) == bytes && memcmp(patterns[i].pattern, pattern, bytes) == 0) {
            *out = patterns[i].scan;
            return true;
        }
    }
    return false;
}

struct view {
    const char *text;
    size_t bytes;
};

/* Classes of the code point at `at` and its length; 0 and 0 at the end. */
static unsigned class_at(const struct view *v, size_t at, size_t *length)
{
    uint32_t code;
    *length = 0;
    if (at >= v->bytes)
        return 0;
    *length = ts_utf8_next(v->text + at, v->bytes - at, &code);
    return ts_unicode_class(code);
}

/* First position from `at` whose code point has none of the classes `mask`. */
static size_t skip_of(const struct view *v, size_t at, unsigned mask)
{
    size_t length;
    while (class_at(v, at, &length) & mask)
        at += length;
    return at;
}

/* First position from `at` whose code point has one of the classes `mask`, or the end. */
static size_t skip_until(const struct view *v, size_t at, unsigned mask)
{
    size_t length;
    while (at < v->bytes && !(class_at(v, at, &length) & mask))
        at += length;
    return at;
}

/* 's 't 're 've 'm 'll 'd after an apostrophe at 0; 0 if none. Without case the long s (U+017F) is an s as
 * well. */
static size_t contraction(const struct view *v, bool any_case)
{
    char low[2] = {0, 0};
    if (v->bytes < 2 || v->text[0] != '\'')
        return 0;
    for (size_t i = 0; i < 2 && i + 1 < v->bytes; i++) {
        char c = v->text[i + 1];
        low[i] = any_case && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    if (low[0] == 's' || low[0] == 't' || low[0] == 'm' || low[0] == 'd')
        return 2;
    if ((low[0] == 'r' && low[1] == 'e') || (low[0] == 'v' && low[1] == 'e') ||
        (low[0] == 'l' && low[1] == 'l'))
        return 3;
    return any_case && low[0] == (char)0xC5 && low[1] == (char)0xBF ? 3 : 0;
}

/* \s+(?!\S)|\s+ on a run of spaces: all of it at the end of the text or when it is one code point, else all
 * but the last one. */
static size_t spaces(const struct view *v)
{
    size_t at = 0, last = 0, length;
    while (class_at(v, at, &length) & TS_UC_SPACE) {
        last = at;
        at += length;
    }
    return at == v->bytes || last == 0 ? at : last;
}

/* The same after \s*[\r\n]+, which ends behind the last line break of the run. */
static size_t spaces_and_lines(const struct view *v)
{
    size_t at = 0, line_end = 0, length;
    unsigned classes;
    while ((classes = class_at(v, at, &length)) & TS_UC_SPACE) {
        at += length;
        if (classes & TS_UC_NEWLINE)
            line_end = at;
    }
    return line_end ? line_end : spaces(v);
}

/* Where the match of " ?[^\s\p{L}\p{N}]+" ends, or 0. */
static size_t symbols(const struct view *v)
{
    size_t start = v->text[0] == ' ';
    size_t end = skip_until(v, start, TS_UC_SPACE | TS_UC_LETTER | TS_UC_NUMBER);
    return end > start ? end : 0;
}

static size_t scan_gpt2(const struct view *v)
{
    size_t end = contraction(v, false), length;
    if (end)
        return end;
    size_t start = v->text[0] == ' ';
    unsigned classes = class_at(v, start, &length);
    if (classes & TS_UC_LETTER)
        return skip_of(v, start, TS_UC_LETTER);
    if (classes & TS_UC_NUMBER)
        return skip_of(v, start, TS_UC_NUMBER);
    end = symbols(v);
    return end ? end : spaces(v);
}

/* Llama 3 and Qwen2 differ in how many numbers stay together. */
static size_t scan_llama3(const struct view *v, size_t numbers)
{
    size_t end = contraction(v, true), length, next_length;
    if (end)
        return end;
    unsigned classes = class_at(v, 0, &length);
    if (classes & TS_UC_LETTER)
        return skip_of(v, 0, TS_UC_LETTER);
    if (classes & TS_UC_NUMBER) {
        for (end = 0; numbers > 0 && (class_at(v, end, &length) & TS_UC_NUMBER); numbers--)
            end += length;
        return end;
    }
    if (!(classes & TS_UC_NEWLINE) && (class_at(v, length, &next_length) & TS_UC_LETTER))
        return skip_of(v, length, TS_UC_LETTER);
    end = symbols(v);
    return end ? skip_of(v, end, TS_UC_NEWLINE) : spaces_and_lines(v);
}

/*
 * UPPER*LOWER+ from `at`, with overlapping sets. The greedy run of UPPER is followed by LOWER+ where a
 * lower-case letter comes next; otherwise the expression gives back to the last code point of the run that is
 * LOWER as well. Returns `at` if there is none.
 */
static size_t tekken_word(const struct view *v, size_t at)
{
    size_t length, end = at, shared_end = at;
    unsigned classes;
    while ((classes = class_at(v, end, &length)) & TS_UC_UPPER) {
        end += length;
        if (classes & TS_UC_LOWER)
            shared_end = end;
    }
    return classes & TS_UC_LOWER ? skip_of(v, end, TS_UC_LOWER) : shared_end;
}

/* The two word forms, each with and without the optional opener, in the order of the expression. The second
   form, UPPER+LOWER*, is reached only where nothing LOWER follows or lies in the run, so it is the run. */
static size_t tekken_words(const struct view *v)
{
    size_t opener, end;
    if (class_at(v, 0, &opener) & (TS_UC_NEWLINE | TS_UC_LETTER | TS_UC_NUMBER))
        opener = 0;
    if (opener && (end = tekken_word(v, opener)) > opener)
        return end;
    if ((end = tekken_word(v, 0)) > 0)
        return end;
    if (opener && (end = skip_of(v, opener, TS_UC_UPPER)) > opener)
        return end;
    return skip_of(v, 0, TS_UC_UPPER);
}

static size_t scan_tekken(const struct view *v)
{
    size_t length, end = tekken_words(v);
    if (end)
        return end;
    if (class_at(v, 0, &length) & TS_UC_NUMBER)
        return length;
    end = symbols(v);
    if (!end)
        return spaces_and_lines(v);
    while (end < v->bytes && (v->text[end] == '\r' || v->text[end] == '\n' || v->text[end] == '/'))
        end++;
    return end;
}

size_t ts_scan_next(enum ts_scan scan, const char *text, size_t bytes)
{
    const struct view v = {text, bytes};
    switch (scan) {
    case TS_SCAN_GPT2:
        return scan_gpt2(&v);
    case TS_SCAN_LLAMA3:
        return scan_llama3(&v, 3);
    case TS_SCAN_QWEN2:
        return scan_llama3(&v, 1);
    case TS_SCAN_TEKKEN:
        break;
    }
    return scan_tekken(&v);
}
