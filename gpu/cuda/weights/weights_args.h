/* What the kernels of weights.cu are told; read by C and C++, by the compilers of host and device. */
#ifndef TS_GPU_CUDA_WEIGHTS_WEIGHTS_ARGS_H
#define TS_GPU_CUDA_WEIGHTS_WEIGHTS_ARGS_H

#include <stdint.h>

#define WEIGHTS_THREADS 256u
#define WEIGHTS_RUN     8u /* elements of 16 bits that a thread has in hand: 16 bytes */

struct weights_fill_args {
    uint8_t *to; /* 16-byte aligned */
    uint64_t count;
    uint64_t seed;
    float scale; /* values are uniform in -scale .. scale */
    uint32_t bf16;
};

/* A block of threads for each row. */
struct weights_quantise_args {
    const uint8_t *from; /* T [rows][inputs] */
    int8_t *to;          /* [rows][inputs] */
    float *scales;       /* [rows] */
    uint32_t inputs;     /* a multiple of 8 */
    uint32_t bf16;
};

enum weights_bias_kind { WEIGHTS_BIAS_F32, WEIGHTS_BIAS_F16, WEIGHTS_BIAS_BF16 };

/* A thread for each element. */
struct weights_bias_args {
    uint8_t *to;       /* [count / width][width] */
    const float *bias; /* [width] */
    uint64_t count;
    uint32_t width, kind;
};

#endif
