/* rows.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/rows/rows.cu"

#include "gpu/cuda/host/kernel_host.h"

const kernel_host_entry rows_host_kernels[] = {{"cuda_rows_embed", cuda_rows_embed},
                                               {"cuda_rows_norm", cuda_rows_norm},
                                               {"cuda_rows_qkv", cuda_rows_qkv},
                                               {"cuda_rows_silu", cuda_rows_silu},
                                               {nullptr, nullptr}};
