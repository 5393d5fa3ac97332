#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "text_fixture.h"

#define MARK "\xE2\x96\x81" /* U+2581, the space of SentencePiece */
#define QWEN2                                                                                                \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}" \
    "]?\\\\p{L}+|\\\\p{N}| "                                                                                 \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":"    \
    "\"Isolated\",\"invert\":false}"

/* Spellings as in real files: \u0120 is a space. */
static const char *const words[] = {"he",
                                    "ll",
                                    "hell",
                                    "hello",
                                    "lo",
                                    "\xC4\xA0"
                                    "w",
                                    NULL};
static const char *const word_merges[] = {"l l", "h e", "he ll", "hell o", "l o", "\xC4\xA0 w", NULL};

static void merges_apply_in_order_of_rank(void **state)
{
    (void)state;
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){
        .byte_alphabet = true, .tokens = words, .merges = word_merges, .pre_tokenizer = FIXTURE_BYTE_LEVEL});
    EXPECT_IDS(tok, "hello", 0, 259);
    EXPECT_IDS(tok, "hell", 0, 258);
    EXPECT_IDS(tok, "lllo", 0, 257, 260); /* the leftmost pair of the lowest rank goes first */
    EXPECT_IDS(tok, "hel w", 0, 256, 'l', 261);
    EXPECT_IDS(tok, "\xC3\xA9\n", 0, 0xC3, 0xA9, '\n');
    fixture_expect(tok, "", 0, 0, (const uint32_t[]){TS_TOKEN_NONE});
    EXPECT_TEXT(tok, "hello w\xC3\xA9", 0, 259, 261, 0xC3, 0xA9);
    assert_int_equal(ts_tokenizer_vocab_size(tok), 262);
    assert_int_equal(ts_tokenizer_token_id(tok, "\xC4\xA0w"), 261);
    assert_int_equal(ts_tokenizer_token_id(tok, "nothing"), TS_TOKEN_NONE);
    size_t bytes;
    assert_memory_equal(ts_tokenizer_token_bytes(tok, 261, &bytes), " w", 2);
    assert_int_equal(bytes, 2);
    ts_tokenizer_token_bytes(tok, 4000000, &bytes);
    assert_int_equal(bytes, 0);
    ts_tokenizer_destroy(&tok);
    assert_null(tok);
}

static void ill_formed_text_counts_as_replacement_characters(void **state)
{
    (void)state;
    struct ts_tokenizer *tok =
        fixture_open(&(struct fixture){.byte_alphabet = true, .pre_tokenizer = FIXTURE_BYTE_LEVEL});
    EXPECT_IDS(tok, "a\xFF", 0, 'a', 0xEF, 0xBF, 0xBD);
    EXPECT_IDS(tok, "\xE2\x82", 0, 0xEF, 0xBF, 0xBD);
    EXPECT_TEXT(tok,
                "\xEF\xBF\xBD"
                "a\xEF\xBF\xBD",
                0, 0xE2, 0x82, 'a', 0xFF);
    EXPECT_TEXT(tok, "ab", 0, 'a', 9999, 'b');
    ts_tokenizer_destroy(&tok);
}

#define END_TOKEN                                                                                            \
    "{\"id\":256,\"content\":\"<|end|>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"           \
    "\"normalized\":false,"                                                                                  \
    "\"special\":true}"

static void special_tokens_in_text_need_a_flag(void **state)
{
    (void)state;
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){
        .byte_alphabet = true, .pre_tokenizer = FIXTURE_BYTE_LEVEL, .added = "[" END_TOKEN "]"});
    EXPECT_IDS(tok, "a<|end|>b", TS_ENCODE_PARSE_SPECIAL, 'a', 256, 'b');
    EXPECT_IDS(tok, "a<|end|>b", 0, 'a', '<', '|', 'e', 'n', 'd', '|', '>', 'b');
    assert_true(ts_tokenizer_is_special(tok, 256));
    assert_false(ts_tokenizer_is_special(tok, 'a'));
    assert_false(ts_tokenizer_is_special(tok, 100000));
    assert_int_equal(ts_tokenizer_token_id(tok, "<|end|>"), 256);
    EXPECT_TEXT(tok, "a<|end|>", 0, 'a', 256);
    EXPECT_TEXT(tok, "ab", TS_DECODE_SKIP_SPECIAL, 'a', 256, 'b');
    ts_tokenizer_destroy(&tok);
}

/* Neither a whole-word lookup, a single character, nor merges may spell a special token for a user. */
static void special_tokens_cannot_be_spelled(void **state)
{
    static const char *const tokens[] = {"<s>", "<s", NULL};
    static const char *const merges[] = {"< s", "<s >", NULL};
    static const char added[] = "[{\"id\":256,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
                                "{\"id\":35,\"content\":\"#\",\"special\":true,\"normalized\":false}]";
    static const char *const extras[] = {"", "\"ignore_merges\":true,"};
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(extras); i++) {
        struct ts_tokenizer *tok = fixture_open(&(struct fixture){.byte_alphabet = true,
                                                                  .tokens = tokens,
                                                                  .merges = merges,
                                                                  .model_extra = extras[i],
                                                                  .pre_tokenizer = FIXTURE_BYTE_LEVEL,
                                                                  .added = added});
        EXPECT_IDS(tok, "<s>", 0, 257, '>');
        EXPECT_IDS(tok, "<s>", TS_ENCODE_PARSE_SPECIAL, 256);
        EXPECT_IDS(tok, "a#", TS_ENCODE_PARSE_SPECIAL, 'a', '#');
        EXPECT_IDS(tok, "a#", 0, 'a');
        ts_tokenizer_destroy(&tok);
    }
}

static void whole_words_can_skip_merges(void **state)
{
    static const char *const tokens[] = {"xyz", NULL};
    (void)state;
    struct fixture fixture = {.byte_alphabet = true, .tokens = tokens, .pre_tokenizer = FIXTURE_BYTE_LEVEL};
    struct ts_tokenizer *tok = fixture_open(&fixture);
    EXPECT_IDS(tok, "xyz", 0, 'x', 'y', 'z');
    ts_tokenizer_destroy(&tok);
    fixture.model_extra = "\"ignore_merges\":true,";
    tok = fixture_open(&fixture);
    EXPECT_IDS(tok, "xyz", 0, 256);
    ts_tokenizer_destroy(&tok);
}

static void added_tokens_match_longest_first(void **state)
{
    static const char added[] =
        "[{\"id\":256,\"content\":\"ab\",\"normalized\":false},"
        "{\"id\":257,\"content\":\"abab\",\"normalized\":false},"
        "{\"id\":258,\"content\":\"LL\",\"normalized\":false,\"lstrip\":true},"
        "{\"id\":259,\"content\":\"RR\",\"normalized\":false,\"rstrip\":true},"
        "{\"id\":260,\"content\":\"word\",\"normalized\":false,\"single_word\":true},"
        "{\"id\":261,\"content\":\"\\t\",\"normalized\":false,\"lstrip\":true,\"rstrip\":true},"
        "{\"id\":262,\"content\":\"\xC3\xA9!\",\"normalized\":true}]";
    (void)state;
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){.byte_alphabet = true,
                                                              .normalizer = "{\"type\":\"NFC\"}",
                                                              .pre_tokenizer = FIXTURE_BYTE_LEVEL,
                                                              .added = added});
    EXPECT_IDS(tok, "ababab", 0, 257, 256);
    EXPECT_IDS(tok, "aba", 0, 256, 'a');
    EXPECT_IDS(tok, "x \n LLy", 0, 'x', 258, 'y');
    EXPECT_IDS(tok, "x LL RR  \xE3\x80\x80y", 0, 'x', 258, ' ', 259, 'y');
    EXPECT_IDS(tok, "RR LL", 0, 259, 258);         /* the space belongs to the first that takes it */
    EXPECT_IDS(tok, "a \t \tb", 0, 'a', 261, 'b'); /* the second one is taken as white space by the first */
    EXPECT_IDS(tok, "word.", 0, 260, '.');
    EXPECT_IDS(tok, "words", 0, 'w', 'o', 'r', 'd', 's');
    EXPECT_IDS(tok, "_word", 0, '_', 'w', 'o', 'r', 'd');
    EXPECT_IDS(tok, "e\xCC\x81!", 0, 262); /* found after composition */
    ts_tokenizer_destroy(&tok);
}

static void post_processor_surrounds(void **state)
{
    static const char *const tokens[] = {"<s>", "</s>", NULL};
    static const char post[] =
        "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_"
        "offsets\":false,"
        "\"use_regex\":true},{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","
        "\"type_id\":0}},"
        "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"both\",\"type_id\":0}}],"
        "\"pair\":[],"
        "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[256],\"tokens\":[\"<s>\"]},"
        "\"both\":{\"id\":\"both\",\"ids\":[257,256],\"tokens\":[\"</s>\",\"<s>\"]}}}]}";
    (void)state;
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){.byte_alphabet = true,
                                                              .tokens = tokens,
                                                              .pre_tokenizer = FIXTURE_BYTE_LEVEL,
                                                              .post_processor = post});
    EXPECT_IDS(tok, "a", TS_ENCODE_ADD_SPECIAL, 256, 'a', 257, 256);
    EXPECT_IDS(tok, "", TS_ENCODE_ADD_SPECIAL, 256, 257, 256);
    EXPECT_IDS(tok, "a", 0, 'a');
    ts_tokenizer_destroy(&tok);
}

static void splitting_keeps_words_apart(void **state)
{
    static const char *const tokens[] = {"\xC4\xA0"
                                         "a",
                                         "a\xC4\xA0", "12", NULL};
    static const char *const merges[] = {"a \xC4\xA0", "\xC4\xA0 a", "1 2", NULL};
    static const struct {
        const char *pre_tokenizer;
        uint32_t ids[8];
    } cases[] = {
        {FIXTURE_BYTE_LEVEL, {257, 'a', 258, TS_TOKEN_NONE}},
        {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
         {'a', 256, 258, TS_TOKEN_NONE}},
        {"{\"type\":\"ByteLevel\"}", {256, 256, 258, TS_TOKEN_NONE}},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[" QWEN2 "," FIXTURE_BYTE_LEVEL "]}",
         {'a', 256, '1', '2', TS_TOKEN_NONE}},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},{"
         "\"type\":\"ByteLevel\","
         "\"add_prefix_space\":false}]}",
         {'a', 256, '1', '2', TS_TOKEN_NONE}},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":false},{"
         "\"type\":\"ByteLevel\","
         "\"add_prefix_space\":false}]}",
         {'a', 256, 258, TS_TOKEN_NONE}},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_tokenizer *tok = fixture_open(&(struct fixture){.byte_alphabet = true,
                                                                  .tokens = tokens,
                                                                  .merges = merges,
                                                                  .pre_tokenizer = cases[i].pre_tokenizer});
        fixture_expect(tok, "a a12", 5, 0, cases[i].ids);
        ts_tokenizer_destroy(&tok);
    }
}

static const char *const spm_tokens[] = {"<unk>", "<s>", MARK, "a", "b", MARK "a", "ab", "\xC3\xA9", NULL};
static const char *const spm_merges[] = {MARK " a", "a b", NULL};
enum { UNK = 256, BOS, SPACE, A, B, SPACE_A, AB, E_ACUTE };
#define SPM_ADDED                                                                                            \
    "[{\"id\":256,\"content\":\"<unk>\",\"special\":true,\"normalized\":false},"                             \
    "{\"id\":257,\"content\":\"<s>\",\"special\":true,\"normalized\":false}]"

static void sentencepiece_falls_back_to_bytes(void **state)
{
    (void)state;
    struct ts_tokenizer *tok =
        fixture_open(&(struct fixture){.byte_tokens = true,
                                       .tokens = spm_tokens,
                                       .merges = spm_merges,
                                       .model_extra = "\"unk_token\":\"<unk>\",\"byte_fallback\":true,",
                                       .normalizer = FIXTURE_SPM_NORMALIZER,
                                       .decoder = FIXTURE_SPM_DECODER,
                                       .added = SPM_ADDED});
    EXPECT_IDS(tok, "ab a", 0, SPACE_A, B, SPACE_A);
    EXPECT_IDS(tok, "\xE2\x82\xAC", 0, SPACE, 0xE2, 0x82, 0xAC);
    EXPECT_IDS(tok, "\xC3\xA9", 0, SPACE, E_ACUTE);
    EXPECT_IDS(tok, "<s>a", TS_ENCODE_PARSE_SPECIAL, BOS,
               SPACE_A); /* the prefix comes again after each special token */
    EXPECT_TEXT(tok, "a a", 0, SPACE_A, SPACE_A);
    EXPECT_TEXT(tok, " a a", TS_DECODE_CONTINUE, SPACE_A, SPACE_A);
    EXPECT_TEXT(tok, "a", TS_DECODE_SKIP_SPECIAL, BOS, SPACE_A);
    EXPECT_TEXT(tok, "<s> a", 0, BOS, SPACE_A);
    EXPECT_TEXT(tok,
                "\xE2\x82\xAC"
                "a",
                0, SPACE, 0xE2, 0x82, 0xAC, A);
    EXPECT_TEXT(tok,
                "\xEF\xBF\xBD\xEF\xBF\xBD"
                "a",
                0, 0xE2, 0x82, A);
    EXPECT_TEXT(tok,
                "\xEF\xBF\xBD"
                "ab",
                0, 0xFF, AB);
    ts_tokenizer_destroy(&tok);
}

static void unknown_characters_fuse_or_not(void **state)
{
    (void)state;
    struct fixture fixture = {.tokens = spm_tokens,
                              .merges = spm_merges,
                              .model_extra = "\"unk_token\":\"<unk>\",\"fuse_unk\":true,",
                              .decoder = FIXTURE_SPM_DECODER};
    struct ts_tokenizer *tok = fixture_open(&fixture);
    EXPECT_IDS(tok, "xyazb", 0, 0, 3, 0, 4);
    ts_tokenizer_destroy(&tok);
    fixture.model_extra = "\"unk_token\":\"<unk>\",\"fuse_unk\":false,";
    tok = fixture_open(&fixture);
    EXPECT_IDS(tok, "xyazb", 0, 0, 0, 3, 0, 4);
    ts_tokenizer_destroy(&tok);
    fixture.model_extra = "\"unk_token\":null,";
    tok = fixture_open(&fixture);
    EXPECT_IDS(tok, "xyazb", 0, 6); /* nothing is left between them */
    ts_tokenizer_destroy(&tok);
}

static void metaspace_prefixes_by_scheme(void **state)
{
    static const struct {
        const char *options;
        uint32_t ids[8];
        const char *text; /* of the ids, decoded */
    } cases[] = {
        {"\"prepend_scheme\":\"always\"", {5, 4, 5, 1, 5, TS_TOKEN_NONE}, "ab a<s> a"},
        {"\"prepend_scheme\":\"first\"", {5, 4, 5, 1, 3, TS_TOKEN_NONE}, "ab a<s>a"},
        {"\"prepend_scheme\":\"never\"", {6, 5, 1, 3, TS_TOKEN_NONE}, "ab a<s>a"},
        {"\"add_prefix_space\":false", {6, 5, 1, 3, TS_TOKEN_NONE}, "ab a<s>a"},
        {"\"prepend_scheme\":\"always\",\"split\":false", {5, 4, 5, 1, 5, TS_TOKEN_NONE}, "ab a<s> a"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        char *metaspace =
            ts_xasprintf("{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",%s}", cases[i].options);
        struct ts_tokenizer *tok = fixture_open(&(struct fixture){
            .tokens = spm_tokens,
            .merges = spm_merges,
            .pre_tokenizer = metaspace,
            .decoder = metaspace,
            .added = "[{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":false}]"});
        size_t count = 0;
        while (cases[i].ids[count] != TS_TOKEN_NONE)
            count++;
        fixture_expect(tok, "ab a<s>a", 8, TS_ENCODE_PARSE_SPECIAL, cases[i].ids);
        fixture_expect_text(tok, cases[i].ids, count, 0, cases[i].text);
        ts_tokenizer_destroy(&tok);
        ts_free(metaspace);
    }
}

/* Tokens of newer files may contain spaces, which "a b" could not write. */
static void merges_may_be_pairs(void **state)
{
    static const char json[] = "{\"model\":{\"vocab\":{\"a\":0,\" \":1,\"a \":2,\"a "
                               "a\":3},\"merges\":[[\"a\",\" \"],[\"a \",\"a\"]]},"
                               "\"decoder\":{\"type\":\"Fuse\"}}";
    struct ts_tokenizer *tok = NULL;
    (void)state;
    assert_int_equal(ts_tokenizer_parse(json, sizeof json - 1, "pairs", &tok, NULL), TS_OK);
    EXPECT_IDS(tok, "a aa ", 0, 3, 2);
    ts_tokenizer_destroy(&tok);
}

struct refusal {
    struct fixture fixture;
    const char *words;
};

static void check_refusals(const struct refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ts_tokenizer *tok = NULL;
        struct ts_error err = {0};
        char *json = fixture_json(&cases[i].fixture);
        enum ts_status status = ts_tokenizer_parse(json, strlen(json), "model/tokenizer.json", &tok, &err);
        assert_null(tok);
        assert_true(status == TS_EUNSUPPORTED || status == TS_EINVAL);
        assert_int_equal(err.status, status);
        if (strncmp(err.text, "model/tokenizer.json: ", 22) != 0 || !strstr(err.text, cases[i].words))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].words);
        ts_free(json);
    }
}

static void unknown_parts_are_refused_by_name(void **state)
{
    static const char *const ab[] = {"a", "b", NULL};
    static const char *const bad_merge[] = {"a b", NULL};
    static const char *const no_merge[] = {"a b c", NULL};
    const struct refusal cases[] = {
        {{.pre_tokenizer = "{\"type\":\"Whitespace\"}"},
         "pre_tokenizer.type is \"Whitespace\"; supported: ByteLevel"},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
                           "\"Punctuation\"}]}"},
         "pre_tokenizer.pretokenizers[1].type is \"Punctuation\""},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\d\"},\"behavior\":\"Isolated\","
                           "\"invert\":false}"},
         "pre_tokenizer.pattern is {\"Regex\":\"\\\\d\"}"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\" "
                           "\"},\"behavior\":\"Isolated\",\"invert\":false}"},
         "pre_tokenizer.pattern is {\"String\":\" \"}"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"new_option\":7}"}, "pre_tokenizer.new_option is 7"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"},
         "pre_tokenizer.prepend_scheme is \"last\""},
        {{.normalizer = "{\"type\":\"Lowercase\"}"}, "normalizer.type is \"Lowercase\"; supported: NFC"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" +\"},\"content\":\" \"}"},
         "normalizer.pattern is"},
        {{.post_processor = "{\"type\":\"BertProcessing\"}"}, "post_processor.type is \"BertProcessing\""},
        {{.post_processor =
              "{\"type\":\"TemplateProcessing\",\"single\":[],\"pair\":[],\"special_tokens\":{}}"},
         "post_processor.single is []"},
        {{.decoder = "{\"type\":\"WordPiece\"}"}, "decoder.type is \"WordPiece\""},
        {{.decoder = "null"}, "decoder.type is missing"},
        {{.decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Strip\",\"content\":\" "
                     "\",\"start\":1,\"stop\":0}]}"},
         "decoder.decoders[0].type is \"Strip\""},
        {{.model_extra = "\"dropout\":0.5,"}, "model.dropout is 0.5"},
        {{.model_extra = "\"continuing_subword_prefix\":\"##\","},
         "model.continuing_subword_prefix is \"##\""},
        {{.model_extra = "\"end_of_word_suffix\":\"</w>\","}, "model.end_of_word_suffix is \"</w>\""},
        {{.model_extra = "\"unk_token\":\"none\","}, "model.unk_token is \"none\""},
        {{.model_extra = "\"fuse_unk\":3,"}, "model.fuse_unk is 3"},
        {{.model_extra = "\"novelty\":true,"}, "model.novelty is true"},
        {{.tokens = ab, .merges = bad_merge}, "model.merges[0] is \"a b\""},
        {{.tokens = ab, .merges = no_merge}, "model.merges[0] is \"a b c\""},
        {{.tokens = ab, .added = "[{\"id\":0,\"content\":\"x\"}]"}, "added_tokens[0].id is 0"},
        {{.tokens = ab, .added = "[{\"id\":5,\"content\":\"b\"}]"}, "added_tokens[0].id is 5"},
        {{.tokens = ab, .added = "[{\"id\":2,\"content\":\"x\"},{\"id\":4,\"content\":\"y\"}]"},
         "added_tokens[1].id is 4"},
        {{.tokens = ab, .added = "[{\"id\":99999999,\"content\":\"x\"}]"}, "added_tokens[0].id is 99999999"},
        {{.added = "{}"}, "added_tokens is {}"},
    };
    (void)state;
    check_refusals(cases, TS_ARRAY_SIZE(cases));
}

static void other_documents_are_refused(void **state)
{
    static const struct {
        const char *json, *words;
    } cases[] = {
        {"[]", "an array, not an object"},
        {"{}", "model.vocab is missing"},
        {"{\"version\":\"2.0\"}", "version is \"2.0\""},
        {"{\"model\":{\"type\":\"Unigram\"}}", "model.type is \"Unigram\"; supported: \"BPE\""},
        {"{\"extra\":1,\"model\":{}}", "extra is 1"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "model.vocab.a is -1"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}",
         "id 1 is given to \"b\""},
        {"{\"model\"", "not valid JSON"},
    };
    struct ts_tokenizer *tok = NULL;
    struct ts_error err = {0};
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        assert_int_not_equal(ts_tokenizer_parse(cases[i].json, strlen(cases[i].json), "doc", &tok, &err),
                             TS_OK);
        assert_null(tok);
        if (!strstr(err.text, cases[i].words))
            fail_msg("\"%s\" lacks \"%s\"", err.text, cases[i].words);
    }
    assert_int_equal(ts_tokenizer_open("/nonexistent/tokenizer.json", &tok, &err), TS_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
}

/* A text without a break is one word: the time must not grow with its square. */
static void a_megabyte_without_a_break_takes_less_than_a_second(void **state)
{
    static const char *const tokens[] = {"aa", "aaaa", "aaaaaaaa", "ab", "ba", "abab", NULL};
    static const char *const merges[] = {"a a", "aa aa", "aaaa aaaa", "a b", "b a", "ab ab", NULL};
    const size_t bytes = (size_t)1 << 20;
    char *text = ts_xmalloc(bytes);
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){
        .byte_alphabet = true, .tokens = tokens, .merges = merges, .pre_tokenizer = FIXTURE_BYTE_LEVEL});
    struct ts_rng rng;
    (void)state;
    ts_rng_init(&rng, 7);
    for (unsigned kind = 0; kind < 3; kind++) {
        uint32_t *ids = NULL;
        size_t count = 0;
        for (size_t i = 0; i < bytes; i++)
            text[i] = kind == 0 ? 'a' : (char)('a' + (kind == 1 ? i % 2 : ts_rng_below(&rng, 2)));
        ts_time start = fixture_cpu_now();
        assert_int_equal(ts_tokenizer_encode(tok, text, bytes, 0, &ids, &count, NULL), TS_OK);
        ts_time took = fixture_cpu_now() - start;
        if (took >= FIXTURE_SLOWDOWN * TS_S)
            fail_msg("kind %u took %lld ms", kind, (long long)(took / TS_MS));
        if (kind < 2)
            assert_int_equal(count, kind == 0 ? bytes / 8 : bytes / 4);
        ts_free(ids);
    }
    ts_tokenizer_destroy(&tok);
    ts_free(text);
}

/* The first token takes all of the run; those after it must not look for its end again. */
static void a_run_of_space_tokens_is_walked_once(void **state)
{
    const size_t bytes = (size_t)1 << 20;
    char *text = ts_xmalloc(bytes);
    struct ts_tokenizer *tok =
        fixture_open(&(struct fixture){.byte_alphabet = true,
                                       .pre_tokenizer = FIXTURE_BYTE_LEVEL,
                                       .added = "[{\"id\":256,\"content\":\"  \",\"normalized\":false,"
                                                "\"lstrip\":true,\"rstrip\":true}]"});
    uint32_t *ids = NULL;
    size_t count = 0;
    (void)state;
    memset(text, ' ', bytes);
    ts_time start = fixture_cpu_now();
    assert_int_equal(ts_tokenizer_encode(tok, text, bytes, 0, &ids, &count, NULL), TS_OK);
    assert_true(fixture_cpu_now() - start < FIXTURE_SLOWDOWN * TS_S);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 256);
    ts_free(ids);
    ts_tokenizer_destroy(&tok);
    ts_free(text);
}

static void the_length_of_a_text_is_bounded(void **state)
{
    struct ts_tokenizer *tok =
        fixture_open(&(struct fixture){.byte_alphabet = true, .pre_tokenizer = FIXTURE_BYTE_LEVEL});
    struct ts_error err = {0};
    uint32_t *ids = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(ts_tokenizer_encode(tok, "", TS_ENCODE_BYTES_MAX + 1, 0, &ids, &count, &err), TS_ELIMIT);
    assert_null(ids);
    assert_non_null(strstr(err.text, "16777217"));
    ts_tokenizer_destroy(&tok);
}

/* Byte-level text comes back whatever it is, as long as it is UTF-8. */
static void random_text_survives_a_round_trip(void **state)
{
    struct ts_tokenizer *tok = fixture_open(&(struct fixture){
        .byte_alphabet = true,
        .tokens = words,
        .merges = word_merges,
        .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" QWEN2 "," FIXTURE_BYTE_LEVEL "]}",
        .added = "[]"});
    struct ts_rng rng;
    (void)state;
    ts_rng_init(&rng, 11);
    for (unsigned round = 0; round < 2000; round++) {
        char text[96], *back = NULL;
        size_t bytes = 0, back_bytes = 0, count = 0;
        uint32_t *ids = NULL;
        while (bytes < 80 && ts_rng_below(&rng, 30)) {
            static const char *const parts[] = {"hello", " w", "\xC3\xA9", "\xE4\xB8\xAD", "\xF0\x9F\x99\x82",
                                                "\n",    "  ", "'s",       "12",           "\xC2\xA0"};
            const char *part = parts[ts_rng_below(&rng, TS_ARRAY_SIZE(parts))];
            memcpy(text + bytes, part, strlen(part));
            bytes += strlen(part);
        }
        assert_int_equal(ts_tokenizer_encode(tok, text, bytes, 0, &ids, &count, NULL), TS_OK);
        ts_tokenizer_decode(tok, ids, count, 0, &back, &back_bytes);
        assert_int_equal(back_bytes, bytes);
        assert_memory_equal(back, text, bytes);
        ts_free(ids);
        ts_free(back);
    }
    ts_tokenizer_destroy(&tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_apply_in_order_of_rank),
        cmocka_unit_test(ill_formed_text_counts_as_replacement_characters),
        cmocka_unit_test(special_tokens_in_text_need_a_flag),
        cmocka_unit_test(special_tokens_cannot_be_spelled),
        cmocka_unit_test(whole_words_can_skip_merges),
        cmocka_unit_test(added_tokens_match_longest_first),
        cmocka_unit_test(post_processor_surrounds),
        cmocka_unit_test(splitting_keeps_words_apart),
        cmocka_unit_test(sentencepiece_falls_back_to_bytes),
        cmocka_unit_test(unknown_characters_fuse_or_not),
        cmocka_unit_test(metaspace_prefixes_by_scheme),
        cmocka_unit_test(merges_may_be_pairs),
        cmocka_unit_test(unknown_parts_are_refused_by_name),
        cmocka_unit_test(other_documents_are_refused),
        cmocka_unit_test(a_megabyte_without_a_break_takes_less_than_a_second),
        cmocka_unit_test(a_run_of_space_tokens_is_walked_once),
        cmocka_unit_test(the_length_of_a_text_is_bounded),
        cmocka_unit_test(random_text_survives_a_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
