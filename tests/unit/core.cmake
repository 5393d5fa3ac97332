foreach(piece codec_spec schema session metrics msg sampling)
  ts_test(test_${piece} SOURCES test_${piece}.c LINK ts_core LABELS unit)
endforeach()
