ts_test(test_reshard SOURCES test_reshard.c LINK ts_codec ts_core ts_base LABELS gpu)
