/* A snapshot's workers of one model as a cluster and the plan in force on it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "services/planner/live/planner_live_impl.h"

/* Inside a host whose devices' links nobody names the KV moves through memory; between hosts, until the
 * relays have measured it: ordinary 10 Gbit/s Ethernet. */
static const struct ts_link same_host = {"host", 10e9, 20e-6}, other_host = {"10gbe", 1.25e9, 100e-6};

const struct ts_device_type planner_live_unknown = {
    .name = "unknown",
    .memory_bytes = 24e9,
    .memory_bytes_per_s = 600e9,
    .flops = 60e12,
    .fit = {.flops_efficiency = 0.6,
            .memory_efficiency = 0.75,
            .context_efficiency = 0.6,
            .attention_efficiency = 0.4,
            .layer_s = 2e-5,
            .step_s = 2e-3,
            .tokens_half = 64},
};

struct stages { /* of a worker */
    struct ts_stage_item items[TS_STAGES_MAX];
    uint32_t count;
};

struct device { /* of the cluster to be */
    uint32_t host, node, type, unit, stage, rank;
};

struct maker {
    const struct planner_live *live;
    struct live_model *m;
    struct stages *stages; /* of each unit's first worker */
    struct device *devices;
    uint32_t device_count, device_capacity;
    struct ts_map *hosts, *types;                         /* name -> index + 1 */
    struct ts_str host_names[TS_CLUSTER_NODES_MAX];       /* by index */
    struct ts_device_type types_of[TS_CLUSTER_TYPES_MAX]; /* by index */
    struct ts_cluster *net; /* the hosts and the links between them, no devices */
    bool *known;            /* of the links of `net` */
    uint32_t node_count,
        host_of[TS_CLUSTER_NODES_MAX]; /* nodes: hosts, or of a large cluster each unit's own */
};

static const struct ts_plan_worker *worker_at(const struct planner_live *live, uint32_t index)
{
    return &live->snapshot->workers.data[index];
}

static void copy_name(char *out, size_t size, struct ts_str name)
{
    size_t bytes = name.count < size - 1 ? name.count : size - 1;
    if (bytes)
        memcpy(out, name.data, bytes);
    out[bytes] = '\0';
}

static struct ts_model model_of(const struct ts_plan_worker *w)
{
    struct ts_model model = {.layers = w->layers,
                             .hidden = w->hidden,
                             .intermediate = w->intermediate,
                             .heads = w->heads,
                             .kv_heads = w->kv_heads,
                             .head_dim = w->head_dim,
                             .vocab = w->vocab,
                             .weight_dtype = TS_DTYPE_BF16,
                             .kv_dtype = w->kv_dtype ? (enum ts_dtype)w->kv_dtype : TS_DTYPE_BF16};
    copy_name(model.name, sizeof model.name, w->model);
    return model;
}

/* --- Units --- */

bool live_same_make(const struct ts_plan_worker *a, const struct ts_plan_worker *b)
{
    bool same =
        a->phases == b->phases && a->stages.count == b->stages.count && ts_str_equal(a->device, b->device);
    for (uint32_t s = 0; same && s < a->stages.count; s++) {
        const struct ts_stage_item *x = &a->stages.data[s], *y = &b->stages.data[s];
        same = x->tp == y->tp && x->layers == y->layers && ts_str_equal(x->device, y->device);
    }
    return same;
}

/* Each worker's kind; returns how many there are. */
static uint32_t find_kinds(const struct planner_live *live, const struct live_model *m, uint32_t *kind_of)
{
    uint32_t *first = ts_xcalloc(m->count, sizeof *first), kinds = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        uint32_t k = 0;
        const struct ts_plan_worker *w = worker_at(live, m->workers[i]), *like;
        while (k < kinds && (like = worker_at(live, m->workers[first[k]])) &&
               !(like->phase == w->phase && live_same_make(like, w)))
            k++;
        if (k == kinds)
            first[kinds++] = i;
        kind_of[i] = k;
    }
    ts_free(first);
    return kinds;
}

/* Members of a kind stand one after the other, cut into as many units of nearly equal size as fall to it. */
static void cut_kind(struct live_model *m, uint32_t begin, uint32_t count)
{
    uint32_t parts = (uint32_t)(count / m->per_unit + 0.5);
    parts = parts ? parts : 1;
    for (uint32_t p = 0; p < parts; p++) {
        uint32_t from = (uint32_t)((uint64_t)count * p / parts);
        uint32_t to = (uint32_t)((uint64_t)count * (p + 1) / parts);
        m->units[m->unit_count++] = (struct live_unit){begin + from, to - from};
    }
}

static void make_units(const struct planner_live *live, struct live_model *m)
{
    m->members = ts_xcalloc(m->count, sizeof *m->members);
    m->units = ts_xcalloc(m->count, sizeof *m->units);
    m->per_unit = 1;
    if (m->count <= LIVE_EACH_MAX) {
        for (uint32_t i = 0; i < m->count; i++) {
            m->members[i] = m->workers[i];
            m->units[m->unit_count++] = (struct live_unit){i, 1};
        }
        return;
    }
    uint32_t *kind_of = ts_xcalloc(m->count, sizeof *kind_of), kinds = find_kinds(live, m, kind_of), at = 0;
    m->per_unit = ceil((double)m->count / LIVE_PARTS_MAX);
    for (uint32_t k = 0; k < kinds; k++) {
        uint32_t begin = at;
        for (uint32_t i = 0; i < m->count; i++) {
            if (kind_of[i] == k)
                m->members[at++] = m->workers[i];
        }
        cut_kind(m, begin, at - begin);
    }
    ts_free(kind_of);
}

/* --- Parts of the cluster --- */

static bool read_stages(const struct ts_plan_worker *w, struct stages *out)
{
    uint32_t layers = 0;
    *out = (struct stages){.count = w->stages.count};
    if (out->count == 0) {
        out->count = 1;
        out->items[0] = (struct ts_stage_item){w->device, w->host, 1, w->layers};
        return true;
    }
    if (out->count > TS_STAGES_MAX)
        return false;
    for (uint32_t s = 0; s < out->count; s++) {
        struct ts_stage_item *item = &out->items[s];
        *item = w->stages.data[s];
        item->tp = item->tp ? item->tp : 1;
        item->host = item->host.count ? item->host : w->host;
        item->device = item->device.count ? item->device : w->device;
        if (item->tp > TS_TP_MAX || item->layers > w->layers)
            return false;
        layers += item->layers;
    }
    return layers == w->layers;
}

/* Of a name in `map`, which holds up to `most`; the last one stands for what comes after. */
static uint32_t index_of(struct ts_map *map, struct ts_str name, uint32_t most, bool *fresh)
{
    const char *key = name.count ? name.data : "";
    uintptr_t index = (uintptr_t)ts_map_get(map, key, name.count);
    *fresh = index == 0 && ts_map_count(map) < most;
    if (index == 0) {
        index = *fresh ? ts_map_count(map) + 1 : most;
        ts_map_put(map, key, name.count, (void *)index); /* NOLINT(performance-no-int-to-ptr) */
    }
    return (uint32_t)index - 1;
}

/* What it has loaded fits, whatever its catalogue entry says. */
static void widen_memory(struct ts_device_type *type, const struct ts_model *model,
                         const struct stages *stages, uint32_t s, uint32_t kv_blocks)
{
    const struct ts_stage_item *item = &stages->items[s];
    double loaded =
        ts_cost_stage_weight_bytes(model, s == 0, s + 1 == stages->count, item->layers) / item->tp +
        (double)kv_blocks * TS_KV_BLOCK_TOKENS * item->layers * ts_cost_kv_layer_token_bytes(model, item->tp);
    if (ts_cost_usable_bytes(type) < loaded)
        type->memory_bytes = 1.2 * loaded + 4e9;
}

/* What the worker has measured counts more than the catalogue, whose price stays. */
static struct ts_device_type *type_of(struct maker *maker, struct ts_str name,
                                      const struct ts_measured_items *measured, uint32_t *index)
{
    const struct planner_live_inputs *inputs = maker->live->inputs;
    bool fresh;
    *index = index_of(maker->types, name, TS_CLUSTER_TYPES_MAX, &fresh);
    if (fresh) {
        char text[TS_CLUSTER_NAME_BYTES];
        copy_name(text, sizeof text, name);
        const struct ts_device_type *type = inputs->device ? inputs->device(inputs->catalogue, text) : NULL;
        maker->types_of[*index] = type ? *type : planner_live_unknown;
        if (measured->count)
            ts_cost_measured(&measured->data[0], &maker->types_of[*index]);
    }
    return &maker->types_of[*index];
}

static void add_device(struct maker *maker, struct device device)
{
    if (maker->device_count == maker->device_capacity) {
        struct device *old = maker->devices;
        maker->device_capacity = 2 * maker->device_capacity + 64;
        maker->devices = ts_xcalloc(maker->device_capacity, sizeof *old);
        if (old)
            memcpy(maker->devices, old, maker->device_count * sizeof *old);
        ts_free(old);
    }
    maker->devices[maker->device_count++] = device;
}

static bool add_unit(struct maker *maker, uint32_t unit)
{
    struct live_model *m = maker->m;
    const struct ts_plan_worker *w = worker_at(maker->live, m->members[m->units[unit].begin]);
    struct stages *stages = &maker->stages[unit];
    const struct ts_measured_items none = {NULL,
                                           0}; /* a part of the worker's devices was not measured alone */
    if (w->layers != m->model.layers || !read_stages(w, stages))
        return false;
    for (uint32_t s = 0; s < stages->count; s++) {
        struct device device = {.unit = unit, .stage = s};
        bool fresh;
        device.host = index_of(maker->hosts, stages->items[s].host, TS_CLUSTER_NODES_MAX, &fresh);
        if (fresh)
            maker->host_names[device.host] = stages->items[s].host;
        struct ts_device_type *type =
            type_of(maker, stages->items[s].device, w->stages.count ? &none : &w->measured, &device.type);
        widen_memory(type, &m->model, stages, s, w->kv_blocks);
        for (device.rank = 0; device.rank < stages->items[s].tp; device.rank++)
            add_device(maker, device);
    }
    return true;
}

/* --- Links between hosts --- */

static void link_hosts(struct maker *maker, uint32_t from, uint32_t to, const struct ts_link *link)
{
    size_t at = (size_t)from * maker->net->node_count + to;
    maker->net->links[at] = *link;
    maker->known[at] = true;
}

static uint32_t place_of(const struct ts_map *places, struct ts_str name) /* index + 1 */
{
    return name.count ? (uint32_t)(uintptr_t)ts_map_get(places, name.data, name.count) : 0;
}

/* By the cluster file, for hosts that it names. */
static void link_by_file(struct maker *maker)
{
    const struct ts_cluster *file = maker->live->inputs->cluster;
    if (!file)
        return;
    uint32_t *host_of = ts_xcalloc(file->node_count + 1, sizeof *host_of); /* index + 1 */
    for (uint32_t i = 0; i < file->node_count; i++) {
        host_of[i] = place_of(maker->hosts, ts_str_of(file->nodes[i].name));
        if (host_of[i]) {
            maker->net->nodes[host_of[i] - 1] = file->nodes[i];
            maker->known[(size_t)(host_of[i] - 1) * (maker->net->node_count + 1)] = true;
        }
    }
    for (uint32_t i = 0; i < file->node_count; i++) {
        for (uint32_t j = 0; host_of[i] && j < file->node_count; j++) {
            if (i != j && host_of[j])
                link_hosts(maker, host_of[i] - 1, host_of[j] - 1, ts_cluster_link(file, i, j));
        }
    }
    ts_free(host_of);
}

/* Measured links name hosts, or the relays or workers on them. */
static void name_places(const struct maker *maker, struct ts_map *places)
{
    const struct ts_plan_workers *all = &maker->live->snapshot->workers;
    for (uint32_t i = 0; i < maker->net->node_count; i++) {
        struct ts_str host = maker->host_names[i];
        if (host.count)
            ts_map_put(places, host.data, host.count, ts_map_get(maker->hosts, host.data, host.count));
    }
    for (uint32_t i = 0; i < all->count; i++) {
        const struct ts_plan_worker *w = &all->data[i];
        void *host = w->host.count ? ts_map_get(maker->hosts, w->host.data, w->host.count) : NULL;
        const struct ts_str names[] = {w->relay, w->id};
        for (size_t n = 0; host && n < sizeof names / sizeof *names; n++) {
            if (names[n].count && !ts_map_get(places, names[n].data, names[n].count))
                ts_map_put(places, names[n].data, names[n].count, host);
        }
    }
}

/* As measured, which counts more than any file. A card carries at least what one of its links does. */
static void link_by_measurement(struct maker *maker)
{
    const struct ts_link_items *links = &maker->live->snapshot->links;
    if (links->count == 0)
        return;
    struct ts_map *places = ts_map_new();
    name_places(maker, places);
    for (uint32_t i = 0; i < links->count; i++) {
        const struct ts_link_item *item = &links->data[i];
        uint32_t from = place_of(places, item->from), to = place_of(places, item->to);
        double goodput = item->goodput_bytes_per_s, rtt_s = (double)item->rtt_ns / 1e9;
        if (!from || !to || from == to || !(goodput > 0 && goodput <= 1e14) || !(rtt_s >= 0 && rtt_s < 60))
            continue;
        struct ts_node *out = &maker->net->nodes[from - 1], *in = &maker->net->nodes[to - 1];
        link_hosts(maker, from - 1, to - 1, &(struct ts_link){"measured", goodput, rtt_s / 2});
        out->nic_out_bytes_per_s = fmax(out->nic_out_bytes_per_s, goodput);
        in->nic_in_bytes_per_s = fmax(in->nic_in_bytes_per_s, goodput);
    }
    ts_map_destroy(&places);
}

static void make_net(struct maker *maker)
{
    uint32_t count = (uint32_t)ts_map_count(maker->hosts);
    count = count < TS_CLUSTER_NODES_MAX ? count : TS_CLUSTER_NODES_MAX;
    maker->net = ts_cluster_new(1, count, 1);
    maker->known = ts_xcalloc((size_t)count * count, sizeof *maker->known);
    for (uint32_t n = 0; n < count; n++) {
        struct ts_node *node = &maker->net->nodes[n];
        node->nic_in_bytes_per_s = node->nic_out_bytes_per_s = other_host.bytes_per_s;
        for (uint32_t to = 0; to < count; to++)
            maker->net->links[(size_t)n * count + to] = other_host;
    }
    link_by_file(maker);
    link_by_measurement(maker);
    for (uint32_t n = 0; n < count; n++)
        copy_name(maker->net->nodes[n].name, sizeof maker->net->nodes[n].name, maker->host_names[n]);
}

/* --- Nodes --- */

static bool add_node(struct maker *maker, uint32_t host, uint32_t *node)
{
    if (maker->node_count == TS_CLUSTER_NODES_MAX)
        return false;
    *node = maker->node_count++;
    maker->host_of[*node] = host;
    return true;
}

/* Of a small cluster, nodes are the hosts. Of a large one, where a worker stands for others that are
 * elsewhere, each unit has nodes of its own, and so equal units stay equal. */
static bool make_nodes(struct maker *maker)
{
    bool good = true;
    if (maker->m->per_unit <= 1) {
        for (uint32_t host = 0, node; good && host < maker->net->node_count; host++)
            good = add_node(maker, host, &node);
        for (uint32_t d = 0; d < maker->device_count; d++)
            maker->devices[d].node = maker->devices[d].host;
        return good;
    }
    for (uint32_t d = 0; good && d < maker->device_count; d++) {
        struct device *device = &maker->devices[d];
        uint32_t of_unit = d;
        while (of_unit > 0 && maker->devices[of_unit - 1].unit == device->unit &&
               maker->devices[of_unit - 1].host != device->host)
            of_unit--;
        bool there = of_unit > 0 && maker->devices[of_unit - 1].unit == device->unit;
        if (there)
            device->node = maker->devices[of_unit - 1].node;
        else
            good = add_node(maker, device->host, &device->node);
    }
    return good;
}

/* A unit's part of its host's card. */
static void share_card(const struct maker *maker, struct ts_node *node, struct ts_str host)
{
    const struct live_model *m = maker->m;
    uint32_t workers = 0;
    for (uint32_t i = 0; i < m->count; i++)
        workers += ts_str_equal(worker_at(maker->live, m->workers[i])->host, host);
    node->nic_out_bytes_per_s /= workers ? workers : 1;
    node->nic_in_bytes_per_s /= workers ? workers : 1;
}

static void fill_nodes(const struct maker *maker)
{
    struct ts_cluster *cluster = maker->m->cluster;
    for (uint32_t n = 0; n < cluster->node_count; n++) {
        uint32_t from = maker->host_of[n];
        cluster->nodes[n] = maker->net->nodes[from];
        if (maker->m->per_unit > 1)
            share_card(maker, &cluster->nodes[n], maker->host_names[from]);
        for (uint32_t to = 0; to < cluster->node_count; to++) {
            size_t at = (size_t)from * maker->net->node_count + maker->host_of[to];
            cluster->links[(size_t)n * cluster->node_count + to] = maker->net->links[at];
            maker->m->known[(size_t)n * cluster->node_count + to] = maker->known[at];
        }
    }
    /* Where nothing is said of the inside of a host, the devices' own links count, if all have one. */
    for (uint32_t g = 0; g < cluster->gpu_count; g++) {
        struct ts_node *node = &cluster->nodes[cluster->gpus[g].node];
        if (!(node->inner.bytes_per_s > 0) && !(cluster->types[cluster->gpus[g].type].peer.bytes_per_s > 0))
            node->inner = same_host;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct device *x = a, *y = b;
    const uint32_t left[] = {x->node, x->type, x->unit, x->stage, x->rank},
                   right[] = {y->node, y->type, y->unit, y->stage, y->rank};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    }
    return 0;
}

/* --- The plan in force --- */

/* The workers as they are. A worker without a phase is left out. */
static void make_current(struct maker *maker)
{
    struct live_model *m = maker->m;
    uint32_t *group_of = ts_xcalloc(m->unit_count, sizeof *group_of);
    m->current = ts_plan_new(m->unit_count, 0);
    m->current->group_count = 0;
    m->group_unit = ts_xcalloc(m->unit_count, sizeof *m->group_unit);
    m->willing = ts_xcalloc(m->unit_count, sizeof *m->willing);
    for (uint32_t u = 0; u < m->unit_count; u++) {
        const struct live_unit *unit = &m->units[u];
        enum ts_phase phase = worker_at(maker->live, m->members[unit->begin])->phase;
        group_of[u] = UINT32_MAX;
        if (phase == TS_PHASE_NONE)
            continue;
        uint32_t g = group_of[u] = m->current->group_count++;
        struct ts_group *group = &m->current->groups[g];
        *group = (struct ts_group){.phase = phase, .stage_count = maker->stages[u].count};
        for (uint32_t s = 0; s < group->stage_count; s++) {
            group->stages[s].tp = maker->stages[u].items[s].tp;
            group->stages[s].layers = maker->stages[u].items[s].layers;
        }
        m->group_unit[g] = u;
        m->willing[g] = TS_PHASE_BOTH;
        for (uint32_t i = 0; i < unit->count; i++)
            m->willing[g] &= worker_at(maker->live, m->members[unit->begin + i])->phases;
    }
    for (uint32_t d = 0; d < maker->device_count; d++) {
        const struct device *device = &maker->devices[d];
        if (group_of[device->unit] != UINT32_MAX)
            m->current->groups[group_of[device->unit]].stages[device->stage].gpus[device->rank] = d;
    }
    ts_free(group_of);
}

static bool make_cluster(struct maker *maker)
{
    struct live_model *m = maker->m;
    struct ts_error err = {0};
    make_net(maker);
    if (maker->device_count > TS_CLUSTER_GPUS_MAX || !make_nodes(maker)) {
        snprintf(m->words, sizeof m->words, "equal shares: too many devices to model");
        return false;
    }
    if (maker->device_count)
        qsort(maker->devices, maker->device_count, sizeof *maker->devices, by_place);
    uint32_t types = (uint32_t)ts_map_count(maker->types);
    types = types < TS_CLUSTER_TYPES_MAX ? types : TS_CLUSTER_TYPES_MAX;
    m->cluster = ts_cluster_new(types, maker->node_count, maker->device_count);
    m->known = ts_xcalloc((size_t)maker->node_count * maker->node_count, sizeof *m->known);
    memcpy(m->cluster->types, maker->types_of, types * sizeof *m->cluster->types);
    for (uint32_t d = 0; d < maker->device_count; d++)
        m->cluster->gpus[d] =
            (struct ts_gpu){(uint16_t)maker->devices[d].type, (uint16_t)maker->devices[d].node, true};
    fill_nodes(maker);
    make_current(maker);
    if (ts_cluster_seal(m->cluster, &err) == TS_OK)
        return true;
    snprintf(m->words, sizeof m->words, "equal shares: %.180s", err.text);
    return false;
}

bool live_describe(const struct planner_live *live, struct live_model *m)
{
    m->model = model_of(worker_at(live, m->workers[0]));
    make_units(live, m);
    if (m->model.layers == 0 || m->model.hidden == 0) {
        snprintf(m->words, sizeof m->words,
                 "equal shares: the workers do not state the shape of their model");
        return false;
    }
    if (m->unit_count > LIVE_UNITS_MAX) {
        snprintf(m->words, sizeof m->words, "equal shares: too many kinds of workers to model each one");
        return false;
    }
    struct maker *maker = ts_xcalloc(1, sizeof *maker);
    *maker = (struct maker){.live = live, .m = m, .hosts = ts_map_new(), .types = ts_map_new()};
    maker->stages = ts_xcalloc(m->unit_count, sizeof *maker->stages);
    bool good = true;
    for (uint32_t u = 0; u < m->unit_count && good; u++)
        good = add_unit(maker, u);
    if (!good)
        snprintf(m->words, sizeof m->words,
                 "equal shares: a worker's stages do not hold the layers of its model");
    else
        good = make_cluster(maker);
    ts_map_destroy(&maker->hosts);
    ts_map_destroy(&maker->types);
    ts_cluster_destroy(&maker->net);
    ts_free(maker->known);
    ts_free(maker->stages);
    ts_free(maker->devices);
    ts_free(maker);
    return good;
}

void live_forget(struct live_model *m)
{
    ts_plan_destroy(&m->current);
    ts_cluster_destroy(&m->cluster);
    ts_free(m->known);
    ts_free(m->group_unit);
    ts_free(m->willing);
    ts_free(m->members);
    ts_free(m->units);
    ts_free(m->workers);
}
