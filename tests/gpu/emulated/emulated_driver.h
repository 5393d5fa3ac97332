/*
 * A libcuda.so.1 whose device is the CPU: kernels of gpu/cuda compiled for it, memory that other processes
 * map by the handles of CUDA IPC, streams that do at once what they are asked. A program that finds it
 * by LD_LIBRARY_PATH (build/emulated-driver) runs as with a GPU. It is as strict as a real one where that is
 * cheap: a thread without a context, addresses outside of all memory, what a capture does not allow, more
 * shared memory than was allowed, handles of the own process are refused with the driver's own results.
 *
 * Calls fail where a test in the same process says so (below); where another process is to meet faults, the
 * driver of ../faults stands before this one.
 *
 * From the environment:
 *     TS_EMULATED_MEMORY=MiB   of each device and process, 4096 if not given
 *     TS_EMULATED_LAZY=1       nothing is done before somebody waits for it: a program that does not wait
 * sees memory as it was TS_EMULATED_DEVICES=n    1 if not given; 0 = cuInit finds none
 *
 * Below is what a test in the same process asks of it, by dlsym.
 */
#ifndef TS_TESTS_GPU_EMULATED_DRIVER_H
#define TS_TESTS_GPU_EMULATED_DRIVER_H

#include <stdint.h>

enum emulated_kind {
    EMULATED_CONTEXT,
    EMULATED_MODULE,
    EMULATED_STREAM,
    EMULATED_EVENT,
    EMULATED_GRAPH,
    EMULATED_MEMORY,
    EMULATED_HOST,
    EMULATED_IMPORT,
    EMULATED_KINDS
};

struct emulated_driver {
    /* Forgets faults and counts of calls, and takes these (../faults/driver_faults.h). */
    void (*set_faults)(const char *faults);
    /* Of a function, since then. */
    uint32_t (*calls)(const char *function);
    /* Objects that were not given back. */
    uint32_t (*left)(enum emulated_kind kind);
};

/* Its presence also tells cuda_driver.c that figures mean nothing. */
extern const struct emulated_driver ts_cuda_is_emulated;

#endif
