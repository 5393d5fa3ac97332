#include "tests/gpu/cuda_engine_fixture.h"

#include <math.h>
#include <unistd.h>

#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/engine/ts_sampler.h"
#include "tests/gpu/engine_fixture.h"
#include "tests/gpu/families_fixture.h"

#define CONTEXT 96u
#define LENGTH  32u /* tokens of a sequence */
#define PROMPT  24u /* of them at once, the others one by one */
#define VOCAB   256u
#define MARGIN  0.05f /* best tokens that lead by less may change places; */
#define ROUGH   0.5f  /* with int8 weights */

static cuda_engine_opener opener;

void cuda_engine_use(cuda_engine_opener open)
{
    opener = open;
}

static const struct ts_random_model plain = {.type = "llama",
                                             .hidden = 64,
                                             .intermediate = 128,
                                             .layers = 2,
                                             .heads = 4,
                                             .kv_heads = 2,
                                             .head_dim = 64,
                                             .vocab = VOCAB,
                                             .context = CONTEXT,
                                             .dtype = TS_DTYPE_BF16,
                                             .gain = 2,
                                             .seed = 1,
                                             .sharpness = 2};

static struct ts_engine_options options_of(const char *dir)
{
    return (struct ts_engine_options){.model_dir = dir,
                                      .kv_blocks = FIXTURE_ROWS * ts_kv_blocks_for(CONTEXT),
                                      .threads = 2,
                                      .max_batch_tokens = FIXTURE_TOKENS,
                                      .max_batch_rows = FIXTURE_ROWS};
}

static struct ts_engine *open_with(const struct ts_engine_options *options)
{
    struct ts_error err;
    struct ts_engine *engine = NULL;
    if (opener(options, &engine, &err) != TS_OK)
        fail_msg("%s", err.text);
    return engine;
}

static struct ts_engine *open_on(const char *dir)
{
    struct ts_engine_options options = options_of(dir);
    return open_with(&options);
}

/* Sequence i takes the blocks i * step, i * step + 1, ... */
static void sequence(struct fixture_sequence *s, uint32_t index, uint32_t length, uint64_t seed)
{
    struct ts_rng rng;
    ts_rng_init(&rng, seed);
    fixture_sequence_init(s, &rng, VOCAB, length);
    for (uint32_t b = 0; b < s->block_count; b++)
        s->blocks[b] = index * ts_kv_blocks_for(CONTEXT) + b;
}

/* --- logits -----------------------------------------------------------------------------------------------
 */

/* Of positions PROMPT - 1 .. length - 1, teacher-forced. */
static void score(struct ts_engine *engine, struct fixture_sequence *s, float *logits)
{
    for (uint32_t i = 0; s->done < s->length; i++) {
        uint32_t count = s->done == 0 ? PROMPT : 1;
        struct ts_engine_row row = fixture_row(s, count);
        fixture_run(engine, &row, 1, logits + (size_t)i * VOCAB, NULL);
        s->done += count;
    }
}

static double log_sum(const float *logits)
{
    double best = logits[0], sum = 0;
    for (uint32_t i = 1; i < VOCAB; i++)
        best = logits[i] > best ? logits[i] : best;
    for (uint32_t i = 0; i < VOCAB; i++)
        sum += exp(logits[i] - best);
    return best + log(sum);
}

static double divergence(const float *want, const float *got)
{
    double a = log_sum(want), b = log_sum(got), sum = 0;
    for (uint32_t i = 0; i < VOCAB; i++)
        sum += exp(want[i] - a) * (want[i] - a - (got[i] - b));
    return sum;
}

static uint32_t best_of(const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* How far the best token leads. */
static float lead(const float *logits)
{
    uint32_t best = best_of(logits);
    float second = -INFINITY;
    for (uint32_t i = 0; i < VOCAB; i++)
        second = i != best && logits[i] > second ? logits[i] : second;
    return logits[best] - second;
}

/* Mean divergence of `count` distributions, and the best tokens where they lead clearly. */
static double compare(const char *what, const float *want, const float *got, uint32_t count, double limit,
                      float margin)
{
    double sum = 0, spread = 0;
    for (uint32_t i = 0; i < count; i++, want += VOCAB, got += VOCAB) {
        double kl = divergence(want, got);
        if (!(kl >= -1e-9 && kl < 1e9))
            fail_msg("%s: the divergence of distribution %u is %g", what, i, kl);
        if (lead(want) > margin && best_of(want) != best_of(got))
            fail_msg("%s: the best token of distribution %u is %u, not %u", what, i, best_of(got),
                     best_of(want));
        sum += kl;
        spread += want[best_of(want)] - log_sum(want) + log(VOCAB);
    }
    if (spread / count < 1.0)
        fail_msg("%s: these logits are too flat to tell anything", what);
    if (sum / count > limit)
        fail_msg("%s: the mean divergence is %g, more than %g", what, sum / count, limit);
    return sum / count;
}

static double limit_of(enum ts_dtype dtype)
{
    return dtype == TS_DTYPE_BF16 ? 1e-3 : 1e-4; /* kernels.md, 6 */
}

/* The model on both engines. */
static void against_cpu(const char *what, const char *dir, const struct ts_engine_options *options,
                        double limit, float margin)
{
    enum { COUNT = LENGTH - PROMPT + 1 };
    float *want = ts_xcalloc((size_t)COUNT * VOCAB, sizeof *want);
    float *got = ts_xcalloc((size_t)COUNT * VOCAB, sizeof *got);
    struct fixture_sequence s;
    sequence(&s, 1, LENGTH, 17);
    struct ts_engine *cpu = fixture_open(dir, 2, CONTEXT), *cuda = open_with(options);
    score(cpu, &s, want);
    s.done = 0;
    score(cuda, &s, got);
    print_message("%s: mean divergence %.2g\n", what, compare(what, want, got, COUNT, limit, margin));
    ts_engine_close(&cpu);
    ts_engine_close(&cuda);
    fixture_sequence_fini(&s);
    ts_free(want);
    ts_free(got);
}

void cuda_engine_families(void **state)
{
    static const struct {
        const char *what, *type;
        uint32_t heads, kv_heads, head_dim, window;
        enum ts_dtype dtype;
        bool tied;
    } cases[] = {
        {"llama bf16", "llama", 4, 2, 64, 0, TS_DTYPE_BF16, false},
        {"llama f16, one head each, tied", "llama", 2, 2, 128, 0, TS_DTYPE_F16, true},
        {"llama f32, group of 3", "llama", 3, 1, 64, 0, TS_DTYPE_F32, false},
        {"mistral f16, window", "mistral", 4, 1, 64, 20, TS_DTYPE_F16, false},
        {"qwen2 bf16, bias, group of 7", "qwen2", 7, 1, 64, 0, TS_DTYPE_BF16, true},
        {"qwen3 bf16, q/k norm", "qwen3", 4, 2, 128, 0, TS_DTYPE_BF16, false},
        {"llama f16, head_dim 80", "llama", 2, 1, 80, 0, TS_DTYPE_F16, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ts_random_model m = plain;
        char dir[64];
        m.type = cases[i].type;
        m.heads = cases[i].heads;
        m.kv_heads = cases[i].kv_heads;
        m.head_dim = cases[i].head_dim;
        m.window = cases[i].window;
        m.dtype = cases[i].dtype;
        m.tied = cases[i].tied;
        fixture_model(&m, dir);
        struct ts_engine_options options = options_of(dir);
        against_cpu(cases[i].what, dir, &options, limit_of(m.dtype), MARGIN);
        ts_random_model_remove(dir);
    }
}

/* --- a stored model with every bias ------------------------------------------------------------------------
 */

static void check_biases(const struct family *f)
{
    char dir[1024];
    if (strcmp(f->name, "llama-bias-sharded") != 0)
        return;
    snprintf(dir, sizeof dir, "%s/models/%s", TS_TEST_DATA, f->name);
    float *got = ts_xcalloc(f->vocab, sizeof *got);
    struct ts_engine_options options = options_of(dir);
    options.kv_blocks = ts_kv_blocks_for(f->token_count);
    options.max_batch_tokens = f->token_count;
    struct ts_engine *engine = open_with(&options);
    for (uint32_t i = 0, at = 0; i < f->position_count; at = f->positions[i++] + 1) {
        struct ts_engine_row row = family_row(f, at, f->positions[i] + 1);
        const float *want = f->logits + (size_t)i * f->vocab;
        fixture_run(engine, &row, 1, got, NULL);
        for (uint32_t j = 0; j < f->vocab; j++) {
            if (!(fabsf(got[j] - want[j]) <= 0.03f))
                fail_msg("%s: logit %u of position %u is %g, expected %g", f->name, j, f->positions[i],
                         (double)got[j], (double)want[j]);
        }
    }
    ts_engine_close(&engine);
    ts_free(got);
}

void cuda_engine_biases(void **state)
{
    (void)state;
    families_each(check_biases);
}

/* --- batches
 * ------------------------------------------------------------------------------------------------ */

/* The last logits of a sequence that is computed in pieces of `chunk` tokens. */
static void in_chunks(struct ts_engine *engine, struct fixture_sequence *s, uint32_t chunk, float *logits)
{
    s->done = 0;
    while (s->done < s->length) {
        uint32_t left = s->length - s->done, count = left < chunk ? left : chunk;
        struct ts_engine_row row = fixture_row(s, count);
        fixture_run(engine, &row, 1, logits, NULL);
        s->done += count;
    }
}

void cuda_engine_chunks(void **state)
{
    char dir[64];
    float want[VOCAB], got[VOCAB];
    struct fixture_sequence s;
    (void)state;
    fixture_model(&plain, dir);
    struct ts_engine *engine = open_on(dir);
    sequence(&s, 0, LENGTH, 23);
    in_chunks(engine, &s, LENGTH, want);
    for (uint32_t chunk = 1; chunk < LENGTH; chunk += 12) {
        in_chunks(engine, &s, chunk, got);
        compare("in chunks", want, got, 1, limit_of(TS_DTYPE_BF16), MARGIN);
    }
    fixture_sequence_fini(&s);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

/* All sequences prefilled with PROMPT tokens, each alone. */
static void prefill(struct ts_engine *engine, struct fixture_sequence *s, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        sequence(&s[i], i, LENGTH, 100 + i);
        struct ts_engine_row row = fixture_row(&s[i], PROMPT - i);
        fixture_run(engine, &row, 1, NULL, NULL);
        s[i].done = PROMPT - i;
    }
}

/* One step of all of them, by launches if it reports layers. */
static void step(struct ts_engine *engine, const struct fixture_sequence *s, uint32_t count, bool report,
                 float *logits)
{
    struct ts_engine_row rows[FIXTURE_ROWS];
    struct ts_engine_batch batch = {
        .rows = rows, .row_count = count, .logits_out = logits, .report_layers = report};
    struct ts_engine_event event = {.kind = TS_ENGINE_LAYER_DONE};
    for (uint32_t i = 0; i < count; i++)
        rows[i] = fixture_row(&s[i], 1);
    assert_int_equal(ts_engine_submit(engine, &batch, NULL), TS_OK);
    while (event.kind != TS_ENGINE_BATCH_DONE)
        assert_int_equal(ts_engine_wait(engine, &event), TS_OK);
    assert_int_equal(event.status, TS_OK);
}

void cuda_engine_graphs(void **state)
{
    char dir[64];
    float eager[FIXTURE_ROWS * VOCAB], graph[FIXTURE_ROWS * VOCAB];
    struct fixture_sequence s[FIXTURE_ROWS];
    (void)state;
    fixture_model(&plain, dir);
    struct ts_engine *engine = open_on(dir);
    prefill(engine, s, FIXTURE_ROWS);
    for (uint32_t rows = 1; rows <= FIXTURE_ROWS; rows *= 2) {
        step(engine, s, rows, true, eager);
        step(engine, s, rows, false, graph);
        assert_memory_equal(eager, graph, rows * VOCAB * sizeof(float));
    }
    for (uint32_t i = 0; i < FIXTURE_ROWS; i++)
        fixture_sequence_fini(&s[i]);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

static uint8_t *pool_of(const struct ts_engine *engine)
{
    const struct ts_engine_info *info = ts_engine_info(engine);
    uint8_t *pool = ts_xmalloc(info->pool_bytes);
    struct ts_cuda *own = NULL;
    assert_int_equal(ts_cuda_fork(info->device, false, &own, NULL), TS_OK);
    assert_int_equal(ts_cuda_download(own, pool, info->device_pool, info->pool_bytes, NULL), TS_OK);
    assert_int_equal(ts_cuda_wait(own, NULL), TS_OK);
    ts_cuda_close(&own);
    return pool;
}

/* Three rows in the bucket of four: of all blocks only the three rows' change, by one token each. */
void cuda_engine_padding(void **state)
{
    char dir[64];
    float logits[FIXTURE_ROWS * VOCAB];
    struct fixture_sequence s[3];
    (void)state;
    fixture_model(&plain, dir);
    struct ts_engine *engine = open_on(dir);
    prefill(engine, s, 3);
    uint8_t *before = pool_of(engine);
    step(engine, s, 3, false, logits);
    uint8_t *after = pool_of(engine);
    const struct ts_engine_info *info = ts_engine_info(engine);
    size_t row = info->model.head_dim * 2, changed = 0;
    for (size_t at = 0; at < info->pool_bytes; at += row)
        changed += memcmp(before + at, after + at, row) != 0;
    assert_int_equal(changed, 3 * 2 * info->model.layers * info->model.kv_heads);
    for (uint32_t i = 0; i < 3; i++)
        fixture_sequence_fini(&s[i]);
    ts_free(before);
    ts_free(after);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

/* --- shards
 * ------------------------------------------------------------------------------------------------- */

static void two_stages(const char *dir, const struct fixture_sequence *s, float *logits)
{
    struct ts_engine_options options = options_of(dir);
    float hidden[LENGTH * 64];
    options.shard = (struct ts_shard){.layer_begin = 0, .layer_end = 1};
    struct ts_engine *first = open_with(&options);
    options.shard = (struct ts_shard){.layer_begin = 1, .layer_end = 2};
    struct ts_engine *second = open_with(&options);
    struct ts_engine_row row = fixture_row(s, s->length);
    struct ts_engine_batch one = {.rows = &row, .row_count = 1, .hidden_out = hidden};
    struct ts_engine_batch two = {.rows = &row, .row_count = 1, .hidden_in = hidden, .logits_out = logits};
    (void)model_run(first, &one);
    (void)model_run(second, &two);
    ts_engine_close(&first);
    ts_engine_close(&second);
}

/* Keys and values of the first layer do not depend on the other heads. */
static void one_head(const char *dir, const struct fixture_sequence *s, const uint8_t *whole)
{
    struct ts_engine_options options = options_of(dir);
    options.shard = (struct ts_shard){.head_begin = 1, .head_end = 2};
    struct ts_engine *engine = open_with(&options);
    struct ts_engine_row row = fixture_row(s, s->length);
    struct ts_engine_batch batch = {.rows = &row, .row_count = 1};
    (void)model_run(engine, &batch);
    uint8_t *part = pool_of(engine);
    size_t tile = (size_t)TS_KV_BLOCK_TOKENS * 64 * 2;
    for (uint32_t b = 0; b < s->length / TS_KV_BLOCK_TOKENS; b++) {
        for (uint32_t kv = 0; kv < 2; kv++)
            assert_memory_equal(part + (s->blocks[b] * 2 + kv) * tile,
                                whole + ((s->blocks[b] * 2 + kv) * 2 + 1) * tile, tile);
    }
    ts_free(part);
    ts_engine_close(&engine);
}

void cuda_engine_shards(void **state)
{
    char dir[64];
    float want[VOCAB], got[VOCAB];
    struct fixture_sequence s;
    (void)state;
    fixture_model(&plain, dir);
    sequence(&s, 2, LENGTH, 31);
    struct ts_engine *engine = open_on(dir);
    struct ts_engine_row row = fixture_row(&s, LENGTH);
    fixture_run(engine, &row, 1, want, NULL);
    uint8_t *pool = pool_of(engine);
    two_stages(dir, &s, got);
    assert_memory_equal(want, got, sizeof want);
    one_head(dir, &s, pool);
    ts_free(pool);
    fixture_sequence_fini(&s);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

/* --- options
 * ------------------------------------------------------------------------------------------------ */

void cuda_engine_int8(void **state)
{
    static const enum ts_dtype dtypes[] = {TS_DTYPE_BF16, TS_DTYPE_F16};
    char dir[64];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ts_random_model m = plain;
        m.dtype = dtypes[i];
        fixture_model(&m, dir);
        struct ts_engine_options options = options_of(dir);
        options.weights = "int8";
        against_cpu("int8", dir, &options, 0.02, ROUGH);
        ts_random_model_remove(dir);
    }
}

/* A row's logits alone, and as one of many of several kinds. */
static void check_invariant(const char *weights)
{
    char dir[64];
    float alone[VOCAB], among[FIXTURE_ROWS * VOCAB];
    struct fixture_sequence s[FIXTURE_ROWS];
    struct ts_engine_row rows[FIXTURE_ROWS];
    fixture_model(&plain, dir);
    struct ts_engine_options options = options_of(dir);
    options.weights = weights;
    options.batch_invariant = true;
    options.max_batch_tokens = FIXTURE_ROWS * LENGTH;
    struct ts_engine *engine = open_with(&options);
    prefill(engine, s, FIXTURE_ROWS);
    rows[0] = fixture_row(&s[0], 1);
    fixture_run(engine, rows, 1, alone, NULL);
    for (uint32_t i = 0; i < FIXTURE_ROWS; i++)
        rows[i] = fixture_row(&s[FIXTURE_ROWS - 1 - i], i % 3 == 0 ? 9 : 1);
    rows[FIXTURE_ROWS - 1].token_count = 1;
    fixture_run(engine, rows, FIXTURE_ROWS, among, NULL);
    assert_memory_equal(alone, among + (FIXTURE_ROWS - 1) * VOCAB, sizeof alone);
    s[0].done = 0; /* and its prompt one token after the other gives the same keys */
    while (s[0].done < PROMPT) {
        rows[0] = fixture_row(&s[0], 1);
        fixture_run(engine, rows, 1, NULL, NULL);
        s[0].done++;
    }
    rows[0] = fixture_row(&s[0], 1);
    fixture_run(engine, rows, 1, among, NULL);
    assert_memory_equal(alone, among, sizeof alone);
    for (uint32_t i = 0; i < 5; i++) /* in a graph that has room for 8 */
        rows[i] = fixture_row(&s[4 - i], 1);
    fixture_run(engine, rows, 5, among, NULL);
    assert_memory_equal(alone, among + 4 * VOCAB, sizeof alone);
    for (uint32_t i = 0; i < FIXTURE_ROWS; i++) { /* and all prompts at once, by the kernels for many rows */
        s[i].done = 0;
        rows[i] = fixture_row(&s[i], PROMPT + 1 - i);
    }
    fixture_run(engine, rows, FIXTURE_ROWS, among, NULL);
    assert_memory_equal(alone, among, sizeof alone);
    for (uint32_t i = 0; i < FIXTURE_ROWS; i++)
        fixture_sequence_fini(&s[i]);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

void cuda_engine_invariant(void **state)
{
    (void)state;
    check_invariant(NULL);
    check_invariant("int8");
}

void cuda_engine_samples(void **state)
{
    static const struct ts_sampling kinds[] = {
        {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .max_tokens = 4},
        {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_tokens = 4, .seed = 5},
        {.temperature = 0.7f,
         .top_p = 0.9f,
         .top_k = 20,
         .repetition_penalty = 1.3f,
         .max_tokens = 4,
         .seed = 6},
        {.temperature = 1.5f,
         .top_p = 1,
         .min_p = 0.05f,
         .repetition_penalty = 1,
         .max_tokens = 4,
         .presence_penalty = 0.5f,
         .frequency_penalty = 0.25f,
         .logprobs = 5,
         .seed = 7}};
    char dir[64];
    float logits[4 * VOCAB];
    struct fixture_sequence s[4];
    struct ts_engine_row rows[4];
    struct ts_engine_event done;
    (void)state;
    fixture_model(&plain, dir);
    struct ts_engine_options options = options_of(dir);
    options.token_ids = VOCAB - 6;
    struct ts_engine *engine = open_with(&options);
    struct ts_sampler *sampler = ts_sampler_new(&ts_engine_info(engine)->model);
    prefill(engine, s, 4);
    for (uint32_t i = 0; i < 4; i++) {
        rows[i] = fixture_row(&s[i], 1);
        rows[i].tag = 70 + i;
        rows[i].sample = i != 1; /* one that wants logits alone */
        rows[i].sampling = &kinds[i];
        rows[i].prompt_ids = s[i].tokens;
        rows[i].prompt_count = 10;
        rows[i].output_ids = s[i].tokens + 10;
        rows[i].output_count = s[i].done - 10;
        rows[i].sample_index = rows[i].output_count;
    }
    fixture_run(engine, rows, 4, logits, &done);
    assert_int_equal(done.sample_count, 3);
    for (uint32_t i = 0, n = 0; i < 4; i++) {
        struct ts_engine_sample want;
        if (!rows[i].sample)
            continue;
        for (uint32_t j = options.token_ids; j < VOCAB; j++)
            logits[i * VOCAB + j] = -INFINITY;
        ts_sample(sampler, logits + i * VOCAB, &rows[i], &want);
        assert_int_equal(done.samples[n].tag, 70 + i);
        assert_int_equal(done.samples[n].token, want.token);
        assert_int_equal(done.samples[n].top_count, want.top_count);
        assert_true(fabsf(done.samples[n].logprob - want.logprob) < 1e-4f);
        n++;
    }
    ts_sampler_destroy(&sampler);
    for (uint32_t i = 0; i < 4; i++)
        fixture_sequence_fini(&s[i]);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

void cuda_engine_layers(void **state)
{
    char dir[64];
    struct fixture_sequence s;
    struct ts_engine_event event;
    (void)state;
    fixture_model(&plain, dir);
    sequence(&s, 0, PROMPT, 3);
    struct ts_engine *engine = open_on(dir);
    struct ts_engine_row row = fixture_row(&s, PROMPT);
    struct ts_engine_batch batch = {.id = 9, .rows = &row, .row_count = 1, .report_layers = true};
    assert_int_equal(ts_engine_submit(engine, &batch, NULL), TS_OK);
    for (uint32_t i = 0; i < plain.layers; i++) {
        assert_int_equal(ts_engine_wait(engine, &event), TS_OK);
        assert_int_equal(event.kind, TS_ENGINE_LAYER_DONE);
        assert_int_equal(event.layer, i);
        assert_int_equal(event.batch, 9);
    }
    assert_int_equal(ts_engine_wait(engine, &event), TS_OK);
    assert_int_equal(event.kind, TS_ENGINE_BATCH_DONE);
    assert_int_equal(event.status, TS_OK);
    assert_null(ts_engine_fault(engine));
    fixture_sequence_fini(&s);
    ts_engine_close(&engine);
    ts_random_model_remove(dir);
}

void cuda_engine_random(void **state)
{
    char dir[64], weights[128];
    float logits[VOCAB];
    struct fixture_sequence s;
    (void)state;
    fixture_model(&plain, dir);
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    assert_int_equal(unlink(weights), 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct ts_engine_options options = options_of(dir);
        options.random_weights = true;
        options.weights = i ? "int8" : "16";
        struct ts_engine *engine = open_with(&options);
        sequence(&s, 0, PROMPT, 4);
        struct ts_engine_row row = fixture_row(&s, PROMPT);
        fixture_run(engine, &row, 1, logits, NULL);
        double mean = 0;
        for (uint32_t j = 0; j < VOCAB; j++)
            mean += fabsf(logits[j]) / VOCAB;
        assert_true(mean > 0.1 && mean < 10);
        fixture_sequence_fini(&s);
        ts_engine_close(&engine);
    }
    ts_random_model_remove(dir);
}

static void refuse(const struct ts_engine_options *options, enum ts_status status, const char *word)
{
    struct ts_engine *engine = NULL;
    struct ts_error err;
    assert_int_equal(opener(options, &engine, &err), status);
    assert_null(engine);
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say %s", err.text, word);
}

void cuda_engine_refusals(void **state)
{
    char dir[64];
    struct ts_random_model odd = plain;
    (void)state;
    fixture_model(&plain, dir);
    struct ts_engine_options options = options_of(dir);
    options.weights = "int3";
    refuse(&options, TS_EINVAL, "int8");
    options = options_of(dir);
    options.shard.layer_begin = 7;
    refuse(&options, TS_EINVAL, "shard");
    options = options_of("/nowhere");
    refuse(&options, TS_ENOTFOUND, "/nowhere");
    ts_random_model_remove(dir);
    odd.intermediate = 124;
    fixture_model(&odd, dir);
    options = options_of(dir);
    refuse(&options, TS_EUNSUPPORTED, "124");
    ts_random_model_remove(dir);
}
