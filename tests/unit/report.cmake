ts_test(test_report SOURCES test_report.c LINK ts_report LABELS unit)
