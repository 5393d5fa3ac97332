#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_ask.h"

#define UNKNOWN_REQUEST "the router does not know this request: check --client and --request-id"

struct admin_flags {
    struct ts_conf *conf;
    const char *router, *client, *request_id, *service, *phase;
    uint32_t timeout_ms;
    bool json;
};

static const struct ts_option options[] = {
    {"router", TS_OPTION_STRING, offsetof(struct admin_flags, router), "tcp://127.0.0.1:5555", 0, 0,
     "client endpoint of the router"},
    {"client", TS_OPTION_STRING, offsetof(struct admin_flags, client), NULL, 0, 0,
     "identity of the client (cancel, why)"},
    {"request_id", TS_OPTION_STRING, offsetof(struct admin_flags, request_id), NULL, 0, 0,
     "its request (cancel, why)"},
    {"service", TS_OPTION_STRING, offsetof(struct admin_flags, service), NULL, 0, 0,
     "id of the service (drain, phase)"},
    {"phase", TS_OPTION_CHOICE, offsetof(struct admin_flags, phase), "none|prefill|decode|both", 0, 0,
     "what it is to serve (phase)"},
    {"timeout_ms", TS_OPTION_U32, offsetof(struct admin_flags, timeout_ms), "3000", 1, 1e6,
     "how long to wait for the answer"},
    {"json", TS_OPTION_BOOL, offsetof(struct admin_flags, json), "false", 0, 0, "print one JSON document"},
};

static int load(const char *verb, int argc, char **argv, struct admin_flags *flags)
{
    struct ts_error err = {0};
    *flags = (struct admin_flags){.conf = NULL};
    switch (
        ts_conf_load(verb, options, TS_ARRAY_SIZE(options), argc, argv, flags, NULL, &flags->conf, &err)) {
    case TS_CONF_EXIT:
        return 0;
    case TS_CONF_ERROR:
        return tsctl_fail(verb, 2, err.text);
    case TS_CONF_RUN:
        break;
    }
    return -1;
}

static void put_str(struct ts_json *object, const char *key, struct ts_str text)
{
    ts_json_put_string(object, key, text.count ? text.data : "", text.count);
}

static const char *service_kind(const struct ts_service_status *s)
{
    if (s->role == TS_ROLE_WORKER)
        return ts_phase_name(s->phase);
    return ts_role_name(s->role);
}

static void print_status_json(const struct ts_msg_status_reply *r)
{
    struct ts_json *doc = ts_json_new_object(), *list = ts_json_new_array();
    for (uint32_t i = 0; i < r->services.count; i++) {
        const struct ts_service_status *s = &r->services.data[i];
        char incarnation[32];
        struct ts_json *item = ts_json_new_object();
        snprintf(incarnation, sizeof incarnation, "%016" PRIx64, s->incarnation);
        ts_json_put_string(item, "service", service_kind(s), strlen(service_kind(s)));
        put_str(item, "id", s->id);
        ts_json_put_integer(item, "pid", s->pid);
        ts_json_put_string(item, "incarnation", incarnation, strlen(incarnation));
        ts_json_put_string(item, "phase", ts_phase_name(s->phase), strlen(ts_phase_name(s->phase)));
        ts_json_put_bool(item, "ready", s->ready);
        ts_json_put_bool(item, "draining", s->draining);
        ts_json_put_integer(item, "in_flight", (int64_t)s->load.running + s->load.waiting);
        ts_json_put_integer(item, "kv_blocks_used", s->load.kv_blocks_used);
        ts_json_put_integer(item, "kv_blocks", s->load.kv_blocks);
        ts_json_put_integer(item, "encoded_bytes", (int64_t)s->load.encoded_bytes);
        ts_json_put_integer(item, "retained_bytes", (int64_t)s->load.retained_bytes);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put(doc, "services", &list);
    ts_json_put_integer(doc, "queued", r->queued);
    ts_json_put_integer(doc, "running", r->running);
    ts_json_put_integer(doc, "accepted", (int64_t)r->accepted);
    ts_json_put_integer(doc, "refused", (int64_t)r->refused);
    ts_json_put_integer(doc, "ended", (int64_t)r->ended);
    ts_json_put_integer(doc, "malformed", (int64_t)r->malformed);
    ts_json_put_integer(doc, "held_bytes", (int64_t)r->held_bytes);
    ts_json_put_integer(doc, "client_most", r->client_most);
    ts_json_put_integer(doc, "retries", (int64_t)r->retries);
    ts_json_put_integer(doc, "stale", (int64_t)r->stale);
    ts_json_put_integer(doc, "term", (int64_t)r->term);
    ts_json_put_integer(doc, "plan", (int64_t)r->number);
    char *text = ts_json_dump(doc, false);
    puts(text);
    ts_free(text);
    ts_json_destroy(&doc);
}

static void print_status(const struct ts_msg_status_reply *r)
{
    printf("%-8s %-12s %8s  %-6s %9s %15s\n", "service", "id", "pid", "state", "in flight", "KV blocks");
    for (uint32_t i = 0; i < r->services.count; i++) {
        const struct ts_service_status *s = &r->services.data[i];
        printf("%-8s %-12.*s %8u  %-6s %9u %7u /%6u\n", service_kind(s), (int)s->id.count, s->id.data, s->pid,
               s->draining ? "drain"
               : s->ready  ? "ready"
                           : "wait",
               s->load.running + s->load.waiting, s->load.kv_blocks_used, s->load.kv_blocks);
    }
    printf("queued %u, running %u, accepted %" PRIu64 ", refused %" PRIu64 ", ended %" PRIu64
           ", plan %" PRIu64 ".%" PRIu64 "\n",
           r->queued, r->running, r->accepted, r->refused, r->ended, r->term, r->number);
}

int tsctl_status(int argc, char **argv)
{
    struct admin_flags f;
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_STATUS}, answer;
    struct ts_error err = {0};
    int code = load("status", argc, argv, &f);
    if (code >= 0)
        return code;
    ts_arena_init(&arena);
    if (tsctl_ask(f.router, TS_CHANNEL_ADMIN, &question, TS_MSG_STATUS_REPLY, (int)f.timeout_ms, &arena,
                  &answer, &err) != TS_OK)
        code = tsctl_fail("status", 1, err.text);
    else if (f.json)
        print_status_json(&answer.status_reply), code = 0;
    else
        print_status(&answer.status_reply), code = 0;
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}

int tsctl_why(int argc, char **argv)
{
    struct admin_flags f;
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_WHY}, answer;
    struct ts_error err = {0};
    char line[4096];
    int code = load("why", argc, argv, &f);
    if (code >= 0)
        return code;
    ts_arena_init(&arena);
    question.why.client = ts_str_of(f.client);
    question.why.request_id = ts_str_of(f.request_id);
    if (tsctl_ask(f.router, TS_CHANNEL_ADMIN, &question, TS_MSG_WHY_REPLY, (int)f.timeout_ms, &arena, &answer,
                  &err) != TS_OK) {
        code = tsctl_fail("why", 1, err.text);
    } else if (answer.why_reply.reason != TS_REASON_NONE) {
        code = tsctl_fail("why", 1, UNKNOWN_REQUEST);
    } else {
        ts_schema_print(&ts_trace_schema, &answer.why_reply.trace, line, sizeof line);
        puts(line);
        code = 0;
    }
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}

int tsctl_cancel(int argc, char **argv)
{
    struct admin_flags f;
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_CANCEL}, answer;
    struct ts_error err = {0};
    int code = load("cancel", argc, argv, &f);
    if (code >= 0)
        return code;
    ts_arena_init(&arena);
    question.cancel.client = ts_str_of(f.client);
    question.cancel.request_id = ts_str_of(f.request_id);
    if (!*f.client || !*f.request_id)
        code = tsctl_fail("cancel", 2, "give --client and --request-id of the request");
    else if (tsctl_ask(f.router, TS_CHANNEL_CLIENT, &question, TS_MSG_END, (int)f.timeout_ms, &arena, &answer,
                       &err) != TS_OK)
        code = tsctl_fail("cancel", 1, err.text);
    else if (answer.end.reason == TS_REASON_NOT_FOUND)
        code = tsctl_fail("cancel", 1, UNKNOWN_REQUEST);
    else
        code = 0; /* cancelled, or it had ended before */
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}

/* The router answers with its status, which lists all that it could have told. */
static bool lists(const struct ts_msg_status_reply *r, const char *id)
{
    for (uint32_t i = 0; i < r->services.count; i++) {
        if (ts_str_equal(r->services.data[i].id, ts_str_of(id)))
            return true;
    }
    return false;
}

int tsctl_drain(int argc, char **argv)
{
    struct admin_flags f;
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_DRAIN}, answer;
    struct ts_error err = {0};
    int code = load("drain", argc, argv, &f);
    if (code >= 0)
        return code;
    ts_arena_init(&arena);
    question.drain.service = ts_str_of(f.service);
    if (!*f.service)
        code = tsctl_fail("drain", 2, "give --service ID, as tsctl status lists them");
    else if (tsctl_ask(f.router, TS_CHANNEL_ADMIN, &question, TS_MSG_STATUS_REPLY, (int)f.timeout_ms, &arena,
                       &answer, &err) != TS_OK)
        code = tsctl_fail("drain", 1, err.text);
    else if (!lists(&answer.status_reply, f.service))
        code = tsctl_fail("drain", 1, "the router knows no such service: tsctl status lists them");
    else
        code = 0;
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}

static enum ts_phase phase_of(const char *name)
{
    enum ts_phase phase = TS_PHASE_BOTH;
    while (phase != TS_PHASE_NONE && strcmp(ts_phase_name(phase), name) != 0)
        phase = (enum ts_phase)(phase - 1);
    return phase;
}

static const char *refusal_words(enum ts_reason reason)
{
    switch (reason) {
    case TS_REASON_NOT_FOUND:
        return "the router knows no such worker: tsctl status lists them";
    case TS_REASON_UNSUPPORTED:
        return "the worker is not willing to serve this phase: see its key phases, and prefill needs a relay";
    case TS_REASON_BUSY:
        return "the worker is changing its phase already: ask again";
    case TS_REASON_STALE_PLAN:
        return "a plan says otherwise: stop the planner, or ask it for another plan";
    case TS_REASON_PEER_LOST:
        return "the worker was lost or did not answer: tsctl status shows what is there";
    default:
        return ts_reason_name(reason);
    }
}

int tsctl_phase(int argc, char **argv)
{
    struct admin_flags f;
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_SET_PHASE}, answer;
    struct ts_error err = {0};
    int code = load("phase", argc, argv, &f);
    if (code >= 0)
        return code;
    ts_arena_init(&arena);
    question.set_phase =
        (struct ts_msg_set_phase){.phase = phase_of(f.phase), .service = ts_str_of(f.service)};
    if (!*f.service || question.set_phase.phase == TS_PHASE_NONE)
        code = tsctl_fail(
            "phase", 2, "give --service ID, as tsctl status lists them, and --phase prefill, decode or both");
    else if (tsctl_ask(f.router, TS_CHANNEL_ADMIN, &question, TS_MSG_PHASE_REPLY, (int)f.timeout_ms, &arena,
                       &answer, &err) != TS_OK)
        code = tsctl_fail("phase", 1, err.text);
    else if (answer.phase_reply.reason != TS_REASON_NONE)
        code = tsctl_fail("phase", 1, refusal_words(answer.phase_reply.reason));
    else
        code = 0;
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}
