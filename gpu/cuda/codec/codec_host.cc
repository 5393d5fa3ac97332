/* codec.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/codec/codec.cu"

#include "gpu/cuda/host/kernel_host.h"

#define ENTRY(name)                                                                                          \
    {                                                                                                        \
#name, name                                                                                          \
    }

const kernel_host_entry codec_host_kernels[] = {ENTRY(cuda_codec_encode_any_f16),
                                                ENTRY(cuda_codec_encode_any_bf16),
                                                ENTRY(cuda_codec_encode_64_f16),
                                                ENTRY(cuda_codec_encode_64_bf16),
                                                ENTRY(cuda_codec_encode_64c_f16),
                                                ENTRY(cuda_codec_encode_64c_bf16),
                                                ENTRY(cuda_codec_encode_128_f16),
                                                ENTRY(cuda_codec_encode_128_bf16),
                                                ENTRY(cuda_codec_encode_128c_f16),
                                                ENTRY(cuda_codec_encode_128c_bf16),
                                                ENTRY(cuda_codec_decode_any_f16),
                                                ENTRY(cuda_codec_decode_any_bf16),
                                                ENTRY(cuda_codec_decode_64_f16),
                                                ENTRY(cuda_codec_decode_64_bf16),
                                                ENTRY(cuda_codec_decode_64c_f16),
                                                ENTRY(cuda_codec_decode_64c_bf16),
                                                ENTRY(cuda_codec_decode_128_f16),
                                                ENTRY(cuda_codec_decode_128_bf16),
                                                ENTRY(cuda_codec_decode_128c_f16),
                                                ENTRY(cuda_codec_decode_128c_bf16),
                                                ENTRY(cuda_codec_means_f16),
                                                ENTRY(cuda_codec_means_bf16),
                                                {nullptr, nullptr}};
