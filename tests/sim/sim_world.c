#include "tests/sim/sim_world.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define NODES_MAX    16
#define CLIENTS_MAX  3
#define REQUESTS_MAX 64
#define PROMPT_MAX   160
#define OUTPUT_MAX   120
#define FAULTS_UNTIL (20 * TS_S)
#define PATIENCE     (25 * TS_S) /* without progress while there is work */
#define LATEST       (300 * TS_S)

struct expectation {
    struct cloud_request request;
    uint32_t tokens[OUTPUT_MAX];
    uint32_t count, seen;
    enum ts_finish finish;
    bool counted;
};

struct world {
    struct sim_options options;
    struct sim_result result;
    struct ts_rng rng;
    struct cloud *cloud;
    bool faulty, router_dies, fickle; /* fickle: clients that cancel a lot */
    char names[NODES_MAX][40];
    size_t name_count;
    struct cloud_node *router, *clients[CLIENTS_MAX];
    struct cloud_node *services[NODES_MAX]; /* all that may be killed */
    size_t client_count, service_count;
    struct expectation expected[CLIENTS_MAX][REQUESTS_MAX];
    uint32_t prompt[PROMPT_MAX];
    struct ts_map *traced; /* client, request -> the world */
    ts_time progress_at;
};

static uint32_t draw(struct world *w, uint32_t from, uint32_t to)
{
    return from + (uint32_t)ts_rng_below(&w->rng, to - from + 1);
}

static bool one_in(struct world *w, uint32_t n)
{
    return ts_rng_below(&w->rng, n) == 0;
}

static const char *name(struct world *w, const char *kind, size_t number)
{
    char *text = w->names[w->name_count++];
    TS_ASSERT(w->name_count <= NODES_MAX);
    snprintf(text, sizeof w->names[0], "%s%zu", kind, number);
    return text;
}

/* --- what is drawn ----------------------------------------------------------------------------------- */

static void add_router(struct world *w)
{
    struct router_settings s = router_settings_defaults();
    if (w->faulty && one_in(w, 4))
        s.queue_max = draw(w, 4, 16);
    if (w->faulty && one_in(w, 8))
        s.per_client_max = draw(w, 2, 8);
    if (w->faulty && one_in(w, 8))
        s.held_bytes_max = draw(w, 2, 8) << 10;
    if (w->faulty && one_in(w, 8))
        s.max_attempts = draw(w, 1, 8);
    if (!w->faulty && one_in(w, 2))
        s.ended_keep_count = draw(w, 0, 4);
    if (one_in(w, 3))
        s.prefill_inflight_max = draw(w, 1, 8);
    if (one_in(w, 3))
        s.decode_inflight_max = draw(w, 2, 16);
    w->router = cloud_add_router(w->cloud, &s);
}

static void add_worker(struct world *w, enum ts_phase phase, size_t number, const char *relay)
{
    struct worker_settings s = worker_settings_defaults();
    s.id = name(w, phase == TS_PHASE_DECODE ? "decode" : "prefill", number);
    s.max_rows = draw(w, 2, 32);
    s.max_batch_tokens = draw(w, s.max_rows > 16 ? s.max_rows : 16, 256);
    s.grant_wait_ms = draw(w, 1, 10) * 1000;
    if (one_in(w, 4))
        s.router_lost_ms = draw(w, 200, 5000);
    if (one_in(w, 3))
        s.credit_bytes = draw(w, 1, 64) << 10;
    uint32_t need = ts_kv_blocks_for(PROMPT_MAX + OUTPUT_MAX) + 1;
    uint32_t blocks = one_in(w, 2) ? draw(w, need, 2 * need) : draw(w, 4 * need, 16 * need);
    w->services[w->service_count++] = cloud_add_worker(w->cloud, &s, phase, blocks, relay);
}

static void add_services(struct world *w)
{
    size_t relays = draw(w, 1, 2), prefills = draw(w, 1, 3), decodes = draw(w, 1, 3),
           planners = draw(w, 1, 2);
    const char *relay_names[2];
    bool tight = one_in(w, 3); /* little room for encoded KV: a worker of both phases could wait for itself */
    for (size_t i = 0; i < planners; i++) {
        struct planner_settings s = planner_settings_defaults();
        s.id = name(w, "planner", i);
        w->services[w->service_count++] = cloud_add_planner(w->cloud, &s);
    }
    for (size_t i = 0; i < relays; i++) {
        struct relay_settings s = relay_settings_defaults();
        s.id = relay_names[i] = name(w, "relay", i);
        s.chunk_tokens_max = draw(w, 1, 8) * 16;
        s.encode_jobs_max = draw(w, 1, 4);
        if (one_in(w, 3))
            s.idle_link_ms = draw(w, 1, 2000);
        if (tight)
            s.encoded_bytes_max = draw(w, 8, 64) << 10;
        s.retained_bytes_max = s.encoded_bytes_max / 4;
        w->services[w->service_count++] = cloud_add_relay(w->cloud, &s);
    }
    for (size_t i = 0; i < prefills; i++)
        add_worker(w, !tight && one_in(w, 8) ? TS_PHASE_BOTH : TS_PHASE_PREFILL, i, relay_names[i % relays]);
    for (size_t i = 0; i < decodes; i++)
        add_worker(w, TS_PHASE_DECODE, i, NULL);
}

static struct cloud_request draw_request(struct world *w, ts_time within)
{
    static const char *const codecs[] = {NULL, "none", "i4"};
    uint32_t count = one_in(w, 3) ? draw(w, 1, 20) : draw(w, 16, PROMPT_MAX);
    for (uint32_t i = 0; i < count; i++)
        w->prompt[i] = draw(w, 0, 1023);
    struct cloud_request r = {.prompt = w->prompt,
                              .prompt_count = count,
                              .sampling = ts_sampling_defaults(),
                              .cancel_at = TS_TIME_NEVER};
    r.at = (ts_time)(ts_rng_unit(&w->rng) * (double)within);
    r.codec = codecs[draw(w, 0, 2)];
    r.sampling.seed = ts_rng_u64(&w->rng);
    r.sampling.max_tokens = one_in(w, 8) ? 1 : draw(w, 1, OUTPUT_MAX);
    r.sampling.ignore_eos = one_in(w, 2);
    r.sampling.repetition_penalty = one_in(w, 4) ? 1.5f : 1;
    r.sampling.given = TS_SAMPLING_REPETITION_PENALTY;
    r.sampling.logprobs = one_in(w, 4) ? draw(w, 1, 3) : 0;
    if (one_in(w, w->fickle ? 2 : 10))
        r.cancel_at = r.at + (ts_time)(ts_rng_unit(&w->rng) * (w->fickle ? 3e8 : 2e9));
    if (one_in(w, 10))
        r.deadline_ms = draw(w, 1, 4000);
    if (one_in(w, 5))
        r.reattach_ms = draw(w, 1, 20000);
    return r;
}

static void add_clients(struct world *w)
{
    w->client_count = draw(w, 1, CLIENTS_MAX);
    for (size_t c = 0; c < w->client_count; c++) {
        uint32_t count = draw(w, 1, one_in(w, 4) ? REQUESTS_MAX : 16);
        ts_time within = one_in(w, 2) ? draw(w, 10, 500) * TS_MS : draw(w, 1, 15) * TS_S;
        w->clients[c] = cloud_add_client(w->cloud, name(w, "client", c));
        for (uint32_t i = 0; i < count; i++) {
            struct cloud_request r = draw_request(w, within);
            struct expectation *e = &w->expected[c][i];
            e->count = cloud_expected(w->cloud, &r, e->tokens, &e->finish);
            e->request = r;
            cloud_client_ask(w->clients[c], &r);
            w->result.requests++;
        }
        for (ts_time at = 0; w->faulty && one_in(w, 2) && at < 15 * TS_S;) {
            ts_time from = at + draw(w, 100, 8000) * TS_MS;
            at = from + draw(w, 10, 12000) * TS_MS;
            cloud_client_leave(w->clients[c], from, at);
        }
    }
}

static void kill_node(void *context)
{
    cloud_kill(context);
}

static void drain_node(void *context)
{
    cloud_drain(context);
}

/* An operator drains a service through the router, and asks this and that. */
static void drain_by_router(void *context)
{
    struct cloud_node *node = context, *router = cloud_node_at(cloud_of(node), 0);
    struct ts_msg status = {.kind = TS_MSG_STATUS, .status = {.id = 1}};
    struct ts_msg why = {.kind = TS_MSG_WHY};
    struct ts_msg drain = {.kind = TS_MSG_DRAIN, .drain = {.service = ts_str_of(cloud_node_id(node))}};
    why.why = (struct ts_msg_why){.id = 2, .client = ts_str_of("client0"), .request_id = ts_str_of("r0")};
    cloud_admin(router, &drain);
    cloud_admin(router, &status);
    cloud_admin(router, &why);
}

/* One draw in a statement: compilers evaluate arguments in orders of their own, and seeds must mean the same.
 */
static void befall(struct world *w, uint32_t until_ms, void (*what)(void *node))
{
    struct cloud_node *node = w->services[draw(w, 0, (uint32_t)w->service_count - 1)];
    uint32_t at_ms = draw(w, 5, until_ms);
    cloud_at(w->cloud, at_ms * TS_MS, what, node);
}

static void add_faults(struct world *w)
{
    uint32_t until_ms = one_in(w, 2) ? 2000 : 15000;
    for (uint32_t i = w->router_dies ? draw(w, 1, 2) : 0; i > 0; i--)
        cloud_at(w->cloud, draw(w, 5, until_ms) * TS_MS, kill_node, w->router);
    for (uint32_t i = draw(w, 0, one_in(w, 4) ? 16 : 4); i > 0; i--)
        befall(w, until_ms, kill_node);
    for (uint32_t i = draw(w, 0, 3); i > 0; i--)
        befall(w, until_ms, i % 2 ? drain_node : drain_by_router);
}

static double chance(struct world *w, double most)
{
    return one_in(w, 2) ? 0 : ts_rng_unit(&w->rng) * most;
}

static struct cloud_network draw_network(struct world *w)
{
    struct cloud_network n = cloud_settings_defaults().network;
    n.latency_min = draw(w, 1, 200) * TS_US;
    n.latency_mean = draw(w, 1, one_in(w, 4) ? 5000 : 200) * TS_US;
    n.bytes_per_s = one_in(w, 2) ? 1.25e9 : 5e6;
    if (!w->faulty)
        return n;
    n.faults_until = FAULTS_UNTIL;
    double harsh = one_in(w, 4) ? 10 : 1;
    n.cut = chance(w, 0.002 * harsh);
    n.loss = chance(w, 0.001 * harsh);
    n.gap = chance(w, 0.002 * harsh);
    n.stall = chance(w, 0.002 * harsh);
    n.refuse = chance(w, 0.001 * harsh);
    n.corrupt = chance(w, one_in(w, 4) ? 0.6 : 0.1);
    return n;
}

/* --- invariants -------------------------------------------------------------------------------------- */

static bool in_bounds(struct cloud_node *node, struct ts_error *err)
{
    void *core = cloud_node_core(node);
    switch (cloud_node_kind(node)) {
    case CLOUD_ROUTER:
        return router_core_check(core, err);
    case CLOUD_PLANNER:
        return planner_core_check(core, err);
    case CLOUD_WORKER:
        return worker_core_check(core, err);
    case CLOUD_RELAY:
        return relay_core_check(core, err);
    case CLOUD_CLIENT:
    case CLOUD_PUBLISHER:
        break;
    }
    return true;
}

/* A router holds the prompts of what is under way, a relay what it has encoded (for transfers, and as copies
 * of verified ones), the others nothing between two steps. */
static bool handles_ok(struct cloud_node *node)
{
    size_t held = cloud_node_handles(node);
    struct router_counts counts;
    switch (cloud_node_kind(node)) {
    case CLOUD_ROUTER:
        counts = router_core_counts(cloud_node_core(node));
        return held == counts.accepted - counts.ended;
    case CLOUD_RELAY:
        return held == relay_core_handles(cloud_node_core(node));
    default:
        return held == 0;
    }
}

static void check_trace(struct world *w, const struct ts_trace *trace)
{
    char key[96]; /* a router that died may have ended it, and nobody heard of it */
    int bytes =
        snprintf(key, sizeof key, "%.*s/%.*s/%016llx", (int)trace->client.count, trace->client.data,
                 (int)trace->request_id.count, trace->request_id.data, (unsigned long long)trace->rid.router);
    if (ts_map_put(w->traced, key, (size_t)bytes, w))
        cloud_fail(w->cloud, "request %s ends twice", key);
}

static bool allowed_end(const struct world *w, const struct expectation *e, const struct cloud_outcome *o)
{
    switch (o->finish) {
    case TS_FINISH_STOP:
    case TS_FINISH_LENGTH:
        return o->finish == e->finish && o->token_count == e->count;
    case TS_FINISH_CANCELLED:
        return e->request.cancel_at != TS_TIME_NEVER || (w->faulty && o->reason == TS_REASON_CLIENT_LOST);
    case TS_FINISH_DEADLINE:
        return e->request.deadline_ms > 0;
    case TS_FINISH_ERROR:
        if (o->refused)
            return w->faulty && (o->reason == TS_REASON_QUEUE_FULL || o->reason == TS_REASON_CLIENT_LIMIT ||
                                 o->reason == TS_REASON_MEMORY_FULL);
        return (e->finish == TS_FINISH_ERROR && o->reason == TS_REASON_PROMPT_TOO_LONG) ||
               (w->faulty && (o->reason == TS_REASON_RETRIES || o->reason == TS_REASON_NO_WORKER)) ||
               (e->request.cancel_at != TS_TIME_NEVER && o->reason == TS_REASON_NOT_FOUND);
    default:
        return false;
    }
}

static void count_end(struct world *w, struct expectation *e, const struct cloud_outcome *o)
{
    struct sim_result *r = &w->result;
    e->counted = true;
    r->completed += o->finish == TS_FINISH_STOP || o->finish == TS_FINISH_LENGTH;
    r->cancelled += o->finish == TS_FINISH_CANCELLED;
    r->late += o->finish == TS_FINISH_DEADLINE;
    r->failed += o->finish == TS_FINISH_ERROR && !o->refused;
    r->refused += o->refused;
}

static void check_client(struct world *w, struct cloud_node *node)
{
    size_t c = 0;
    while (w->clients[c] != node)
        c++;
    for (size_t i = 0; i < cloud_client_count(node); i++) {
        struct expectation *e = &w->expected[c][i];
        struct cloud_outcome o = cloud_client_outcome(node, i);
        for (; e->seen < o.token_count; e->seen++) {
            if (e->seen >= e->count || o.tokens[e->seen] != e->tokens[e->seen])
                cloud_fail(w->cloud, "%s r%zu: token %u is %u, expected %u", cloud_node_id(node), i, e->seen,
                           o.tokens[e->seen], e->seen < e->count ? e->tokens[e->seen] : 0);
        }
        if (!o.ended || e->counted)
            continue;
        count_end(w, e, &o);
        if ((o.token_count > 0) != (o.metrics.ttft_ns > 0) || o.metrics.tpot_ns > o.metrics.gap_max_ns)
            cloud_fail(w->cloud, "%s r%zu has a TTFT of %lld ns and a TPOT of %lld ns after %u tokens",
                       cloud_node_id(node), i, (long long)o.metrics.ttft_ns, (long long)o.metrics.tpot_ns,
                       o.token_count);
        if (!allowed_end(w, e, &o))
            cloud_fail(w->cloud, "%s r%zu ends with %s %s after %u of %u tokens", cloud_node_id(node), i,
                       ts_finish_name(o.finish), ts_reason_name(o.reason), o.token_count, e->count);
    }
}

static void note_actions(struct world *w, const struct ts_actions *actions)
{
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_TRACE)
            check_trace(w, &a->trace.trace);
        if (a->kind == TS_ACTION_TRACE || (a->kind == TS_ACTION_SEND && a->send.msg.kind == TS_MSG_OUTPUT))
            w->progress_at = cloud_now(w->cloud);
    }
}

/* One line for the event, one for each action. */
static void print_step(struct world *w, struct cloud_node *node, const struct ts_event *event,
                       const struct ts_actions *actions)
{
    char line[4096];
    ts_schema_print(&ts_event_schema, event, line, sizeof line);
    printf("%.6f %s <- %s\n", (double)cloud_now(w->cloud) / 1e9, cloud_node_id(node), line);
    for (size_t i = 0; i < actions->count; i++) {
        ts_schema_print(&ts_action_schema, &actions->items[i], line, sizeof line);
        printf("%.6f %s -> %s\n", (double)cloud_now(w->cloud) / 1e9, cloud_node_id(node), line);
    }
}

static void stepped(void *context, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    struct world *w = context;
    struct ts_error err = {0};
    if (w->options.trace)
        print_step(w, node, event, actions);
    note_actions(w, actions);
    if (!in_bounds(node, &err))
        cloud_fail(w->cloud, "%s: %s", cloud_node_id(node), err.text);
    if (cloud_node_kind(node) == CLOUD_RELAY && relay_core_counts(cloud_node_core(node)).credits_missing > 0)
        cloud_fail(w->cloud, "%s: a transfer is done before its credit is back", cloud_node_id(node));
    if (!handles_ok(node))
        cloud_fail(w->cloud, "%s holds %zu handles", cloud_node_id(node), cloud_node_handles(node));
    if (cloud_node_kind(node) == CLOUD_CLIENT)
        check_client(w, node);
    if (node != w->router)
        return;
    if (router_core_idle(cloud_node_core(node)))
        w->progress_at = cloud_now(w->cloud);
    else if (cloud_now(w->cloud) - w->progress_at > PATIENCE)
        cloud_fail(w->cloud, "no request advances, though there is work");
}

static bool before(void *context, struct cloud_node *node, struct ts_action *action)
{
    const struct world *w = context;
    return !w->options.before || w->options.before(w->options.context, node, action);
}

/* --- the run ----------------------------------------------------------------------------------------- */

static bool all_ended(const struct world *w)
{
    for (size_t c = 0; c < w->client_count; c++) {
        for (size_t i = 0; i < cloud_client_count(w->clients[c]); i++) {
            if (!cloud_client_outcome(w->clients[c], i).ended)
                return false;
        }
    }
    return true;
}

static bool at_rest(struct cloud_node *node)
{
    void *core = cloud_node_core(node);
    switch (cloud_node_kind(node)) {
    case CLOUD_ROUTER:
        return router_core_idle(core);
    case CLOUD_PLANNER:
        return planner_core_idle(core);
    case CLOUD_WORKER:
        return worker_core_idle(core) && worker_core_blocks_used(core) == 0;
    case CLOUD_RELAY:
        return relay_core_idle(core) && relay_core_copies(core) == 0;
    case CLOUD_CLIENT:
    case CLOUD_PUBLISHER:
        break;
    }
    return true;
}

static void check_rest(struct world *w)
{
    for (size_t i = 0; i < cloud_node_count(w->cloud); i++) {
        struct cloud_node *node = cloud_node_at(w->cloud, i);
        if (!cloud_node_alive(node))
            cloud_fail(w->cloud, "%s did not come back", cloud_node_id(node));
        else if (!at_rest(node) || cloud_node_handles(node) > 0)
            cloud_fail(w->cloud, "%s is not at rest: %zu handles, %u blocks used", cloud_node_id(node),
                       cloud_node_handles(node),
                       cloud_node_kind(node) == CLOUD_WORKER ? worker_core_blocks_used(cloud_node_core(node))
                                                             : 0);
    }
}

static void collect(struct world *w)
{
    struct sim_result *r = &w->result;
    for (size_t i = 0; i < w->service_count; i++) {
        if (cloud_node_kind(w->services[i]) == CLOUD_WORKER && cloud_node_alive(w->services[i]))
            r->preempted += worker_core_counts(cloud_node_core(w->services[i])).preempted;
    }
    for (size_t i = 0; i < w->service_count; i++) {
        if (cloud_node_kind(w->services[i]) == CLOUD_RELAY && cloud_node_alive(w->services[i]))
            r->refeeds += relay_core_counts(cloud_node_core(w->services[i])).refeeds;
    }
    if (cloud_node_alive(w->router)) {
        struct router_counts counts = router_core_counts(cloud_node_core(w->router));
        r->retries = counts.retries;
        r->resyncs = counts.resyncs;
    }
    r->digest = cloud_digest(w->cloud);
    r->steps = cloud_steps(w->cloud);
    r->counts = cloud_counts(w->cloud);
    r->virtual_s = (double)cloud_now(w->cloud) / 1e9;
}

static void drain(struct cloud_node *node)
{
    cloud_restart_stopped(node, false);
    cloud_drain(node);
}

/* Work, rest, an orderly end. */
static enum ts_status play(struct world *w, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    ts_time at = w->faulty ? FAULTS_UNTIL : TS_S;
    while ((status = cloud_run(w->cloud, at, err)) == TS_OK && !all_ended(w)) {
        at += 100 * TS_MS;
        if (at > LATEST)
            return ts_error_set(err, TS_ETIMEOUT, "not every request has ended after %.0f s",
                                (double)LATEST / 1e9);
    }
    if (status == TS_OK)
        status = cloud_run(w->cloud, cloud_now(w->cloud) + 10 * TS_S, err);
    if (status != TS_OK)
        return status;
    check_rest(w);
    collect(w);
    for (size_t i = 0; i < w->service_count; i++)
        drain(w->services[i]);
    status = cloud_run(w->cloud, cloud_now(w->cloud) + TS_S, err);
    drain(w->router);
    if (status == TS_OK)
        status = cloud_run(w->cloud, cloud_now(w->cloud) + TS_S, err);
    for (size_t i = 0; status == TS_OK && i < cloud_node_count(w->cloud); i++) {
        struct cloud_node *node = cloud_node_at(w->cloud, i);
        if (cloud_node_kind(node) != CLOUD_CLIENT && cloud_node_alive(node))
            status = ts_error_set(err, TS_ECORRUPT, "%s does not stop after a drain", cloud_node_id(node));
    }
    return status;
}

struct sim_result sim_run(const struct sim_options *options)
{
    struct world *w = ts_xcalloc(1, sizeof *w);
    struct ts_error err = {0};
    struct cloud_settings settings = cloud_settings_defaults();
    w->options = *options;
    ts_rng_init(&w->rng, options->seed);
    w->faulty = !options->calm;
    w->fickle = one_in(w, 3);
    w->router_dies = w->faulty && one_in(w, 8);
    w->traced = ts_map_new();
    settings.seed = ts_rng_u64(&w->rng);
    settings.device_conf = options->device_conf;
    settings.context_tokens = one_in(w, 4) ? draw(w, PROMPT_MAX - 16, PROMPT_MAX + 64) : 512;
    settings.blocks_stay = !w->faulty;
    if (one_in(w, 2))
        settings.codec_bytes_per_s = draw(w, 1, 100) * 1e6;
    settings.engine_fault = w->faulty ? chance(w, 0.02) : 0;
    settings.codec_fault = w->faulty ? chance(w, 0.02) : 0;
    settings.network = draw_network(w);
    settings.hooks = (struct cloud_hooks){.context = w, .stepped = stepped, .before = before};
    enum ts_status status = cloud_new(&settings, &w->cloud, &err);
    if (status == TS_OK) {
        add_router(w);
        add_services(w);
        add_clients(w);
        if (w->faulty)
            add_faults(w);
        status = play(w, &err);
        if (status != TS_OK)
            collect(w);
    }
    struct sim_result result = w->result;
    result.ok = status == TS_OK;
    snprintf(result.why, sizeof result.why, "%s", err.text);
    cloud_destroy(&w->cloud);
    ts_map_destroy(&w->traced);
    ts_free(w);
    return result;
}
