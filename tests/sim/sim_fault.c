/*
 * What goes wrong, when its time has come: at once, or as something that the hook of messages looks up for a
 * while.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "tests/sim/sim_impl.h"

struct sim_fault_call {
    struct sim_fault_call *next;
    struct sim_world *w;
    uint32_t number;
};

static struct cloud_node *node_of(const struct sim_world *w, uint32_t number)
{
    if (number == SIM_ROUTER)
        return w->router;
    if (number >= SIM_CLIENT)
        return number == SIM_NODE_NONE ? NULL : w->clients[number - SIM_CLIENT];
    return w->nodes[number];
}

/* An operator's word to the router, and questions beside it. */
static void ask_router(struct sim_world *w, const struct ts_msg *word)
{
    struct ts_msg status = {.kind = TS_MSG_STATUS, .status = {.id = 1}};
    struct ts_msg why = {.kind = TS_MSG_WHY};
    why.why = (struct ts_msg_why){.id = 2, .client = ts_str_of("client0"), .request_id = ts_str_of("r0")};
    cloud_admin(w->router, word);
    cloud_admin(w->router, &status);
    cloud_admin(w->router, &why);
}

static void drain_by_router(struct sim_world *w, const struct cloud_node *node)
{
    struct ts_msg drain = {.kind = TS_MSG_DRAIN, .drain = {.service = ts_str_of(cloud_node_id(node))}};
    ask_router(w, &drain);
}

static void flip(struct sim_world *w, const struct cloud_node *node, uint32_t phase)
{
    struct ts_msg set = {
        .kind = TS_MSG_SET_PHASE,
        .set_phase = {.phase = (enum ts_phase)phase, .service = ts_str_of(cloud_node_id(node))}};
    ask_router(w, &set);
}

struct cloud_node *sim_add_node(struct sim_world *w, uint32_t number)
{
    const struct sim_node *n = &w->script.nodes[number];
    const char *relay = n->host == SIM_NODE_NONE ? NULL : w->script.nodes[n->host].id;
    if (n->kind == CLOUD_PLANNER)
        w->nodes[number] = cloud_add_planner(w->cloud, &n->planner);
    else if (n->kind == CLOUD_RELAY)
        w->nodes[number] = cloud_add_relay(w->cloud, &n->relay);
    else
        w->nodes[number] = cloud_add_worker(w->cloud, &n->worker, n->phase, n->kv_blocks, relay);
    if (n->willing)
        cloud_worker_willing(w->nodes[number], TS_PHASE_BOTH);
    return w->nodes[number];
}

static void leaves(struct sim_world *w, uint32_t number)
{
    w->gone[number] = true;
    cloud_restart_stopped(w->nodes[number], false);
    cloud_drain(w->nodes[number]);
}

static void start_link_fault(struct sim_world *w, const struct sim_fault *f)
{
    struct cloud_node *from = node_of(w, f->node),
                      *to = f->other == SIM_NODE_NONE ? NULL : node_of(w, f->other);
    bool lasts = f->kind == SIM_ONE_WAY || f->kind == SIM_SLOW;
    if (!from || (f->other != SIM_NODE_NONE && !to))
        return;
    w->active[w->active_count++] =
        (struct sim_active){.kind = f->kind,
                            .from = from,
                            .to = to,
                            .until = cloud_now(w->cloud) + (lasts ? f->lasts : 2 * TS_S),
                            .lasts = f->lasts,
                            .amount = f->amount};
}

static void happens(struct sim_world *w, const struct sim_fault *f)
{
    struct cloud_node *node = f->kind == SIM_CANCEL || f->kind == SIM_DEADLINE ? NULL : node_of(w, f->node);
    switch (f->kind) {
    case SIM_CRASH:
        cloud_kill(node);
        break;
    case SIM_FREEZE:
        if (node == w->router)
            w->router_thawed = cloud_now(w->cloud) + f->lasts;
        cloud_freeze(node, cloud_now(w->cloud) + f->lasts);
        break;
    case SIM_ENGINE:
    case SIM_CODEC:
        cloud_fail_jobs(node, f->amount);
        break;
    case SIM_DRAIN:
        cloud_drain(node);
        break;
    case SIM_OPERATOR:
        drain_by_router(w, node);
        break;
    case SIM_FLIP:
        flip(w, node, f->amount);
        break;
    case SIM_SWAP:
        leaves(w, 0); /* the first planner */
        cloud_start(sim_add_node(w, f->node));
        break;
    case SIM_JOIN:
        cloud_start(sim_add_node(w, f->node));
        break;
    case SIM_LEAVE:
        leaves(w, f->node);
        break;
    case SIM_ABSENCE:
    case SIM_BURST:
    case SIM_CANCEL:
    case SIM_DEADLINE:
        break; /* clients do it */
    default:
        start_link_fault(w, f);
    }
}

static void strike(struct sim_world *w, const struct sim_fault *f)
{
    bool of_request = f->kind == SIM_CANCEL || f->kind == SIM_DEADLINE;
    struct cloud_node *node = of_request ? NULL : node_of(w, f->node);
    if (!of_request && !node && f->kind != SIM_JOIN && f->kind != SIM_SWAP)
        return; /* who is not there yet cannot be met */
    ts_time over = cloud_now(w->cloud) + f->lasts;
    w->last_fault = w->last_fault > over ? w->last_fault : over;
    if (f->kind == SIM_SWAP)
        node = w->nodes[0];
    sim_met(w, f->kind, node, f->other == SIM_NODE_NONE ? NULL : node_of(w, f->other),
            of_request ? &w->asks[f->node] : NULL);
    happens(w, f);
}

/* --- aims -------------------------------------------------------------------------------------------- */

#define AIM_FOR (300 * TS_MS)

static uint32_t first_of(const struct sim_world *w, enum cloud_kind kind)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->script.nodes[i].kind == kind && w->nodes[i])
            return i;
    }
    return SIM_NODE_NONE;
}

/* Whom a fault of this kind may strike. */
static bool suits(enum sim_fault_kind kind, enum cloud_kind node)
{
    switch (kind) {
    case SIM_CORRUPT:
    case SIM_DIGEST:
    case SIM_CODEC:
        return node == CLOUD_RELAY;
    case SIM_STALE:
    case SIM_ENGINE:
    case SIM_FLIP:
        return node == CLOUD_WORKER;
    case SIM_ABSENCE:
        return false;
    default:
        return true;
    }
}

/* A worker whose pool a transfer that is over reads. */
static uint32_t owner_of_over(const struct sim_world *w)
{
    struct cloud_node *owner = NULL;
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        if (w->nodes[i] && w->script.nodes[i].kind == CLOUD_RELAY && sim_over(w->nodes[i], &owner, 1) &&
            owner)
            return sim_index_of(w, owner);
    }
    return SIM_NODE_NONE;
}

/* Turns the fault to who serves a request in the state it aims at. False: nobody does. Who leaves for good
 * stays the one that may. */
static bool turn(struct sim_world *w, struct sim_fault *f)
{
    struct ts_rid rid;
    enum sim_state state = (enum sim_state)f->aim;
    uint32_t found = SIM_NODE_NONE;
    bool link = f->other != SIM_NODE_NONE;
    if (state < SIM_AT_c_tokenising && sim_record_in(w, state, &rid)) {
        struct cloud_node *prefill = NULL, *decode = NULL, *relay = NULL;
        struct sim_ask *ask = rid.request < SIM_NUMBERS_MAX ? w->by_number[rid.request] : NULL;
        if (!ask || sim_record_state(w, ask, &rid, &prefill, &decode, &relay) < 0)
            return false;
        struct cloud_node *node = suits(f->kind, CLOUD_WORKER) ? (decode ? decode : prefill) : relay;
        found = node                            ? sim_index_of(w, node)
                : suits(f->kind, CLOUD_PLANNER) ? first_of(w, CLOUD_PLANNER)
                                                : SIM_NODE_NONE;
    }
    for (uint32_t i = 0; i < w->script.node_count && state >= SIM_AT_c_tokenising; i++) {
        const struct cloud_node *node = w->nodes[i];
        enum cloud_kind kind = w->script.nodes[i].kind;
        if (node && suits(f->kind, kind) && (f->kind != SIM_LEAVE || i == f->node) &&
            (kind == CLOUD_WORKER
                 ? state < SIM_AT_t_opening && sim_task_in(node, state, &rid)
                 : kind == CLOUD_RELAY && state >= SIM_AT_t_opening && sim_transfer_in(node, state, &rid)))
            found = i;
    }
    if (found == SIM_NODE_NONE && state == SIM_AT_t_over)
        found = owner_of_over(w);
    if (found == SIM_NODE_NONE || (f->kind == SIM_LEAVE && found != f->node))
        return false;
    bool from_router = link && f->node == SIM_ROUTER;
    f->node = link && from_router ? SIM_ROUTER : found;
    f->other = !link ? SIM_NODE_NONE : from_router ? found : SIM_ROUTER;
    return true;
}

static void strikes(void *context)
{
    const struct sim_fault_call *call = context;
    strike(call->w, &call->w->script.faults[call->number]);
}

static void fault_happens(void *context)
{
    const struct sim_fault_call *call = context;
    struct sim_world *w = call->w;
    const struct sim_fault *f = &w->script.faults[call->number];
    if (f->aim < 0 || f->kind == SIM_ABSENCE) { /* which the client does at its time */
        strikes(context);
        return;
    }
    w->waits_until[w->waiting_count] = cloud_now(w->cloud) + AIM_FOR;
    w->waiting[w->waiting_count++] = call->number;
}

static struct sim_fault_call *new_call(struct sim_world *w, uint32_t number)
{
    struct sim_fault_call *call = ts_xcalloc(1, sizeof *call);
    *call = (struct sim_fault_call){.next = w->calls, .w = w, .number = number};
    w->calls = call;
    return call;
}

void sim_faults_look(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->waiting_count;) {
        if (!turn(w, &w->script.faults[w->waiting[i]]) && w->waits_until[i] > cloud_now(w->cloud)) {
            i++;
            continue;
        }
        cloud_at(w->cloud, cloud_now(w->cloud), strikes, new_call(w, w->waiting[i]));
        w->waiting_count--;
        w->waiting[i] = w->waiting[w->waiting_count];
        w->waits_until[i] = w->waits_until[w->waiting_count];
    }
}

void sim_faults_start(struct sim_world *w)
{
    for (uint32_t i = 0; i < w->script.fault_count; i++) {
        if (w->options->faults && !w->options->faults[i])
            continue;
        w->result->faults++;
        cloud_at(w->cloud, w->script.faults[i].at, fault_happens, new_call(w, i));
    }
}

/* --- messages ---------------------------------------------------------------------------------------- */

static bool meant(const struct sim_active *a, const struct cloud_node *from, const struct cloud_node *to,
                  const struct ts_msg *msg)
{
    if (a->kind == SIM_CUT)
        return (a->from == from && a->to == to) || (a->from == to && a->to == from);
    if (a->kind == SIM_CORRUPT)
        return a->from == from && msg->kind == TS_MSG_KV_CHUNK;
    return a->from == from && a->to == to;
}

static void apply(struct sim_world *w, struct sim_active *a, struct cloud_fate *fate)
{
    switch (a->kind) {
    case SIM_CUT:
        fate->cut = true;
        break;
    case SIM_ONE_WAY:
    case SIM_GAP:
        fate->lost = true;
        break;
    case SIM_SLOW:
        fate->delay += a->amount * TS_MS;
        return;
    case SIM_LATE:
        fate->delay += a->lasts;
        break;
    case SIM_DUPLICATE:
        fate->again = true;
        fate->again_after = (ts_time)(ts_rng_unit(&w->rng) * (double)a->lasts);
        break;
    case SIM_REFUSE:
        fate->refused = true;
        break;
    case SIM_CORRUPT:
        fate->damaged = true;
        break;
    default:
        return;
    }
    if (a->kind != SIM_ONE_WAY && a->kind != SIM_SLOW)
        a->amount--;
}

void sim_fate(void *context, struct cloud_node *from, struct cloud_node *to, const struct ts_msg *msg,
              struct cloud_fate *fate)
{
    struct sim_world *w = context;
    for (uint32_t i = 0; i < w->active_count;) {
        struct sim_active *a = &w->active[i];
        if (a->until < cloud_now(w->cloud) || a->amount == 0) {
            *a = w->active[--w->active_count];
            continue;
        }
        if (meant(a, from, to, msg))
            apply(w, a, fate);
        i++;
    }
}

static struct sim_active *find_active(struct sim_world *w, enum sim_fault_kind kind,
                                      const struct cloud_node *of)
{
    for (uint32_t i = 0; i < w->active_count; i++) {
        struct sim_active *a = &w->active[i];
        if (a->kind == kind && a->from == of && a->amount > 0 && a->until >= cloud_now(w->cloud))
            return a;
    }
    return NULL;
}

static void note_altered(struct sim_world *w, const struct ts_action *action, enum ts_phase role)
{
    w->altered[w->altered_count].action = action;
    w->altered[w->altered_count++].role = role;
}

const struct ts_action *sim_altered(const struct sim_world *w, const struct ts_action_send *send,
                                    enum ts_phase *role)
{
    for (uint32_t i = 0; i < w->altered_count; i++) {
        if (&w->altered[i].action->send == send) {
            *role = w->altered[i].role;
            return w->altered[i].action;
        }
    }
    return NULL;
}

static void alter_assign(struct sim_world *w, struct ts_action *action)
{
    struct ts_msg_assign *assign = &action->send.msg.assign;
    const struct cloud_node *to = cloud_peer_of(w->router, action->send.channel, action->send.peer);
    struct sim_active *a = to && cloud_node_alive(to) ? find_active(w, SIM_STALE, to) : NULL;
    enum ts_phase role = assign->role, phase = a ? sim_phase(to) : TS_PHASE_NONE;
    if (!a)
        return;
    if (a->amount % 2 == 0 && phase != TS_PHASE_BOTH) /* of the phase that it does not serve */
        assign->role = phase == TS_PHASE_PREFILL ? TS_PHASE_DECODE : TS_PHASE_PREFILL;
    else if (assign->plan > 1)
        assign->plan--;
    else if (assign->term > 0)
        assign->term--;
    else
        return;
    note_altered(w, action, role);
    a->amount--;
}

/* Of an earlier term, or for a worker that is not there. */
static void alter_plan(struct sim_world *w, const struct cloud_node *planner, struct ts_action *action)
{
    static struct ts_plan_replica replicas[SIM_NODES_MAX]; /* one thread; valid until the message is copied */
    struct ts_msg_plan *plan = &action->send.msg.plan;
    struct sim_active *a = find_active(w, SIM_STALE, planner);
    if (!a)
        return;
    note_altered(w, action, TS_PHASE_NONE);
    if (a->amount % 2 == 0 && plan->replicas.count > 0 && plan->replicas.count <= SIM_NODES_MAX) {
        memcpy(replicas, plan->replicas.data, plan->replicas.count * sizeof *replicas);
        replicas[0].worker = ts_str_of("nobody");
        plan->replicas.data = replicas;
    } else {
        plan->term--;
        plan->number += 1000;
    }
    a->amount--;
}

/* KV that is not what its digests say; an assignment of an older plan. */
void sim_alter(struct sim_world *w, struct cloud_node *node, struct ts_action *action)
{
    if (action->kind != TS_ACTION_SEND || w->active_count == 0 ||
        w->altered_count == TS_ARRAY_SIZE(w->altered))
        return;
    struct ts_msg *msg = &action->send.msg;
    if (msg->kind == TS_MSG_KV_END && msg->kv_end.digests.count > 0) {
        struct sim_active *a = find_active(w, SIM_DIGEST, node);
        if (!a)
            return;
        static uint64_t digests[4096]; /* one thread; valid until the message is copied */
        if (msg->kv_end.digests.count > sizeof digests / sizeof *digests)
            return;
        memcpy(digests, msg->kv_end.digests.data, msg->kv_end.digests.count * sizeof *digests);
        digests[ts_rng_below(&w->rng, msg->kv_end.digests.count)] ^= 1;
        msg->kv_end.digests.data = digests;
        a->amount--;
    } else if (msg->kind == TS_MSG_PLAN) {
        alter_plan(w, node, action);
    } else if (msg->kind == TS_MSG_KV_OPEN) {
        const struct cloud_node *to = cloud_peer_of(node, action->send.channel, action->send.peer);
        struct sim_active *a = to ? find_active(w, SIM_STALE, to) : NULL;
        if (!a)
            return;
        msg->kv_open.decode_incarnation ^= 2;
        a->amount--;
    } else if (msg->kind == TS_MSG_ASSIGN && node == w->router) {
        alter_assign(w, action);
    }
}
