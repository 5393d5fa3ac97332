/* What the programs that measure devices share. */
#ifndef TS_GPU_CUDA_CUDA_BENCH_H
#define TS_GPU_CUDA_CUDA_BENCH_H

#include "gpu/cuda/device/ts_cuda.h"

#define BENCH_ROUNDS_MAX 64u

/* Or the program ends, with its name and what the error says. */
void bench_must(enum ts_status status, const struct ts_error *err);

/* The number behind the option that *argv is at; moves on behind it. Ends the program where there is none. */
uint32_t bench_number(int *argc, char ***argv, uint32_t least, uint32_t most);

/* Events of the device, and how often a median is measured, 1 .. BENCH_ROUNDS_MAX times. */
struct bench_clock {
    struct ts_cuda *cuda;
    struct ts_cuda_event *begin, *end;
    uint32_t rounds;
};

/* Nanoseconds of the median round of `run(context)`, after one that is not counted; at least 1. */
double bench_median(const struct bench_clock *clock, void (*run)(void *context), void *context);
/* Of launches of a graph. */
double bench_median_graph(const struct bench_clock *clock, struct ts_cuda_graph *graph);

#endif
