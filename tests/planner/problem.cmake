ts_test(test_cluster SOURCES test_cluster.c LINK ts_core ts_base LABELS unit)
ts_test(test_plan_state SOURCES test_plan_state.c LINK ts_planner_core LABELS unit)
