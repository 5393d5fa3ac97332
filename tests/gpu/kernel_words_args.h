/* What the kernels of kernel_words.cu are told. */
#ifndef TS_TESTS_GPU_KERNEL_WORDS_ARGS_H
#define TS_TESTS_GPU_KERNEL_WORDS_ARGS_H

#include <stdint.h>

#define WORDS_ROWS 64u /* of 16 bytes */

struct words_args {
    const uint16_t *a, *b;
    float *d;
    uint32_t *out;
    uint32_t bf16;
};

#endif
