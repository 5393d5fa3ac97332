/*
 * Inner to common/inputs: all that a workload file says. Its classes are the demand that plans are made for;
 * the rest says how single requests come of it (ts_requests.c). The caller owns it (inputs_workload_fini).
 */
#ifndef TS_INPUTS_WORKLOAD_H
#define TS_INPUTS_WORKLOAD_H

#include <stdbool.h>

#include "common/core/ts_demand.h"
#include "common/inputs/ts_trace.h"

#define INPUTS_STEPS_MAX 256

enum inputs_law {
    INPUTS_LOGNORMAL, /* prompt and output of their own, from mean and coefficient of variation; 0 = fixed */
    INPUTS_EMPIRICAL  /* a row of a file, both lengths together */
};

struct inputs_step { /* from then on */
    double at_s, factor;
};

struct inputs_workload {
    struct ts_demand demand; /* `burst` is the squared coefficient of variation of the gaps */
    struct inputs_step steps[INPUTS_STEPS_MAX]; /* the first at 0 */
    uint32_t step_count;
    double period_s, amplitude; /* rate times 1 + amplitude * sin(2 pi t / period_s) */
    enum inputs_law laws[TS_CLASSES_MAX];
    struct ts_trace empirical[TS_CLASSES_MAX];
};

/* `path`: of a .conf. Nothing is left to free after an error. */
enum ts_status inputs_workload_read(const char *path, struct inputs_workload *out, struct ts_error *err);
void inputs_workload_fini(struct inputs_workload *workload);

/* Whether a workload's name is that of a trace: it ends in ".csv" or ".jsonl". */
bool inputs_is_trace(const char *name);

#endif
