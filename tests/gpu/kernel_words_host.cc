#include "tests/gpu/kernel_words.cu"

extern "C" const kernel_host_entry words_host_kernels[] = {{"words_multiply", words_multiply},
                                                           {"words_load", words_load},
                                                           {"words_copy", words_copy},
                                                           {"words_fma", words_fma},
                                                           {nullptr, nullptr}};
