ts_test(test_plan_lp SOURCES test_plan_lp.c lp_referee.c LINK ts_planner_core ts_base m LABELS unit)
