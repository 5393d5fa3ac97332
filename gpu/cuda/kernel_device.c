/* A device made of the CPU: memory of the heap, launches that are over when they return. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/kernel_host.h"

struct host_device {
    struct ts_cuda base;
    const struct kernel_host_entry *kernels;
};

static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static void host_close(struct ts_cuda *cuda)
{
    ts_free(cuda);
}

static enum ts_status host_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out,
                                 struct ts_error *err)
{
    (void)cuda, (void)err;
    *out = (ts_cuda_address)(uintptr_t)ts_xaligned(256, bytes);
    return TS_OK;
}

static void host_free(struct ts_cuda *cuda, ts_cuda_address address)
{
    (void)cuda;
    ts_free(at(address));
}

static enum ts_status host_clear(struct ts_cuda *cuda, ts_cuda_address to, size_t bytes, struct ts_error *err)
{
    (void)cuda, (void)err;
    memset(at(to), 0, bytes);
    return TS_OK;
}

static enum ts_status host_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                                  struct ts_error *err)
{
    (void)cuda, (void)err;
    memcpy(at(to), from, bytes);
    return TS_OK;
}

static enum ts_status host_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                    struct ts_error *err)
{
    (void)cuda, (void)err;
    memcpy(to, at(from), bytes);
    return TS_OK;
}

static enum ts_status host_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    (void)cuda, (void)err;
    return TS_OK;
}

static enum ts_status host_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                                  struct ts_cuda_dim block, const void *args, size_t args_bytes,
                                  struct ts_error *err)
{
    const struct kernel_host_entry *k = ((struct host_device *)cuda)->kernels;
    (void)args_bytes, (void)err;
    while (k->name && strcmp(k->name, kernel) != 0)
        k++;
    TS_ASSERT(k->name);
    kernel_host_launch(k->kernel, args, grid, block);
    return TS_OK;
}

static const struct ts_cuda_ops host_ops = {host_close,  host_alloc,    host_free, host_clear,
                                            host_upload, host_download, host_wait, host_launch};

struct ts_cuda *kernel_host_open(const struct kernel_host_entry *kernels)
{
    struct host_device *device = ts_xcalloc(1, sizeof *device);
    device->base = (struct ts_cuda){.ops = &host_ops, .name = "kernels on the CPU"};
    device->kernels = kernels;
    return &device->base;
}
