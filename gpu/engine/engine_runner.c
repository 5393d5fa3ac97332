#include "gpu/engine/engine_runner.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

void engine_runner_init(struct engine_runner *runner, struct ts_engine *engine,
                        const struct ts_engine_options *options, engine_run run)
{
    *runner = (struct engine_runner){.engine = engine, .options = options, .run = run, .open = true};
    engine->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&runner->lock, NULL);
    pthread_cond_init(&runner->wake, NULL);
}

static void post(struct engine_runner *runner, struct ts_engine_event event)
{
    uint64_t one = 1;
    pthread_mutex_lock(&runner->lock);
    runner->events[runner->tail++ % runner->capacity] = event;
    pthread_mutex_unlock(&runner->lock);
    ssize_t n = write(runner->engine->event_fd, &one, sizeof one);
    TS_ASSERT(n == (ssize_t)sizeof one);
}

void engine_runner_layer(struct engine_runner *runner, uint32_t layer)
{
    if (runner->batch.report_layers)
        post(runner, (struct ts_engine_event){
                         .kind = TS_ENGINE_LAYER_DONE, .batch = runner->batch.id, .layer = layer});
}

static void run_batch(struct engine_runner *runner)
{
    struct engine_result result = {NULL, 0};
    struct ts_error err = {0};
    ts_time begin = ts_clock_now();
    enum ts_status status = runner->run(runner->engine, &runner->batch, &result, &err);
    if (status == TS_EIO)
        runner->fault = err;
    post(runner, (struct ts_engine_event){.kind = TS_ENGINE_BATCH_DONE,
                                          .batch = runner->batch.id,
                                          .status = status,
                                          .samples = result.samples,
                                          .sample_count = status == TS_OK ? result.sample_count : 0,
                                          .compute_ns = ts_clock_now() - begin});
}

static void *engine_thread(void *arg)
{
    struct engine_runner *runner = arg;
    pthread_mutex_lock(&runner->lock);
    for (;;) {
        while (!runner->stop && !runner->pending)
            pthread_cond_wait(&runner->wake, &runner->lock);
        if (!runner->pending)
            break;
        runner->pending = false;
        pthread_mutex_unlock(&runner->lock);
        run_batch(runner);
        pthread_mutex_lock(&runner->lock);
    }
    pthread_mutex_unlock(&runner->lock);
    return NULL;
}

enum ts_status engine_runner_start(struct engine_runner *runner, struct ts_error *err)
{
    runner->capacity = runner->engine->info.model.layers + 1; /* of one batch */
    runner->events = ts_xcalloc(runner->capacity, sizeof *runner->events);
    int rc = pthread_create(&runner->thread, NULL, engine_thread, runner);
    runner->started = rc == 0;
    return rc == 0 ? TS_OK : ts_error_set(err, TS_EIO, "cannot start the engine's thread: %s", strerror(rc));
}

void engine_runner_fini(struct engine_runner *runner)
{
    if (!runner->open)
        return;
    if (runner->started) {
        pthread_mutex_lock(&runner->lock);
        runner->stop = true;
        pthread_cond_signal(&runner->wake);
        pthread_mutex_unlock(&runner->lock);
        pthread_join(runner->thread, NULL);
    }
    if (runner->engine->event_fd >= 0)
        close(runner->engine->event_fd);
    ts_free(runner->events);
    pthread_mutex_destroy(&runner->lock);
    pthread_cond_destroy(&runner->wake);
}

enum ts_status engine_runner_submit(struct engine_runner *runner, const struct ts_engine_batch *batch,
                                    struct ts_error *err)
{
    struct ts_engine *engine = runner->engine;
    if (engine->fault.text[0])
        return ts_error_set(err, TS_EIO, "%s", engine->fault.text);
    enum ts_status status = ts_engine_check(&engine->info, runner->options, batch, err);
    if (status != TS_OK)
        return status;
    pthread_mutex_lock(&runner->lock);
    if (runner->busy) {
        status = TS_EAGAIN;
    } else {
        runner->batch = *batch;
        runner->busy = runner->pending = true;
        pthread_cond_signal(&runner->wake);
    }
    pthread_mutex_unlock(&runner->lock);
    return status;
}

enum ts_status engine_runner_poll(struct engine_runner *runner, struct ts_engine_event *out)
{
    enum ts_status status = TS_EAGAIN;
    uint64_t count;
    pthread_mutex_lock(&runner->lock);
    if (runner->head != runner->tail) {
        *out = runner->events[runner->head++ % runner->capacity];
        status = TS_OK;
        if (out->kind == TS_ENGINE_BATCH_DONE) {
            runner->busy = false;
            runner->engine->fault = runner->fault;
        }
    }
    if (runner->head == runner->tail) {
        ssize_t n = read(runner->engine->event_fd, &count, sizeof count);
        (void)n; /* EAGAIN when it was reset before */
    }
    pthread_mutex_unlock(&runner->lock);
    return status;
}
