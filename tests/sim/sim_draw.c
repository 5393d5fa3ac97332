/*
 * A script from a seed. Three generators, one for each list, so that a change of what one list holds leaves
 * the others as they are. One draw in a statement: compilers evaluate arguments in orders of their own, and a
 * seed must mean the same everywhere.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_kv.h"
#include "tests/sim/sim_impl.h"

struct draw {
    struct sim_script *script;
    struct ts_rng rng;
    uint32_t prompt_max, output_max; /* of this world */
    bool fickle;                     /* clients that cancel a lot */
    bool tight;                      /* little room for encoded KV */
    bool short_leases;
    bool willing; /* workers change their phases when told */
};

static uint32_t draw(struct draw *d, uint32_t from, uint32_t to)
{
    return from + (uint32_t)ts_rng_below(&d->rng, to - from + 1);
}

static bool one_in(struct draw *d, uint32_t n)
{
    return ts_rng_below(&d->rng, n) == 0;
}

static ts_time within(struct draw *d, ts_time most)
{
    return (ts_time)(ts_rng_unit(&d->rng) * (double)most);
}

/* Every eighth world, on fast and on slow devices: prompts are long enough at the tokeniser that what aims at
 * nobody (cancels, deadlines, who leaves) meets them there, and who leaves aims. Draws nothing. */
static bool slow_text(const struct sim_script *s)
{
    return s->seed % 16 == 3 || s->seed % 16 == 8;
}

/* --- the cluster ------------------------------------------------------------------------------------- */

static struct router_settings draw_router(struct draw *d)
{
    struct router_settings s = router_settings_defaults();
    bool faulty = !d->script->calm;
    if (faulty && one_in(d, 4))
        s.queue_max = draw(d, 8, 32);
    if (faulty && one_in(d, 6))
        s.per_client_max = draw(d, 4, 16);
    if (faulty && one_in(d, 6))
        s.held_bytes_max = draw(d, 1, 4) << 10;
    if (faulty && one_in(d, 6))
        s.max_attempts = draw(d, 1, 6);
    if (faulty && one_in(d, 4))
        s.client_timeout_ms = draw(d, 1500, 4000);
    if (faulty && one_in(d, 4))
        s.memory_wait_ms = s.no_worker_ms = draw(d, 1000, 5000);
    if (faulty && one_in(d, 2))
        s.phase_wait_ms = draw(d, 100, 2000);
    if (!faulty && one_in(d, 2))
        s.ended_keep_count = draw(d, 0, 4);
    if (faulty && one_in(d, 3))
        s.ended_keep_ms = draw(d, 7000, 9000); /* longer than what is late: else it would begin anew */
    if (one_in(d, 3))
        s.prefill_inflight_max = draw(d, 1, 8);
    if (one_in(d, 3))
        s.decode_inflight_max = draw(d, 2, 16);
    return s;
}

static struct sim_node *new_node(struct draw *d, enum cloud_kind kind, const char *name, uint32_t number)
{
    struct sim_script *s = d->script;
    TS_ASSERT(s->node_count < SIM_NODES_MAX);
    struct sim_node *n = &s->nodes[s->node_count++];
    *n = (struct sim_node){.kind = kind, .host = SIM_NODE_NONE};
    snprintf(n->id, sizeof n->id, "%s%u", name, number);
    return n;
}

static struct sim_node *new_planner(struct draw *d, uint32_t number)
{
    static const char *const algorithms[] = {"thunder", "uniform", "splitwise", "distserve"};
    struct sim_node *n = new_node(d, CLOUD_PLANNER, "planner", number);
    n->planner = planner_settings_defaults();
    n->planner.id = n->id;
    n->planner.plan.algorithm = plan_algorithm_find(algorithms[draw(d, 0, 3)]);
    return n;
}

static void new_relay(struct draw *d, uint32_t number)
{
    struct sim_node *n = new_node(d, CLOUD_RELAY, "relay", number);
    n->relay = relay_settings_defaults();
    n->relay.id = n->id;
    n->relay.chunk_tokens_max = draw(d, 1, 6) * 16;
    n->relay.encode_jobs_max = draw(d, 1, 4);
    n->relay.kv_connections = 1 + n->relay.encode_jobs_max % 4;
    n->relay.workers_encode = n->relay.encode_jobs_max == 3;
    if (one_in(d, 3))
        n->relay.idle_link_ms = draw(d, 1, 2000);
    if (d->short_leases)
        n->relay.open_retry_ms = draw(d, 300, 2500);
    if (d->tight)
        n->relay.encoded_bytes_max = draw(d, 8, 64) << 10;
    n->relay.retained_bytes_max = n->relay.encoded_bytes_max / 4;
}

static struct sim_node *new_worker(struct draw *d, enum ts_phase phase, uint32_t number, uint32_t host)
{
    static const char *const names[] = {"", "prefill", "decode", "both"};
    struct sim_node *n = new_node(d, CLOUD_WORKER, names[phase], number);
    struct worker_settings s = worker_settings_defaults();
    s.id = n->id;
    s.max_rows = draw(d, 2, 24);
    s.max_batch_tokens = draw(d, s.max_rows > 16 ? s.max_rows : 16, 192);
    s.batches_max = 1 + s.max_rows % 4;
    s.grant_wait_ms = draw(d, 1, 10) * 1000;
    if (d->short_leases) {
        s.grant_wait_ms = draw(d, 200, 2000);
        s.router_lost_ms = draw(d, 200, 3000);
    }
    if (one_in(d, 3))
        s.credit_bytes = draw(d, 1, 48) << 10;
    if (!d->script->calm && one_in(d, 12))
        s.requests_max = draw(d, 2, 8);
    uint32_t need = ts_kv_blocks_for(d->prompt_max + d->output_max) + 1;
    n->kv_blocks = !one_in(d, 3) ? draw(d, need, 2 * need) : draw(d, 4 * need, 12 * need);
    n->worker = s;
    n->phase = phase;
    n->willing = d->willing;
    n->host = phase & TS_PHASE_PREFILL || d->willing ? host : SIM_NODE_NONE;
    return n;
}

static enum ts_phase draw_phase(struct draw *d)
{
    if (!d->tight && one_in(d, 4)) /* of both with little room for encoded KV: it could wait for itself */
        return TS_PHASE_BOTH;
    return one_in(d, 2) ? TS_PHASE_PREFILL : TS_PHASE_DECODE;
}

static void draw_cluster(struct draw *d)
{
    struct sim_script *s = d->script;
    uint32_t planners = draw(d, 1, 2), relays = draw(d, 1, 3), workers = draw(d, 5, 7), first_relay;
    d->tight = one_in(d, 3);
    d->short_leases = !s->calm && one_in(d, 3);
    d->willing = !s->calm && one_in(d, 2);
    s->router = draw_router(d);
    for (uint32_t i = 0; i < planners; i++)
        new_planner(d, i);
    first_relay = s->node_count;
    for (uint32_t i = 0; i < relays; i++)
        new_relay(d, i);
    for (uint32_t i = 0; i < workers; i++) {
        enum ts_phase phase = i == 0 ? TS_PHASE_PREFILL : i == 1 ? TS_PHASE_DECODE : draw_phase(d);
        new_worker(d, phase, i, first_relay + i % relays);
    }
    uint32_t joins = s->calm ? 0 : draw(d, 0, 2);
    for (uint32_t i = 0; i < joins; i++)
        new_worker(d, draw_phase(d), workers + i, first_relay + i % relays)->joins = true;
    if (!s->calm && one_in(d, 2))
        new_planner(d, planners)->joins = true;
}

static void draw_cloud(struct draw *d, const char *fast, const char *slow)
{
    struct sim_script *s = d->script;
    s->cloud = cloud_settings_defaults();
    if (slow_text(s))
        s->cloud.tokenise_ns = TS_MS;
    s->cloud.seed = ts_rng_u64(&d->rng);
    s->cloud.device_conf = s->seed % 2 ? fast : slow;
    s->cloud.context_tokens = one_in(d, 4) ? draw(d, d->prompt_max - 8, d->prompt_max + 48) : 512;
    s->cloud.blocks_stay = s->calm;
    s->cloud.shapes_unsaid = !one_in(d, 5); /* searches of planners take most of the time */
    s->cloud.restart_max = one_in(d, 4) ? 5 * TS_S : draw(d, 20, 2000) * TS_MS;
    if (one_in(d, 2))
        s->cloud.codec_bytes_per_s = one_in(d, 3) ? draw(d, 100, 900) * 1e3 : draw(d, 1, 100) * 1e6;
    s->cloud.network.latency_min = draw(d, 1, 200) * TS_US;
    s->cloud.network.latency_mean = draw(d, 1, one_in(d, 4) ? 5000 : 200) * TS_US;
    s->cloud.network.bytes_per_s = one_in(d, 2) ? 1.25e9 : 5e6;
}

/* --- requests ---------------------------------------------------------------------------------------- */

static struct sim_request *new_request(struct draw *d, uint32_t client, ts_time at)
{
    static const char *const codecs[] = {NULL, "none", "i4", "i4hc", "i4h,0=8"};
    struct sim_script *s = d->script;
    TS_ASSERT(s->request_count < SIM_REQUESTS_MAX);
    struct sim_request *r = &s->requests[s->request_count++];
    *r = (struct sim_request){
        .client = client, .at = at, .sampling = ts_sampling_defaults(), .cancel_at = TS_TIME_NEVER};
    r->prompt_count = one_in(d, 4) ? draw(d, 1, d->prompt_max) : draw(d, 1, 40);
    r->prompt_seed = ts_rng_u64(&d->rng);
    r->codec = codecs[draw(d, 0, 4)];
    r->sampling.seed = ts_rng_u64(&d->rng);
    r->sampling.max_tokens = one_in(d, 8) ? 1 : one_in(d, 6) ? draw(d, 1, d->output_max) : draw(d, 1, 16);
    r->sampling.ignore_eos = one_in(d, 2);
    r->sampling.repetition_penalty = one_in(d, 4) ? 1.5f : 1;
    r->sampling.given = TS_SAMPLING_REPETITION_PENALTY;
    r->sampling.logprobs = one_in(d, 4) ? draw(d, 1, 3) : 0;
    if (one_in(d, 4))
        r->reattach_ms = draw(d, 1, one_in(d, 2) ? 500 : 20000);
    return r;
}

static void draw_requests(struct draw *d)
{
    struct sim_script *s = d->script;
    ts_time span = one_in(d, 2) ? draw(d, 20, 800) * TS_MS : draw(d, 1, 6) * TS_S;
    s->client_count = draw(d, 1, SIM_CLIENTS_MAX);
    uint32_t count = draw(d, 50, one_in(d, 4) ? 90 : 60);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t client = draw(d, 0, s->client_count - 1);
        new_request(d, client, within(d, span));
    }
    d->fickle = one_in(d, 3);
}

/* --- what goes wrong --------------------------------------------------------------------------------- */

static struct sim_fault *new_fault(struct draw *d, enum sim_fault_kind kind, ts_time at)
{
    struct sim_script *s = d->script;
    TS_ASSERT(s->fault_count < SIM_FAULTS_MAX);
    struct sim_fault *f = &s->faults[s->fault_count++];
    *f = (struct sim_fault){
        .kind = kind, .at = at, .node = SIM_NODE_NONE, .other = SIM_NODE_NONE, .amount = 1, .aim = -1};
    return f;
}

static void draw_cancels(struct draw *d)
{
    struct sim_script *s = d->script;
    for (uint32_t i = 0; i < s->request_count; i++) {
        struct sim_request *r = &s->requests[i];
        if (s->fault_count + 2 < SIM_FAULTS_MAX && one_in(d, d->fickle ? 3 : 14)) {
            ts_time wait = within(d, d->fickle ? 300 * TS_MS : 2 * TS_S);
            new_fault(d, SIM_CANCEL, r->at + wait)->node = i;
        }
        if (s->fault_count + 2 < SIM_FAULTS_MAX && one_in(d, 14)) {
            uint32_t ms = draw(d, 1, one_in(d, 2) ? 200 : 3000);
            struct sim_fault *f = new_fault(d, SIM_DEADLINE, r->at + ms * TS_MS);
            f->node = i;
            f->amount = ms;
        }
    }
}

static uint32_t draw_node(struct draw *d, uint32_t kinds)
{
    const struct sim_script *s = d->script;
    uint32_t fits[SIM_NODES_MAX], count = 0;
    for (uint32_t i = 0; i < s->node_count; i++) {
        if (kinds >> s->nodes[i].kind & 1)
            fits[count++] = i;
    }
    return fits[draw(d, 0, count - 1)];
}

#define KIND(k)  (1u << CLOUD_##k)
#define SERVICES (KIND(PLANNER) | KIND(WORKER) | KIND(RELAY))

/* Who talks to whom: clients and services with the router, prefill workers with their relay, relays with
 * decode. */
static void draw_link(struct draw *d, struct sim_fault *f)
{
    const struct sim_script *s = d->script;
    uint32_t what = draw(d, 0, 9), a = SIM_ROUTER, b;
    if (what == 0) {
        b = SIM_CLIENT + draw(d, 0, s->client_count - 1);
    } else if (what <= 4) {
        b = draw_node(d, SERVICES);
    } else if (what <= 7) {
        a = draw_node(d, KIND(RELAY));
        b = draw_node(d, KIND(WORKER));
    } else {
        b = draw_node(d, KIND(WORKER));
        a = s->nodes[b].host != SIM_NODE_NONE ? s->nodes[b].host : SIM_ROUTER;
    }
    bool turn = one_in(d, 2);
    f->node = turn ? b : a;
    f->other = turn ? a : b;
}

/* Whether the worker may go for good: each phase is still served by one that stays. */
static bool may_leave(const struct sim_script *s, uint32_t node)
{
    uint32_t phases = 0;
    for (uint32_t i = 0; i < s->node_count; i++) {
        bool goes = i == node || s->nodes[i].joins;
        for (uint32_t f = 0; f < s->fault_count; f++)
            goes = goes || (s->faults[f].kind == SIM_LEAVE && s->faults[f].node == i);
        if (!goes && s->nodes[i].kind == CLOUD_WORKER)
            phases |= s->nodes[i].phase;
    }
    return phases == TS_PHASE_BOTH;
}

static void draw_burst(struct draw *d, ts_time at)
{
    struct sim_script *s = d->script;
    uint32_t count = draw(d, 8, 30), client = draw(d, 0, s->client_count - 1);
    if (s->request_count + count > SIM_REQUESTS_MAX)
        return;
    struct sim_fault *f = new_fault(d, SIM_BURST, at);
    f->amount = count;
    f->node = SIM_CLIENT + client;
    for (uint32_t i = 0; i < count; i++)
        new_request(d, client, at)->burst = s->fault_count;
}

/* Of links: who, for how long, how many messages. */
static void fill_link_fault(struct draw *d, struct sim_fault *f)
{
    draw_link(d, f);
    switch (f->kind) {
    case SIM_ONE_WAY:
        f->lasts = one_in(d, 2) ? draw(d, 1, 1000) * TS_MS : draw(d, 1, 6) * TS_S;
        break;
    case SIM_SLOW:
        f->lasts = draw(d, 100, 3000) * TS_MS;
        f->amount = draw(d, 1, 100); /* ms for each message */
        break;
    case SIM_LATE:
        f->lasts = draw(d, 1, 5000) * TS_MS;
        break;
    case SIM_DUPLICATE:
        f->amount = draw(d, 1, 30);
        f->lasts = draw(d, 0, 50) * TS_MS;
        break;
    default:
        f->amount = draw(d, 1, 4);
        break;
    }
}

static void fill_fault(struct draw *d, struct sim_fault *f)
{
    switch (f->kind) {
    case SIM_CRASH:
    case SIM_DRAIN:
    case SIM_OPERATOR:
        f->node = draw_node(d, SERVICES);
        break;
    case SIM_FREEZE:
        f->node = one_in(d, 8) ? SIM_ROUTER : draw_node(d, SERVICES);
        f->lasts = one_in(d, 2) ? draw(d, 1, 400) * TS_MS : draw(d, 400, 6000) * TS_MS;
        break;
    case SIM_CORRUPT:
    case SIM_DIGEST:
    case SIM_CODEC:
        f->node = draw_node(d, KIND(RELAY));
        f->amount = f->kind == SIM_CORRUPT ? draw(d, 1, 12) : draw(d, 1, 3);
        break;
    case SIM_STALE:
        f->node = draw_node(d, KIND(WORKER) | KIND(PLANNER));
        f->amount = draw(d, 1, 3);
        break;
    case SIM_ENGINE:
        f->node = draw_node(d, KIND(WORKER));
        f->amount = draw(d, 1, 3);
        break;
    case SIM_FLIP:
        f->node = draw_node(d, KIND(WORKER));
        f->amount = draw(d, 1, one_in(d, 4) ? 3 : 2);
        break;
    case SIM_ABSENCE:
        f->node = SIM_CLIENT + draw(d, 0, d->script->client_count - 1);
        f->lasts = draw(d, 10, 9000) * TS_MS;
        break;
    default:
        fill_link_fault(d, f);
    }
}

static void draw_fault(struct draw *d, enum sim_fault_kind kind, ts_time at)
{
    struct sim_script *s = d->script;
    if (kind == SIM_BURST) {
        draw_burst(d, at);
    } else if (kind == SIM_LEAVE) {
        uint32_t node = draw_node(d, KIND(WORKER));
        if (s->nodes[node].joins || !may_leave(s, node))
            return;
        struct sim_fault *f = new_fault(d, kind, at);
        f->node = node;
        if (slow_text(s))
            f->aim = s->seed / 16 % 4 ? SIM_AT_c_tokenising : SIM_AT_d_dying;
    } else {
        fill_fault(d, new_fault(d, kind, at));
        uint32_t node = s->faults[s->fault_count - 1].node;
        bool plan = kind == SIM_STALE && s->nodes[node].kind == CLOUD_PLANNER;
        if (!plan && one_in(d, 2))
            s->faults[s->fault_count - 1].aim = (int)draw(d, 0, SIM_STATE_COUNT - 1);
    }
}

/* Nodes that join do so once, at a time of their own. */
static void draw_joins(struct draw *d)
{
    const struct sim_script *s = d->script;
    for (uint32_t i = 0; i < s->node_count; i++) {
        if (!s->nodes[i].joins)
            continue;
        ts_time at = within(d, s->faults_end);
        new_fault(d, s->nodes[i].kind == CLOUD_PLANNER ? SIM_SWAP : SIM_JOIN, at)->node = i;
    }
}

static void draw_faults(struct draw *d)
{
    static const enum sim_fault_kind kinds[] = {
        SIM_CRASH,     SIM_FREEZE,   SIM_CUT,     SIM_ONE_WAY, SIM_SLOW,    SIM_GAP,    SIM_LATE,
        SIM_DUPLICATE, SIM_REFUSE,   SIM_CORRUPT, SIM_DIGEST,  SIM_STALE,   SIM_ENGINE, SIM_CODEC,
        SIM_DRAIN,     SIM_OPERATOR, SIM_FLIP,    SIM_LEAVE,   SIM_ABSENCE, SIM_BURST};
    struct sim_script *s = d->script;
    enum sim_fault_kind chosen[8];
    uint32_t kind_count = draw(d, 4, 8), count = draw(d, 10, one_in(d, 4) ? 30 : 18);
    s->faults_end = one_in(d, 2) ? draw(d, 300, 2000) * TS_MS : draw(d, 2, 8) * TS_S;
    for (uint32_t i = 0; i < kind_count; i++) {
        bool known = true;
        while (known) {
            chosen[i] = kinds[draw(d, 0, sizeof kinds / sizeof *kinds - 1)];
            known = false;
            for (uint32_t j = 0; j < i; j++)
                known = known || chosen[j] == chosen[i];
        }
    }
    if (one_in(d, 8)) { /* kills of the router are few: they end all that is under way */
        ts_time at = within(d, s->faults_end);
        new_fault(d, SIM_CRASH, at)->node = SIM_ROUTER;
    }
    draw_joins(d);
    for (uint32_t i = 0; i < count; i++) {
        ts_time at = within(d, s->faults_end);
        draw_fault(d, i < kind_count ? chosen[i] : chosen[draw(d, 0, kind_count - 1)], at);
    }
    while (s->fault_count < 10) { /* some kinds may not fit a second time */
        ts_time at = within(d, s->faults_end);
        draw_fault(d, SIM_CUT, at);
    }
}

void sim_script_draw(struct sim_script *script, uint64_t seed, const char *fast, const char *slow)
{
    struct draw d = {.script = script};
    bool calm = script->calm || seed % 5 == 0;
    *script = (struct sim_script){.seed = seed, .calm = calm};
    ts_rng_init(&d.rng, seed);
    d.prompt_max = one_in(&d, 4) ? SIM_PROMPT_MAX : draw(&d, 32, 64);
    d.output_max = one_in(&d, 4) ? SIM_OUTPUT_MAX : draw(&d, 16, 40);
    draw_cloud(&d, fast, slow);
    draw_cluster(&d);
    ts_rng_init(&d.rng, ts_splitmix64(seed + 1000000007));
    draw_requests(&d);
    ts_rng_init(&d.rng, ts_splitmix64(seed + 2000000014));
    if (!calm)
        draw_faults(&d);
    draw_cancels(&d);
}

void sim_prompt(const struct sim_request *request, uint32_t *out)
{
    for (uint32_t i = 0; i < request->prompt_count; i++)
        out[i] = (uint32_t)(ts_splitmix64(request->prompt_seed + i) & 1023);
}
