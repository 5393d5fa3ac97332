/* Settings of ts-planner, from file, environment and command line (common/run/ts_conf.h). */
#ifndef PLANNER_CONF_H
#define PLANNER_CONF_H

#include "common/inputs/ts_inputs.h"
#include "common/run/ts_conf.h"
#include "common/run/ts_net.h"
#include "services/planner/planner_core.h"

struct planner_conf {
    struct ts_conf *conf; /* owns the strings */
    const char *id, *host, *algorithm, *conf_dir, *devices, *workload, *slo, *record, *log_level;
    struct ts_conf_strings router;
    uint32_t heartbeat_ms, timeout_ms, step_work, seed;
    struct ts_catalogue *catalogue; /* NULL = none */
    char endpoints[PLANNER_ROUTERS_MAX][TS_ENDPOINT_BYTES];
    struct planner_settings settings; /* made from the above */
};

/* Also checks the algorithm's name and the routers' addresses, and reads catalogue and workload. To be freed
 * unless it is an error. */
enum ts_conf_outcome planner_conf_load(int argc, char **argv, uint32_t pid, struct planner_conf *out,
                                       struct ts_error *err);
void planner_conf_free(struct planner_conf *conf);
char *planner_conf_flags(const struct planner_conf *conf, size_t *bytes); /* for recordings; ts_free */

#endif
