/* A script becomes a cloud, is played to its end, to rest, and to an orderly stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "tests/sim/sim_impl.h"

#define LATEST (150 * TS_S)
#define FAST   TS_TEST_DATA "/../../conf/devices/modelled.json"
#define SLOW   TS_TEST_DATA "/devices/slow.json"

/* One line for the event, one for each action. */
static void print_step(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                       const struct ts_actions *actions)
{
    char line[4096], text[4200];
    ts_schema_print(&ts_event_schema, event, line, sizeof line);
    snprintf(text, sizeof text, "%.6f %s <- %s", (double)cloud_now(w->cloud) / 1e9, cloud_node_id(node),
             line);
    w->options->line(w->options->context, text);
    for (size_t i = 0; i < actions->count; i++) {
        ts_schema_print(&ts_action_schema, &actions->items[i], line, sizeof line);
        snprintf(text, sizeof text, "%.6f %s -> %s", (double)cloud_now(w->cloud) / 1e9, cloud_node_id(node),
                 line);
        w->options->line(w->options->context, text);
    }
}

static void stepped(void *context, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    struct sim_world *w = context;
    if (w->options->line)
        print_step(w, node, event, actions);
    if (!w->result->node[0]) {
        sim_check_step(w, node, event, actions);
        if (cloud_failed(w->cloud))
            snprintf(w->result->node, sizeof w->result->node, "%s", cloud_node_id(node));
    }
}

static bool before(void *context, struct cloud_node *node, struct ts_action *action)
{
    struct sim_world *w = context;
    sim_alter(w, node, action);
    if (w->options->before && !w->options->before(w->options->context, node, action))
        return false;
    sim_session_sent(w, node, action);
    return true;
}

static bool kept(const bool *mask, uint32_t i)
{
    return !mask || mask[i];
}

/* What the faults of a request make of it. */
static struct sim_request effective(const struct sim_world *w, uint32_t number)
{
    struct sim_request r = w->script.requests[number];
    for (uint32_t i = 0; i < w->script.fault_count; i++) {
        const struct sim_fault *f = &w->script.faults[i];
        if (!kept(w->options->faults, i) || f->node != number)
            continue;
        if (f->kind == SIM_CANCEL)
            r.cancel_at = f->at;
        if (f->kind == SIM_DEADLINE)
            r.deadline_ms = f->amount;
    }
    return r;
}

static void add_request(struct sim_world *w, uint32_t number)
{
    uint32_t prompt[SIM_PROMPT_MAX];
    const struct sim_request r = effective(w, number);
    struct sim_ask *ask = &w->asks[number];
    if (!kept(w->options->requests, number) || (r.burst && !kept(w->options->faults, r.burst - 1)))
        return;
    sim_prompt(&r, prompt);
    struct cloud_request sent = {.at = r.at,
                                 .prompt = prompt,
                                 .prompt_count = r.prompt_count,
                                 .sampling = r.sampling,
                                 .deadline_ms = r.deadline_ms,
                                 .reattach_ms = r.reattach_ms,
                                 .codec = r.codec,
                                 .cancel_at = r.cancel_at};
    ask->request = &w->script.requests[number];
    ask->asked = true;
    ask->client = r.client;
    ask->bytes = r.prompt_count * 4;
    ask->count = cloud_expected(w->cloud, &sent, ask->tokens, &ask->finish);
    ask->number = (uint32_t)cloud_client_ask(w->clients[r.client], &sent);
    ask->as_sent = sent;
    ask->as_sent.prompt = NULL;
    w->of_client[r.client][w->client_asks[r.client]++] = number;
    w->result->requests++;
}

/* Absences of one client, in order, none within another. */
static void add_absences(struct sim_world *w, uint32_t client)
{
    ts_time from = 0;
    for (;;) {
        const struct sim_fault *next = NULL;
        for (uint32_t i = 0; i < w->script.fault_count; i++) {
            const struct sim_fault *f = &w->script.faults[i];
            if (f->kind == SIM_ABSENCE && f->node == SIM_CLIENT + client && f->at > from &&
                kept(w->options->faults, i) && (!next || f->at < next->at))
                next = f;
        }
        if (!next)
            return;
        cloud_client_leave(w->clients[client], next->at, next->at + next->lasts);
        from = next->at + next->lasts;
    }
}

static void build(struct sim_world *w)
{
    static const char *const client_ids[SIM_CLIENTS_MAX] = {"client0", "client1", "client2"};
    w->router = cloud_add_router(w->cloud, &w->script.router);
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (!w->script.nodes[i].joins)
            sim_add_node(w, i);
    }
    for (uint32_t c = 0; c < w->script.client_count; c++) {
        w->clients[c] = cloud_add_client(w->cloud, client_ids[c]);
        add_absences(w, c);
    }
    for (uint32_t i = 0; i < w->script.request_count; i++)
        add_request(w, i);
    sim_faults_start(w);
}

static void collect(struct sim_world *w)
{
    struct sim_result *r = w->result;
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] && w->script.nodes[i].kind == CLOUD_WORKER && cloud_node_alive(w->nodes[i]))
            r->preempted += worker_core_counts(cloud_node_core(w->nodes[i])).preempted;
    }
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] && w->script.nodes[i].kind == CLOUD_RELAY && cloud_node_alive(w->nodes[i]))
            r->refeeds += relay_core_counts(cloud_node_core(w->nodes[i])).refeeds;
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

static enum ts_status stop_all(struct sim_world *w, struct ts_error *err)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i])
            drain(w->nodes[i]);
    }
    enum ts_status status = cloud_run(w->cloud, cloud_now(w->cloud) + TS_S, err);
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

/* Work, rest, an orderly end. */
static enum ts_status play(struct sim_world *w, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    ts_time at = w->script.faults_end > TS_S ? w->script.faults_end : TS_S;
    while ((status = cloud_run(w->cloud, at, err)) == TS_OK && !sim_all_ended(w)) {
        at += 100 * TS_MS;
        if (at > LATEST)
            return ts_error_set(err, TS_ETIMEOUT, "not every request has ended after %.0f s",
                                (double)LATEST / 1e9);
    }
    if (status == TS_OK && w->last_fault > cloud_now(w->cloud))
        status = cloud_run(w->cloud, w->last_fault, err);
    if (status == TS_OK)
        status = cloud_run(w->cloud, cloud_now(w->cloud) + 10 * TS_S, err);
    if (status != TS_OK)
        return status;
    sim_check_rest(w);
    collect(w);
    return stop_all(w, err);
}

static void free_world(struct sim_world *w)
{
    for (struct sim_fault_call *c = w->calls, *next; c; c = next) {
        next = *(struct sim_fault_call **)(void *)c;
        ts_free(c);
    }
    cloud_destroy(&w->cloud);
    sim_sessions_free(w);
    sim_worker_books_free(w);
    sim_relay_books_free(w);
    ts_map_destroy(&w->traced);
    ts_free(w);
}

void sim_run(const struct sim_options *options, struct sim_result *out)
{
    struct sim_world *w = ts_xcalloc(1, sizeof *w);
    struct ts_error err = {0};
    *out = (struct sim_result){.ok = false};
    w->options = options;
    w->result = out;
    w->script.calm = options->calm;
    sim_script_draw(&w->script, options->seed, FAST, SLOW);
    w->faulty = !w->script.calm;
    ts_rng_init(&w->rng, ts_splitmix64(options->seed + 3));
    w->traced = ts_map_new();
    w->sessions = ts_map_new();
    w->transfers = ts_map_new();
    w->jobs = ts_map_new();
    w->receipts = ts_map_new();
    struct cloud_settings settings = w->script.cloud;
    settings.checks = true;
    settings.undigested = options->undigested;
    settings.hooks =
        (struct cloud_hooks){.context = w, .fate = sim_fate, .stepped = stepped, .before = before};
    enum ts_status status = cloud_new(&settings, &w->cloud, &err);
    if (status == TS_OK) {
        build(w);
        status = play(w, &err);
        if (status != TS_OK)
            collect(w);
    }
    out->ok = status == TS_OK;
    snprintf(out->why, sizeof out->why, "%s", err.text);
    free_world(w);
}

void sim_add(struct sim_result *sum, const struct sim_result *one)
{
    const uint64_t *from = (const uint64_t *)&one->counts; /* plain numbers, all of them */
    uint64_t *to = (uint64_t *)&sum->counts;
    sum->steps += one->steps;
    sum->requests += one->requests;
    sum->faults += one->faults;
    sum->completed += one->completed;
    sum->cancelled += one->cancelled;
    sum->late += one->late;
    sum->failed += one->failed;
    sum->refused += one->refused;
    sum->retries += one->retries;
    sum->resyncs += one->resyncs;
    sum->preempted += one->preempted;
    sum->refeeds += one->refeeds;
    sum->virtual_s += one->virtual_s;
    for (size_t i = 0; i < sizeof one->counts / sizeof *from; i++)
        to[i] += from[i];
    for (uint32_t k = 0; k < SIM_FAULT_KIND_COUNT; k++) {
        sum->matrix.happened[k] += one->matrix.happened[k];
        for (uint32_t s = 0; s < SIM_STATE_COUNT; s++)
            sum->matrix.met[k][s] += one->matrix.met[k][s];
    }
}
