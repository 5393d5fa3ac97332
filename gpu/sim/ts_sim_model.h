/*
 * What a modelled device is: the shape of its model and the coefficients of its time, read from a JSON file
 * (conf/devices/modelled.json) or the same built in. Shared by the modelled engine of real processes and by
 * the simulation (services/cloud), so that both take the same time for the same batch. Plain data.
 */
#ifndef TS_GPU_SIM_MODEL_H
#define TS_GPU_SIM_MODEL_H

#include "common/base/ts_error.h"
#include "common/core/ts_model.h"

struct ts_sim_costs { /* nanoseconds */
    double step, prefill_token, prefill_token2, decode_row, decode_context;
};

struct ts_sim_model {
    struct ts_model model;
    struct ts_sim_costs costs;
};

/* `path` NULL or empty: the built-in values. */
enum ts_status ts_sim_model_load(const char *path, struct ts_sim_model *out, struct ts_error *err);

/* What one row adds to a batch, whose own price is costs.step. */
double ts_sim_row_ns(const struct ts_sim_costs *costs, uint32_t position, uint32_t token_count);

#endif
