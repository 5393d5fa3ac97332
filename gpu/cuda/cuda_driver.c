/*
 * A device of the CUDA driver. The few types and functions that are needed are declared here, so that a build
 * needs no header of the toolkit and the binary no library;
 * test_cuda_driver compares them with cuda.h.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/cuda/cuda_images.h"
#include "gpu/cuda/ts_cuda.h"

#define DRIVER     "libcuda.so.1"
#define KERNEL_MAX 64 /* of all images */

struct kernel {
    const char *name;
    CUfunction function;
};

struct driver_device {
    struct ts_cuda base;
    CUdevice device;
    CUcontext context;
    CUstream stream;
    CUmodule modules[KERNEL_MAX];
    struct kernel kernels[KERNEL_MAX];
    uint32_t module_count, kernel_count;
};

/* --- the library ---------------------------------------------------------------------------------------- */

static struct cuda_driver driver;
static enum ts_status loaded = TS_EAGAIN;
static char reason[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static enum ts_status not_loaded(const char *text)
{
    snprintf(reason, sizeof reason, "%s", text);
    return TS_EUNSUPPORTED;
}

static enum ts_status load(void)
{
    void *library = dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return not_loaded(dlerror());
#define LOAD(symbol, field)                                                                                  \
    *(void **)(void *)&driver.field = dlsym(library, #symbol);                                               \
    if (!driver.field)                                                                                       \
        return not_loaded(DRIVER " has no " #symbol ": the driver is too old");
    CUDA_DRIVER_FUNCTIONS(LOAD)
#undef LOAD
    CUresult result = driver.init(0);
    if (result == 0)
        return TS_OK;
    const char *text = NULL;
    if (driver.error_name(result, &text) != 0 || !text)
        text = "an unknown error";
    return not_loaded(text);
}

/* Once in a process; the library stays. */
static enum ts_status load_once(struct ts_error *err)
{
    pthread_mutex_lock(&lock);
    if (loaded == TS_EAGAIN)
        loaded = load();
    enum ts_status status = loaded;
    pthread_mutex_unlock(&lock);
    return status == TS_OK ? TS_OK : ts_error_set(err, status, "no CUDA driver: %s", reason);
}

/* --- every result passes through here ------------------------------------------------------------------- */

static enum ts_status check(const struct driver_device *d, const char *operation, CUresult result,
                            struct ts_error *err)
{
    const char *name = NULL;
    if (result == 0)
        return TS_OK;
    if (driver.error_name(result, &name) != 0 || !name)
        name = "an unknown error";
    return ts_error_set(err, result == CUDA_OUT_OF_MEMORY ? TS_ENOMEM : TS_EIO, "%s: %s: %s (%d)",
                        d->base.name[0] ? d->base.name : "CUDA", operation, name, result);
}

/* Each call may come from another thread. */
static enum ts_status enter(struct driver_device *d, struct ts_error *err)
{
    return check(d, "cuCtxSetCurrent", driver.set_current(d->context), err);
}

/* --- operations ----------------------------------------------------------------------------------------- */

static void driver_close(struct ts_cuda *cuda)
{
    struct driver_device *d = (struct driver_device *)cuda;
    if (d->context && enter(d, NULL) == TS_OK) {
        if (d->stream) {
            (void)driver.synchronize(d->stream);
            (void)driver.stream_destroy(d->stream);
        }
        while (d->module_count > 0)
            (void)driver.module_unload(d->modules[--d->module_count]);
    }
    if (d->context)
        (void)driver.release(d->device);
    ts_free(d);
}

static enum ts_status driver_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out,
                                   struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    CUdeviceptr address = 0;
    enum ts_status status = enter(d, err);
    if (status == TS_OK)
        status = check(d, "cuMemAlloc", driver.alloc(&address, bytes ? bytes : 1), err);
    *out = address;
    return status;
}

static void driver_free(struct ts_cuda *cuda, ts_cuda_address address)
{
    struct driver_device *d = (struct driver_device *)cuda;
    if (enter(d, NULL) == TS_OK)
        (void)driver.free(address);
}

static enum ts_status driver_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes,
                                   struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    enum ts_status status = enter(d, err);
    return status == TS_OK ? check(d, "cuMemsetD8Async", driver.fill(at, 0, bytes, d->stream), err) : status;
}

static enum ts_status driver_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                                    struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    enum ts_status status = enter(d, err);
    return status == TS_OK ? check(d, "cuMemcpyHtoDAsync", driver.upload(to, from, bytes, d->stream), err)
                           : status;
}

static enum ts_status driver_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                      struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    enum ts_status status = enter(d, err);
    return status == TS_OK ? check(d, "cuMemcpyDtoHAsync", driver.download(to, from, bytes, d->stream), err)
                           : status;
}

static enum ts_status driver_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    enum ts_status status = enter(d, err);
    return status == TS_OK ? check(d, "cuStreamSynchronize", driver.synchronize(d->stream), err) : status;
}

static enum ts_status driver_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                                    struct ts_cuda_dim block, const void *args, size_t args_bytes,
                                    struct ts_error *err)
{
    struct driver_device *d = (struct driver_device *)cuda;
    void *params[] = {(void *)(uintptr_t)args}; /* read, not written */
    const struct kernel *k = d->kernels;
    enum ts_status status = enter(d, err);
    (void)args_bytes; /* the image knows how many */
    if (status != TS_OK)
        return status;
    while (k < d->kernels + d->kernel_count && strcmp(k->name, kernel) != 0)
        k++;
    TS_ASSERT(k < d->kernels + d->kernel_count);
    return check(d, kernel,
                 driver.launch(k->function, grid.x, grid.y, grid.z, block.x, block.y, block.z, 0, d->stream,
                               params, NULL),
                 err);
}

static const struct ts_cuda_ops driver_ops = {driver_close,  driver_alloc,    driver_free, driver_clear,
                                              driver_upload, driver_download, driver_wait, driver_launch};

/* --- opening -------------------------------------------------------------------------------------------- */

/* All kernels at once: one that is loaded at its first launch would wait for the device. */
static enum ts_status load_kernels(struct driver_device *d, struct ts_error *err)
{
    for (const struct cuda_image *image = cuda_images; image->data; image++) {
        TS_ASSERT(d->module_count < KERNEL_MAX);
        enum ts_status status =
            check(d, "cuModuleLoadData", driver.module_load(&d->modules[d->module_count], image->data), err);
        if (status != TS_OK)
            return status;
        CUmodule module = d->modules[d->module_count++];
        for (const char *const *name = image->kernels; *name; name++) {
            TS_ASSERT(d->kernel_count < KERNEL_MAX);
            struct kernel *k = &d->kernels[d->kernel_count++];
            k->name = *name;
            status = check(d, *name, driver.get_function(&k->function, module, *name), err);
            if (status != TS_OK)
                return status;
        }
    }
    return TS_OK;
}

static enum ts_status open_device(struct driver_device *d, uint32_t ordinal, struct ts_error *err)
{
    int count = 0;
    enum ts_status status = check(d, "cuDeviceGetCount", driver.get_count(&count), err);
    if (status != TS_OK)
        return status;
    if (ordinal >= (uint32_t)count)
        return ts_error_set(err, TS_ENOTFOUND, "no CUDA device %u: the driver shows %d", ordinal, count);
    if ((status = check(d, "cuDeviceGet", driver.get_device(&d->device, (int)ordinal), err)) != TS_OK ||
        (status = check(d, "cuDeviceGetName",
                        driver.get_name(d->base.name, (int)sizeof d->base.name, d->device), err)) != TS_OK ||
        (status = check(d, "cuDevicePrimaryCtxRetain", driver.retain(&d->context, d->device), err)) !=
            TS_OK ||
        (status = enter(d, err)) != TS_OK ||
        (status = check(d, "cuStreamCreate", driver.stream_create(&d->stream, CUDA_STREAM_NON_BLOCKING),
                        err)) != TS_OK)
        return status;
    return load_kernels(d, err);
}

enum ts_status ts_cuda_open(uint32_t ordinal, struct ts_cuda **out, struct ts_error *err)
{
    *out = NULL;
    if (!cuda_images[0].data)
        return ts_error_set(err, TS_EUNSUPPORTED, "built without CUDA: configure with TS_CUDA=on");
    enum ts_status status = load_once(err);
    if (status != TS_OK)
        return status;
    struct driver_device *d = ts_xcalloc(1, sizeof *d);
    d->base.ops = &driver_ops;
    status = open_device(d, ordinal, err);
    if (status == TS_OK)
        *out = &d->base;
    else
        driver_close(&d->base);
    return status;
}
