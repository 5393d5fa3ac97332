#include "gpu/cpu/cpu_threads.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define SPINS 2000 /* a few microseconds: about one wake-up */

struct cpu_threads {
    uint32_t count;
    atomic_uint round;   /* a new one starts a loop; the workers sleep on it */
    atomic_uint running; /* workers not yet done with this round; the caller sleeps on it */
    atomic_uint next;    /* first item not taken */
    atomic_bool stop;
    uint32_t items, grain;
    void (*run)(void *context, uint32_t begin, uint32_t end, uint32_t thread);
    void *context;
    pthread_t threads[];
};

struct worker_arg {
    struct cpu_threads *threads;
    uint32_t index;
};

static void wait_change(atomic_uint *word, uint32_t old)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old)
            return;
        __builtin_ia32_pause();
    }
    while (atomic_load_explicit(word, memory_order_acquire) == old)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
}

static void wake(atomic_uint *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void take_items(struct cpu_threads *t, uint32_t index)
{
    for (;;) {
        uint32_t begin = atomic_fetch_add_explicit(&t->next, t->grain, memory_order_relaxed);
        if (begin >= t->items)
            return;
        uint32_t end = t->items - begin < t->grain ? t->items : begin + t->grain;
        t->run(t->context, begin, end, index);
    }
}

static void *work(void *arg)
{
    struct worker_arg a = *(struct worker_arg *)arg;
    uint32_t seen = 0;
    ts_free(arg);
    for (;;) {
        wait_change(&a.threads->round, seen);
        seen++;
        if (atomic_load(&a.threads->stop))
            return NULL;
        take_items(a.threads, a.index);
        if (atomic_fetch_sub_explicit(&a.threads->running, 1, memory_order_acq_rel) == 1)
            wake(&a.threads->running, 1);
    }
}

struct cpu_threads *cpu_threads_new(uint32_t count)
{
    if (count == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        count = cores > 0 ? (uint32_t)cores : 1;
    }
    struct cpu_threads *t = ts_xcalloc(1, sizeof *t + count * sizeof(pthread_t));
    t->count = count;
    for (uint32_t i = 1; i < count; i++) {
        struct worker_arg *arg = ts_xmalloc(sizeof *arg);
        *arg = (struct worker_arg){t, i};
        int rc = pthread_create(&t->threads[i], NULL, work, arg);
        TS_ASSERT(rc == 0);
    }
    return t;
}

static void start_round(struct cpu_threads *t)
{
    atomic_store_explicit(&t->running, t->count - 1, memory_order_release);
    atomic_fetch_add_explicit(&t->round, 1, memory_order_acq_rel);
    wake(&t->round, (int)t->count);
}

void cpu_threads_destroy(struct cpu_threads **threads)
{
    struct cpu_threads *t = *threads;
    if (!t)
        return;
    atomic_store(&t->stop, true);
    start_round(t);
    for (uint32_t i = 1; i < t->count; i++)
        pthread_join(t->threads[i], NULL);
    ts_free(t);
    *threads = NULL;
}

uint32_t cpu_threads_count(const struct cpu_threads *threads)
{
    return threads->count;
}

void cpu_threads_for(struct cpu_threads *threads, uint32_t items, uint32_t grain,
                     void (*run)(void *context, uint32_t begin, uint32_t end, uint32_t thread), void *context)
{
    if (items == 0)
        return;
    if (threads->count == 1 || items <= grain) {
        run(context, 0, items, 0);
        return;
    }
    threads->items = items;
    threads->grain = grain;
    threads->run = run;
    threads->context = context;
    atomic_store_explicit(&threads->next, 0, memory_order_relaxed);
    start_round(threads);
    take_items(threads, 0);
    for (uint32_t left; (left = atomic_load_explicit(&threads->running, memory_order_acquire)) != 0;)
        wait_change(&threads->running, left);
}
