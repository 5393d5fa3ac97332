ts_test(test_plan_money SOURCES test_plan_money.c LINK ts_planner_fixture ts_planner_core LABELS planner)
