/*
 * The part of the CUDA driver's interface that we load: types as they are in memory, and functions under the
 * names that the driver exports, with their version where they have one. All are there since CUDA 12.8
 * (cuEventElapsedTime_v2 came last). test_cuda_driver compares the declarations with cuda.h of the toolkit.
 */
#ifndef TS_GPU_CUDA_DEVICE_CUDA_DRIVER_H
#define TS_GPU_CUDA_DEVICE_CUDA_DRIVER_H

#include <stddef.h>

#if !defined(TS_CUDA_HEADER) /* cuda.h was included before: it has them */
typedef int CUresult;
typedef int CUdevice;
typedef int CUdevice_attribute;
typedef int CUfunction_attribute;
typedef int CUstreamCaptureMode;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;
typedef struct {
    char bytes[16];
} CUuuid;
typedef struct {
    char reserved[64];
} CUipcMemHandle;
typedef struct {
    int id;
    char pad[4];
    union {
        char pad[64];
        int programmaticStreamSerializationAllowed;
    } value;
} CUlaunchAttribute;
typedef struct {
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned numAttrs;
} CUlaunchConfig;
#endif

/* Results. */
#define CUDA_INVALID_VALUE       1
#define CUDA_OUT_OF_MEMORY       2
#define CUDA_NO_DEVICE           100
#define CUDA_INVALID_CONTEXT     201
#define CUDA_INVALID_HANDLE      400
#define CUDA_NOT_FOUND           500
#define CUDA_NOT_READY           600
#define CUDA_ILLEGAL_ADDRESS     700
#define CUDA_CAPTURE_UNSUPPORTED 900 /* the first of those that concern captures alone */
#define CUDA_CAPTURE_LAST        908

/* Flags, attributes and modes. */
#define CUDA_STREAM_NON_BLOCKING    1
#define CUDA_EXTERNAL               1 /* of records and waits: a node of the graph that is captured */
#define CUDA_HOST_PORTABLE          1
#define CUDA_CAPTURE_THREAD_LOCAL   1
#define CUDA_IPC_LAZY_PEER_ACCESS   1
#define CUDA_MULTIPROCESSORS        16
#define CUDA_L2_BYTES               38
#define CUDA_CAPABILITY_MAJOR       75
#define CUDA_CAPABILITY_MINOR       76
#define CUDA_SHARED_BYTES_OPTIN     97
#define CUDA_LAUNCH_OVERLAP         6 /* id of the attribute: programmatic stream serialization */
#define CUDA_FUNCTION_SHARED_BYTES  1
#define CUDA_FUNCTION_DYNAMIC_BYTES 8
#define CUDA_PARAMS_POINTER         ((void *)(size_t)1) /* keys of the list `extra` of a launch */
#define CUDA_PARAMS_BYTES           ((void *)(size_t)2)
#define CUDA_PARAMS_END             ((void *)(size_t)0)

struct cuda_driver {
    CUresult (*init)(unsigned flags);
    CUresult (*error_name)(CUresult error, const char **name);
    CUresult (*version)(int *version);
    CUresult (*get_count)(int *count);
    CUresult (*get_device)(CUdevice *device, int ordinal);
    CUresult (*get_name)(char *name, int bytes, CUdevice device);
    CUresult (*get_uuid)(CUuuid *uuid, CUdevice device);
    CUresult (*get_attribute)(int *value, CUdevice_attribute attribute, CUdevice device);
    CUresult (*get_memory)(size_t *bytes, CUdevice device);
    CUresult (*retain)(CUcontext *context, CUdevice device);
    CUresult (*release)(CUdevice device);
    CUresult (*set_current)(CUcontext context);
    CUresult (*get_priorities)(int *least, int *greatest);
    CUresult (*module_load)(CUmodule *module, const void *image);
    CUresult (*module_unload)(CUmodule module);
    CUresult (*get_function)(CUfunction *function, CUmodule module, const char *name);
    CUresult (*function_get)(int *value, CUfunction_attribute attribute, CUfunction function);
    CUresult (*function_set)(CUfunction function, CUfunction_attribute attribute, int value);
    CUresult (*launch)(const CUlaunchConfig *config, CUfunction function, void **params, void **extra);
    CUresult (*memory)(size_t *unused, size_t *total);
    CUresult (*alloc)(CUdeviceptr *address, size_t bytes);
    CUresult (*free)(CUdeviceptr address);
    CUresult (*range)(CUdeviceptr *base, size_t *bytes, CUdeviceptr address);
    CUresult (*host_alloc)(void **memory, size_t bytes, unsigned flags);
    CUresult (*host_free)(void *memory);
    CUresult (*fill)(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream stream);
    CUresult (*upload)(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
    CUresult (*download)(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
    CUresult (*copy)(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
    CUresult (*ipc_get)(CUipcMemHandle *handle, CUdeviceptr address);
    CUresult (*ipc_open)(CUdeviceptr *address, CUipcMemHandle handle, unsigned flags);
    CUresult (*ipc_close)(CUdeviceptr address);
    CUresult (*stream_create)(CUstream *stream, unsigned flags, int priority);
    CUresult (*stream_destroy)(CUstream stream);
    CUresult (*synchronize)(CUstream stream);
    CUresult (*event_create)(CUevent *event, unsigned flags);
    CUresult (*event_destroy)(CUevent event);
    CUresult (*event_record)(CUevent event, CUstream stream, unsigned flags);
    CUresult (*stream_wait)(CUstream stream, CUevent event, unsigned flags);
    CUresult (*event_wait)(CUevent event);
    CUresult (*event_query)(CUevent event);
    CUresult (*elapsed)(float *ms, CUevent from, CUevent to);
    CUresult (*capture_begin)(CUstream stream, CUstreamCaptureMode mode);
    CUresult (*capture_end)(CUstream stream, CUgraph *graph);
    CUresult (*graph_make)(CUgraphExec *exec, CUgraph graph, unsigned long long flags);
    CUresult (*graph_launch)(CUgraphExec exec, CUstream stream);
    CUresult (*graph_exec_destroy)(CUgraphExec exec);
    CUresult (*graph_destroy)(CUgraph graph);
};

/* X(function of the library, member) */
#define CUDA_DRIVER_FUNCTIONS(X)                                                                             \
    X(cuInit, init)                                                                                          \
    X(cuGetErrorName, error_name)                                                                            \
    X(cuDriverGetVersion, version)                                                                           \
    X(cuDeviceGetCount, get_count)                                                                           \
    X(cuDeviceGet, get_device)                                                                               \
    X(cuDeviceGetName, get_name)                                                                             \
    X(cuDeviceGetUuid_v2, get_uuid)                                                                          \
    X(cuDeviceGetAttribute, get_attribute)                                                                   \
    X(cuDeviceTotalMem_v2, get_memory)                                                                       \
    X(cuDevicePrimaryCtxRetain, retain)                                                                      \
    X(cuDevicePrimaryCtxRelease_v2, release)                                                                 \
    X(cuCtxSetCurrent, set_current)                                                                          \
    X(cuCtxGetStreamPriorityRange, get_priorities)                                                           \
    X(cuModuleLoadData, module_load)                                                                         \
    X(cuModuleUnload, module_unload)                                                                         \
    X(cuModuleGetFunction, get_function)                                                                     \
    X(cuFuncGetAttribute, function_get)                                                                      \
    X(cuFuncSetAttribute, function_set)                                                                      \
    X(cuLaunchKernelEx, launch)                                                                              \
    X(cuMemGetInfo_v2, memory)                                                                               \
    X(cuMemAlloc_v2, alloc)                                                                                  \
    X(cuMemFree_v2, free)                                                                                    \
    X(cuMemGetAddressRange_v2, range)                                                                        \
    X(cuMemHostAlloc, host_alloc)                                                                            \
    X(cuMemFreeHost, host_free)                                                                              \
    X(cuMemsetD8Async, fill)                                                                                 \
    X(cuMemcpyHtoDAsync_v2, upload)                                                                          \
    X(cuMemcpyDtoHAsync_v2, download)                                                                        \
    X(cuMemcpyDtoDAsync_v2, copy)                                                                            \
    X(cuIpcGetMemHandle, ipc_get)                                                                            \
    X(cuIpcOpenMemHandle_v2, ipc_open)                                                                       \
    X(cuIpcCloseMemHandle, ipc_close)                                                                        \
    X(cuStreamCreateWithPriority, stream_create)                                                             \
    X(cuStreamDestroy_v2, stream_destroy)                                                                    \
    X(cuStreamSynchronize, synchronize)                                                                      \
    X(cuEventCreate, event_create)                                                                           \
    X(cuEventDestroy_v2, event_destroy)                                                                      \
    X(cuEventRecordWithFlags, event_record)                                                                  \
    X(cuStreamWaitEvent, stream_wait)                                                                        \
    X(cuEventSynchronize, event_wait)                                                                        \
    X(cuEventQuery, event_query)                                                                             \
    X(cuEventElapsedTime_v2, elapsed)                                                                        \
    X(cuStreamBeginCapture_v2, capture_begin)                                                                \
    X(cuStreamEndCapture, capture_end)                                                                       \
    X(cuGraphInstantiateWithFlags, graph_make)                                                               \
    X(cuGraphLaunch, graph_launch)                                                                           \
    X(cuGraphExecDestroy, graph_exec_destroy)                                                                \
    X(cuGraphDestroy, graph_destroy)

#endif
