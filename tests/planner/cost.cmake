ts_test(test_cost SOURCES test_cost.c LINK ts_core m LABELS unit)
