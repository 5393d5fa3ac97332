/*
 * Devices of the CUDA driver: the library, results, opening and closing. The few types and functions that are
 * needed are declared in cuda_driver.h, so that a build needs no header of the toolkit and the binary no
 * library.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/device/cuda_driver_impl.h"
#include "gpu/cuda/device/cuda_images.h"

#define DRIVER             "libcuda.so.1"
#define OVERLAP_CAPABILITY 90

/* --- the library ---------------------------------------------------------------------------------------- */

struct cuda_driver cuda_driver;
static bool emulated; /* the library says of itself that the CPU does it: tests/gpu/emulated */
static enum ts_status loaded = TS_EAGAIN;
static char reason[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static enum ts_status not_loaded(const char *text, const char *more)
{
    snprintf(reason, sizeof reason, "%s%s", text, more);
    return TS_EUNSUPPORTED;
}

static const char *name_of(CUresult result)
{
    const char *name = NULL;
    return cuda_driver.error_name(result, &name) == 0 && name ? name : "an unknown error";
}

/* TS_CUDA_DRIVER: another library, such as one that stands before the driver (tests/gpu/faults). */
static enum ts_status load(void)
{
    const char *wish = getenv("TS_CUDA_DRIVER"), *name = wish && *wish ? wish : DRIVER;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return not_loaded(dlerror(), "");
#define LOAD(symbol, field)                                                                                  \
    *(void **)(void *)&cuda_driver.field = dlsym(library, #symbol);                                          \
    if (!cuda_driver.field)                                                                                  \
        return not_loaded(name, " has no " #symbol ": the driver is too old");
    CUDA_DRIVER_FUNCTIONS(LOAD)
#undef LOAD
    emulated = dlsym(library, "ts_cuda_is_emulated") != NULL;
    CUresult result = cuda_driver.init(0);
    if (result == 0)
        return TS_OK;
    snprintf(reason, sizeof reason, "%s says %s", name, name_of(result));
    return TS_EUNSUPPORTED;
}

/* Once in a process; the library stays. */
static enum ts_status load_once(struct ts_error *err)
{
    if (!cuda_images[0].data)
        return ts_error_set(err, TS_EUNSUPPORTED, "built without kernels for GPUs (TS_CUDA)");
    pthread_mutex_lock(&lock);
    if (loaded == TS_EAGAIN)
        loaded = load();
    enum ts_status status = loaded;
    pthread_mutex_unlock(&lock);
    return status == TS_OK ? TS_OK : ts_error_set(err, status, "%s", reason);
}

/* --- results -------------------------------------------------------------------------------------------- */

/* The first one is kept: what follows it is its consequence. */
static void note_fault(struct cuda_driver_shared *s, const struct ts_error *said)
{
    pthread_mutex_lock(&s->lock);
    if (!atomic_load(&s->faulty)) {
        s->fault = *said;
        atomic_store(&s->faulty, true);
    }
    pthread_mutex_unlock(&s->lock);
}

enum ts_status cuda_driver_check(struct cuda_driver_shared *s, const char *operation, CUresult result,
                                 struct ts_error *err)
{
    struct ts_error said = {0};
    enum ts_status status = TS_EIO;
    if (result == 0)
        return TS_OK;
    if (result == CUDA_OUT_OF_MEMORY)
        status = TS_ENOMEM;
    else if (result >= CUDA_CAPTURE_UNSUPPORTED && result <= CUDA_CAPTURE_LAST)
        status = TS_EUNSUPPORTED;
    ts_error_set(&said, status, "%s: %s: %s (%d)", s->properties.name[0] ? s->properties.name : "CUDA",
                 operation, name_of(result), (int)result);
    if (status == TS_EIO)
        note_fault(s, &said);
    return ts_error_set(err, status, "%s", said.text);
}

/* Results that tell of a context that is lost: what a kernel did, what the device did, or the driver's end.
 */
static bool is_lost(CUresult result)
{
    static const int lost[] = {4,   46,  214, 220, 226, 700, 702, 709, 710,
                               714, 715, 716, 717, 718, 719, 721, 999};
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        if (lost[i] == (int)result)
            return true;
    }
    return false;
}

enum ts_status cuda_driver_refusal(struct cuda_driver_shared *s, const char *operation, CUresult result,
                                   struct ts_error *err)
{
    if (result == 0 || result == CUDA_OUT_OF_MEMORY || is_lost(result))
        return cuda_driver_check(s, operation, result, err);
    return ts_error_set(err, TS_EUNSUPPORTED, "%s: %s: %s (%d)", s->properties.name, operation,
                        name_of(result), (int)result);
}

/* Each call may come from another thread. */
enum ts_status cuda_driver_enter(struct cuda_driver_shared *s, struct ts_error *err)
{
    if (atomic_load(&s->faulty))
        return ts_error_set(err, TS_EIO, "%s", s->fault.text);
    return cuda_driver_check(s, "cuCtxSetCurrent", cuda_driver.set_current(s->context), err);
}

/* --- closing -------------------------------------------------------------------------------------------- */

static void drop_shared(struct cuda_driver_shared *s)
{
    while (s->module_count > 0)
        (void)cuda_driver.module_unload(s->modules[--s->module_count]);
    if (s->context)
        (void)cuda_driver.release(s->device);
    pthread_mutex_destroy(&s->lock);
    ts_free(s);
}

/* A context that is lost gives nothing back, but is asked to. */
void cuda_driver_close(struct ts_cuda *cuda)
{
    struct cuda_driver_device *d = (struct cuda_driver_device *)cuda;
    if (d->stream) {
        (void)cuda_driver.set_current(d->shared->context);
        (void)cuda_driver.synchronize(d->stream);
        (void)cuda_driver.stream_destroy(d->stream);
    }
    if (!d->forked)
        drop_shared(d->shared);
    ts_free(d);
}

/* --- opening -------------------------------------------------------------------------------------------- */

enum ts_status cuda_driver_stream(struct cuda_driver_device *d, bool priority_high, struct ts_error *err)
{
    struct cuda_driver_shared *s = d->shared;
    return cuda_driver_check(s, "cuStreamCreateWithPriority",
                             cuda_driver.stream_create(&d->stream, CUDA_STREAM_NON_BLOCKING,
                                                       priority_high ? s->priority_high : s->priority_normal),
                             err);
}

/* A kernel may have all the shared memory that a block can have. Asking also loads it: one that is loaded at
 * its first launch would wait for the device. */
static enum ts_status prepare(struct cuda_driver_shared *s, const struct cuda_driver_kernel *k,
                              struct ts_error *err)
{
    int fixed = 0;
    enum ts_status status = cuda_driver_check(
        s, k->name, cuda_driver.function_get(&fixed, CUDA_FUNCTION_SHARED_BYTES, k->function), err);
    if (status != TS_OK)
        return status;
    return cuda_driver_check(s, k->name,
                             cuda_driver.function_set(k->function, CUDA_FUNCTION_DYNAMIC_BYTES,
                                                      (int)s->properties.shared_bytes_max - fixed),
                             err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct cuda_driver_kernel *)a)->name, ((const struct cuda_driver_kernel *)b)->name);
}

static enum ts_status load_image(struct cuda_driver_shared *s, const struct cuda_image *image,
                                 struct ts_error *err)
{
    TS_ASSERT(s->module_count < CUDA_MODULES_MAX);
    CUmodule module;
    enum ts_status status =
        cuda_driver_check(s, "cuModuleLoadData", cuda_driver.module_load(&module, image->data), err);
    if (status != TS_OK)
        return status;
    s->modules[s->module_count++] = module;
    for (const char *const *name = image->kernels; status == TS_OK && *name; name++) {
        TS_ASSERT(s->kernel_count < CUDA_KERNELS_MAX);
        struct cuda_driver_kernel *k = &s->kernels[s->kernel_count++];
        k->name = *name;
        status = cuda_driver_check(s, *name, cuda_driver.get_function(&k->function, module, *name), err);
        if (status == TS_OK)
            status = prepare(s, k, err);
    }
    return status;
}

static enum ts_status load_kernels(struct cuda_driver_shared *s, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (const struct cuda_image *image = cuda_images; status == TS_OK && image->data; image++)
        status = load_image(s, image, err);
    qsort(s->kernels, s->kernel_count, sizeof *s->kernels, by_name);
    return status;
}

static void write_uuid(char *text, size_t size, const CUuuid *uuid)
{
    size_t at = 0;
    for (int i = 0; i < 16; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->bytes[i] & 0xff);
}

/* Not by itself: on an H100 a large model was slower with it (gpu/README.md). */
static bool overlap_wanted(void)
{
    const char *wish = getenv("TS_CUDA_OVERLAP");
    return wish && strcmp(wish, "on") == 0;
}

static enum ts_status read_attributes(struct cuda_driver_shared *s, struct ts_error *err)
{
    struct ts_cuda_properties *p = &s->properties;
    int major = 0, minor = 0, values[3] = {0};
    const struct {
        CUdevice_attribute attribute;
        int *value;
    } wanted[] = {{CUDA_CAPABILITY_MAJOR, &major},
                  {CUDA_CAPABILITY_MINOR, &minor},
                  {CUDA_MULTIPROCESSORS, &values[0]},
                  {CUDA_L2_BYTES, &values[1]},
                  {CUDA_SHARED_BYTES_OPTIN, &values[2]}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        enum ts_status status = cuda_driver_check(
            s, "cuDeviceGetAttribute",
            cuda_driver.get_attribute(wanted[i].value, wanted[i].attribute, s->device), err);
        if (status != TS_OK)
            return status;
    }
    p->capability = (uint32_t)(major * 10 + minor);
    s->overlap = p->capability >= OVERLAP_CAPABILITY && overlap_wanted();
    p->multiprocessors = (uint32_t)values[0];
    p->l2_bytes = (uint32_t)values[1];
    p->shared_bytes_max = (uint32_t)values[2];
    return TS_OK;
}

static enum ts_status read_properties(struct cuda_driver_shared *s, struct ts_error *err)
{
    struct ts_cuda_properties *p = &s->properties;
    CUuuid uuid = {{0}};
    size_t bytes = 0;
    int version = 0;
    enum ts_status status;
    if ((status = cuda_driver_check(s, "cuDeviceGetName",
                                    cuda_driver.get_name(p->name, (int)sizeof p->name, s->device), err)) !=
            TS_OK ||
        (status = cuda_driver_check(s, "cuDriverGetVersion", cuda_driver.version(&version), err)) != TS_OK ||
        (status = cuda_driver_check(s, "cuDeviceGetUuid", cuda_driver.get_uuid(&uuid, s->device), err)) !=
            TS_OK ||
        (status = cuda_driver_check(s, "cuDeviceTotalMem", cuda_driver.get_memory(&bytes, s->device), err)) !=
            TS_OK)
        return status;
    write_uuid(p->uuid, sizeof p->uuid, &uuid);
    p->driver_version = (uint32_t)version;
    p->memory_bytes = bytes;
    p->emulated = emulated;
    return read_attributes(s, err);
}

static enum ts_status open_context(struct cuda_driver_device *d, struct ts_error *err)
{
    struct cuda_driver_shared *s = d->shared;
    enum ts_status status;
    if ((status = cuda_driver_check(s, "cuDeviceGet",
                                    cuda_driver.get_device(&s->device, (int)s->properties.ordinal), err)) !=
            TS_OK ||
        (status = read_properties(s, err)) != TS_OK ||
        (status = cuda_driver_check(s, "cuDevicePrimaryCtxRetain", cuda_driver.retain(&s->context, s->device),
                                    err)) != TS_OK ||
        (status = cuda_driver_enter(s, err)) != TS_OK ||
        (status = cuda_driver_check(s, "cuCtxGetStreamPriorityRange",
                                    cuda_driver.get_priorities(&s->priority_normal, &s->priority_high),
                                    err)) != TS_OK ||
        (status = cuda_driver_stream(d, false, err)) != TS_OK)
        return status;
    return load_kernels(s, err);
}

enum ts_status ts_cuda_count(uint32_t *count, struct ts_error *err)
{
    int shown = 0;
    *count = 0;
    enum ts_status status = load_once(err);
    if (status != TS_OK)
        return status;
    CUresult result = cuda_driver.get_count(&shown);
    if (result != 0)
        return ts_error_set(err, result == CUDA_OUT_OF_MEMORY ? TS_ENOMEM : TS_EIO,
                            "CUDA: cuDeviceGetCount: %s (%d)", name_of(result), (int)result);
    *count = (uint32_t)shown;
    return TS_OK;
}

static enum ts_status try_open(uint32_t ordinal, struct ts_cuda **out, struct ts_error *err)
{
    uint32_t count;
    enum ts_status status = ts_cuda_count(&count, err);
    if (status != TS_OK)
        return status;
    if (ordinal >= count)
        return ts_error_set(err, TS_ENOTFOUND, "number %u is asked for, the driver shows %u", ordinal, count);
    struct cuda_driver_device *d = ts_xcalloc(1, sizeof *d);
    d->shared = ts_xcalloc(1, sizeof *d->shared);
    pthread_mutex_init(&d->shared->lock, NULL);
    d->shared->properties.ordinal = ordinal;
    d->base = (struct ts_cuda){.ops = &cuda_driver_ops, .properties = &d->shared->properties};
    status = open_context(d, err);
    if (status == TS_OK)
        *out = &d->base;
    else
        cuda_driver_close(&d->base);
    return status;
}

enum ts_status ts_cuda_open(uint32_t ordinal, struct ts_cuda **out, struct ts_error *err)
{
    *out = NULL;
    enum ts_status status = try_open(ordinal, out, err);
    return status == TS_OK ? status : (ts_error_prefix(err, "no CUDA device"), status);
}
