/*
 * Commands of a device that the CPU is: done at once, or kept for a graph and done when it is launched. For
 * kernel_device.c and for the driver of the tests. Launches of all threads of a process run one after the
 * other (kernel_host.h runs one at a time).
 */
#ifndef TS_GPU_CUDA_HOST_KERNEL_RECORD_H
#define TS_GPU_CUDA_HOST_KERNEL_RECORD_H

#include <stddef.h>

#include "common/base/ts_clock.h"
#include "gpu/cuda/device/ts_cuda.h"

struct kernel_command {
    enum { KERNEL_LAUNCH, KERNEL_FILL, KERNEL_MOVE, KERNEL_MARK } kind;
    void (*kernel)(const void *args);
    struct ts_cuda_dim grid, block;
    uint32_t shared_bytes;
    void *args; /* of a launch */
    void *to;   /* a mark writes the time there: ts_time */
    const void *from;
    size_t bytes; /* of the arguments, too */
    int byte;
};

struct kernel_record {
    struct kernel_command *commands; /* their arguments are copies */
    size_t count, capacity;
};

void kernel_command_run(const struct kernel_command *c);
void kernel_record_add(struct kernel_record *r, const struct kernel_command *c);
void kernel_record_run(const struct kernel_record *r);
void kernel_record_fini(struct kernel_record *r);

#endif
