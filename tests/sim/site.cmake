ts_test(test_cloud_site SOURCES test_cloud_site.c LINK ts_cloud ts_inputs ts_core ts_base m LABELS sim)
target_compile_definitions(test_cloud_site PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
