/* Maximum flow by Dinic's method: levels by breadth first, then blocking flows by depth first. */
#include <math.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/planner/baseline/baseline_common.h"

#define NONE UINT32_MAX

struct arc { /* arc i and i ^ 1 are one edge and its reverse */
    uint32_t to, next;
    double room;
};

struct network {
    struct arc *arcs;
    uint32_t *first, *level, *at, *queue; /* of each node */
    uint32_t nodes, source, sink;
    double least; /* what counts as empty */
};

static void add_arc(struct network *net, uint32_t index, uint32_t from, uint32_t to, double room)
{
    net->arcs[index] = (struct arc){to, net->first[from], room};
    net->first[from] = index;
}

static bool find_levels(struct network *net)
{
    uint32_t head = 0, tail = 0;
    for (uint32_t i = 0; i < net->nodes; i++)
        net->level[i] = NONE;
    net->level[net->source] = 0;
    net->queue[tail++] = net->source;
    while (head < tail) {
        uint32_t node = net->queue[head++];
        for (uint32_t a = net->first[node]; a != NONE; a = net->arcs[a].next) {
            if (net->arcs[a].room > net->least && net->level[net->arcs[a].to] == NONE) {
                net->level[net->arcs[a].to] = net->level[node] + 1;
                net->queue[tail++] = net->arcs[a].to;
            }
        }
    }
    return net->level[net->sink] != NONE;
}

/* One path of the level graph from the source: advances along arcs with room, steps back at dead ends.
 * `path` holds arcs. Returns what it could carry, 0 when there is none. */
static double push_path(struct network *net, uint32_t *path)
{
    uint32_t length = 0, node = net->source;
    while (node != net->sink) {
        uint32_t a = net->at[node];
        if (a == NONE) {
            if (length == 0)
                return 0;
            node = net->arcs[path[--length] ^ 1].to;
            net->at[node] = net->arcs[net->at[node]].next;
        } else if (net->arcs[a].room > net->least && net->level[net->arcs[a].to] == net->level[node] + 1) {
            path[length++] = a;
            node = net->arcs[a].to;
        } else {
            net->at[node] = net->arcs[a].next;
        }
    }
    double room = INFINITY;
    for (uint32_t i = 0; i < length; i++)
        room = fmin(room, net->arcs[path[i]].room);
    for (uint32_t i = 0; i < length; i++) {
        net->arcs[path[i]].room -= room;
        net->arcs[path[i] ^ 1].room += room;
    }
    return room;
}

double baseline_max_flow(struct baseline_edge *edges, uint32_t edge_count, uint32_t node_count,
                         uint32_t source, uint32_t sink)
{
    uint32_t *words = ts_xcalloc((size_t)node_count * 5 + 1, sizeof *words), *path = words + 4 * node_count;
    struct network net = {.arcs = ts_xcalloc((size_t)edge_count * 2 + 1, sizeof(struct arc)),
                          .first = words,
                          .level = words + node_count,
                          .at = words + 2 * (size_t)node_count,
                          .queue = words + 3 * (size_t)node_count,
                          .nodes = node_count,
                          .source = source,
                          .sink = sink};
    double value = 0, largest = 0;
    TS_ASSERT(source != sink);
    for (uint32_t i = 0; i < node_count; i++)
        net.first[i] = NONE;
    for (uint32_t i = 0; i < edge_count; i++) {
        add_arc(&net, 2 * i, edges[i].from, edges[i].to, edges[i].capacity);
        add_arc(&net, 2 * i + 1, edges[i].to, edges[i].from, 0);
        largest = fmax(largest, edges[i].capacity);
    }
    net.least = largest * 1e-12;
    while (find_levels(&net)) {
        for (uint32_t i = 0; i < node_count; i++)
            net.at[i] = net.first[i];
        double pushed;
        do {
            pushed = push_path(&net, path);
            value += pushed;
        } while (pushed > 0);
    }
    for (uint32_t i = 0; i < edge_count; i++)
        edges[i].flow = net.arcs[2 * i + 1].room;
    ts_free(net.arcs);
    ts_free(words);
    return value;
}
