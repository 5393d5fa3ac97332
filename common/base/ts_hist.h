/*
 * Samples with quantiles: keeps every value up to a bound, then a uniform reservoir (deterministic). For
 * reports and metrics of at most some hundred thousand samples. One thread.
 */
#ifndef TS_BASE_HIST_H
#define TS_BASE_HIST_H

#include <stddef.h>
#include <stdint.h>

struct ts_hist {
    double *values;
    size_t count, capacity;
    uint64_t seen;
    double sum;
    int sorted;
};

void ts_hist_init(struct ts_hist *hist);
void ts_hist_fini(struct ts_hist *hist);
void ts_hist_add(struct ts_hist *hist, double value);
double ts_hist_quantile(struct ts_hist *hist, double q); /* q in [0, 1], nearest rank; NAN when empty */
double ts_hist_mean(const struct ts_hist *hist);         /* NAN when empty */

#endif
