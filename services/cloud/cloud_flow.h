/*
 * Flows of bytes between nodes of the cluster (cloud_net_flow.c): how long each takes depends on what else is
 * under way over the same links and network cards.
 *
 * A flow is owned by the cloud. `call` is told once, when its last byte has left; not after flow_cancel.
 */
#ifndef CLOUD_FLOW_H
#define CLOUD_FLOW_H

#include "services/cloud/cloud.h"

struct cloud_flow;
struct cloud_flows;

struct cloud_flows *flows_new(const struct ts_cluster *cluster); /* borrowed */
void flows_destroy(struct cloud_flows **flows);                  /* null-safe; their occurrences are gone */

struct cloud_flow *flow_begin(struct cloud *cloud, uint32_t from, uint32_t to, double bytes,
                              void (*call)(void *context), void *context);
void flow_cancel(struct cloud *cloud, struct cloud_flow *flow);
ts_time flow_latency(const struct cloud *cloud, uint32_t from, uint32_t to);

#endif
