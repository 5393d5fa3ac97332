# Matrices of gpu/cuda: on the CPU, and on a device where there is one.
ts_test(kernel_gemm SOURCES kernel_gemm.c gemm_fixture.c LINK ts_kernels_host m LABELS gpu TIMEOUT 600)
