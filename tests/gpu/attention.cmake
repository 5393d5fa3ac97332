#Attention on a device : its kernels on the CPU, and on a device where there is one.
ts_test(kernel_attention SOURCES kernel_attention.c attention_grid.c attention_fixture.c LINK ts_kernels_host
            LABELS gpu TIMEOUT 900)
    ts_test(test_cuda_attention SOURCES test_cuda_attention.c attention_grid.c attention_fixture.c LINK
                ts_cuda LABELS gpu TIMEOUT 600)
