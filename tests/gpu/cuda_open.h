/* The first device, for tests that need one. */
#ifndef TS_TESTS_GPU_CUDA_OPEN_H
#define TS_TESTS_GPU_CUDA_OPEN_H

#include <stdio.h>

#include "gpu/cuda/device/ts_cuda.h"

/* 0, or what the test's program ends with: 77, skipped, where there is no device. */
static inline int cuda_open_or_skip(struct ts_cuda **out)
{
    struct ts_error err = {0};
    enum ts_status status = ts_cuda_open(0, out, &err);
    if (status == TS_OK) {
        printf("device: %s\n", ts_cuda_name(*out));
        return 0;
    }
    if (status == TS_EUNSUPPORTED || status == TS_ENOTFOUND) {
        printf("SKIP: no-gpu %s\n", err.text);
        return 77;
    }
    printf("%s\n", err.text);
    return 1;
}

#endif
