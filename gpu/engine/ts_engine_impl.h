/*
 * What stands behind struct ts_engine: a table of calls and the kind's own data. Real engines are in this
 * folder, the modelled one in gpu/sim.
 */
#ifndef TS_GPU_ENGINE_IMPL_H
#define TS_GPU_ENGINE_IMPL_H

#include "gpu/ts_engine.h"

struct ts_engine_kind {
    void (*close)(struct ts_engine *engine);
    enum ts_status (*submit)(struct ts_engine *engine, const struct ts_engine_batch *batch,
                             struct ts_error *err);
    enum ts_status (*poll)(struct ts_engine *engine, struct ts_engine_event *out);
};

struct ts_engine { /* first member of each kind's own struct */
    const struct ts_engine_kind *kind;
    struct ts_engine_info info;
    int event_fd;
    struct ts_error fault;   /* text "" = none */
    struct ts_error why_cpu; /* what info.why_cpu points to */
};

enum ts_status ts_cpu_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                  struct ts_error *err);
enum ts_status ts_cuda_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                   struct ts_error *err);
/* On a device that was opened: it is the engine's from here on, also when this fails. */
enum ts_status ts_cuda_engine_open_on(const struct ts_engine_options *options, struct ts_cuda *cuda,
                                      struct ts_engine **out, struct ts_error *err);
enum ts_status ts_sim_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                                  struct ts_error *err);

/* Checks a batch against the engine's shapes: what every kind refuses alike. */
enum ts_status ts_engine_check(const struct ts_engine_info *info, const struct ts_engine_options *options,
                               const struct ts_engine_batch *batch, struct ts_error *err);

#endif
