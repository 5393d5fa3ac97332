ts_test(test_requests SOURCES test_requests.c inputs_fixture.c LINK ts_inputs LABELS unit)
target_compile_definitions(test_requests PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
