ts_test(test_plan_eval SOURCES test_plan_eval.c eval_fixture.c lp_referee.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)
