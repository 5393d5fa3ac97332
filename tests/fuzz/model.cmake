ts_fuzz(fuzz_model SOURCES fuzz_model.c LINK ts_model)
