/*
 * What KV codecs cost in quality, as the product works: windows of a text whose first part is a prompt. Its
 * KV is computed once, passes each codec as a transfer does, and the tokens that follow are scored on all
 * copies side by side.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_tokenizer.h"
#include "gpu/quality/ts_calibrate.h"
#include "gpu/quality/ts_quality.h"
#include "services/tsctl/tsctl.h"

#define BATCH_TOKENS 512u

struct quality_flags {
    struct ts_conf *conf;
    struct ts_conf_strings codec;
    const char *model, *device, *text;
    uint32_t prompt_tokens, tokens, windows, threads;
    double from;
    bool json;
};

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct quality_flags, field), fallback, lo, hi, text                          \
    }

static const struct ts_option options[] = {
    O(model, TS_OPTION_STRING, NULL, 0, 0, "Hugging Face folder"),
    O(codec, TS_OPTION_STRINGS, "all", 0, 0,
      "codecs with commas, bits of layers behind one as in i4h,0=8/16, or all"),
    O(text, TS_OPTION_STRING, NULL, 0, 0, "file; without tokenizer.json each byte is a token id"),
    O(from, TS_OPTION_F64, "0", 0, 1,
      "where windows begin, as a part of the text: 0.9 leaves its last tenth"),
    O(windows, TS_OPTION_U32, "8", 1, 1e5, "pieces of the text, evenly spread; fewer where it is short"),
    O(prompt_tokens, TS_OPTION_U32, "512", 1, 1e6, "of each window, transferred"),
    O(tokens, TS_OPTION_U32, "64", 1, 1e6, "of each window, scored behind the prompt"),
    O(device, TS_OPTION_CHOICE, "auto|cpu|cuda:N", 0, 0, "what computes"),
    O(threads, TS_OPTION_U32, "0", 0, 1024, "of the engine; 0 = all cores"),
    O(json, TS_OPTION_BOOL, "false", 0, 0, "print one JSON document instead of the table"),
};

struct measured {
    const char *name;
    struct ts_codec codec;
    uint64_t bytes;
    struct ts_score *scores; /* [windows * tokens] */
    struct ts_quality quality;
};

struct measuring {
    const struct quality_flags *flags;
    struct ts_engine *engine;
    const struct ts_model *model;
    struct ts_tokenizer *tokenizer;
    struct ts_calibration calibration;
    bool all;
    struct ts_arena arena; /* of names and bits of layers */
    struct measured codecs[TS_CONF_STRINGS_MAX];
    uint32_t count;   /* of codecs; copy 0 of the KV is the reference, copy i + 1 that of codec i */
    uint32_t windows; /* that the text holds */
    uint32_t *ids, *begin;
    size_t id_count, begin_count; /* of the text, and what the tokenizer puts before any */
    uint32_t window_tokens, copy_blocks;
    uint32_t *window, *blocks;
    float *logits; /* [1 + count][vocab] */
    double perplexity;
};

/* Names have commas between them, and before bits of single layers, which belong to the name before. */
static enum ts_status name_codecs(struct measuring *q, struct ts_error *err)
{
    const struct ts_conf_strings *names = &q->flags->codec;
    q->all = names->count == 1 && strcmp(names->items[0], "all") == 0;
    for (size_t i = 0;; i++) {
        const char *name = !q->all ? (i < names->count ? names->items[i] : NULL) : ts_codec_preset(i);
        if (!name)
            break;
        TS_ASSERT(q->count < TS_CONF_STRINGS_MAX);
        if (strchr(name, '=') && q->count > 0) {
            struct measured *m = &q->codecs[q->count - 1];
            size_t room = strlen(m->name) + strlen(name) + 2;
            char *both = ts_arena_alloc(&q->arena, room);
            snprintf(both, room, "%s,%s", m->name, name);
            m->name = both;
        } else {
            q->codecs[q->count++].name = name;
        }
    }
    if (q->count == 0)
        return ts_error_set(err, TS_EINVAL, "no codec: give --codec NAME,NAME or all");
    for (uint32_t i = 0; i < q->count; i++) {
        struct measured *m = &q->codecs[i];
        if (ts_codec_parse_text(ts_str_of(m->name), &q->arena, &m->codec, err) != TS_OK)
            return err->status;
    }
    return TS_OK;
}

static enum ts_status read_text(struct measuring *q, struct ts_error *err)
{
    const char *path = q->flags->text;
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t bytes = 0, capacity = 0, n;
    if (!file)
        return ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", path, strerror(errno));
    do {
        ts_array_reserve((void **)&text, &capacity, bytes + (1 << 16), 1);
        n = fread(text + bytes, 1, 1 << 16, file);
        bytes += n;
    } while (n > 0 && bytes <= TS_ENCODE_BYTES_MAX);
    enum ts_status status = TS_OK;
    if (ferror(file)) /* a folder, for example, opens */
        status = ts_error_set(err, TS_EIO, "cannot read %s: %s", path, strerror(errno));
    fclose(file);
    size_t skip = (size_t)(q->flags->from * (double)bytes);
    if (status == TS_OK && q->tokenizer) {
        status = ts_tokenizer_encode(q->tokenizer, text + skip, bytes - skip, 0, &q->ids, &q->id_count, err);
        if (status == TS_OK)
            status = ts_tokenizer_encode(q->tokenizer, "", 0, TS_ENCODE_ADD_SPECIAL, &q->begin,
                                         &q->begin_count, err);
    } else if (status == TS_OK) {
        q->id_count = bytes - skip;
        q->ids = ts_xcalloc(q->id_count + 1, sizeof *q->ids);
        for (size_t i = 0; i < q->id_count; i++)
            q->ids[i] = (uint8_t)text[skip + i];
    }
    for (size_t i = 0; status == TS_OK && i < q->id_count; i++)
        if (q->ids[i] >= q->model->vocab)
            status = ts_error_set(err, TS_EINVAL, "token %zu of %s is %u, but the model has %u ids", i, path,
                                  q->ids[i], q->model->vocab);
    ts_free(text);
    return status;
}

/* Before the engine, whose pool must hold all copies. */
static enum ts_status open_engine(struct measuring *q, struct ts_error *err)
{
    const struct quality_flags *f = q->flags;
    char path[4096];
    if (!*f->model)
        return ts_error_set(err, TS_EINVAL, "no model: give --model DIR, a Hugging Face folder");
    if (!*f->text)
        return ts_error_set(err, TS_EINVAL, "no text: give --text FILE");
    snprintf(path, sizeof path, "%s/tokenizer.json", f->model);
    if (access(path, F_OK) == 0 && ts_tokenizer_open(path, &q->tokenizer, err) != TS_OK)
        return err->status;
    q->window_tokens = f->prompt_tokens + f->tokens + 1;
    q->copy_blocks = ts_kv_blocks_for(q->window_tokens);
    uint32_t blocks = (1 + q->count) * q->copy_blocks;
    struct ts_engine_options with = {.model_dir = f->model,
                                     .device = f->device,
                                     .kv_blocks = blocks > TS_CALIBRATE_BLOCKS ? blocks : TS_CALIBRATE_BLOCKS,
                                     .threads = f->threads,
                                     .max_batch_tokens = BATCH_TOKENS,
                                     .max_batch_rows = 1 + TS_CONF_STRINGS_MAX};
    if (q->tokenizer)
        with.token_ids = ts_tokenizer_vocab_size(q->tokenizer);
    if (ts_engine_open(&with, &q->engine, err) != TS_OK)
        return err->status;
    q->model = &ts_engine_info(q->engine)->model;
    if (q->window_tokens > q->model->context_tokens)
        return ts_error_set(
            err, TS_EINVAL,
            "windows of %u tokens are longer than the model's context of %u: lower --prompt-tokens",
            q->window_tokens, q->model->context_tokens);
    return ts_calibrate(q->engine, (struct ts_calibrate_room){BATCH_TOKENS, with.max_batch_rows},
                        &q->calibration, err);
}

/* Of all codecs, those that know the model's heads. */
static void leave_out(struct measuring *q)
{
    uint32_t kept = 0;
    struct ts_error unfit;
    for (uint32_t i = 0; i < q->count; i++) {
        if (ts_codec_check(&q->codecs[i].codec, q->model->head_dim, &unfit) == TS_OK)
            q->codecs[kept++] = q->codecs[i];
    }
    q->count = kept;
}

static enum ts_status cut_text(struct measuring *q, struct ts_error *err)
{
    enum ts_status status = read_text(q, err);
    if (status != TS_OK)
        return status;
    if (q->begin_count >= q->flags->prompt_tokens)
        return ts_error_set(err, TS_EINVAL, "--prompt-tokens %u: every prompt begins with %zu special ones",
                            q->flags->prompt_tokens, q->begin_count);
    size_t fit = q->id_count / (q->window_tokens - q->begin_count);
    q->windows = q->flags->windows < fit ? q->flags->windows : (uint32_t)fit;
    if (q->windows == 0)
        return ts_error_set(err, TS_EINVAL,
                            "%s has %zu tokens from there on, one window takes %zu: lower --prompt-tokens "
                            "or --tokens",
                            q->flags->text, q->id_count, q->window_tokens - q->begin_count);
    q->window = ts_xcalloc(q->window_tokens, sizeof *q->window);
    q->blocks = ts_xcalloc((1 + q->count) * (size_t)q->copy_blocks, sizeof *q->blocks);
    for (uint32_t i = 0; i < (1 + q->count) * q->copy_blocks; i++)
        q->blocks[i] = i;
    q->logits = ts_xcalloc((1 + q->count) * (size_t)q->model->vocab, sizeof *q->logits);
    for (uint32_t i = 0; i < q->count; i++)
        q->codecs[i].scores = ts_xcalloc((size_t)q->windows * q->flags->tokens, sizeof *q->codecs[i].scores);
    return TS_OK;
}

/* The token at `position` follows on each copy; scores what they say of the one after it. */
static enum ts_status score(struct measuring *q, uint32_t position, size_t slot, struct ts_error *err)
{
    struct ts_engine_row rows[1 + TS_CONF_STRINGS_MAX];
    for (uint32_t i = 0; i <= q->count; i++)
        rows[i] = (struct ts_engine_row){.position = position,
                                         .token_count = 1,
                                         .tokens = &q->window[position],
                                         .blocks = q->blocks + (size_t)i * q->copy_blocks,
                                         .block_count = ts_kv_blocks_for(position + 1)};
    struct ts_engine_batch batch = {.rows = rows, .row_count = 1 + q->count, .logits_out = q->logits};
    enum ts_status status = ts_quality_batch(q->engine, &batch, err);
    for (uint32_t i = 0; status == TS_OK && i < q->count; i++)
        q->codecs[i].scores[slot] = ts_score_of(q->logits, q->logits + (size_t)(i + 1) * q->model->vocab,
                                                q->model->vocab, q->window[position + 1]);
    return status;
}

static enum ts_status measure_window(struct measuring *q, uint32_t index, struct ts_error *err)
{
    const struct quality_flags *f = q->flags;
    size_t at = q->id_count / q->windows * index, own = q->window_tokens - q->begin_count;
    if (q->begin_count > 0)
        memcpy(q->window, q->begin, q->begin_count * sizeof *q->window);
    memcpy(q->window + q->begin_count, q->ids + at, own * sizeof *q->window);
    enum ts_status status =
        ts_quality_prefill(q->engine, q->window, f->prompt_tokens, BATCH_TOKENS, q->blocks, err);
    for (uint32_t i = 0; status == TS_OK && i < q->count; i++) {
        struct ts_kv_pass pass = {.codec = q->codecs[i].codec,
                                  .from = q->blocks,
                                  .to = q->blocks + (size_t)(i + 1) * q->copy_blocks,
                                  .tokens = f->prompt_tokens};
        status = ts_kv_pass(q->engine, &pass, &q->codecs[i].bytes, err);
    }
    for (uint32_t t = 0; status == TS_OK && t < f->tokens; t++)
        status = score(q, f->prompt_tokens + t, (size_t)index * f->tokens + t, err);
    return status;
}

static double bits_of(const struct measuring *q, const struct measured *m)
{
    double raw =
        (double)ts_model_kv_token_bytes(q->model) * (double)q->flags->prompt_tokens * (double)q->windows;
    return 16 * (double)m->bytes / raw;
}

static void print_table(const struct measuring *q)
{
    const struct quality_flags *f = q->flags;
    if (*q->calibration.why)
        printf("calibration: %s; %s\n", q->calibration.codec, q->calibration.why);
    printf("%u windows, prompts of %u tokens, %u positions each; perplexity %.6g on the KV as computed\n",
           q->windows, f->prompt_tokens, f->tokens, q->perplexity);
    printf("%-8s %6s %10s %10s %10s %12s %10s %8s\n", "codec", "bits", "KL mean", "KL p99", "KL max",
           "perplexity", "change %", "top-1");
    for (uint32_t i = 0; i < q->count; i++) {
        const struct ts_quality *r = &q->codecs[i].quality;
        printf("%-8s %6.3f %10.3g %10.3g %10.3g %12.6g %10.3f %8.4f\n", q->codecs[i].name,
               bits_of(q, &q->codecs[i]), r->kl_mean, r->kl_p99, r->kl_max, r->perplexity,
               r->perplexity_percent, r->top1);
    }
}

static void put_calibration(struct ts_json *doc, const struct ts_calibration *c)
{
    struct ts_json *to = ts_json_new_object();
    ts_json_put_string(to, "codec", c->codec, strlen(c->codec));
    ts_json_put_string(to, "why", c->why, strlen(c->why));
    ts_json_put_number(to, "offset", c->offset);
    ts_json_put_number(to, "kl", c->kl);
    ts_json_put_integer(to, "tokens", c->tokens);
    ts_json_put(doc, "calibration", &to);
}

static void print_json(const struct measuring *q)
{
    struct ts_json *doc = ts_json_new_object(), *list = ts_json_new_array();
    put_calibration(doc, &q->calibration);
    ts_json_put_integer(doc, "windows", q->windows);
    ts_json_put_integer(doc, "prompt_tokens", q->flags->prompt_tokens);
    ts_json_put_integer(doc, "positions", (int64_t)q->windows * q->flags->tokens);
    ts_json_put_number(doc, "perplexity", q->perplexity);
    for (uint32_t i = 0; i < q->count; i++) {
        const struct measured *m = &q->codecs[i];
        struct ts_json *item = ts_json_new_object();
        ts_json_put_string(item, "codec", m->name, strlen(m->name));
        ts_json_put_number(item, "bits", bits_of(q, m));
        ts_json_put_number(item, "kl_mean", m->quality.kl_mean);
        ts_json_put_number(item, "kl_p99", m->quality.kl_p99);
        ts_json_put_number(item, "kl_max", m->quality.kl_max);
        ts_json_put_number(item, "perplexity", m->quality.perplexity);
        ts_json_put_number(item, "perplexity_percent", m->quality.perplexity_percent);
        ts_json_put_number(item, "top1_agreement", m->quality.top1);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(doc, "codecs", &list);
    char *text = ts_json_dump(doc, false);
    puts(text);
    ts_free(text);
    ts_json_destroy(&doc);
}

static void close_all(struct measuring *q)
{
    for (uint32_t i = 0; i < q->count; i++)
        ts_free(q->codecs[i].scores);
    ts_free(q->ids);
    ts_free(q->begin);
    ts_free(q->window);
    ts_free(q->blocks);
    ts_free(q->logits);
    ts_engine_close(&q->engine);
    ts_tokenizer_destroy(&q->tokenizer);
    ts_arena_fini(&q->arena);
}

static int run(const struct quality_flags *f)
{
    struct measuring q = {.flags = f};
    struct ts_error err = {0};
    ts_arena_init(&q.arena);
    enum ts_status status = name_codecs(&q, &err);
    if (status == TS_OK)
        status = open_engine(&q, &err);
    if (status == TS_OK && q.all)
        leave_out(&q);
    if (status == TS_OK)
        status = cut_text(&q, &err);
    if (status == TS_OK && ts_engine_info(q.engine)->why_cpu)
        fprintf(stderr, "computing on the CPU: %s\n", ts_engine_info(q.engine)->why_cpu);
    for (uint32_t i = 0; status == TS_OK && i < q.windows; i++)
        status = measure_window(&q, i, &err);
    if (status == TS_OK) {
        struct ts_quality r;
        for (uint32_t i = 0; i < q.count; i++)
            ts_quality_of(q.codecs[i].scores, (size_t)q.windows * f->tokens, &q.codecs[i].quality);
        r = q.codecs[0].quality;
        q.perplexity = r.perplexity / (1 + r.perplexity_percent / 100);
        if (f->json)
            print_json(&q);
        else
            print_table(&q);
    }
    close_all(&q);
    return status == TS_OK ? 0 : tsctl_fail("quality", 1, err.text);
}

int tsctl_quality(int argc, char **argv)
{
    struct quality_flags f = {.conf = NULL};
    struct ts_error err = {0};
    int code = 0;
    switch (ts_conf_load("quality", options, TS_ARRAY_SIZE(options), argc, argv, &f, NULL, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("quality", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
