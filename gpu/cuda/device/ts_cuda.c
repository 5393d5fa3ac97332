/* Devices of any kind. */
#include <string.h>

#include "gpu/cuda/device/cuda_ops.h"

/* --- devices -------------------------------------------------------------------------------------------- */

enum ts_status ts_cuda_fork(struct ts_cuda *cuda, bool priority_high, struct ts_cuda **out,
                            struct ts_error *err)
{
    *out = NULL;
    return cuda->ops->fork(cuda, priority_high, out, err);
}

void ts_cuda_close(struct ts_cuda **cuda)
{
    if (*cuda)
        (*cuda)->ops->close(*cuda);
    *cuda = NULL;
}

const char *ts_cuda_name(const struct ts_cuda *cuda)
{
    return cuda->properties->name;
}

const struct ts_cuda_properties *ts_cuda_properties(const struct ts_cuda *cuda)
{
    return cuda->properties;
}

const char *ts_cuda_fault(const struct ts_cuda *cuda)
{
    return cuda->ops->fault(cuda);
}

void *ts_cuda_native_stream(struct ts_cuda *cuda)
{
    return cuda->ops->native_stream(cuda);
}

/* --- memory --------------------------------------------------------------------------------------------- */

/* The driver refuses it as well, but ends the capture too. */
static enum ts_status not_captured(const struct ts_cuda *cuda, const char *what, struct ts_error *err)
{
    return cuda->capturing ? ts_error_set(err, TS_EINVAL, "%s: a graph is being captured, which cannot %s",
                                          cuda->properties->name, what)
                           : TS_OK;
}

enum ts_status ts_cuda_memory(struct ts_cuda *cuda, uint64_t *unused, uint64_t *total, struct ts_error *err)
{
    *unused = *total = 0;
    return cuda->ops->memory(cuda, unused, total, err);
}

enum ts_status ts_cuda_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err)
{
    *out = 0;
    enum ts_status status = not_captured(cuda, "allocate", err);
    return status == TS_OK ? cuda->ops->alloc(cuda, bytes, out, err) : status;
}

void ts_cuda_free(struct ts_cuda *cuda, ts_cuda_address *address)
{
    if (*address)
        cuda->ops->free(cuda, *address);
    *address = 0;
}

enum ts_status ts_cuda_pin(struct ts_cuda *cuda, size_t bytes, void **out, struct ts_error *err)
{
    *out = NULL;
    enum ts_status status = not_captured(cuda, "pin memory", err);
    return status == TS_OK ? cuda->ops->pin(cuda, bytes, out, err) : status;
}

void ts_cuda_unpin(struct ts_cuda *cuda, void **memory)
{
    if (*memory)
        cuda->ops->unpin(cuda, *memory);
    *memory = NULL;
}

enum ts_status ts_cuda_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err)
{
    return bytes ? cuda->ops->clear(cuda, at, bytes, err) : TS_OK;
}

enum ts_status ts_cuda_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                              struct ts_error *err)
{
    return bytes ? cuda->ops->upload(cuda, to, from, bytes, err) : TS_OK;
}

enum ts_status ts_cuda_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                struct ts_error *err)
{
    return bytes ? cuda->ops->download(cuda, to, from, bytes, err) : TS_OK;
}

enum ts_status ts_cuda_copy(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address from, size_t bytes,
                            struct ts_error *err)
{
    return bytes ? cuda->ops->copy(cuda, to, from, bytes, err) : TS_OK;
}

enum ts_status ts_cuda_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    enum ts_status status = not_captured(cuda, "wait", err);
    return status == TS_OK ? cuda->ops->wait(cuda, err) : status;
}

enum ts_status ts_cuda_export(struct ts_cuda *cuda, ts_cuda_address address, struct ts_cuda_share *out,
                              struct ts_error *err)
{
    *out = (struct ts_cuda_share){{0}};
    return cuda->ops->share(cuda, address, out, err);
}

enum ts_status ts_cuda_import(struct ts_cuda *cuda, const struct ts_cuda_share *share, ts_cuda_address *out,
                              struct ts_error *err)
{
    *out = 0;
    enum ts_status status = not_captured(cuda, "map memory", err);
    return status == TS_OK ? cuda->ops->import(cuda, share, out, err) : status;
}

void ts_cuda_unimport(struct ts_cuda *cuda, ts_cuda_address *address)
{
    if (*address)
        cuda->ops->unimport(cuda, *address);
    *address = 0;
}

/* --- launches ------------------------------------------------------------------------------------------- */

enum ts_status ts_cuda_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                              struct ts_cuda_dim block, uint32_t shared_bytes, const void *args,
                              size_t args_bytes, struct ts_error *err)
{
    return cuda->ops->launch(cuda, kernel, grid, block, shared_bytes, args, args_bytes, err);
}

/* --- events --------------------------------------------------------------------------------------------- */

enum ts_status ts_cuda_event_new(struct ts_cuda *cuda, struct ts_cuda_event **out, struct ts_error *err)
{
    *out = NULL;
    return cuda->ops->event_new(cuda, out, err);
}

void ts_cuda_event_free(struct ts_cuda_event **event)
{
    if (*event)
        (*event)->ops->event_free(*event);
    *event = NULL;
}

enum ts_status ts_cuda_record(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    return cuda->ops->record(cuda, event, err);
}

enum ts_status ts_cuda_after(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err)
{
    return cuda->ops->after(cuda, event, err);
}

enum ts_status ts_cuda_event_wait(struct ts_cuda_event *event, struct ts_error *err)
{
    return event->ops->event_wait(event, err);
}

enum ts_status ts_cuda_event_done(struct ts_cuda_event *event, bool *done, struct ts_error *err)
{
    *done = false;
    return event->ops->event_done(event, done, err);
}

enum ts_status ts_cuda_elapsed(struct ts_cuda_event *from, struct ts_cuda_event *to, uint64_t *ns,
                               struct ts_error *err)
{
    *ns = 0;
    return from->ops->elapsed(from, to, ns, err);
}

/* --- graphs --------------------------------------------------------------------------------------------- */

enum ts_status ts_cuda_capture_begin(struct ts_cuda *cuda, struct ts_error *err)
{
    enum ts_status status = not_captured(cuda, "hold another", err);
    if (status == TS_OK)
        status = cuda->ops->capture_begin(cuda, err);
    if (status == TS_OK)
        cuda->capturing = true;
    return status;
}

enum ts_status ts_cuda_capture_end(struct ts_cuda *cuda, struct ts_cuda_graph **out, struct ts_error *err)
{
    *out = NULL;
    if (!cuda->capturing)
        return ts_error_set(err, TS_EINVAL, "%s: no graph is being captured", cuda->properties->name);
    cuda->capturing = false;
    return cuda->ops->capture_end(cuda, out, err);
}

enum ts_status ts_cuda_graph_launch(struct ts_cuda *cuda, struct ts_cuda_graph *graph, struct ts_error *err)
{
    enum ts_status status = not_captured(cuda, "hold another", err);
    return status == TS_OK ? cuda->ops->graph_launch(cuda, graph, err) : status;
}

void ts_cuda_graph_free(struct ts_cuda_graph **graph)
{
    if (*graph)
        (*graph)->ops->graph_free(*graph);
    *graph = NULL;
}
