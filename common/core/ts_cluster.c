#include "common/core/ts_cluster.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct ts_cluster *ts_cluster_new(uint32_t types, uint32_t nodes, uint32_t gpus)
{
    struct ts_cluster *cluster = ts_xcalloc(1, sizeof *cluster);
    cluster->types = ts_xcalloc(types + 1, sizeof *cluster->types);
    cluster->nodes = ts_xcalloc(nodes + 1, sizeof *cluster->nodes);
    cluster->gpus = ts_xcalloc(gpus + 1, sizeof *cluster->gpus);
    cluster->links = ts_xcalloc((size_t)nodes * nodes + 1, sizeof *cluster->links);
    cluster->type_count = types;
    cluster->node_count = nodes;
    cluster->gpu_count = gpus;
    return cluster;
}

struct ts_cluster *ts_cluster_copy(const struct ts_cluster *cluster)
{
    struct ts_cluster *copy = ts_cluster_new(cluster->type_count, cluster->node_count, cluster->gpu_count);
    size_t pairs = (size_t)cluster->node_count * cluster->node_count;
    memcpy(copy->name, cluster->name, sizeof copy->name);
    memcpy(copy->types, cluster->types, cluster->type_count * sizeof *copy->types);
    memcpy(copy->nodes, cluster->nodes, cluster->node_count * sizeof *copy->nodes);
    memcpy(copy->gpus, cluster->gpus, cluster->gpu_count * sizeof *copy->gpus);
    memcpy(copy->links, cluster->links, pairs * sizeof *copy->links);
    if (cluster->cells) {
        copy->cells = ts_xcalloc(cluster->gpu_count + 1, sizeof *copy->cells);
        memcpy(copy->cells, cluster->cells, cluster->cell_count * sizeof *copy->cells);
        copy->cell_count = cluster->cell_count;
    }
    return copy;
}

void ts_cluster_destroy(struct ts_cluster **cluster)
{
    if (!*cluster)
        return;
    ts_free((*cluster)->types);
    ts_free((*cluster)->nodes);
    ts_free((*cluster)->gpus);
    ts_free((*cluster)->links);
    ts_free((*cluster)->cells);
    ts_free(*cluster);
    *cluster = NULL;
}

struct range {
    const char *key;
    double value, min, max;
};

/* NaN fails every comparison, so it is refused like any other value outside. */
static enum ts_status check_ranges(const char *part, const char *name, const struct range *ranges,
                                   size_t count, struct ts_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max))
            return ts_error_set(err, TS_EINVAL, "%s \"%s\": %s is %g; it must lie in %g to %g", part, name,
                                ranges[i].key, ranges[i].value, ranges[i].min, ranges[i].max);
    }
    return TS_OK;
}

static enum ts_status check_link(const char *part, const char *name, const struct ts_link *link,
                                 struct ts_error *err)
{
    const struct range ranges[] = {{"bytes_per_s of the link", link->bytes_per_s, 0, 1e14},
                                   {"latency_s of the link", link->latency_s, 0, 60}};
    return check_ranges(part, name, ranges, TS_ARRAY_SIZE(ranges), err);
}

static enum ts_status check_type(const struct ts_device_type *type, struct ts_error *err)
{
    const struct ts_device_fit *fit = &type->fit;
    const struct range ranges[] = {
        {"memory_bytes", type->memory_bytes, 1e6, 1e14},
        {"memory_bytes_per_s", type->memory_bytes_per_s, 1e6, 1e16},
        {"flops", type->flops, 1e6, 1e19},
        {"price_per_hour", type->price_per_hour, 0, 1e6},
        {"fit flops_efficiency", fit->flops_efficiency, 1e-3, 2},
        {"fit memory_efficiency", fit->memory_efficiency, 1e-3, 2},
        {"fit context_efficiency", fit->context_efficiency, 1e-3, 2},
        {"fit attention_efficiency", fit->attention_efficiency, 1e-3, 2},
        {"fit layer_s", fit->layer_s, 0, 1},
        {"fit step_s", fit->step_s, 0, 10},
        {"fit tokens_half", fit->tokens_half, 0, 1e6},
    };
    enum ts_status status = check_ranges("device type", type->name, ranges, TS_ARRAY_SIZE(ranges), err);
    return status != TS_OK ? status : check_link("device type", type->name, &type->peer, err);
}

static enum ts_status check_nodes(const struct ts_cluster *cluster, struct ts_error *err)
{
    for (uint32_t i = 0; i < cluster->node_count; i++) {
        const struct ts_node *node = &cluster->nodes[i];
        const struct range ranges[] = {{"nic_out_bytes_per_s", node->nic_out_bytes_per_s, 0, 1e14},
                                       {"nic_in_bytes_per_s", node->nic_in_bytes_per_s, 0, 1e14}};
        enum ts_status status = check_ranges("node", node->name, ranges, TS_ARRAY_SIZE(ranges), err);
        if (status == TS_OK)
            status = check_link("node", node->name, &node->inner, err);
        for (uint32_t j = 0; j < cluster->node_count && status == TS_OK; j++) {
            if (i != j)
                status = check_link("node", node->name, &cluster->links[i * cluster->node_count + j], err);
        }
        if (status != TS_OK)
            return status;
    }
    return TS_OK;
}

static enum ts_status check_counts(const struct ts_cluster *cluster, struct ts_error *err)
{
    const struct range ranges[] = {{"number of device types", cluster->type_count, 1, TS_CLUSTER_TYPES_MAX},
                                   {"number of nodes", cluster->node_count, 1, TS_CLUSTER_NODES_MAX},
                                   {"number of devices", cluster->gpu_count, 1, TS_CLUSTER_GPUS_MAX}};
    return check_ranges("cluster", cluster->name, ranges, TS_ARRAY_SIZE(ranges), err);
}

static enum ts_status check_gpus(const struct ts_cluster *cluster, struct ts_error *err)
{
    for (uint32_t i = 0; i < cluster->gpu_count; i++) {
        const struct ts_gpu *gpu = &cluster->gpus[i];
        if (gpu->type >= cluster->type_count || gpu->node >= cluster->node_count)
            return ts_error_set(err, TS_EINVAL, "device %u: type %u or node %u does not exist", i, gpu->type,
                                gpu->node);
        const struct ts_gpu *before = gpu - (i > 0);
        if (gpu->node < before->node || (gpu->node == before->node && gpu->type < before->type))
            return ts_error_set(err, TS_EINVAL, "device %u: devices must be listed by node, then by type", i);
    }
    return TS_OK;
}

static void make_cells(struct ts_cluster *cluster)
{
    ts_free(cluster->cells);
    cluster->cells = ts_xcalloc(cluster->gpu_count + 1, sizeof *cluster->cells);
    cluster->cell_count = 0;
    for (uint32_t i = 0; i < cluster->gpu_count; i++) {
        const struct ts_gpu *gpu = &cluster->gpus[i];
        struct ts_cell *last = cluster->cell_count ? &cluster->cells[cluster->cell_count - 1] : NULL;
        if (!gpu->alive)
            continue;
        if (!last || last->node != gpu->node || last->type != gpu->type) {
            last = &cluster->cells[cluster->cell_count++];
            *last = (struct ts_cell){.type = gpu->type, .node = gpu->node};
        }
        last->count++;
    }
}

enum ts_status ts_cluster_seal(struct ts_cluster *cluster, struct ts_error *err)
{
    enum ts_status status = check_counts(cluster, err);
    for (uint32_t i = 0; i < cluster->type_count && status == TS_OK; i++)
        status = check_type(&cluster->types[i], err);
    if (status == TS_OK)
        status = check_nodes(cluster, err);
    if (status == TS_OK)
        status = check_gpus(cluster, err);
    if (status == TS_OK)
        make_cells(cluster);
    return status;
}

const struct ts_link *ts_cluster_inner(const struct ts_cluster *cluster, uint32_t node, uint32_t type)
{
    const struct ts_link *inner = &cluster->nodes[node].inner;
    return inner->bytes_per_s > 0 ? inner : &cluster->types[type].peer;
}

const struct ts_link *ts_cluster_link(const struct ts_cluster *cluster, uint32_t from, uint32_t to)
{
    TS_ASSERT(from != to);
    return &cluster->links[(size_t)from * cluster->node_count + to];
}

double ts_cluster_price_per_hour(const struct ts_cluster *cluster)
{
    double price = 0;
    for (uint32_t i = 0; i < cluster->gpu_count; i++) {
        if (cluster->gpus[i].alive)
            price += cluster->types[cluster->gpus[i].type].price_per_hour;
    }
    return price;
}
