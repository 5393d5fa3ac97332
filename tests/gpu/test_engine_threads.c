/*
 * The pool of threads: every item once, whatever the number of threads and the grain; sleeping and waking
 * over many rounds; and an engine of three threads whose calls come from another thread than its own.
 */
#include "gpu/cpu/cpu_threads.h"
#include "tests/gpu/engine_fixture.h"

#define ITEMS 1000u

static void count_items(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    uint32_t *counts = context;
    (void)thread;
    for (uint32_t i = begin; i < end; i++)
        counts[i]++;
}

static void test_items(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n++) {
        struct cpu_threads *threads = cpu_threads_new(n);
        uint32_t counts[ITEMS] = {0}, rounds = 0;
        assert_int_equal(cpu_threads_count(threads), n);
        for (uint32_t items = 0; items <= ITEMS; items += 1 + items / 3) {
            for (uint32_t grain = 1; grain <= items + 1; grain += 1 + grain) {
                memset(counts, 0, sizeof counts);
                cpu_threads_for(threads, items, grain, count_items, counts);
                for (uint32_t i = 0; i < ITEMS; i++)
                    assert_int_equal(counts[i], i < items);
                rounds++;
            }
        }
        assert_true(rounds > 50);
        cpu_threads_destroy(&threads);
        assert_null(threads);
    }
}

/* What a round wrote is seen by the next: each adds its neighbour's value of the round before. */
struct relay_work {
    uint32_t *from, *to;
};

static void add_neighbour(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct relay_work *w = context;
    (void)thread;
    for (uint32_t i = begin; i < end; i++)
        w->to[i] = w->from[i] + w->from[(i + 1) % 64];
}

static void test_rounds(void **state)
{
    (void)state;
    struct cpu_threads *threads = cpu_threads_new(3);
    uint32_t a[64], b[64], expected = 1;
    for (uint32_t i = 0; i < 64; i++)
        a[i] = 1;
    for (uint32_t r = 0; r < 3000; r++) {
        struct relay_work w = {r % 2 ? b : a, r % 2 ? a : b};
        if (r % 500 == 499) { /* long enough for the workers to fall asleep */
            volatile double busy = 1;
            for (int i = 0; i < 400000; i++)
                busy = busy * 1.0000001;
        }
        cpu_threads_for(threads, 64, 3, add_neighbour, &w);
        expected *= 2;
    }
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(a[i], expected);
    cpu_threads_destroy(&threads);
}

static void test_engine(void **state)
{
    (void)state;
    struct ts_random_model m = {.type = "llama",
                                .hidden = 64,
                                .intermediate = 96,
                                .layers = 2,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_dim = 16,
                                .vocab = 61,
                                .context = 64,
                                .tied = true,
                                .dtype = TS_DTYPE_BF16,
                                .gain = 1.5,
                                .seed = 8};
    char dir[64];
    fixture_model(&m, dir);
    struct ts_sampling greedy = {.top_p = 1, .repetition_penalty = 1, .max_tokens = 1};
    struct fixture_sequence s[FIXTURE_ROWS];
    uint32_t drawn[3][FIXTURE_ROWS];
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct ts_engine *engine = fixture_open(dir, threads, 40);
        struct ts_engine_row rows[FIXTURE_ROWS];
        struct ts_engine_event done = {0};
        struct ts_rng rng;
        ts_rng_init(&rng, 5);
        for (uint32_t i = 0; i < FIXTURE_ROWS; i++)
            fixture_sequence_init(&s[i], &rng, m.vocab, 40);
        fixture_scatter(engine, s, FIXTURE_ROWS, &rng);
        for (uint32_t step = 0; step < 5; step++) {
            for (uint32_t i = 0; i < FIXTURE_ROWS; i++) {
                rows[i] = fixture_row(&s[i], 8);
                rows[i].tag = 100 + i;
                rows[i].sample = true;
                rows[i].sampling = &greedy;
                s[i].done += 8;
            }
            fixture_run(engine, rows, FIXTURE_ROWS, NULL, &done);
        }
        assert_int_equal(done.sample_count, FIXTURE_ROWS);
        for (uint32_t i = 0; i < FIXTURE_ROWS; i++) {
            assert_int_equal(done.samples[i].tag, 100 + i);
            drawn[threads - 1][i] = done.samples[i].token;
            fixture_sequence_fini(&s[i]);
        }
        ts_engine_close(&engine);
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_memory_equal(drawn[0], drawn[2], sizeof drawn[0]);
    ts_random_model_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_items), cmocka_unit_test(test_rounds),
                                       cmocka_unit_test(test_engine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
