/* codec.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/codec.cu"

#include "gpu/cuda/kernel_host.h"

const kernel_host_entry codec_host_kernels[] = {
    {"cuda_codec_encode", cuda_codec_encode}, {"cuda_codec_decode", cuda_codec_decode}, {nullptr, nullptr}};
