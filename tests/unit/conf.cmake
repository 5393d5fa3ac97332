ts_test(test_conf SOURCES test_conf.c LINK ts_run LABELS unit)
