/*
 * What is asked of a cluster: length classes with their rates, and for each the deadlines (SLO). Filled from
 * a workload file or a trace by common/inputs, or from the router's workload statistics by the planner.
 */
#ifndef TS_CORE_DEMAND_H
#define TS_CORE_DEMAND_H

#include <stdint.h>

#include "common/base/ts_error.h"

#define TS_CLASSES_MAX 16

/* Requests of like prompt and output length. Deadlines in seconds, 0 = none. */
struct ts_class {
    double rate;                            /* requests/s */
    double prompt_tokens, prompt_tokens_sq; /* mean, mean of the square */
    double output_tokens, output_tokens_sq;
    double prompt_begin, prompt_end; /* prompts of so many tokens, end excluded; 0, 0 = not known */
    double ttft_s;                   /* send to token 0 */
    double tpot_s;                   /* (last token - token 0) / (n - 1): the KV transfer is in it */
    double e2e_s;                    /* send to last token */
};

struct ts_demand {
    char name[48];
    struct ts_class classes[TS_CLASSES_MAX];
    uint32_t class_count;
    double burst; /* squared coefficient of variation of the time between arrivals: 1 = Poisson */
};

double ts_demand_rate(const struct ts_demand *demand); /* of all classes */
void ts_demand_scale_rate(struct ts_demand *demand, double factor);
void ts_demand_scale_lengths(struct ts_demand *demand, double factor);
enum ts_status ts_demand_check(const struct ts_demand *demand, struct ts_error *err);

#endif
