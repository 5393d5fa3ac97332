ts_test(test_codec SOURCES test_codec.c LINK ts_codec LABELS gpu)
ts_test(test_codec_levels SOURCES test_codec_levels.c LINK ts_codec LABELS gpu)
if(XXHASH_INCLUDE_DIR) # its stored hashes are those of xxHash
  ts_test(test_codec_presets SOURCES test_codec_presets.c LINK ts_codec m LABELS gpu)
endif()
ts_test(test_codec_ends SOURCES test_codec_ends.c LINK ts_codec ts_base LABELS gpu)
