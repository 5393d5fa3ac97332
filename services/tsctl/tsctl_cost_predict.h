/*
 * What the cost model says to a measurement: the planner's formulas (ts_cost.h), after the device's figures
 * were turned into those of the software that was measured. A stack is that software: shares that multiply
 * the efficiencies of every device, so one device's measurements under one software tell about the others.
 * The planner itself plans with the figures as they are (COST_OTHER). Pure; no state.
 */
#ifndef TSCTL_COST_PREDICT_H
#define TSCTL_COST_PREDICT_H

#include "common/core/ts_cost.h"
#include "services/tsctl/tsctl_cost_rows.h"

struct cost_stack {
    bool kernels_only; /* nothing but products, attention and all-reduce was summed */
    double flops, memory, layer, attention, context, link; /* factors of the fit's fields, and of bandwidth */
    double group; /* decode attention reads KV again for query heads that share it: 1 + group * (share - 1) */
    double call_s, send_s; /* of one all-reduce, of one message */
    double host_prefill;   /* a whole pass takes the host this many layer constants for each layer */
    double host_decode;
};

/* Factors 1, the rest 0. */
struct cost_stack cost_stack_none(void);
const char *cost_source_name(enum cost_source source);

/* Links that are not a device's own. */
struct cost_links {
    struct ts_link pcie, fabric;
};

double cost_predict(const struct cost_row *row, const struct ts_model *model,
                    const struct ts_device_type *device, const struct cost_links *links,
                    const struct cost_stack *stack);

#endif
