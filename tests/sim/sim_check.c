/*
 * What holds after every step, seen from outside of the cores: streams at clients, ends and their reasons,
 * handles, progress, rest.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_impl.h"

#define STEPS_MAX 400000
#define PATIENCE  (36 * TS_S) /* without progress while there is work: longer than it may wait for workers */

struct sim_ask *sim_ask_of(struct sim_world *w, struct ts_str client, struct ts_str request_id)
{
    char text[32];
    unsigned c, n;
    if (client.count + request_id.count + 2 > sizeof text)
        return NULL;
    snprintf(text, sizeof text, "%.*s %.*s", (int)client.count, client.data, (int)request_id.count,
             request_id.data);
    if (sscanf(text, "client%u r%u", &c, &n) != 2 || c >= w->script.client_count || n >= w->client_asks[c])
        return NULL;
    return &w->asks[w->of_client[c][n]];
}

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

/* What has a deadline may be told at once that it would be late. */
static bool allowed_refusal(const struct sim_world *w, const struct sim_ask *ask, enum ts_reason reason)
{
    if (reason == TS_REASON_OVERLOADED && ask->as_sent.deadline_ms)
        return true;
    return w->faulty && (reason == TS_REASON_QUEUE_FULL || reason == TS_REASON_CLIENT_LIMIT ||
                         reason == TS_REASON_MEMORY_FULL || reason == TS_REASON_OVERLOADED);
}

static bool allowed_end(const struct sim_world *w, const struct sim_ask *ask, const struct cloud_outcome *o)
{
    bool cancelled = ask->as_sent.cancel_at != TS_TIME_NEVER;
    switch (o->finish) {
    case TS_FINISH_STOP:
    case TS_FINISH_LENGTH:
        return (o->finish == ask->finish || o->token_count == ask->as_sent.sampling.max_tokens) &&
               o->token_count == ask->count; /* resumed with all: a stop token at the end is not seen */
    case TS_FINISH_CANCELLED:
        return cancelled || (w->faulty && o->reason == TS_REASON_CLIENT_LOST);
    case TS_FINISH_DEADLINE:
        return ask->as_sent.deadline_ms > 0;
    case TS_FINISH_ERROR:
        if (o->refused)
            return allowed_refusal(w, ask, o->reason);
        return (ask->finish == TS_FINISH_ERROR && o->reason == TS_REASON_PROMPT_TOO_LONG) ||
               (w->faulty && (o->reason == TS_REASON_RETRIES || o->reason == TS_REASON_NO_WORKER)) ||
               (o->reason == TS_REASON_RETRIES && ask->short_of_memory == ask->attempts) ||
               (cancelled && o->reason == TS_REASON_NOT_FOUND);
    default:
        return false;
    }
}

static void count_end(struct sim_world *w, struct sim_ask *ask, const struct cloud_outcome *o)
{
    struct sim_result *r = w->result;
    ask->counted = true;
    r->completed += o->finish == TS_FINISH_STOP || o->finish == TS_FINISH_LENGTH;
    r->cancelled += o->finish == TS_FINISH_CANCELLED;
    r->late += o->finish == TS_FINISH_DEADLINE;
    r->failed += o->finish == TS_FINISH_ERROR && !o->refused;
    r->refused += o->refused;
}

static void check_outcome(struct sim_world *w, struct sim_ask *ask, const struct cloud_outcome *o)
{
    const char *client = cloud_node_id(w->clients[ask->client]);
    for (; ask->seen < o->token_count; ask->seen++) {
        if (ask->seen >= ask->count || o->tokens[ask->seen] != ask->tokens[ask->seen])
            cloud_fail(w->cloud, "%s r%u: token %u is %u, expected %u", client, ask->number, ask->seen,
                       o->tokens[ask->seen], ask->seen < ask->count ? ask->tokens[ask->seen] : 0);
    }
    if (!o->ended)
        return;
    count_end(w, ask, o);
    if ((o->token_count > 0) != (o->metrics.ttft_ns > 0) || o->metrics.tpot_ns > o->metrics.gap_max_ns)
        cloud_fail(w->cloud, "%s r%u has a TTFT of %lld ns and a TPOT of %lld ns after %u tokens", client,
                   ask->number, (long long)o->metrics.ttft_ns, (long long)o->metrics.tpot_ns, o->token_count);
    if (!allowed_end(w, ask, o))
        cloud_fail(w->cloud, "%s r%u ends with %s %s after %u of %u tokens", client, ask->number,
                   ts_finish_name(o->finish), ts_reason_name(o->reason), o->token_count, ask->count);
}

/* A message of a router to a client: only these requests may have changed. */
static void check_client(struct sim_world *w, struct cloud_node *node)
{
    uint32_t c = 0;
    while (w->clients[c] != node)
        c++;
    for (uint32_t i = 0; i < w->client_asks[c]; i++) {
        struct sim_ask *ask = &w->asks[w->of_client[c][i]];
        if (ask->counted)
            continue;
        struct cloud_outcome o = cloud_client_outcome(node, ask->number);
        if (o.ended || o.token_count > ask->seen)
            check_outcome(w, ask, &o);
    }
}

static void note_progress(struct sim_world *w, const struct ts_actions *actions)
{
    for (size_t i = 0; i < actions->count; i++) {
        const struct ts_action *a = &actions->items[i];
        if (a->kind == TS_ACTION_TRACE ||
            (a->kind == TS_ACTION_SEND &&
             (a->send.msg.kind == TS_MSG_OUTPUT || a->send.msg.kind == TS_MSG_OUTPUT_BATCH)))
            w->progress_at = cloud_now(w->cloud);
    }
}

static void check_progress(struct sim_world *w)
{
    if (router_core_idle(cloud_node_core(w->router)))
        w->progress_at = cloud_now(w->cloud);
    else if (cloud_now(w->cloud) - w->progress_at > PATIENCE)
        cloud_fail(w->cloud, "no request advances, though there is work");
}

void sim_check_step(struct sim_world *w, struct cloud_node *node, const struct ts_event *event,
                    const struct ts_actions *actions)
{
    struct ts_error err = {0};
    if (cloud_node_kind(node) == CLOUD_CLIENT) {
        if (event->kind == TS_EVENT_MESSAGE)
            check_client(w, node);
        return;
    }
    if (cloud_steps(w->cloud) > STEPS_MAX)
        cloud_fail(w->cloud, "it does not come to an end");
    note_progress(w, actions);
    if (event->kind == TS_EVENT_SEND_FAILED)
        sim_session_ended(w, node, event->send_failed.channel, event->send_failed.peer);
    w->delivered = event->kind == TS_EVENT_MESSAGE && sim_session_heard(w, node, &event->message);
    if (!in_bounds(node, &err))
        cloud_fail(w->cloud, "%s: %s", cloud_node_id(node), err.text);
    if (cloud_node_kind(node) == CLOUD_RELAY && relay_core_counts(cloud_node_core(node)).credits_missing > 0)
        cloud_fail(w->cloud, "%s: a transfer is done before its credit is back", cloud_node_id(node));
    if (!handles_ok(node))
        cloud_fail(w->cloud, "%s holds %zu handles", cloud_node_id(node), cloud_node_handles(node));
    if (node == w->router) {
        sim_see_router(w, event, actions);
        check_progress(w);
    } else if (cloud_node_kind(node) == CLOUD_WORKER) {
        sim_see_worker(w, node, event, actions);
    } else if (cloud_node_kind(node) == CLOUD_PLANNER) {
        sim_see_planner(w, node, event, actions);
    } else if (cloud_node_kind(node) == CLOUD_RELAY) {
        sim_see_relay(w, node, event, actions);
    }
    w->altered_count = 0;
    if (w->waiting_count > 0)
        sim_faults_look(w);
}

bool sim_all_ended(const struct sim_world *w)
{
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        if (w->asks[i].asked && !w->asks[i].counted)
            return false;
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

void sim_check_rest(struct sim_world *w)
{
    for (size_t i = 0; i < cloud_node_count(w->cloud); i++) {
        struct cloud_node *node = cloud_node_at(w->cloud, i);
        uint32_t number = sim_index_of(w, node);
        if (!cloud_node_alive(node)) {
            if (number == SIM_NODE_NONE || !w->gone[number])
                cloud_fail(w->cloud, "%s did not come back", cloud_node_id(node));
        } else if (!at_rest(node) || cloud_node_handles(node) > 0) {
            cloud_fail(w->cloud, "%s is not at rest: %zu handles, %u blocks used", cloud_node_id(node),
                       cloud_node_handles(node),
                       cloud_node_kind(node) == CLOUD_WORKER ? worker_core_blocks_used(cloud_node_core(node))
                                                             : 0);
        }
    }
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] && cloud_node_kind(w->nodes[i]) == CLOUD_WORKER && sim_texts_open(w, w->nodes[i]) > 0)
            cloud_fail(w->cloud, "%s has %u text streams open", cloud_node_id(w->nodes[i]),
                       sim_texts_open(w, w->nodes[i]));
    }
    sim_router_rest(w);
    if (cloud_failed(w->cloud))
        snprintf(w->result->node, sizeof w->result->node, "rest");
}
