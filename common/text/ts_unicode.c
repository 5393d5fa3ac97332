#include "common/text/ts_unicode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_utf8.h"

enum {
    LETTER_UPPER = TS_UC_LETTER | TS_UC_UPPER | TS_UC_WORD,
    LETTER_LOWER = TS_UC_LETTER | TS_UC_LOWER | TS_UC_WORD,
    LETTER_OTHER = LETTER_UPPER | LETTER_LOWER,
    MARK = TS_UC_UPPER | TS_UC_LOWER | TS_UC_WORD,
    NUMBER = TS_UC_NUMBER | TS_UC_NUMERIC,
    DIGIT = NUMBER | TS_UC_WORD
};

struct class_range {
    uint32_t first, last;
    unsigned classes;
};

/* Letters, marks and numbers of Unicode 15.1 and 16, which utf8proc 2.8 reports as unassigned. The two
   entries that are only NUMERIC are of Unicode 17, which the library's Digits splitter already follows and
   its regular expressions do not. */
static const struct class_range newer[] = {
    {0x897, 0x897, MARK},
    {0x1C89, 0x1C89, LETTER_UPPER},
    {0x1C8A, 0x1C8A, LETTER_LOWER},
    {0xA7CB, 0xA7CC, LETTER_UPPER},
    {0xA7CD, 0xA7CD, LETTER_LOWER},
    {0xA7DA, 0xA7DA, LETTER_UPPER},
    {0xA7DB, 0xA7DB, LETTER_LOWER},
    {0xA7DC, 0xA7DC, LETTER_UPPER},
    {0x105C0, 0x105F3, LETTER_OTHER},
    {0x10D40, 0x10D49, DIGIT},
    {0x10D4A, 0x10D4F, LETTER_OTHER},
    {0x10D50, 0x10D65, LETTER_UPPER},
    {0x10D69, 0x10D6D, MARK},
    {0x10D6F, 0x10D6F, LETTER_OTHER},
    {0x10D70, 0x10D85, LETTER_LOWER},
    {0x10EC2, 0x10EC4, LETTER_OTHER},
    {0x10EFC, 0x10EFC, MARK},
    {0x11380, 0x11389, LETTER_OTHER},
    {0x1138B, 0x1138B, LETTER_OTHER},
    {0x1138E, 0x1138E, LETTER_OTHER},
    {0x11390, 0x113B5, LETTER_OTHER},
    {0x113B7, 0x113B7, LETTER_OTHER},
    {0x113B8, 0x113C0, MARK},
    {0x113C2, 0x113C2, MARK},
    {0x113C5, 0x113C5, MARK},
    {0x113C7, 0x113CA, MARK},
    {0x113CC, 0x113D0, MARK},
    {0x113D1, 0x113D1, LETTER_OTHER},
    {0x113D2, 0x113D2, MARK},
    {0x113D3, 0x113D3, LETTER_OTHER},
    {0x113E1, 0x113E2, MARK},
    {0x116D0, 0x116E3, DIGIT},
    {0x11BC0, 0x11BE0, LETTER_OTHER},
    {0x11BF0, 0x11BF9, DIGIT},
    {0x11DE0, 0x11DE9, TS_UC_NUMERIC},
    {0x11F5A, 0x11F5A, MARK},
    {0x13460, 0x143FA, LETTER_OTHER},
    {0x16100, 0x1611D, LETTER_OTHER},
    {0x1611E, 0x1612F, MARK},
    {0x16130, 0x16139, DIGIT},
    {0x16D40, 0x16D6C, LETTER_OTHER},
    {0x16D70, 0x16D79, DIGIT},
    {0x16FF4, 0x16FF6, TS_UC_NUMERIC},
    {0x18CFF, 0x18CFF, LETTER_OTHER},
    {0x1CCF0, 0x1CCF9, DIGIT},
    {0x1E5D0, 0x1E5ED, LETTER_OTHER},
    {0x1E5EE, 0x1E5EF, MARK},
    {0x1E5F0, 0x1E5F0, LETTER_OTHER},
    {0x1E5F1, 0x1E5FA, DIGIT},
    {0x2EBF0, 0x2EE5D, LETTER_OTHER},
};

/* Code points that gained a combining class or a decomposition after Unicode 9. The library's normaliser
   takes them for plain characters: nothing is reordered or composed across one of them. */
static const struct class_range barriers[] = {
    {0x7FD, 0x7FD, 0},     {0x898, 0x89F, 0},     {0x8CA, 0x8D3, 0},     {0x9FE, 0x9FE, 0},
    {0xC3C, 0xC3C, 0},     {0xD3B, 0xD3C, 0},     {0xEBA, 0xEBA, 0},     {0x1715, 0x1715, 0},
    {0x1ABF, 0x1ACE, 0},   {0x1DF6, 0x1DFA, 0},   {0xA82C, 0xA82C, 0},   {0x10D24, 0x10D27, 0},
    {0x10EAB, 0x10EAC, 0}, {0x10EFD, 0x10EFF, 0}, {0x10F46, 0x10F50, 0}, {0x10F82, 0x10F85, 0},
    {0x11070, 0x11070, 0}, {0x1133B, 0x1133B, 0}, {0x1145E, 0x1145E, 0}, {0x11839, 0x1183A, 0},
    {0x11930, 0x11930, 0}, {0x11938, 0x11938, 0}, {0x1193D, 0x1193E, 0}, {0x11943, 0x11943, 0},
    {0x119E0, 0x119E0, 0}, {0x11A34, 0x11A34, 0}, {0x11A47, 0x11A47, 0}, {0x11A99, 0x11A99, 0},
    {0x11D42, 0x11D42, 0}, {0x11D44, 0x11D45, 0}, {0x11D97, 0x11D97, 0}, {0x11F41, 0x11F42, 0},
    {0x16FF0, 0x16FF1, 0}, {0x1E08F, 0x1E08F, 0}, {0x1E130, 0x1E136, 0}, {0x1E2AE, 0x1E2AE, 0},
    {0x1E2EC, 0x1E2EF, 0}, {0x1E4EC, 0x1E4EF, 0},
};

static int compare_range(const void *key, const void *item)
{
    uint32_t code = *(const uint32_t *)key;
    const struct class_range *range = item;
    if (code < range->first)
        return -1;
    return code > range->last;
}

static const struct class_range *find_range(const struct class_range *ranges, size_t count, uint32_t code)
{
    return bsearch(&code, ranges, count, sizeof *ranges, compare_range);
}

static unsigned space_class(uint32_t code)
{
    if (code == '\r' || code == '\n')
        return TS_UC_SPACE | TS_UC_NEWLINE;
    bool space = (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
                 code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
                 code == 0x202F || code == 0x205F || code == 0x3000;
    return space ? TS_UC_SPACE : 0;
}

/* Of the symbols only the enclosed Latin letters are alphabetic, and with them part of a word. */
static unsigned symbol_class(uint32_t code)
{
    bool enclosed = (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
                    (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
    return enclosed ? TS_UC_WORD : 0;
}

unsigned ts_unicode_class(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return LETTER_UPPER;
    case UTF8PROC_CATEGORY_LL:
        return LETTER_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER_OTHER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return MARK;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
        return DIGIT;
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    case UTF8PROC_CATEGORY_PC:
        return TS_UC_WORD;
    case UTF8PROC_CATEGORY_SO:
        return symbol_class(code);
    case UTF8PROC_CATEGORY_CF:
        return code == 0x200C || code == 0x200D ? TS_UC_WORD : 0; /* the joiners */
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
        return space_class(code);
    case UTF8PROC_CATEGORY_CN: {
        const struct class_range *range = find_range(newer, TS_ARRAY_SIZE(newer), code);
        return range ? range->classes : 0;
    }
    default:
        return 0;
    }
}

struct codes {
    utf8proc_int32_t *data;
    size_t count, capacity;
};

static unsigned combining_class(utf8proc_int32_t code)
{
    return (unsigned)utf8proc_get_property(code)->combining_class;
}

/* Stable sort of a run of marks by combining class. Counting, since utf8proc's own exchange sort takes
   minutes for a megabyte of marks in the wrong order. */
static void sort_marks(utf8proc_int32_t *marks, size_t count)
{
    size_t start[257] = {0};
    utf8proc_int32_t *sorted = ts_xmalloc(count * sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        start[combining_class(marks[i]) + 1]++;
    for (size_t i = 1; i < 257; i++)
        start[i] += start[i - 1];
    for (size_t i = 0; i < count; i++)
        sorted[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, sorted, count * sizeof *sorted);
    ts_free(sorted);
}

/* Reorders and composes the codes from `from` on; they are decomposed already. */
static void compose(struct codes *codes, size_t from)
{
    for (size_t i = from; i < codes->count; i++) {
        size_t end = i;
        while (end < codes->count && combining_class(codes->data[end]) != 0)
            end++;
        if (end - i > 1)
            sort_marks(codes->data + i, end - i);
        if (end > i)
            i = end - 1;
    }
    utf8proc_ssize_t count = utf8proc_normalize_utf32(
        codes->data + from, (utf8proc_ssize_t)(codes->count - from), UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    TS_ASSERT(count >= 0);
    codes->count = from + (size_t)count;
}

static void append_decomposed(struct codes *codes, uint32_t code)
{
    int bound = 0;
    ts_array_reserve((void **)&codes->data, &codes->capacity, codes->count + 8, sizeof *codes->data);
    utf8proc_ssize_t added = utf8proc_decompose_char((utf8proc_int32_t)code, codes->data + codes->count, 8,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &bound);
    TS_ASSERT(added > 0 && added <= 8);
    codes->count += (size_t)added;
}

static bool below_marks(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] >= 0xCC) /* U+0300, the first code point that NFC may touch */
            return false;
    return true;
}

char *ts_unicode_nfc(const char *text, size_t bytes, size_t *out_bytes)
{
    if (below_marks(text, bytes)) {
        char *same = ts_xmalloc(bytes + 1);
        memcpy(same, text, bytes);
        same[bytes] = '\0';
        *out_bytes = bytes;
        return same;
    }
    struct codes codes = {.data = ts_xmalloc((bytes + 8) * sizeof *codes.data), .capacity = bytes + 8};
    size_t from = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += ts_utf8_next(text + at, bytes - at, &code);
        if (find_range(barriers, TS_ARRAY_SIZE(barriers), code)) {
            compose(&codes, from);
            ts_array_reserve((void **)&codes.data, &codes.capacity, codes.count + 1, sizeof *codes.data);
            codes.data[codes.count++] = (utf8proc_int32_t)code;
            from = codes.count;
        } else {
            append_decomposed(&codes, code);
        }
    }
    compose(&codes, from);
    char *out = ts_xmalloc(codes.count * 4 + 1);
    size_t used = 0;
    for (size_t i = 0; i < codes.count; i++)
        used += ts_utf8_put((uint32_t)codes.data[i], out + used);
    out[used] = '\0';
    *out_bytes = used;
    ts_free(codes.data);
    return out;
}
