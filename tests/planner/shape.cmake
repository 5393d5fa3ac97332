ts_test(test_plan_shape SOURCES test_plan_shape.c LINK ts_planner_fixture LABELS planner)
