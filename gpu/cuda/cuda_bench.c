#include "gpu/cuda/cuda_bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"

void bench_must(enum ts_status status, const struct ts_error *err)
{
    if (status == TS_OK)
        return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, err->text);
    exit(1);
}

uint32_t bench_number(int *argc, char ***argv, uint32_t least, uint32_t most)
{
    char *end = NULL;
    unsigned long value = *argc > 1 ? strtoul((*argv)[1], &end, 10) : 0;
    if (!end || *end || value < least || value > most) {
        fprintf(stderr, "%s: %s takes a number of %u to %u\n", program_invocation_short_name, **argv, least,
                most);
        exit(2);
    }
    *argc -= 2;
    *argv += 2;
    return (uint32_t)value;
}

static int by_time(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double bench_median(const struct bench_clock *clock, void (*run)(void *context), void *context)
{
    uint64_t times[BENCH_ROUNDS_MAX] = {0};
    struct ts_error err = {0};
    TS_ASSERT(clock->rounds >= 1 && clock->rounds <= BENCH_ROUNDS_MAX);
    run(context);
    for (uint32_t i = 0; i < clock->rounds; i++) {
        bench_must(ts_cuda_record(clock->cuda, clock->begin, &err), &err);
        run(context);
        bench_must(ts_cuda_record(clock->cuda, clock->end, &err), &err);
        bench_must(ts_cuda_elapsed(clock->begin, clock->end, &times[i], &err), &err);
    }
    qsort(times, clock->rounds, sizeof *times, by_time);
    uint64_t median = times[clock->rounds / 2];
    return median ? (double)median : 1.0;
}

struct graph_turn {
    struct ts_cuda *cuda;
    struct ts_cuda_graph *graph;
};

static void run_graph(void *context)
{
    const struct graph_turn *turn = context;
    struct ts_error err = {0};
    bench_must(ts_cuda_graph_launch(turn->cuda, turn->graph, &err), &err);
}

double bench_median_graph(const struct bench_clock *clock, struct ts_cuda_graph *graph)
{
    struct graph_turn turn = {clock->cuda, graph};
    return bench_median(clock, run_graph, &turn);
}
