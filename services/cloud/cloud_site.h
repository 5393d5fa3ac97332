/*
 * A cluster as a cloud: one worker for each group of a plan, one relay for each node of the cluster that
 * holds a group's first stage, one router, clients that send a stream of requests, and either a planner (the
 * real core) or a publisher that only speaks the planner protocol and sends plans made before. Adds nodes to
 * a `cloud` and knows which group each is; decides nothing.
 *
 * Worker ids are "g<index>", relay ids "relay-<node>". KV of a modelled replica is laid out in `kv_parts`
 * equal parts of its layers instead of single layers (same bytes), so that a transfer is that many chunks per
 * piece.
 *
 * Borrows cluster, model, plans and requests until destroyed. One thread.
 */
#ifndef CLOUD_SITE_H
#define CLOUD_SITE_H

#include "common/core/ts_plan.h"
#include "services/cloud/cloud.h"

struct cloud_site;

struct cloud_site_settings {
    const struct ts_cluster *cluster;
    const struct ts_model *model;
    const struct ts_plan *plan;     /* in force at the start */
    const struct ts_demand *demand; /* whose classes the plan's flows name */
    struct cloud_settings cloud;    /* seed, checks, network faults */
    struct router_settings router;
    struct worker_settings worker; /* limits of all workers; ids, profile and pool are filled in */
    struct relay_settings relay;
    const struct planner_settings *planner; /* NULL = the publisher */
    double noise;                           /* of batch times, cloud_replica.h */
    uint32_t kv_parts;                      /* 0 = the smallest divisor of the layers that is at least 8 */
    double load_bytes_per_s;                /* a node loads weights with: of joins; 0 = 1e9 */
};

struct cloud_site_settings cloud_site_defaults(void);

enum ts_status cloud_site_new(const struct cloud_site_settings *settings, const struct cloud_source *source,
                              struct cloud_site **out, struct ts_error *err);
void cloud_site_destroy(struct cloud_site **site);
struct cloud *cloud_site_cloud(const struct cloud_site *site);

/* Changes at a later instant (before the run, or from a hook). */
void cloud_site_lose(struct cloud_site *site, ts_time at, uint32_t gpu); /* its group dies for ever */
/* Regroup: groups that `plan` keeps (same devices, stages, layers) go on, others drain at once and their
 * devices join as the plan's new groups once their weights are loaded; flows of the new plan hold as its
 * workers appear. With the same groups, only flows and phases change. */
void cloud_site_regroup(struct cloud_site *site, ts_time at, const struct ts_plan *plan);
void cloud_site_link(struct cloud_site *site, ts_time at, uint32_t from, uint32_t to,
                     double factor); /* of its bytes/s */

/* Until the source is dry and all requests have ended, or `until`. */
enum ts_status cloud_site_run(struct cloud_site *site, ts_time until, struct ts_error *err);

struct cloud_site_replica {       /* over the run so far */
    uint32_t group;               /* in the plan it came with */
    const struct ts_group *shape; /* until the site is destroyed */
    enum ts_phase phase;
    double busy_s[TS_STAGES_MAX];
    uint64_t prompt_tokens, output_tokens, batches;
    double kv_used_mean, kv_used_max; /* share of blocks */
    double born_s, died_s;            /* INFINITY while alive */
};

size_t cloud_site_replica_count(const struct cloud_site *site); /* all there ever were */
struct cloud_site_replica cloud_site_replica_at(const struct cloud_site *site, size_t i);

struct cloud_site_link { /* that carried anything */
    uint32_t from, to;   /* nodes; equal: the network card of that node, out */
    double bytes, busy_s, bytes_per_s;
};

/* Those of cloud_site_link_at are of the last count. */
size_t cloud_site_link_count(const struct cloud_site *site);
struct cloud_site_link cloud_site_link_at(const struct cloud_site *site, size_t i);

#endif
