/*
 * Reads what planner and simulation are asked about: catalogues of devices and links, clusters, models,
 * workloads, deadlines. Files are libconfig (through common/run/ts_conf_tree.h) or, where said, JSON and CSV.
 * Unknown keys are errors; every error names file, line, key, value and remedy. Names resolve by their
 * aliases, without regard to case, blanks, '-' and '_'. One thread; results are owned by the caller.
 *
 * A NAME argument is a path, or the name of a file below `conf_dir`/<kind>/ without its ".conf".
 */
#ifndef TS_INPUTS_H
#define TS_INPUTS_H

#include "common/core/ts_cluster.h"
#include "common/core/ts_demand.h"
#include "common/core/ts_model.h"

struct ts_catalogue; /* devices with aliases, and links */

/* `devices`: NAME of a file of conf/devices ("measured", "paper"); all files of conf/links are read with it.
 */
enum ts_status ts_catalogue_load(const char *conf_dir, const char *devices, struct ts_catalogue **out,
                                 struct ts_error *err);
void ts_catalogue_destroy(struct ts_catalogue **catalogue);
const struct ts_device_type *ts_catalogue_device(const struct ts_catalogue *catalogue, const char *name);
const struct ts_link *ts_catalogue_link(const struct ts_catalogue *catalogue, const char *name);
size_t ts_catalogue_device_count(const struct ts_catalogue *catalogue);
const struct ts_device_type *ts_catalogue_device_at(const struct ts_catalogue *catalogue, size_t index);

/*
 * conf/clusters, sealed. NAME may go on with ",link=LINK" (between any two nodes that the file does not link
 * otherwise) and ",inner=LINK" (inside nodes of which it says nothing): "paper-cloud,link=5Gbit". Devices
 * that are offered and not rented are in it with `alive` false. A device at another price than the
 * catalogue's is a type of its own, NAME@PRICE.
 */
enum ts_status ts_inputs_cluster(const struct ts_catalogue *catalogue, const char *conf_dir, const char *name,
                                 struct ts_cluster **out, struct ts_error *err);
/* conf/models by name or alias, or a path of a .conf, a config.json, or a folder that holds one. */
enum ts_status ts_inputs_model(const char *conf_dir, const char *name, struct ts_model *out,
                               struct ts_error *err);
/* conf/workloads, or a trace CSV (TIMESTAMP,ContextTokens,GeneratedTokens), which is cut into classes.
 * rate > 0 rescales to that many requests/s. Deadlines are not set yet. */
enum ts_status ts_inputs_demand(const char *conf_dir, const char *name, double rate, struct ts_demand *out,
                                struct ts_error *err);
/* A demand as the text of such a file; the caller owns it (ts_free). */
char *ts_inputs_demand_text(const struct ts_demand *demand);
/*
 * Deadlines of all classes. TEXT is "ttft=500ms,tpot=50ms,e2e=10s" (any subset), or
 * "scale=5,reference=A100-80G" (with optional "tp=1"): each deadline is `scale` times what one request of the
 * class takes, alone, on `tp` reference devices; or the NAME of a file of conf/slo with the same keys.
 */
enum ts_status ts_inputs_slo(const struct ts_catalogue *catalogue, const char *conf_dir, const char *text,
                             const struct ts_model *model, struct ts_demand *demand, struct ts_error *err);

#endif
