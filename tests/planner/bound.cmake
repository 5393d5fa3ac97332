foreach(piece bound exhaustive)
  ts_test(test_plan_${piece} SOURCES test_plan_${piece}.c LINK ts_planner_fixture ts_planner_core ts_base m LABELS unit)
endforeach()
# Without arguments a short run; scripts/planner-results makes RESULTS.md with it.
ts_test(planner_results SOURCES planner_results.c results_run.c fixture_table3.c LINK ts_planner_fixture ts_inputs ts_planner_core LABELS unit)
target_compile_definitions(planner_results PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
