foreach(piece shape shape_parts shape_miss)
  ts_test(test_plan_${piece} SOURCES test_plan_${piece}.c LINK ts_planner_fixture LABELS unit)
endforeach()
