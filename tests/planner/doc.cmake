ts_test(test_plan_doc SOURCES test_plan_doc.c LINK ts_plan_doc ts_planner_fixture cmocka LABELS unit)
