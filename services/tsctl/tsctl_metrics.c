/*
 * What a router knows as Prometheus reads it (text format 0.0.4): for a textfile collector, or whatever runs
 * a program and takes its output. Names and units as vLLM's where it has them, behind another prefix.
 */
#include <inttypes.h>
#include <stdio.h>

#include "common/base/ts_assert.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_ask.h"

#define PREFIX "thunderserve:"

struct metrics_flags {
    struct ts_conf *conf;
    const char *router;
    uint32_t timeout_ms;
};

static const struct ts_option options[] = {
    {"router", TS_OPTION_STRING, offsetof(struct metrics_flags, router), "tcp://127.0.0.1:5555", 0, 0,
     "client endpoint of the router"},
    {"timeout_ms", TS_OPTION_U32, offsetof(struct metrics_flags, timeout_ms), "3000", 1, 1e6,
     "how long to wait for each answer"},
};

static void head(const char *name, const char *type, const char *help)
{
    printf("# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void label(const char *name, struct ts_str value, const char *end)
{
    printf("%s=\"", name);
    for (uint32_t i = 0; i < value.count; i++) {
        char c = value.data[i];
        if (c == '\n')
            fputs("\\n", stdout);
        else
            printf("%s%c", c == '"' || c == '\\' ? "\\" : "", c);
    }
    printf("\"%s", end);
}

static void whole(const char *name, const char *type, const char *help, double value)
{
    head(name, type, help);
    printf(PREFIX "%s %.17g\n", name, value);
}

/* --- the router --- */

static void print_router(const struct ts_msg_status_reply *r)
{
    whole("num_requests_running", "gauge", "Requests at workers.", r->running);
    whole("num_requests_waiting", "gauge", "Requests that wait for a worker.", r->queued);
    whole("requests_accepted_total", "counter", "Requests accepted.", (double)r->accepted);
    whole("requests_refused_total", "counter", "Requests refused.", (double)r->refused);
    whole("requests_ended_total", "counter", "Requests that have ended.", (double)r->ended);
    whole("attempts_retried_total", "counter", "Attempts after the first.", (double)r->retries);
    whole("messages_malformed_total", "counter", "Messages that the router refused to read.",
          (double)r->malformed);
    whole("prompt_held_bytes", "gauge", "Bytes of prompts held.", (double)r->held_bytes);
}

/* --- services --- */

struct of_service {
    const char *name, *help;
    enum ts_role role;
    double (*value)(const struct ts_load *load);
};

static double kv_usage(const struct ts_load *l)
{
    return l->kv_blocks ? (double)l->kv_blocks_used / l->kv_blocks : 0;
}

static double running(const struct ts_load *l)
{
    return l->running;
}

static double waiting(const struct ts_load *l)
{
    return l->waiting;
}

static double encoded(const struct ts_load *l)
{
    return (double)l->encoded_bytes;
}

static double retained(const struct ts_load *l)
{
    return (double)l->retained_bytes;
}

static void print_services(const struct ts_msg_status_reply *r)
{
    static const struct of_service gauges[] = {
        {"kv_cache_usage_perc", "Share of the KV blocks in use, 0 to 1.", TS_ROLE_WORKER, kv_usage},
        {"worker_requests_running", "Requests that a worker computes.", TS_ROLE_WORKER, running},
        {"worker_requests_waiting", "Requests that wait at a worker.", TS_ROLE_WORKER, waiting},
        {"relay_encoded_bytes", "Encoded KV that a relay holds, copies included.", TS_ROLE_RELAY, encoded},
        {"relay_retained_bytes", "Of that, in copies of verified transfers.", TS_ROLE_RELAY, retained},
    };
    head("service_ready", "gauge", "1 when the service takes work.");
    for (uint32_t i = 0; i < r->services.count; i++) {
        const struct ts_service_status *s = &r->services.data[i];
        printf(PREFIX "service_ready{");
        label("service", s->id, ",");
        printf("role=\"%s\"} %d\n", ts_role_name(s->role), s->ready);
    }
    for (size_t g = 0; g < TS_ARRAY_SIZE(gauges); g++) {
        head(gauges[g].name, "gauge", gauges[g].help);
        for (uint32_t i = 0; i < r->services.count; i++) {
            const struct ts_service_status *s = &r->services.data[i];
            if (s->role != gauges[g].role)
                continue;
            printf(PREFIX "%s{", gauges[g].name);
            label("service", s->id, "");
            printf("} %.17g\n", gauges[g].value(&s->load));
        }
    }
}

/* --- links --- */

struct of_link {
    const char *name, *type, *help;
    double (*value)(const struct ts_link_item *link); /* below 0: not known */
};

static double goodput(const struct ts_link_item *l)
{
    return l->goodput_bytes_per_s > 0 ? l->goodput_bytes_per_s : -1;
}

static double at_least(const struct ts_link_item *l)
{
    return l->at_least;
}

static double rtt(const struct ts_link_item *l)
{
    return l->rtt_ns > 0 ? (double)l->rtt_ns / 1e9 : -1;
}

static double expected(const struct ts_link_item *l)
{
    return l->expected_bytes_per_s > 0 ? l->expected_bytes_per_s : -1;
}

static double slow(const struct ts_link_item *l)
{
    return l->slow;
}

static double age(const struct ts_link_item *l)
{
    return (double)l->age_ms / 1e3;
}

static double bytes(const struct ts_link_item *l)
{
    return (double)l->bytes;
}

static double transfers(const struct ts_link_item *l)
{
    return (double)l->transfers;
}

static double repeats(const struct ts_link_item *l)
{
    return (double)l->repeats;
}

static void print_links(const struct ts_link_items *links)
{
    static const struct of_link all[] = {
        {"kv_link_goodput_bytes_per_second", "gauge", "KV that a link carries, as measured.", goodput},
        {"kv_link_goodput_at_least", "gauge", "1 when the goodput is a lower bound.", at_least},
        {"kv_link_rtt_seconds", "gauge", "Round trip of a link.", rtt},
        {"kv_link_expected_bytes_per_second", "gauge", "What the cluster file says of it.", expected},
        {"kv_link_slow", "gauge", "1 when it stays far below that.", slow},
        {"kv_link_age_seconds", "gauge", "Since it was measured.", age},
        {"kv_transfer_bytes_total", "counter", "Bytes of KV that arrived over a link.", bytes},
        {"kv_transfers_total", "counter", "Transfers verified over a link.", transfers},
        {"kv_chunks_repeated_total", "counter", "Chunks sent again over a link.", repeats},
    };
    for (size_t m = 0; m < TS_ARRAY_SIZE(all); m++) {
        head(all[m].name, all[m].type, all[m].help);
        for (uint32_t i = 0; i < links->count; i++) {
            double value = all[m].value(&links->data[i]);
            if (value < 0)
                continue;
            printf(PREFIX "%s{", all[m].name);
            label("from", links->data[i].from, ",");
            label("to", links->data[i].to, "");
            printf("} %.17g\n", value);
        }
    }
}

int tsctl_metrics(int argc, char **argv)
{
    struct metrics_flags f = {.conf = NULL};
    struct ts_arena arena;
    struct ts_msg status = {.kind = TS_MSG_STATUS}, links = {.kind = TS_MSG_LINKS}, what, ways;
    struct ts_error err = {0};
    int code = 0;
    switch (ts_conf_load("metrics", options, TS_ARRAY_SIZE(options), argc, argv, &f, NULL, &f.conf, &err)) {
    case TS_CONF_EXIT:
        return 0;
    case TS_CONF_ERROR:
        return tsctl_fail("metrics", 2, err.text);
    case TS_CONF_RUN:
        break;
    }
    ts_arena_init(&arena);
    if (tsctl_ask(f.router, TS_CHANNEL_ADMIN, &status, TS_MSG_STATUS_REPLY, (int)f.timeout_ms, &arena, &what,
                  &err) != TS_OK ||
        tsctl_ask(f.router, TS_CHANNEL_ADMIN, &links, TS_MSG_LINKS_REPLY, (int)f.timeout_ms, &arena, &ways,
                  &err) != TS_OK) {
        code = tsctl_fail("metrics", 1, err.text);
    } else {
        print_router(&what.status_reply);
        print_services(&what.status_reply);
        print_links(&ways.links_reply.links);
    }
    ts_arena_fini(&arena);
    ts_conf_destroy(&f.conf);
    return code;
}
