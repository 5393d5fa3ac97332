/*
 * Runs a script under services/cloud with all invariants checked after every step, and makes one that breaks
 * them smaller. What is checked is listed in README.md.
 */
#ifndef SIM_H
#define SIM_H

#include "tests/sim/sim_matrix.h"
#include "tests/sim/sim_script.h"

struct sim_options {
    uint64_t seed;
    bool undigested;               /* no digest: faster */
    bool calm;                     /* whatever the seed says */
    const bool *faults, *requests; /* those that are kept; NULL = all */
    void (*line)(void *context,
                 const char *text); /* every event and action as text; NULL = nobody reads it */
    /* Sees each action first, may change it; false = it is not performed. NULL = none. */
    bool (*before)(void *context, struct cloud_node *node, struct ts_action *action);
    void *context;
};

struct sim_result {
    bool ok;
    char why[600];
    char node[24]; /* the service that stepped when it broke */
    uint64_t digest, steps;
    uint64_t requests, faults, completed, cancelled, late, failed, refused;
    uint64_t retries, resyncs, preempted, refeeds;
    struct cloud_counts counts;
    double virtual_s;
    struct sim_matrix matrix;
};

void sim_run(const struct sim_options *options, struct sim_result *out);
/* The same in a process of its own, so that an assertion is a result, too. */
void sim_run_apart(const struct sim_options *options, struct sim_result *out);
void sim_add(struct sim_result *sum, const struct sim_result *one);

/* A failing seed: leaves out faults, then requests, as long as it fails in the same words (numbers aside), in
 * at most `runs` runs. `faults`, `requests`: kept ones, in and out. Returns the number of runs. */
uint32_t sim_shrink(uint64_t seed, bool *faults, bool *requests, uint32_t runs, struct sim_result *out);
/* Prints all there is to say of a failing seed: words, command, what is left of the script, the last events.
 */
void sim_explain(uint64_t seed, const struct sim_result *first);
bool sim_mask_read(const char *list, bool *mask, uint32_t size); /* "0,3-5"; "none" */

#endif
