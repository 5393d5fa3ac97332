/* gemv.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/products/gemv.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(name, ...) {#name, name},
const kernel_host_entry gemv_host_kernels[] = {SKINNY_GEMV(ENTRY){nullptr, nullptr}};
