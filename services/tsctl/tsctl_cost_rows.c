#include "services/tsctl/tsctl_cost_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_csv.h"

struct reader {
    struct cost_table *table;
    const struct ts_catalogue *catalogue;
    const char *conf_dir;
    struct tsctl_csv csv;
};

const char *cost_phase_name(enum cost_phase phase)
{
    static const char *const names[] = {"linear", "prefill", "decode", "all_reduce", "send_recv"};
    return phase < COST_PHASE_COUNT ? names[phase] : "unknown";
}

/* --- Names --- */

static void note_unknown(struct cost_table *table, const char *kind, const char *name)
{
    char *text = ts_xasprintf("%s \"%s\"", kind, name);
    for (size_t i = 0; i < table->unknown_count; i++) {
        if (strcmp(table->unknown[i], text) == 0) {
            ts_free(text);
            return;
        }
    }
    ts_array_reserve((void **)&table->unknown, &table->unknown_capacity, table->unknown_count + 1,
                     sizeof *table->unknown);
    table->unknown[table->unknown_count++] = text;
}

static bool device_index(const struct ts_catalogue *catalogue, const char *name, uint32_t *out)
{
    const struct ts_device_type *device = ts_catalogue_device(catalogue, name);
    for (uint32_t i = 0; device && i < ts_catalogue_device_count(catalogue); i++) {
        if (ts_catalogue_device_at(catalogue, i) == device) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool find_device(struct reader *in, const char *name, uint32_t *out)
{
    if (device_index(in->catalogue, name, out))
        return true;
    note_unknown(in->table, "gpu", name);
    return false;
}

/* Names that differ but resolve to one model share its index. */
static bool find_model(struct reader *in, const char *name, uint32_t *out)
{
    struct cost_table *table = in->table;
    struct ts_model model;
    for (size_t i = 0; i < table->model_count; i++) {
        if (strcmp(table->model_names[i], name) == 0) {
            *out = (uint32_t)i;
            return true;
        }
    }
    /* A name is no path here: rows come from elsewhere. */
    if (strchr(name, '/') || ts_inputs_model(in->conf_dir, name, &model, NULL) != TS_OK) {
        note_unknown(table, "model", name);
        return false;
    }
    for (size_t i = 0; i < table->model_count; i++) {
        if (strcmp(table->models[i].name, model.name) == 0) {
            *out = (uint32_t)i;
            return true;
        }
    }
    ts_array_reserve((void **)&table->models, &table->model_capacity, table->model_count + 1, sizeof model);
    ts_array_reserve((void **)&table->model_names, &table->name_capacity, table->model_count + 1,
                     sizeof *table->model_names);
    table->models[table->model_count] = model;
    table->model_names[table->model_count] = ts_xstrdup(name);
    *out = (uint32_t)table->model_count++;
    return true;
}

static void copy_text(char *into, size_t size, const char *text)
{
    (void)snprintf(into, size, "%s", text);
}

static void add_row(struct cost_table *table, const struct cost_row *row)
{
    ts_array_reserve((void **)&table->rows, &table->row_capacity, table->row_count + 1, sizeof *row);
    table->rows[table->row_count++] = *row;
}

/* --- One function for each format --- */

static enum cost_source source_of(const char *text)
{
    static const struct {
        const char *name;
        enum cost_source source;
    } known[] = {{"vidur", COST_VIDUR}, {"aiconfigurator", COST_KERNELS}, {"helix", COST_HELIX}};
    for (size_t i = 0; text && i < TS_ARRAY_SIZE(known); i++)
        if (strcasecmp(text, known[i].name) == 0)
            return known[i].source;
    return COST_OTHER;
}

static enum ts_status phase_of(const struct tsctl_csv *csv, const char *column, unsigned first, unsigned last,
                               enum cost_phase *out, struct ts_error *err)
{
    const char *text = tsctl_csv_cell(csv, column);
    for (unsigned i = first; i <= last; i++) {
        if (strcmp(text, cost_phase_name((enum cost_phase)i)) == 0) {
            *out = (enum cost_phase)i;
            return TS_OK;
        }
    }
    return ts_error_set(err, TS_EINVAL, "%s:%u: %s = \"%.40s\": expected one of those from %s to %s",
                        csv->path, csv->line, column, text, cost_phase_name((enum cost_phase)first),
                        cost_phase_name((enum cost_phase)last));
}

static enum ts_status read_measured(struct reader *in, struct ts_error *err)
{
    const struct tsctl_csv *csv = &in->csv;
    struct cost_row row = {.source = source_of(tsctl_csv_cell(csv, "source"))};
    double ms = 0;
    enum ts_status status = phase_of(csv, "phase", COST_LINEAR, COST_DECODE, &row.phase, err);
    if (status == TS_OK)
        status = tsctl_csv_whole(csv, "tp", 64, &row.tp, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "batch", 1, 1e6, &row.batch, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "tokens", 1, 1e9, &row.tokens, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "measured_ms", 1e-9, 1e9, &ms, err);
    if (status != TS_OK)
        return status;
    row.seconds = ms * 1e-3;
    row.tp_node = row.tp;
    copy_text(row.gpu, sizeof row.gpu, tsctl_csv_cell(csv, "gpu"));
    copy_text(row.model_name, sizeof row.model_name, tsctl_csv_cell(csv, "model"));
    bool device = find_device(in, row.gpu, &row.device), model = find_model(in, row.model_name, &row.model);
    if (device && model)
        add_row(in->table, &row);
    return TS_OK;
}

static enum ts_status read_splitwise(struct reader *in, struct ts_error *err)
{
    const struct tsctl_csv *csv = &in->csv;
    struct cost_row row = {.source = COST_SPLITWISE, .phase = COST_PREFILL, .whole = true};
    double prompt_ms = 0, token_ms = 0, output = 0;
    enum ts_status status = tsctl_csv_whole(csv, "tensor_parallel", 64, &row.tp, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "prompt_size", 1, 1e9, &row.tokens, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "batch_size", 1, 1e6, &row.batch, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "token_size", 1, 1e9, &output, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "prompt_ms", 1e-9, 1e9, &prompt_ms, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "token_ms", 1e-9, 1e9, &token_ms, err);
    if (status != TS_OK)
        return status;
    row.tp_node = row.tp;
    row.seconds = prompt_ms * 1e-3;
    copy_text(row.gpu, sizeof row.gpu, tsctl_csv_cell(csv, "hardware"));
    copy_text(row.model_name, sizeof row.model_name, tsctl_csv_cell(csv, "model"));
    bool device = find_device(in, row.gpu, &row.device), model = find_model(in, row.model_name, &row.model);
    if (!device || !model)
        return TS_OK;
    add_row(in->table, &row);
    row.phase = COST_DECODE;
    row.tokens += output / 2; /* on average over the output */
    row.seconds = token_ms * 1e-3;
    add_row(in->table, &row);
    return TS_OK;
}

/* A node is named by its device and words about its fabric: the longest head of the name that is a device. */
static bool device_of_node(struct reader *in, const char *node, struct cost_row *row)
{
    char head[sizeof row->gpu];
    copy_text(head, sizeof head, node);
    for (size_t length = strlen(head); length > 0; length--) {
        bool cut = length == strlen(node) || strchr(" _-", node[length]);
        head[length] = '\0';
        if (cut && device_index(in->catalogue, head, &row->device)) {
            copy_text(row->gpu, sizeof row->gpu, head);
            return true;
        }
    }
    note_unknown(in->table, "node", node);
    return false;
}

static enum ts_status read_network(struct reader *in, struct ts_error *err)
{
    const struct tsctl_csv *csv = &in->csv;
    const char *node = tsctl_csv_cell(csv, "node");
    struct cost_row row = {.source = source_of(tsctl_csv_cell(csv, "source"))};
    double ms = 0;
    enum ts_status status = phase_of(csv, "collective", COST_ALL_REDUCE, COST_SEND_RECV, &row.phase, err);
    if (status == TS_OK)
        status = tsctl_csv_whole(csv, "workers", 1024, &row.tp, err);
    if (status == TS_OK)
        status = tsctl_csv_whole(csv, "workers_per_node", 1024, &row.tp_node, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "bytes", 1, 1e15, &row.bytes, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "measured_ms", 1e-9, 1e9, &ms, err);
    if (status == TS_OK && row.tp < 2)
        status = ts_error_set(err, TS_EINVAL, "%s:%u: workers = 1: a collective has two or more", csv->path,
                              csv->line);
    if (status != TS_OK || !device_of_node(in, node, &row))
        return status;
    row.seconds = ms * 1e-3;
    copy_text(row.model_name, sizeof row.model_name, node);
    if (row.source == COST_KERNELS && strstr(node, "nccl"))
        row.source = COST_NCCL;
    if (row.tp_node < row.tp)
        row.link = COST_LINK_FABRIC;
    else if (strstr(node, "pair") && row.tp > 2)
        row.link = COST_LINK_PCIE;
    add_row(in->table, &row);
    return TS_OK;
}

static enum ts_status read_serving(struct reader *in, struct ts_error *err)
{
    const struct tsctl_csv *csv = &in->csv;
    struct cost_serving row = {.device = 0};
    double prompt = 0, output = 0;
    const char *name = tsctl_csv_cell(csv, "model"), *slash = strrchr(name, '/');
    /* 16-bit weights only; runs without a figure failed. */
    if (strcasecmp(tsctl_csv_cell(csv, "dtype"), "BF16") != 0 || !*tsctl_csv_cell(csv, "itl_p50"))
        return TS_OK;
    double loop = 0;
    enum ts_status status = tsctl_csv_number(csv, "concurrency", 1, 1e6, &loop, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "completed", 1, 1e6, &row.batch, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "mean_in", 1, 1e9, &prompt, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "mean_out", 1, 1e9, &output, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "itl_p50", 1e-9, 1e9, &row.token_s, err);
    if (status != TS_OK || !find_device(in, tsctl_csv_cell(csv, "gpu"), &row.device) ||
        !find_model(in, slash ? slash + 1 : name, &row.model))
        return status;
    row.batch = fmin(row.batch, loop);
    row.context = row.batch * (prompt + output / 2);
    struct cost_table *table = in->table;
    ts_array_reserve((void **)&table->serving, &table->serving_capacity, table->serving_count + 1,
                     sizeof row);
    table->serving[table->serving_count++] = row;
    return TS_OK;
}

static const struct {
    const char *columns[10];
    enum ts_status (*read)(struct reader *in, struct ts_error *err);
} formats[] = {
    {{"gpu", "model", "tp", "phase", "batch", "tokens", "measured_ms", NULL}, read_measured},
    {{"model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size", "prompt_ms",
      "token_ms", NULL},
     read_splitwise},
    {{"node", "collective", "workers", "workers_per_node", "bytes", "measured_ms", NULL}, read_network},
    {{"gpu", "model", "dtype", "concurrency", "completed", "mean_in", "mean_out", "itl_p50", NULL},
     read_serving},
};

static enum ts_status read_rows(struct reader *in, struct ts_error *err)
{
    struct tsctl_csv *csv = &in->csv;
    enum ts_status status = TS_OK;
    size_t format = 0;
    while (format < TS_ARRAY_SIZE(formats) && !tsctl_csv_has(csv, formats[format].columns))
        format++;
    if (format == TS_ARRAY_SIZE(formats))
        return ts_error_set(err, TS_EINVAL,
                            "%s:1: these are not the columns of measured_dev.csv, splitwise_dev.csv or "
                            "network_dev.csv; see tests/data/profiles/README.md",
                            csv->path);
    while (status == TS_OK && (status = tsctl_csv_next(csv, err)) == TS_OK)
        status = formats[format].read(in, err);
    return status == TS_ENOTFOUND ? TS_OK : status;
}

enum ts_status cost_table_read(struct cost_table *table, const struct ts_catalogue *catalogue,
                               const char *conf_dir, const char *path, struct ts_error *err)
{
    struct reader in = {.table = table, .catalogue = catalogue, .conf_dir = conf_dir};
    enum ts_status status = tsctl_csv_open(&in.csv, path, err);
    if (status == TS_OK)
        status = read_rows(&in, err);
    tsctl_csv_close(&in.csv);
    return status;
}

void cost_table_free(struct cost_table *table)
{
    for (size_t i = 0; i < table->model_count; i++)
        ts_free(table->model_names[i]);
    for (size_t i = 0; i < table->unknown_count; i++)
        ts_free(table->unknown[i]);
    ts_free(table->rows);
    ts_free(table->serving);
    ts_free(table->models);
    ts_free(table->model_names);
    ts_free(table->unknown);
    *table = (struct cost_table){.row_count = 0};
}
