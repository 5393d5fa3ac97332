/*
 * ThunderServe client library: send a prompt to a router, get tokens as they are produced. The only public
 * header: #include <thunderserve/ts_client.h> and link with -lthunderserve (pkg-config thunderserve, or CMake
 * find_package(thunderserve) and thunderserve::client). Plain C.
 *
 *     struct ts_client *client;
 *     const char *routers[] = {"tcp://127.0.0.1:5555"};
 *     char why[TS_CLIENT_ERROR_BYTES];
 *     const struct ts_client_result *result;
 *     struct ts_client_request request = ts_client_request_defaults();
 *     request.prompt = "First Citizen:";
 *     if (ts_client_open(&(struct ts_client_options){.routers = routers, .router_count = 1}, &client, why) ==
 * 0 && ts_client_generate(client, &request, -1, &result, why) == 0)      (blocking) puts(result->text);
 *
 * Streams: ts_client_start any number of requests, then ts_client_poll returns one event after the other, of
 * any of them. Events of a stream come in order, without gap or repeat, whatever dies in between: the library
 * resends the request to the next router with the tokens it has, and accepts events from its current (router,
 * epoch) alone. Exactly one TS_CLIENT_END closes a stream. Poll at least every few seconds while streams are
 * open: polling also tells the router that the client lives.
 *
 * Threads: one client, one thread at a time. Memory: what an event or a result points to belongs to the
 * library; an event's strings are valid until the next poll, a stream's result until ts_client_release.
 */
#ifndef TS_CLIENT_H
#define TS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TS_CLIENT_ERROR_BYTES 640

struct ts_client;
struct ts_client_stream;

struct ts_client_options {
    const char *const *routers; /* client endpoints, tcp://HOST:PORT; tried in turn */
    size_t router_count;
    const char *client;  /* identity; NULL = random. Request ids are unique within it. */
    uint32_t silence_ms; /* no word of the router for that long: try the next one (0 = 3000) */
    uint32_t give_up_ms; /* no router answered at all for that long: end with an error (0 = 30000) */
};

/* Begin with ts_client_request_defaults(): there all is unset. Unset is zero or NULL but for the three fields
 * that say otherwise. Temperature, top_k, top_p, min_p and repetition_penalty that are unset are the model's
 * (its generation_config.json), or 1, off, off, off and off where it is silent. */
struct ts_client_request {
    const char *request_id; /* NULL = random. The same client, id and body (seed given) attaches again. */
    const char *model;      /* NULL = the router's only one */
    const char *prompt;     /* text, or NULL when tokens are given */
    size_t prompt_bytes;    /* 0 = strlen */
    const uint32_t *tokens;
    size_t token_count;
    float temperature;        /* 0 = greedy; below 0 = unset */
    uint32_t top_k;           /* 0 = off; UINT32_MAX = unset */
    float top_p;              /* 1 = off */
    float min_p;              /* 0 = off; below 0 = unset */
    float repetition_penalty; /* 1 = off */
    float presence_penalty, frequency_penalty;
    uint64_t seed; /* 0 = drawn by the library, and reported in the result */
    uint32_t max_tokens, min_tokens, logprobs;
    bool ignore_eos;
    const char *const *stops;
    size_t stop_count;
    uint32_t deadline_ms; /* whole request, 0 = none */
    uint32_t reattach_ms; /* how long the router keeps it for a lost client, 0 = its default */
    const char *codec;    /* wish for the KV transfer: "none", "i4"; NULL = the router's choice */
};

struct ts_client_top {
    uint32_t token;
    float logprob;
};

struct ts_client_token {
    uint32_t index, token;
    const char *text; /* what this token adds; may be empty; NUL-terminated */
    size_t text_bytes;
    float logprob;
    const struct ts_client_top *top;
    size_t top_count;
};

/* What the router saw of its last attempt: milliseconds after it accepted the request; -1 = did not happen.
 */
struct ts_client_trace {
    double assigned_ms, prefill_begin_ms, prefill_end_ms, first_token_ms, kv_open_ms, kv_commit_ms,
        decode_begin_ms, end_ms;
};

/* All of a finished stream. Times are measured here, at the client; -1 = not defined for so few tokens. */
struct ts_client_result {
    const char *request_id;
    const struct ts_client_token *tokens;
    size_t token_count;
    const char *text;
    size_t text_bytes;
    const char *finish;      /* "stop", "length", "cancelled", "deadline", "error" */
    const char *reason;      /* "none" or why, e.g. "queue_full" */
    const char *error;       /* words for a person, empty if all is well */
    uint32_t retry_after_ms; /* of a refusal */
    uint64_t seed;
    double ttft_ms, tpot_ms, gap01_ms, max_gap_ms;
    uint32_t prompt_tokens, attempts;
    uint64_t kv_bytes_raw, kv_bytes_sent;
    const char *codec, *codec_why, *prefill, *relay, *decode;
    struct ts_client_trace trace;
};

enum ts_client_event_kind { TS_CLIENT_NONE, TS_CLIENT_TOKEN, TS_CLIENT_END };

struct ts_client_event {
    enum ts_client_event_kind kind;
    struct ts_client_stream *stream;
    struct ts_client_token token; /* TS_CLIENT_TOKEN */
};

/* Functions return 0 or -1 with words in `why` (TS_CLIENT_ERROR_BYTES, may be NULL). */
int ts_client_open(const struct ts_client_options *options, struct ts_client **out, char *why);
void ts_client_close(struct ts_client **client); /* cancels what still runs; null-safe */
struct ts_client_request ts_client_request_defaults(void);

int ts_client_start(struct ts_client *client, const struct ts_client_request *request, void *user,
                    struct ts_client_stream **out, char *why);
/* Waits at most timeout_ms (-1 = for ever) for one event; kind TS_CLIENT_NONE when the time is over or no
 * stream is open. */
int ts_client_poll(struct ts_client *client, int timeout_ms, struct ts_client_event *event);
void ts_client_cancel(struct ts_client_stream *stream); /* the END still comes */
void *ts_client_user(const struct ts_client_stream *stream);
/* The collected result; complete after TS_CLIENT_END. */
const struct ts_client_result *ts_client_result(const struct ts_client_stream *stream);
void ts_client_release(struct ts_client_stream **stream); /* cancels it if it still runs; null-safe */

/* One request, start to end. The result belongs to the client until its next call. -1 only when nothing could
 * be sent: a refused or failed request is a result with its reason. Not while streams are open on this
 * client. */
int ts_client_generate(struct ts_client *client, const struct ts_client_request *request, int timeout_ms,
                       const struct ts_client_result **out, char *why);

#ifdef __cplusplus
}
#endif

#endif
