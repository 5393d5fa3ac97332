/*
 * The part of the CUDA driver's interface that cuda_driver.c loads: types as they are in memory, and the
 * names of the versions that have these signatures since CUDA 4.
 */
#ifndef TS_GPU_CUDA_CUDA_DRIVER_H
#define TS_GPU_CUDA_CUDA_DRIVER_H

#include <stddef.h>

#if !defined(TS_CUDA_HEADER) /* cuda.h was included before: it has them */
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
#endif

#define CUDA_OUT_OF_MEMORY       2
#define CUDA_STREAM_NON_BLOCKING 1

struct cuda_driver {
    CUresult (*init)(unsigned flags);
    CUresult (*error_name)(CUresult error, const char **name);
    CUresult (*get_count)(int *count);
    CUresult (*get_device)(CUdevice *device, int ordinal);
    CUresult (*get_name)(char *name, int bytes, CUdevice device);
    CUresult (*retain)(CUcontext *context, CUdevice device);
    CUresult (*release)(CUdevice device);
    CUresult (*set_current)(CUcontext context);
    CUresult (*module_load)(CUmodule *module, const void *image);
    CUresult (*module_unload)(CUmodule module);
    CUresult (*get_function)(CUfunction *function, CUmodule module, const char *name);
    CUresult (*launch)(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                       CUstream stream, void **params, void **extra);
    CUresult (*alloc)(CUdeviceptr *address, size_t bytes);
    CUresult (*free)(CUdeviceptr address);
    CUresult (*fill)(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream stream);
    CUresult (*upload)(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
    CUresult (*download)(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
    CUresult (*stream_create)(CUstream *stream, unsigned flags);
    CUresult (*stream_destroy)(CUstream stream);
    CUresult (*synchronize)(CUstream stream);
};

/* X(function of the library, member) */
#define CUDA_DRIVER_FUNCTIONS(X)                                                                             \
    X(cuInit, init)                                                                                          \
    X(cuGetErrorName, error_name)                                                                            \
    X(cuDeviceGetCount, get_count)                                                                           \
    X(cuDeviceGet, get_device)                                                                               \
    X(cuDeviceGetName, get_name)                                                                             \
    X(cuDevicePrimaryCtxRetain, retain)                                                                      \
    X(cuDevicePrimaryCtxRelease_v2, release)                                                                 \
    X(cuCtxSetCurrent, set_current)                                                                          \
    X(cuModuleLoadData, module_load)                                                                         \
    X(cuModuleUnload, module_unload)                                                                         \
    X(cuModuleGetFunction, get_function)                                                                     \
    X(cuLaunchKernel, launch)                                                                                \
    X(cuMemAlloc_v2, alloc)                                                                                  \
    X(cuMemFree_v2, free)                                                                                    \
    X(cuMemsetD8Async, fill)                                                                                 \
    X(cuMemcpyHtoDAsync_v2, upload)                                                                          \
    X(cuMemcpyDtoHAsync_v2, download)                                                                        \
    X(cuStreamCreate, stream_create)                                                                         \
    X(cuStreamDestroy_v2, stream_destroy)                                                                    \
    X(cuStreamSynchronize, synchronize)

#endif
