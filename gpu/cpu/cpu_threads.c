#include "gpu/cpu/cpu_threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"

/* Between the loops of a layer a thread waits a few microseconds; a sleep costs a system call on both sides
 * and up to 50 us of wake-up on a virtual machine. Longer spins take the core from another engine. */
#define SPIN_NS     (20 * TS_US)
#define SPIN_PAUSES 16

/* A word that one side changes and the other waits for. */
struct signal_word {
    _Alignas(64) atomic_uint value;
    atomic_uint sleepers;
};

struct cpu_threads {
    uint32_t count;
    struct signal_word round;      /* a new value starts a loop */
    struct signal_word running;    /* workers not yet done with this round */
    _Alignas(64) atomic_uint next; /* first item not taken */
    _Alignas(64) atomic_bool stop;
    uint32_t items, grain;
    void (*run)(void *context, uint32_t begin, uint32_t end, uint32_t thread);
    void *context;
    pthread_t threads[];
};

struct worker_arg {
    struct cpu_threads *threads;
    uint32_t index;
};

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void wait_change(struct signal_word *word, uint32_t old)
{
    ts_time until = ts_clock_now() + SPIN_NS;
    do {
        for (int i = 0; i < SPIN_PAUSES; i++) {
            if (atomic_load_explicit(&word->value, memory_order_acquire) != old)
                return;
            pause_briefly();
        }
    } while (ts_clock_now() < until);
    atomic_fetch_add(&word->sleepers, 1);
    while (atomic_load(&word->value) == old)
        syscall(SYS_futex, &word->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&word->sleepers, 1);
}

/* After the value was changed. Either the sleeper's count is seen here, or the sleeper sees the new value. */
static void wake(struct signal_word *word, int count)
{
    if (atomic_load(&word->sleepers) > 0)
        syscall(SYS_futex, &word->value, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
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
    struct cpu_threads *t = a.threads;
    uint32_t seen = 0;
    ts_free(arg);
    for (;;) {
        wait_change(&t->round, seen);
        seen++;
        if (atomic_load(&t->stop))
            return NULL;
        take_items(t, a.index);
        if (atomic_fetch_sub(&t->running.value, 1) == 1)
            wake(&t->running, 1);
    }
}

struct cpu_threads *cpu_threads_new(uint32_t count)
{
    if (count == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        count = cores > 0 ? (uint32_t)cores : 1;
    }
    size_t bytes = sizeof(struct cpu_threads) + count * sizeof(pthread_t);
    struct cpu_threads *t = ts_xaligned(64, bytes);
    *t = (struct cpu_threads){.count = count};
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
    atomic_store(&t->running.value, t->count - 1);
    atomic_fetch_add(&t->round.value, 1);
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
    for (uint32_t left; (left = atomic_load(&threads->running.value)) != 0;)
        wait_change(&threads->running, left);
}
