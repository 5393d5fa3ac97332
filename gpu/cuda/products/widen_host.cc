/* widen.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/products/widen.cu"

#include "gpu/cuda/host/kernel_host.h"

const kernel_host_entry widen_host_kernels[] = {
    {"skinny_widen_f16", skinny_widen_f16}, {"skinny_widen_bf16", skinny_widen_bf16}, {nullptr, nullptr}};
