/*
 * Threads that run one loop at a time. The caller takes part. Waiting spins briefly, then sleeps, so that two
 * engines on the same cores do not starve each other. How work is cut never changes a result: items are
 * independent.
 */
#ifndef TS_GPU_CPU_THREADS_H
#define TS_GPU_CPU_THREADS_H

#include <stdint.h>

struct cpu_threads;

struct cpu_threads *cpu_threads_new(uint32_t count); /* the caller included; 0 = all cores */
void cpu_threads_destroy(struct cpu_threads **threads);
uint32_t cpu_threads_count(const struct cpu_threads *threads);
/* Calls run(context, begin, end, thread) for disjoint ranges that cover [0, items); returns when all are
 * done. */
void cpu_threads_for(struct cpu_threads *threads, uint32_t items, uint32_t grain,
                     void (*run)(void *context, uint32_t begin, uint32_t end, uint32_t thread),
                     void *context);

#endif
