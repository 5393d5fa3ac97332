/*
 * A libcuda.so.1 for test_cuda_driver: its device is the CPU, its kernels are those of gpu/cuda compiled for
 * it. Any of its functions can be told to fail, and it counts what is not given back.
 */
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_driver.h"
#include "gpu/cuda/kernel_host.h"
#include "tests/gpu/fake_driver.h"

static struct fake_driver fake = {.devices = 1};

struct fake_driver *fake_driver(void)
{
    return &fake;
}

/* What the function must return. */
static CUresult result_of(const char *function)
{
    fake.calls++;
    return fake.fails && strcmp(fake.fails, function) == 0 ? fake.result : 0;
}

/* The real one leaves what it was to fill in as it was, when it fails. */
#define FAIL_IF_TOLD                                                                                         \
    do {                                                                                                     \
        CUresult told = result_of(__func__);                                                                 \
        if (told != 0)                                                                                       \
            return told;                                                                                     \
    } while (0)

CUresult cuInit(unsigned flags)
{
    (void)flags;
    return result_of(__func__);
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    *name = error == CUDA_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == 100              ? "CUDA_ERROR_NO_DEVICE"
                                        : NULL;
    return *name ? 0 : 1;
}

CUresult cuDeviceGetCount(int *count)
{
    FAIL_IF_TOLD;
    *count = fake.devices;
    return 0;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    FAIL_IF_TOLD;
    *device = ordinal + 7;
    return 0;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    FAIL_IF_TOLD;
    if (device != 7)
        return 101;
    strncpy(name, "a driver made for a test", (size_t)bytes);
    return 0;
}

CUresult cuDriverGetVersion(int *version)
{
    FAIL_IF_TOLD;
    *version = 13000;
    return 0;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    FAIL_IF_TOLD;
    (void)device;
    for (int i = 0; i < 16; i++)
        uuid->bytes[i] = (char)(i * 17);
    return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    FAIL_IF_TOLD;
    (void)device;
    switch (attribute) {
    case CUDA_CAPABILITY_MAJOR:
        *value = 9;
        return 0;
    case CUDA_CAPABILITY_MINOR:
        *value = 0;
        return 0;
    case CUDA_MULTIPROCESSORS:
        *value = 6;
        return 0;
    case CUDA_L2_BYTES:
        *value = 1 << 20;
        return 0;
    case CUDA_SHARED_BYTES_OPTIN:
        *value = 227 << 10;
        return 0;
    default:
        return CUDA_INVALID_VALUE;
    }
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    FAIL_IF_TOLD;
    (void)device;
    *bytes = (size_t)1 << 30;
    return 0;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    FAIL_IF_TOLD;
    *least = 0;
    *greatest = -5;
    return 0;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    FAIL_IF_TOLD;
    (void)function;
    *value = 1024;
    return attribute == CUDA_FUNCTION_SHARED_BYTES ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    FAIL_IF_TOLD;
    (void)function;
    return attribute == CUDA_FUNCTION_DYNAMIC_BYTES && value == (227 << 10) - 1024 ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    FAIL_IF_TOLD;
    (void)device;
    *context = (CUcontext)(void *)&fake;
    fake.contexts++;
    return 0;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    (void)device;
    fake.contexts--;
    return result_of(__func__);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    FAIL_IF_TOLD;
    return context == (CUcontext)(void *)&fake ? 0 : 201;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    FAIL_IF_TOLD;
    if (*(const unsigned *)image != 0xba55ed50) /* the magic number of a fat binary */
        return 200;
    *module = (CUmodule)(void *)&fake.modules;
    fake.modules++;
    return 0;
}

CUresult cuModuleUnload(CUmodule module)
{
    (void)module;
    fake.modules--;
    return result_of(__func__);
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    FAIL_IF_TOLD;
    (void)module;
    const struct kernel_host_entry *k = kernel_host_find(NULL, name);
    if (!k)
        return 500;
    *function = (CUfunction)(void *)(uintptr_t)k;
    return 0;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                        CUstream stream, void **params, void **extra)
{
    FAIL_IF_TOLD;
    (void)shared_bytes, (void)stream;
    if (params || extra[0] != CUDA_PARAMS_POINTER || extra[2] != CUDA_PARAMS_BYTES ||
        extra[4] != CUDA_PARAMS_END)
        return CUDA_INVALID_VALUE;
    kernel_host_launch(((const struct kernel_host_entry *)(void *)function)->kernel, extra[1],
                       (struct ts_cuda_dim){grid_x, grid_y, grid_z},
                       (struct ts_cuda_dim){block_x, block_y, block_z});
    return 0;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    FAIL_IF_TOLD;
    if (bytes == 0)
        return 1;
    *address = (CUdeviceptr)(uintptr_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
    fake.buffers++;
    return 0;
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    free((void *)(uintptr_t)address);
    fake.buffers--;
    return result_of(__func__);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t bytes, CUstream stream)
{
    FAIL_IF_TOLD;
    (void)stream;
    memset((void *)(uintptr_t)to, byte, bytes);
    return 0;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    FAIL_IF_TOLD;
    (void)stream;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    FAIL_IF_TOLD;
    (void)stream;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return 0;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    FAIL_IF_TOLD;
    if (flags != CUDA_STREAM_NON_BLOCKING || priority > 0 || priority < -5)
        return 1;
    *stream = (CUstream)(void *)&fake.streams;
    fake.streams++;
    return 0;
}

CUresult cuStreamDestroy_v2(CUstream stream)
{
    (void)stream;
    fake.streams--;
    return result_of(__func__);
}

CUresult cuStreamSynchronize(CUstream stream)
{
    return stream == (CUstream)(void *)&fake.streams ? result_of(__func__) : 400;
}

/* Loaded, not called. */
#define ABSENT(function)                                                                                     \
    CUresult function(void)                                                                                  \
    {                                                                                                        \
        return 801;                                                                                          \
    }
ABSENT(cuMemGetInfo_v2)
ABSENT(cuMemGetAddressRange_v2)
ABSENT(cuMemHostAlloc)
ABSENT(cuMemFreeHost)
ABSENT(cuMemcpyDtoDAsync_v2)
ABSENT(cuIpcGetMemHandle)
ABSENT(cuIpcOpenMemHandle_v2)
ABSENT(cuIpcCloseMemHandle)
ABSENT(cuEventCreate)
ABSENT(cuEventDestroy_v2)
ABSENT(cuEventRecordWithFlags)
ABSENT(cuStreamWaitEvent)
ABSENT(cuEventSynchronize)
ABSENT(cuEventQuery)
ABSENT(cuEventElapsedTime_v2)
ABSENT(cuStreamBeginCapture_v2)
ABSENT(cuStreamEndCapture)
ABSENT(cuGraphInstantiateWithFlags)
ABSENT(cuGraphLaunch)
ABSENT(cuGraphExecDestroy)
ABSENT(cuGraphDestroy)
