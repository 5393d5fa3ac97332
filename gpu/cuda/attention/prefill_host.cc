/* prefill.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/attention/prefill.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(W, slabs, type) {"cuda_prefill_" #type "_" #W "_" #slabs, cuda_prefill_##type##_##W##_##slabs},
#define ENTRY_1(W)            ENTRY(W, 1, f16) ENTRY(W, 1, bf16)
#define ENTRY_2(W)            ENTRY(W, 2, f16) ENTRY(W, 2, bf16)

const kernel_host_entry prefill_host_kernels[] = {ATTENTION_WIDTHS(ENTRY_1)
                                                      ATTENTION_WIDE_TILES(ENTRY_2){nullptr, nullptr}};
