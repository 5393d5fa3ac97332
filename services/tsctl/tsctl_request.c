#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_codec_spec.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl.h"

#define AT_MS_MAX 1e9

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct tsctl_request, field), fallback, lo, hi, text                          \
    }

static const struct ts_option options[] = {
    {"router", TS_OPTION_STRINGS, offsetof(struct tsctl_request, routers), "tcp://127.0.0.1:5555", 0, 0,
     "client endpoint of the router; several with commas"},
    O(model, TS_OPTION_STRING, NULL, 0, 0,
      "generate: served name (default: the only one); engine: model folder"),
    O(prompt, TS_OPTION_STRING, NULL, 0, 0, "text prompt"),
    O(tokens, TS_OPTION_STRING, NULL, 0, 0, "token ids with commas, instead of --prompt"),
    O(max_tokens, TS_OPTION_U32, "128", 1, 1e6, "output tokens at most"),
    O(min_tokens, TS_OPTION_U32, "0", 0, 1e6, "no end before so many output tokens"),
    O(temperature, TS_OPTION_F64, NULL, 0, 100, "0 = greedy (default: the model's, or 1)"),
    O(top_k, TS_OPTION_U32, NULL, 0, 1e6, "sample from the k best; 0 = off (default: the model's, or 0)"),
    O(top_p, TS_OPTION_F64, NULL, 1e-6, 1, "nucleus; 1 = off (default: the model's, or 1)"),
    O(min_p, TS_OPTION_F64, NULL, 0, 1, "keep p >= min_p * best; 0 = off (default: the model's, or 0)"),
    O(repetition_penalty, TS_OPTION_F64, NULL, 0.01, 100, "1 = off (default: the model's, or 1)"),
    O(presence_penalty, TS_OPTION_F64, "0", -2, 2, "0 = off"),
    O(frequency_penalty, TS_OPTION_F64, "0", -2, 2, "0 = off"),
    O(seed, TS_OPTION_U64, "0", 0, 9e15, "0 = drawn"),
    O(logprobs, TS_OPTION_U32, "0", 0, 20, "report the k best log-probabilities"),
    O(stop, TS_OPTION_STRINGS, NULL, 0, 0, "stop strings, with commas"),
    O(ignore_eos, TS_OPTION_BOOL, "false", 0, 0, "go on after the end token"),
    O(deadline_ms, TS_OPTION_U32, "0", 0, 4e9, "whole request; 0 = none"),
    O(reattach_ms, TS_OPTION_U32, "0", 0, 4e9,
      "how long the router keeps it for a lost client; 0 = its default"),
    O(give_up_ms, TS_OPTION_U32, "10000", 1, 4e9, "stop waiting for a router that does not answer"),
    O(codec, TS_OPTION_STRING, NULL, 0, 0, "KV codec (default: the router's choice; engine: none)"),
    O(request_id, TS_OPTION_STRING, NULL, 0, 0, "to attach, cancel or look up later (default: random)"),
    O(client, TS_OPTION_STRING, NULL, 0, 0, "identity of this client (default: random)"),
    O(device, TS_OPTION_CHOICE, "auto|cpu|cuda:N|modelled", 0, 0,
      "engine: what computes; auto = cuda:0, or the CPU where there is none"),
    O(modelled_conf, TS_OPTION_STRING, NULL, 0, 0, "engine: coefficients of the modelled device"),
    O(threads, TS_OPTION_U32, "0", 0, 1024, "engine: threads; 0 = all cores"),
    O(json, TS_OPTION_BOOL, "false", 0, 0, "print one JSON document instead of the text"),
    O(requests, TS_OPTION_STRING, NULL, 0, 0,
      "file with one JSON request a line, sent at its at_ms (0); prints one JSON result a line"),
    O(csv, TS_OPTION_STRING, NULL, 0, 0,
      "with --requests: write a record of each request into this file; columns as of tsctl report"),
    O(progress, TS_OPTION_BOOL, "false", 0, 0,
      "with --requests: counts of open, started and ended streams on stderr"),
};

/* What the model decides for a request that is silent. */
static const struct {
    const char *name;
    uint32_t bit;
} model_defaults[] = {
    {"temperature", TS_SAMPLING_TEMPERATURE},
    {"top_k", TS_SAMPLING_TOP_K},
    {"top_p", TS_SAMPLING_TOP_P},
    {"min_p", TS_SAMPLING_MIN_P},
    {"repetition_penalty", TS_SAMPLING_REPETITION_PENALTY},
};

static const char *or_null(const char *text)
{
    return text && *text ? text : NULL;
}

static int parse_ids(struct tsctl_request *r)
{
    size_t capacity = 0;
    for (const char *at = r->tokens; *at;) {
        char *end;
        errno = 0;
        unsigned long long id = strtoull(at, &end, 10);
        if (end == at || errno || id > UINT32_MAX || (*end && *end != ','))
            return -1;
        ts_array_reserve((void **)&r->ids, &capacity, r->id_count + 1, sizeof *r->ids);
        r->ids[r->id_count++] = (uint32_t)id;
        at = *end ? end + 1 : end;
    }
    return r->id_count ? 0 : -1;
}

static void fill(struct tsctl_request *r)
{
    const struct ts_client_request unset = ts_client_request_defaults();
#define GIVEN(bit, field) (r->given & TS_SAMPLING_##bit ? (float)r->field : unset.field)
    r->request =
        (struct ts_client_request){.request_id = or_null(r->request_id),
                                   .model = or_null(r->model),
                                   .prompt = r->ids ? NULL : r->prompt,
                                   .tokens = r->ids,
                                   .token_count = r->id_count,
                                   .temperature = GIVEN(TEMPERATURE, temperature),
                                   .top_k = r->given & TS_SAMPLING_TOP_K ? r->top_k : unset.top_k,
                                   .top_p = GIVEN(TOP_P, top_p),
                                   .min_p = GIVEN(MIN_P, min_p),
                                   .repetition_penalty = GIVEN(REPETITION_PENALTY, repetition_penalty),
                                   .presence_penalty = (float)r->presence_penalty,
                                   .frequency_penalty = (float)r->frequency_penalty,
                                   .seed = r->seed,
                                   .max_tokens = r->max_tokens,
                                   .min_tokens = r->min_tokens,
                                   .logprobs = r->logprobs,
                                   .ignore_eos = r->ignore_eos,
                                   .stops = r->stop.items,
                                   .stop_count = r->stop.count,
                                   .deadline_ms = r->deadline_ms,
                                   .reattach_ms = r->reattach_ms,
                                   .codec = or_null(r->codec)};
#undef GIVEN
}

int tsctl_request_parse(const char *verb, int argc, char **argv, struct tsctl_request *out, int *code)
{
    struct ts_error err = {0};
    *out = (struct tsctl_request){.conf = NULL};
    switch (ts_conf_load(verb, options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, &err)) {
    case TS_CONF_EXIT:
        *code = 0;
        return -1;
    case TS_CONF_ERROR:
        *code = tsctl_fail(verb, 2, err.text);
        return -1;
    case TS_CONF_RUN:
        break;
    }
    for (size_t i = 0; i < TS_ARRAY_SIZE(model_defaults); i++)
        out->given |= ts_conf_given(out->conf, model_defaults[i].name) ? model_defaults[i].bit : 0;
    if (*out->tokens && parse_ids(out) != 0) {
        *code = tsctl_fail(verb, 2, "--tokens is not a list of token ids: expected e.g. --tokens 1,2,3");
        return -1;
    }
    if (*out->prompt && out->ids) {
        *code = tsctl_fail(verb, 2, "both --prompt and --tokens: give one of them");
        return -1;
    }
    if (*out->codec && ts_codec_check_option(out->codec, &err) != TS_OK) {
        *code = tsctl_fail(verb, 2, err.text);
        return -1;
    }
    if (!*out->prompt && !out->ids && !*out->requests) {
        *code = tsctl_fail(verb, 2, "nothing to do: give --prompt TEXT or --tokens 1,2,3");
        return -1;
    }
    fill(out);
    return 0;
}

void tsctl_request_free(struct tsctl_request *request)
{
    ts_conf_destroy(&request->conf);
    ts_free(request->ids);
}

static enum ts_status read_ids(const struct ts_json *list, struct tsctl_request *r, struct ts_error *err)
{
    if (ts_json_type(list) != TS_JSON_ARRAY)
        return ts_error_set(err, TS_EINVAL, "key \"tokens\" is no list of token ids");
    r->id_count = ts_json_count(list);
    r->ids = ts_xcalloc(r->id_count ? r->id_count : 1, sizeof *r->ids);
    for (size_t i = 0; i < r->id_count; i++) {
        int64_t id;
        if (!ts_json_integer(ts_json_at(list, i), &id) || id < 0 || id > UINT32_MAX)
            return ts_error_set(err, TS_EINVAL, "tokens[%zu] is not a token id", i);
        r->ids[i] = (uint32_t)id;
    }
    return TS_OK;
}

/* The range of a number is that of its flag. */
static enum ts_status check_range(const char *key, double value, struct ts_error *err)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(options); i++) {
        const struct ts_option *o = &options[i];
        if (strcmp(key, o->name) == 0 && (value < o->min || value > o->max))
            return ts_error_set(err, TS_EINVAL, "key \"%s\" is out of range: expected %.16g to %.16g", key,
                                o->min, o->max);
    }
    return TS_OK;
}

/* A key of those that the model decides otherwise is given now. */
static void name_key(const char *key, struct tsctl_request *r)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(model_defaults); i++)
        r->given |= strcmp(key, model_defaults[i].name) == 0 ? model_defaults[i].bit : 0;
}

static enum ts_status read_number(const char *key, const struct ts_json *value, char type, void *at,
                                  struct ts_error *err)
{
    int64_t integer = 0;
    double number = 0;
    bool ok = type == 'd' ? ts_json_number(value, &number) : ts_json_integer(value, &integer);
    if (!ok)
        return ts_error_set(err, TS_EINVAL, "key \"%s\" is no %snumber", key, type == 'd' ? "" : "whole ");
    if (check_range(key, type == 'd' ? number : (double)integer, err) != TS_OK)
        return TS_EINVAL;
    if (type == 'd')
        *(double *)at = number;
    else if (type == 'S')
        *(uint64_t *)at = (uint64_t)integer;
    else
        *(uint32_t *)at = (uint32_t)integer;
    return TS_OK;
}

static enum ts_status read_key(const char *key, const struct ts_json *value, struct tsctl_request *r,
                               struct ts_error *err)
{
    static const struct {
        const char *key;
        size_t offset;
        char type; /* u: u32, d: double, b: bool, s: string, S: seed */
    } keys[] = {
        {"prompt", offsetof(struct tsctl_request, prompt), 's'},
        {"max_tokens", offsetof(struct tsctl_request, max_tokens), 'u'},
        {"min_tokens", offsetof(struct tsctl_request, min_tokens), 'u'},
        {"temperature", offsetof(struct tsctl_request, temperature), 'd'},
        {"top_k", offsetof(struct tsctl_request, top_k), 'u'},
        {"top_p", offsetof(struct tsctl_request, top_p), 'd'},
        {"min_p", offsetof(struct tsctl_request, min_p), 'd'},
        {"repetition_penalty", offsetof(struct tsctl_request, repetition_penalty), 'd'},
        {"seed", offsetof(struct tsctl_request, seed), 'S'},
        {"ignore_eos", offsetof(struct tsctl_request, ignore_eos), 'b'},
        {"logprobs", offsetof(struct tsctl_request, logprobs), 'u'},
        {"codec", offsetof(struct tsctl_request, codec), 's'},
        {"request_id", offsetof(struct tsctl_request, request_id), 's'},
        {"at_ms", offsetof(struct tsctl_request, at_ms), 'd'},
    };
    if (strcmp(key, "tokens") == 0)
        return read_ids(value, r, err);
    for (size_t i = 0; i < TS_ARRAY_SIZE(keys); i++) {
        void *at = (char *)r + keys[i].offset;
        if (strcmp(key, keys[i].key) != 0)
            continue;
        name_key(key, r);
        if (keys[i].type == 's')
            return (*(const char **)at = ts_json_string(value, NULL))
                       ? TS_OK
                       : ts_error_set(err, TS_EINVAL, "key \"%s\" is no text", key);
        if (keys[i].type == 'b')
            return ts_json_bool(value, at)
                       ? TS_OK
                       : ts_error_set(err, TS_EINVAL, "key \"%s\" is neither true nor false", key);
        return read_number(key, value, keys[i].type, at, err);
    }
    return ts_error_set(err, TS_EINVAL, "unknown key \"%s\"", key);
}

static enum ts_status read_line(const struct ts_json *doc, const struct tsctl_request *base,
                                struct tsctl_request *r, struct ts_error *err)
{
    void *cursor = NULL;
    const char *key;
    enum ts_status status = TS_OK;
    *r = *base;
    r->ids = NULL;
    r->id_count = 0;
    for (const struct ts_json *value; status == TS_OK && (value = ts_json_next(doc, &cursor, &key, NULL));)
        status = read_key(key, value, r, err);
    if (status == TS_OK && !r->ids && !*r->prompt)
        status = ts_error_set(err, TS_EINVAL, "neither prompt nor tokens");
    if (status == TS_OK && r->ids && ts_json_get(doc, "prompt"))
        status = ts_error_set(err, TS_EINVAL, "both prompt and tokens");
    if (status == TS_OK && !(r->at_ms >= 0 && r->at_ms <= AT_MS_MAX))
        status = ts_error_set(err, TS_EINVAL, "key \"at_ms\" is out of range: expected 0 to %g", AT_MS_MAX);
    fill(r);
    return status;
}

enum ts_status tsctl_batch_load(const struct tsctl_request *base, struct tsctl_batch *out,
                                struct ts_error *err)
{
    FILE *file = fopen(base->requests, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    enum ts_status status = TS_OK;
    *out = (struct tsctl_batch){.count = 0};
    if (!file)
        return ts_error_set(err, TS_ENOTFOUND, "cannot read %s: %s", base->requests, strerror(errno));
    while (status == TS_OK && (n = getline(&line, &size, file)) > 0) {
        ts_array_reserve((void **)&out->items, &out->capacity, out->count + 1, sizeof *out->items);
        ts_array_reserve((void **)&out->docs, &out->doc_capacity, out->count + 1, sizeof *out->docs);
        out->docs[out->count] = NULL;
        out->items[out->count] = *base;
        out->items[out->count].ids = NULL;
        status = ts_json_parse(line, (size_t)n, "JSON", &out->docs[out->count], err);
        if (status == TS_OK)
            status = read_line(out->docs[out->count], base, &out->items[out->count], err);
        out->count++;
    }
    if (status != TS_OK)
        ts_error_prefix(err, "%s line %zu", base->requests, out->count);
    else if (ferror(file)) /* a folder, for example, opens */
        status = ts_error_set(err, TS_EIO, "cannot read %s: %s", base->requests, strerror(errno));
    free(line);
    fclose(file);
    return status;
}

void tsctl_batch_free(struct tsctl_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        ts_json_destroy(&batch->docs[i]);
        ts_free(batch->items[i].ids);
    }
    ts_free(batch->items);
    ts_free(batch->docs);
}

static struct ts_json *token_ids(const struct ts_client_result *r)
{
    struct ts_json *list = ts_json_new_array();
    for (size_t i = 0; i < r->token_count; i++)
        ts_json_put_integer(list, NULL, r->tokens[i].token);
    return list;
}

static struct ts_json *logprobs(const struct ts_client_result *r)
{
    struct ts_json *list = ts_json_new_array();
    for (size_t i = 0; i < r->token_count; i++) {
        const struct ts_client_token *t = &r->tokens[i];
        if (t->top_count == 0)
            continue;
        struct ts_json *item = ts_json_new_object(), *top = ts_json_new_array();
        ts_json_put_integer(item, "token", t->token);
        ts_json_put_number(item, "logprob", t->logprob);
        for (size_t j = 0; j < t->top_count; j++) {
            struct ts_json *pair = ts_json_new_object();
            ts_json_put_integer(pair, "token", t->top[j].token);
            ts_json_put_number(pair, "logprob", t->top[j].logprob);
            ts_json_put(top, NULL, &pair);
        }
        ts_json_put(item, "top", &top);
        ts_json_put(list, NULL, &item);
    }
    return list;
}

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text ? text : "", text ? strlen(text) : 0);
}

void tsctl_print_json(const struct ts_client_result *r)
{
    struct ts_json *doc = ts_json_new_object(), *ids = token_ids(r), *probs = logprobs(r);
    put_text(doc, "request_id", r->request_id);
    ts_json_put(doc, "tokens", &ids);
    ts_json_put_string(doc, "text", r->text ? r->text : "", r->text_bytes);
    ts_json_put(doc, "logprobs", &probs);
    put_text(doc, "finish_reason", r->finish);
    put_text(doc, "reason", r->reason);
    put_text(doc, "error", r->error);
    ts_json_put_integer(doc, "seed", (int64_t)r->seed);
    ts_json_put_integer(doc, "prompt_tokens", r->prompt_tokens);
    ts_json_put_integer(doc, "attempts", r->attempts);
    ts_json_put_number(doc, "ttft_ms", r->ttft_ms);
    ts_json_put_number(doc, "tpot_ms", r->tpot_ms);
    ts_json_put_number(doc, "gap01_ms", r->gap01_ms);
    ts_json_put_number(doc, "max_gap_ms", r->max_gap_ms);
    ts_json_put_integer(doc, "kv_bytes_raw", (int64_t)r->kv_bytes_raw);
    ts_json_put_integer(doc, "kv_bytes_sent", (int64_t)r->kv_bytes_sent);
    put_text(doc, "codec", r->codec);
    put_text(doc, "codec_why", r->codec_why);
    put_text(doc, "prefill", r->prefill);
    put_text(doc, "relay", r->relay);
    put_text(doc, "decode", r->decode);
    char *text = ts_json_dump(doc, false);
    puts(text);
    ts_free(text);
    ts_json_destroy(&doc);
}

void tsctl_print_summary(const struct ts_client_result *r)
{
    fprintf(stderr,
            "finish %s%s%s, prompt %u tokens, output %zu tokens, TTFT %.1f ms, TPOT %.2f ms, handover gap "
            "%.1f ms\n",
            r->finish, strcmp(r->reason, "none") == 0 || strcmp(r->reason, "finished") == 0 ? "" : ": ",
            strcmp(r->reason, "none") == 0 || strcmp(r->reason, "finished") == 0 ? "" : r->reason,
            r->prompt_tokens, r->token_count, r->ttft_ms, r->tpot_ms, r->gap01_ms);
    if (r->kv_bytes_raw)
        fprintf(stderr,
                "KV %llu bytes raw, %llu sent (%.3f), codec %s (%s), prefill %s, relay %s, decode %s\n",
                (unsigned long long)r->kv_bytes_raw, (unsigned long long)r->kv_bytes_sent,
                (double)r->kv_bytes_sent / (double)r->kv_bytes_raw, r->codec, r->codec_why, r->prefill,
                r->relay, r->decode);
    if (r->error && *r->error)
        fprintf(stderr, "%s\n", r->error);
}
