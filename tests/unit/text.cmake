foreach(piece json scan tokenizer unicode utf8 textstream)
  ts_test(test_text_${piece} SOURCES test_text_${piece}.c text_fixture.c LINK ts_text LABELS unit)
endforeach()
