# Matrices of gpu/cuda: on the CPU, and on a device where there is one.
ts_test(kernel_gemm SOURCES kernel_gemm.c gemm_tests.c gemm_fixture.c LINK ts_kernels_host m LABELS gpu TIMEOUT 600)
ts_test(test_cuda_gemm SOURCES test_cuda_gemm.c gemm_tests.c gemm_fixture.c LINK ts_cuda m LABELS gpu TIMEOUT 600)
if(TS_CUDA_INCLUDE AND EXISTS ${TS_CUDA_INCLUDE}/cublasLt.h)
  target_include_directories(test_cuda_gemm SYSTEM PRIVATE ${TS_CUDA_INCLUDE})
  target_compile_definitions(test_cuda_gemm PRIVATE TS_CUBLASLT_HEADER)
endif()
