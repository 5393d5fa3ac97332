#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl_validate.h"

/* Medians of simulated / measured - 1, and of its size. */
struct medians {
    double bias[VALIDATE_FIGURES], error[VALIDATE_FIGURES];
};

struct group { /* rows of one GPU, model and dtype */
    const struct validate_row *first;
    size_t count;
    struct medians at_once, spread;
};

static bool simulated(const struct validate_row *row)
{
    return !isnan(row->simulated[VALIDATE_TOKENS]);
}

static double error_of(const struct validate_row *row, const double *predicted, int figure)
{
    return row->measured[figure] > 0 ? predicted[figure] / row->measured[figure] - 1 : NAN;
}

static bool same_group(const struct validate_row *a, const struct validate_row *b)
{
    return strcmp(a->gpu, b->gpu) == 0 && strcmp(a->model, b->model) == 0 && strcmp(a->dtype, b->dtype) == 0;
}

/* --- Medians --- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    if (count == 0)
        return NAN;
    qsort(values, count, sizeof *values, by_value);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

/* Of the rows that belong to `first`, or with NULL of all. Returns how many there are. */
static size_t fill_medians(const struct validate_table *table, const struct validate_row *first, bool spread,
                           struct medians *out)
{
    double *values = ts_xmalloc(2 * (table->count + 1) * sizeof *values), *sizes = values + table->count + 1;
    size_t rows = 0;
    for (int f = 0; f < VALIDATE_FIGURES; f++) {
        size_t count = 0;
        rows = 0;
        for (size_t i = 0; i < table->count; i++) {
            const struct validate_row *row = &table->rows[i];
            if (!simulated(row) || (first && !same_group(first, row)))
                continue;
            rows++;
            double error = error_of(row, spread ? row->spread : row->simulated, f);
            if (isnan(error))
                continue;
            values[count] = error;
            sizes[count++] = fabs(error);
        }
        out->bias[f] = median(values, count);
        out->error[f] = median(sizes, count);
    }
    ts_free(values);
    return rows;
}

static void fill_group(const struct validate_table *table, struct group *group)
{
    group->count = fill_medians(table, group->first, false, &group->at_once);
    (void)fill_medians(table, group->first, true, &group->spread);
}

/* In the order in which they come; the caller frees them. */
static struct group *groups_of(const struct validate_table *table, size_t *count)
{
    struct group *groups = ts_xcalloc(table->count + 1, sizeof *groups);
    *count = 0;
    for (size_t i = 0; i < table->count; i++) {
        size_t g = 0;
        while (g < *count && !same_group(groups[g].first, &table->rows[i]))
            g++;
        if (g < *count || !simulated(&table->rows[i]))
            continue;
        groups[g].first = &table->rows[i];
        fill_group(table, &groups[g]);
        ++*count;
    }
    return groups;
}

/* --- JSON --- */

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

static void put_figures(struct ts_json *object, const char *key, const double figures[VALIDATE_FIGURES])
{
    struct ts_json *item = ts_json_new_object();
    for (int f = 0; f < VALIDATE_FIGURES; f++)
        ts_json_put_number(item, validate_figure_name((enum validate_figure)f), figures[f]);
    ts_json_put(object, key, &item);
}

static void put_simulated(struct ts_json *item, const char *key, const char *error_key,
                          const struct validate_row *row, const double figures[VALIDATE_FIGURES])
{
    double errors[VALIDATE_FIGURES];
    for (int f = 0; f < VALIDATE_FIGURES; f++)
        errors[f] = error_of(row, figures, f);
    put_figures(item, key, figures);
    put_figures(item, error_key, errors);
}

static void put_row(struct ts_json *list, const struct validate_row *row)
{
    struct ts_json *item = ts_json_new_object();
    ts_json_put_integer(item, "line", row->line);
    put_text(item, "gpu", row->gpu);
    put_text(item, "site", row->site);
    put_text(item, "model", row->model);
    put_text(item, "dtype", row->dtype);
    if (*row->skipped)
        put_text(item, "skipped", row->skipped);
    put_figures(item, "measured", row->measured);
    ts_json_put_number(item, "measured_under_way", row->under_way);
    if (simulated(row)) {
        put_simulated(item, "simulated", "error", row, row->simulated);
        put_simulated(item, "simulated_spread", "error_spread", row, row->spread);
        ts_json_put_number(item, "spread_s", row->spread_s);
    }
    ts_json_put(list, NULL, &item);
}

static void put_group(struct ts_json *list, const struct group *group)
{
    struct ts_json *item = ts_json_new_object();
    put_text(item, "gpu", group->first ? group->first->gpu : "all");
    put_text(item, "model", group->first ? group->first->model : "all");
    put_text(item, "dtype", group->first ? group->first->dtype : "all");
    ts_json_put_integer(item, "n", (int64_t)group->count);
    put_figures(item, "median", group->at_once.error);
    put_figures(item, "bias", group->at_once.bias);
    put_figures(item, "median_spread", group->spread.error);
    put_figures(item, "bias_spread", group->spread.bias);
    ts_json_put(list, NULL, &item);
}

static void print_json(const struct validate_table *table, const struct group *groups, size_t count,
                       const struct group *all)
{
    struct ts_json *doc = ts_json_new_object(), *rows = ts_json_new_array(), *list = ts_json_new_array(),
                   *unknown = ts_json_new_array();
    for (size_t i = 0; i < table->count; i++)
        put_row(rows, &table->rows[i]);
    for (size_t g = 0; g < count; g++)
        put_group(list, &groups[g]);
    put_group(list, all);
    for (size_t i = 0; i < table->unknown_count; i++)
        put_text(unknown, NULL, table->unknown[i]);
    ts_json_put(doc, "rows", &rows);
    ts_json_put(doc, "groups", &list);
    ts_json_put(doc, "unknown", &unknown);
    char *text = ts_json_dump(doc, true);
    puts(text);
    ts_free(text);
    ts_json_destroy(&doc);
}

/* --- Tables --- */

static const enum validate_figure shown[] = {VALIDATE_TOKENS,   VALIDATE_TTFT_P50, VALIDATE_TTFT_MEAN,
                                             VALIDATE_TTFT_P99, VALIDATE_ITL_P50,  VALIDATE_ITL_MEAN,
                                             VALIDATE_E2E_P50,  VALIDATE_E2E_MEAN, VALIDATE_E2E_P99};

static const char *bare(const char *model)
{
    const char *slash = strrchr(model, '/');
    return slash ? slash + 1 : model;
}

static void print_cell(double value, double scale)
{
    if (isnan(value))
        printf(" %7s", "-");
    else
        printf(" %7.1f", value * scale);
}

static void print_row(const struct validate_row *row)
{
    printf("%4u %-13s %-8s %-31.31s %-4s %5.1f", row->line, row->gpu, row->site, bare(row->model), row->dtype,
           row->under_way);
    for (size_t i = 0; simulated(row) && i < TS_ARRAY_SIZE(shown); i++) {
        double scale = shown[i] == VALIDATE_TOKENS ? 1 : 1e3;
        printf(" |");
        print_cell(row->measured[shown[i]], scale);
        print_cell(row->simulated[shown[i]], scale);
        print_cell(row->spread[shown[i]], scale);
    }
    printf("%s%s\n", *row->skipped ? "  " : "", row->skipped);
}

static void print_heads(const char *start, int width)
{
    printf("%s", start);
    for (size_t i = 0; i < TS_ARRAY_SIZE(shown); i++)
        printf(" | %*s", width, validate_figure_name(shown[i]));
    printf("\n");
}

static void print_group(const struct group *group, const char *gpu, const char *model, const char *dtype)
{
    printf("%-13s %-31.31s %-4s %4zu", gpu, bare(model), dtype, group->count);
    for (size_t i = 0; i < TS_ARRAY_SIZE(shown); i++)
        printf(" | %5.0f %+6.0f %5.0f %+6.0f", 100 * group->at_once.error[shown[i]],
               100 * group->at_once.bias[shown[i]], 100 * group->spread.error[shown[i]],
               100 * group->spread.bias[shown[i]]);
    printf("\n");
}

static void print_tables(const struct validate_table *table, const struct group *groups, size_t count,
                         const struct group *all)
{
    char start[120];
    printf(
        "Each three: measured, simulated with all requests at once, with their starts spread over the run; "
        "tokens/s, then ms\n");
    (void)snprintf(start, sizeof start, "%4s %-13s %-8s %-31s %-4s %5s", "line", "gpu", "site", "model",
                   "type", "conc.");
    print_heads(start, 23);
    for (size_t i = 0; i < table->count; i++)
        print_row(&table->rows[i]);
    printf("\nMedian size of simulated / measured - 1, and its median, in %%: at once, then spread\n");
    (void)snprintf(start, sizeof start, "%-13s %-31s %-4s %4s", "gpu", "model", "type", "rows");
    print_heads(start, 25);
    for (size_t g = 0; g < count; g++)
        print_group(&groups[g], groups[g].first->gpu, groups[g].first->model, groups[g].first->dtype);
    print_group(all, "all", "", "");
}

void validate_print(const struct validate_table *table, bool json)
{
    size_t count;
    struct group all = {.first = NULL}, *groups = groups_of(table, &count);
    fill_group(table, &all);
    if (json)
        print_json(table, groups, count, &all);
    else
        print_tables(table, groups, count, &all);
    ts_free(groups);
}
