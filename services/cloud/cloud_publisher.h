/*
 * Stands where a planner does and only passes on plans made before: speaks the planner protocol, claims a
 * term, and sends the plan it was given over the workers that are there. It sends again when a worker of the
 * plan comes or goes and when the router's view was newer. It decides nothing (cloud_shares.h).
 *
 * It waits until all workers of the plan are ready, or until nothing has changed for a while. One thread.
 */
#ifndef CLOUD_PUBLISHER_H
#define CLOUD_PUBLISHER_H

#include "common/core/ts_plan.h"
#include "services/cloud/cloud.h"

struct cloud_publication { /* borrowed until the next one */
    const struct ts_plan *plan;
    const struct ts_demand *demand; /* of its classes */
    const char *const *workers;     /* [group] ids; NULL = not there, and not to be waited for */
};

struct cloud_node *cloud_add_publisher(struct cloud *cloud, const char *id);
/* From now on this one. Also to be called when an id of `workers` has become NULL or one. */
void cloud_publish(struct cloud_node *publisher, const struct cloud_publication *publication);

#endif
