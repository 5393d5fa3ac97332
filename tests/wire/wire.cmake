foreach(piece golden round hostile)
  ts_test(test_wire_${piece} SOURCES test_wire_${piece}.c wire_filler.c wire_golden.c LINK ts_proto LABELS wire)
endforeach()
# The committed seeds of the fuzzer, replayed by every build.
ts_test(test_wire_corpus
  SOURCES test_wire_corpus.c ${PROJECT_SOURCE_DIR}/tests/fuzz/fuzz_wire.c
  LINK ts_proto LABELS wire)
