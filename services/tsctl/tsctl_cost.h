/*
 * tsctl cost: the cost model against measurements. `eval` states its errors on a file, `fit` writes the
 * measured catalogue, `loo` leaves each device and each model out in turn. Results are groups of relative
 * errors.
 */
#ifndef TSCTL_COST_H
#define TSCTL_COST_H

#include "common/run/ts_conf.h"
#include "services/tsctl/tsctl_cost_files.h"

struct cost_flags {
    struct ts_conf *conf;
    const char *conf_dir, *profiles, *devices, *devices_out, *stacks_out;
    double most_by_model, most_by_gpu;
    const char *model, *reference; /* request */
    uint32_t prompt_tokens, output_tokens;
    struct ts_conf_strings links;
    double kv_token_bytes; /* of the model, set by cost_request */
    bool json;
};

/* |predicted / measured - 1| of rows that share three words. */
struct cost_group {
    char gpu[64], model[96], phase[16];
    double *errors;
    size_t count, capacity;
    double median, p90; /* set by cost_groups_close */
};

struct cost_groups {
    struct cost_group *items;
    size_t count, capacity;
};

void cost_groups_add(struct cost_groups *groups, const char *gpu, const char *model, const char *phase,
                     double error);
void cost_groups_close(struct cost_groups *groups);
void cost_groups_print(const struct cost_groups *groups, bool json);
void cost_groups_free(struct cost_groups *groups);

/* The four tables below f->profiles, and the sheets that they are fitted over. */
enum ts_status cost_inputs_load(const struct cost_flags *f, struct cost_sheets *sheets,
                                struct cost_table *table, struct ts_error *err);
int cost_leave_out(const struct cost_flags *f);
int cost_request(struct cost_flags *f);

#endif
