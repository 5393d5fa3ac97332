/* tile.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/products/tile.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(name, ...) {#name, name},
const kernel_host_entry tile_host_kernels[] = {TILE_KERNELS(ENTRY){nullptr, nullptr}};
