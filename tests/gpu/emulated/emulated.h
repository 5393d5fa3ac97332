/* Between the parts of the emulated driver (emulated_driver.h). Any thread may call; what they share is
 * locked. */
#ifndef TS_TESTS_GPU_EMULATED_H
#define TS_TESTS_GPU_EMULATED_H

#include <stdatomic.h>
#include <stdbool.h>

#include "gpu/cuda/device/cuda_driver.h"
#include "gpu/cuda/host/kernel_record.h"
#include "tests/gpu/emulated/emulated_driver.h"

#define EMULATED_SHARED_BYTES (227 << 10)
#define EMULATED_DEVICES_MAX  8

/* The driver's functions, declared as cuda_driver.c calls them. */
#define DECLARE(function, member) __typeof__(*((struct cuda_driver *)0)->member) function;
CUDA_DRIVER_FUNCTIONS(DECLARE)
#undef DECLARE

/* What a call needs. */
enum {
    EMULATED_NOTHING,
    EMULATED_CURRENT = 1 /* a context */,
    EMULATED_UNCAPTURED = 2 /* its thread captures nothing */
};

/* The result that the call must return now, 0 = it may go on. Counts it. */
CUresult emulated_enter(const char *function, int needs);

#define ENTER(needs)                                                                                         \
    do {                                                                                                     \
        CUresult told = emulated_enter(__func__, (needs));                                                   \
        if (told != 0)                                                                                       \
            return told;                                                                                     \
    } while (0)

/* Objects of a kind: one more or, with -1, less. */
void emulated_count(enum emulated_kind kind, int change);

uint64_t emulated_number(const char *variable, uint64_t otherwise);

/* Of the calling thread: the device whose context is current, -1 = none; and the stream that it captures. */
extern _Thread_local int emulated_device;
extern _Thread_local CUstream emulated_capture;

struct CUfunc_st {
    const struct kernel_host_entry *entry;
    int dynamic_bytes;
    struct CUfunc_st *next; /* of its module */
};

/* A place in the row of a stream's commands: behind so many. Stream 0: none, which is always reached. */
struct emulated_point {
    uint64_t stream, number;
};

struct CUstream_st {
    bool invalid; /* its capture is */
    struct kernel_record record;
    /* emulated_queue.c: what was asked and has not run yet, from `head` on. */
    uint64_t id, asked, ran;
    struct emulated_step *steps;
    size_t head, count, capacity;
    CUstream next;
};

void emulated_add_stream(CUstream s);
void emulated_remove_stream(CUstream s); /* runs all of it */
struct emulated_point emulated_later(CUstream s, const struct kernel_command *c);
void emulated_after(CUstream s, struct emulated_point point);
void emulated_finish(struct emulated_point point); /* the host waits */
bool emulated_ask(struct emulated_point point);    /* whether it is reached; a command more runs if not */
void emulated_finish_all(void);

/* Whether all of it lies in one piece of memory of the device, or of pinned memory. */
bool emulated_inside(CUdeviceptr address, size_t bytes);
uint64_t emulated_memory_bytes(void);

/* Puts it into the stream's row, or keeps it for the graph. */
CUresult emulated_submit(CUstream stream, const struct kernel_command *c);

#endif
