/*
 * tsctl simulate: a plan, a cluster and a stream of requests under virtual time
 * (services/cloud/cloud_site.h), and what became of the requests as records and a report. It sends, watches
 * and writes down; everything else is done by the cores. One thread.
 */
#ifndef TSCTL_SIMULATE_H
#define TSCTL_SIMULATE_H

#include "common/inputs/ts_requests.h"
#include "common/inputs/ts_slo.h"
#include "services/cloud/cloud_site.h"
#include "services/tsctl/tsctl_report.h"

struct tsctl_sample { /* of one replica, since the sample before */
    float busy, kv;   /* share of the time of its busiest stage; mean share of its KV blocks */
    uint8_t phase;    /* enum ts_phase; 0 = not alive */
};

struct tsctl_instant {
    size_t replica_count, link_count; /* there may be more later: as cloud_site counts them */
    struct tsctl_sample *replicas;
    float *links; /* shares of the time in which something was under way */
};

struct tsctl_timeline {
    double step_s; /* between two instants; 0 = none are taken */
    struct tsctl_instant *instants;
    size_t count, capacity;
    double *busy_s, *kv_s, *link_s; /* of each so far: [replica], [link] */
    size_t replicas, links;         /* how many of those are known */
};

struct tsctl_simulation {
    /* What is asked; borrowed. */
    struct cloud_site_settings site;
    bool (*next)(void *stream, struct ts_request_item *out); /* false: over */
    void *stream;
    const struct ts_slo *slo; /* NULL = no deadlines */
    bool admission;           /* requests carry their deadlines, and may be refused for them */
    const char *events;       /* file of what happens on the way; NULL = nothing */
    double patience_s;        /* the run is cut off that long after the last request was sent */
    bool progress;
    /* What came of it. */
    struct tsctl_records records;
    struct cloud_site *running;
    struct tsctl_timeline timeline;
    struct cloud_counts counts;
    uint64_t steps, digest; /* digest: 0 without checks */
    double end_s;           /* of the run */
    /* While it runs. */
    bool dry;
    double last_s;              /* when the last request was sent */
    size_t open;                /* sent or about to be, and not ended */
    struct tsctl_events *plans; /* of the events */
    struct ts_error err;
};

/* `simulation` holds what is asked, zeroed otherwise. After TS_OK the site is there until
 * tsctl_simulation_fini. */
enum ts_status tsctl_simulation_run(struct tsctl_simulation *simulation, struct ts_error *err);
void tsctl_simulation_fini(struct tsctl_simulation *simulation);

/* tsctl_simulate_planner.c: the real planner over the replicas, instead of the plan as it was made. Does not
 * move once it is filled; everything is borrowed. */
struct tsctl_planner {
    const struct ts_catalogue *catalogue;
    const struct ts_slo *slo; /* NULL = no deadlines */
    const struct ts_cluster *cluster;
    const struct plan_algorithm *algorithm;
    bool colocate, codec_allowed[TS_COST_CODEC_COUNT];
    struct planner_settings settings; /* filled */
};

void tsctl_planner_fill(struct tsctl_planner *planner, const struct ts_demand *expected, uint64_t seed);

/* tsctl_simulate_events.c: asks the site for what the file says. */
enum ts_status tsctl_events_load(struct tsctl_simulation *simulation, struct ts_error *err);
void tsctl_events_fini(struct tsctl_simulation *simulation); /* after the site */

/* tsctl_simulate_timeline.c */
void tsctl_timeline_sample(struct tsctl_timeline *timeline, const struct cloud_site *site, double now_s);
void tsctl_timeline_json(const struct tsctl_timeline *timeline, const struct tsctl_report *report,
                         struct ts_json *into);
void tsctl_timeline_fini(struct tsctl_timeline *timeline);

#endif
