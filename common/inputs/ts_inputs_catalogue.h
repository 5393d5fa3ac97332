/*
 * Inner to common/inputs: what the readers of clusters and deadlines need of a catalogue beyond ts_inputs.h.
 */
#ifndef TS_INPUTS_CATALOGUE_H
#define TS_INPUTS_CATALOGUE_H

#include "common/inputs/ts_inputs.h"
#include "common/run/ts_conf_tree.h"

/* The link of this name, which the file gives at group.key; an error says so. */
enum ts_status inputs_catalogue_use_link(const struct ts_catalogue *catalogue, struct ts_conf_node group,
                                         const char *key, const char *name, struct ts_link *out,
                                         struct ts_error *err);
const char *inputs_catalogue_nearest_device(const struct ts_catalogue *catalogue, const char *name);

#endif
