/*
 * Commands of streams in the order in which they were asked for: done at once, or with TS_EMULATED_LAZY when
 * somebody waits for them and not before. One lock is over all streams: commands may wait for other streams.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "tests/gpu/emulated/emulated.h"

struct emulated_step {
    struct kernel_command command; /* its arguments are a copy */
    struct emulated_point after;   /* instead of a command */
};

static CUstream streams;
static uint64_t last_id;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static CUstream find(uint64_t id)
{
    CUstream s = streams;
    while (s && s->id != id)
        s = s->next;
    return s;
}

static void run_until(CUstream s, uint64_t number);

static void run_step(struct emulated_step *step)
{
    CUstream other = step->after.stream ? find(step->after.stream) : NULL;
    if (other)
        run_until(other, step->after.number);
    else if (!step->after.stream)
        kernel_command_run(&step->command);
    ts_free(step->command.args);
}

static void run_until(CUstream s, uint64_t number)
{
    while (s->ran < number && s->head < s->count) {
        struct emulated_step step = s->steps[s->head++];
        s->ran++;
        if (s->head == s->count)
            s->head = s->count = 0;
        run_step(&step);
    }
}

static struct emulated_point add(CUstream s, const struct emulated_step *step)
{
    ts_array_reserve((void **)&s->steps, &s->capacity, s->count + 1, sizeof *s->steps);
    s->steps[s->count] = *step;
    if (step->command.args) {
        void *args = ts_xaligned(64, step->command.bytes);
        s->steps[s->count].command.args = memcpy(args, step->command.args, step->command.bytes);
    }
    s->count++;
    struct emulated_point end = {s->id, ++s->asked};
    if (!emulated_number("TS_EMULATED_LAZY", 0))
        run_until(s, s->asked);
    return end;
}

/* --- for the streams' own source ------------------------------------------------------------------------ */

void emulated_add_stream(CUstream s)
{
    pthread_mutex_lock(&lock);
    s->id = ++last_id;
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&lock);
}

void emulated_remove_stream(CUstream s)
{
    pthread_mutex_lock(&lock);
    run_until(s, s->asked);
    CUstream *at = &streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    ts_free(s->steps);
    pthread_mutex_unlock(&lock);
}

struct emulated_point emulated_later(CUstream s, const struct kernel_command *c)
{
    pthread_mutex_lock(&lock);
    struct emulated_point end = add(s, &(struct emulated_step){.command = *c});
    pthread_mutex_unlock(&lock);
    return end;
}

void emulated_after(CUstream s, struct emulated_point point)
{
    pthread_mutex_lock(&lock);
    if (point.stream)
        (void)add(s, &(struct emulated_step){.after = point});
    pthread_mutex_unlock(&lock);
}

void emulated_finish(struct emulated_point point)
{
    pthread_mutex_lock(&lock);
    CUstream s = find(point.stream);
    if (s)
        run_until(s, point.number);
    pthread_mutex_unlock(&lock);
}

bool emulated_ask(struct emulated_point point)
{
    pthread_mutex_lock(&lock);
    CUstream s = find(point.stream);
    bool reached = !s || s->ran >= point.number;
    if (!reached)
        run_until(s, s->ran + 1); /* time goes by */
    pthread_mutex_unlock(&lock);
    return reached;
}

void emulated_finish_all(void)
{
    pthread_mutex_lock(&lock);
    for (CUstream s = streams; s; s = s->next)
        run_until(s, s->asked);
    pthread_mutex_unlock(&lock);
}
