ts_library(ts_sim_world SOURCES sim_check.c sim_draw.c sim_fault.c sim_idle.c sim_look_router.c sim_matrix.c sim_print.c sim_run.c sim_see_planner.c sim_see_relay.c sim_see_router.c
           sim_see_worker.c sim_session.c sim_shrink.c LINK ts_cloud ts_core ts_base)
target_compile_definitions(ts_sim_world PRIVATE TS_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
ts_program(ts-sim-seed SOURCES ts_sim_seed.c LINK ts_sim_world)
ts_test(test_sim_seeds SOURCES test_sim_seeds.c LINK ts_sim_world LABELS sim TIMEOUT 300)
ts_test(test_sim_breaks SOURCES test_sim_breaks.c LINK ts_sim_world LABELS sim TIMEOUT 300)

# 2,000 seeds; fewer where each takes many times as long.
if(TS_SANITIZE)
  set(seeds 25)
else()
  set(seeds 500)
endif()
foreach(part RANGE 3)
  math(EXPR from "${part} * ${seeds} + 1")
  add_test(NAME sim_seeds_${part} COMMAND ts-sim-seed --from ${from} --count ${seeds})
  set_tests_properties(sim_seeds_${part} PROPERTIES LABELS sim TIMEOUT 300)
endforeach()
