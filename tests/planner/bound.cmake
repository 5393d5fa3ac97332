foreach(piece bound exhaustive)
  ts_test(test_plan_${piece} SOURCES test_plan_${piece}.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)
endforeach()
