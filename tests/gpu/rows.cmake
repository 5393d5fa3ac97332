# Kernels between matrices, and sampling: on the CPU, and on a device where there is one.
ts_test(kernel_rows SOURCES kernel_rows.c rows_fixture.c LINK ts_kernels_host m LABELS gpu TIMEOUT 300)
ts_test(test_cuda_rows SOURCES test_cuda_rows.c rows_fixture.c LINK ts_cuda m LABELS gpu TIMEOUT 300)
ts_test(kernel_sample SOURCES kernel_sample.c sample_fixture.c LINK ts_kernels_host ts_engine m LABELS gpu TIMEOUT 1200)
ts_test(test_cuda_sample SOURCES test_cuda_sample.c sample_fixture.c LINK ts_cuda ts_engine m LABELS gpu TIMEOUT 600)
