/*
 * `tsctl simulate local`: what `tsctl up CONF --engine modelled` would do with a file of requests, under
 * virtual time. The cores get the settings of the same file; messages take a fixed time instead of sockets
 * and scheduling, so the difference to the real processes is what these cost (scripts/experiments/processes).
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_codec_spec.h"
#include "gpu/sim/ts_sim_model.h"
#include "services/cloud/cloud.h"
#include "services/planner/planner_conf.h"
#include "services/relay/relay_conf.h"
#include "services/router/router_conf.h"
#include "services/tsctl/tsctl.h"
#include "services/worker/worker_conf.h"

#define NODES_MAX 64

struct local_flags {
    const char *conf_path, *model, *requests, *engine, *codec, *record, *host, *modelled_conf;
    uint32_t port, prefill, relay, decode, planner, ready_ms, stop_ms, message_us, seed;
};

/* Those of the group "up" in the file, so that one file serves both verbs, and this verb's own. */
#define O(name, kind, fallback, lo, hi, text)                                                                \
    {                                                                                                        \
#name, kind, offsetof(struct local_flags, name), fallback, lo, hi, text                              \
    }
static const struct ts_option options[] = {
    O(requests, TS_OPTION_STRING, NULL, 0, 0, "file with one JSON request a line, as of tsctl generate"),
    O(prefill, TS_OPTION_U32, "1", 1, NODES_MAX, "prefill workers"),
    O(relay, TS_OPTION_U32, "1", 1, NODES_MAX, "relays; prefill worker i uses relay i mod N"),
    O(decode, TS_OPTION_U32, "1", 1, NODES_MAX, "decode workers"),
    O(planner, TS_OPTION_U32, "1", 0, 8, "planners"),
    O(modelled_conf, TS_OPTION_STRING, NULL, 0, 0, "coefficients of the modelled device"),
    O(codec, TS_OPTION_STRING, NULL, 0, 0, "default KV codec"),
    O(message_us, TS_OPTION_U32, "150", 1, 1000000, "mean time of a message between two processes"),
    O(seed, TS_OPTION_U32, "1", 0, 4294967295.0, "of the times of messages"),
    O(host, TS_OPTION_STRING, NULL, 0, 0, "of tsctl up: not used here"),
    O(port, TS_OPTION_U32, "0", 0, 65530, "of tsctl up: not used here"),
    O(model, TS_OPTION_STRING, NULL, 0, 0, "of tsctl up: not used here"),
    O(engine, TS_OPTION_STRING, NULL, 0, 0, "of tsctl up: not used here, always modelled"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "of tsctl up: not used here"),
    O(ready_ms, TS_OPTION_U32, "0", 0, 1e7, "of tsctl up: not used here"),
    O(stop_ms, TS_OPTION_U32, "0", 0, 1e7, "of tsctl up: not used here"),
};

struct local {
    struct local_flags flags;
    struct router_conf router;
    struct planner_conf planner;
    struct relay_conf relay;
    struct worker_conf prefill, decode;
    struct cloud *cloud;
    struct cloud_node *client;
    struct tsctl_batch batch;
    char names[4 * NODES_MAX][24];
    size_t name_count;
    size_t *order, sent; /* requests by time */
    struct ts_json **results;
};

static const char *name_of(struct local *l, const char *kind, uint32_t i)
{
    char *name = l->names[l->name_count++];
    snprintf(name, sizeof l->names[0], "%s%u", kind, i);
    return name;
}

static enum ts_status load_services(struct local *l, struct ts_error *err)
{
    char *argv[] = {(char *)"tsctl simulate local", (char *)"--config", (char *)l->flags.conf_path, NULL};
    bool good = router_conf_load(3, argv, &l->router, err) != TS_CONF_ERROR &&
                planner_conf_load(3, argv, 0, &l->planner, err) != TS_CONF_ERROR &&
                relay_conf_load(3, argv, 0, &l->relay, err) != TS_CONF_ERROR &&
                worker_conf_load("prefill", 3, argv, 0, &l->prefill, err) != TS_CONF_ERROR &&
                worker_conf_load("decode", 3, argv, 0, &l->decode, err) != TS_CONF_ERROR;
    return good ? TS_OK : TS_EINVAL;
}

static uint32_t blocks_of(const struct worker_conf *conf, const struct ts_sim_model *device)
{
    uint64_t block = ts_model_kv_token_bytes(&device->model) * TS_KV_BLOCK_TOKENS;
    return conf->kv_blocks ? conf->kv_blocks : (uint32_t)(((uint64_t)conf->kv_cache_mib << 20) / block);
}

static void add_worker(struct local *l, const struct worker_conf *conf, const struct ts_sim_model *device,
                       enum ts_phase phase, const char *id, const char *relay)
{
    struct worker_settings s = conf->settings;
    s.id = id;
    s.max_rows = conf->max_num_seqs;
    s.max_batch_tokens = conf->max_num_batched_tokens;
    cloud_add_worker(l->cloud, &s, phase, blocks_of(conf, device), relay);
}

/* Requests begin once all services know each other, as `tsctl up` says so before anybody sends. */
#define READY_AT (10 * TS_S)

/* The seed of a request is its number: modelled tokens have no meaning. */
static bool next_request(void *context, struct cloud_request *out)
{
    struct local *l = context;
    if (l->sent == l->batch.count)
        return false;
    size_t i = l->order[l->sent++];
    const struct tsctl_request *r = &l->batch.items[i];
    out->at = READY_AT + (ts_time)(r->at_ms * TS_MS);
    out->prompt = r->ids;
    out->prompt_count = (uint32_t)r->id_count;
    out->codec = r->codec && *r->codec ? r->codec : NULL;
    out->sampling.max_tokens = r->max_tokens;
    out->sampling.min_tokens = r->min_tokens;
    out->sampling.ignore_eos = r->ignore_eos;
    out->sampling.seed = i;
    return true;
}

static void put_ms(struct ts_json *doc, const char *key, ts_time ns)
{
    ts_json_put_number(doc, key, ns < 0 ? -1 : (double)ns / TS_MS);
}

static void put_text(struct ts_json *doc, const char *key, struct ts_str text)
{
    ts_json_put_string(doc, key, text.count ? text.data : "", text.count);
}

static void take_end(void *context, const struct cloud_request *request, const struct cloud_outcome *o)
{
    struct local *l = context;
    size_t i = request->sampling.seed;
    struct ts_json *doc = l->results[i] = ts_json_new_object();
    put_text(doc, "request_id", ts_str_of(l->batch.items[i].request_id ? l->batch.items[i].request_id : ""));
    ts_json_put_integer(doc, "prompt_tokens", request->prompt_count);
    ts_json_put_integer(doc, "output_tokens", o->token_count);
    put_text(doc, "finish_reason", ts_str_of(ts_finish_name(o->finish)));
    put_text(doc, "reason", ts_str_of(ts_reason_name(o->reason)));
    put_ms(doc, "ttft_ms", o->metrics.ttft_ns);
    put_ms(doc, "tpot_ms", o->metrics.tpot_ns);
    put_ms(doc, "gap01_ms", o->metrics.gap01_ns);
    put_ms(doc, "max_gap_ms", o->metrics.gap_max_ns);
    put_text(doc, "prefill", o->trace ? o->trace->prefill : ts_str_of(""));
    put_text(doc, "relay", o->trace ? o->trace->relay : ts_str_of(""));
    put_text(doc, "decode", o->trace ? o->trace->decode : ts_str_of(""));
}

/* By at_ms, then as in the file; files are in order, or nearly so. */
static enum ts_status put_in_order(struct local *l, struct ts_error *err)
{
    l->order = ts_xcalloc(l->batch.count + 1, sizeof *l->order);
    l->results = ts_xcalloc(l->batch.count + 1, sizeof *l->results);
    for (size_t i = 0, at; i < l->batch.count; i++) {
        if (!l->batch.items[i].ids)
            return ts_error_set(err, TS_EINVAL,
                                "%s line %zu: only prompts of token ids can be simulated: give \"tokens\"",
                                l->flags.requests, i + 1);
        for (at = i; at > 0 && l->batch.items[l->order[at - 1]].at_ms > l->batch.items[i].at_ms; at--)
            l->order[at] = l->order[at - 1];
        l->order[at] = i;
    }
    return TS_OK;
}

static enum ts_status build(struct local *l, struct ts_error *err)
{
    struct cloud_settings c = cloud_settings_defaults();
    struct ts_sim_model device;
    const struct local_flags *f = &l->flags;
    enum ts_status status = ts_sim_model_load(f->modelled_conf, &device, err);
    if (status != TS_OK)
        return status;
    c.seed = f->seed;
    c.device_conf = f->modelled_conf;
    c.codec_bytes_per_s = 1e12; /* modelled KV is declared, not moved */
    c.network.bytes_per_s = 1e12;
    c.network.latency_min = f->message_us * TS_US / 2;
    c.network.latency_mean = f->message_us * TS_US - c.network.latency_min;
    if ((status = cloud_new(&c, &l->cloud, err)) != TS_OK)
        return status;
    struct router_settings router = router_conf_settings(&l->router, 0);
    if (*f->codec)
        router.codec = f->codec;
    cloud_add_router(l->cloud, &router);
    for (uint32_t i = 0; i < f->planner; i++) {
        struct planner_settings s = l->planner.settings;
        s.id = name_of(l, "planner", i);
        cloud_add_planner(l->cloud, &s);
    }
    size_t relays = l->name_count;
    for (uint32_t i = 0; i < f->relay; i++) {
        struct relay_settings s = l->relay.settings;
        s.id = name_of(l, "relay", i);
        cloud_add_relay(l->cloud, &s);
    }
    for (uint32_t i = 0; i < f->decode; i++)
        add_worker(l, &l->decode, &device, TS_PHASE_DECODE, name_of(l, "decode", i),
                   l->names[relays + i % f->relay]);
    for (uint32_t i = 0; i < f->prefill; i++)
        add_worker(l, &l->prefill, &device, TS_PHASE_PREFILL, name_of(l, "prefill", i),
                   l->names[relays + i % f->relay]);
    struct cloud_source source = {.context = l, .next = next_request, .ended = take_end};
    l->client = cloud_add_source(l->cloud, "client", &source);
    return TS_OK;
}

static void print_all(const struct local *l)
{
    for (size_t i = 0; i < l->batch.count; i++) {
        char *text = ts_json_dump(l->results[i], false);
        puts(text);
        ts_free(text);
    }
}

static enum ts_status simulate(struct local *l, struct ts_error *err)
{
    const struct tsctl_request base = {.requests = l->flags.requests, .prompt = "", .max_tokens = 128};
    enum ts_status status = load_services(l, err);
    if (status == TS_OK)
        status = tsctl_batch_load(&base, &l->batch, err);
    if (status == TS_OK)
        status = put_in_order(l, err);
    if (status == TS_OK)
        status = build(l, err);
    for (ts_time until = READY_AT; status == TS_OK && !cloud_source_over(l->client); until += TS_S)
        status = cloud_run(l->cloud, until, err);
    if (status == TS_OK)
        print_all(l);
    return status;
}

static void destroy(struct local *l)
{
    cloud_destroy(&l->cloud);
    for (size_t i = 0; l->results && i < l->batch.count; i++)
        ts_json_destroy(&l->results[i]);
    ts_free(l->results);
    ts_free(l->order);
    tsctl_batch_free(&l->batch);
    router_conf_free(&l->router);
    planner_conf_free(&l->planner);
    ts_conf_destroy(&l->relay.conf);
    ts_conf_destroy(&l->prefill.conf);
    ts_conf_destroy(&l->decode.conf);
}

int tsctl_simulate_local(int argc, char **argv)
{
    struct local l = {.cloud = NULL};
    struct ts_conf *conf = NULL;
    struct ts_error err = {0};
    int code = 0;
    if (argc < 2 || strncmp(argv[1], "--", 2) == 0)
        return tsctl_fail("simulate local", 2,
                          "usage: tsctl simulate local CONF --requests FILE [flags of tsctl up]");
    char **shifted = ts_xcalloc((size_t)argc + 2, sizeof *shifted);
    shifted[0] = argv[0];
    shifted[1] = (char *)"--config";
    for (int i = 1; i < argc; i++)
        shifted[i + 1] = argv[i];
    l.flags.conf_path = argv[1];
    /* the group of the file is that of `tsctl up`: the cluster is the same */
    switch (
        ts_conf_load("up", options, TS_ARRAY_SIZE(options), argc + 1, shifted, &l.flags, NULL, &conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        code = tsctl_fail("simulate local", 2, err.text);
        break;
    case TS_CONF_RUN:
        l.flags.conf_path = argv[1];
        if (!*l.flags.requests)
            code =
                tsctl_fail("simulate local", 2, "no requests: give --requests FILE, one JSON request a line");
        else if (*l.flags.codec && ts_codec_check_option(l.flags.codec, &err) != TS_OK)
            code = tsctl_fail("simulate local", 2, err.text);
        else if (simulate(&l, &err) != TS_OK)
            code = tsctl_fail("simulate local", 1, err.text);
        break;
    }
    destroy(&l);
    ts_conf_destroy(&conf);
    ts_free(shifted);
    return code;
}
