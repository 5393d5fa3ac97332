ts_test(test_plan_eval_fixed SOURCES test_plan_eval_fixed.c eval_fixture.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)
