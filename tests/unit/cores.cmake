# Cores as tables of events and actions (core_fixture.h).
add_library(ts_core_fixture STATIC core_fixture.c core_text.c)
target_link_libraries(ts_core_fixture PUBLIC ts_flags ts_core ts_base cmocka)
foreach(piece attempt core refeed request)
  ts_test(test_router_${piece} SOURCES test_router_${piece}.c router_fixture.c
          LINK ts_core_fixture ts_router_core LABELS unit)
endforeach()
ts_test(test_route_policy SOURCES test_route_policy.c LINK ts_router_core ts_base LABELS unit)
foreach(piece core decode prefill resume states)
  ts_test(test_worker_${piece} SOURCES test_worker_${piece}.c worker_fixture.c
          LINK ts_core_fixture ts_worker_core LABELS unit)
endforeach()
foreach(piece copies core lanes resume states)
  ts_test(test_relay_${piece} SOURCES test_relay_${piece}.c relay_fixture.c
          LINK ts_core_fixture ts_relay_core LABELS unit)
endforeach()
ts_test(test_planner_core SOURCES test_planner_core.c planner_core_fixture.c LINK ts_core_fixture ts_planner_core LABELS unit)
ts_test(test_planner_live SOURCES test_planner_live.c LINK ts_planner_core ts_base LABELS unit)
ts_test(test_batch_policies SOURCES test_batch_policies.c LINK ts_prefill_policy ts_decode_policy ts_base LABELS unit)
ts_test(test_kv SOURCES test_kv.c LINK ts_core ts_base LABELS unit)
ts_test(test_core_hostile SOURCES test_core_hostile.c planner_core_fixture.c router_fixture.c worker_fixture.c
        LINK ts_core_fixture ts_router_core ts_worker_core ts_relay_core ts_planner_core LABELS unit)
