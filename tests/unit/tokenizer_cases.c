#include "tokenizer_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_textbuf.h"
#include "common/text/ts_utf8.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files are little-endian");

uint32_t cases_sum(const void *data, size_t bytes)
{
    return (uint32_t)crc32(0, data, (uInt)bytes);
}

/* The whole file tests/data/tokenizers/NAME.z, aligned for words; ts_free. */
static char *unpack(const char *name, size_t *bytes)
{
    char *path = ts_xasprintf("%s/tokenizers/%s.z", TS_TEST_DATA, name), *out = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be read", path);
    static char packed[1 << 20];
    uLongf size = (uLongf)32 << 20;
    size_t packed_bytes = fread(packed, 1, sizeof packed, file);
    fclose(file);
    out = ts_xmalloc(size);
    if (uncompress((Bytef *)out, &size, (const Bytef *)packed, (uLong)packed_bytes) != Z_OK)
        fail_msg("%s is not a zlib stream", path);
    *bytes = size;
    ts_free(path);
    return out;
}

static void load_strings(struct cases *cases)
{
    size_t bytes, at;
    char *data = cases->string_data = unpack("strings", &bytes);
    uint32_t count;
    memcpy(&count, data, sizeof count);
    cases->count = count;
    cases->bytes = (const uint32_t *)(void *)(data + 4);
    cases->strings = ts_xcalloc(count, sizeof *cases->strings);
    at = 4 + 4 * (size_t)count;
    for (size_t i = 0; i < count; at += cases->bytes[i++]) {
        assert_true(at + cases->bytes[i] <= bytes);
        cases->strings[i] = data + at;
    }
    assert_int_equal(at, bytes);
}

/* A count and that many words at *at, which goes behind them. */
static struct cases_column take_column(const char *data, size_t bytes, size_t *at)
{
    struct cases_column column;
    uint32_t count;
    assert_true(*at + 4 <= bytes);
    memcpy(&count, data + *at, sizeof count);
    column = (struct cases_column){(const uint32_t *)(const void *)(data + *at + 4), count};
    *at += 4 + 4 * (size_t)count;
    assert_true(*at <= bytes);
    return column;
}

void cases_open(struct cases *cases, const char *name)
{
    struct ts_error err = {0};
    uint32_t json_bytes;
    size_t bytes, at;
    *cases = (struct cases){.name = name};
    load_strings(cases);
    cases->data = unpack(name, &bytes);
    memcpy(&json_bytes, cases->data, sizeof json_bytes);
    assert_true(4 + (size_t)json_bytes <= bytes && json_bytes % 4 == 0);
    if (ts_tokenizer_parse(cases->data + 4, json_bytes, name, &cases->tok, &err) != TS_OK)
        fail_msg("%s", err.text);
    at = 4 + json_bytes;
    struct cases_column *const columns[] = {&cases->id_count, &cases->id_sum,   &cases->user_sum,
                                            &cases->text_sum, &cases->skip_sum, &cases->ids,
                                            &cases->sweep_sum};
    for (size_t i = 0; i < TS_ARRAY_SIZE(columns); i++) {
        *columns[i] = take_column(cases->data, bytes, &at);
        if (i < 5)
            assert_int_equal(columns[i]->count, cases->count);
    }
    assert_int_equal(at, bytes);
}

void cases_close(struct cases *cases)
{
    ts_tokenizer_destroy(&cases->tok);
    ts_free(cases->strings);
    ts_free(cases->string_data);
    ts_free(cases->data);
}

char *cases_sweep_text(size_t index, size_t *bytes)
{
    static const uint32_t ranges[][2] = {{0, 0xD800}, {0xE000, 0x40000}, {0xE0000, 0xE0200}};
    static const char *const before[] = {"a", "B", "1", " ", "", "!", "tool"};
    struct ts_textbuf out = {0};
    size_t range = 0;
    for (; range < TS_ARRAY_SIZE(ranges); range++) {
        size_t blocks = (ranges[range][1] - ranges[range][0]) / CASES_SWEEP_BLOCK;
        if (index < blocks)
            break;
        index -= blocks;
    }
    if (range == TS_ARRAY_SIZE(ranges))
        return NULL;
    for (uint32_t i = 0; i < CASES_SWEEP_BLOCK; i++) {
        char code[4];
        size_t length = ts_utf8_put(ranges[range][0] + (uint32_t)index * CASES_SWEEP_BLOCK + i, code);
        for (size_t j = 0; j < TS_ARRAY_SIZE(before); j++) {
            ts_textbuf_append(&out, before[j], strlen(before[j]));
            ts_textbuf_append(&out, code, length);
        }
    }
    *bytes = out.bytes;
    return out.data;
}
