#include "common/text/ts_utf8.h"

#include <string.h>

#include "common/base/ts_mem.h"

/* Length of the sequence that `lead` opens (0: none) and the bounds of its second byte, which exclude
   overlong forms, surrogates and values above U+10FFFF. */
static size_t lead_length(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    if (lead < 0xE0)
        return 2;
    if (lead < 0xF0) {
        if (lead == 0xE0)
            *low = 0xA0;
        else if (lead == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (lead == 0xF0)
        *low = 0x90;
    else if (lead == 0xF4)
        *high = 0x8F;
    return 4;
}

size_t ts_utf8_next(const char *text, size_t bytes, uint32_t *code)
{
    const uint8_t *s = (const uint8_t *)text;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    uint8_t low, high;
    size_t need = lead_length(s[0], &low, &high);
    if (need == 0) {
        *code = TS_UTF8_BAD;
        return 1;
    }
    uint32_t value = s[0] & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if (i == bytes) {
            *code = TS_UTF8_CUT;
            return i;
        }
        if (s[i] < low || s[i] > high) {
            *code = TS_UTF8_BAD;
            return i;
        }
        value = value << 6 | (s[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *code = value;
    return need;
}

size_t ts_utf8_put(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

bool ts_utf8_valid(const char *text, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += ts_utf8_next(text + at, bytes - at, &code);
        if (code >= TS_UTF8_CUT)
            return false;
    }
    return true;
}

char *ts_utf8_lossy(const char *text, size_t bytes, size_t *out_bytes)
{
    size_t size = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t length = ts_utf8_next(text + at, bytes - at, &code);
        size += code >= TS_UTF8_CUT ? 3 : length;
        at += length;
    }
    char *out = ts_xmalloc(size + 1);
    size_t used = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t length = ts_utf8_next(text + at, bytes - at, &code);
        if (code >= TS_UTF8_CUT) {
            used += ts_utf8_put(TS_UTF8_REPLACEMENT, out + used);
        } else {
            memcpy(out + used, text + at, length);
            used += length;
        }
        at += length;
    }
    out[used] = '\0';
    *out_bytes = used;
    return out;
}
