ts_test(test_quality SOURCES test_quality.c model_fixture.c LINK ts_quality m LABELS gpu)
ts_test(test_calibrate SOURCES test_calibrate.c model_fixture.c LINK ts_quality ts_random_model LABELS gpu)
ts_test(test_measure SOURCES test_measure.c model_fixture.c LINK ts_quality m LABELS gpu TIMEOUT 300)
