/*
 * Deadlines of single requests, by the same words as those of classes (ts_inputs_slo): times as given, or as
 * a scale of what this very request takes alone on the reference device, by the cost model. So the deadlines
 * of a scale x are x times those of scale 1, and whether a request meets any scale follows from one run.
 *
 * Borrows the catalogue. Plain computation, any thread.
 */
#ifndef TS_SLO_H
#define TS_SLO_H

#include "common/inputs/ts_inputs.h"

struct ts_slo;

struct ts_deadlines { /* seconds; 0 = none */
    double ttft_s, tpot_s, e2e_s;
};

/* `text` as for ts_inputs_slo. */
enum ts_status ts_slo_open(const struct ts_catalogue *catalogue, const char *conf_dir, const char *text,
                           const struct ts_model *model, struct ts_slo **out, struct ts_error *err);
void ts_slo_close(struct ts_slo **slo);        /* null-safe */
double ts_slo_scale(const struct ts_slo *slo); /* 1 where all is given as times */
enum ts_status ts_slo_of(const struct ts_slo *slo, double prompt_tokens, double output_tokens,
                         struct ts_deadlines *out, struct ts_error *err);

#endif
