/* Leaves each device, and each model, out of the fit in turn and asks about its rows. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_cost.h"

#define STILL 1e-3 /* a tenth of a percent: far below the errors told */

static double error_of(const struct cost_fit *fit, const struct cost_row *row)
{
    return fabs(cost_fit_predict(fit, row) / row->seconds - 1);
}

/* One turn for each device (or model): its rows, by phase and by name. */
static void leave_out(struct cost_fit *fit, const struct cost_table *table, const struct cost_sheets *sheets,
                      bool by_model, struct cost_groups *by_phase, struct cost_groups *by_name)
{
    bool *used = ts_xcalloc(table->row_count + 1, sizeof *used);
    size_t turns = by_model ? table->model_count : sheets->count;
    for (size_t turn = 0; turn < turns; turn++) {
        size_t left = 0;
        for (size_t i = 0; i < table->row_count; i++) {
            const struct cost_row *row = &table->rows[i];
            bool collective = row->phase > COST_DECODE;
            used[i] = by_model ? collective || row->model != turn : row->device != turn;
            left += !used[i] && !collective;
        }
        if (left == 0)
            continue;
        cost_fit_solve(fit, used, STILL);
        for (size_t i = 0; i < table->row_count; i++) {
            const struct cost_row *row = &table->rows[i];
            if (used[i])
                continue;
            const char *phase = cost_phase_name(row->phase);
            double error = error_of(fit, row);
            cost_groups_add(by_phase, by_model ? "each model" : "each gpu", "", phase, error);
            cost_groups_add(by_name, by_model ? "" : sheets->items[turn].device.name,
                            by_model ? table->models[turn].name : "", phase, error);
        }
    }
    ts_free(used);
}

/* Prefill, decode and linear must stay below `most`; collectives are told, not judged. */
static bool below(const struct cost_groups *by_phase, double most)
{
    bool good = by_phase->count > 0;
    for (size_t i = 0; i < by_phase->count; i++) {
        const struct cost_group *group = &by_phase->items[i];
        bool judged = strcmp(group->phase, cost_phase_name(COST_ALL_REDUCE)) != 0 &&
                      strcmp(group->phase, cost_phase_name(COST_SEND_RECV)) != 0;
        good = good && (!judged || group->median <= most);
    }
    return good;
}

static void print_part(const char *title, struct cost_groups *groups)
{
    cost_groups_close(groups);
    printf("%s\n", title);
    cost_groups_print(groups, false);
    printf("\n");
}

static bool turn_and_print(struct cost_fit *fit, const struct cost_table *table,
                           const struct cost_sheets *sheets, bool by_model, double most)
{
    struct cost_groups by_phase = {.count = 0}, by_name = {.count = 0};
    leave_out(fit, table, sheets, by_model, &by_phase, &by_name);
    print_part(by_model ? "Leaving one model out" : "Leaving one GPU out", &by_phase);
    print_part("  in detail", &by_name);
    bool good = below(&by_phase, most);
    printf("%s: median of each phase %s %g %%\n\n", by_model ? "models" : "GPUs", good ? "at most" : "ABOVE",
           100 * most);
    cost_groups_free(&by_phase);
    cost_groups_free(&by_name);
    return good;
}

static void print_fitted(const struct cost_fit *fit, const struct cost_table *table)
{
    struct cost_groups fitted = {.count = 0}, plain = {.count = 0};
    for (size_t i = 0; i < table->row_count; i++) {
        const struct cost_row *row = &table->rows[i];
        const char *source = cost_source_name(row->source), *phase = cost_phase_name(row->phase);
        cost_groups_add(&fitted, source, "", phase, error_of(fit, row));
        if (!row->whole && row->phase <= COST_DECODE)
            cost_groups_add(&plain, source, "", phase,
                            fabs(cost_fit_predict_plain(fit, row) / row->seconds - 1));
    }
    print_part("Fitted to all rows, by source (not a device)", &fitted);
    print_part("The same, by the planner's figures without regard to the source", &plain);
    cost_groups_free(&fitted);
    cost_groups_free(&plain);
}

int cost_leave_out(const struct cost_flags *f)
{
    struct cost_sheets sheets;
    struct cost_table table = {.row_count = 0};
    struct ts_error err = {0};
    int code = 0;
    if (cost_inputs_load(f, &sheets, &table, &err) == TS_OK) {
        struct cost_fit *fit = cost_fit_new(sheets.items, sheets.count, &table);
        cost_fit_solve(fit, NULL, STILL);
        print_fitted(fit, &table);
        bool models = turn_and_print(fit, &table, &sheets, true, f->most_by_model);
        cost_fit_solve(fit, NULL, STILL);
        bool gpus = turn_and_print(fit, &table, &sheets, false, f->most_by_gpu);
        cost_fit_destroy(&fit);
        if (!models || !gpus)
            code = tsctl_fail("cost loo", 1, "the cost model errs more than it may");
    } else {
        code = tsctl_fail("cost loo", 1, err.text);
    }
    cost_table_free(&table);
    cost_sheets_free(&sheets);
    return code;
}
