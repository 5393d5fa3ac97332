ts_test(test_cloud_source SOURCES test_cloud_source.c LINK ts_cloud ts_core ts_base LABELS sim)
ts_test(test_cloud_flow SOURCES test_cloud_flow.c LINK ts_cloud ts_core ts_base LABELS sim)
