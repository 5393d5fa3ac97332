#include "common/inputs/ts_inputs_workload.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/run/ts_conf_tree.h"

#define WORD_BYTES 16

struct class_row {
    struct ts_class class_;
    double prompt_cv, output_cv; /* standard deviation over mean */
    char law[WORD_BYTES];
    char empirical[512];
};

struct workload_row {
    char name[sizeof((struct ts_demand *)0)->name];
    char arrivals[WORD_BYTES];
    double burst;
    struct ts_conf_node steps, diurnal, classes;
};

#define CLASS(key, member, least, most, must)                                                                \
    {                                                                                                        \
        .name = key, TS_FIELD_F64, offsetof(struct class_row, member), .min = least, .max = most,            \
        .needed = must                                                                                       \
    }

static const struct ts_field class_fields[] = {
    CLASS("rate", class_.rate, 0, 1e9, true),
    CLASS("prompt_tokens", class_.prompt_tokens, 1, 1e7, true),
    CLASS("prompt_cv", prompt_cv, 0, 100, false),
    CLASS("prompt_begin", class_.prompt_begin, 0, 1e8, false),
    CLASS("prompt_end", class_.prompt_end, 0, 1e9, false),
    CLASS("output_tokens", class_.output_tokens, 1, 1e7, true),
    CLASS("output_cv", output_cv, 0, 100, false),
    {.name = "law", TS_FIELD_TEXT, offsetof(struct class_row, law), .size = WORD_BYTES},
};

/* Of a class whose lengths are the rows of a file. */
static const struct ts_field empirical_fields[] = {
    CLASS("rate", class_.rate, 0, 1e9, true),
    {.name = "empirical",
     TS_FIELD_TEXT,
     offsetof(struct class_row, empirical),
     .size = sizeof((struct class_row *)0)->empirical,
     .needed = true},
};

#undef CLASS

static const struct ts_field workload_fields[] = {
    {.name = "name",
     TS_FIELD_TEXT,
     offsetof(struct workload_row, name),
     .size = sizeof((struct workload_row *)0)->name},
    {.name = "arrivals", TS_FIELD_TEXT, offsetof(struct workload_row, arrivals), .size = WORD_BYTES},
    {.name = "burst", TS_FIELD_F64, offsetof(struct workload_row, burst), .min = 0, .max = 1e6},
    {.name = "steps", TS_FIELD_GROUPS, offsetof(struct workload_row, steps)},
    {.name = "diurnal", TS_FIELD_GROUP, offsetof(struct workload_row, diurnal)},
    {.name = "classes", TS_FIELD_GROUPS, offsetof(struct workload_row, classes), .needed = true},
};

static const struct ts_field step_fields[] = {
    {.name = "at_s", TS_FIELD_F64, offsetof(struct inputs_step, at_s), .min = 0, .max = 1e9, .needed = true},
    {.name = "factor",
     TS_FIELD_F64,
     offsetof(struct inputs_step, factor),
     .min = 0,
     .max = 1e6,
     .needed = true},
};

static const struct ts_field diurnal_fields[] = {
    {.name = "period_s",
     TS_FIELD_F64,
     offsetof(struct inputs_workload, period_s),
     .min = 1e-3,
     .max = 1e9,
     .needed = true},
    {.name = "amplitude",
     TS_FIELD_F64,
     offsetof(struct inputs_workload, amplitude),
     .min = 0,
     .max = 1,
     .needed = true},
};

/* --- Lengths --- */

static void take_means(const struct ts_trace *rows, struct ts_class *out)
{
    double n = (double)rows->count;
    for (size_t i = 0; i < rows->count; i++) {
        double prompt = rows->rows[i].prompt_tokens, output = rows->rows[i].output_tokens;
        out->prompt_tokens += prompt / n;
        out->prompt_tokens_sq += prompt * prompt / n;
        out->output_tokens += output / n;
        out->output_tokens_sq += output * output / n;
    }
}

/* FILE as the workload file names it: beside that file, unless it is an absolute path. */
static enum ts_status read_empirical(struct ts_conf_node group, const char *folder, struct class_row *row,
                                     struct ts_trace *rows, struct ts_error *err)
{
    static const char *const derived[] = {"prompt_tokens", "prompt_cv", "output_tokens", "output_cv", "law"};
    for (size_t i = 0; i < TS_ARRAY_SIZE(derived); i++)
        if (ts_conf_node_has(group, derived[i]))
            return ts_conf_node_error(group, derived[i], err,
                                      "both lengths are drawn from the file of `empirical`: leave this out");
    enum ts_status status =
        ts_conf_node_fill(group, empirical_fields, TS_ARRAY_SIZE(empirical_fields), row, err);
    if (status != TS_OK)
        return status;
    char *path =
        *row->empirical == '/' ? ts_xstrdup(row->empirical) : ts_xasprintf("%s%s", folder, row->empirical);
    status = ts_trace_load(path, rows, err);
    ts_free(path);
    if (status == TS_OK)
        take_means(rows, &row->class_);
    return status;
}

static enum ts_status read_lengths(struct ts_conf_node group, struct class_row *row, struct ts_error *err)
{
    struct ts_class *c = &row->class_;
    enum ts_status status = ts_conf_node_fill(group, class_fields, TS_ARRAY_SIZE(class_fields), row, err);
    if (status != TS_OK)
        return status;
    bool fixed = strcmp(row->law, "fixed") == 0;
    if (*row->law && !fixed && strcmp(row->law, "lognormal") != 0)
        return ts_conf_node_error(group, "law", err, "expected \"fixed\" or \"lognormal\"");
    if (fixed && row->prompt_cv + row->output_cv > 0)
        return ts_conf_node_error(group, "law", err,
                                  "fixed lengths do not vary: leave prompt_cv and output_cv out");
    c->prompt_tokens_sq = c->prompt_tokens * c->prompt_tokens * (1 + row->prompt_cv * row->prompt_cv);
    c->output_tokens_sq = c->output_tokens * c->output_tokens * (1 + row->output_cv * row->output_cv);
    return TS_OK;
}

static enum ts_status read_class(struct ts_conf_node group, const char *folder, uint32_t k,
                                 struct inputs_workload *out, struct ts_error *err)
{
    struct class_row row = {.prompt_cv = 0};
    bool empirical = ts_conf_node_has(group, "empirical");
    enum ts_status status = empirical ? read_empirical(group, folder, &row, &out->empirical[k], err)
                                      : read_lengths(group, &row, err);
    out->laws[k] = empirical ? INPUTS_EMPIRICAL : INPUTS_LOGNORMAL;
    out->demand.classes[k] = row.class_;
    return status;
}

/* --- Arrivals --- */

static enum ts_status read_arrivals(struct ts_conf_node root, const struct workload_row *row,
                                    struct inputs_workload *out, struct ts_error *err)
{
    bool poisson = strcmp(row->arrivals, "poisson") == 0;
    if (*row->arrivals && !poisson && strcmp(row->arrivals, "gamma") != 0)
        return ts_conf_node_error(root, "arrivals", err, "expected \"poisson\" or \"gamma\"");
    if (poisson && ts_conf_node_has(root, "burst") && row->burst != 1)
        return ts_conf_node_error(root, "burst", err,
                                  "Poisson arrivals have a burst of 1: leave it out, or take \"gamma\"");
    out->demand.burst = row->burst;
    return TS_OK;
}

static enum ts_status read_steps(struct ts_conf_node root, struct ts_conf_node list,
                                 struct inputs_workload *out, struct ts_error *err)
{
    uint32_t count = ts_conf_node_count(list);
    if (count >= INPUTS_STEPS_MAX)
        return ts_conf_node_error(root, "steps", err, "%u steps; there may be %d", count,
                                  INPUTS_STEPS_MAX - 1);
    out->steps[0] = (struct inputs_step){0, 1};
    out->step_count = 1;
    for (uint32_t i = 0; i < count; i++) {
        struct ts_conf_node group = ts_conf_node_at(list, i);
        struct inputs_step step = {0}, *last = &out->steps[out->step_count - 1];
        enum ts_status status = ts_conf_node_fill(group, step_fields, TS_ARRAY_SIZE(step_fields), &step, err);
        if (status != TS_OK)
            return status;
        if (step.at_s == 0 && i == 0)
            *last = step;
        else if (step.at_s <= last->at_s)
            return ts_conf_node_error(group, "at_s", err, "steps come in order of time, each at its own");
        else
            out->steps[out->step_count++] = step;
    }
    return TS_OK;
}

static enum ts_status read_root(struct ts_conf_node root, const char *folder, struct inputs_workload *out,
                                struct ts_error *err)
{
    struct workload_row row = {.burst = 1};
    (void)snprintf(row.name, sizeof row.name, "%s", out->demand.name);
    enum ts_status status =
        ts_conf_node_fill(root, workload_fields, TS_ARRAY_SIZE(workload_fields), &row, err);
    if (status == TS_OK)
        status = read_arrivals(root, &row, out, err);
    if (status == TS_OK)
        status = read_steps(root, row.steps, out, err);
    if (status == TS_OK && row.diurnal.setting)
        status = ts_conf_node_fill(row.diurnal, diurnal_fields, TS_ARRAY_SIZE(diurnal_fields), out, err);
    if (status != TS_OK)
        return status;
    (void)snprintf(out->demand.name, sizeof out->demand.name, "%s", row.name);
    uint32_t classes = ts_conf_node_count(row.classes);
    if (classes > TS_CLASSES_MAX)
        return ts_conf_node_error(root, "classes", err, "%u length classes; there may be %d", classes,
                                  TS_CLASSES_MAX);
    for (uint32_t k = 0; k < classes && status == TS_OK; k++) {
        out->demand.class_count = k + 1;
        status = read_class(ts_conf_node_at(row.classes, k), folder, k, out, err);
    }
    return status;
}

enum ts_status inputs_workload_read(const char *path, struct inputs_workload *out, struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    const char *slash = strrchr(path, '/');
    char *folder = ts_xstrndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    *out = (struct inputs_workload){.demand = {.burst = 1}};
    inputs_stem(path, out->demand.name, sizeof out->demand.name);
    enum ts_status status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK)
        status = read_root(ts_conf_tree_root(tree), folder, out, err);
    if (status == TS_OK)
        status = ts_demand_check(&out->demand, err);
    if (status != TS_OK)
        inputs_workload_fini(out);
    ts_conf_tree_destroy(&tree);
    ts_free(folder);
    return status;
}

void inputs_workload_fini(struct inputs_workload *workload)
{
    for (uint32_t k = 0; k < workload->demand.class_count; k++)
        ts_trace_fini(&workload->empirical[k]);
}

static bool ends_in(const char *name, const char *ending)
{
    size_t bytes = strlen(name), tail = strlen(ending);
    return bytes > tail && strcasecmp(name + bytes - tail, ending) == 0;
}

bool inputs_is_trace(const char *name)
{
    return ends_in(name, ".csv") || ends_in(name, ".jsonl");
}
