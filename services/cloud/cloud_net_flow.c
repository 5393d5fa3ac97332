/*
 * Shared bandwidth. A flow goes through the card out of its node, a link, and the card into the other node,
 * or through the inside of one node. What is shared is shared max-min fairly: all rates grow together until
 * something is full, the flows through it stop there, the others grow on (Bertsekas and Gallager, Data
 * Networks, 2nd ed., section 6.5.2). When a flow begins or ends, or a rate changes, only the flows that share
 * something with it, and those that share something with these, and so on, are settled and shared out anew.
 *
 * A flow has one occurrence in the heap at most that counts. When it slows down, the old one stays and is
 * moved once it comes; when it speeds up, a new one takes its place.
 */
#include <math.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/cloud/cloud_flow.h"
#include "services/cloud/cloud_impl.h"

enum { CARD_OUT, LINK, CARD_IN, HOOKS };

struct road { /* something that flows share */
    double nominal, factor;
    struct cloud_flow *flows;
    uint32_t count;
    int hook; /* of the flows' lists */
    double bytes;
    ts_time busy, busy_since;
    uint64_t mark; /* of the present component */
    double left;   /* while rates grow */
    uint32_t growing;
};

struct cloud_flow {
    uint32_t refs; /* 1 of its own while under way, and its occurrences */
    bool over;
    uint64_t version;             /* of the occurrence that counts */
    ts_time event_at, end_at, at; /* of that one; true end; settled at */
    double left, rate;
    struct road *roads[HOOKS]; /* NULL = not through one */
    struct cloud_flow *next[HOOKS], **link[HOOKS];
    uint64_t mark;
    bool grown;
    void (*call)(void *context);
    void *context;
};

struct full { /* heap of roads by the rate at which they are full */
    double rate;
    size_t road;
};

struct cloud_flows {
    const struct ts_cluster *cluster;
    struct road *cards;  /* [node], out and in */
    struct road **links; /* [from][to], made when used; the diagonal is the inside */
    uint64_t mark;
    struct road **roads; /* the present component */
    struct cloud_flow **flows;
    struct full *heap;
    size_t road_count, road_capacity, flow_count, flow_capacity, heap_count, heap_capacity;
};

struct cloud_flows *flows_new(const struct ts_cluster *cluster)
{
    struct cloud_flows *f = ts_xcalloc(1, sizeof *f);
    f->cluster = cluster;
    f->cards = ts_xcalloc((size_t)cluster->node_count * 2 + 1, sizeof *f->cards);
    f->links = ts_xcalloc((size_t)cluster->node_count + 1, sizeof(struct road *));
    for (uint32_t i = 0; i < cluster->node_count; i++) {
        f->cards[2 * i] = (struct road){.nominal = cluster->nodes[i].nic_out_bytes_per_s, .factor = 1};
        f->cards[2 * i + 1] =
            (struct road){.nominal = cluster->nodes[i].nic_in_bytes_per_s, .factor = 1, .hook = CARD_IN};
    }
    return f;
}

void flows_destroy(struct cloud_flows **flows)
{
    struct cloud_flows *f = *flows;
    if (!f)
        return;
    for (uint32_t from = 0; from < f->cluster->node_count; from++) {
        for (uint32_t to = 0; f->links[from] && to < f->cluster->node_count; to++) {
            for (struct cloud_flow *flow = f->links[from][to].flows, *next; flow; flow = next) {
                next = flow->next[LINK];
                ts_free(flow);
            }
        }
        ts_free(f->links[from]);
    }
    ts_free(f->links);
    ts_free(f->cards);
    ts_free(f->roads);
    ts_free(f->flows);
    ts_free(f->heap);
    ts_free(f);
    *flows = NULL;
}

/* Inside of a node: its own link, else the slowest of its devices'. */
static const struct ts_link *link_of(const struct ts_cluster *cluster, uint32_t from, uint32_t to)
{
    const struct ts_link *slowest = NULL;
    if (from != to)
        return ts_cluster_link(cluster, from, to);
    for (uint32_t i = 0; i < cluster->cell_count; i++) {
        const struct ts_link *inner = ts_cluster_inner(cluster, from, cluster->cells[i].type);
        if (cluster->cells[i].node == from && (!slowest || inner->bytes_per_s < slowest->bytes_per_s))
            slowest = inner;
    }
    return slowest ? slowest : &cluster->nodes[from].inner;
}

static struct road *link_road(struct cloud_flows *f, uint32_t from, uint32_t to)
{
    uint32_t n = f->cluster->node_count;
    TS_ASSERT(from < n && to < n);
    if (!f->links[from]) {
        f->links[from] = ts_xcalloc(n, sizeof *f->links[from]);
        for (uint32_t i = 0; i < n; i++)
            f->links[from][i] = (struct road){
                .nominal = link_of(f->cluster, from, i)->bytes_per_s, .factor = 1, .hook = LINK};
    }
    return &f->links[from][to];
}

static double capacity_of(const struct road *road)
{
    return road->nominal * road->factor;
}

/* --- one component ----------------------------------------------------------------------------------- */

static void add_road(struct cloud_flows *f, struct road *road)
{
    void *roads = f->roads;
    if (!road || road->mark == f->mark)
        return;
    road->mark = f->mark;
    ts_array_reserve(&roads, &f->road_capacity, f->road_count + 1, sizeof(struct road *));
    f->roads = roads;
    f->roads[f->road_count++] = road;
}

static void add_flow(struct cloud_flows *f, struct cloud_flow *flow)
{
    void *flows = f->flows;
    if (flow->mark == f->mark)
        return;
    flow->mark = f->mark;
    ts_array_reserve(&flows, &f->flow_capacity, f->flow_count + 1, sizeof(struct cloud_flow *));
    f->flows = flows;
    f->flows[f->flow_count++] = flow;
    for (int hook = 0; hook < HOOKS; hook++)
        add_road(f, flow->roads[hook]);
}

static void collect(struct cloud_flows *f, struct road *const seeds[HOOKS])
{
    f->mark++;
    f->road_count = f->flow_count = 0;
    for (int hook = 0; hook < HOOKS; hook++)
        add_road(f, seeds[hook]);
    for (size_t i = 0; i < f->road_count; i++) {
        for (struct cloud_flow *flow = f->roads[i]->flows; flow; flow = flow->next[f->roads[i]->hook])
            add_flow(f, flow);
    }
}

static void moved(struct cloud_flow *flow, double bytes)
{
    flow->left -= bytes;
    for (int hook = 0; hook < HOOKS; hook++) {
        if (flow->roads[hook])
            flow->roads[hook]->bytes += bytes;
    }
}

static void settle(struct cloud_flow *flow, ts_time now)
{
    double bytes = flow->rate * ((double)(now - flow->at) / 1e9);
    if (now > flow->at && bytes > 0)
        moved(flow, bytes < flow->left ? bytes : flow->left);
    flow->at = now;
}

/* --- rates ------------------------------------------------------------------------------------------- */

static bool sooner(struct full a, struct full b)
{
    return a.rate != b.rate ? a.rate < b.rate : a.road < b.road;
}

static void heap_put(struct cloud_flows *f, struct full item)
{
    void *heap = f->heap;
    ts_array_reserve(&heap, &f->heap_capacity, f->heap_count + 1, sizeof *f->heap);
    f->heap = heap;
    size_t hole = f->heap_count++;
    for (; hole > 0 && sooner(item, f->heap[(hole - 1) / 2]); hole = (hole - 1) / 2)
        f->heap[hole] = f->heap[(hole - 1) / 2];
    f->heap[hole] = item;
}

static struct full heap_take(struct cloud_flows *f)
{
    struct full top = f->heap[0], last = f->heap[--f->heap_count];
    size_t hole = 0;
    for (size_t child; (child = 2 * hole + 1) < f->heap_count; hole = child) {
        if (child + 1 < f->heap_count && sooner(f->heap[child + 1], f->heap[child]))
            child++;
        if (!sooner(f->heap[child], last))
            break;
        f->heap[hole] = f->heap[child];
    }
    f->heap[hole] = last;
    return top;
}

static void stop_growing(struct cloud_flow *flow, double rate)
{
    flow->grown = true;
    flow->rate = rate;
    for (int hook = 0; hook < HOOKS; hook++) {
        struct road *road = flow->roads[hook];
        if (!road)
            continue;
        road->left = road->left > rate ? road->left - rate : 0;
        road->growing--;
    }
}

/* A road is full no earlier than was thought: others that stopped leave more for those that grow on. */
static void share_out(struct cloud_flows *f)
{
    f->heap_count = 0;
    for (size_t i = 0; i < f->flow_count; i++)
        f->flows[i]->grown = false;
    for (size_t i = 0; i < f->road_count; i++) {
        struct road *road = f->roads[i];
        road->left = capacity_of(road);
        road->growing = road->count;
        if (road->count > 0)
            heap_put(f, (struct full){road->left / road->growing, i});
    }
    while (f->heap_count > 0) {
        struct full full = heap_take(f);
        struct road *road = f->roads[full.road];
        if (road->growing == 0)
            continue;
        double rate = road->left / road->growing;
        if (rate > full.rate) {
            heap_put(f, (struct full){rate, full.road});
            continue;
        }
        for (struct cloud_flow *flow = road->flows; flow; flow = flow->next[road->hook]) {
            if (!flow->grown)
                stop_growing(flow, rate);
        }
    }
}

/* --- ends -------------------------------------------------------------------------------------------- */

struct flow_end {
    struct occurrence o;
    struct cloud_flow *flow;
    uint64_t version;
};

static void unref(struct cloud_flow *flow)
{
    if (--flow->refs == 0)
        ts_free(flow);
}

static void forget_end(struct occurrence *o)
{
    unref(((struct flow_end *)o)->flow);
    ts_free(o);
}

static void end_happens(struct cloud *cloud, struct occurrence *o);

static void schedule(struct cloud *cloud, struct cloud_flow *flow)
{
    flow->end_at = TS_TIME_NEVER;
    double ns = flow->left <= 0 ? 0 : ceil(flow->left / flow->rate * 1e9);
    if (ns < 1e18) /* else it stands still until a rate changes */
        flow->end_at = cloud->now + (ts_time)ns;
    if (flow->end_at >= flow->event_at)
        return;
    struct flow_end *end = ts_xcalloc(1, sizeof *end);
    *end = (struct flow_end){
        .o = {.happen = end_happens, .forget = forget_end}, .flow = flow, .version = ++flow->version};
    flow->refs++;
    flow->event_at = flow->end_at;
    cloud_push(cloud, flow->end_at, &end->o);
}

static void update(struct cloud *cloud, struct road *const seeds[HOOKS])
{
    struct cloud_flows *f = cloud->flows;
    collect(f, seeds);
    for (size_t i = 0; i < f->flow_count; i++)
        settle(f->flows[i], cloud->now);
    share_out(f);
    for (size_t i = 0; i < f->flow_count; i++)
        schedule(cloud, f->flows[i]);
}

static void enter(struct cloud *cloud, struct cloud_flow *flow)
{
    for (int hook = 0; hook < HOOKS; hook++) {
        struct road *road = flow->roads[hook];
        if (!road)
            continue;
        flow->next[hook] = road->flows;
        flow->link[hook] = &road->flows;
        if (road->flows)
            road->flows->link[hook] = &flow->next[hook];
        road->flows = flow;
        if (road->count++ == 0)
            road->busy_since = cloud->now;
    }
}

static void leave(struct cloud *cloud, struct cloud_flow *flow)
{
    flow->over = true;
    for (int hook = 0; hook < HOOKS; hook++) {
        struct road *road = flow->roads[hook];
        if (!road)
            continue;
        *flow->link[hook] = flow->next[hook];
        if (flow->next[hook])
            flow->next[hook]->link[hook] = flow->link[hook];
        if (--road->count == 0)
            road->busy += cloud->now - road->busy_since;
    }
    update(cloud, flow->roads);
}

static void end_happens(struct cloud *cloud, struct occurrence *o)
{
    struct flow_end *end = (struct flow_end *)o;
    struct cloud_flow *flow = end->flow;
    if (flow->over || end->version != flow->version) {
        forget_end(o);
        return;
    }
    if (flow->end_at > cloud->now) { /* it has slowed down meanwhile */
        flow->event_at = flow->end_at;
        if (flow->end_at == TS_TIME_NEVER)
            forget_end(o);
        else
            cloud_push(cloud, flow->end_at, o);
        return;
    }
    moved(flow, flow->left);
    leave(cloud, flow);
    flow->call(flow->context);
    unref(flow);
    forget_end(o);
}

/* --- for others -------------------------------------------------------------------------------------- */

struct cloud_flow *flow_begin(struct cloud *cloud, uint32_t from, uint32_t to, double bytes,
                              void (*call)(void *context), void *context)
{
    struct cloud_flows *f = cloud->flows;
    struct cloud_flow *flow = ts_xcalloc(1, sizeof *flow);
    *flow = (struct cloud_flow){.refs = 1,
                                .event_at = TS_TIME_NEVER,
                                .at = cloud->now,
                                .left = bytes,
                                .call = call,
                                .context = context};
    flow->roads[LINK] = link_road(f, from, to);
    if (from != to) {
        flow->roads[CARD_OUT] = &f->cards[2 * from];
        flow->roads[CARD_IN] = &f->cards[2 * to + 1];
    }
    for (int hook = 0; hook < HOOKS; hook++) {
        if (flow->roads[hook] && flow->roads[hook]->nominal <= 0)
            cloud_fail(cloud, "bytes for node %s of the cluster, which node %s does not reach",
                       f->cluster->nodes[to].name, f->cluster->nodes[from].name);
    }
    enter(cloud, flow);
    update(cloud, flow->roads);
    return flow;
}

void flow_cancel(struct cloud *cloud, struct cloud_flow *flow)
{
    settle(flow, cloud->now);
    leave(cloud, flow);
    unref(flow);
}

ts_time flow_latency(const struct cloud *cloud, uint32_t from, uint32_t to)
{
    return (ts_time)(link_of(cloud->flows->cluster, from, to)->latency_s * 1e9);
}

void cloud_flow(struct cloud *cloud, uint32_t from, uint32_t to, double bytes, void (*over)(void *context),
                void *context)
{
    TS_ASSERT(cloud->flows);
    flow_begin(cloud, from, to, bytes, over, context);
}

void cloud_link_factor(struct cloud *cloud, uint32_t from, uint32_t to, double factor)
{
    TS_ASSERT(cloud->flows && factor >= 0);
    struct road *road = link_road(cloud->flows, from, to);
    struct road *seeds[HOOKS] = {[LINK] = road};
    road->factor = factor;
    update(cloud, seeds);
}

static struct cloud_link_use use_of(const struct cloud *cloud, const struct road *road)
{
    ts_time busy = road->busy + (road->count > 0 ? cloud->now - road->busy_since : 0);
    double bytes = road->bytes;
    for (const struct cloud_flow *flow = road->flows; flow; flow = flow->next[road->hook])
        bytes += flow->rate * ((double)(cloud->now - flow->at) / 1e9);
    return (struct cloud_link_use){bytes, (double)busy / 1e9, capacity_of(road)};
}

struct cloud_link_use cloud_link_use(const struct cloud *cloud, uint32_t from, uint32_t to)
{
    struct cloud_flows *f = cloud->flows;
    TS_ASSERT(from < f->cluster->node_count && to < f->cluster->node_count);
    if (!f->links[from])
        return (struct cloud_link_use){.bytes_per_s = link_of(f->cluster, from, to)->bytes_per_s};
    return use_of(cloud, &f->links[from][to]);
}

struct cloud_link_use cloud_card_use(const struct cloud *cloud, uint32_t node, bool out)
{
    return use_of(cloud, &cloud->flows->cards[2 * node + (out ? 0 : 1)]);
}
