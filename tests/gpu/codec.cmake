ts_test(test_codec SOURCES test_codec.c LINK ts_codec LABELS gpu)
