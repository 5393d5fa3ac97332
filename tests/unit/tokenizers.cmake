# Ids, texts and time against the stored answers of the `tokenizers` library (tests/data/tokenizers).
find_package(ZLIB REQUIRED)
ts_test(test_text_tokenizer_cases
  SOURCES test_text_tokenizer_cases.c tokenizer_cases.c text_fixture.c
  LINK ts_text ZLIB::ZLIB LABELS unit TIMEOUT 900)
