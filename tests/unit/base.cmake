foreach(piece arena blake2b crc32c error hash heap log map math mem rng status)
  ts_test(test_base_${piece} SOURCES test_base_${piece}.c LINK ts_base LABELS unit)
endforeach()
