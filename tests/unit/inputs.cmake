ts_test(test_conf_tree SOURCES test_conf_tree.c LINK ts_run LABELS unit)
