foreach(piece arena crc32c error hash heap hist log map mem rng status)
  ts_test(test_base_${piece} SOURCES test_base_${piece}.c LINK ts_base LABELS unit)
endforeach()
