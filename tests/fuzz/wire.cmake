ts_fuzz(fuzz_wire SOURCES fuzz_wire.c LINK ts_proto)
