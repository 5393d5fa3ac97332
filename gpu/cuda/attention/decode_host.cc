/* decode.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/attention/decode.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(W, type) {"cuda_decode_" #type "_" #W, cuda_decode_##type##_##W},
#define ENTRIES(W)     ENTRY(W, f16) ENTRY(W, bf16)

const kernel_host_entry decode_host_kernels[] = {ATTENTION_WIDTHS(ENTRIES){nullptr, nullptr}};
