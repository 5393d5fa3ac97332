/* Settings of ts-planner, from file, environment and command line (common/run/ts_conf.h). */
#ifndef PLANNER_CONF_H
#define PLANNER_CONF_H

#include "common/inputs/ts_inputs.h"
#include "common/run/ts_conf.h"
#include "common/run/ts_net.h"
#include "services/planner/planner_core.h"

struct planner_world; /* what plans borrow: catalogue, cluster, deadlines */

struct planner_conf {
    struct ts_conf *conf; /* owns the strings */
    const char *id, *host, *algorithm, *conf_dir, *devices, *cluster, *workload, *slo, *model, *codecs,
        *record, *log_level;
    struct ts_conf_strings router;
    uint32_t heartbeat_ms, timeout_ms, step_work, seed, classes, requests_min, plan_min_ms;
    bool flips, colocate;
    uint32_t window_s, quiet_s, flip_s, pair_wait_s, flip_wait_s, period_s;
    double margin, gain_min, collapse;
    double rate_change, length_change, mix_change, link_change, attained_drop, share_min;
    struct planner_world *world;
    char endpoints[PLANNER_ROUTERS_MAX][TS_ENDPOINT_BYTES];
    struct planner_settings settings; /* made from the above */
};

/* Also checks the algorithm's name and the routers' addresses, and reads catalogue and workload. To be freed
 * unless it is an error. */
enum ts_conf_outcome planner_conf_load(int argc, char **argv, uint32_t pid, struct planner_conf *out,
                                       struct ts_error *err);
void planner_conf_free(struct planner_conf *conf);
void planner_world_free(struct planner_world **world); /* for who frees `conf` and `world` apart */
char *planner_conf_flags(const struct planner_conf *conf, size_t *bytes); /* for recordings; ts_free */

#endif
