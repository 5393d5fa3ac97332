/*
 * The reference run: one request, one process, no sockets, no batching, no relay. What the five processes
 * deliver is compared with this. With --codec the prompt's KV passes the codec in place, as a transfer would
 * do to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_metrics.h"
#include "common/text/ts_textstream.h"
#include "gpu/quality/ts_quality.h"
#include "gpu/ts_engine.h"
#include "services/tsctl/tsctl.h"

#define ENGINE_CHUNK 512

struct engine_run {
    struct ts_engine *engine;
    const struct ts_model *model;
    bool said; /* what computes, where that is not what one may expect */
    struct ts_tokenizer *tokenizer;
    struct ts_textstream *text;
    struct ts_sampling sampling;
    uint32_t *prompt, *blocks;
    size_t prompt_count;
    uint32_t block_count;
    struct ts_client_token *tokens;
    uint32_t *ids;
    ts_time *arrivals;
    size_t count;
    ts_time started;
    struct ts_client_result result;
    const char *finish;
};

static enum ts_status prompt_of(struct engine_run *e, const struct tsctl_request *r, struct ts_error *err)
{
    if (r->ids) {
        e->prompt = ts_xcalloc(r->id_count, sizeof *e->prompt);
        memcpy(e->prompt, r->ids, r->id_count * sizeof *e->prompt);
        e->prompt_count = r->id_count;
    } else if (!e->tokenizer) {
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "the model folder has no tokenizer.json: give --tokens instead of --prompt");
    } else if (ts_tokenizer_encode(e->tokenizer, r->prompt, strlen(r->prompt), TS_ENCODE_ADD_SPECIAL,
                                   &e->prompt, &e->prompt_count, err) != TS_OK) {
        return err->status;
    }
    TS_ASSERT(e->model); /* since open_engine */
    for (size_t i = 0; i < e->prompt_count; i++) {
        if (e->prompt[i] >= e->model->vocab)
            return ts_error_set(err, TS_EINVAL, "prompt token %zu is %u, but the model has %u ids", i,
                                e->prompt[i], e->model->vocab);
    }
    if (e->prompt_count == 0)
        return ts_error_set(err, TS_EINVAL, "the prompt is empty: send at least one token");
    if (e->prompt_count + 1 > e->model->context_tokens)
        return ts_error_set(err, TS_EINVAL,
                            "prompt of %zu tokens is longer than the model's context of %u: shorten it",
                            e->prompt_count, e->model->context_tokens);
    return TS_OK;
}

static enum ts_status open_engine(struct engine_run *e, const struct tsctl_request *r, struct ts_error *err)
{
    char path[4096];
    if (!*r->model && strcmp(r->device, "modelled") != 0)
        return ts_error_set(err, TS_EINVAL, "no model: give --model DIR, a Hugging Face folder");
    snprintf(path, sizeof path, "%s/tokenizer.json", r->model);
    if (access(path, F_OK) == 0 && ts_tokenizer_open(path, &e->tokenizer, err) != TS_OK)
        return err->status;
    struct ts_engine_options options = {.model_dir = r->model,
                                        .device = r->device,
                                        .modelled_conf = r->modelled_conf,
                                        .kv_bytes = (uint64_t)256 << 20,
                                        .threads = r->threads,
                                        .max_batch_tokens = ENGINE_CHUNK,
                                        .max_batch_rows = 1};
    if (e->tokenizer)
        options.token_ids = ts_tokenizer_vocab_size(e->tokenizer);
    if (ts_engine_open(&options, &e->engine, err) != TS_OK)
        return err->status;
    e->model = &ts_engine_info(e->engine)->model;
    return TS_OK;
}

static enum ts_status begin(struct engine_run *e, const struct tsctl_request *r, struct ts_error *err)
{
    enum ts_status status = prompt_of(e, r, err);
    if (status != TS_OK)
        return status;
    TS_ASSERT(e->model);
    uint32_t room = e->model->context_tokens - (uint32_t)e->prompt_count;
    uint32_t max_tokens = r->max_tokens < room ? r->max_tokens : room;
    e->block_count = ts_kv_blocks_for((uint32_t)e->prompt_count + max_tokens);
    if (e->block_count > ts_engine_info(e->engine)->kv_blocks)
        return ts_error_set(err, TS_ELIMIT,
                            "prompt and output need %u KV blocks, the pool has %u: lower --max-tokens",
                            e->block_count, ts_engine_info(e->engine)->kv_blocks);
    e->blocks = ts_xcalloc(e->block_count, sizeof *e->blocks);
    for (uint32_t i = 0; i < e->block_count; i++)
        e->blocks[i] = i;
    e->sampling = (struct ts_sampling){.temperature = (float)r->temperature,
                                       .top_k = r->top_k,
                                       .top_p = (float)r->top_p,
                                       .min_p = (float)r->min_p,
                                       .repetition_penalty = (float)r->repetition_penalty,
                                       .presence_penalty = (float)r->presence_penalty,
                                       .frequency_penalty = (float)r->frequency_penalty,
                                       .seed = r->seed,
                                       .max_tokens = max_tokens,
                                       .min_tokens = r->min_tokens,
                                       .ignore_eos = r->ignore_eos,
                                       .logprobs = r->logprobs,
                                       .given = r->given};
    e->sampling = ts_sampling_apply(&e->sampling, &ts_engine_info(e->engine)->defaults);
    return TS_OK;
}

/* Once it is sure that something will be computed. */
static void say_device(struct engine_run *e)
{
    const char *why = ts_engine_info(e->engine)->why_cpu;
    if (why && !e->said)
        fprintf(stderr, "computing on the CPU: %s\n", why);
    e->said = true;
}

static void open_text(struct engine_run *e, const struct tsctl_request *r)
{
    struct ts_text_stop stops[TS_CONF_STRINGS_MAX];
    for (size_t i = 0; i < r->stop.count; i++)
        stops[i] = (struct ts_text_stop){r->stop.items[i], strlen(r->stop.items[i])};
    struct ts_textstream_params params = {.stops = stops,
                                          .stop_count = r->stop.count,
                                          .eos = e->model->eos,
                                          .eos_count = e->model->eos_count,
                                          .ignore_eos = r->ignore_eos,
                                          .min_tokens = r->min_tokens,
                                          .max_tokens = e->sampling.max_tokens};
    e->text = ts_textstream_new(e->tokenizer, &params);
    e->tokens = ts_xcalloc(e->sampling.max_tokens, sizeof *e->tokens);
    e->ids = ts_xcalloc(e->sampling.max_tokens, sizeof *e->ids);
    e->arrivals = ts_xcalloc(e->sampling.max_tokens, sizeof *e->arrivals);
}

/* Computes `count` tokens from `position` on; with `sample` also draws output token e->count. */
static enum ts_status compute(struct engine_run *e, const uint32_t *tokens, uint32_t position, uint32_t count,
                              bool sample, struct ts_engine_event *done, struct ts_error *err)
{
    struct ts_engine_row row = {.position = position,
                                .token_count = count,
                                .tokens = tokens,
                                .blocks = e->blocks,
                                .block_count = ts_kv_blocks_for(position + count),
                                .sample = sample,
                                .sample_index = (uint32_t)e->count,
                                .sampling = sample ? &e->sampling : NULL,
                                .prompt_ids = e->prompt,
                                .prompt_count = (uint32_t)e->prompt_count,
                                .output_ids = e->ids,
                                .output_count = (uint32_t)e->count};
    struct ts_engine_batch batch = {.id = position, .rows = &row, .row_count = 1};
    enum ts_status status = ts_engine_submit(e->engine, &batch, err);
    if (status == TS_OK)
        status = ts_engine_wait(e->engine, done);
    return status == TS_OK ? done->status : status;
}

/* Notes the drawn token; returns whether the request goes on. */
static bool accept_token(struct engine_run *e, const struct ts_engine_sample *sample, bool print)
{
    struct ts_text_event text;
    TS_ASSERT(sample); /* the batch had a sampling row */
    struct ts_client_token *t = &e->tokens[e->count];
    struct ts_client_top *top = ts_xcalloc(sample->top_count + 1, sizeof *top);
    ts_textstream_push(e->text, sample->token, &text);
    for (uint32_t i = 0; i < sample->top_count; i++)
        top[i] = (struct ts_client_top){sample->top[i].token, sample->top[i].logprob};
    *t = (struct ts_client_token){.index = (uint32_t)e->count,
                                  .token = sample->token,
                                  .text = ts_xmemdup(text.text, text.bytes),
                                  .text_bytes = text.bytes,
                                  .logprob = sample->logprob,
                                  .top = top,
                                  .top_count = sample->top_count};
    e->ids[e->count] = sample->token;
    e->arrivals[e->count++] = ts_clock_now();
    if (print) {
        fwrite(text.text, 1, text.bytes, stdout);
        fflush(stdout);
    }
    e->finish = text.finish == TS_TEXT_STOP ? "stop" : "length";
    return text.finish == TS_TEXT_NONE;
}

static enum ts_status pass_codec(struct engine_run *e, const char *name, struct ts_error *err)
{
    struct ts_kv_pass pass = {.from = e->blocks, .to = e->blocks, .tokens = (uint32_t)e->prompt_count};
    struct ts_arena arena;
    ts_arena_init(&arena);
    enum ts_status status = ts_codec_parse_text(ts_str_of(name), &arena, &pass.codec, err);
    if (status == TS_OK && !ts_engine_info(e->engine)->modelled) {
        e->result.kv_bytes_raw = ts_model_kv_token_bytes(e->model) * pass.tokens;
        status = ts_kv_pass(e->engine, &pass, &e->result.kv_bytes_sent, err);
    }
    ts_arena_fini(&arena);
    return status;
}

/* Computes the prompt and draws output token 0. */
static enum ts_status prefill(struct engine_run *e, struct ts_engine_event *done, struct ts_error *err)
{
    uint32_t total = (uint32_t)e->prompt_count;
    enum ts_status status = TS_OK;
    for (uint32_t at = 0; at < total && status == TS_OK; at += ENGINE_CHUNK) {
        uint32_t count = total - at < ENGINE_CHUNK ? total - at : ENGINE_CHUNK;
        status = compute(e, e->prompt + at, at, count, at + count == total, done, err);
    }
    return status;
}

static enum ts_status generate(struct engine_run *e, const char *codec, bool print, struct ts_error *err)
{
    struct ts_engine_event done = {0};
    e->started = ts_clock_now();
    enum ts_status status = prefill(e, &done, err);
    if (status != TS_OK)
        return status;
    bool more = accept_token(e, &done.samples[0], print);
    if (*codec && pass_codec(e, codec, err) != TS_OK)
        return err->status;
    while (more) {
        uint32_t last = (uint32_t)e->count - 1;
        status = compute(e, &e->ids[last], (uint32_t)e->prompt_count + last, 1, true, &done, err);
        if (status != TS_OK)
            return status;
        more = accept_token(e, &done.samples[0], print);
    }
    return TS_OK;
}

static double ms(ts_time ns)
{
    return ns < 0 ? -1 : (double)ns / (double)TS_MS;
}

static void report(struct engine_run *e, const struct tsctl_request *r)
{
    struct ts_metrics m = ts_metrics_of(e->started, e->arrivals, e->count);
    struct ts_client_result *out = &e->result;
    char *text = NULL;
    size_t bytes = 0;
    FILE *join = open_memstream(&text, &bytes);
    for (size_t i = 0; i < e->count; i++)
        fwrite(e->tokens[i].text, 1, e->tokens[i].text_bytes, join);
    fclose(join);
    out->request_id = r->request_id && *r->request_id ? r->request_id : "engine";
    out->tokens = e->tokens;
    out->token_count = e->count;
    out->text = text;
    out->text_bytes = bytes;
    out->finish = e->finish;
    out->reason = "none";
    out->error = "";
    out->seed = r->seed;
    out->ttft_ms = ms(m.ttft_ns);
    out->tpot_ms = ms(m.tpot_ns);
    out->gap01_ms = ms(m.gap01_ns);
    out->max_gap_ms = ms(m.gap_max_ns);
    out->prompt_tokens = (uint32_t)e->prompt_count;
    out->attempts = 1;
    out->codec = *r->codec ? r->codec : "none";
    out->codec_why = "request";
    out->prefill = out->decode = "engine";
    out->relay = "";
    if (r->json) {
        tsctl_print_json(out);
    } else {
        putchar('\n');
        fflush(stdout);
        tsctl_print_summary(out);
    }
    free(text); /* open_memstream allocates with malloc */
}

static void end(struct engine_run *e)
{
    for (size_t i = 0; i < e->count; i++) {
        ts_free((char *)e->tokens[i].text);
        ts_free((void *)e->tokens[i].top);
    }
    ts_free(e->tokens);
    ts_free(e->ids);
    ts_free(e->arrivals);
    ts_free(e->prompt);
    ts_free(e->blocks);
    ts_textstream_destroy(&e->text);
    *e = (struct engine_run){.engine = e->engine, .model = e->model, .tokenizer = e->tokenizer};
}

static enum ts_status run_one(struct engine_run *e, const struct tsctl_request *r, struct ts_error *err)
{
    enum ts_status status = begin(e, r, err);
    if (status == TS_OK) {
        say_device(e);
        open_text(e, r);
        status = generate(e, r->codec, !r->json, err);
    }
    if (status == TS_OK)
        report(e, r);
    end(e);
    return status;
}

static enum ts_status run_requests(struct engine_run *e, const struct tsctl_request *r, struct ts_error *err)
{
    struct tsctl_batch batch;
    enum ts_status status = tsctl_batch_load(r, &batch, err);
    for (size_t i = 0; status == TS_OK && i < batch.count; i++) {
        batch.items[i].json = true;
        status = run_one(e, &batch.items[i], err);
    }
    tsctl_batch_free(&batch);
    return status;
}

int tsctl_engine(int argc, char **argv)
{
    struct tsctl_request r;
    struct engine_run e = {0};
    struct ts_error err = {0};
    int code = 0;
    if (tsctl_request_parse("engine", argc, argv, &r, &code) == 0) {
        enum ts_status status = open_engine(&e, &r, &err);
        if (status == TS_OK)
            status = *r.requests ? run_requests(&e, &r, &err) : run_one(&e, &r, &err);
        if (status != TS_OK)
            code = tsctl_fail("engine", 1, *err.text ? err.text : ts_status_name(status));
    }
    ts_engine_close(&e.engine);
    ts_tokenizer_destroy(&e.tokenizer);
    tsctl_request_free(&r);
    return code;
}
