#include "services/tsctl/tsctl_cost_files.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

/* --- The sheet --- */

struct cost_sheet_entry {
    char name[TS_CLUSTER_NAME_BYTES], peer[TS_CLUSTER_NAME_BYTES], generation[32], memory[32];
    double memory_gb, memory_gb_per_s, tflops, price_per_hour, base_mhz, boost_mhz, watts;
    struct ts_conf_node aliases;
};

#define TEXT(key, member)                                                                                    \
    {                                                                                                        \
        .name = key, TS_FIELD_TEXT, offsetof(struct cost_sheet_entry, member),                               \
        .size = sizeof((struct cost_sheet_entry *)0)->member, .needed = true                                 \
    }
#define FIGURE(key, member)                                                                                  \
    {                                                                                                        \
        .name = key, TS_FIELD_F64, offsetof(struct cost_sheet_entry, member), .min = 1e-6, .max = 1e7,       \
        .needed = true                                                                                       \
    }

static const struct ts_field sheet_fields[] = {
    TEXT("name", name),
    {.name = "aliases", TS_FIELD_TEXTS, offsetof(struct cost_sheet_entry, aliases)},
    FIGURE("memory_gb", memory_gb),
    FIGURE("memory_gb_per_s", memory_gb_per_s),
    FIGURE("tflops", tflops),
    FIGURE("price_per_hour", price_per_hour),
    TEXT("peer", peer),
    TEXT("generation", generation),
    TEXT("memory", memory),
    FIGURE("base_mhz", base_mhz),
    FIGURE("boost_mhz", boost_mhz),
    FIGURE("watts", watts),
};

static int fitted_link(const char *name)
{
    for (int i = 0; i < COST_FITTED_LINKS; i++)
        if (strcasecmp(name, cost_fitted_link_name((enum cost_fitted_link)i)) == 0)
            return i;
    return -1;
}

static uint32_t kind_of(const struct cost_sheet_entry *entries, uint32_t index)
{
    uint32_t first = 0;
    while (strcmp(entries[first].generation, entries[index].generation) != 0 ||
           strcmp(entries[first].memory, entries[index].memory) != 0)
        first++;
    return first;
}

static enum ts_status read_entries(struct cost_sheets *out, struct ts_error *err)
{
    struct ts_conf_node list = {NULL, NULL};
    const struct ts_field fields[] = {{.name = "devices", TS_FIELD_GROUPS, 0, .needed = true}};
    enum ts_status status = ts_conf_node_fill(ts_conf_tree_root(out->tree), fields, 1, &list, err);
    out->count = status == TS_OK ? ts_conf_node_count(list) : 0;
    out->items = ts_xcalloc(out->count + 1, sizeof *out->items);
    out->entries = ts_xcalloc(out->count + 1, sizeof *out->entries);
    for (uint32_t i = 0; i < out->count && status == TS_OK; i++) {
        struct cost_sheet_entry *entry = &out->entries[i];
        status = ts_conf_node_fill(ts_conf_node_at(list, i), sheet_fields, TS_ARRAY_SIZE(sheet_fields), entry,
                                   err);
        out->items[i] = (struct cost_sheet){.kind = kind_of(out->entries, i),
                                            .copies = strcmp(entry->generation, "volta") != 0 &&
                                                      strcmp(entry->generation, "turing") != 0,
                                            .device = *ts_catalogue_device_at(out->catalogue, i),
                                            .stacked = strcmp(entry->memory, "hbm") == 0,
                                            .base_hz = entry->base_mhz * 1e6,
                                            .boost_hz = entry->boost_mhz * 1e6,
                                            .watts = entry->watts,
                                            .link = fitted_link(entry->peer)};
    }
    return status;
}

enum ts_status cost_sheets_load(const char *conf_dir, struct cost_sheets *out, struct ts_error *err)
{
    *out = (struct cost_sheets){.count = 0};
    char *path = ts_xasprintf("%s/devices/sheet.conf", conf_dir);
    enum ts_status status = ts_catalogue_load(conf_dir, path, &out->catalogue, err);
    if (status == TS_OK)
        status = ts_conf_tree_load(path, &out->tree, err);
    if (status == TS_OK)
        status = read_entries(out, err);
    ts_free(path);
    return status;
}

void cost_sheets_free(struct cost_sheets *sheets)
{
    ts_free(sheets->items);
    ts_free(sheets->entries);
    ts_conf_tree_destroy(&sheets->tree);
    ts_catalogue_destroy(&sheets->catalogue);
    *sheets = (struct cost_sheets){.count = 0};
}

/* --- Writing --- */

/* " KEY = VALUE;" with a decimal point, which tells libconfig's two kinds of numbers apart. */
static void put(FILE *out, const char *key, double value, int digits)
{
    char text[40];
    (void)snprintf(text, sizeof text, "%.*e", digits - 1, value);
    (void)snprintf(text, sizeof text, "%.10g", strtod(text, NULL));
    (void)fprintf(out, " %s = %s%s;", key, text, strpbrk(text, ".e") ? "" : ".0");
}

static void write_device(FILE *out, const struct cost_sheet_entry *entry, const struct ts_device_fit *fit,
                         double step_s, bool last)
{
    (void)fprintf(out, "  { name = \"%s\";", entry->name);
    for (uint32_t i = 0; i < ts_conf_node_count(entry->aliases); i++)
        (void)fprintf(out, "%s\"%s\"", i ? ", " : " aliases = (", ts_conf_node_text(entry->aliases, i));
    (void)fprintf(out, "%s\n   ", ts_conf_node_count(entry->aliases) ? ");" : "");
    put(out, "memory_gb", entry->memory_gb, 6);
    put(out, "memory_gb_per_s", entry->memory_gb_per_s, 6);
    put(out, "tflops", entry->tflops, 6);
    put(out, "price_per_hour", entry->price_per_hour, 6);
    (void)fprintf(out, " peer = \"%s\";\n    fit: {", entry->peer);
    put(out, "flops_efficiency", fit->flops_efficiency, 3);
    put(out, "memory_efficiency", fit->memory_efficiency, 3);
    put(out, "context_efficiency", fit->context_efficiency, 3);
    put(out, "attention_efficiency", fit->attention_efficiency, 3);
    (void)fprintf(out, "\n          ");
    put(out, "layer_us", fit->layer_s * 1e6, 3);
    put(out, "step_us", step_s * 1e6, 3);
    put(out, "tokens_half", fit->tokens_half, 3);
    (void)fprintf(out, " }; }%s\n", last ? "" : ",");
}

static void write_link(FILE *out, const char *name, double bytes_per_s, double latency_s, const char *end)
{
    (void)fprintf(out, "  { name = \"%s\";", name);
    put(out, "gb_per_s", bytes_per_s * 1e-9, 3);
    put(out, "latency_us", latency_s * 1e6, 3);
    (void)fprintf(out, " }%s\n", end);
}

/* Links of other generations reach the same share of their data sheets. */
static const struct {
    const char *name;
    enum cost_fitted_link as;
    double times;
} derived_links[] = {
    {"NVLink2", COST_NVLINK3, 0.5},
    {"PCIe5", COST_PCIE4, 2},
    {"PCIe3", COST_PCIE4, 0.5},
};

void cost_write_devices(FILE *out, const struct cost_sheets *sheets, const struct cost_fit *fit)
{
    (void)fprintf(out,
                  "# Made by scripts/fit-devices from sheet.conf and tests/data/profiles: not to be edited.\n"
                  "# Efficiencies are shares of the data sheet; common/core/README.md says which formula "
                  "uses which.\n\n"
                  "links = (\n");
    for (int i = 0; i < COST_FITTED_LINKS; i++) {
        const struct ts_link *link = cost_fit_link(fit, (enum cost_fitted_link)i);
        write_link(out, cost_fitted_link_name((enum cost_fitted_link)i), link->bytes_per_s, link->latency_s,
                   ",");
    }
    for (size_t i = 0; i < TS_ARRAY_SIZE(derived_links); i++) {
        const struct ts_link *link = cost_fit_link(fit, derived_links[i].as);
        write_link(out, derived_links[i].name, link->bytes_per_s * derived_links[i].times, link->latency_s,
                   i + 1 < TS_ARRAY_SIZE(derived_links) ? "," : "");
    }
    (void)fprintf(out, ");\n\ndevices = (\n");
    double step_s = cost_fit_step_s(fit);
    for (size_t i = 0; i < sheets->count; i++) {
        struct ts_device_type device = cost_fit_device(fit, i);
        write_device(out, &sheets->entries[i], &device.fit, step_s, i + 1 == sheets->count);
    }
    (void)fprintf(out, ");\n");
}

/* --- Stacks --- */

struct stack_row {
    char name[32];
    struct cost_stack stack;
};

#define FACTOR(member)                                                                                       \
    {                                                                                                        \
        .name = #member, TS_FIELD_F64, offsetof(struct stack_row, stack.member), .min = 0, .max = 1e6        \
    }

static const struct ts_field stack_fields[] = {
    {.name = "name", TS_FIELD_TEXT, offsetof(struct stack_row, name), .size = 32, .needed = true},
    {.name = "kernels_only", TS_FIELD_BOOL, offsetof(struct stack_row, stack.kernels_only)},
    FACTOR(flops),
    FACTOR(memory),
    FACTOR(layer),
    FACTOR(attention),
    FACTOR(context),
    FACTOR(link),
    FACTOR(group),
    {.name = "call_us",
     TS_FIELD_F64,
     offsetof(struct stack_row, stack.call_s),
     .min = 0,
     .max = 1e9,
     .scale = 1e-6},
    {.name = "send_us",
     TS_FIELD_F64,
     offsetof(struct stack_row, stack.send_s),
     .min = 0,
     .max = 1e9,
     .scale = 1e-6},
    FACTOR(host_prefill),
    FACTOR(host_decode),
};

void cost_write_stacks(FILE *out, const struct cost_fit *fit)
{
    const struct cost_stack none = cost_stack_none();
    (void)fprintf(
        out,
        "# Made by scripts/fit-devices: how the software under which devices were measured departs from the\n"
        "# planner's figures. Factors of efficiencies; tsctl cost eval applies them by the source of a "
        "row.\n\n"
        "stacks = (\n");
    for (unsigned i = 0; i < COST_OTHER; i++) {
        const struct cost_stack *stack = cost_fit_stack(fit, (enum cost_source)i);
        (void)fprintf(out, "  { name = \"%s\";", cost_source_name((enum cost_source)i));
        if (stack->kernels_only)
            (void)fprintf(out, " kernels_only = true;");
        for (size_t k = 2; k < TS_ARRAY_SIZE(stack_fields); k++) {
            size_t at = stack_fields[k].offset - offsetof(struct stack_row, stack);
            double value = *(const double *)(const void *)((const char *)stack + at);
            double plain = *(const double *)(const void *)((const char *)&none + at);
            if (value != plain)
                put(out, stack_fields[k].name,
                    value / (stack_fields[k].scale > 0 ? stack_fields[k].scale : 1), 3);
        }
        (void)fprintf(out, " }%s\n", i + 1 < COST_OTHER ? "," : "");
    }
    (void)fprintf(out, ");\n");
}

static enum ts_status read_stack(struct ts_conf_node node, struct cost_stack *stacks, struct ts_error *err)
{
    struct stack_row row = {.stack = cost_stack_none()};
    enum ts_status status = ts_conf_node_fill(node, stack_fields, TS_ARRAY_SIZE(stack_fields), &row, err);
    for (unsigned i = 0; i < COST_OTHER && status == TS_OK; i++) {
        if (strcmp(row.name, cost_source_name((enum cost_source)i)) == 0) {
            stacks[i] = row.stack;
            return TS_OK;
        }
    }
    return status == TS_OK
               ? ts_conf_node_error(node, "name", err, "no measurement comes from software of this name")
               : status;
}

enum ts_status cost_stacks_load(const char *conf_dir, struct cost_stack *stacks, struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    struct ts_conf_node list = {NULL, NULL};
    const struct ts_field fields[] = {{.name = "stacks", TS_FIELD_GROUPS, 0, .needed = true}};
    char *path = ts_xasprintf("%s/stacks/measured.conf", conf_dir);
    for (unsigned i = 0; i < COST_SOURCE_COUNT; i++)
        stacks[i] = cost_stack_none();
    enum ts_status status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK)
        status = ts_conf_node_fill(ts_conf_tree_root(tree), fields, 1, &list, err);
    for (uint32_t i = 0; i < ts_conf_node_count(list) && status == TS_OK; i++)
        status = read_stack(ts_conf_node_at(list, i), stacks, err);
    ts_conf_tree_destroy(&tree);
    ts_free(path);
    return status;
}
