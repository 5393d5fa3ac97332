/*
 * The thread of an engine: it takes one batch at a time from its mailbox, runs it, and puts what happens into
 * a ring that the engine's caller polls. Engines of all backends share it; what a batch is computed with is
 * the `run` that they give.
 *
 * `run` is called on the runner's thread alone; everything else on the caller's. Between them pass the batch
 * and the events, under one lock. A `run` that fails with TS_EIO has lost its device: the runner keeps the
 * reason, and refuses all that is submitted later with it (ts_engine_fault).
 */
#ifndef TS_GPU_ENGINE_RUNNER_H
#define TS_GPU_ENGINE_RUNNER_H

#include <pthread.h>

#include "gpu/engine/ts_engine_impl.h"

struct engine_result {
    const struct ts_engine_sample *samples; /* valid until the next batch */
    uint32_t sample_count;
};

typedef enum ts_status (*engine_run)(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                     struct engine_result *out, struct ts_error *err);

struct engine_runner {
    struct ts_engine *engine;
    const struct ts_engine_options *options; /* limits of a batch */
    engine_run run;
    struct ts_engine_batch batch; /* under way */
    pthread_t thread;
    bool open, started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool busy;    /* from submit until the end of the batch was polled */
    bool pending; /* submitted, and not yet taken by the thread */
    bool stop;
    struct ts_error fault;          /* the engine's, until BATCH_DONE was polled */
    struct ts_engine_event *events; /* ring of finished layers and the batch */
    size_t capacity, head, tail;
};

/* Before anything that may fail: engine_runner_fini may follow. The engine's info gives the event fd. */
void engine_runner_init(struct engine_runner *runner, struct ts_engine *engine,
                        const struct ts_engine_options *options, engine_run run);
/* Starts the thread, when the engine can compute and knows its number of layers. */
enum ts_status engine_runner_start(struct engine_runner *runner, struct ts_error *err);
/* Waits for a running batch. */
void engine_runner_fini(struct engine_runner *runner);

enum ts_status engine_runner_submit(struct engine_runner *runner, const struct ts_engine_batch *batch,
                                    struct ts_error *err);
enum ts_status engine_runner_poll(struct engine_runner *runner, struct ts_engine_event *out);
/* For `run`, in ascending order of layers: keys and values of this one are in the pool. Says so if the batch
 * asked for it. */
void engine_runner_layer(struct engine_runner *runner, uint32_t layer);

#endif
