/*
 * The shipped demo model, judged from its files through our own tokenizer and engine: loss on the text it has
 * not seen, and what it writes. Every row of a batch is another piece of text; the rows advance in step.
 */
#include "tests/gpu/model_fixture.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_tokenizer.h"

#define LOSS_MAX      1.80 /* nats per byte */
#define WINDOW        320  /* tokens of one scored piece, its context included */
#define STRIDE        256  /* tokens of a piece that are scored */
#define ROWS          64
#define BLOCKS        (WINDOW / TS_KV_BLOCK_TOKENS)
#define SAMPLES       20
#define SAMPLE_TOKENS 300
#define COPY_BYTES    40

static struct ts_tokenizer *open_tokenizer(void)
{
    struct ts_tokenizer *tok = NULL;
    struct ts_error err = {0};
    if (ts_tokenizer_open(TS_TEST_DATA "/models/demo/tokenizer.json", &tok, &err) != TS_OK)
        fail_msg("%s", err.text);
    return tok;
}

static void shape(void **state)
{
    (void)state;
    struct ts_engine *engine = model_open("demo", (struct ts_shard){0}, 16, 1, 0);
    const struct ts_model *m = &ts_engine_info(engine)->model;
    struct ts_tokenizer *tok = open_tokenizer();
    size_t bytes;
    ts_free(model_file("models/demo/model.safetensors", &bytes));
    assert_true(bytes <= (8u << 20));
    assert_int_equal(m->weight_dtype, TS_DTYPE_BF16);
    assert_int_equal(m->head_dim, 64);
    assert_true(m->layers >= 4);
    assert_true(m->kv_heads < m->heads);
    assert_true(m->context_tokens >= 2048);
    assert_int_equal(ts_tokenizer_vocab_size(tok), m->vocab);
    assert_int_equal(m->eos_count, 1);
    assert_true(ts_tokenizer_is_special(tok, m->eos[0]));
    ts_tokenizer_destroy(&tok);
    ts_engine_close(&engine);
}

/* Pieces of the held-out text in step: piece i scores the tokens at..at+STRIDE-1 of the text and sees those
 * from `begin` on. */
struct scoring {
    struct ts_engine *engine;
    const uint32_t *ids;
    size_t count, scored;
    uint32_t vocab;
    float *logits;
    uint32_t blocks[ROWS][BLOCKS];
    double nats;
};

static double loss_of(const float *logits, uint32_t vocab, uint32_t token)
{
    double best = logits[0], sum = 0;
    for (uint32_t i = 1; i < vocab; i++)
        best = logits[i] > best ? logits[i] : best;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp(logits[i] - best);
    return best + log(sum) - logits[token];
}

/* The context of piece `row`: all its tokens before the first whose successor it scores. Returns their
 * number. */
static uint32_t feed_context(struct scoring *s, size_t at, uint32_t row)
{
    size_t begin = at > WINDOW - STRIDE ? at - (WINDOW - STRIDE) : 0;
    struct ts_engine_row r = {.token_count = (uint32_t)(at - begin),
                              .tokens = s->ids + begin,
                              .blocks = s->blocks[row],
                              .block_count = BLOCKS};
    struct ts_engine_batch batch = {.rows = &r, .row_count = 1};
    if (r.token_count > 0)
        model_run(s->engine, &batch);
    return r.token_count;
}

/* Scores up to ROWS pieces that begin at token `at`. */
static void score_pieces(struct scoring *s, size_t at)
{
    struct ts_engine_row rows[ROWS];
    size_t next[ROWS];
    uint32_t position[ROWS], piece[ROWS], pieces = 0;
    for (; pieces < ROWS && at + pieces * (size_t)STRIDE + 1 < s->count; pieces++) {
        next[pieces] = at + pieces * (size_t)STRIDE;
        position[pieces] = feed_context(s, next[pieces], pieces);
    }
    for (uint32_t step = 0; step < STRIDE; step++) {
        uint32_t count = 0;
        for (uint32_t p = 0; p < pieces; p++) {
            if (next[p] + 1 >= s->count)
                continue;
            piece[count] = p;
            rows[count++] = (struct ts_engine_row){.position = position[p]++,
                                                   .token_count = 1,
                                                   .tokens = s->ids + next[p]++,
                                                   .blocks = s->blocks[p],
                                                   .block_count = BLOCKS};
        }
        if (count == 0)
            return;
        struct ts_engine_batch batch = {.rows = rows, .row_count = count, .logits_out = s->logits};
        model_run(s->engine, &batch);
        for (uint32_t r = 0; r < count; r++)
            s->nats += loss_of(s->logits + (size_t)r * s->vocab, s->vocab, s->ids[next[piece[r]]]);
        s->scored += count;
    }
}

/* The card states the loss with two decimals: other levels of kernels round otherwise. */
static void expect_in_card(double loss)
{
    char figure[64];
    size_t bytes;
    char *card = model_file("models/demo/README.md", &bytes);
    snprintf(figure, sizeof figure, "**%.2f nats per byte**", loss);
    if (!strstr(card, figure))
        fail_msg("the model card does not say %s", figure);
    ts_free(card);
}

static void held_out_loss(void **state)
{
    (void)state;
    struct scoring s = {.engine = model_open("demo", (struct ts_shard){0}, WINDOW, ROWS, ROWS * BLOCKS)};
    struct ts_tokenizer *tok = open_tokenizer();
    size_t bytes, first_bytes;
    uint32_t *ids = NULL;
    char *corpus = model_file("corpus/tinyshakespeare.txt", &bytes);
    size_t cut = bytes / 10 * 9 + bytes % 10 * 9 / 10;
    assert_int_equal(ts_tokenizer_encode(tok, corpus + cut, bytes - cut, 0, &ids, &s.count, NULL), TS_OK);
    s.ids = ids;
    s.vocab = ts_engine_info(s.engine)->model.vocab;
    s.logits = ts_xcalloc((size_t)ROWS * s.vocab, sizeof *s.logits);
    for (uint32_t i = 0; i < ROWS * BLOCKS; i++)
        s.blocks[i / BLOCKS][i % BLOCKS] = i;
    for (size_t at = 0; at + 1 < s.count; at += (size_t)ROWS * STRIDE)
        score_pieces(&s, at);
    assert_int_equal(s.scored, s.count - 1); /* the first token has nothing before it */
    ts_tokenizer_token_bytes(tok, ids[0], &first_bytes);
    double loss = s.nats / (double)(bytes - cut - first_bytes);
    print_message("held out: %zu bytes, %zu tokens, %.4f nats per byte\n", bytes - cut, s.count, loss);
    assert_true(loss <= LOSS_MAX);
    assert_true(loss > 0.5); /* less would mean that the text leaked into the training */
    expect_in_card(loss);
    ts_free(s.logits);
    ts_free(ids);
    ts_free(corpus);
    ts_tokenizer_destroy(&tok);
    ts_engine_close(&s.engine);
}

/* A whole line of capitalised words and a colon, after the first line break. */
static bool has_name_line(const char *text)
{
    for (const char *line = strchr(text, '\n'); line; line = strchr(line, '\n')) {
        const char *end = strchr(++line, '\n'), *c = line;
        if (!end || end - line < 3 || end[-1] != ':')
            continue;
        while (c < end - 1 && (isalpha((unsigned char)*c) || *c == ' ') &&
               (isupper((unsigned char)*c) || (c > line && c[-1] != ' ')))
            c++;
        if (c == end - 1)
            return true;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return memcmp(*(const char *const *)a, *(const char *const *)b, COPY_BYTES);
}

/* All places of the corpus where COPY_BYTES begin, in order of their text. */
static const char **sorted_places(const char *corpus, size_t bytes, size_t *count)
{
    const char **places = ts_xcalloc(bytes, sizeof *places);
    *count = bytes - COPY_BYTES + 1;
    for (size_t i = 0; i < *count; i++)
        places[i] = corpus + i;
    qsort(places, *count, sizeof *places, by_text);
    return places;
}

/* The tokens of SAMPLES sequences that begin with the prompt, drawn at temperature 0.8 with seed = sequence.
 */
static void draw_samples(struct ts_engine *engine, const uint32_t *prompt, uint32_t prompt_count,
                         uint32_t tokens[SAMPLES][SAMPLE_TOKENS])
{
    enum { SAMPLE_BLOCKS = SAMPLE_TOKENS / TS_KV_BLOCK_TOKENS + 2 };
    struct ts_sampling sampling[SAMPLES];
    struct ts_engine_row rows[SAMPLES];
    uint32_t blocks[SAMPLES][SAMPLE_BLOCKS];
    for (uint32_t r = 0; r < SAMPLES; r++) {
        for (uint32_t b = 0; b < SAMPLE_BLOCKS; b++)
            blocks[r][b] = r * SAMPLE_BLOCKS + b;
        sampling[r] = ts_sampling_defaults();
        sampling[r].temperature = 0.8f;
        sampling[r].seed = r;
        sampling[r].min_tokens = SAMPLE_TOKENS;
        rows[r] = (struct ts_engine_row){.token_count = prompt_count,
                                         .tokens = prompt,
                                         .blocks = blocks[r],
                                         .block_count = SAMPLE_BLOCKS,
                                         .sample = true,
                                         .sampling = &sampling[r]};
    }
    for (uint32_t i = 0; i < SAMPLE_TOKENS; i++) {
        struct ts_engine_batch batch = {.rows = rows, .row_count = SAMPLES};
        struct ts_engine_event event = model_run(engine, &batch);
        assert_int_equal(event.sample_count, SAMPLES);
        for (uint32_t r = 0; r < SAMPLES; r++) {
            tokens[r][i] = event.samples[r].token;
            rows[r].position += rows[r].token_count;
            rows[r].token_count = 1;
            rows[r].tokens = &tokens[r][i];
            rows[r].sample_index = i + 1;
        }
    }
}

static void samples(void **state)
{
    (void)state;
    static uint32_t tokens[SAMPLES][SAMPLE_TOKENS];
    struct ts_engine *engine = model_open("demo", (struct ts_shard){0}, 512, SAMPLES, SAMPLES * 32);
    struct ts_tokenizer *tok = open_tokenizer();
    static const char prompt[] = "First Citizen:";
    uint32_t *ids = NULL;
    size_t count, corpus_bytes, place_count;
    char *corpus = model_file("corpus/tinyshakespeare.txt", &corpus_bytes);
    const char **places = sorted_places(corpus, corpus_bytes, &place_count);
    assert_int_equal(ts_tokenizer_encode(tok, prompt, sizeof prompt - 1, 0, &ids, &count, NULL), TS_OK);
    draw_samples(engine, ids, (uint32_t)count, tokens);
    for (uint32_t r = 0; r < SAMPLES; r++) {
        char *text;
        size_t bytes;
        ts_tokenizer_decode(tok, tokens[r], SAMPLE_TOKENS, TS_DECODE_CONTINUE, &text, &bytes);
        if (!has_name_line(text))
            fail_msg("seed %u: no line NAME: in\n%s", r, text);
        assert_true(bytes > SAMPLE_TOKENS);
        for (size_t i = 0; i + COPY_BYTES <= bytes; i++) {
            const char *at = text + i;
            if (bsearch(&at, places, place_count, sizeof *places, by_text))
                fail_msg("seed %u copies the corpus: \"%.*s\"", r, COPY_BYTES, at);
        }
        ts_free(text);
    }
    ts_free(places);
    ts_free(corpus);
    ts_free(ids);
    ts_tokenizer_destroy(&tok);
    ts_engine_close(&engine);
}

static void judges_can_say_no(void **state)
{
    (void)state;
    assert_true(has_name_line("\nWe are.\n\nKING HENRY:\nNo"));
    assert_true(has_name_line("\nFirst Citizen:\n"));
    assert_false(has_name_line("MENENIUS:\nfirst line only"));
    assert_false(has_name_line("\nThus said he:\nno"));
    assert_false(has_name_line("\nROMEO:"));
    assert_false(has_name_line("\n:\n"));
    static const char corpus[] = "Before we proceed any further, hear me speak. Speak, speak.";
    size_t count;
    const char **places = sorted_places(corpus, sizeof corpus - 1, &count), *at = corpus + 7;
    char copy[COPY_BYTES + 1];
    assert_non_null(bsearch(&at, places, count, sizeof *places, by_text));
    memcpy(copy, at, COPY_BYTES);
    copy[COPY_BYTES - 1] = '~';
    at = copy;
    assert_null(bsearch(&at, places, count, sizeof *places, by_text));
    ts_free(places);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shape), cmocka_unit_test(judges_can_say_no),
                                       cmocka_unit_test(samples), cmocka_unit_test(held_out_loss)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
