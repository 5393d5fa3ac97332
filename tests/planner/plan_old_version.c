/* A planner algorithm of a version that this program does not know. */
#include "services/planner/plan_algorithm.h"

extern const struct plan_algorithm ts_plan_algorithm;
const struct plan_algorithm ts_plan_algorithm = {.version = PLAN_ALGORITHM_VERSION + 1, .name = "old"};
