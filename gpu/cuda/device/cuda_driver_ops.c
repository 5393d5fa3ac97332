/* The operations of a device of the CUDA driver. */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/device/cuda_driver_impl.h"

struct driver_event {
    struct ts_cuda_event base;
    struct cuda_driver_shared *shared;
    CUevent event;
};

struct driver_graph {
    struct ts_cuda_graph base;
    struct cuda_driver_shared *shared;
    CUgraphExec exec;
};

static struct cuda_driver_device *device_of(const struct ts_cuda *cuda)
{
    return (struct cuda_driver_device *)(uintptr_t)cuda;
}

/* Runs `call` of the driver in the context `s`, and returns its status. */
#define RUN(s, name, call)                                                                                   \
    do {                                                                                                     \
        enum ts_status entered = cuda_driver_enter((s), err);                                                \
        return entered == TS_OK ? cuda_driver_check((s), (name), cuda_driver.call, err) : entered;           \
    } while (0)

/* --- devices -------------------------------------------------------------------------------------------- */

static enum ts_status driver_fork(struct ts_cuda *cuda, bool priority_high, struct ts_cuda **out,
                                  struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    enum ts_status status = cuda_driver_enter(s, err);
    if (status != TS_OK)
        return status;
    struct cuda_driver_device *d = ts_xcalloc(1, sizeof *d);
    d->base = (struct ts_cuda){.ops = &cuda_driver_ops, .properties = &s->properties};
    d->shared = s;
    d->forked = true;
    status = cuda_driver_stream(d, priority_high, err);
    if (status == TS_OK)
        *out = &d->base;
    else
        cuda_driver_close(&d->base);
    return status;
}

static const char *driver_fault(const struct ts_cuda *cuda)
{
    const struct cuda_driver_shared *s = device_of(cuda)->shared;
    return atomic_load(&s->faulty) ? s->fault.text : NULL;
}

static void *driver_native_stream(struct ts_cuda *cuda)
{
    struct cuda_driver_device *d = device_of(cuda);
    (void)cuda_driver_enter(d->shared, NULL);
    return d->shared->properties.emulated ? NULL : (void *)d->stream;
}

/* --- memory --------------------------------------------------------------------------------------------- */

static enum ts_status driver_memory(struct ts_cuda *cuda, uint64_t *unused, uint64_t *total,
                                    struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    size_t free_bytes = 0, all_bytes = 0;
    enum ts_status status = cuda_driver_enter(s, err);
    if (status == TS_OK)
        status = cuda_driver_check(s, "cuMemGetInfo", cuda_driver.memory(&free_bytes, &all_bytes), err);
    *unused = free_bytes;
    *total = all_bytes;
    return status;
}

static enum ts_status driver_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out,
                                   struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    CUdeviceptr address = 0;
    enum ts_status status = cuda_driver_enter(s, err);
    if (status == TS_OK)
        status = cuda_driver_check(s, "cuMemAlloc", cuda_driver.alloc(&address, bytes ? bytes : 1), err);
    *out = address;
    return status;
}

static void driver_free(struct ts_cuda *cuda, ts_cuda_address address)
{
    (void)cuda_driver.set_current(device_of(cuda)->shared->context);
    (void)cuda_driver.free(address);
}

static enum ts_status driver_pin(struct ts_cuda *cuda, size_t bytes, void **out, struct ts_error *err)
{
    RUN(device_of(cuda)->shared, "cuMemHostAlloc", host_alloc(out, bytes ? bytes : 1, CUDA_HOST_PORTABLE));
}

static void driver_unpin(struct ts_cuda *cuda, void *memory)
{
    (void)cuda_driver.set_current(device_of(cuda)->shared->context);
    (void)cuda_driver.host_free(memory);
}

static enum ts_status driver_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes,
                                   struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuMemsetD8Async", fill(at, 0, bytes, d->stream));
}

static enum ts_status driver_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                                    struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuMemcpyHtoDAsync", upload(to, from, bytes, d->stream));
}

static enum ts_status driver_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                      struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuMemcpyDtoHAsync", download(to, from, bytes, d->stream));
}

static enum ts_status driver_copy(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address from,
                                  size_t bytes, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuMemcpyDtoDAsync", copy(to, from, bytes, d->stream));
}

static enum ts_status driver_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuStreamSynchronize", synchronize(d->stream));
}

/* --- memory that processes share ------------------------------------------------------------------------ */

/* A handle names a whole allocation: what is opened begins where that begins. */
static enum ts_status driver_share(struct ts_cuda *cuda, ts_cuda_address address, struct ts_cuda_share *out,
                                   struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    CUdeviceptr base = 0;
    size_t bytes = 0;
    CUipcMemHandle handle;
    _Static_assert(sizeof handle == sizeof *out, "a share is a handle of the driver");
    enum ts_status status = cuda_driver_enter(s, err);
    if (status == TS_OK)
        status = cuda_driver_check(s, "cuMemGetAddressRange", cuda_driver.range(&base, &bytes, address), err);
    if (status != TS_OK)
        return status;
    if (base != address)
        return ts_error_set(err, TS_EINVAL, "%s: only a whole allocation can be exported",
                            s->properties.name);
    status = cuda_driver_refusal(s, "cuIpcGetMemHandle", cuda_driver.ipc_get(&handle, address), err);
    if (status == TS_OK)
        memcpy(out->bytes, &handle, sizeof handle);
    return status;
}

static enum ts_status driver_import(struct ts_cuda *cuda, const struct ts_cuda_share *share,
                                    ts_cuda_address *out, struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    CUdeviceptr address = 0;
    CUipcMemHandle handle;
    memcpy(&handle, share->bytes, sizeof handle);
    enum ts_status status = cuda_driver_enter(s, err);
    if (status == TS_OK)
        status = cuda_driver_refusal(s, "cuIpcOpenMemHandle",
                                     cuda_driver.ipc_open(&address, handle, CUDA_IPC_LAZY_PEER_ACCESS), err);
    *out = address;
    return status;
}

static void driver_unimport(struct ts_cuda *cuda, ts_cuda_address address)
{
    (void)cuda_driver.set_current(device_of(cuda)->shared->context);
    (void)cuda_driver.ipc_close(address);
}

/* --- launches ------------------------------------------------------------------------------------------- */

static CUfunction function_of(const struct cuda_driver_shared *s, const char *name)
{
    uint32_t low = 0, high = s->kernel_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = strcmp(name, s->kernels[middle].name);
        if (order == 0)
            return s->kernels[middle].function;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Arguments go as bytes with their number, which the driver compares with what the kernel was compiled for.
 * A kernel's blocks may be brought in while the kernel before in the stream ends: every kernel of ours waits
 * for that one's end before it does anything (TS_KERNEL in kernel_ptx.cuh). */
static enum ts_status driver_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                                    struct ts_cuda_dim block, uint32_t shared_bytes, const void *args,
                                    size_t args_bytes, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    void *extra[] = {CUDA_PARAMS_POINTER, (void *)(uintptr_t)args, /* read, not written */
                     CUDA_PARAMS_BYTES, &args_bytes, CUDA_PARAMS_END};
    CUfunction function = function_of(d->shared, kernel);
    CUlaunchAttribute overlap = {.id = CUDA_LAUNCH_OVERLAP};
    overlap.value.programmaticStreamSerializationAllowed = 1;
    const CUlaunchConfig config = {.gridDimX = grid.x,
                                   .gridDimY = grid.y,
                                   .gridDimZ = grid.z,
                                   .blockDimX = block.x,
                                   .blockDimY = block.y,
                                   .blockDimZ = block.z,
                                   .sharedMemBytes = shared_bytes,
                                   .hStream = d->stream,
                                   .attrs = &overlap,
                                   .numAttrs = d->shared->overlap};
    TS_ASSERT(function);
    RUN(d->shared, kernel, launch(&config, function, NULL, extra));
}

/* --- events --------------------------------------------------------------------------------------------- */

static struct driver_event *event_of(struct ts_cuda_event *event)
{
    return (struct driver_event *)event;
}

static enum ts_status driver_event_new(struct ts_cuda *cuda, struct ts_cuda_event **out, struct ts_error *err)
{
    struct cuda_driver_shared *s = device_of(cuda)->shared;
    CUevent event = NULL;
    enum ts_status status = cuda_driver_enter(s, err);
    if (status == TS_OK)
        status = cuda_driver_check(s, "cuEventCreate", cuda_driver.event_create(&event, 0), err);
    if (status != TS_OK)
        return status;
    struct driver_event *e = ts_xcalloc(1, sizeof *e);
    *e = (struct driver_event){{&cuda_driver_ops}, s, event};
    *out = &e->base;
    return TS_OK;
}

static void driver_event_free(struct ts_cuda_event *event)
{
    (void)cuda_driver.set_current(event_of(event)->shared->context);
    (void)cuda_driver.event_destroy(event_of(event)->event);
    ts_free(event);
}

static unsigned external(const struct ts_cuda *cuda)
{
    return cuda->capturing ? CUDA_EXTERNAL : 0;
}

static enum ts_status driver_record(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuEventRecord", event_record(event_of(event)->event, d->stream, external(cuda)));
}

static enum ts_status driver_after(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuStreamWaitEvent", stream_wait(d->stream, event_of(event)->event, external(cuda)));
}

static enum ts_status driver_event_wait(struct ts_cuda_event *event, struct ts_error *err)
{
    RUN(event_of(event)->shared, "cuEventSynchronize", event_wait(event_of(event)->event));
}

static enum ts_status driver_event_done(struct ts_cuda_event *event, bool *done, struct ts_error *err)
{
    struct driver_event *e = event_of(event);
    enum ts_status status = cuda_driver_enter(e->shared, err);
    if (status != TS_OK)
        return status;
    CUresult result = cuda_driver.event_query(e->event);
    *done = result == 0;
    return result == CUDA_NOT_READY ? TS_OK : cuda_driver_check(e->shared, "cuEventQuery", result, err);
}

static enum ts_status driver_elapsed(struct ts_cuda_event *from, struct ts_cuda_event *to, uint64_t *ns,
                                     struct ts_error *err)
{
    struct cuda_driver_shared *s = event_of(from)->shared;
    float ms = 0;
    enum ts_status status = driver_event_wait(to, err);
    if (status == TS_OK)
        status = cuda_driver_check(s, "cuEventElapsedTime",
                                   cuda_driver.elapsed(&ms, event_of(from)->event, event_of(to)->event), err);
    *ns = ms > 0 ? (uint64_t)((double)ms * 1e6) : 0;
    return status;
}

/* --- graphs --------------------------------------------------------------------------------------------- */

static enum ts_status driver_capture_begin(struct ts_cuda *cuda, struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    enum ts_status status = cuda_driver_enter(d->shared, err);
    return status == TS_OK
               ? cuda_driver_refusal(d->shared, "cuStreamBeginCapture",
                                     cuda_driver.capture_begin(d->stream, CUDA_CAPTURE_THREAD_LOCAL), err)
               : status;
}

static enum ts_status driver_capture_end(struct ts_cuda *cuda, struct ts_cuda_graph **out,
                                         struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    struct cuda_driver_shared *s = d->shared;
    CUgraph recorded = NULL;
    CUgraphExec exec = NULL;
    enum ts_status status = cuda_driver_enter(s, err);
    if (status != TS_OK)
        return status;
    status = cuda_driver_refusal(s, "cuStreamEndCapture", cuda_driver.capture_end(d->stream, &recorded), err);
    if (status == TS_OK)
        status =
            cuda_driver_refusal(s, "cuGraphInstantiate", cuda_driver.graph_make(&exec, recorded, 0), err);
    if (recorded)
        (void)cuda_driver.graph_destroy(recorded);
    if (status != TS_OK)
        return status;
    struct driver_graph *g = ts_xcalloc(1, sizeof *g);
    *g = (struct driver_graph){{&cuda_driver_ops}, s, exec};
    *out = &g->base;
    return TS_OK;
}

static enum ts_status driver_graph_launch(struct ts_cuda *cuda, struct ts_cuda_graph *graph,
                                          struct ts_error *err)
{
    struct cuda_driver_device *d = device_of(cuda);
    RUN(d->shared, "cuGraphLaunch", graph_launch(((struct driver_graph *)graph)->exec, d->stream));
}

static void driver_graph_free(struct ts_cuda_graph *graph)
{
    struct driver_graph *g = (struct driver_graph *)graph;
    (void)cuda_driver.set_current(g->shared->context);
    (void)cuda_driver.graph_exec_destroy(g->exec);
    ts_free(g);
}

const struct ts_cuda_ops cuda_driver_ops = {
    .close = cuda_driver_close,
    .fork = driver_fork,
    .fault = driver_fault,
    .native_stream = driver_native_stream,
    .memory = driver_memory,
    .alloc = driver_alloc,
    .free = driver_free,
    .pin = driver_pin,
    .unpin = driver_unpin,
    .clear = driver_clear,
    .upload = driver_upload,
    .download = driver_download,
    .copy = driver_copy,
    .wait = driver_wait,
    .share = driver_share,
    .import = driver_import,
    .unimport = driver_unimport,
    .launch = driver_launch,
    .event_new = driver_event_new,
    .event_free = driver_event_free,
    .record = driver_record,
    .after = driver_after,
    .event_wait = driver_event_wait,
    .event_done = driver_event_done,
    .elapsed = driver_elapsed,
    .capture_begin = driver_capture_begin,
    .capture_end = driver_capture_end,
    .graph_launch = driver_graph_launch,
    .graph_free = driver_graph_free,
};
