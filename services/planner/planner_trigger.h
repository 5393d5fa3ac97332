/*
 * When a running cluster is to be planned anew: what its plan was made for against what is measured now. A
 * change counts beyond its threshold or, while few requests were seen, beyond what chance does. Changes of
 * the cluster itself are the core's own to see (planner_loop.c).
 *
 * Pure functions over plain data; times are seconds of any clock that the caller keeps to.
 */
#ifndef PLANNER_TRIGGER_H
#define PLANNER_TRIGGER_H

#include "common/core/ts_msg.h"

enum planner_cause {
    PLANNER_CAUSE_NONE,
    PLANNER_CAUSE_WANTED,   /* a router has no plan of this term, or refused its last one */
    PLANNER_CAUSE_CLUSTER,  /* workers came, went or changed */
    PLANNER_CAUSE_MEASURED, /* requests are measured for the first time */
    PLANNER_CAUSE_RATE,
    PLANNER_CAUSE_LENGTH, /* of prompts or outputs, on average */
    PLANNER_CAUSE_MIX,    /* of length classes */
    PLANNER_CAUSE_LINK,
    PLANNER_CAUSE_ATTAINED, /* fewer requests in time than the plan promised */
    PLANNER_CAUSE_PERIOD
};

struct planner_trigger_rule {
    double rate, length, mix, link; /* shares of change; mix: of requests that are of another class */
    double attained;                /* below what was promised */
    double period_s;                /* a look all the same */
    double plan_min_s;              /* between two looks for the sake of the workload */
    uint32_t requests_min;          /* below it, nothing is measured */
};

struct planner_trigger_rule planner_trigger_defaults(void);

/* What a plan was made for. Owned by planner_basis_*; zeroed = there is none yet. */
struct planner_basis {
    double at_s;
    double requests, rate, burst;
    double prompt_tokens, prompt_tokens_sq, output_tokens, output_tokens_sq;
    struct ts_workload_class classes[TS_WORKLOAD_CLASSES_MAX];
    uint32_t class_count; /* 0 = nothing was measured */
    double promised;      /* share in time; below 0 = nothing */
    struct planner_basis_link {
        uint64_t name; /* hash of both ends */
        double bytes_per_s;
    } * links;
    uint32_t link_count;
};

void planner_basis_set(struct planner_basis *basis, const struct planner_trigger_rule *rule,
                       const struct ts_workload *workload, const struct ts_link_items *links, double promised,
                       double now_s);
void planner_basis_forget(struct planner_basis *basis);
/* Whether rates, lengths or mix of two measurements differ beyond thresholds and chance; false where too few
 * requests were seen. */
bool planner_trigger_moved(const struct planner_trigger_rule *rule, const struct ts_workload *before,
                           const struct ts_workload *now);
/* Whether anything has changed since; `words` says what, as a clause. */
enum planner_cause planner_basis_check(const struct planner_basis *basis,
                                       const struct planner_trigger_rule *rule,
                                       const struct ts_workload *workload, const struct ts_link_items *links,
                                       double now_s, char *words, size_t size);

#endif
