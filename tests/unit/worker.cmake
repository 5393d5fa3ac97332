# The worker core beyond its two roles alone.
foreach(piece batches colocated phase)
  ts_test(test_worker_${piece} SOURCES test_worker_${piece}.c worker_fixture.c
          LINK ts_core_fixture ts_worker_core LABELS unit)
endforeach()
