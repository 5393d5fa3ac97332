#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/inputs/ts_trace.h"
#include "common/run/ts_conf_tree.h"

struct class_row {
    struct ts_class class_;
    double prompt_cv, output_cv; /* standard deviation over mean */
};

struct demand_row {
    struct ts_demand *demand;
    char name[sizeof((struct ts_demand *)0)->name];
    double burst;
    struct ts_conf_node classes;
};

static const struct ts_field class_fields[] = {
    {.name = "rate",
     TS_FIELD_F64,
     offsetof(struct class_row, class_.rate),
     .min = 0,
     .max = 1e9,
     .needed = true},
    {.name = "prompt_tokens",
     TS_FIELD_F64,
     offsetof(struct class_row, class_.prompt_tokens),
     .min = 1,
     .max = 1e7,
     .needed = true},
    {.name = "prompt_cv", TS_FIELD_F64, offsetof(struct class_row, prompt_cv), .min = 0, .max = 100},
    {.name = "output_tokens",
     TS_FIELD_F64,
     offsetof(struct class_row, class_.output_tokens),
     .min = 1,
     .max = 1e7,
     .needed = true},
    {.name = "output_cv", TS_FIELD_F64, offsetof(struct class_row, output_cv), .min = 0, .max = 100},
};

static const struct ts_field demand_fields[] = {
    {.name = "name",
     TS_FIELD_TEXT,
     offsetof(struct demand_row, name),
     .size = sizeof((struct demand_row *)0)->name},
    {.name = "burst", TS_FIELD_F64, offsetof(struct demand_row, burst), .min = 0, .max = 1e6},
    {.name = "classes", TS_FIELD_GROUPS, offsetof(struct demand_row, classes), .needed = true},
};

static enum ts_status read_class(struct ts_conf_node group, struct ts_class *out, struct ts_error *err)
{
    struct class_row row = {.prompt_cv = 0};
    enum ts_status status = ts_conf_node_fill(group, class_fields, TS_ARRAY_SIZE(class_fields), &row, err);
    double prompt = row.class_.prompt_tokens, output = row.class_.output_tokens;
    row.class_.prompt_tokens_sq = prompt * prompt * (1 + row.prompt_cv * row.prompt_cv);
    row.class_.output_tokens_sq = output * output * (1 + row.output_cv * row.output_cv);
    *out = row.class_;
    return status;
}

static enum ts_status read_root(struct ts_conf_node root, struct ts_demand *out, struct ts_error *err)
{
    struct demand_row row = {.burst = 1};
    snprintf(row.name, sizeof row.name, "%s", out->name);
    enum ts_status status = ts_conf_node_fill(root, demand_fields, TS_ARRAY_SIZE(demand_fields), &row, err);
    if (status != TS_OK)
        return status;
    out->class_count = ts_conf_node_count(row.classes);
    if (out->class_count > TS_CLASSES_MAX)
        return ts_conf_node_error(root, "classes", err, "%u length classes; there may be %d",
                                  out->class_count, TS_CLASSES_MAX);
    for (uint32_t k = 0; k < out->class_count && status == TS_OK; k++)
        status = read_class(ts_conf_node_at(row.classes, k), &out->classes[k], err);
    out->burst = row.burst;
    snprintf(out->name, sizeof out->name, "%s", row.name);
    return status;
}

static enum ts_status read_file(const char *conf_dir, const char *name, struct ts_demand *out,
                                struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    char *path = NULL;
    enum ts_status status = inputs_find(conf_dir, "workloads", name, &path, err);
    if (status == TS_OK)
        status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK) {
        inputs_stem(path, out->name, sizeof out->name);
        status = read_root(ts_conf_tree_root(tree), out, err);
    }
    ts_conf_tree_destroy(&tree);
    ts_free(path);
    return status;
}

static enum ts_status read_trace(const char *path, struct ts_demand *out, struct ts_error *err)
{
    struct ts_trace trace;
    enum ts_status status = ts_trace_load(path, &trace, err);
    if (status != TS_OK)
        return status;
    status = ts_trace_demand(&trace, TS_TRACE_PROMPT_BANDS, TS_TRACE_OUTPUT_BANDS, out, err);
    ts_trace_fini(&trace);
    inputs_stem(path, out->name, sizeof out->name);
    return status == TS_OK ? status : ts_error_prefix(err, "%s", path);
}

enum ts_status ts_inputs_demand(const char *conf_dir, const char *name, double rate, struct ts_demand *out,
                                struct ts_error *err)
{
    size_t bytes = strlen(name);
    *out = (struct ts_demand){.burst = 1};
    if (!(rate >= 0 && rate <= 1e9))
        return ts_error_set(err, TS_EINVAL,
                            "rate = %g: expected requests/s from 0 (as the workload says) to 1e9", rate);
    bool csv = bytes > 4 && strcasecmp(name + bytes - 4, ".csv") == 0;
    enum ts_status status = csv ? read_trace(name, out, err) : read_file(conf_dir, name, out, err);
    if (status == TS_OK)
        status = ts_demand_check(out, err);
    if (status != TS_OK || rate == 0)
        return status;
    double present = ts_demand_rate(out);
    if (!(present > 0))
        return ts_error_set(err, TS_EINVAL, "workload \"%s\": all rates are 0, so it cannot be scaled to %g",
                            out->name, rate);
    ts_demand_scale_rate(out, rate / present);
    return TS_OK;
}

static double cv(double mean, double mean_sq)
{
    return sqrt(fmax(0, mean_sq / (mean * mean) - 1));
}

char *ts_inputs_demand_text(const struct ts_demand *demand)
{
    char *text = ts_xasprintf("name = \"%s\";\nburst = %.6f;\nclasses = (\n", demand->name, demand->burst);
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *c = &demand->classes[k];
        char *longer = ts_xasprintf(
            "%s  { rate = %.9f; prompt_tokens = %.6f; prompt_cv = %.9f; output_tokens = %.6f; output_cv = "
            "%.9f; }%s\n",
            text, c->rate, c->prompt_tokens, cv(c->prompt_tokens, c->prompt_tokens_sq), c->output_tokens,
            cv(c->output_tokens, c->output_tokens_sq), k + 1 < demand->class_count ? "," : "");
        ts_free(text);
        text = longer;
    }
    char *whole = ts_xasprintf("%s);\n", text);
    ts_free(text);
    return whole;
}
