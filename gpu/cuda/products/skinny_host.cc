/* skinny.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/products/skinny.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(name, ...) {#name, name},
const kernel_host_entry skinny_host_kernels[] = {SKINNY_MMA(ENTRY) SKINNY_RING(ENTRY)
                                                     SKINNY_WIDE(ENTRY){nullptr, nullptr}};
