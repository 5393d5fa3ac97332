ts_test(test_plan_eval_fixed SOURCES test_plan_eval_fixed.c eval_fixture.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)

ts_library(ts_baseline_fixture SOURCES baseline_fixture.c LINK ts_planner_fixture ts_planner_core ts_base m cmocka)
ts_test(test_baseline_simple SOURCES test_baseline_simple.c LINK ts_baseline_fixture LABELS unit)
