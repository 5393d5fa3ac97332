/* Against the answers of the `tokenizers` library, for each splitting rule and both kinds of BPE. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_textbuf.h"
#include "common/text/ts_textstream.h"
#include "common/text/ts_utf8.h"
#include "text_fixture.h"
#include "tokenizer_cases.h"

#define FLAGS          (TS_ENCODE_ADD_SPECIAL | TS_ENCODE_PARSE_SPECIAL)
#define SPLIT_IDS_MAX  120 /* every split of a longer string would take quadratic time for nothing new */
#define UNBROKEN_BYTES ((size_t)1 << 20)

#define UNCHANGING 4 /* so many of them change no text: neither normalised, nor with a space in front */
static const char *const names[] = {"gpt2",        "llama3",        "smollm",         "tekken",
                                    "gpt2-prefix", "qwen2",         "spm-normalizer", "spm-metaspace",
                                    "spm-words",   "spm-few-bytes", "plain-spaces"};

static uint32_t *encode(const struct cases *cases, const char *text, size_t bytes, size_t *count)
{
    uint32_t *ids = NULL;
    struct ts_error err = {0};
    if (ts_tokenizer_encode(cases->tok, text, bytes, FLAGS, &ids, count, &err) != TS_OK)
        fail_msg("%s: %s", cases->name, err.text);
    return ids;
}

static void print_text(const char *label, const char *text, size_t bytes)
{
    fprintf(stderr, "%s \"", label);
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        at += ts_utf8_next(text + at, bytes - at, &code);
        fprintf(stderr, code >= 0x20 && code < 0x7F ? "%c" : "\\u{%x}", code);
    }
    fprintf(stderr, "\"\n");
}

static void print_ids(const char *label, const uint32_t *ids, size_t count)
{
    fprintf(stderr, "%s", label);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %u", ids[i]);
    fprintf(stderr, "\n");
}

static void test_ids(void **state)
{
    struct cases cases;
    cases_open(&cases, *state);
    assert_int_equal(cases.count, 10000);
    const uint32_t *full = cases.ids.data;
    for (size_t i = 0; i < cases.count; i++) {
        size_t count, expected = cases.id_count.data[i];
        uint32_t *ids = encode(&cases, cases.strings[i], cases.bytes[i], &count);
        if (count != expected || cases_sum(ids, count * sizeof *ids) != cases.id_sum.data[i]) {
            print_text("text    ", cases.strings[i], cases.bytes[i]);
            if (i % CASES_FULL_EVERY == 0)
                print_ids("expected", full, expected);
            print_ids("got     ", ids, count);
            fail_msg("%s: string %zu: %zu ids, not the %zu expected; see scripts/make-tokenizer-cases --show "
                     "%s %zu",
                     cases.name, i, count, expected, cases.name, i);
        }
        if (i % CASES_FULL_EVERY == 0) {
            assert_true(full + expected <= cases.ids.data + cases.ids.count);
            assert_memory_equal(full, ids, count * sizeof *ids);
            full += expected;
        }
        ts_free(ids);
    }
    cases_close(&cases);
}

/* Text of a user: the same, but special tokens in it stay text, and none comes out of it in any way. */
static void test_ids_of_users(void **state)
{
    struct cases cases;
    size_t forged = 0;
    cases_open(&cases, *state);
    for (size_t i = 0; i < cases.count; i++) {
        size_t count;
        struct ts_error err = {0};
        uint32_t *ids = NULL, other = cases.user_sum.data[i];
        if (ts_tokenizer_encode(cases.tok, cases.strings[i], cases.bytes[i], TS_ENCODE_ADD_SPECIAL, &ids,
                                &count, &err) != TS_OK)
            fail_msg("%s: %s", cases.name, err.text);
        bool begins =
            count > 0 && ids[0] == ts_tokenizer_token_id(cases.tok, "<s>"); /* added by the post-processor */
        for (size_t j = begins; j < count; j++)
            assert_false(ts_tokenizer_is_special(cases.tok, ids[j]));
        forged += other == CASES_FORGED;
        if (other != CASES_FORGED && cases_sum(ids, count * sizeof *ids) != (cases.id_sum.data[i] ^ other)) {
            print_text("text", cases.strings[i], cases.bytes[i]);
            print_ids("got ", ids, count);
            fail_msg("%s: string %zu as text of a user: other ids", cases.name, i);
        }
        ts_free(ids);
    }
    assert_true(forged < cases.count / 4);
    cases_close(&cases);
}

static void test_every_code_point(void **state)
{
    struct cases cases;
    char *text;
    size_t bytes, count, index = 0;
    cases_open(&cases, *state);
    for (; (text = cases_sweep_text(index, &bytes)) != NULL; index++) {
        uint32_t *ids = encode(&cases, text, bytes, &count);
        assert_true(index < cases.sweep_sum.count);
        if (cases_sum(ids, count * sizeof *ids) != cases.sweep_sum.data[index]) {
            print_ids("got", ids, count);
            fail_msg("%s: text %zu of the sweep; see scripts/make-tokenizer-cases --show %s s%zu", cases.name,
                     index, cases.name, index);
        }
        ts_free(ids);
        ts_free(text);
    }
    assert_int_equal(index, cases.sweep_sum.count);
    cases_close(&cases);
}

static void expect_sum(const struct cases *cases, size_t i, const char *what, const char *text, size_t bytes,
                       uint32_t expected)
{
    if (cases_sum(text, bytes) == expected)
        return;
    print_text("text", cases->strings[i], cases->bytes[i]);
    print_text("got ", text, bytes);
    fail_msg("%s: string %zu, decoded %s: another text; see scripts/make-tokenizer-cases --show %s %zu",
             cases->name, i, what, cases->name, i);
}

static void test_decoding(void **state)
{
    struct cases cases;
    cases_open(&cases, *state);
    for (size_t i = 0; i < cases.count; i++) {
        size_t count, bytes;
        char *text;
        uint32_t *ids = encode(&cases, cases.strings[i], cases.bytes[i], &count);
        uint32_t kept = cases.text_sum.data[i] ^ cases_sum(cases.strings[i], cases.bytes[i]);
        ts_tokenizer_decode(cases.tok, ids, count, 0, &text, &bytes);
        expect_sum(&cases, i, "whole", text, bytes, kept);
        ts_free(text);
        ts_tokenizer_decode(cases.tok, ids, count, TS_DECODE_SKIP_SPECIAL, &text, &bytes);
        expect_sum(&cases, i, "without special tokens", text, bytes, kept ^ cases.skip_sum.data[i]);
        ts_free(text);
        ts_free(ids);
    }
    cases_close(&cases);
}

/* Without added tokens, which may take white space away, a string comes back as it was. */
static void test_round_trip(void **state)
{
    struct cases cases;
    size_t tried = 0;
    cases_open(&cases, *state);
    uint32_t added = ts_tokenizer_token_id(cases.tok, "<|im_start|>"); /* and all behind it */
    for (size_t i = 0; i < cases.count; i++) {
        size_t count, bytes;
        char *text;
        bool plain = true;
        uint32_t *ids = encode(&cases, cases.strings[i], cases.bytes[i], &count);
        for (size_t j = 0; j < count; j++)
            plain &= ids[j] < added;
        ts_tokenizer_decode(cases.tok, ids, count, TS_DECODE_SKIP_SPECIAL, &text, &bytes);
        if (plain && memmem(cases.strings[i], cases.bytes[i], "<s>", 3) == NULL) {
            expect_sum(&cases, i, "there and back", text, bytes, cases_sum(cases.strings[i], cases.bytes[i]));
            tried++;
        }
        ts_free(text);
        ts_free(ids);
    }
    assert_true(tried > cases.count / 2);
    cases_close(&cases);
}

/* The text of a request that ends after `count` tokens. The events of all but the last token do not know of
 * the end, so each event of a longer request but its last must be the same: `streamed` has them, one after
 * another, `ends` where each ends. */
static void expect_split(const struct cases *cases, const uint32_t *ids, size_t count,
                         const struct ts_textbuf *streamed, const size_t *ends)
{
    const struct ts_textstream_params params = {.max_tokens = (uint32_t)count};
    struct ts_textstream *stream = ts_textstream_new(cases->tok, &params);
    struct ts_text_event event;
    size_t bytes, at = 0;
    char *whole;
    ts_tokenizer_decode(cases->tok, ids, count, TS_DECODE_SKIP_SPECIAL | TS_DECODE_CONTINUE, &whole, &bytes);
    for (size_t i = 0; i < count; i++) {
        ts_textstream_push(stream, ids[i], &event);
        assert_int_equal(event.finish, i + 1 == count ? TS_TEXT_LENGTH : TS_TEXT_NONE);
        assert_true(ts_utf8_valid(event.text, event.bytes));
        assert_true(at + event.bytes <= bytes);
        assert_memory_equal(event.text, whole + at, event.bytes);
        at += event.bytes;
        if (i + 1 < count) {
            assert_int_equal(at, ends[i]);
            assert_memory_equal(streamed->data, whole, at);
        }
    }
    assert_int_equal(at, bytes);
    ts_free(whole);
    ts_textstream_destroy(&stream);
}

/* The events of one request that takes more tokens than there are: nothing is let go of early. */
static void stream_all(const struct cases *cases, const uint32_t *ids, size_t count, struct ts_textbuf *out,
                       size_t *ends)
{
    const struct ts_textstream_params params = {.max_tokens = (uint32_t)count + 1};
    struct ts_textstream *stream = ts_textstream_new(cases->tok, &params);
    for (size_t i = 0; i < count; i++) {
        struct ts_text_event event;
        ts_textstream_push(stream, ids[i], &event);
        ts_textbuf_append(out, event.text, event.bytes);
        ends[i] = out->bytes;
    }
    ts_textstream_destroy(&stream);
}

static void test_streaming(void **state)
{
    struct cases cases;
    cases_open(&cases, *state);
    for (size_t i = 0; i < cases.count; i++) {
        struct ts_textbuf streamed = {0};
        size_t count;
        uint32_t *ids = encode(&cases, cases.strings[i], cases.bytes[i], &count);
        size_t *ends = ts_xcalloc(count + 1, sizeof *ends);
        ts_textbuf_append(&streamed, "", 0);
        stream_all(&cases, ids, count, &streamed, ends);
        bool every = i % CASES_FULL_EVERY == 0 && count <= SPLIT_IDS_MAX;
        for (size_t split = every || count == 0 ? 1 : count; split <= count; split++)
            expect_split(&cases, ids, split, &streamed, ends);
        ts_free(streamed.data);
        ts_free(ends);
        ts_free(ids);
    }
    cases_close(&cases);
}

/* A mebibyte that no rule cuts, or cuts everywhere, takes less than a second of processor time. */
static void test_unbroken(void **state)
{
    static const char *const units[] = {
        "a",        "thou",         " ",      "\n",   "1",    "=",  "\xE4\xB8\x80",    "e\xCC\x81",
        "\xCC\x81", "\xE2\x96\x81", "<0x41>", "tool", "<|im", "aZ", "\xF0\x9F\x98\x82"};
    struct cases cases;
    cases_open(&cases, *state);
    for (size_t i = 0; i < TS_ARRAY_SIZE(units); i++) {
        struct ts_textbuf text = {0};
        size_t count;
        while (text.bytes < UNBROKEN_BYTES)
            ts_textbuf_append(&text, units[i], strlen(units[i]));
        ts_time start = fixture_cpu_now();
        uint32_t *ids = encode(&cases, text.data, text.bytes, &count);
        ts_time took = fixture_cpu_now() - start;
        if (took > TS_S * FIXTURE_SLOWDOWN)
            fail_msg("%s: \"%s\" times %zu took %lld ms", cases.name, units[i], text.bytes / strlen(units[i]),
                     (long long)(took / TS_MS));
        assert_true(count > 0 && count <= text.bytes + 2);
        ts_free(ids);
        ts_free(text.data);
    }
    cases_close(&cases);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void **);
    } kinds[] = {{"ids", test_ids},
                 {"ids of users", test_ids_of_users},
                 {"every code point", test_every_code_point},
                 {"decoding", test_decoding},
                 {"round trip", test_round_trip},
                 {"streaming", test_streaming},
                 {"unbroken", test_unbroken}};
    struct CMUnitTest tests[TS_ARRAY_SIZE(names) * (TS_ARRAY_SIZE(kinds) - 1) + UNCHANGING];
    char labels[TS_ARRAY_SIZE(tests)][48];
    size_t count = 0;
    for (size_t i = 0; count < TS_ARRAY_SIZE(tests); i++) {
        size_t name = i / TS_ARRAY_SIZE(kinds), kind = i % TS_ARRAY_SIZE(kinds);
        if (kinds[kind].run == test_round_trip && name >= UNCHANGING)
            continue;
        snprintf(labels[count], sizeof labels[count], "%s: %s", names[name], kinds[kind].name);
        tests[count] = (struct CMUnitTest){.name = labels[count],
                                           .test_func = kinds[kind].run,
                                           .initial_state = (void *)(uintptr_t)names[name]};
        count++;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
