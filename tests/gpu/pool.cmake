ts_test(test_pool SOURCES test_pool.c LINK ts_pool ts_codec ts_core ts_base LABELS gpu)
