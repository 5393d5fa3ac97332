/*
 * A device made of the CPU: memory of the heap, commands that are over when the call returns. Its memory is
 * small and its multiprocessors few, so that tests see what happens when either does not suffice.
 */
#include <malloc.h>
#include <pthread.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/device/cuda_ops.h"
#include "gpu/cuda/host/kernel_host.h"
#include "gpu/cuda/host/kernel_record.h"

#define MEMORY_BYTES ((uint64_t)1 << 30)
#define UNWRITTEN    0xff /* what memory holds at first: not a number, in all types */

/* Of a device and its forks. */
struct host_shared {
    const struct kernel_host_entry *kernels; /* NULL = all */
    pthread_mutex_t lock;
    uint64_t taken;
};

struct host_device {
    struct ts_cuda base;
    struct host_shared *shared;
    bool forked;
    struct kernel_record record; /* while a graph is captured */
};

struct host_event {
    struct ts_cuda_event base;
    ts_time at;
};

struct host_graph {
    struct ts_cuda_graph base;
    struct kernel_record record;
};

static const struct ts_cuda_ops host_ops;
static const struct ts_cuda_properties host_properties = {.name = "kernels on the CPU",
                                                          .uuid = "00000000-0000-0000-0000-000000000000",
                                                          .capability = 90,
                                                          .multiprocessors = 2,
                                                          .l2_bytes = 1 << 20,
                                                          .shared_bytes_max = 227 << 10,
                                                          .driver_version = 13000,
                                                          .memory_bytes = MEMORY_BYTES,
                                                          .emulated = true};

static struct host_device *device_of(struct ts_cuda *cuda)
{
    return (struct host_device *)cuda;
}

static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

static enum ts_status command(struct ts_cuda *cuda, const struct kernel_command *c)
{
    if (cuda->capturing)
        kernel_record_add(&device_of(cuda)->record, c);
    else
        kernel_command_run(c);
    return TS_OK;
}

/* --- devices -------------------------------------------------------------------------------------------- */

static struct ts_cuda *new_device(struct host_shared *shared, bool forked)
{
    struct host_device *d = ts_xcalloc(1, sizeof *d);
    d->base = (struct ts_cuda){.ops = &host_ops, .properties = &host_properties};
    d->shared = shared;
    d->forked = forked;
    return &d->base;
}

struct ts_cuda *kernel_host_open(const struct kernel_host_entry *kernels)
{
    struct host_shared *shared = ts_xcalloc(1, sizeof *shared);
    shared->kernels = kernels;
    pthread_mutex_init(&shared->lock, NULL);
    return new_device(shared, false);
}

static enum ts_status host_fork(struct ts_cuda *cuda, bool priority_high, struct ts_cuda **out,
                                struct ts_error *err)
{
    (void)priority_high, (void)err;
    *out = new_device(device_of(cuda)->shared, true);
    return TS_OK;
}

static void host_close(struct ts_cuda *cuda)
{
    struct host_device *d = device_of(cuda);
    kernel_record_fini(&d->record);
    if (!d->forked) {
        pthread_mutex_destroy(&d->shared->lock);
        ts_free(d->shared);
    }
    ts_free(d);
}

static const char *host_fault(const struct ts_cuda *cuda)
{
    (void)cuda;
    return NULL;
}

static void *host_native_stream(struct ts_cuda *cuda)
{
    (void)cuda;
    return NULL;
}

/* --- memory --------------------------------------------------------------------------------------------- */

static enum ts_status host_memory(struct ts_cuda *cuda, uint64_t *unused, uint64_t *total,
                                  struct ts_error *err)
{
    struct host_shared *s = device_of(cuda)->shared;
    (void)err;
    pthread_mutex_lock(&s->lock);
    *unused = MEMORY_BYTES > s->taken ? MEMORY_BYTES - s->taken : 0;
    pthread_mutex_unlock(&s->lock);
    *total = MEMORY_BYTES;
    return TS_OK;
}

static enum ts_status host_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out,
                                 struct ts_error *err)
{
    struct host_shared *s = device_of(cuda)->shared;
    enum ts_status status = TS_ENOMEM;
    pthread_mutex_lock(&s->lock);
    if (s->taken < MEMORY_BYTES && bytes <= MEMORY_BYTES - s->taken) {
        void *memory = ts_xaligned(256, bytes ? bytes : 1);
        memset(memory, UNWRITTEN, bytes);
        s->taken += malloc_usable_size(memory);
        *out = (ts_cuda_address)(uintptr_t)memory;
        status = TS_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return status == TS_OK
               ? TS_OK
               : ts_error_set(err, status, "%s: no room for %zu bytes", host_properties.name, bytes);
}

static void host_free(struct ts_cuda *cuda, ts_cuda_address address)
{
    struct host_shared *s = device_of(cuda)->shared;
    pthread_mutex_lock(&s->lock);
    s->taken -= malloc_usable_size(at(address));
    pthread_mutex_unlock(&s->lock);
    ts_free(at(address));
}

static enum ts_status host_pin(struct ts_cuda *cuda, size_t bytes, void **out, struct ts_error *err)
{
    (void)cuda, (void)err;
    *out = ts_xaligned(4096, bytes ? bytes : 1);
    return TS_OK;
}

static void host_unpin(struct ts_cuda *cuda, void *memory)
{
    (void)cuda;
    ts_free(memory);
}

static enum ts_status host_clear(struct ts_cuda *cuda, ts_cuda_address to, size_t bytes, struct ts_error *err)
{
    (void)err;
    return command(cuda, &(struct kernel_command){.kind = KERNEL_FILL, .to = at(to), .bytes = bytes});
}

static enum ts_status move(struct ts_cuda *cuda, void *to, const void *from, size_t bytes)
{
    return command(cuda,
                   &(struct kernel_command){.kind = KERNEL_MOVE, .to = to, .from = from, .bytes = bytes});
}

static enum ts_status host_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                                  struct ts_error *err)
{
    (void)err;
    return move(cuda, at(to), from, bytes);
}

static enum ts_status host_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                    struct ts_error *err)
{
    (void)err;
    return move(cuda, to, at(from), bytes);
}

static enum ts_status host_copy(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address from, size_t bytes,
                                struct ts_error *err)
{
    (void)err;
    return move(cuda, at(to), at(from), bytes);
}

static enum ts_status host_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    (void)cuda, (void)err;
    return TS_OK;
}

static enum ts_status host_share(struct ts_cuda *cuda, ts_cuda_address address, struct ts_cuda_share *out,
                                 struct ts_error *err)
{
    (void)address, (void)out;
    return ts_error_set(err, TS_EUNSUPPORTED, "%s: no other process maps its memory", ts_cuda_name(cuda));
}

static enum ts_status host_import(struct ts_cuda *cuda, const struct ts_cuda_share *share,
                                  ts_cuda_address *out, struct ts_error *err)
{
    (void)share, (void)out;
    return ts_error_set(err, TS_EUNSUPPORTED, "%s: it maps no memory of other processes", ts_cuda_name(cuda));
}

static void host_unimport(struct ts_cuda *cuda, ts_cuda_address address)
{
    (void)cuda;
    TS_ASSERT(address == 0); /* nothing was imported */
}

/* --- launches ------------------------------------------------------------------------------------------- */

static enum ts_status host_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                                  struct ts_cuda_dim block, uint32_t shared_bytes, const void *args,
                                  size_t args_bytes, struct ts_error *err)
{
    const struct kernel_host_entry *k = kernel_host_find(device_of(cuda)->shared->kernels, kernel);
    (void)err;
    TS_ASSERT(k && shared_bytes <= host_properties.shared_bytes_max);
    return command(cuda, &(struct kernel_command){.kind = KERNEL_LAUNCH,
                                                  .kernel = k->kernel,
                                                  .grid = grid,
                                                  .block = block,
                                                  .shared_bytes = shared_bytes,
                                                  .args = (void *)(uintptr_t)args, /* read, not written */
                                                  .bytes = args_bytes});
}

/* --- events --------------------------------------------------------------------------------------------- */

static enum ts_status host_event_new(struct ts_cuda *cuda, struct ts_cuda_event **out, struct ts_error *err)
{
    struct host_event *e = ts_xcalloc(1, sizeof *e);
    (void)cuda, (void)err;
    e->base.ops = &host_ops;
    *out = &e->base;
    return TS_OK;
}

static void host_event_free(struct ts_cuda_event *event)
{
    ts_free(event);
}

static enum ts_status host_record(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    (void)err;
    return command(cuda,
                   &(struct kernel_command){.kind = KERNEL_MARK, .to = &((struct host_event *)event)->at});
}

static enum ts_status host_after(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    (void)cuda, (void)event, (void)err;
    return TS_OK;
}

static enum ts_status host_event_wait(struct ts_cuda_event *event, struct ts_error *err)
{
    (void)event, (void)err;
    return TS_OK;
}

static enum ts_status host_event_done(struct ts_cuda_event *event, bool *done, struct ts_error *err)
{
    (void)event, (void)err;
    *done = true;
    return TS_OK;
}

static enum ts_status host_elapsed(struct ts_cuda_event *from, struct ts_cuda_event *to, uint64_t *ns,
                                   struct ts_error *err)
{
    ts_time begin = ((struct host_event *)from)->at, end = ((struct host_event *)to)->at;
    (void)err;
    *ns = end > begin ? (uint64_t)(end - begin) : 0;
    return TS_OK;
}

/* --- graphs --------------------------------------------------------------------------------------------- */

static enum ts_status host_capture_begin(struct ts_cuda *cuda, struct ts_error *err)
{
    (void)cuda, (void)err;
    return TS_OK;
}

static enum ts_status host_capture_end(struct ts_cuda *cuda, struct ts_cuda_graph **out, struct ts_error *err)
{
    struct host_device *d = device_of(cuda);
    struct host_graph *g = ts_xcalloc(1, sizeof *g);
    (void)err;
    *g = (struct host_graph){{&host_ops}, d->record};
    d->record = (struct kernel_record){0};
    *out = &g->base;
    return TS_OK;
}

static enum ts_status host_graph_launch(struct ts_cuda *cuda, struct ts_cuda_graph *graph,
                                        struct ts_error *err)
{
    (void)cuda, (void)err;
    kernel_record_run(&((struct host_graph *)graph)->record);
    return TS_OK;
}

static void host_graph_free(struct ts_cuda_graph *graph)
{
    kernel_record_fini(&((struct host_graph *)graph)->record);
    ts_free(graph);
}

static const struct ts_cuda_ops host_ops = {
    .close = host_close,
    .fork = host_fork,
    .fault = host_fault,
    .native_stream = host_native_stream,
    .memory = host_memory,
    .alloc = host_alloc,
    .free = host_free,
    .pin = host_pin,
    .unpin = host_unpin,
    .clear = host_clear,
    .upload = host_upload,
    .download = host_download,
    .copy = host_copy,
    .wait = host_wait,
    .share = host_share,
    .import = host_import,
    .unimport = host_unimport,
    .launch = host_launch,
    .event_new = host_event_new,
    .event_free = host_event_free,
    .record = host_record,
    .after = host_after,
    .event_wait = host_event_wait,
    .event_done = host_event_done,
    .elapsed = host_elapsed,
    .capture_begin = host_capture_begin,
    .capture_end = host_capture_end,
    .graph_launch = host_graph_launch,
    .graph_free = host_graph_free,
};
