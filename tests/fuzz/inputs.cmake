ts_fuzz(fuzz_cluster SOURCES fuzz_cluster.c LINK ts_inputs)
target_compile_definitions(fuzz_cluster PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
