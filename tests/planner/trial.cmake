ts_test(test_plan_trial SOURCES test_plan_trial.c LINK ts_planner_fixture ts_planner_core LABELS unit)
