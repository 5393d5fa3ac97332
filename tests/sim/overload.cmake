ts_test(test_sim_overload SOURCES test_sim_overload.c LINK ts_cloud ts_core ts_base LABELS sim TIMEOUT 120)
