ts_test(test_cloud_source SOURCES test_cloud_source.c LINK ts_cloud ts_core ts_base LABELS sim)
ts_test(test_cloud_flow SOURCES test_cloud_flow.c LINK ts_cloud ts_core ts_base LABELS sim)
ts_test(test_cloud_links SOURCES test_cloud_links.c LINK ts_cloud ts_inputs ts_core ts_base m LABELS sim)
target_compile_definitions(test_cloud_links PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
