/*
 * One world drawn from a seed: cluster, workload, faults; run to its end under services/cloud with all
 * invariants checked after every step. What is checked is listed in services/cloud/README.md.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "services/cloud/cloud.h"

struct sim_options {
    uint64_t seed;
    bool calm;               /* no faults: every request must end as expected */
    bool trace;              /* print every event and action */
    const char *device_conf; /* coefficients of the devices; NULL = built in */
    /* Sees each action first, may change it; false = it is not performed. NULL = none. */
    bool (*before)(void *context, struct cloud_node *node, struct ts_action *action);
    void *context;
};

struct sim_result {
    bool ok;
    char why[600];
    uint64_t digest, steps;
    uint64_t requests, completed, cancelled, late, failed, refused;
    uint64_t retries, resyncs, preempted, refeeds;
    struct cloud_counts counts;
    double virtual_s;
};

struct sim_result sim_run(const struct sim_options *options);

#endif
