# The bench of the codec goes through once over the driver of the tests: all codecs, both sizes of heads, one layer and several.
if(TS_CUDA_FOUND)
  add_test(NAME kernel_codec_bench COMMAND ts-cuda-codec-bench --full)
  ts_set_test_properties(kernel_codec_bench 120 OFF gpu)
  set_tests_properties(kernel_codec_bench PROPERTIES PASS_REGULAR_EXPRESSION "decode,k8v4h,f16,128,64,2,")
  ts_emulated(kernel_codec_bench)
else()
  ts_without_toolkit(kernel_codec_bench)
endif()

ts_test(kernel_quotient SOURCES kernel_quotient.cc LINK ts_kernels_host LABELS gpu TIMEOUT 60)
target_compile_definitions(kernel_quotient PRIVATE TS_KERNEL_HOST)
target_compile_options(kernel_quotient PRIVATE -Wno-unknown-pragmas)
