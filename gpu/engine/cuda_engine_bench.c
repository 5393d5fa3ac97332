/*
 * ts-cuda-engine-bench: what the engine on a device reaches, through the seam that the services use, on
 * Llamas of random weights: decode of batches at a context, and the time to the first token of a prompt.
 * Columns are those of scripts/python/torch_bench.py, with the same shapes: a step takes embedding, layers,
 * head and the choice of the most likely id, which comes to the host and is the next step's input.
 *
 * Bytes of a step: the layers' matrices, the head, and the keys and values that are read. Operations of a
 * prompt: 2 x layer-matrix parameters x tokens, causal attention, the head of one position.
 *
 * The sequences of a batch are filled once, by prefill; each measured batch takes the first of them and goes
 * on from the same context. Model `tiny` is written with its weights, so that the CPU can try this too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/engine/random_model.h"
#include "gpu/ts_engine.h"

#define LIST_MAX 16u
#define WARM     2u
#define PROMPTS  5u /* of each length; the median counts */

struct numbers {
    uint32_t at[LIST_MAX], count;
};

struct flags {
    const char *device, *models, *weights, *dir;
    struct numbers batches, prompts;
    uint32_t context, steps, chunk;
    double seconds;
    bool batch_invariant;
};

static const struct {
    const char *name;
    bool written; /* with its weights, for devices that draw none */
    struct ts_random_model model;
} models[] = {
    {.name = "8b",
     .model = {.type = "llama",
               .hidden = 4096,
               .intermediate = 14336,
               .layers = 32,
               .heads = 32,
               .kv_heads = 8,
               .head_dim = 128,
               .vocab = 128256,
               .context = 16384,
               .rope_theta = 500000}},
    {.name = "1.1b",
     .model = {.type = "llama",
               .hidden = 2048,
               .intermediate = 5632,
               .layers = 22,
               .heads = 32,
               .kv_heads = 4,
               .head_dim = 64,
               .vocab = 32000,
               .context = 16384,
               .rope_theta = 10000}},
    {.name = "tiny",
     .written = true,
     .model = {.type = "llama",
               .hidden = 128,
               .intermediate = 256,
               .layers = 2,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 64,
               .vocab = 512,
               .context = 1024,
               .rope_theta = 10000,
               .gain = 1,
               .seed = 1}},
};

struct bench {
    const struct flags *flags;
    const char *name;
    char dir[512];
    struct ts_engine *engine;
    const struct ts_model *model;
    uint32_t rows_max, row_blocks;
    uint32_t *tokens; /* of the longest prompt */
    uint32_t *blocks; /* of all sequences, one after the other */
    uint32_t *filled; /* [rows_max], what follows the context of each */
    uint32_t *next;   /* [rows_max] */
    struct ts_engine_row *rows;
    ts_time end; /* nothing is begun after it */
};

static void die(const char *what, const struct ts_error *err)
{
    fprintf(stderr, "ts-cuda-engine-bench: %s: %s\n", what, err->text);
    exit(1);
}

static uint32_t largest(const struct numbers *numbers)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < numbers->count; i++)
        most = numbers->at[i] > most ? numbers->at[i] : most;
    return most;
}

/* config.json alone. */
static void write_config(const struct ts_random_model *m, const char *dir)
{
    char path[640];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    if (!f) {
        fprintf(stderr, "ts-cuda-engine-bench: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    fprintf(
        f,
        "{\"model_type\": \"%s\", \"hidden_act\": \"silu\", \"hidden_size\": %u, \"intermediate_size\": %u, "
        "\"num_hidden_layers\": %u, \"num_attention_heads\": %u, \"num_key_value_heads\": %u, "
        "\"head_dim\": %u, \"max_position_embeddings\": %u, \"rms_norm_eps\": 1e-5, \"rope_theta\": %.1f, "
        "\"tie_word_embeddings\": false, \"vocab_size\": %u, \"torch_dtype\": \"bfloat16\", "
        "\"eos_token_id\": 0}\n",
        m->type, m->hidden, m->intermediate, m->layers, m->heads, m->kv_heads, m->head_dim, m->context,
        m->rope_theta, m->vocab);
    if (fclose(f) != 0) {
        fprintf(stderr, "ts-cuda-engine-bench: %s: %s\n", path, strerror(errno));
        exit(1);
    }
}

static void write_model(const struct bench *b, uint32_t which)
{
    struct ts_random_model model = models[which].model;
    struct ts_error err = {0};
    model.dtype = TS_DTYPE_BF16;
    if (mkdir(b->dir, 0700) != 0 && errno != EEXIST) {
        fprintf(stderr, "ts-cuda-engine-bench: %s: %s\n", b->dir, strerror(errno));
        exit(1);
    }
    if (!models[which].written)
        write_config(&model, b->dir);
    else if (ts_random_model_write(&model, b->dir, &err) != TS_OK)
        die(b->dir, &err);
}

static void bench_init(struct bench *b)
{
    const struct flags *f = b->flags;
    struct ts_error err = {0};
    uint32_t longest = largest(&f->prompts), room = f->context + f->steps + WARM;
    b->row_blocks = ts_kv_blocks_for(room);
    b->rows_max = largest(&f->batches);
    uint32_t blocks = b->rows_max * b->row_blocks;
    if (blocks < ts_kv_blocks_for(longest))
        blocks = ts_kv_blocks_for(longest);
    if (longest < f->context)
        longest = f->context;
    struct ts_engine_options options = {.model_dir = b->dir,
                                        .device = f->device,
                                        .weights = f->weights,
                                        .kv_blocks = blocks,
                                        .max_batch_tokens = f->chunk > b->rows_max ? f->chunk : b->rows_max,
                                        .max_batch_rows = b->rows_max,
                                        .batch_invariant = f->batch_invariant,
                                        .random_weights = strcmp(f->device, "cpu") != 0};
    ts_time begun = ts_clock_now();
    if (ts_engine_open(&options, &b->engine, &err) != TS_OK)
        die(b->name, &err);
    b->model = &ts_engine_info(b->engine)->model;
    fprintf(stderr, "ts-cuda-engine-bench: %s on %s: opened in %.1f s\n", b->name,
            ts_engine_info(b->engine)->kind, (double)(ts_clock_now() - begun) / TS_S);
    b->tokens = ts_xcalloc(longest, sizeof *b->tokens);
    b->blocks = ts_xcalloc(blocks, sizeof *b->blocks);
    b->filled = ts_xcalloc(b->rows_max, sizeof *b->filled);
    b->next = ts_xcalloc(b->rows_max, sizeof *b->next);
    b->rows = ts_xcalloc(b->rows_max, sizeof *b->rows);
    struct ts_rng rng;
    ts_rng_init(&rng, 3);
    for (uint32_t i = 0; i < longest; i++)
        b->tokens[i] = (uint32_t)ts_rng_below(&rng, b->model->vocab);
    for (uint32_t i = 0; i < blocks; i++)
        b->blocks[i] = i;
    for (uint32_t i = blocks; i > 1; i--) { /* scattered */
        uint32_t other = (uint32_t)ts_rng_below(&rng, i), kept = b->blocks[i - 1];
        b->blocks[i - 1] = b->blocks[other];
        b->blocks[other] = kept;
    }
}

static void bench_fini(struct bench *b)
{
    ts_engine_close(&b->engine);
    ts_free(b->tokens);
    ts_free(b->blocks);
    ts_free(b->filled);
    ts_free(b->next);
    ts_free(b->rows);
    ts_random_model_remove(b->dir);
}

/* The first `rows` of b->rows, whose samples become b->next. */
static void run(struct bench *b, uint32_t rows)
{
    struct ts_engine_batch batch = {.rows = b->rows, .row_count = rows};
    struct ts_engine_event event;
    struct ts_error err = {0};
    if (ts_engine_submit(b->engine, &batch, &err) != TS_OK || ts_engine_wait(b->engine, &event) != TS_OK)
        die("submit", &err);
    if (event.status != TS_OK) {
        fprintf(stderr, "ts-cuda-engine-bench: a batch fails: %s\n",
                ts_engine_fault(b->engine) ? ts_engine_fault(b->engine) : ts_status_name(event.status));
        exit(1);
    }
    for (uint32_t i = 0, at = 0; i < rows; i++)
        if (b->rows[i].sample)
            b->next[i] = event.samples[at++].token;
}

/* Row `slot` of the next batch: `count` tokens of a sequence from `position` on. */
static void set_row(struct bench *b, uint32_t slot, uint32_t sequence, uint32_t position, uint32_t count,
                    const uint32_t *tokens, bool sample)
{
    static const struct ts_sampling greedy = {
        .top_p = 1, .repetition_penalty = 1, .max_tokens = 1, .ignore_eos = true};
    b->rows[slot] = (struct ts_engine_row){.position = position,
                                           .token_count = count,
                                           .tokens = tokens,
                                           .blocks = b->blocks + (size_t)sequence * b->row_blocks,
                                           .block_count = ts_kv_blocks_for(position + count),
                                           .sample = sample,
                                           .sampling = sample ? &greedy : NULL};
}

static double layer_parameters(const struct ts_model *m)
{
    double q = (double)m->heads * m->head_dim, kv = (double)m->kv_heads * m->head_dim;
    return m->layers * (double)m->hidden * (2 * q + 2 * kv + 3.0 * m->intermediate);
}

static double weight_bytes(const struct bench *b)
{
    double bytes = strcmp(b->flags->weights, "int8") == 0 ? 1 : 2;
    return bytes * (layer_parameters(b->model) + (double)b->model->vocab * b->model->hidden);
}

static void put(const struct bench *b, const char *what, uint32_t rows, uint32_t tokens, double value,
                const char *unit)
{
    printf("ours%s%s%s,%s,%s,%u,%u,%.5g,%s\n", *b->flags->weights ? " " : "", b->flags->weights,
           b->flags->batch_invariant ? " invariant" : "", b->name, what, rows, tokens, value, unit);
    fflush(stdout);
}

static void decode(struct bench *b, uint32_t rows)
{
    uint32_t context = b->flags->context, steps = b->flags->steps;
    ts_time begun = 0;
    memcpy(b->next, b->filled, rows * sizeof *b->next);
    for (uint32_t i = 0; i < WARM + steps; i++) {
        if (i == WARM)
            begun = ts_clock_now();
        for (uint32_t row = 0; row < rows; row++)
            set_row(b, row, row, context + i, 1, &b->next[row], true);
        run(b, rows);
    }
    double step = (double)(ts_clock_now() - begun) / TS_S / steps;
    double kv = (double)ts_model_kv_token_bytes(b->model) * rows * (context + WARM + steps / 2.0);
    put(b, "decode", rows, context, rows / step, "tokens/s");
    put(b, "decode", rows, context, (weight_bytes(b) + kv) / step / 1e9, "GB/s");
}

/* The context of every sequence, as many of them in a batch as it bears. */
static void fill(struct bench *b)
{
    uint32_t context = b->flags->context, together = b->flags->chunk / context;
    ts_time begun = ts_clock_now();
    for (uint32_t first = 0; first < b->rows_max; first += together) {
        uint32_t count = b->rows_max - first < together ? b->rows_max - first : together;
        for (uint32_t i = 0; i < count; i++)
            set_row(b, i, first + i, 0, context, b->tokens, true);
        run(b, count);
        memcpy(b->filled + first, b->next, count * sizeof *b->next);
    }
    double took = (double)(ts_clock_now() - begun) / TS_S;
    put(b, "prefill", b->rows_max, context, b->rows_max * (double)context / took, "tokens/s");
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void first_token(struct bench *b, uint32_t tokens)
{
    double took[PROMPTS];
    uint32_t chunk = b->flags->chunk;
    for (uint32_t i = 0; i <= PROMPTS; i++) { /* once to warm up */
        ts_time begun = ts_clock_now();
        for (uint32_t at = 0; at < tokens; at += chunk) {
            uint32_t count = tokens - at < chunk ? tokens - at : chunk;
            set_row(b, 0, 0, at, count, b->tokens + at, at + count == tokens);
            run(b, 1);
        }
        took[i ? i - 1 : 0] = (double)(ts_clock_now() - begun) / TS_S;
    }
    qsort(took, PROMPTS, sizeof *took, by_value);
    double median = took[PROMPTS / 2], pairs = tokens * (tokens + 1.0) / 2;
    const struct ts_model *m = b->model;
    double operations = 2 * layer_parameters(m) * tokens + 4.0 * m->layers * m->heads * m->head_dim * pairs +
                        2.0 * m->vocab * m->hidden;
    put(b, "first token", 1, tokens, median * 1e3, "ms");
    put(b, "first token", 1, tokens, operations / median / 1e12, "TFLOP/s");
}

static bool time_left(const struct bench *b, const char *words, uint32_t number)
{
    bool left = ts_clock_now() < b->end;
    if (!left)
        fprintf(stderr, "ts-cuda-engine-bench: no time for %s: %s %u\n", b->name, words, number);
    return left;
}

static void measure(struct bench *b, uint32_t which)
{
    const struct flags *f = b->flags;
    b->name = models[which].name;
    snprintf(b->dir, sizeof b->dir, "%s/engine-bench-%s", f->dir, b->name);
    write_model(b, which);
    bench_init(b);
    for (uint32_t i = 0; i < f->prompts.count; i++) /* the sequences of the batches are filled after */
        if (f->prompts.at[i] < b->model->context_tokens && time_left(b, "prompt", f->prompts.at[i]))
            first_token(b, f->prompts.at[i]);
    if (time_left(b, "sequences", b->rows_max))
        fill(b);
    for (uint32_t i = 0; i < f->batches.count; i++)
        if (time_left(b, "batch", f->batches.at[i]))
            decode(b, f->batches.at[i]);
    bench_fini(b);
}

static bool number_of(const char *text, uint32_t *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    *out = (uint32_t)value;
    return end != text && *end == 0 && value > 0 && value <= 1u << 20;
}

static bool numbers_of(const char *text, struct numbers *out)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%s", text);
    out->count = 0;
    for (char *rest = copy, *word; (word = strsep(&rest, ",")) != NULL; out->count++)
        if (out->count == LIST_MAX || !number_of(word, &out->at[out->count]))
            return false;
    return true;
}

static bool parse(struct flags *f, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--batch-invariant") == 0) {
            f->batch_invariant = true;
            continue;
        }
        bool ok = i++ + 1 < argc;
        if (strcmp(name, "--device") == 0)
            f->device = value;
        else if (strcmp(name, "--models") == 0)
            f->models = value;
        else if (strcmp(name, "--weights") == 0)
            f->weights = value;
        else if (strcmp(name, "--dir") == 0)
            f->dir = value;
        else if (strcmp(name, "--batches") == 0)
            ok = ok && numbers_of(value, &f->batches);
        else if (strcmp(name, "--prompts") == 0)
            ok = ok && numbers_of(value, &f->prompts);
        else if (strcmp(name, "--context") == 0)
            ok = ok && number_of(value, &f->context);
        else if (strcmp(name, "--steps") == 0)
            ok = ok && number_of(value, &f->steps);
        else if (strcmp(name, "--chunk") == 0)
            ok = ok && number_of(value, &f->chunk);
        else if (strcmp(name, "--seconds") == 0)
            f->seconds = atof(value);
        else
            ok = false;
        if (!ok)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct flags flags = {.device = "cuda:0",
                          .models = "8b,1.1b",
                          .weights = "",
                          .dir = "/tmp",
                          .batches = {{1, 8, 32, 64, 128}, 5},
                          .prompts = {{512, 2048, 8192}, 3},
                          .context = 512,
                          .steps = 32,
                          .chunk = 8192,
                          .seconds = 60};
    if (!parse(&flags, argc, argv) || flags.chunk < flags.context) {
        fprintf(stderr,
                "usage: ts-cuda-engine-bench [--device cuda:0] [--models 8b,1.1b,tiny] [--weights int8] "
                "[--batch-invariant] [--batches N,...] [--prompts N,...] [--context N] [--steps N] "
                "[--chunk TOKENS] [--seconds N] [--dir DIR]\n");
        return 2;
    }
    struct bench b = {.flags = &flags, .end = ts_clock_now() + (ts_time)(flags.seconds * TS_S)};
    printf("side,model,what,rows,tokens,value,unit\n");
    char copy[256];
    snprintf(copy, sizeof copy, "%s", flags.models);
    for (char *rest = copy, *word; (word = strsep(&rest, ",")) != NULL;) {
        uint32_t which = 0;
        while (which < TS_ARRAY_SIZE(models) && strcmp(models[which].name, word) != 0)
            which++;
        if (which == TS_ARRAY_SIZE(models)) {
            fprintf(stderr, "ts-cuda-engine-bench: no model %s\n", word);
            return 2;
        }
        measure(&b, which);
    }
    return 0;
}
