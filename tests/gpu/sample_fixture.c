#include "tests/gpu/sample_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_rng.h"
#include "gpu/cuda/sample/cuda_sample.h"
#include "gpu/engine/ts_sampler.h"
#include "tests/gpu/chi_square.h"
#include "tests/gpu/device_memory.h"

#define ROWS    8u
#define HISTORY 40u

static struct ts_cuda *cuda;
static void (*before_batch)(void);
static bool large_too;

void sample_use(struct ts_cuda *device, void (*before)(void), bool large)
{
    cuda = device;
    before_batch = before;
    large_too = large;
}

/* A batch of rows, each with its logits and parameters. */
struct batch {
    struct ts_model model;
    uint32_t token_ids; /* 0 = the whole vocabulary */
    struct cuda_sample *sample;
    struct ts_sampler *sampler;
    ts_cuda_address there;
    float *logits; /* [ROWS][vocab] */
    struct ts_engine_row rows[ROWS];
    struct ts_sampling sampling[ROWS];
    uint32_t prompt[ROWS][HISTORY], output[ROWS][HISTORY];
    struct ts_rng rng;
};

static void batch_init(struct batch *b, uint32_t vocab, uint32_t token_ids, uint64_t seed)
{
    struct ts_error err = {0};
    *b = (struct batch){.model = {.vocab = vocab, .eos = {2, 5, 7}, .eos_count = 3}, .token_ids = token_ids};
    ts_rng_init(&b->rng, seed);
    struct cuda_sample_options options = {&b->model, token_ids, ROWS, 0};
    device_ok(cuda_sample_new(cuda, &options, &b->sample, &err), &err);
    b->sampler = ts_sampler_new(&b->model);
    b->logits = ts_xcalloc((size_t)ROWS * vocab, sizeof *b->logits);
    b->there = device_new(cuda, b->logits, (size_t)ROWS * vocab * sizeof *b->logits);
    for (uint32_t r = 0; r < ROWS; r++) {
        b->sampling[r] = ts_sampling_defaults();
        b->rows[r] = (struct ts_engine_row){.tag = r, .sample = true, .sampling = &b->sampling[r]};
    }
}

static void batch_fini(struct batch *b)
{
    cuda_sample_free(cuda, &b->sample);
    ts_sampler_destroy(&b->sampler);
    device_free(cuda, b->there);
    ts_free(b->logits);
}

static float *logits_of(struct batch *b, uint32_t row)
{
    return b->logits + (size_t)row * b->model.vocab;
}

/* --- comparison ----------------------------------------------------------------------------------------- */

static bool alike(float a, float b)
{
    return a == b || (isnan(a) && isnan(b)) || fabsf(a - b) <= 1e-5f * (1 + fabsf(b));
}

static _Noreturn void differ(const struct batch *b, uint32_t row, const char *what, double got,
                             double expected)
{
    const struct ts_sampling *p = &b->sampling[row];
    fail_msg("vocabulary %u, row %u, temperature %g, top-k %u, top-p %g, min-p %g, seed %llu: %s is %.9g, "
             "not %.9g",
             b->model.vocab, row, (double)p->temperature, p->top_k, (double)p->top_p, (double)p->min_p,
             (unsigned long long)p->seed, what, got, expected);
    abort();
}

static void compare(const struct batch *b, uint32_t row, const struct ts_engine_sample *got,
                    const struct ts_engine_sample *expected)
{
    if (got->token != expected->token)
        differ(b, row, "the token", got->token, expected->token);
    if (!alike(got->logprob, expected->logprob))
        differ(b, row, "its log-probability", (double)got->logprob, (double)expected->logprob);
    if (got->top_count != expected->top_count)
        differ(b, row, "the number of best tokens", got->top_count, expected->top_count);
    for (uint32_t i = 0; i < got->top_count; i++) {
        if (got->top[i].token != expected->top[i].token)
            differ(b, row, "one of the best tokens", got->top[i].token, expected->top[i].token);
        if (!alike(got->top[i].logprob, expected->top[i].logprob))
            differ(b, row, "the log-probability of one of the best", (double)got->top[i].logprob,
                   (double)expected->top[i].logprob);
    }
}

static void run_there(struct batch *b, uint32_t count)
{
    struct ts_error err = {0};
    size_t bytes = (size_t)count * b->model.vocab * sizeof *b->logits;
    if (before_batch)
        before_batch();
    device_ok(ts_cuda_upload(cuda, b->there, b->logits, bytes, &err), &err);
    device_ok(cuda_sample_upload(b->sample, cuda, count, &err), &err);
    device_ok(cuda_sample_run(b->sample, cuda, b->there, count, &err), &err);
    device_ok(cuda_sample_download(b->sample, cuda, count, &err), &err);
    device_wait(cuda);
}

/* The logits of the CPU's sampler, which changes them. */
static void sample_here(struct batch *b, uint32_t row, struct ts_engine_sample *out)
{
    float *logits = ts_xcalloc(b->model.vocab, sizeof *logits);
    memcpy(logits, logits_of(b, row), b->model.vocab * sizeof *logits);
    for (uint32_t i = b->token_ids; b->token_ids && i < b->model.vocab; i++)
        logits[i] = -INFINITY;
    ts_sample(b->sampler, logits, &b->rows[row], out);
    ts_free(logits);
}

/* The first `count` rows on both. */
static void check(struct batch *b, uint32_t count)
{
    cuda_sample_begin(b->sample);
    for (uint32_t r = 0; r < count; r++)
        assert_true(cuda_sample_set(b->sample, r, &b->rows[r]));
    run_there(b, count);
    for (uint32_t r = 0; r < count; r++) {
        struct ts_engine_sample got = {0}, expected = {0};
        cuda_sample_get(b->sample, r, &got);
        sample_here(b, r, &expected);
        compare(b, r, &got, &expected);
    }
}

/* --- logits and parameters ------------------------------------------------------------------------------ */

enum kind { SPREAD, NARROW, EQUAL, FEW, SHIFTED, RARE, ODD, KINDS };

static float logit_of(enum kind kind, struct ts_rng *rng)
{
    double x = ts_rng_normal(rng);
    switch (kind) {
    case SPREAD:
        return (float)(3 * x);
    case NARROW: /* all in one bin: bits of the logit tell them apart */
        return (float)(1e-4 * x + 2);
    case EQUAL:
        return 1.5f;
    case FEW: /* also zeros of both signs */
        return (float)trunc(x) * 0.5f;
    case SHIFTED:
        return (float)(x - 1000);
    case RARE: /* nearly all cannot be drawn, and lie in the last bin */
        return (float)(x > 2.5 ? x : -300 - x);
    case ODD: /* what masks and faults leave */
        return x > 1 ? -INFINITY : x < -1.5 ? NAN : (float)x;
    default:
        return 0;
    }
}

static void fill_row(struct batch *b, uint32_t row, enum kind kind)
{
    for (uint32_t i = 0; i < b->model.vocab; i++)
        logits_of(b, row)[i] = logit_of(kind, &b->rng);
}

static bool one_in(struct batch *b, uint32_t n)
{
    return ts_rng_below(&b->rng, n) == 0;
}

static void draw_history(struct batch *b, uint32_t row)
{
    struct ts_engine_row *r = &b->rows[row];
    uint32_t range = one_in(b, 2) && b->model.vocab > 10 ? 10 : b->model.vocab; /* tokens again and again */
    for (uint32_t i = 0; i < HISTORY; i++) {
        b->prompt[row][i] = (uint32_t)ts_rng_below(&b->rng, range);
        b->output[row][i] = (uint32_t)ts_rng_below(&b->rng, range);
    }
    r->prompt_ids = b->prompt[row];
    r->output_ids = b->output[row];
    r->prompt_count = (uint32_t)ts_rng_below(&b->rng, HISTORY);
    r->output_count = (uint32_t)ts_rng_below(&b->rng, HISTORY);
}

static void draw_parameters(struct batch *b, uint32_t row)
{
    static const uint32_t ks[] = {1, 2, 5, 50, 700};
    struct ts_sampling *p = &b->sampling[row];
    *p = ts_sampling_defaults();
    p->temperature = one_in(b, 8) ? 0 : (float)(0.1 + 2 * ts_rng_unit(&b->rng));
    p->top_k = one_in(b, 2) ? ks[ts_rng_below(&b->rng, 5)] : 0;
    p->top_p = one_in(b, 2) ? (float)(1 - ts_rng_unit(&b->rng)) : 1;
    p->min_p = one_in(b, 3) ? (float)(0.5 * ts_rng_unit(&b->rng)) : 0;
    p->seed = ts_rng_u64(&b->rng);
    p->logprobs = one_in(b, 2) ? (uint32_t)ts_rng_below(&b->rng, 25) : 0;
    p->min_tokens = one_in(b, 4) ? 10 : 0;
    b->rows[row].sample_index = (uint32_t)ts_rng_below(&b->rng, 20);
    if (one_in(b, 3)) {
        p->repetition_penalty = (float)(0.5 + ts_rng_unit(&b->rng));
        p->presence_penalty = (float)(ts_rng_unit(&b->rng) - 0.5);
        p->frequency_penalty = (float)(ts_rng_unit(&b->rng) - 0.5);
    }
    draw_history(b, row);
}

/* Batches until about `draws` rows are compared. */
static void check_drawn(uint32_t vocab, uint32_t token_ids, uint32_t draws, bool crowded)
{
    struct batch b;
    batch_init(&b, vocab, token_ids, vocab + draws);
    for (uint32_t i = 0; i < draws; i += ROWS) {
        uint32_t count = i % 3 ? ROWS : 1 + (uint32_t)ts_rng_below(&b.rng, ROWS);
        for (uint32_t r = 0; r < count; r++) {
            if (i / ROWS % 8 == 0) /* otherwise the logits of before */
                fill_row(&b, r, crowded ? NARROW + (r + i / ROWS / 8) % (KINDS - 1) : SPREAD);
            draw_parameters(&b, r);
        }
        for (uint32_t r = count; r < ROWS && i / ROWS % 8 == 0; r++)
            fill_row(&b, r, SPREAD);
        check(&b, count);
    }
    batch_fini(&b);
}

/* --- tests ---------------------------------------------------------------------------------------------- */

void sample_test_greedy(void **state)
{
    static const uint32_t sizes[] = {1, 3, 40, 4096, 4097, 9001, 128256, 152064};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes - (large_too ? 0 : 2); i++) {
        struct batch b;
        batch_init(&b, sizes[i], 0, i);
        for (uint32_t round = 0; round < 6; round++) {
            for (uint32_t r = 0; r < ROWS; r++) {
                b.sampling[r].temperature = 0;
                fill_row(&b, r, (r + round) % KINDS);
            }
            for (uint32_t r = 0; r < ROWS; r++) { /* three equal ones, the first anywhere */
                uint32_t at = (uint32_t)ts_rng_below(&b.rng, sizes[i]);
                for (uint32_t j = 0; r % 2 && j < 3; j++)
                    logits_of(&b, r)[(at + j * 1001) % sizes[i]] = r == 7 ? INFINITY : 2000;
            }
            check(&b, ROWS);
        }
        batch_fini(&b);
    }
}

void sample_test_draws(void **state)
{
    (void)state;
    check_drawn(600, 0, 8000, false);
    check_drawn(611, 500, 1000, false);
    check_drawn(9001, 0, large_too ? 1000 : 400, false);
    if (large_too) {
        check_drawn(128256, 128000, 400, false);
        check_drawn(152064, 0, 400, false);
    }
}

void sample_test_crowded(void **state)
{
    (void)state;
    check_drawn(700, 0, 1000, true);
    check_drawn(6000, 0, large_too ? 2000 : 500, true);
    if (large_too)
        check_drawn(128256, 0, 200, true);
}

#define KNOWN 40u

void sample_test_distribution(void **state)
{
    struct batch b;
    uint32_t draws = large_too ? 100000 : 4000; /* in each of three ways */
    (void)state;
    batch_init(&b, KNOWN, 0, 1);
    for (uint32_t way = 0; way < 3; way++) { /* as it is; the best 9; of them the fewest that have half */
        uint32_t counts[KNOWN] = {0}, kept = way ? 9 : KNOWN;
        double weight[KNOWN] = {0}, sum = 0, half = 0;
        for (uint32_t i = 0; i < kept; i++) /* the i-th best is token 7 i + 3 */
            sum += exp(-0.07 * i / 0.7);
        for (uint32_t i = 0; i < kept && (way < 2 || half < sum / 2); i++) {
            weight[(i * 7 + 3) % KNOWN] = exp(-0.07 * i / 0.7);
            half += exp(-0.07 * i / 0.7);
        }
        for (uint32_t i = 0; i < KNOWN; i++)
            weight[i] /= half;
        for (uint32_t r = 0; r < ROWS; r++) {
            for (uint32_t i = 0; i < KNOWN; i++)
                logits_of(&b, r)[(i * 7 + 3) % KNOWN] = 5 - 0.07f * (float)i;
            b.sampling[r].temperature = 0.7f;
            b.sampling[r].top_k = way ? 9 : 0;
            b.sampling[r].top_p = way == 2 ? 0.5f : 1;
            b.sampling[r].seed = way;
        }
        for (uint32_t i = 0; i < draws; i += ROWS) {
            cuda_sample_begin(b.sample);
            for (uint32_t r = 0; r < ROWS; r++) {
                b.rows[r].sample_index = i + r;
                assert_true(cuda_sample_set(b.sample, r, &b.rows[r]));
            }
            run_there(&b, ROWS);
            for (uint32_t r = 0; r < ROWS; r++) {
                struct ts_engine_sample got = {0};
                cuda_sample_get(b.sample, r, &got);
                counts[got.token]++;
            }
        }
        chi_square_check(counts, weight, KNOWN, draws);
    }
    batch_fini(&b);
}

/* A token that has just min-p of the best is drawn too; what cannot be chosen is the last of the best. */
void sample_test_bounds(void **state)
{
    struct batch b;
    struct ts_engine_sample got = {0};
    uint32_t drawn = 0;
    (void)state;
    batch_init(&b, KNOWN, 0, 1);
    for (uint32_t i = 0; i < 40; i++) {
        for (uint32_t r = 0; r < ROWS; r++) {
            for (uint32_t j = 0; j < KNOWN; j++)
                logits_of(&b, r)[j] = -INFINITY;
            logits_of(&b, r)[30] = 2;
            logits_of(&b, r)[9] = 2 + logf(0.5f);
            b.sampling[r].min_p = 0.5f;
            b.sampling[r].seed = i * ROWS + r;
            b.sampling[r].logprobs = r;
        }
        check(&b, ROWS);
        for (uint32_t r = 0; r < ROWS; r++) {
            cuda_sample_get(b.sample, r, &got);
            drawn += got.token == 9;
        }
    }
    assert_in_range(drawn, 70, 140); /* of 320 a third */
    batch_fini(&b);
}

void sample_test_room(void **state)
{
    struct batch b;
    struct ts_error err = {0};
    struct ts_engine_sample got = {0};
    (void)state;
    batch_init(&b, 100, 0, 1);
    cuda_sample_free(cuda, &b.sample);
    struct cuda_sample_options options = {&b.model, 0, ROWS, 12};
    device_ok(cuda_sample_new(cuda, &options, &b.sample, &err), &err);
    for (uint32_t r = 0; r < 4; r++) {
        fill_row(&b, r, SPREAD);
        b.sampling[r].temperature = 0;
        b.sampling[r].repetition_penalty = 1.5f;
        b.rows[r].prompt_ids = b.prompt[r];
        b.rows[r].prompt_count = r == 1 ? 8 : 5;
        for (uint32_t i = 0; i < HISTORY; i++)
            b.prompt[r][i] = i * 3 + r;
    }
    b.sampling[3].min_tokens = 1; /* 5 of the prompt, 2 more of eos: token 3 is both, were it in the prompt */
    cuda_sample_begin(b.sample);
    assert_true(cuda_sample_set(b.sample, 0, &b.rows[0]));
    assert_false(cuda_sample_set(b.sample, 1, &b.rows[1])); /* 5 + 8 */
    assert_true(cuda_sample_set(b.sample, 2, &b.rows[2]));  /* as if it had not come */
    assert_false(cuda_sample_set(b.sample, 3, &b.rows[3]));
    run_there(&b, 4);
    for (uint32_t r = 0; r < 4; r += 2) {
        struct ts_engine_sample expected = {0};
        cuda_sample_get(b.sample, r, &got);
        sample_here(&b, r, &expected);
        compare(&b, r, &got, &expected);
    }
    cuda_sample_begin(b.sample);
    assert_true(cuda_sample_set(b.sample, 3, &b.rows[3]));
    b.rows[3].prompt_count = HISTORY;
    assert_false(cuda_sample_set(b.sample, 3, &b.rows[3]));
    batch_fini(&b);
}

void sample_test_graph(void **state)
{
    struct batch b;
    struct ts_error err = {0};
    struct ts_cuda_graph *graph;
    (void)state;
    batch_init(&b, 3000, 0, 5);
    size_t bytes = (size_t)ROWS * b.model.vocab * sizeof *b.logits;
    device_ok(ts_cuda_capture_begin(cuda, &err), &err);
    device_ok(cuda_sample_run(b.sample, cuda, b.there, ROWS, &err), &err);
    device_ok(cuda_sample_download(b.sample, cuda, ROWS, &err), &err);
    device_ok(ts_cuda_capture_end(cuda, &graph, &err), &err);
    for (uint32_t step = 0; step < 6; step++) {
        cuda_sample_begin(b.sample);
        for (uint32_t r = 0; r < ROWS; r++) {
            fill_row(&b, r, SPREAD);
            draw_parameters(&b, r);
            assert_true(cuda_sample_set(b.sample, r, &b.rows[r]));
        }
        device_ok(ts_cuda_upload(cuda, b.there, b.logits, bytes, &err), &err);
        device_ok(cuda_sample_upload(b.sample, cuda, ROWS, &err), &err);
        device_ok(ts_cuda_graph_launch(cuda, graph, &err), &err);
        device_wait(cuda);
        for (uint32_t r = 0; r < ROWS; r++) {
            struct ts_engine_sample got = {0}, expected = {0};
            cuda_sample_get(b.sample, r, &got);
            sample_here(&b, r, &expected);
            compare(&b, r, &got, &expected);
        }
    }
    ts_cuda_graph_free(&graph);
    batch_fini(&b);
}
