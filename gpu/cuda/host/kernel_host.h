/*
 * Kernels on the CPU: the threads of a block as fibers of one operating-system thread, for tests. A fiber
 * runs until it comes to a barrier or to a function of its warp (shuffle, ballot) and goes on when all whom
 * that concerns have come; so no thread is ahead of another by more than the kernel allows, and by no less
 * than that either. Between two such points the threads run one after the other, in an order that the test
 * chooses: ascending, descending, or drawn anew for each pass; blocks likewise. A kernel that lacks a barrier
 * gives other results in one of them.
 *
 * It is strict where devices are lenient: a barrier that a thread of the block does not come to, a warp
 * function whose mask names a lane that does not come to it, or to another one, or whose source is not in the
 * mask, or an address that is not aligned as the device wants it, ends the program with a line that says so.
 * Asynchronous copies are made when the thread waits for them, not before. Shared memory holds 0xa5 at the
 * start of each block and has its own heap allocation, so that the address sanitizer sees its ends.
 *
 * It cannot show: what two blocks do at once (they run one after the other, so a missing memory fence is not
 * seen), the timing of anything, and what the compiler of the device makes of the source. One launch at a
 * time in a process.
 */
#ifndef TS_GPU_CUDA_HOST_KERNEL_HOST_H
#define TS_GPU_CUDA_HOST_KERNEL_HOST_H

#include <stdint.h>

#include "gpu/cuda/device/ts_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KERNEL_HOST_THREADS_MAX 1024u

/* Where the running thread is; kernel_host.cuh makes threadIdx and so on of it. */
struct kernel_host_thread {
    struct ts_cuda_dim thread, block, block_dim, grid_dim;
};
extern const struct kernel_host_thread *kernel_host_self;

enum { KERNEL_HOST_ASCENDING, KERNEL_HOST_DESCENDING }; /* any other number is the seed of drawn orders */
void kernel_host_set_order(uint64_t order);

/* `kernel` as TS_KERNEL defines it. Dimensions in y and z are 1. */
void kernel_host_launch(void (*kernel)(const void *args), const void *args, struct ts_cuda_dim grid,
                        struct ts_cuda_dim block);

/* Dynamic shared memory of the launches that follow: a kernel that wants more in TS_SHARED_LARGE is refused.
 * At first there is no bound. */
void kernel_host_set_dynamic(uint64_t bytes);

struct kernel_host_entry {
    const char *name;
    void (*kernel)(const void *args);
};

/* Of a list, which ends with an entry without a name, or, with NULL, of all of gpu/cuda (kernel_all.c, to
 * which every *_host.cc adds its own); NULL if there is none by that name. */
const struct kernel_host_entry *kernel_host_find(const struct kernel_host_entry *kernels, const char *name);

/* A device that runs these kernels, or all; `kernels` is kept. */
struct ts_cuda *kernel_host_open(const struct kernel_host_entry *kernels);

extern const struct kernel_host_entry codec_host_kernels[]; /* of codec.cu */
extern const struct kernel_host_entry lossless_host_kernels[];
extern const struct kernel_host_entry weights_host_kernels[];
extern const struct kernel_host_entry rows_host_kernels[];
extern const struct kernel_host_entry sample_host_kernels[];
extern const struct kernel_host_entry skinny_host_kernels[], gemv_host_kernels[], widen_host_kernels[];
extern const struct kernel_host_entry tile_host_kernels[];
extern const struct kernel_host_entry prefill_host_kernels[], decode_host_kernels[];

/* For kernel_host.cuh, called by a running thread. */
uint64_t kernel_host_exchange(uint32_t mask, uint64_t value, uint32_t source_lane);
uint32_t kernel_host_ballot(uint32_t mask, int predicate);
uint32_t kernel_host_barrier(int predicate); /* how many threads of the block came with a true one */
void *kernel_host_shared(uint64_t bytes);    /* of this block, the same for all its threads */
void *kernel_host_dynamic(uint64_t bytes);   /* the same, of what the launch gave */
/* All lanes of the thread's warp come with the same function; the last to come runs it over what they
 * brought.
 */
void kernel_host_warp(void (*function)(void *const *lanes), void *mine);
/* 16 bytes, or zeros when `from` is NULL. They are copied when the thread waits for their group, not before,
 * and never if it does not wait. */
void kernel_host_copy(void *to, const void *from);
void kernel_host_copy_commit(void);
void kernel_host_copy_wait(uint32_t left);
const void *kernel_host_aligned(const void *at, uint64_t bytes); /* the address, which must be */

#ifdef __cplusplus
}
#endif

#endif
