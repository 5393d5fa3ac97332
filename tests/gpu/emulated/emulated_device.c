/* Devices, contexts and kernels of the emulated driver. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/emulated/emulated.h"

#define FAT_BINARY   0xba55ed50u /* the magic number of an image */
#define FIXED_BYTES  1024        /* what a kernel is said to have of static shared memory */
#define FIRST_DEVICE 7           /* the name of device 0: an ordinal is no device */

struct CUctx_st {
    int retained;
};

struct CUmod_st {
    struct CUfunc_st *functions;
};

static struct CUctx_st contexts[EMULATED_DEVICES_MAX];

static int device_count(void)
{
    return (int)emulated_number("TS_EMULATED_DEVICES", 1);
}

static bool is_device(CUdevice device)
{
    return device >= FIRST_DEVICE && device < FIRST_DEVICE + device_count();
}

CUresult cuInit(unsigned flags)
{
    (void)flags;
    ENTER(EMULATED_NOTHING);
    return device_count() > 0 ? 0 : CUDA_NO_DEVICE;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    static const struct {
        int error;
        const char *name;
    } names[] = {{CUDA_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                 {CUDA_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                 {CUDA_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                 {CUDA_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
                 {CUDA_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
                 {CUDA_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
                 {CUDA_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                 {CUDA_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
                 {CUDA_CAPTURE_UNSUPPORTED + 1, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"}};
    *name = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].error == (int)error)
            *name = names[i].name;
    }
    return *name ? 0 : CUDA_INVALID_VALUE;
}

CUresult cuDriverGetVersion(int *version)
{
    ENTER(EMULATED_NOTHING);
    *version = 13000;
    return 0;
}

CUresult cuDeviceGetCount(int *count)
{
    ENTER(EMULATED_NOTHING);
    *count = device_count();
    return 0;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    ENTER(EMULATED_NOTHING);
    if (ordinal < 0 || ordinal >= device_count() || ordinal >= EMULATED_DEVICES_MAX)
        return 101;
    *device = FIRST_DEVICE + ordinal;
    return 0;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    ENTER(EMULATED_NOTHING);
    if (!is_device(device))
        return 101;
    snprintf(name, (size_t)bytes, "the CPU as a GPU");
    return 0;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    ENTER(EMULATED_NOTHING);
    if (!is_device(device))
        return 101;
    for (int i = 0; i < 16; i++)
        uuid->bytes[i] = (char)(i < 15 ? 0xe0 + i : device - FIRST_DEVICE);
    return 0;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    ENTER(EMULATED_NOTHING);
    if (!is_device(device))
        return 101;
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
        *value = EMULATED_SHARED_BYTES;
        return 0;
    default:
        return CUDA_INVALID_VALUE;
    }
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    ENTER(EMULATED_NOTHING);
    if (!is_device(device))
        return 101;
    *bytes = emulated_memory_bytes();
    return 0;
}

/* --- contexts ------------------------------------------------------------------------------------------- */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    ENTER(EMULATED_NOTHING);
    if (!is_device(device))
        return 101;
    *context = &contexts[device - FIRST_DEVICE];
    emulated_count(EMULATED_CONTEXT, 1);
    return 0;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    (void)device;
    emulated_count(EMULATED_CONTEXT, -1);
    return emulated_enter(__func__, EMULATED_NOTHING);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    ENTER(EMULATED_NOTHING);
    if (context && (context < contexts || context >= contexts + EMULATED_DEVICES_MAX))
        return CUDA_INVALID_CONTEXT;
    emulated_device = context ? (int)(context - contexts) : -1;
    return 0;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    ENTER(EMULATED_CURRENT);
    *least = 0;
    *greatest = -5;
    return 0;
}

/* --- kernels -------------------------------------------------------------------------------------------- */

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    ENTER(EMULATED_CURRENT | EMULATED_UNCAPTURED);
    if (*(const unsigned *)image != FAT_BINARY)
        return 200;
    *module = calloc(1, sizeof **module);
    emulated_count(EMULATED_MODULE, 1);
    return 0;
}

CUresult cuModuleUnload(CUmodule module)
{
    CUresult result = emulated_enter(__func__, EMULATED_CURRENT | EMULATED_UNCAPTURED);
    while (module->functions) {
        CUfunction function = module->functions;
        module->functions = function->next;
        free(function);
    }
    free(module);
    emulated_count(EMULATED_MODULE, -1);
    return result;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    ENTER(EMULATED_NOTHING);
    const struct kernel_host_entry *entry = kernel_host_find(NULL, name);
    if (!entry)
        return CUDA_NOT_FOUND;
    *function = malloc(sizeof **function);
    **function = (struct CUfunc_st){entry, 48 << 10, module->functions};
    module->functions = *function;
    return 0;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    ENTER(EMULATED_NOTHING);
    (void)function;
    if (attribute != CUDA_FUNCTION_SHARED_BYTES)
        return CUDA_INVALID_VALUE;
    *value = FIXED_BYTES;
    return 0;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    ENTER(EMULATED_NOTHING);
    if (attribute != CUDA_FUNCTION_DYNAMIC_BYTES || value < 0 || value > EMULATED_SHARED_BYTES - FIXED_BYTES)
        return CUDA_INVALID_VALUE;
    function->dynamic_bytes = value;
    return 0;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction function, void **params, void **extra)
{
    ENTER(EMULATED_CURRENT);
    const uint64_t threads = (uint64_t)c->blockDimX * c->blockDimY * c->blockDimZ;
    if (params || extra[0] != CUDA_PARAMS_POINTER || extra[2] != CUDA_PARAMS_BYTES ||
        extra[4] != CUDA_PARAMS_END || threads == 0 || threads > 1024 || c->gridDimX == 0 ||
        c->gridDimX > 0x7fffffffu || c->gridDimY == 0 || c->gridDimY > 65535 || c->gridDimZ == 0 ||
        c->gridDimZ > 65535 || c->sharedMemBytes > (unsigned)function->dynamic_bytes || c->numAttrs > 1 ||
        (c->numAttrs == 1 && c->attrs->id != CUDA_LAUNCH_OVERLAP))
        return CUDA_INVALID_VALUE;
    return emulated_submit(c->hStream,
                           &(struct kernel_command){.kind = KERNEL_LAUNCH,
                                                    .kernel = function->entry->kernel,
                                                    .grid = {c->gridDimX, c->gridDimY, c->gridDimZ},
                                                    .block = {c->blockDimX, c->blockDimY, c->blockDimZ},
                                                    .shared_bytes = c->sharedMemBytes,
                                                    .args = extra[1],
                                                    .bytes = *(const size_t *)extra[3]});
}
