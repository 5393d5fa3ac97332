#include "text_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "common/text/ts_utf8.h"

/* The printable code point of a byte, worked out independently of the code under test: the bytes without a
 * glyph get U+0100 and up. */
static uint32_t alphabet_code(unsigned byte)
{
    uint32_t next = 0x100;
    for (unsigned b = 0; b < 256; b++) {
        bool glyph = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
        if (b == byte)
            return glyph ? b : next;
        next += !glyph;
    }
    return 0;
}

static char *vocab_json(const struct fixture *fixture)
{
    struct ts_json *vocab = ts_json_new_object();
    int64_t id = 0;
    for (unsigned byte = 0; byte < 256 && (fixture->byte_alphabet || fixture->byte_tokens); byte++) {
        char name[8] = {0};
        if (fixture->byte_alphabet)
            ts_utf8_put(alphabet_code(byte), name);
        else
            snprintf(name, sizeof name, "<0x%02X>", byte);
        ts_json_put_integer(vocab, name, id++);
    }
    for (const char *const *token = fixture->tokens; token && *token; token++)
        ts_json_put_integer(vocab, *token, id++);
    char *text = ts_json_dump(vocab, false);
    ts_json_destroy(&vocab);
    return text;
}

static const char *or_null(const char *json)
{
    return json ? json : "null";
}

char *fixture_json(const struct fixture *fixture)
{
    struct ts_json *list = ts_json_new_array();
    for (const char *const *merge = fixture->merges; merge && *merge; merge++)
        ts_json_put_string(list, NULL, *merge, strlen(*merge));
    char *vocab = vocab_json(fixture), *merges = ts_json_dump(list, false);
    char *text = ts_xasprintf(
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":%s,\"normalizer\":%s,"
        "\"pre_tokenizer\":%s,\"post_processor\":%s,\"decoder\":%s,"
        "\"model\":{\"type\":\"BPE\",%s\"vocab\":%s,\"merges\":%s}}",
        fixture->added ? fixture->added : "[]", or_null(fixture->normalizer), or_null(fixture->pre_tokenizer),
        or_null(fixture->post_processor), fixture->decoder ? fixture->decoder : FIXTURE_BYTE_LEVEL,
        fixture->model_extra ? fixture->model_extra : "", vocab, merges);
    ts_free(vocab);
    ts_free(merges);
    ts_json_destroy(&list);
    return text;
}

struct ts_tokenizer *fixture_open(const struct fixture *fixture)
{
    struct ts_tokenizer *tok = NULL;
    struct ts_error err = {0};
    char *json = fixture_json(fixture);
    if (ts_tokenizer_parse(json, strlen(json), "fixture", &tok, &err) != TS_OK)
        fail_msg("%s", err.text);
    ts_free(json);
    return tok;
}

void fixture_expect(const struct ts_tokenizer *tok, const char *text, size_t bytes, unsigned flags,
                    const uint32_t *ids)
{
    uint32_t *got = NULL;
    size_t count = 0, expected = 0;
    struct ts_error err = {0};
    if (ts_tokenizer_encode(tok, text, bytes, flags, &got, &count, &err) != TS_OK)
        fail_msg("%s", err.text);
    while (ids[expected] != TS_TOKEN_NONE)
        expected++;
    for (size_t i = 0; i < expected && i < count; i++)
        if (got[i] != ids[i])
            fail_msg("\"%s\": id %zu is %u, not %u", text, i, got[i], ids[i]);
    if (count != expected)
        fail_msg("\"%s\": %zu ids, not %zu", text, count, expected);
    ts_free(got);
}

void fixture_expect_text(const struct ts_tokenizer *tok, const uint32_t *ids, size_t count, unsigned flags,
                         const char *text)
{
    char *got = NULL;
    size_t bytes = 0;
    ts_tokenizer_decode(tok, ids, count, flags, &got, &bytes);
    assert_string_equal(got, text);
    assert_int_equal(bytes, strlen(text));
    ts_free(got);
}

ts_time fixture_cpu_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (ts_time)now.tv_sec * TS_S + now.tv_nsec;
}
