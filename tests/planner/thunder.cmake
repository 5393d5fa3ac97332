ts_test(test_plan_adopt SOURCES test_plan_adopt.c LINK ts_planner_fixture ts_planner_core LABELS unit)
ts_test(test_plan_moves SOURCES test_plan_moves.c LINK ts_planner_fixture ts_planner_core LABELS unit)
ts_test(test_plan_thunder SOURCES test_plan_thunder.c LINK ts_planner_fixture ts_planner_core LABELS unit)
ts_test(test_plan_shares SOURCES test_plan_shares.c LINK ts_planner_fixture ts_planner_core LABELS unit)
