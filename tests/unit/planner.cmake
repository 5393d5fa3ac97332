# The planner service: what routers measure, running clusters, when a plan is made anew.
ts_test(test_planner_demand SOURCES test_planner_demand.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_cluster SOURCES test_planner_cluster.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_flip SOURCES test_planner_flip.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_measure SOURCES test_planner_measure.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_send SOURCES test_planner_send.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_trigger SOURCES test_planner_trigger.c LINK ts_planner_core ts_base m LABELS unit)
ts_test(test_planner_loop SOURCES test_planner_loop.c planner_core_fixture.c LINK ts_core_fixture ts_planner_core LABELS unit)
