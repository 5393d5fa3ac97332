ts_fuzz(fuzz_tokenizer SOURCES fuzz_tokenizer.c LINK ts_text)
