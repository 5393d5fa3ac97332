#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl_cost.h"

void cost_groups_add(struct cost_groups *groups, const char *gpu, const char *model, const char *phase,
                     double error)
{
    size_t at = 0;
    while (at < groups->count &&
           (strcmp(groups->items[at].gpu, gpu) != 0 || strcmp(groups->items[at].model, model) != 0 ||
            strcmp(groups->items[at].phase, phase) != 0))
        at++;
    if (at == groups->count) {
        ts_array_reserve((void **)&groups->items, &groups->capacity, at + 1, sizeof *groups->items);
        struct cost_group *fresh = &groups->items[groups->count++];
        *fresh = (struct cost_group){.count = 0};
        (void)snprintf(fresh->gpu, sizeof fresh->gpu, "%s", gpu);
        (void)snprintf(fresh->model, sizeof fresh->model, "%s", model);
        (void)snprintf(fresh->phase, sizeof fresh->phase, "%s", phase);
    }
    struct cost_group *group = &groups->items[at];
    ts_array_reserve((void **)&group->errors, &group->capacity, group->count + 1, sizeof(double));
    group->errors[group->count++] = error;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the two nearest. */
static double quantile(const double *sorted, size_t count, double share)
{
    double at = share * (double)(count - 1);
    size_t below = (size_t)at;
    double beyond = at - (double)below;
    return below + 1 < count ? sorted[below] * (1 - beyond) + sorted[below + 1] * beyond : sorted[below];
}

void cost_groups_close(struct cost_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++) {
        struct cost_group *group = &groups->items[i];
        qsort(group->errors, group->count, sizeof(double), compare_doubles);
        group->median = quantile(group->errors, group->count, 0.5);
        group->p90 = quantile(group->errors, group->count, 0.9);
    }
}

static void print_json(const struct cost_groups *groups)
{
    struct ts_json *list = ts_json_new_array();
    for (size_t i = 0; i < groups->count; i++) {
        const struct cost_group *group = &groups->items[i];
        struct ts_json *item = ts_json_new_object();
        ts_json_put_string(item, "gpu", group->gpu, strlen(group->gpu));
        ts_json_put_string(item, "model", group->model, strlen(group->model));
        ts_json_put_string(item, "phase", group->phase, strlen(group->phase));
        ts_json_put_integer(item, "n", (int64_t)group->count);
        ts_json_put_number(item, "median", group->median);
        ts_json_put_number(item, "p90", group->p90);
        ts_json_put(list, NULL, &item);
    }
    char *text = ts_json_dump(list, true);
    printf("%s\n", text);
    ts_free(text);
    ts_json_destroy(&list);
}

void cost_groups_print(const struct cost_groups *groups, bool json)
{
    if (json) {
        print_json(groups);
        return;
    }
    printf("%-20s %-28s %-10s %6s %8s %8s\n", "gpu", "model", "phase", "rows", "median", "p90");
    for (size_t i = 0; i < groups->count; i++) {
        const struct cost_group *group = &groups->items[i];
        printf("%-20s %-28s %-10s %6zu %7.1f%% %7.1f%%\n", group->gpu, group->model, group->phase,
               group->count, 100 * group->median, 100 * group->p90);
    }
}

void cost_groups_free(struct cost_groups *groups)
{
    for (size_t i = 0; i < groups->count; i++)
        ts_free(groups->items[i].errors);
    ts_free(groups->items);
    *groups = (struct cost_groups){.count = 0};
}
