/* weights.cu for the CPU, and its kernels by name. */
#include "gpu/cuda/weights/weights.cu"

#include "gpu/cuda/host/kernel_host.h"

const kernel_host_entry weights_host_kernels[] = {{"weights_fill", weights_fill},
                                                  {"weights_quantise", weights_quantise},
                                                  {"weights_bias", weights_bias},
                                                  {nullptr, nullptr}};
