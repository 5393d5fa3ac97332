/*
 * Fits the cost model's figures to measurements. Few parameters: a law that takes a device's data sheet to
 * its efficiencies, a deviations from that law for each measured kind (generation and
 * kind of memory) and device, held near zero, the links, and the
 * software stacks (tsctl_cost_predict.h). So a device without measurements gets the law's figures. Least
 * squares on the logarithm of predicted over measured, each residual above about 10 % counting as its
 * absolute value; damped Gauss-Newton until nothing moves. Deterministic. Results to the last digit hang on
 * the machine's libm, which is why files keep three digits.
 */
#ifndef TSCTL_COST_FIT_H
#define TSCTL_COST_FIT_H

#include "services/tsctl/tsctl_cost_predict.h"

/* What the law looks at, beyond the device's own figures. */
struct cost_sheet {
    struct ts_device_type device;
    bool stacked;  /* high-bandwidth memory */
    bool copies;   /* can copy into shared memory while it computes: Ampere and later */
    uint32_t kind; /* index of the first sheet of this generation and kind of memory */
    double base_hz, boost_hz, watts;
    int link; /* of enum cost_fitted_link, -1 = as the catalogue says */
};

enum cost_fitted_link {
    COST_NVLINK3,
    COST_NVLINK4,
    COST_PCIE4,
    COST_PCIE_HOST,
    COST_FABRIC,
    COST_FITTED_LINKS
};

const char *cost_fitted_link_name(enum cost_fitted_link link);

struct cost_fit;

/* Borrows sheets and table, which outlive it. */
struct cost_fit *cost_fit_new(const struct cost_sheet *sheets, size_t sheet_count,
                              const struct cost_table *table);
void cost_fit_destroy(struct cost_fit **fit);

/* Rows for which `used` is NULL or true. Starts where the last call ended, and stops when no parameter's step
 * exceeds `still` (of logarithms): COST_FIT_EXACT for what is written to files. */
#define COST_FIT_EXACT 1e-8
void cost_fit_solve(struct cost_fit *fit, const bool *used, double still);
struct ts_device_type cost_fit_device(const struct cost_fit *fit, size_t sheet);
const struct ts_link *cost_fit_link(const struct cost_fit *fit, enum cost_fitted_link link);
const struct cost_stack *cost_fit_stack(const struct cost_fit *fit, enum cost_source source);
double cost_fit_predict(const struct cost_fit *fit, const struct cost_row *row);
/* The same by the planner's figures alone, whatever software was measured. */
double cost_fit_predict_plain(const struct cost_fit *fit, const struct cost_row *row);
/* Software constant of a pass: the median over runs of what serving takes beyond the figures. */
double cost_fit_step_s(const struct cost_fit *fit);

#endif
