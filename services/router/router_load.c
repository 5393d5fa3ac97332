/* When a request would get its turn, and whether that is too late to be of use. */
#include "services/router/router_load.h"

#include "services/router/router_impl.h"

#define WAIT_ANY    1e9        /* seconds: no limit */
#define SAMPLE      (TS_S / 2) /* of busy time */
#define RETRY_LEAST 100        /* ms */
#define RETRY_MOST  60000
#define FULL_SHARE  0.8 /* of the KV blocks: from there on what is given back tells what a worker can do */

void gauge_pass(struct gauge *gauge, ts_time now, bool busy)
{
    if (busy)
        gauge->busy_ns += now - gauge->at;
    gauge->at = now;
    if (gauge->busy_ns < SAMPLE)
        return;
    double sample = gauge->done / ((double)gauge->busy_ns / TS_S);
    /* What it could do once counts: with little to do it does less for each second of being busy. */
    double weight = gauge->per_s == 0 ? 1 : sample < gauge->per_s ? 0.1 : 0.5;
    gauge->per_s += (sample - gauge->per_s) * weight;
    gauge->busy_ns = 0;
    gauge->done = 0;
}

void gauge_done(struct gauge *gauge, double amount)
{
    gauge->done += amount;
}

bool load_full(const struct member *member)
{
    const struct route_worker *w = &member->route;
    return w->kv_blocks > 0 && (double)w->kv_used > FULL_SHARE * (double)w->kv_blocks;
}

/* Before the number of waiting prompt tokens, or of used blocks, changes. */
void load_pass(struct router_core *core, struct member *member)
{
    gauge_pass(&member->prompts, core->now, member->route.prompt_tokens > 0);
    gauge_pass(&member->blocks, core->now, load_full(member));
    member->route.prompt_tokens_per_s = member->prompts.per_s;
}

struct rates { /* of the workers that may serve a request */
    double tokens, tokens_per_s, blocks_per_s, blocks_short;
    uint32_t prefill, known, decode, full_known;
};

static void add_prefill(struct rates *sum, const struct member *member)
{
    sum->prefill++;
    sum->known += member->prompts.per_s > 0;
    sum->tokens += (double)member->route.prompt_tokens;
    sum->tokens_per_s += member->prompts.per_s;
}

static void add_decode(struct rates *sum, const struct member *member)
{
    const struct route_worker *w = &member->route;
    if (w->kv_blocks == 0) /* unknown: never short of any */
        return;
    sum->decode++;
    sum->full_known += member->blocks.per_s > 0;
    sum->blocks_per_s += member->blocks.per_s;
    sum->blocks_short += (double)w->kv_used - (double)w->kv_blocks;
}

static struct rates rates_of(const struct router_core *core, uint64_t model)
{
    struct rates sum = {.tokens = (double)core->queued_tokens};
    for (size_t i = 0; i < core->worker_count; i++) {
        const struct member *member = member_of(core->workers[i]);
        if (model && member->route.model != model)
            continue;
        if (member->route.phases & TS_PHASE_PREFILL)
            add_prefill(&sum, member);
        if (member->route.phases & TS_PHASE_DECODE)
            add_decode(&sum, member);
    }
    return sum;
}

/* Seconds until its prompt would be computed and its KV would find room; 0 where nothing is known. Workers
 * whose rate is not known yet are taken to be like the others. */
static double wait_of(const struct rates *sum, const struct route_request *request)
{
    double prefill = 0, decode = 0;
    if (sum->known > 0)
        prefill = (sum->tokens + request->prompt_tokens) / (sum->tokens_per_s * sum->prefill / sum->known);
    if (sum->full_known > 0 && sum->blocks_short + request->kv_blocks > 0)
        decode =
            (sum->blocks_short + request->kv_blocks) / (sum->blocks_per_s * sum->decode / sum->full_known);
    return prefill > decode ? prefill : decode;
}

/* The same at two workers that have a place for it: what waits elsewhere is not before it. */
static double wait_at(const struct router_core *core, const struct route_request *request,
                      const struct member *p, const struct member *d)
{
    struct rates sum = {0};
    add_prefill(&sum, p);
    add_decode(&sum, d);
    bool rate = sum.known == 0;
    bool blocks = sum.full_known < sum.decode && sum.blocks_short + request->kv_blocks > 0;
    const struct rates all = rate || blocks ? rates_of(core, request->model) : sum;
    if (rate && all.known > 0) {
        sum.tokens_per_s = all.tokens_per_s / all.known;
        sum.known = 1;
    }
    if (blocks && all.full_known > 0) {
        sum.blocks_per_s = all.blocks_per_s / all.full_known;
        sum.full_known = 1;
    }
    return wait_of(&sum, request);
}

/* Seconds that it may wait; infinite = as long as it takes. */
static double limit_of(const struct router_settings *s, const struct ts_msg_generate *g)
{
    double limit = g->remaining_ms ? g->remaining_ms / 1e3 : WAIT_ANY;
    if (g->ttft_ms && s->overload_ttft_factor > 0 && g->ttft_ms / 1e3 * s->overload_ttft_factor < limit)
        limit = g->ttft_ms / 1e3 * s->overload_ttft_factor;
    if (!g->ttft_ms && !g->remaining_ms && s->queue_wait_ms)
        limit = s->queue_wait_ms / 1e3;
    return limit;
}

static double planned_wait(const struct router_core *core, const struct route_request *request,
                           const struct route_share *share)
{
    const struct route_replica *replicas = core->plan.replicas;
    return wait_at(core, request, member_of(replicas[share->prefill].worker),
                   member_of(replicas[share->decode].worker));
}

bool load_elsewhere(const struct router_core *core, const struct ts_msg_generate *g,
                    const struct route_request *request, const struct route_share *share,
                    struct route_pair *out)
{
    double limit = limit_of(&core->settings, g);
    if (limit >= WAIT_ANY || planned_wait(core, request, share) <= limit ||
        !route_pick_any(core->workers, core->worker_count, request, plan_limits(core), out) ||
        out->avoided > 0 || core->workers[out->prefill]->prompt_tokens > 0)
        return false;
    return wait_at(core, request, member_of(core->workers[out->prefill]),
                   member_of(core->workers[out->decode])) <= limit;
}

uint32_t load_too_late(const struct router_core *core, const struct ts_msg_generate *g,
                       uint32_t prompt_tokens, uint32_t output_tokens)
{
    double limit = limit_of(&core->settings, g), wait;
    if (g->next_index > 0 || limit >= WAIT_ANY) /* begun elsewhere: it goes on */
        return 0;
    const struct route_request request = {.model = g->model.count ? router_key(g->model) : 0,
                                          .prompt_tokens = prompt_tokens,
                                          .kv_blocks = ts_kv_blocks_for(prompt_tokens + output_tokens)};
    const struct route_share *share = plan_pick(core, &request, output_tokens, NULL, NULL);
    struct route_pair pair;
    if (share) {
        wait = planned_wait(core, &request, share);
    } else {
        const struct rates all = rates_of(core, request.model);
        wait = wait_of(&all, &request);
    }
    if (wait <= limit || (share && load_elsewhere(core, g, &request, share, &pair)))
        return 0;
    double retry_ms = (wait - limit) * 1e3 + 0.5;
    return retry_ms < RETRY_LEAST ? RETRY_LEAST : retry_ms > RETRY_MOST ? RETRY_MOST : (uint32_t)retry_ms;
}
