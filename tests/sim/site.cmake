foreach(piece site replica shares)
  ts_test(test_cloud_${piece} SOURCES test_cloud_${piece}.c LINK ts_cloud ts_inputs ts_core ts_base m LABELS sim)
  target_compile_definitions(test_cloud_${piece} PRIVATE TS_CONF_DIR="${PROJECT_SOURCE_DIR}/conf")
endforeach()
