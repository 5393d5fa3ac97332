/*
 * Shared by the two halves of a device of the driver: cuda_driver.c loads the library, opens devices and
 * judges results, cuda_driver_ops.c has the operations. A device and its forks share one context, with its
 * kernels and its fault; each has a stream.
 */
#ifndef TS_GPU_CUDA_DEVICE_CUDA_DRIVER_IMPL_H
#define TS_GPU_CUDA_DEVICE_CUDA_DRIVER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "gpu/cuda/device/cuda_driver.h"
#include "gpu/cuda/device/cuda_ops.h"

#define CUDA_MODULES_MAX 32
#define CUDA_KERNELS_MAX 256 /* of all images */

struct cuda_driver_kernel {
    const char *name;
    CUfunction function;
};

struct cuda_driver_shared {
    CUdevice device;
    CUcontext context;
    int priority_normal, priority_high;
    struct ts_cuda_properties properties;
    CUmodule modules[CUDA_MODULES_MAX];
    struct cuda_driver_kernel kernels[CUDA_KERNELS_MAX]; /* sorted by name */
    uint32_t module_count, kernel_count;
    uint32_t overlap;     /* 1: kernels may be brought in while the one before ends */
    pthread_mutex_t lock; /* of the words of the fault */
    atomic_bool faulty;
    struct ts_error fault;
};

struct cuda_driver_device {
    struct ts_cuda base;
    struct cuda_driver_shared *shared;
    CUstream stream;
    bool forked; /* what is shared belongs to another */
};

extern struct cuda_driver cuda_driver; /* filled in by the first opening */
extern const struct ts_cuda_ops cuda_driver_ops;

/* Every result of the driver passes through one of these. What is not ordinary makes the context faulty. */
enum ts_status cuda_driver_check(struct cuda_driver_shared *s, const char *operation, CUresult result,
                                 struct ts_error *err);

/* The same, for operations that may be refused where the device is sound: TS_EUNSUPPORTED. */
enum ts_status cuda_driver_refusal(struct cuda_driver_shared *s, const char *operation, CUresult result,
                                   struct ts_error *err);

/* Before every operation: fails where the context is faulty, else makes it the thread's current one. */
enum ts_status cuda_driver_enter(struct cuda_driver_shared *s, struct ts_error *err);

/* A stream for a device or fork. */
enum ts_status cuda_driver_stream(struct cuda_driver_device *d, bool priority_high, struct ts_error *err);

void cuda_driver_close(struct ts_cuda *cuda);

#endif
