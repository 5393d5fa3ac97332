#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs_catalogue.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/run/ts_conf_text.h"

/* One entry of `nodes`: `count` equal nodes. */
struct node_row {
    struct ts_conf_node group;
    char name[TS_CLUSTER_NAME_BYTES - 12]; /* room for "-1023" */
    uint32_t count;
    char inner[TS_CLUSTER_NAME_BYTES], nic[TS_CLUSTER_NAME_BYTES];
    double nic_out, nic_in; /* bytes/s; negative = not said */
    struct ts_conf_node devices;
    uint32_t first;        /* its first node */
    uint32_t devices_each; /* of one node */
};

/* One entry of `devices` of a node. */
struct device_row {
    char type[TS_CLUSTER_NAME_BYTES];
    uint32_t count, available; /* held; may be rented beyond those */
    double price;              /* negative = the catalogue's */
    uint32_t index;            /* into types */
};

/* One entry of `links`. */
struct link_row {
    char from[TS_CLUSTER_NAME_BYTES], to[TS_CLUSTER_NAME_BYTES], link[TS_CLUSTER_NAME_BYTES];
    double bytes_per_s, latency_s; /* negative = not said */
    bool one_way;
};

struct overrides {
    char link[TS_CLUSTER_NAME_BYTES], inner[TS_CLUSTER_NAME_BYTES];
};

struct reader {
    const struct ts_catalogue *catalogue;
    struct ts_conf_node root;
    char name[TS_CLUSTER_NAME_BYTES], link[TS_CLUSTER_NAME_BYTES], inner[TS_CLUSTER_NAME_BYTES];
    struct ts_conf_node nodes, links;
    struct node_row *rows;
    uint32_t row_count, node_count, gpu_count;
    struct ts_device_type types[TS_CLUSTER_TYPES_MAX];
    uint32_t type_count;
    struct ts_cluster *cluster;
    struct ts_error *err;
};

#define NAME(key, type, member, is_needed)                                                                   \
    {                                                                                                        \
        .name = key, TS_FIELD_TEXT, offsetof(type, member), .size = sizeof(((type *)0)->member),             \
        .needed = is_needed                                                                                  \
    }
#define GB_PER_S(key, type, member)                                                                          \
    {                                                                                                        \
        .name = key, TS_FIELD_F64, offsetof(type, member), .min = 0, .max = 1e5, .scale = 1e9                \
    }

static const struct ts_field root_fields[] = {
    NAME("name", struct reader, name, false),
    NAME("link", struct reader, link, false),
    NAME("inner", struct reader, inner, false),
    {.name = "nodes", TS_FIELD_GROUPS, offsetof(struct reader, nodes), .needed = true},
    {.name = "links", TS_FIELD_GROUPS, offsetof(struct reader, links)},
};

static const struct ts_field node_fields[] = {
    NAME("name", struct node_row, name, true),
    {.name = "count", TS_FIELD_U32, offsetof(struct node_row, count), .min = 1, .max = TS_CLUSTER_NODES_MAX},
    NAME("inner", struct node_row, inner, false),
    NAME("nic", struct node_row, nic, false),
    GB_PER_S("nic_out_gb_per_s", struct node_row, nic_out),
    GB_PER_S("nic_in_gb_per_s", struct node_row, nic_in),
    {.name = "devices", TS_FIELD_GROUPS, offsetof(struct node_row, devices), .needed = true},
};

static const struct ts_field device_fields[] = {
    NAME("type", struct device_row, type, true),
    {.name = "count",
     TS_FIELD_U32,
     offsetof(struct device_row, count),
     .min = 0,
     .max = TS_CLUSTER_GPUS_MAX,
     .needed = true},
    {.name = "available",
     TS_FIELD_U32,
     offsetof(struct device_row, available),
     .min = 0,
     .max = TS_CLUSTER_GPUS_MAX},
    {.name = "price_per_hour", TS_FIELD_F64, offsetof(struct device_row, price), .min = 0, .max = 1e6},
};

static const struct ts_field link_fields[] = {
    NAME("from", struct link_row, from, true),
    NAME("to", struct link_row, to, true),
    NAME("link", struct link_row, link, false),
    GB_PER_S("gb_per_s", struct link_row, bytes_per_s),
    {.name = "latency_us",
     TS_FIELD_F64,
     offsetof(struct link_row, latency_s),
     .min = 0,
     .max = 1e7,
     .scale = 1e-6},
    {.name = "one_way", TS_FIELD_BOOL, offsetof(struct link_row, one_way)},
};

/* --- Types: one for each device and price --- */

static enum ts_status find_type(struct reader *r, struct ts_conf_node group, struct device_row *row)
{
    const struct ts_device_type *device = ts_catalogue_device(r->catalogue, row->type);
    if (!device) {
        const char *nearest = inputs_catalogue_nearest_device(r->catalogue, row->type);
        return ts_conf_node_error(group, "type", r->err, "the catalogue has no such device%s%s; %s",
                                  nearest ? "; did you mean " : "", nearest ? nearest : "",
                                  "name one of conf/devices or add it there");
    }
    struct ts_device_type type = *device;
    if (row->price >= 0 && row->price != device->price_per_hour) {
        type.price_per_hour = row->price;
        if (snprintf(type.name, sizeof type.name, "%.24s@%g", device->name, row->price) < 0)
            return TS_EINVAL;
    }
    for (row->index = 0; row->index < r->type_count; row->index++) {
        if (strcmp(r->types[row->index].name, type.name) == 0)
            return TS_OK;
    }
    if (r->type_count == TS_CLUSTER_TYPES_MAX)
        return ts_conf_node_error(group, "type", r->err, "more than %d types of device (each price counts)",
                                  TS_CLUSTER_TYPES_MAX);
    r->types[r->type_count++] = type;
    return TS_OK;
}

static enum ts_status read_device(struct reader *r, struct ts_conf_node group, struct device_row *row)
{
    *row = (struct device_row){.price = -1};
    enum ts_status status =
        ts_conf_node_fill(group, device_fields, TS_ARRAY_SIZE(device_fields), row, r->err);
    if (status == TS_OK && row->count + row->available == 0)
        return ts_conf_node_error(group, "count", r->err,
                                  "no device at all; give a count of 1 or more, or how many are available");
    return status == TS_OK ? find_type(r, group, row) : status;
}

/* --- Nodes --- */

static enum ts_status read_node_devices(struct reader *r, struct node_row *row)
{
    bool seen[TS_CLUSTER_TYPES_MAX] = {false};
    for (uint32_t i = 0; i < ts_conf_node_count(row->devices); i++) {
        struct ts_conf_node group = ts_conf_node_at(row->devices, i);
        struct device_row device;
        enum ts_status status = read_device(r, group, &device);
        if (status != TS_OK)
            return status;
        if (seen[device.index])
            return ts_conf_node_error(group, "type", r->err,
                                      "this node lists the type twice at one price; add up the counts");
        seen[device.index] = true;
        row->devices_each += device.count + device.available;
    }
    return TS_OK;
}

static enum ts_status read_node(struct reader *r, struct ts_conf_node group, struct node_row *row)
{
    *row = (struct node_row){.group = group, .count = 1, .nic_out = -1, .nic_in = -1, .first = r->node_count};
    enum ts_status status = ts_conf_node_fill(group, node_fields, TS_ARRAY_SIZE(node_fields), row, r->err);
    if (status == TS_OK && *row->nic && (row->nic_out >= 0 || row->nic_in >= 0))
        return ts_conf_node_error(group, "nic", r->err,
                                  "give either a link by name, or nic_out_gb_per_s and nic_in_gb_per_s");
    for (const struct node_row *other = r->rows; status == TS_OK && other < row; other++) {
        if (inputs_same_name(other->name, row->name))
            return ts_conf_node_error(group, "name", r->err,
                                      "an earlier entry has this name; names are unique");
    }
    if (status == TS_OK)
        status = read_node_devices(r, row);
    if (status != TS_OK)
        return status;
    r->node_count += row->count;
    if (r->node_count > TS_CLUSTER_NODES_MAX)
        return ts_conf_node_error(group, "count", r->err, "more than %d nodes in all", TS_CLUSTER_NODES_MAX);
    if ((uint64_t)row->count * row->devices_each + r->gpu_count > TS_CLUSTER_GPUS_MAX)
        return ts_conf_node_error(group, NULL, r->err, "more than %d devices in all", TS_CLUSTER_GPUS_MAX);
    r->gpu_count += row->count * row->devices_each;
    return TS_OK;
}

static enum ts_status read_nodes(struct reader *r)
{
    r->row_count = ts_conf_node_count(r->nodes);
    r->rows = ts_xcalloc(r->row_count, sizeof *r->rows);
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < r->row_count && status == TS_OK; i++)
        status = read_node(r, ts_conf_node_at(r->nodes, i), &r->rows[i]);
    return status;
}

/* The devices of one node, by type; those that may be rented come last of their type and are not alive. */
static enum ts_status place_devices(struct reader *r, const struct node_row *row, uint32_t node,
                                    uint32_t *gpu)
{
    uint32_t counts[TS_CLUSTER_TYPES_MAX] = {0}, available[TS_CLUSTER_TYPES_MAX] = {0};
    for (uint32_t i = 0; i < ts_conf_node_count(row->devices); i++) {
        struct device_row device;
        enum ts_status status = read_device(r, ts_conf_node_at(row->devices, i), &device);
        if (status != TS_OK)
            return status;
        counts[device.index] = device.count;
        available[device.index] = device.available;
    }
    for (uint32_t type = 0; type < r->type_count; type++) {
        for (uint32_t i = 0; i < counts[type] + available[type]; i++)
            r->cluster->gpus[(*gpu)++] =
                (struct ts_gpu){.type = (uint16_t)type, .node = (uint16_t)node, .alive = i < counts[type]};
    }
    return TS_OK;
}

static enum ts_status place_node(struct reader *r, const struct node_row *row, uint32_t index, uint32_t *gpu)
{
    struct ts_node *node = &r->cluster->nodes[row->first + index];
    enum ts_status status = TS_OK;
    if (row->count == 1)
        snprintf(node->name, sizeof node->name, "%s", row->name);
    else
        snprintf(node->name, sizeof node->name, "%s-%u", row->name, index);
    if (*row->inner)
        status =
            inputs_catalogue_use_link(r->catalogue, row->group, "inner", row->inner, &node->inner, r->err);
    else if (*r->inner)
        status = inputs_catalogue_use_link(r->catalogue, r->root, "inner", r->inner, &node->inner, r->err);
    return status == TS_OK ? place_devices(r, row, row->first + index, gpu) : status;
}

static enum ts_status place_nodes(struct reader *r)
{
    uint32_t gpu = 0;
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < r->row_count; i++) {
        for (uint32_t j = 0; j < r->rows[i].count && status == TS_OK; j++)
            status = place_node(r, &r->rows[i], j, &gpu);
    }
    return status;
}

/* --- Links between nodes --- */

struct span {
    uint32_t first, count;
};

/* A node, all nodes of an entry, or "*" for all. */
static enum ts_status find_nodes(struct reader *r, struct ts_conf_node group, const char *key,
                                 const char *name, struct span *out)
{
    struct ts_nearest nearest = ts_nearest_to(name);
    *out = (struct span){0, r->node_count};
    if (strcmp(name, "*") == 0)
        return TS_OK;
    for (uint32_t i = 0; i < r->row_count; i++) {
        *out = (struct span){r->rows[i].first, r->rows[i].count};
        if (inputs_same_name(r->rows[i].name, name))
            return TS_OK;
        ts_nearest_offer(&nearest, r->rows[i].name);
    }
    for (uint32_t i = 0; i < r->node_count; i++) {
        *out = (struct span){i, 1};
        if (inputs_same_name(r->cluster->nodes[i].name, name))
            return TS_OK;
        ts_nearest_offer(&nearest, r->cluster->nodes[i].name);
    }
    return ts_conf_node_error(group, key, r->err, "no node has this name%s%s; \"*\" stands for all",
                              nearest.best ? "; did you mean " : "", nearest.best ? nearest.best : "");
}

static void set_links(struct reader *r, struct span from, struct span to, const struct ts_link *link)
{
    for (uint32_t i = from.first; i < from.first + from.count; i++) {
        for (uint32_t j = to.first; j < to.first + to.count; j++) {
            if (i != j)
                r->cluster->links[(size_t)i * r->node_count + j] = *link;
        }
    }
}

static enum ts_status read_link(struct reader *r, struct ts_conf_node group, const struct link_row *row,
                                struct ts_link *link)
{
    bool numbers = row->bytes_per_s >= 0 || row->latency_s >= 0;
    if (!numbers == !*row->link || (numbers && (row->bytes_per_s < 0 || row->latency_s < 0)))
        return ts_conf_node_error(group, NULL, r->err,
                                  "give either link = \"NAME\", or both gb_per_s and latency_us");
    if (*row->link)
        return inputs_catalogue_use_link(r->catalogue, group, "link", row->link, link, r->err);
    *link = (struct ts_link){.bytes_per_s = row->bytes_per_s, .latency_s = row->latency_s};
    snprintf(link->name, sizeof link->name, "%.16s-%.16s", row->from, row->to);
    return TS_OK;
}

static enum ts_status apply_link(struct reader *r, struct ts_conf_node group)
{
    struct link_row row = {.bytes_per_s = -1, .latency_s = -1};
    struct span from, to;
    struct ts_link link;
    enum ts_status status = ts_conf_node_fill(group, link_fields, TS_ARRAY_SIZE(link_fields), &row, r->err);
    if (status == TS_OK)
        status = read_link(r, group, &row, &link);
    if (status == TS_OK)
        status = find_nodes(r, group, "from", row.from, &from);
    if (status == TS_OK)
        status = find_nodes(r, group, "to", row.to, &to);
    if (status != TS_OK)
        return status;
    set_links(r, from, to, &link);
    if (!row.one_way)
        set_links(r, to, from, &link);
    return TS_OK;
}

static enum ts_status read_links(struct reader *r)
{
    struct ts_link link;
    enum ts_status status = TS_OK;
    if (!*r->link && r->node_count > 1)
        return ts_conf_node_error(
            r->root, NULL, r->err,
            "the key link is missing: the name of the link between any two nodes (\"none\" "
            "= not connected)");
    if (*r->link) {
        status = inputs_catalogue_use_link(r->catalogue, r->root, "link", r->link, &link, r->err);
        if (status == TS_OK)
            set_links(r, (struct span){0, r->node_count}, (struct span){0, r->node_count}, &link);
    }
    for (uint32_t i = 0; i < ts_conf_node_count(r->links) && status == TS_OK; i++)
        status = apply_link(r, ts_conf_node_at(r->links, i));
    return status;
}

/* Where the file says nothing, a node's adapter is as fast as the fastest of its links. */
static void default_nic(const struct ts_cluster *cluster, uint32_t node, double *out, double *in)
{
    size_t n = cluster->node_count;
    for (uint32_t other = 0; other < n; other++) {
        double from = other == node ? 0 : cluster->links[node * n + other].bytes_per_s;
        double to = other == node ? 0 : cluster->links[other * n + node].bytes_per_s;
        if (*out < from)
            *out = from;
        if (*in < to)
            *in = to;
    }
}

static enum ts_status set_nics(struct reader *r)
{
    for (uint32_t i = 0; i < r->row_count; i++) {
        const struct node_row *row = &r->rows[i];
        struct ts_link nic = {.bytes_per_s = -1};
        enum ts_status status = TS_OK;
        if (*row->nic)
            status = inputs_catalogue_use_link(r->catalogue, row->group, "nic", row->nic, &nic, r->err);
        if (status != TS_OK)
            return status;
        for (uint32_t j = row->first; j < row->first + row->count; j++) {
            double out = 0, in = 0;
            default_nic(r->cluster, j, &out, &in);
            r->cluster->nodes[j].nic_out_bytes_per_s = row->nic_out >= 0 ? row->nic_out
                                                       : *row->nic       ? nic.bytes_per_s
                                                                         : out;
            r->cluster->nodes[j].nic_in_bytes_per_s = row->nic_in >= 0 ? row->nic_in
                                                      : *row->nic      ? nic.bytes_per_s
                                                                       : in;
        }
    }
    return TS_OK;
}

/* No message is faster than the adapters at its ends. */
static void limit_links(struct ts_cluster *cluster)
{
    uint32_t n = cluster->node_count;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < n; j++) {
            struct ts_link *link = &cluster->links[(size_t)i * n + j];
            double out = cluster->nodes[i].nic_out_bytes_per_s, in = cluster->nodes[j].nic_in_bytes_per_s;
            double most = out < in ? out : in;
            if (i != j && link->bytes_per_s > most)
                link->bytes_per_s = most;
        }
    }
}

/* --- The whole --- */

static enum ts_status build(struct reader *r)
{
    r->cluster = ts_cluster_new(r->type_count, r->node_count, r->gpu_count);
    memcpy(r->cluster->types, r->types, r->type_count * sizeof *r->types);
    snprintf(r->cluster->name, sizeof r->cluster->name, "%s", r->name);
    enum ts_status status = place_nodes(r);
    if (status == TS_OK)
        status = read_links(r);
    if (status == TS_OK)
        status = set_nics(r);
    if (status != TS_OK)
        return status;
    limit_links(r->cluster);
    return ts_cluster_seal(r->cluster, r->err);
}

static enum ts_status read_cluster(struct reader *r, const char *path, const struct overrides *overrides)
{
    struct ts_conf_tree *tree = NULL;
    inputs_stem(path, r->name, sizeof r->name);
    enum ts_status status = ts_conf_tree_load(path, &tree, r->err);
    if (status == TS_OK) {
        r->root = ts_conf_tree_root(tree);
        status = ts_conf_node_fill(r->root, root_fields, TS_ARRAY_SIZE(root_fields), r, r->err);
    }
    if (*overrides->link)
        snprintf(r->link, sizeof r->link, "%s", overrides->link);
    if (*overrides->inner)
        snprintf(r->inner, sizeof r->inner, "%s", overrides->inner);
    if (status == TS_OK)
        status = read_nodes(r);
    if (status == TS_OK)
        status = build(r);
    ts_conf_tree_destroy(&tree);
    return status;
}

/* "NAME,link=5Gbit,inner=PCIe3": cuts `name` at its first comma. */
static enum ts_status split_overrides(const struct ts_catalogue *catalogue, char *name, struct overrides *out,
                                      struct ts_error *err)
{
    struct stat st;
    char *save = NULL, *comma = stat(name, &st) == 0 ? NULL : strchr(name, ',');
    if (!comma)
        return TS_OK;
    *comma = '\0';
    for (char *item = strtok_r(comma + 1, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        char *value = strchr(item, '=');
        char *into = strncmp(item, "link=", 5) == 0    ? out->link
                     : strncmp(item, "inner=", 6) == 0 ? out->inner
                                                       : NULL;
        if (!into)
            return ts_error_set(err, TS_EINVAL, "cluster %.60s: \"%.60s\": expected link=NAME or inner=NAME",
                                name, item);
        if (!ts_catalogue_link(catalogue, value + 1))
            return ts_error_set(err, TS_EINVAL, "cluster %.60s: %.60s: no link has this name; see conf/links",
                                name, item);
        snprintf(into, sizeof out->link, "%s", value + 1);
    }
    return TS_OK;
}

enum ts_status ts_inputs_cluster(const struct ts_catalogue *catalogue, const char *conf_dir, const char *name,
                                 struct ts_cluster **out, struct ts_error *err)
{
    struct reader r = {.catalogue = catalogue, .err = err};
    struct overrides overrides = {.link = ""};
    char *copy = ts_xstrdup(name), *path = NULL;
    *out = NULL;
    enum ts_status status = split_overrides(catalogue, copy, &overrides, err);
    if (status == TS_OK)
        status = inputs_find(conf_dir, "clusters", copy, &path, err);
    if (status == TS_OK)
        status = read_cluster(&r, path, &overrides);
    if (status == TS_OK)
        *out = r.cluster;
    else
        ts_cluster_destroy(&r.cluster);
    ts_free(r.rows);
    ts_free(copy);
    ts_free(path);
    return status;
}
