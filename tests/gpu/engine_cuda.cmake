# The engine on CUDA devices: on the CPU's emulation, and on a device where there is one.
ts_test(kernel_weights SOURCES kernel_weights.c LINK ts_kernels_host ts_cpu m LABELS gpu TIMEOUT 120)
