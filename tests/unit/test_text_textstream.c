#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/text/ts_textstream.h"
#include "common/text/ts_utf8.h"
#include "text_fixture.h"

#define STOPS(...)                                                                                           \
    (const struct ts_text_stop[]){__VA_ARGS__},                                                              \
        .stop_count = sizeof((const struct ts_text_stop[]){__VA_ARGS__}) / sizeof(struct ts_text_stop)
#define STOP(text)                                                                                           \
    {                                                                                                        \
        text, sizeof(text) - 1                                                                               \
    }

enum { EOS = 256, WORD = 257 }; /* "<eos>" is special, " hello" an ordinary token */

static struct ts_tokenizer *byte_level(void)
{
    static const char *const tokens[] = {"<eos>", "\xC4\xA0hello", NULL};
    return fixture_open(&(struct fixture){
        .byte_alphabet = true,
        .tokens = tokens,
        .pre_tokenizer = FIXTURE_BYTE_LEVEL,
        .added = "[{\"id\":256,\"content\":\"<eos>\",\"special\":true,\"normalized\":false}]"});
}

static struct ts_tokenizer *sentencepiece(void)
{
    static const char *const tokens[] = {"<eos>", "\xE2\x96\x81hello", "a", NULL};
    return fixture_open(&(struct fixture){
        .byte_tokens = true,
        .tokens = tokens,
        .decoder = FIXTURE_SPM_DECODER,
        .added = "[{\"id\":256,\"content\":\"<eos>\",\"special\":true,\"normalized\":false}]"});
}

/* Pushes the tokens and writes what each event gave, '|' behind each; returns the last finish. */
static enum ts_text_finish run(const struct ts_tokenizer *tok, const struct ts_textstream_params *params,
                               const uint32_t *tokens, size_t count, char *out)
{
    struct ts_textstream *stream = ts_textstream_new(tok, params);
    struct ts_text_event event = {.finish = TS_TEXT_NONE};
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(event.finish, TS_TEXT_NONE);
        ts_textstream_push(stream, tokens[i], &event);
        memcpy(out, event.text, event.bytes);
        out += event.bytes;
        *out++ = '|';
    }
    *out = '\0';
    ts_textstream_destroy(&stream);
    assert_null(stream);
    return event.finish;
}

#define RUN(tok, params, out, ...)                                                                           \
    run(tok, params, (const uint32_t[]){__VA_ARGS__},                                                        \
        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), out)

static void text_comes_token_by_token(void **state)
{
    char out[256];
    struct ts_tokenizer *tok = byte_level();
    const struct ts_textstream_params params = {.max_tokens = 4};
    (void)state;
    assert_int_equal(RUN(tok, &params, out, WORD, 'a', WORD), TS_TEXT_NONE);
    assert_string_equal(out, " hello|a| hello|"); /* the leading space continues the prompt */
    assert_int_equal(RUN(tok, &params, out, 'a', 'b', 'c', 'd'), TS_TEXT_LENGTH);
    assert_string_equal(out, "a|b|c|d|");
    assert_int_equal(RUN(tok, &params, out, 'a', EOS, 'c', 9999),
                     TS_TEXT_LENGTH); /* not named as end: skipped */
    assert_string_equal(out, "a||c||");
    ts_tokenizer_destroy(&tok);
    tok = sentencepiece();
    RUN(tok, &params, out, WORD, WORD);
    assert_string_equal(out, " hello| hello|");
    ts_tokenizer_destroy(&tok);
}

static void unfinished_characters_wait(void **state)
{
    char out[256];
    struct ts_tokenizer *tok = byte_level();
    const struct ts_textstream_params params = {.max_tokens = 4};
    (void)state;
    RUN(tok, &params, out, 0xF0, 0x9F, 0x99);
    assert_string_equal(out, "|||");
    RUN(tok, &params, out, 0xF0, 0x9F, 0x99, 0x82);
    assert_string_equal(out, "|||\xF0\x9F\x99\x82|");
    RUN(tok, &params, out, 0xE2, 0x82, 'a');
    assert_string_equal(out, "||\xEF\xBF\xBD"
                             "a|");
    RUN(tok, &params, out, 'a', 'b', 'c', 0xE2); /* the end lets go of everything */
    assert_string_equal(out, "a|b|c|\xEF\xBF\xBD|");
    ts_tokenizer_destroy(&tok);
}

static void end_tokens_end_without_text(void **state)
{
    static const uint32_t eos[] = {EOS, 'z'};
    char out[256];
    struct ts_tokenizer *tok = byte_level();
    struct ts_textstream_params params = {
        .max_tokens = 9, .eos = eos, .eos_count = 2, .stops = STOPS(STOP("b!"))};
    (void)state;
    assert_int_equal(RUN(tok, &params, out, 'a', EOS), TS_TEXT_STOP);
    assert_string_equal(out, "a||");
    assert_int_equal(RUN(tok, &params, out, 'a', 'z'),
                     TS_TEXT_STOP); /* an end token that is no special token */
    assert_string_equal(out, "a||");
    assert_int_equal(RUN(tok, &params, out, 'b', 0xE2, EOS), TS_TEXT_STOP); /* what was held comes out */
    assert_string_equal(out, "||b\xEF\xBF\xBD|");
    params.min_tokens = 2;
    assert_int_equal(RUN(tok, &params, out, EOS, 'z', EOS), TS_TEXT_STOP);
    assert_string_equal(out, "|z||");
    params.ignore_eos = true;
    assert_int_equal(RUN(tok, &params, out, 'a', EOS, EOS, 'z'), TS_TEXT_NONE);
    assert_string_equal(out, "a|||z|");
    params.max_tokens = 1;
    params.ignore_eos = false;
    params.min_tokens = 0;
    assert_int_equal(RUN(tok, &params, out, EOS), TS_TEXT_STOP); /* before the length */
    ts_tokenizer_destroy(&tok);
}

static void stop_strings_end_the_text_before_them(void **state)
{
    char out[256];
    struct ts_tokenizer *tok = byte_level();
    struct ts_textstream_params params = {.max_tokens = 9,
                                          .stops = STOPS(STOP("abc"), STOP("lox"), STOP("lo"), STOP(""))};
    (void)state;
    assert_int_equal(RUN(tok, &params, out, 'x', 'a', 'b', 'c'), TS_TEXT_STOP);
    assert_string_equal(out, "x||||");
    assert_int_equal(RUN(tok, &params, out, 'a', 'b', 'a', 'b', 'x'), TS_TEXT_NONE);
    assert_string_equal(out, "||ab||abx|"); /* a tail that cannot become a stop string any more is let go */
    assert_int_equal(RUN(tok, &params, out, WORD), TS_TEXT_STOP);
    assert_string_equal(out, " hel|");
    params.max_tokens = 2;
    assert_int_equal(RUN(tok, &params, out, 'a', 'b'), TS_TEXT_LENGTH);
    assert_string_equal(out, "|ab|");
    params.max_tokens = 3;
    assert_int_equal(RUN(tok, &params, out, 'a', 'b', 'c'), TS_TEXT_STOP); /* before the length */
    assert_string_equal(out, "|||");
    params.max_tokens = 9;
    params.min_tokens = 2;
    assert_int_equal(RUN(tok, &params, out, 'l', 'o', 'l', 'o'), TS_TEXT_STOP);
    assert_string_equal(out, "l|o|||");
    assert_int_equal(RUN(tok, &params, out, 'a', 'b', 'c'), TS_TEXT_NONE); /* begun before the search did */
    assert_string_equal(out, "a|b|c|");
    ts_tokenizer_destroy(&tok);
}

static void the_longest_of_stops_that_end_together_counts(void **state)
{
    char out[256];
    struct ts_tokenizer *tok = byte_level();
    const struct ts_textstream_params params = {.max_tokens = 9,
                                                .stops = STOPS(STOP("c"), STOP("abc"), STOP("bc"))};
    (void)state;
    assert_int_equal(RUN(tok, &params, out, 'x', 'a', 'b', 'c'), TS_TEXT_STOP);
    assert_string_equal(out, "x||||");
    ts_tokenizer_destroy(&tok);
}

static void without_a_tokenizer_there_is_only_a_finish(void **state)
{
    static const uint32_t eos[] = {7};
    char out[64];
    const struct ts_textstream_params params = {
        .max_tokens = 3, .eos = eos, .eos_count = 1, .stops = STOPS(STOP("a"))};
    (void)state;
    assert_int_equal(RUN(NULL, &params, out, 1, 'a', 3), TS_TEXT_LENGTH);
    assert_string_equal(out, "|||");
    assert_int_equal(RUN(NULL, &params, out, 1, 7), TS_TEXT_STOP);
}

/* The rule of ts_textstream.h, written the slow way: the first byte at which some stop string is complete. */
static size_t find_stop(const char *text, size_t bytes, const struct ts_text_stop *stops, size_t count)
{
    for (size_t end = 1; end <= bytes; end++) {
        size_t longest = 0;
        for (size_t k = 0; k < count; k++)
            if (stops[k].bytes <= end && stops[k].bytes > longest &&
                memcmp(text + end - stops[k].bytes, stops[k].text, stops[k].bytes) == 0)
                longest = stops[k].bytes;
        if (longest)
            return end - longest;
    }
    return SIZE_MAX;
}

/* The longest tail that is a proper beginning of a stop string. */
static size_t tail_to_hold(const char *text, size_t bytes, const struct ts_text_stop *stops, size_t count)
{
    size_t held = 0;
    for (size_t k = 0; k < count; k++)
        for (size_t n = 1; n < stops[k].bytes && n <= bytes; n++)
            if (n > held && memcmp(text + bytes - n, stops[k].text, n) == 0)
                held = n;
    return held;
}

/* Ends the stream after `count` tokens by length: the events together are the whole text, cut at a stop
 * string. */
static void check_split(const struct ts_tokenizer *tok, struct ts_textstream_params params,
                        const uint32_t *tokens, size_t count)
{
    struct ts_textstream *stream;
    struct ts_text_event event = {.finish = TS_TEXT_NONE};
    char *whole = NULL, joined[1024];
    size_t whole_bytes = 0, used = 0;
    ts_tokenizer_decode(tok, tokens, count, TS_DECODE_SKIP_SPECIAL | TS_DECODE_CONTINUE, &whole,
                        &whole_bytes);
    size_t stop = find_stop(whole, whole_bytes, params.stops, params.stop_count);
    params.max_tokens = (uint32_t)count;
    stream = ts_textstream_new(tok, &params);
    for (size_t i = 0; i < count && event.finish == TS_TEXT_NONE; i++) {
        ts_textstream_push(stream, tokens[i], &event);
        memcpy(joined + used, event.text, event.bytes);
        used += event.bytes;
        assert_true(ts_utf8_valid(joined, used));
    }
    assert_int_equal(event.finish, stop == SIZE_MAX ? TS_TEXT_LENGTH : TS_TEXT_STOP);
    assert_int_equal(used, stop == SIZE_MAX ? whole_bytes : stop);
    assert_memory_equal(joined, whole, used);
    ts_textstream_destroy(&stream);
    ts_free(whole);
}

/* Nothing is held back longer than needed: of the certain text all but a possible beginning of a stop string
 * is out. */
static void check_prompt(const struct ts_tokenizer *tok, struct ts_textstream_params params,
                         const uint32_t *tokens, size_t count)
{
    params.max_tokens = (uint32_t)count + 1;
    struct ts_textstream *stream = ts_textstream_new(tok, &params);
    struct ts_textstream *plain =
        ts_textstream_new(tok, &(struct ts_textstream_params){.max_tokens = (uint32_t)count + 1});
    struct ts_text_event event = {.finish = TS_TEXT_NONE}, certain;
    char text[1024];
    size_t known = 0, used = 0;
    for (size_t i = 0; i < count; i++) {
        ts_textstream_push(plain, tokens[i], &certain);
        memcpy(text + known, certain.text, certain.bytes);
        known += certain.bytes;
        ts_textstream_push(stream, tokens[i], &event);
        assert_memory_equal(text + used, event.text, event.bytes);
        used += event.bytes;
        if (event.finish != TS_TEXT_NONE)
            break;
        assert_int_equal(used, known - tail_to_hold(text, known, params.stops, params.stop_count));
    }
    ts_textstream_destroy(&stream);
    ts_textstream_destroy(&plain);
}

static void check_random(const struct ts_tokenizer *tok, uint64_t seed)
{
    static const uint32_t alphabet[] = {'a',  'a',  'b',  'c',  0xE2, 0x82, 0xAC, 0xF0,
                                        0x9F, 0xC3, 0xA9, 0xFF, EOS,  WORD, 258};
    static const struct ts_text_stop all[] = {STOP("aab"),
                                              STOP("abab"),
                                              STOP("\xE2\x82\xAC"
                                                   "a"),
                                              STOP("o a"),
                                              STOP("\xEF\xBF\xBD\xEF\xBF\xBD"),
                                              STOP("c"),
                                              STOP("\xC3\xA9")};
    struct ts_rng rng;
    ts_rng_init(&rng, seed);
    for (unsigned round = 0; round < 3000; round++) {
        uint32_t tokens[24];
        struct ts_text_stop stops[TS_ARRAY_SIZE(all)];
        size_t count = 1 + ts_rng_below(&rng, TS_ARRAY_SIZE(tokens)), stop_count = 0;
        for (size_t i = 0; i < count; i++)
            tokens[i] = alphabet[ts_rng_below(&rng, TS_ARRAY_SIZE(alphabet))];
        for (size_t i = 0; i < TS_ARRAY_SIZE(all); i++)
            if (ts_rng_below(&rng, 4) == 0)
                stops[stop_count++] = all[i];
        const struct ts_textstream_params params = {.stops = stops, .stop_count = stop_count};
        for (size_t split = 1; split <= count; split++)
            check_split(tok, params, tokens, split);
        check_prompt(tok, params, tokens, count);
    }
}

static void streamed_text_is_whole_text_at_every_split(void **state)
{
    struct ts_tokenizer *tok = byte_level();
    (void)state;
    check_random(tok, 1);
    ts_tokenizer_destroy(&tok);
    tok = sentencepiece();
    check_random(tok, 2);
    ts_tokenizer_destroy(&tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_comes_token_by_token),
        cmocka_unit_test(unfinished_characters_wait),
        cmocka_unit_test(end_tokens_end_without_text),
        cmocka_unit_test(stop_strings_end_the_text_before_them),
        cmocka_unit_test(the_longest_of_stops_that_end_together_counts),
        cmocka_unit_test(without_a_tokenizer_there_is_only_a_finish),
        cmocka_unit_test(streamed_text_is_whole_text_at_every_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
