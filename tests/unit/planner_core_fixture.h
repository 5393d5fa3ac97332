/* A planner core pl0 (incarnation 600) with one router (planner:1, incarnation 500), which never falls
 * silent. */
#ifndef PLANNER_CORE_FIXTURE_H
#define PLANNER_CORE_FIXTURE_H

#include "core_fixture.h"
#include "services/planner/planner_core.h"

struct planner_settings planner_test_settings(void);
struct core_driver planner_driver(struct planner_core *core);
struct core_fixture *planner_begin(const struct planner_settings *settings); /* not started yet */
void planner_end(struct core_fixture **f);                                   /* no search may be under way */

#endif
