/*
 * The one-row rule: the logits of a position depend on that sequence's tokens alone. What sequences give when
 * computed alone, token by token, with one thread is compared bit for bit with 500 random compositions of
 * batches and chunks on engines of 1, 2 and 3 threads, with other blocks each time.
 */
#include "tests/gpu/engine_fixture.h"

#define SEQUENCES 4u
#define ENGINES   3u

/* Sanitizers make each composition many times slower and look for other faults. */
#if defined(__SANITIZE_ADDRESS__)
#define COMPOSITIONS 20u
#elif defined(__clang__)
#if __has_feature(address_sanitizer)
#define COMPOSITIONS 20u
#endif
#endif
#if !defined(COMPOSITIONS)
#define COMPOSITIONS 500u
#endif

struct subject {
    struct ts_engine *engines[ENGINES];
    struct fixture_sequence sequences[SEQUENCES];
    float *expected[SEQUENCES]; /* [length][vocab] */
    uint32_t vocab;
    struct ts_rng rng;
};

static void compute_expected(struct subject *s)
{
    fixture_scatter(s->engines[0], s->sequences, SEQUENCES, &s->rng);
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        struct fixture_sequence *q = &s->sequences[i];
        s->expected[i] = ts_xcalloc((size_t)q->length * s->vocab, sizeof(float));
        for (; q->done < q->length; q->done++) {
            struct ts_engine_row row = fixture_row(q, 1);
            fixture_run(s->engines[0], &row, 1, s->expected[i] + (size_t)q->done * s->vocab, NULL);
        }
    }
}

static void subject_init(struct subject *s, const char *dir, uint32_t longest)
{
    memset(s, 0, sizeof *s);
    ts_rng_init(&s->rng, 7);
    for (uint32_t i = 0; i < ENGINES; i++)
        s->engines[i] = fixture_open(dir, i + 1, longest);
    s->vocab = ts_engine_info(s->engines[0])->model.vocab;
    for (uint32_t i = 0; i < SEQUENCES; i++)
        fixture_sequence_init(&s->sequences[i], &s->rng, s->vocab, longest >> i);
    compute_expected(s);
}

static void subject_fini(struct subject *s)
{
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        fixture_sequence_fini(&s->sequences[i]);
        ts_free(s->expected[i]);
    }
    for (uint32_t i = 0; i < ENGINES; i++)
        ts_engine_close(&s->engines[i]);
}

/* One batch of some of the unfinished sequences, in random order. Returns how many rows it had. */
static uint32_t random_batch(struct subject *s, struct ts_engine *engine, uint32_t width, float *logits)
{
    struct ts_engine_row rows[SEQUENCES];
    uint32_t which[SEQUENCES], count = 0, room = FIXTURE_TOKENS,
                               first = (uint32_t)ts_rng_below(&s->rng, SEQUENCES);
    for (uint32_t j = 0; j < SEQUENCES && room > 0; j++) {
        uint32_t i = (first + j) % SEQUENCES;
        struct fixture_sequence *q = &s->sequences[i];
        if (q->done == q->length || (count > 0 && ts_rng_below(&s->rng, 3) == 0))
            continue;
        uint32_t most = q->length - q->done < room ? q->length - q->done : room;
        uint32_t tokens = (uint32_t)ts_rng_below(&s->rng, most < width ? most : width) + 1;
        rows[count] = fixture_row(q, tokens);
        which[count++] = i;
        room -= tokens;
    }
    if (count == 0)
        return 0;
    fixture_run(engine, rows, count, logits, NULL);
    for (uint32_t r = 0; r < count; r++) {
        struct fixture_sequence *q = &s->sequences[which[r]];
        q->done += rows[r].token_count;
        const float *expected = s->expected[which[r]] + (size_t)(q->done - 1) * s->vocab;
        if (memcmp(logits + (size_t)r * s->vocab, expected, s->vocab * sizeof(float)) != 0)
            fail_msg("sequence %u, positions %u..%u in a batch of %u rows: other bits", which[r],
                     rows[r].position, q->done, count);
    }
    return count;
}

static void check_compositions(const char *dir, uint32_t longest, uint32_t compositions)
{
    static const uint32_t widths[] = {1, 4, 17, FIXTURE_TOKENS}; /* decoding ... whole chunks */
    struct subject s;
    fixture_need_level();
    subject_init(&s, dir, longest);
    float *logits = ts_xcalloc((size_t)SEQUENCES * s.vocab, sizeof *logits);
    for (uint32_t c = 0; c < compositions; c++) {
        struct ts_engine *engine = s.engines[ts_rng_below(&s.rng, ENGINES)];
        uint32_t width = widths[c % 4], left = SEQUENCES;
        fixture_scatter(engine, s.sequences, SEQUENCES, &s.rng);
        while (left > 0) {
            random_batch(&s, engine, width, logits);
            left = 0;
            for (uint32_t i = 0; i < SEQUENCES; i++)
                left += s.sequences[i].done < s.sequences[i].length;
        }
    }
    ts_free(logits);
    subject_fini(&s);
}

static void check_random(const struct ts_random_model *model, uint32_t longest, uint32_t compositions)
{
    char dir[64];
    fixture_need_level();
    fixture_model(model, dir);
    check_compositions(dir, longest, compositions);
    ts_random_model_remove(dir);
}

static void test_bf16(void **state)
{
    (void)state;
    struct ts_random_model m = {.type = "llama",
                                .hidden = 64,
                                .intermediate = 112,
                                .layers = 2,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_dim = 32,
                                .vocab = 131,
                                .context = 160,
                                .tied = true,
                                .dtype = TS_DTYPE_BF16,
                                .gain = 1.5,
                                .seed = 1};
    check_random(&m, 150, COMPOSITIONS);
}

static void test_f16_window(void **state)
{
    (void)state;
    struct ts_random_model m = {.type = "mistral",
                                .hidden = 72,
                                .intermediate = 100,
                                .layers = 2,
                                .heads = 3,
                                .kv_heads = 3,
                                .head_dim = 24,
                                .vocab = 77,
                                .context = 160,
                                .window = 37,
                                .dtype = TS_DTYPE_F16,
                                .gain = 1.5,
                                .seed = 2};
    check_random(&m, 150, COMPOSITIONS / 10 + 10);
}

static void test_f32_norms(void **state)
{
    (void)state;
    struct ts_random_model m = {.type = "qwen3",
                                .hidden = 40,
                                .intermediate = 72,
                                .layers = 2,
                                .heads = 6,
                                .kv_heads = 2,
                                .head_dim = 20,
                                .vocab = 93,
                                .context = 160,
                                .tied = true,
                                .dtype = TS_DTYPE_F32,
                                .gain = 1.5,
                                .seed = 3};
    check_random(&m, 140, COMPOSITIONS / 10 + 10);
}

static void test_bias(void **state)
{
    (void)state;
    struct ts_random_model m = {.type = "qwen2",
                                .hidden = 56,
                                .intermediate = 88,
                                .layers = 2,
                                .heads = 7,
                                .kv_heads = 1,
                                .head_dim = 16,
                                .vocab = 101,
                                .context = 160,
                                .tied = true,
                                .dtype = TS_DTYPE_BF16,
                                .gain = 1.5,
                                .seed = 4};
    check_random(&m, 140, COMPOSITIONS / 10 + 10);
}

static void test_demo(void **state)
{
    (void)state;
    check_compositions(TS_TEST_DATA "/models/demo", 200, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16), cmocka_unit_test(test_f16_window), cmocka_unit_test(test_f32_norms),
        cmocka_unit_test(test_bias), cmocka_unit_test(test_demo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
