/*
 * A device on which our kernels run: memory, copies and launches, in one stream of commands. What is asked
 * for is done in the order in which it was asked for, later; ts_cuda_wait waits until it is done, and only
 * then may memory of the host that a copy reads or writes be touched. ts_cuda_fork gives a second stream of
 * the same device, events order one behind the other, a graph is a sequence of commands that is recorded
 * once.
 *
 * TS_ENOMEM is ordinary. TS_EUNSUPPORTED too, where it is named below. Any other error of the device is
 * sticky: it shows at the next call, every later call of the device and its forks fails with TS_EIO and the
 * same words (ts_cuda_fault), and the process must give up the device.
 *
 * The driver, libcuda.so.1, is loaded when the first device is opened and never linked, so that the same
 * binary runs where there is none: ts_cuda_open then fails with TS_EUNSUPPORTED and says why. Kernels are in
 * the binary if it was built with the toolkit (TS_CUDA). kernel_host_open (kernel_host.h) makes a device of
 * the CPU, for tests.
 *
 * A device, and what belongs to it, may be used by one thread at a time; any thread. Forks are devices of
 * their own in that: each may have its thread.
 */
#ifndef TS_GPU_CUDA_DEVICE_TS_CUDA_H
#define TS_GPU_CUDA_DEVICE_TS_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ts_cuda;
struct ts_cuda_event;
struct ts_cuda_graph;

typedef uint64_t ts_cuda_address; /* in the device's memory, aligned to 256 bytes; 0 = none */

struct ts_cuda_dim {
    uint32_t x, y, z;
};

struct ts_cuda_properties {
    char name[128];
    char uuid[40];       /* as GPU-... without the prefix: 8-4-4-4-12 digits */
    uint32_t ordinal;    /* among those that the driver shows */
    uint32_t capability; /* 90 = sm_90 */
    uint32_t multiprocessors;
    uint32_t l2_bytes;
    uint32_t shared_bytes_max; /* of a block, static and dynamic together */
    uint32_t driver_version;   /* 13000 = CUDA 13.0 */
    uint64_t memory_bytes;
    bool emulated; /* the CPU does it: no cuBLASLt, and no figure of it means anything */
};

/* --- devices -------------------------------------------------------------------------------------------- */

/* How many the driver shows. TS_EUNSUPPORTED, with the reason, where there is no driver or no kernel. */
enum ts_status ts_cuda_count(uint32_t *count, struct ts_error *err);

/* The `ordinal`th of them; TS_ENOTFOUND if there are fewer. */
enum ts_status ts_cuda_open(uint32_t ordinal, struct ts_cuda **out, struct ts_error *err);

/* Another stream of the same device, with the same memory and kernels. It is closed before `cuda` is. A high
 * priority lets its blocks of threads go before those that wait in streams of normal priority. */
enum ts_status ts_cuda_fork(struct ts_cuda *cuda, bool priority_high, struct ts_cuda **out,
                            struct ts_error *err);

/* Waits. Its memory, events and graphs must have been given back. */
void ts_cuda_close(struct ts_cuda **cuda);

const char *ts_cuda_name(const struct ts_cuda *cuda);
#if !defined(__cplusplus) /* kernels do not ask, and their compiler warns of the name */
const struct ts_cuda_properties *ts_cuda_properties(const struct ts_cuda *cuda);
#endif

/* What made the device unusable, or NULL. */
const char *ts_cuda_fault(const struct ts_cuda *cuda);

/* The stream as CUDA's own libraries name it (CUstream = cudaStream_t), and makes the device the calling
 * thread's current one, which they expect. NULL: the CPU does it. */
void *ts_cuda_native_stream(struct ts_cuda *cuda);

/* --- memory --------------------------------------------------------------------------------------------- */

/* Bytes of the device that nobody has taken, and all. */
enum ts_status ts_cuda_memory(struct ts_cuda *cuda, uint64_t *unused, uint64_t *total, struct ts_error *err);

/* TS_ENOMEM is ordinary. Memory is not initialised. Forks may free what others allocated. */
enum ts_status ts_cuda_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err);
void ts_cuda_free(struct ts_cuda *cuda, ts_cuda_address *address);

/* Memory of the host that copies need not stage: only with it do they run beside what the host does. Kernels
 * may be given its address too. */
enum ts_status ts_cuda_pin(struct ts_cuda *cuda, size_t bytes, void **out, struct ts_error *err);
void ts_cuda_unpin(struct ts_cuda *cuda, void **memory);

enum ts_status ts_cuda_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err);
enum ts_status ts_cuda_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                              struct ts_error *err);
enum ts_status ts_cuda_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                struct ts_error *err);
enum ts_status ts_cuda_copy(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address from, size_t bytes,
                            struct ts_error *err);
enum ts_status ts_cuda_wait(struct ts_cuda *cuda, struct ts_error *err);

/* Memory that another process maps. What is exported is a whole allocation, named by the address that
 * ts_cuda_alloc gave; it must stay until all have unimported it. The 64 bytes travel by any way. A process
 * cannot import its own. TS_EUNSUPPORTED, with the reason: the system does not let memory be shared (some
 * containers), or the exporter has gone; the device goes on. */
struct ts_cuda_share {
    uint8_t bytes[64];
};
enum ts_status ts_cuda_export(struct ts_cuda *cuda, ts_cuda_address address, struct ts_cuda_share *out,
                              struct ts_error *err);
enum ts_status ts_cuda_import(struct ts_cuda *cuda, const struct ts_cuda_share *share, ts_cuda_address *out,
                              struct ts_error *err);
void ts_cuda_unimport(struct ts_cuda *cuda, ts_cuda_address *address);

/* --- launches ------------------------------------------------------------------------------------------- */

/* A kernel by its name, with its one struct of arguments, which is copied. An unknown name is a fault of the
 * programmer where the kernels were built in. `shared_bytes`: of TS_SHARED_LARGE (kernel.cuh), up to
 * shared_bytes_max less what is static; 0 for kernels without. */
enum ts_status ts_cuda_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                              struct ts_cuda_dim block, uint32_t shared_bytes, const void *args,
                              size_t args_bytes, struct ts_error *err);

/* --- events: points of a stream --------------------------------------------------------------------------
 */

/* Freed before the device is closed. `cuda` is any stream of the device. */
enum ts_status ts_cuda_event_new(struct ts_cuda *cuda, struct ts_cuda_event **out, struct ts_error *err);
void ts_cuda_event_free(struct ts_cuda_event **event);

/* What was asked of `cuda` until now; an earlier record is forgotten. While a graph is captured, at each of
 * its launches. */
enum ts_status ts_cuda_record(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err);

/* Commands of `cuda` that follow wait for it; the host does not. */
enum ts_status ts_cuda_after(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err);

/* The host waits, or asks. Any thread may, also beside one that uses the device; an event that was never
 * recorded is done. */
enum ts_status ts_cuda_event_wait(struct ts_cuda_event *event, struct ts_error *err);
enum ts_status ts_cuda_event_done(struct ts_cuda_event *event, bool *done, struct ts_error *err);

/* Time between two that were recorded; waits for `to`. Half a microsecond fine at best. */
enum ts_status ts_cuda_elapsed(struct ts_cuda_event *from, struct ts_cuda_event *to, uint64_t *ns,
                               struct ts_error *err);

/* --- graphs --------------------------------------------------------------------------------------------- */

/* Between the two, commands of `cuda` are not done but recorded, with their addresses, sizes and arguments
 * (what copies read is read when the graph runs). Nothing may wait, allocate, pin or free there, on any
 * device of the same thread. A capture that was begun is ended by the same thread, whatever happened in
 * between; what failed there fails again at the end, with TS_EUNSUPPORTED, and the device goes on. */
enum ts_status ts_cuda_capture_begin(struct ts_cuda *cuda, struct ts_error *err);
enum ts_status ts_cuda_capture_end(struct ts_cuda *cuda, struct ts_cuda_graph **out, struct ts_error *err);

/* All of it as one command, in any stream of the device; not in two at once. Freed when its launches are over
 * and before the device is closed. */
enum ts_status ts_cuda_graph_launch(struct ts_cuda *cuda, struct ts_cuda_graph *graph, struct ts_error *err);
void ts_cuda_graph_free(struct ts_cuda_graph **graph);

#ifdef __cplusplus
}
#endif

#endif
