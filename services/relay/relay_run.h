/*
 * What a relay does outside its core: maps the workers' KV pools and runs the codec on a few threads.
 * Performs MAP_POOL, UNMAP_POOL and ENCODE; completions come back as POOL_MAPPED and ENCODED. Loop thread,
 * except the jobs.
 */
#ifndef RELAY_RUN_H
#define RELAY_RUN_H

#include "common/run/ts_service.h"

struct relay_run;

struct relay_run *relay_run_new(int cores, int jobs); /* so many encode on the CPU, and so many in all */
void relay_run_destroy(struct relay_run **run);       /* waits for running jobs */
struct ts_service_hooks relay_run_hooks(struct relay_run *run);

#endif
