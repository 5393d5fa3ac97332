/* sample.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/sample/sample.cu"

#include "gpu/cuda/host/kernel_host.h"

const kernel_host_entry sample_host_kernels[] = {
    {"cuda_sample_scan", cuda_sample_scan}, {"cuda_sample_pick", cuda_sample_pick}, {nullptr, nullptr}};
