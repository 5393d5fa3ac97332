/* lossless.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/codec/lossless.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(name)                                                                                          \
    {                                                                                                        \
#name, name                                                                                          \
    }

const kernel_host_entry lossless_host_kernels[] = {ENTRY(cuda_lossless_pack_f16),
                                                   ENTRY(cuda_lossless_pack_bf16),
                                                   ENTRY(cuda_lossless_scan),
                                                   ENTRY(cuda_lossless_list_f16),
                                                   ENTRY(cuda_lossless_list_bf16),
                                                   ENTRY(cuda_lossless_count_f16),
                                                   ENTRY(cuda_lossless_count_bf16),
                                                   ENTRY(cuda_lossless_check),
                                                   ENTRY(cuda_lossless_unpack_f16),
                                                   ENTRY(cuda_lossless_unpack_bf16),
                                                   {nullptr, nullptr}};
