ts_test(test_sim_batches SOURCES test_sim_batches.c LINK ts_cloud ts_core ts_base LABELS sim)
