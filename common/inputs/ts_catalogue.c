#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_cost.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_inputs_catalogue.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/run/ts_conf_text.h"

/* A name, first or alias, of a device or a link. */
struct entry {
    char *name;
    size_t index;
};

struct names {
    struct entry *items;
    size_t count, capacity;
};

struct ts_catalogue {
    struct ts_device_type *devices;
    struct ts_link *links;
    size_t device_count, device_capacity, link_count, link_capacity;
    struct names device_names, link_names;
};

static const struct entry *find_name(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (inputs_same_name(names->items[i].name, name))
            return &names->items[i];
    }
    return NULL;
}

static enum ts_status add_name(struct names *names, const char *name, size_t index, struct ts_conf_node group,
                               const char *key, struct ts_error *err)
{
    const struct entry *other = find_name(names, name);
    if (other && other->index != index)
        return ts_conf_node_error(
            group, key, err,
            "\"%.60s\" is already a name of another entry, \"%.60s\"; names are the same "
            "when only case, blanks, '-' and '_' differ",
            name, other->name);
    if (other)
        return TS_OK;
    ts_array_reserve((void **)&names->items, &names->capacity, names->count + 1, sizeof *names->items);
    names->items[names->count++] = (struct entry){ts_xstrdup(name), index};
    return TS_OK;
}

static enum ts_status add_names(struct names *names, const char *name, struct ts_conf_node aliases,
                                size_t index, struct ts_conf_node group, struct ts_error *err)
{
    enum ts_status status = add_name(names, name, index, group, "name", err);
    for (uint32_t i = 0; i < ts_conf_node_count(aliases) && status == TS_OK; i++)
        status = add_name(names, ts_conf_node_text(aliases, i), index, group, "aliases", err);
    return status;
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        ts_free(names->items[i].name);
    ts_free(names->items);
}

static const char *nearest_name(const struct names *names, const char *name)
{
    struct ts_nearest nearest = ts_nearest_to(name);
    for (size_t i = 0; i < names->count; i++)
        ts_nearest_offer(&nearest, names->items[i].name);
    return nearest.best;
}

/* --- Links --- */

struct link_row {
    struct ts_link link;
    uint32_t directions; /* how many the figure adds up: data sheets of NVLink say the sum of both */
    struct ts_conf_node aliases;
};

static const struct ts_field link_fields[] = {
    {.name = "name",
     TS_FIELD_TEXT,
     offsetof(struct link_row, link.name),
     .size = TS_CLUSTER_NAME_BYTES,
     .needed = true},
    {.name = "aliases", TS_FIELD_TEXTS, offsetof(struct link_row, aliases)},
    {.name = "gb_per_s",
     TS_FIELD_F64,
     offsetof(struct link_row, link.bytes_per_s),
     .min = 0,
     .max = 1e5,
     .scale = 1e9,
     .needed = true},
    {.name = "latency_us",
     TS_FIELD_F64,
     offsetof(struct link_row, link.latency_s),
     .min = 0,
     .max = 1e7,
     .scale = 1e-6,
     .needed = true},
    {.name = "directions", TS_FIELD_U32, offsetof(struct link_row, directions), .min = 1, .max = 2},
};

static enum ts_status add_link(struct ts_catalogue *catalogue, struct ts_conf_node group, bool beats,
                               struct ts_error *err)
{
    struct link_row row = {.directions = 1};
    enum ts_status status = ts_conf_node_fill(group, link_fields, TS_ARRAY_SIZE(link_fields), &row, err);
    row.link.bytes_per_s /= row.directions;
    const struct entry *known =
        status == TS_OK && beats ? find_name(&catalogue->link_names, row.link.name) : NULL;
    if (known) {
        catalogue->links[known->index] = row.link;
        return TS_OK;
    }
    if (status == TS_OK)
        status =
            add_names(&catalogue->link_names, row.link.name, row.aliases, catalogue->link_count, group, err);
    if (status != TS_OK)
        return status;
    ts_array_reserve((void **)&catalogue->links, &catalogue->link_capacity, catalogue->link_count + 1,
                     sizeof *catalogue->links);
    catalogue->links[catalogue->link_count++] = row.link;
    return TS_OK;
}

const struct ts_link *ts_catalogue_link(const struct ts_catalogue *catalogue, const char *name)
{
    const struct entry *entry = find_name(&catalogue->link_names, name);
    return entry ? &catalogue->links[entry->index] : NULL;
}

enum ts_status inputs_catalogue_use_link(const struct ts_catalogue *catalogue, struct ts_conf_node group,
                                         const char *key, const char *name, struct ts_link *out,
                                         struct ts_error *err)
{
    const struct ts_link *link = ts_catalogue_link(catalogue, name);
    const char *nearest = link ? NULL : nearest_name(&catalogue->link_names, name);
    if (!link)
        return ts_conf_node_error(group, key, err, "no link has this name%s%s; name one of conf/links",
                                  nearest ? "; did you mean " : "", nearest ? nearest : "");
    *out = *link;
    return TS_OK;
}

/* --- Devices --- */

struct device_row {
    struct ts_device_type device;
    char peer[TS_CLUSTER_NAME_BYTES];
    char kind[2][TS_CLUSTER_NAME_BYTES]; /* said for people and for scripts/fit-devices, */
    double figures[3];                   /* and so are these */
    struct ts_conf_node aliases, fit;
};

static const struct ts_field device_fields[] = {
    {.name = "name",
     TS_FIELD_TEXT,
     offsetof(struct device_row, device.name),
     .size = TS_CLUSTER_NAME_BYTES,
     .needed = true},
    {.name = "aliases", TS_FIELD_TEXTS, offsetof(struct device_row, aliases)},
    {.name = "memory_gb",
     TS_FIELD_F64,
     offsetof(struct device_row, device.memory_bytes),
     .min = 0.001,
     .max = 1e5,
     .scale = 1e9,
     .needed = true},
    {.name = "memory_gb_per_s",
     TS_FIELD_F64,
     offsetof(struct device_row, device.memory_bytes_per_s),
     .min = 0.001,
     .max = 1e7,
     .scale = 1e9,
     .needed = true},
    {.name = "tflops",
     TS_FIELD_F64,
     offsetof(struct device_row, device.flops),
     .min = 1e-6,
     .max = 1e7,
     .scale = 1e12,
     .needed = true},
    {.name = "price_per_hour",
     TS_FIELD_F64,
     offsetof(struct device_row, device.price_per_hour),
     .min = 0,
     .max = 1e6},
    {.name = "peer", TS_FIELD_TEXT, offsetof(struct device_row, peer), .size = TS_CLUSTER_NAME_BYTES},
    {.name = "generation",
     TS_FIELD_TEXT,
     offsetof(struct device_row, kind[0]),
     .size = TS_CLUSTER_NAME_BYTES},
    {.name = "memory", TS_FIELD_TEXT, offsetof(struct device_row, kind[1]), .size = TS_CLUSTER_NAME_BYTES},
    {.name = "base_mhz", TS_FIELD_F64, offsetof(struct device_row, figures[0]), .min = 1, .max = 1e5},
    {.name = "boost_mhz", TS_FIELD_F64, offsetof(struct device_row, figures[1]), .min = 1, .max = 1e5},
    {.name = "watts", TS_FIELD_F64, offsetof(struct device_row, figures[2]), .min = 1, .max = 1e5},
    {.name = "fit", TS_FIELD_GROUP, offsetof(struct device_row, fit)},
};

#define FIT(key, field, lo, hi, unit)                                                                        \
    {                                                                                                        \
        .name = key, TS_FIELD_F64, offsetof(struct ts_device_fit, field), .min = lo, .max = hi,              \
        .scale = unit                                                                                        \
    }

static const struct ts_field fit_fields[] = {
    FIT("flops_efficiency", flops_efficiency, 1e-3, 2, 1),
    FIT("memory_efficiency", memory_efficiency, 1e-3, 2, 1),
    FIT("context_efficiency", context_efficiency, 1e-3, 2, 1),
    FIT("attention_efficiency", attention_efficiency, 1e-3, 2, 1),
    FIT("layer_us", layer_s, 0, 1e6, 1e-6),
    FIT("step_us", step_s, 0, 1e7, 1e-6),
    FIT("tokens_half", tokens_half, 0, 1e6, 1),
};

static enum ts_status read_device(struct ts_catalogue *catalogue, struct ts_conf_node group,
                                  struct device_row *row, struct ts_error *err)
{
    enum ts_status status = ts_conf_node_fill(group, device_fields, TS_ARRAY_SIZE(device_fields), row, err);
    row->device.fit = ts_cost_fit_generic();
    if (status == TS_OK && row->fit.setting)
        status = ts_conf_node_fill(row->fit, fit_fields, TS_ARRAY_SIZE(fit_fields), &row->device.fit, err);
    if (status == TS_OK && *row->peer)
        status = inputs_catalogue_use_link(catalogue, group, "peer", row->peer, &row->device.peer, err);
    if (status == TS_OK)
        status = add_names(&catalogue->device_names, row->device.name, row->aliases, catalogue->device_count,
                           group, err);
    return status;
}

static enum ts_status add_device(struct ts_catalogue *catalogue, struct ts_conf_node group,
                                 struct ts_error *err)
{
    struct device_row row = {.aliases = {NULL, NULL}};
    enum ts_status status = read_device(catalogue, group, &row, err);
    if (status != TS_OK)
        return status;
    ts_array_reserve((void **)&catalogue->devices, &catalogue->device_capacity, catalogue->device_count + 1,
                     sizeof *catalogue->devices);
    catalogue->devices[catalogue->device_count++] = row.device;
    return TS_OK;
}

const struct ts_device_type *ts_catalogue_device(const struct ts_catalogue *catalogue, const char *name)
{
    const struct entry *entry = find_name(&catalogue->device_names, name);
    return entry ? &catalogue->devices[entry->index] : NULL;
}

size_t ts_catalogue_device_count(const struct ts_catalogue *catalogue)
{
    return catalogue->device_count;
}

const struct ts_device_type *ts_catalogue_device_at(const struct ts_catalogue *catalogue, size_t index)
{
    TS_ASSERT(index < catalogue->device_count);
    return &catalogue->devices[index];
}

const char *inputs_catalogue_nearest_device(const struct ts_catalogue *catalogue, const char *name)
{
    return nearest_name(&catalogue->device_names, name);
}

/* --- Files --- */

enum kind { LINKS, MEASURED_LINKS, DEVICES };

static enum ts_status add_rows(struct ts_catalogue *catalogue, struct ts_conf_node rows, enum kind kind,
                               struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; status == TS_OK && i < ts_conf_node_count(rows); i++) {
        struct ts_conf_node row = ts_conf_node_at(rows, i);
        status = kind == DEVICES ? add_device(catalogue, row, err)
                                 : add_link(catalogue, row, kind == MEASURED_LINKS, err);
    }
    return status;
}

static enum ts_status read_links(struct ts_catalogue *catalogue, const char *path, struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    struct ts_conf_node links = {NULL, NULL};
    const struct ts_field fields[] = {{.name = "links", TS_FIELD_GROUPS, 0, .needed = true}};
    enum ts_status status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK)
        status = ts_conf_node_fill(ts_conf_tree_root(tree), fields, 1, &links, err);
    if (status == TS_OK)
        status = add_rows(catalogue, links, LINKS, err);
    ts_conf_tree_destroy(&tree);
    return status;
}

static enum ts_status read_devices(struct ts_catalogue *catalogue, const char *path, struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    struct ts_conf_node lists[2] = {{NULL, NULL}};
    const struct ts_field fields[] = {
        {.name = "links", TS_FIELD_GROUPS, 0},
        {.name = "devices", TS_FIELD_GROUPS, sizeof lists[0], .needed = true},
    };
    enum ts_status status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK)
        status = ts_conf_node_fill(ts_conf_tree_root(tree), fields, TS_ARRAY_SIZE(fields), lists, err);
    if (status == TS_OK)
        status = add_rows(catalogue, lists[0], MEASURED_LINKS, err);
    if (status == TS_OK)
        status = add_rows(catalogue, lists[1], DEVICES, err);
    ts_conf_tree_destroy(&tree);
    return status;
}

static enum ts_status load_into(struct ts_catalogue *catalogue, const char *conf_dir, const char *devices,
                                struct ts_error *err)
{
    struct inputs_files files;
    char *path = NULL;
    enum ts_status status = inputs_files_list(conf_dir, "links", &files, err);
    for (size_t i = 0; i < files.count && status == TS_OK; i++)
        status = read_links(catalogue, files.paths[i], err);
    inputs_files_free(&files);
    if (status == TS_OK)
        status = inputs_find(conf_dir, "devices", devices, &path, err);
    if (status == TS_OK)
        status = read_devices(catalogue, path, err);
    ts_free(path);
    return status;
}

enum ts_status ts_catalogue_load(const char *conf_dir, const char *devices, struct ts_catalogue **out,
                                 struct ts_error *err)
{
    *out = ts_xcalloc(1, sizeof **out);
    enum ts_status status = load_into(*out, conf_dir, devices, err);
    if (status != TS_OK)
        ts_catalogue_destroy(out);
    return status;
}

void ts_catalogue_destroy(struct ts_catalogue **catalogue)
{
    if (!*catalogue)
        return;
    free_names(&(*catalogue)->device_names);
    free_names(&(*catalogue)->link_names);
    ts_free((*catalogue)->devices);
    ts_free((*catalogue)->links);
    ts_free(*catalogue);
    *catalogue = NULL;
}
