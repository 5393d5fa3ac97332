#include "services/tsctl/tsctl_cost.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"

#define EXIT_UNKNOWN_NAMES 3

static const struct ts_option options[] = {
    {"conf_dir", TS_OPTION_STRING, offsetof(struct cost_flags, conf_dir), "", 0, 0,
     "folder with devices, links, models, stacks (default: conf, here or above the program)"},
    {"devices", TS_OPTION_STRING, offsetof(struct cost_flags, devices), "measured", 0, 0,
     "eval: the catalogue of devices"},
    {"profiles", TS_OPTION_STRING, offsetof(struct cost_flags, profiles), "tests/data/profiles", 0, 0,
     "fit, loo: folder of the measurements"},
    {"devices_out", TS_OPTION_STRING, offsetof(struct cost_flags, devices_out), "", 0, 0,
     "fit: write the catalogue here"},
    {"stacks_out", TS_OPTION_STRING, offsetof(struct cost_flags, stacks_out), "", 0, 0,
     "fit: write what the measured software changes here"},
    {"most_by_model", TS_OPTION_F64, offsetof(struct cost_flags, most_by_model), "0.10", 0, 10,
     "loo: largest median error with one model left out"},
    {"most_by_gpu", TS_OPTION_F64, offsetof(struct cost_flags, most_by_gpu), "0.25", 0, 10,
     "loo: largest median error with one GPU left out"},
    {"model", TS_OPTION_STRING, offsetof(struct cost_flags, model), "llama-3-8b", 0, 0,
     "request: name of conf/models, or a config.json"},
    {"prompt_tokens", TS_OPTION_U32, offsetof(struct cost_flags, prompt_tokens), "512", 1, 1 << 20,
     "request: of its prompt"},
    {"output_tokens", TS_OPTION_U32, offsetof(struct cost_flags, output_tokens), "16", 1, 1 << 20,
     "request: of its output"},
    {"reference", TS_OPTION_STRING, offsetof(struct cost_flags, reference), "A100-80G", 0, 0,
     "request: device whose prefill hides a part of the KV transfer"},
    {"links", TS_OPTION_STRINGS, offsetof(struct cost_flags, links),
     "InfiniBand-HDR,100GbE,40Gbit,25GbE,10GbE,5Gbit,1Gbit", 0, 0, "request: links that its KV may take"},
    {"json", TS_OPTION_BOOL, offsetof(struct cost_flags, json), "false", 0, 0,
     "eval: print an array of {gpu, model, phase, n, median, p90}; request: all batch sizes and links"},
};

enum ts_status cost_inputs_load(const struct cost_flags *f, struct cost_sheets *sheets,
                                struct cost_table *table, struct ts_error *err)
{
    static const char *const files[] = {"measured_dev.csv", "splitwise_dev.csv", "network_dev.csv",
                                        "serving_dev.csv"};
    enum ts_status status = cost_sheets_load(f->conf_dir, sheets, err);
    for (size_t i = 0; i < TS_ARRAY_SIZE(files) && status == TS_OK; i++) {
        char *path = ts_xasprintf("%s/%s", f->profiles, files[i]);
        status = cost_table_read(table, sheets->catalogue, f->conf_dir, path, err);
        ts_free(path);
    }
    if (status == TS_OK && table->unknown_count > 0)
        status =
            ts_error_set(err, TS_EINVAL, "unknown %s in %s; add it to conf/devices/sheet.conf or conf/models",
                         table->unknown[0], f->profiles);
    return status;
}

/* --- eval --- */

/* What scripts/fit-devices did not write stays as the catalogue of links says. */
static struct cost_links links_of(const struct ts_catalogue *catalogue)
{
    const struct ts_link *pcie = ts_catalogue_link(catalogue, cost_fitted_link_name(COST_PCIE4));
    const struct ts_link *fabric = ts_catalogue_link(catalogue, cost_fitted_link_name(COST_FABRIC));
    const struct ts_link assumed = {.name = "assumed", .bytes_per_s = 10e9, .latency_s = 20e-6};
    return (struct cost_links){pcie ? *pcie : assumed, fabric ? *fabric : assumed};
}

static void evaluate(const struct cost_table *table, const struct ts_catalogue *catalogue,
                     const struct cost_stack *stacks, struct cost_groups *groups)
{
    struct cost_links links = links_of(catalogue);
    for (size_t i = 0; i < table->row_count; i++) {
        const struct cost_row *row = &table->rows[i];
        const struct ts_model *model = table->model_count > 0 ? &table->models[row->model] : NULL;
        double predicted = cost_predict(row, model, ts_catalogue_device_at(catalogue, row->device), &links,
                                        &stacks[row->source]);
        cost_groups_add(groups, row->gpu, row->model_name, cost_phase_name(row->phase),
                        fabs(predicted / row->seconds - 1));
    }
    cost_groups_close(groups);
}

static int eval(const struct cost_flags *f, const char *path)
{
    struct cost_table table = {.row_count = 0};
    struct cost_stack stacks[COST_SOURCE_COUNT];
    struct ts_catalogue *catalogue = NULL;
    struct cost_groups groups = {.count = 0};
    struct ts_error err = {0};
    int code = 0;
    enum ts_status status = ts_catalogue_load(f->conf_dir, f->devices, &catalogue, &err);
    if (status == TS_OK)
        status = cost_stacks_load(f->conf_dir, stacks, &err);
    if (status == TS_OK)
        status = cost_table_read(&table, catalogue, f->conf_dir, path, &err);
    if (status == TS_OK && table.serving_count > 0 && table.row_count == 0)
        status = ts_error_set(&err, TS_EUNSUPPORTED, "%s measures serving, not the cost of a layer or a pass",
                              path);
    if (status == TS_OK) {
        evaluate(&table, catalogue, stacks, &groups);
        cost_groups_print(&groups, f->json);
        for (size_t i = 0; i < table.unknown_count; i++)
            fprintf(stderr, "tsctl cost eval: unknown %s\n", table.unknown[i]);
        code = table.unknown_count > 0 ? EXIT_UNKNOWN_NAMES : 0;
    } else {
        code = tsctl_fail("cost eval", 1, err.text);
    }
    cost_groups_free(&groups);
    cost_table_free(&table);
    ts_catalogue_destroy(&catalogue);
    return code;
}

/* --- fit --- */

static enum ts_status write_fit(const struct cost_flags *f, const struct cost_sheets *sheets,
                                const struct cost_fit *fit, struct ts_error *err)
{
    const char *paths[] = {f->devices_out, f->stacks_out};
    for (size_t i = 0; i < TS_ARRAY_SIZE(paths); i++) {
        FILE *out = fopen(paths[i], "w");
        if (!out)
            return ts_error_set(err, TS_EIO, "cannot write %s: %s", paths[i], strerror(errno));
        if (i == 0)
            cost_write_devices(out, sheets, fit);
        else
            cost_write_stacks(out, fit);
        bool failed = ferror(out) != 0;
        if (fclose(out) != 0 || failed)
            return ts_error_set(err, TS_EIO, "cannot write %s", paths[i]);
    }
    return TS_OK;
}

static int fit_all(const struct cost_flags *f)
{
    struct cost_sheets sheets;
    struct cost_table table = {.row_count = 0};
    struct ts_error err = {0};
    enum ts_status status = cost_inputs_load(f, &sheets, &table, &err);
    if (status == TS_OK) {
        struct cost_fit *fit = cost_fit_new(sheets.items, sheets.count, &table);
        cost_fit_solve(fit, NULL, COST_FIT_EXACT);
        status = write_fit(f, &sheets, fit, &err);
        cost_fit_destroy(&fit);
    }
    cost_table_free(&table);
    cost_sheets_free(&sheets);
    return status == TS_OK ? 0 : tsctl_fail("cost fit", 1, err.text);
}

static int run(struct cost_flags *f, const struct ts_conf_strings *arguments)
{
    const char *verb = arguments->count > 0 ? arguments->items[0] : "";
    char *found = *f->conf_dir ? NULL : tsctl_conf_dir();
    int code;
    if (found)
        f->conf_dir = found;
    if (strcmp(verb, "eval") == 0 && arguments->count == 2)
        code = eval(f, arguments->items[1]);
    else if (strcmp(verb, "request") == 0 && arguments->count == 1)
        code = cost_request(f);
    else if (strcmp(verb, "loo") == 0 && arguments->count == 1)
        code = cost_leave_out(f);
    else if (strcmp(verb, "fit") == 0 && arguments->count == 1 && *f->devices_out && *f->stacks_out)
        code = fit_all(f);
    else
        code = tsctl_fail("cost", 2,
                          "usage: tsctl cost eval FILE [--json] | request [--model M] | loo | fit "
                          "--devices-out FILE --stacks-out FILE");
    ts_free(found);
    return code;
}

int tsctl_cost(int argc, char **argv)
{
    struct cost_flags f = {.conf = NULL};
    struct ts_conf_strings arguments = {.count = 0};
    struct ts_error err = {0};
    int code = 0;
    switch (
        ts_conf_load("cost", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("cost", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f, &arguments);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
