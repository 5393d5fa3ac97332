/* What happens to the requests of a trial, event by event: routed, admitted to memory, computed in batches,
 * sent, decoded. Where a worker or the router decides, its own policy is called. */
#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/trial/plan_trial_impl.h"
#include "services/prefill/prefill_batch.h"

#define PATIENCE_NS   1000000 /* of a prompt, for each token: the workers' default */
#define NS            1e9
#define PARTS         8    /* of the layers that KV is sent in: the last one is what is left to send */
#define ROWS_MAX      2048 /* of a batch */
#define UNSTARTED_MAX 256  /* prompts that the router gives one prefill replica */
#define DECODING_MAX  8192
#define ATTEMPTS_MAX  16 /* of one request */

/* --- Lists --- */

static void insert_at(struct trial_list *list, uint32_t at, uint32_t request)
{
    ts_array_reserve((void **)&list->items, &list->capacity, (size_t)list->count + 1, sizeof *list->items);
    memmove(list->items + at + 1, list->items + at, (list->count - at) * sizeof *list->items);
    list->items[at] = request;
    list->count++;
}

/* Requests are numbered by age. */
static void insert_by_age(struct trial_list *list, uint32_t request)
{
    uint32_t at = list->count;
    while (at > 0 && list->items[at - 1] > request)
        at--;
    insert_at(list, at, request);
}

static void remove_at(struct trial_list *list, uint32_t at)
{
    list->count--;
    memmove(list->items + at, list->items + at + 1, (list->count - at) * sizeof *list->items);
}

static void remove_item(struct trial_list *list, uint32_t request)
{
    uint32_t at = 0;
    while (list->items[at] != request)
        at++;
    remove_at(list, at);
}

static int64_t due_of(const struct trial_request *r)
{
    return prefill_due((int64_t)(r->at * NS), r->prompt, PATIENCE_NS);
}

static void insert_by_due(const struct trial *trial, struct trial_list *list, uint32_t request)
{
    int64_t due = due_of(&trial->requests[request]);
    uint32_t at = list->count;
    for (; at > 0; at--) {
        int64_t other = due_of(&trial->requests[list->items[at - 1]]);
        if (other < due || (other == due && list->items[at - 1] < request))
            break;
    }
    insert_at(list, at, request);
}

/* --- Events --- */

static bool event_before(const struct trial_event *a, const struct trial_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct trial *trial, double at, uint32_t replica, uint32_t request)
{
    ts_array_reserve((void **)&trial->events, &trial->event_capacity, trial->event_count + 1,
                     sizeof *trial->events);
    struct trial_event event = {at, trial->order++, replica, request};
    size_t i = trial->event_count++;
    for (; i > 0 && event_before(&event, &trial->events[(i - 1) / 2]); i = (i - 1) / 2)
        trial->events[i] = trial->events[(i - 1) / 2];
    trial->events[i] = event;
}

static struct trial_event pop(struct trial *trial)
{
    struct trial_event first = trial->events[0], last = trial->events[--trial->event_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < trial->event_count) {
        if (child + 1 < trial->event_count && event_before(&trial->events[child + 1], &trial->events[child]))
            child++;
        if (!event_before(&trial->events[child], &last))
            break;
        trial->events[i] = trial->events[child];
        i = child;
    }
    trial->events[i] = last;
    return first;
}

/* --- KV on its way --- */

static struct trial_replica *prefill_of(const struct trial *trial, const struct trial_request *r)
{
    return &trial->replicas[trial->shares[r->share].prefill];
}

static struct trial_replica *decode_of(const struct trial *trial, const struct trial_request *r)
{
    return &trial->replicas[trial->shares[r->share].decode];
}

static bool splits(const struct trial *trial, const struct trial_request *r)
{
    return trial->shares[r->share].prefill != trial->shares[r->share].decode;
}

/* KV of `tokens` that are computed from now on, or before: the layers of each lane may go as they are there,
 * one chunk after the other out of a card and into one; the last part of the layers goes when the batch is
 * over. */
static void send_kv(struct trial *trial, struct trial_request *r, uint32_t tokens, double computed)
{
    const struct trial_share *share = &trial->shares[r->share];
    const struct ts_cluster *cluster = trial->problem->cluster;
    double bytes = tokens * trial->token_bytes * ts_cost_codec_ratio(share->codec, r->prompt);
    for (uint32_t i = 0; i < share->lane_count; i++) {
        const struct trial_lane *lane = &trial->lanes[share->lane_first + i];
        const struct ts_node *from = &cluster->nodes[lane->from], *to = &cluster->nodes[lane->to];
        double part = bytes * lane->part, lasts = part / lane->link->bytes_per_s, ends = trial->now + lasts;
        if (lane->from != lane->to) {
            double *out = &trial->out_free[lane->from], *in = &trial->in_free[lane->to];
            double begin = fmax(trial->now, *out);
            *out = begin + part / from->nic_out_bytes_per_s;
            *in = fmax(begin, *in) + part / to->nic_in_bytes_per_s;
            ends = fmax(begin + lasts, fmax(*out, *in));
        }
        ends = fmax(ends, computed + lasts / PARTS) + lane->link->latency_s;
        r->sent = fmax(r->sent, ends);
    }
}

static void kv_complete(struct trial *trial, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    if (r->granted && r->done == r->total)
        push(trial, fmax(trial->now, r->sent), TRIAL_NONE, request);
}

/* --- Admission --- */

static bool take(struct trial_replica *replica, uint32_t tokens, uint32_t kept, uint32_t *blocks)
{
    uint32_t need = ts_kv_blocks_for(tokens);
    if (replica->free_blocks < need + kept)
        return false;
    replica->free_blocks -= need;
    *blocks = need;
    return true;
}

static void admit_decode(struct trial *trial, struct trial_replica *replica)
{
    while (replica->grants.count > 0) {
        uint32_t request = replica->grants.items[0];
        struct trial_request *r = &trial->requests[request];
        if (!take(replica, r->total + 1, replica->ready.count, &r->blocks))
            return;
        remove_at(&replica->grants, 0);
        r->granted = true;
        if (r->issued > 0) /* what waited at the relay */
            send_kv(trial, r, r->issued, trial->now);
        kv_complete(trial, request);
    }
}

static void admit_prefill(struct trial *trial, struct trial_replica *replica)
{
    while (replica->waiting.count > 0) {
        uint32_t request = replica->waiting.items[0];
        struct trial_request *r = &trial->requests[request];
        bool both = !splits(trial, r);
        if (!take(replica, r->total + both, replica->ready.count, both ? &r->blocks : &r->feeding))
            return;
        remove_at(&replica->waiting, 0);
        insert_by_due(trial, &replica->prefilling, request);
        if (!both) {
            insert_by_age(&decode_of(trial, r)->grants, request);
            admit_decode(trial, decode_of(trial, r));
        }
    }
}

/* --- Batches --- */

static void add_row(struct trial_batch *batch, uint32_t request, uint32_t tokens, bool prompt, bool last)
{
    ts_array_reserve((void **)&batch->rows, &batch->capacity, (size_t)batch->count + 1, sizeof *batch->rows);
    batch->rows[batch->count++] = (struct trial_row){request, tokens, prompt, last};
}

/* Gives up its place at decode. One that the whole memory cannot hold is never served. */
static void preempt(struct trial *trial, struct trial_replica *replica, uint32_t request, bool again)
{
    struct trial_request *r = &trial->requests[request];
    replica->free_blocks += r->blocks;
    replica->route.rows--;
    replica->route.kv_used -= ts_kv_blocks_for(r->prompt + r->output);
    remove_item(&replica->ready, request);
    r->blocks = r->issued = r->done = 0;
    r->granted = false;
    r->total = r->prompt + r->produced;
    r->share = TRIAL_NONE;
    if (again)
        insert_by_age(&trial->held, request);
}

/* Room for one more token. Out of blocks, the youngest that is in no batch gives way, if it is younger. */
static bool make_room(struct trial *trial, struct trial_replica *replica, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    uint32_t need = ts_kv_blocks_for(r->prompt + r->produced);
    if (need <= r->blocks)
        return true;
    for (uint32_t at = replica->ready.count; replica->free_blocks == 0 && at > 0; at--) {
        uint32_t youngest = replica->ready.items[at - 1];
        if (youngest <= request)
            break;
        if (!trial->requests[youngest].in_batch)
            preempt(trial, replica, youngest, true);
    }
    if (replica->free_blocks < need - r->blocks)
        return false;
    replica->free_blocks -= need - r->blocks;
    r->blocks = need;
    return true;
}

/* As many as are fair among the batches that may run. */
static void add_decode_rows(struct trial *trial, struct trial_replica *replica, struct trial_batch *batch)
{
    uint32_t most = replica->stage_count, ready = replica->ready.count, slots = most - replica->running;
    uint32_t fair = (ready + most - 1) / most, now = (ready - replica->flying + slots - 1) / slots;
    uint32_t share = fair < now ? fair : now;
    share = share < ROWS_MAX ? share : ROWS_MAX;
    for (uint32_t i = 0; i < replica->ready.count && batch->count < share; i++) {
        uint32_t request = replica->ready.items[i];
        struct trial_request *r = &trial->requests[request];
        if (ts_kv_blocks_for(r->prompt + r->produced) > replica->blocks) {
            preempt(trial, replica, request, false);
            i--;
            continue;
        }
        if (r->in_batch || !make_room(trial, replica, request))
            continue;
        r->in_batch = true;
        replica->flying++;
        add_row(batch, request, 1, false, true);
    }
}

static void add_prompt_rows(struct trial *trial, struct trial_replica *replica, struct trial_batch *batch)
{
    uint32_t budget = replica->budget - batch->count, rows = ROWS_MAX - batch->count;
    for (uint32_t i = 0; i < replica->prefilling.count && budget > 0 && rows > 0;) {
        uint32_t request = replica->prefilling.items[i], tokens;
        struct trial_request *r = &trial->requests[request];
        const struct prefill_candidate candidate = {r->issued, r->total};
        prefill_batch(&candidate, 1, budget, rows, &tokens);
        if (tokens > 0) {
            budget -= tokens;
            rows--;
            r->issued += tokens;
            add_row(batch, request, tokens, true, r->issued == r->total);
        }
        if (r->issued == r->total)
            remove_at(&replica->prefilling, i);
        else
            i++;
    }
}

static void start(struct trial *trial, struct trial_replica *replica)
{
    admit_decode(trial, replica);
    admit_prefill(trial, replica);
    while (replica->running < replica->stage_count) {
        uint32_t slot = (replica->first + replica->running) % replica->stage_count;
        struct trial_batch *batch = &replica->batches[slot];
        batch->count = 0;
        add_decode_rows(trial, replica, batch);
        add_prompt_rows(trial, replica, batch);
        if (batch->count == 0)
            return;
        replica->running++;
        batch->ends = trial_pass(trial, replica, batch);
        for (uint32_t i = 0; i < batch->count; i++) {
            struct trial_request *r = &trial->requests[batch->rows[i].request];
            if (batch->rows[i].prompt && splits(trial, r) && r->granted)
                send_kv(trial, r, batch->rows[i].tokens, batch->ends);
        }
        push(trial, batch->ends, (uint32_t)(replica - trial->replicas), TRIAL_NONE);
    }
}

/* --- Routing --- */

static void avoid(uint64_t *keys, size_t *count, const struct trial_replica *replica)
{
    for (size_t i = 0; i < *count; i++) {
        if (keys[i] == replica->route.key)
            return;
    }
    keys[(*count)++] = replica->route.key;
}

/* The pair of two replicas, of the plan or not. */
static uint32_t pair_of(struct trial *trial, size_t prefill, size_t decode)
{
    uint32_t i = 0;
    while (i < trial->share_count &&
           (trial->shares[i].prefill != prefill || trial->shares[i].decode != decode))
        i++;
    if (i == trial->share_count)
        trial_add_share(trial, (uint32_t)prefill, (uint32_t)decode, TS_COST_CODEC_NONE);
    return i;
}

/* As the router assigns: by the plan's shares, and where these have no place or only replicas that failed the
 * request before, whoever is best of all. */
static uint32_t assign(struct trial *trial, const struct trial_request *r, const struct route_request *wish)
{
    static const struct route_limits limits = {UNSTARTED_MAX, DECODING_MAX};
    const struct route_class *of = &trial->classes[r->length_class];
    struct route_pair any;
    unsigned avoided = 0;
    size_t picked =
        of->share_count ? route_pick_share(of, trial->routes, wish, limits, &avoided) : ROUTE_NONE;
    if ((picked == ROUTE_NONE || avoided > 0) &&
        route_pick_any(trial->workers, trial->plan->group_count, wish, limits, &any) &&
        (picked == ROUTE_NONE || any.avoided < avoided))
        return pair_of(trial, any.prefill, any.decode);
    if (picked == ROUTE_NONE)
        return TRIAL_NONE;
    struct route_share *share = &trial->route_shares[of->shares + picked - trial->route_shares];
    share->sent++;
    return (uint32_t)(share - trial->route_shares);
}

/* A pair that can hold the prompt: where it is too large for a replica, the router tries again and avoids
 * that one, until it gives up. TRIAL_NONE: it gave up, or, `busy`, some may take it later. */
static uint32_t pick_pair(struct trial *trial, const struct trial_request *r, bool *busy)
{
    uint64_t avoided[ATTEMPTS_MAX];
    struct route_request wish = {
        .prompt_tokens = r->total, .kv_blocks = ts_kv_blocks_for(r->prompt + r->output), .avoid = avoided};
    *busy = false;
    for (int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        uint32_t picked = assign(trial, r, &wish);
        *busy = picked == TRIAL_NONE;
        if (*busy)
            return TRIAL_NONE;
        const struct trial_replica *prefill = &trial->replicas[trial->shares[picked].prefill];
        const struct trial_replica *decode = &trial->replicas[trial->shares[picked].decode];
        if (ts_kv_blocks_for(r->total + (prefill == decode)) > prefill->blocks)
            avoid(avoided, &wish.avoid_count, prefill);
        else if (ts_kv_blocks_for(r->total + 1) > decode->blocks)
            avoid(avoided, &wish.avoid_count, decode);
        else
            return picked;
    }
    return TRIAL_NONE;
}

static void route(struct trial *trial, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    bool busy;
    r->share = pick_pair(trial, r, &busy);
    if (busy)
        insert_by_age(&trial->held, request);
    if (r->share == TRIAL_NONE)
        return;
    struct trial_replica *prefill = prefill_of(trial, r), *decode = decode_of(trial, r);
    prefill->route.unstarted++;
    prefill->route.prompt_tokens += r->total;
    decode->route.rows++;
    decode->route.kv_used += ts_kv_blocks_for(r->prompt + r->output);
    insert_by_age(&prefill->waiting, request);
    start(trial, prefill);
}

static void route_held(struct trial *trial)
{
    while (trial->held.count > 0) {
        uint32_t request = trial->held.items[0], before = trial->held.count;
        remove_at(&trial->held, 0);
        route(trial, request);
        if (trial->held.count >= before)
            return;
    }
}

/* --- What ends --- */

static void finish(struct trial *trial, struct trial_replica *replica, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    r->end = trial->now;
    replica->free_blocks += r->blocks;
    r->blocks = 0;
    replica->route.rows--;
    replica->route.kv_used -= ts_kv_blocks_for(r->prompt + r->output);
}

static void give_feeding(struct trial *trial, struct trial_request *r)
{
    struct trial_replica *prefill = prefill_of(trial, r);
    prefill->free_blocks += r->feeding;
    r->feeding = 0;
    prefill->route.unstarted--;
}

static void prompt_over(struct trial *trial, struct trial_replica *replica, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    replica->route.prompt_tokens -= r->total;
    if (r->produced == 0) {
        r->produced = 1;
        r->first = trial->now;
    }
    if (splits(trial, r)) {
        kv_complete(trial, request);
        return;
    }
    replica->route.unstarted--;
    if (r->produced >= r->output)
        finish(trial, replica, request);
    else
        insert_by_age(&replica->ready, request);
}

static void batch_over(struct trial *trial, struct trial_replica *replica)
{
    struct trial_batch *batch = &replica->batches[replica->first];
    replica->first = (replica->first + 1) % replica->stage_count;
    replica->running--;
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct trial_row row = batch->rows[i];
        struct trial_request *r = &trial->requests[row.request];
        if (row.prompt) {
            r->done += row.tokens;
            if (row.last)
                prompt_over(trial, replica, row.request);
            continue;
        }
        r->in_batch = false;
        replica->flying--;
        if (++r->produced < r->output)
            continue;
        remove_item(&replica->ready, row.request);
        finish(trial, replica, row.request);
    }
    start(trial, replica);
}

static void kv_there(struct trial *trial, uint32_t request)
{
    struct trial_request *r = &trial->requests[request];
    struct trial_replica *prefill = prefill_of(trial, r), *decode = decode_of(trial, r);
    give_feeding(trial, r);
    if (r->produced >= r->output)
        finish(trial, decode, request);
    else
        insert_by_age(&decode->ready, request);
    start(trial, decode);
    start(trial, prefill);
}

void trial_play(struct trial *trial)
{
    for (uint32_t next = 0; next < trial->request_count || trial->event_count > 0;) {
        bool arrives = next < trial->request_count &&
                       (trial->event_count == 0 || trial->requests[next].at <= trial->events[0].at);
        if (arrives) {
            trial->now = trial->requests[next].at;
            route(trial, next++);
            continue;
        }
        struct trial_event event = pop(trial);
        trial->now = event.at;
        if (event.replica == TRIAL_NONE)
            kv_there(trial, event.request);
        else
            batch_over(trial, &trial->replicas[event.replica]);
        route_held(trial);
    }
}
