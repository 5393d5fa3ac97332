/*
 * What a kind of device does for the functions of ts_cuda.h, which say what each means: one for the driver
 * (cuda_driver.h), one for the CPU (kernel_host.h). ts_cuda.c passes through to it, and refuses what is not
 * allowed while a graph is captured.
 */
#ifndef TS_GPU_CUDA_DEVICE_CUDA_OPS_H
#define TS_GPU_CUDA_DEVICE_CUDA_OPS_H

#include "gpu/cuda/device/ts_cuda.h"

struct ts_cuda_ops {
    void (*close)(struct ts_cuda *cuda);
    enum ts_status (*fork)(struct ts_cuda *cuda, bool priority_high, struct ts_cuda **out,
                           struct ts_error *err);
    const char *(*fault)(const struct ts_cuda *cuda);
    void *(*native_stream)(struct ts_cuda *cuda);

    enum ts_status (*memory)(struct ts_cuda *cuda, uint64_t *unused, uint64_t *total, struct ts_error *err);
    enum ts_status (*alloc)(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err);
    void (*free)(struct ts_cuda *cuda, ts_cuda_address address);
    enum ts_status (*pin)(struct ts_cuda *cuda, size_t bytes, void **out, struct ts_error *err);
    void (*unpin)(struct ts_cuda *cuda, void *memory);

    enum ts_status (*clear)(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err);
    enum ts_status (*upload)(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                             struct ts_error *err);
    enum ts_status (*download)(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                               struct ts_error *err);
    enum ts_status (*copy)(struct ts_cuda *cuda, ts_cuda_address to, ts_cuda_address from, size_t bytes,
                           struct ts_error *err);
    enum ts_status (*wait)(struct ts_cuda *cuda, struct ts_error *err);

    enum ts_status (*share)(struct ts_cuda *cuda, ts_cuda_address address, struct ts_cuda_share *out,
                            struct ts_error *err);
    enum ts_status (*import)(struct ts_cuda *cuda, const struct ts_cuda_share *share, ts_cuda_address *out,
                             struct ts_error *err);
    void (*unimport)(struct ts_cuda *cuda, ts_cuda_address address);

    enum ts_status (*launch)(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                             struct ts_cuda_dim block, uint32_t shared_bytes, const void *args,
                             size_t args_bytes, struct ts_error *err);

    enum ts_status (*event_new)(struct ts_cuda *cuda, struct ts_cuda_event **out, struct ts_error *err);
    void (*event_free)(struct ts_cuda_event *event);
    enum ts_status (*record)(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err);
    enum ts_status (*after)(struct ts_cuda *cuda, struct ts_cuda_event *event, struct ts_error *err);
    enum ts_status (*event_wait)(struct ts_cuda_event *event, struct ts_error *err);
    enum ts_status (*event_done)(struct ts_cuda_event *event, bool *done, struct ts_error *err);
    enum ts_status (*elapsed)(struct ts_cuda_event *from, struct ts_cuda_event *to, uint64_t *ns,
                              struct ts_error *err);

    enum ts_status (*capture_begin)(struct ts_cuda *cuda, struct ts_error *err);
    enum ts_status (*capture_end)(struct ts_cuda *cuda, struct ts_cuda_graph **out, struct ts_error *err);
    enum ts_status (*graph_launch)(struct ts_cuda *cuda, struct ts_cuda_graph *graph, struct ts_error *err);
    void (*graph_free)(struct ts_cuda_graph *graph);
};

/* The first members of a device, an event and a graph of any kind. */
struct ts_cuda {
    const struct ts_cuda_ops *ops;
    const struct ts_cuda_properties *properties;
    bool capturing; /* ts_cuda.c keeps it */
};

struct ts_cuda_event {
    const struct ts_cuda_ops *ops;
};

struct ts_cuda_graph {
    const struct ts_cuda_ops *ops;
};

#endif
