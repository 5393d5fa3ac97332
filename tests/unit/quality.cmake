ts_test(test_quality
  SOURCES test_quality.c ${PROJECT_SOURCE_DIR}/services/tsctl/tsctl_quality.c
  LINK ts_base m LABELS unit)
