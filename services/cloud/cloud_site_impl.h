/*
 * Between the files of a site: cloud_site.c builds it, runs it and counts, cloud_site_change.c has what
 * changes on the way.
 */
#ifndef CLOUD_SITE_IMPL_H
#define CLOUD_SITE_IMPL_H

#include "common/base/ts_map.h"
#include "services/cloud/cloud_impl.h"
#include "services/cloud/cloud_publisher.h"
#include "services/cloud/cloud_replica.h"
#include "services/cloud/cloud_site.h"

/* The requests' zero: by then the services have found each other. All instants of cloud_site.h count from
 * here. */
#define SITE_START TS_S

struct replica { /* of a group, over its life */
    struct ts_group group;
    uint32_t index; /* of the group in the plan it came with */
    char id[16];
    struct ts_stage_item stages[TS_STAGES_MAX];
    struct cloud_replica *device;
    struct cloud_node *node;
    ts_time born_at, died_at; /* TS_TIME_NEVER */
    bool leaving;             /* drains, or is lost */
    double kv_sum;            /* over samples of the share of blocks */
    double kv_max;
    uint64_t samples;
};

struct joining { /* a group of the plan in force that waits for devices and weights */
    uint32_t group;
    ts_time at; /* TS_TIME_NEVER: devices are not free yet */
    double load_s;
};

struct change;
struct site_links;

struct cloud_site {
    struct cloud_site_settings settings;
    struct cloud_source source; /* the caller's */
    struct cloud *cloud;
    struct cloud_node *router, *planner, *client; /* planner: or the publisher */
    struct replica **replicas;
    size_t replica_count, replica_capacity;
    char (*relays)[24];         /* [node] ids; empty = none yet */
    const struct ts_plan *plan; /* in force */
    const char **workers;       /* [group of plan] ids, NULL = not there: what the publisher holds */
    struct replica **of_group;  /* [group of plan] or NULL */
    struct joining *joining;
    size_t joining_count;
    struct change *changes; /* all there ever were */
    struct site_links *links;
};

/* cloud_site.c */
enum ts_status site_add_replica(struct cloud_site *site, uint32_t group, struct ts_error *err);
/* cloud_site_change.c */
void site_adopt(struct cloud_site *site, const struct ts_plan *plan); /* nobody of its groups is there yet */
void site_publish(struct cloud_site *site);
void site_join(struct cloud_site *site); /* looks after those that are joining */
void site_changes_free(struct cloud_site *site);
/* cloud_site_link.c */
struct site_links *site_links_new(void);
void site_links_destroy(struct site_links **links); /* null-safe */

#endif
