/*
 * The two deployments of LLaMA-30B that ThunderServe found for its cloud of 32 devices (Jiang et al., MLSys
 * 2025, table 3), as plans over devices of any cluster that has them, without flows: the evaluator routes.
 */
#ifndef FIXTURE_TABLE3_H
#define FIXTURE_TABLE3_H

#include <stdbool.h>

#include "common/core/ts_plan.h"

/* Layers are split evenly over the stages. A cluster that lacks the devices is a failed assertion. */
struct ts_plan *fixture_table3(const struct ts_cluster *cluster, const struct ts_model *model, bool coding);

#endif
