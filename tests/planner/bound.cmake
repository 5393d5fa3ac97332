ts_test(test_plan_exhaustive SOURCES test_plan_exhaustive.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)
