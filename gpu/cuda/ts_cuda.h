/*
 * A device on which our kernels run: memory, copies and launches, all in one stream of commands. What is
 * asked for is done in the order in which it was asked for, later; ts_cuda_wait waits until it is done, and
 * only then may memory of the host that a copy reads or writes be touched. A fault of a kernel or of the
 * device shows at the next call, and is sticky: every later call fails, and the process must give up the
 * device.
 *
 * The driver, libcuda.so.1, is loaded when the first device is opened and never linked, so that the same
 * binary runs where there is none: ts_cuda_open then fails with TS_EUNSUPPORTED and says why. Kernels are in
 * the binary if it was built with the toolkit (TS_CUDA). kernel_host_open (kernel_host.h) makes a device of
 * the CPU, for tests.
 *
 * An object may be used by one thread at a time; any thread.
 */
#ifndef TS_GPU_CUDA_TS_CUDA_H
#define TS_GPU_CUDA_TS_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ts_cuda;

typedef uint64_t ts_cuda_address; /* in the device's memory, aligned to 256 bytes; 0 = none */

struct ts_cuda_dim {
    uint32_t x, y, z;
};

/* The `ordinal`th device that the driver shows. */
enum ts_status ts_cuda_open(uint32_t ordinal, struct ts_cuda **out, struct ts_error *err);
void ts_cuda_close(struct ts_cuda **cuda); /* waits; its memory must have been given back */
const char *ts_cuda_name(const struct ts_cuda *cuda);

/* TS_ENOMEM is ordinary. Memory is not initialised. */
enum ts_status ts_cuda_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err);
void ts_cuda_free(struct ts_cuda *cuda, ts_cuda_address *address);

enum ts_status ts_cuda_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err);
enum ts_status ts_cuda_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                              struct ts_error *err);
enum ts_status ts_cuda_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                struct ts_error *err);
enum ts_status ts_cuda_wait(struct ts_cuda *cuda, struct ts_error *err);

/* A kernel by its name, with its one struct of arguments, which is copied. An unknown name is a fault of the
 * programmer where the kernels were built in. */
enum ts_status ts_cuda_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                              struct ts_cuda_dim block, const void *args, size_t args_bytes,
                              struct ts_error *err);

/* --- for those who make devices --- */

struct ts_cuda_ops {
    void (*close)(struct ts_cuda *cuda);
    enum ts_status (*alloc)(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err);
    void (*free)(struct ts_cuda *cuda, ts_cuda_address address);
    enum ts_status (*clear)(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err);
    enum ts_status (*upload)(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                             struct ts_error *err);
    enum ts_status (*download)(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                               struct ts_error *err);
    enum ts_status (*wait)(struct ts_cuda *cuda, struct ts_error *err);
    enum ts_status (*launch)(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                             struct ts_cuda_dim block, const void *args, size_t args_bytes,
                             struct ts_error *err);
};

/* The first member of a device of any kind. */
struct ts_cuda {
    const struct ts_cuda_ops *ops;
    char name[128];
};

#ifdef __cplusplus
}
#endif

#endif
