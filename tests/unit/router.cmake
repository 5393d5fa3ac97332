# The router beyond what cores.cmake has: streams in batches, plans with length classes.
foreach(piece codec overload phase plan stream workload)
  ts_test(test_router_${piece} SOURCES test_router_${piece}.c router_fixture.c
          LINK ts_core_fixture ts_router_core LABELS unit)
endforeach()
