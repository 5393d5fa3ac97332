/*
 * What the machine can do, measured beside what is judged: arithmetic on registers alone, and reading memory.
 * For measurements, not for services. The work is cut into small items that the threads take as they come, as
 * the engine's is, so a core that others use slows both alike.
 */
#ifndef TS_GPU_CPU_PROBE_H
#define TS_GPU_CPU_PROBE_H

#include <stddef.h>

#include "gpu/cpu/cpu_threads.h"

enum cpu_probe { CPU_PROBE_FP32, CPU_PROBE_BF16, CPU_PROBE_TILES, CPU_PROBES };

const char *cpu_probe_name(enum cpu_probe probe);
/* Runs the widest instructions and returns how many operations that was (a multiplication and an addition are
 * two), or 0 when the processor has none. Takes about 20 ms of each core. */
double cpu_probe_flops(enum cpu_probe probe, struct cpu_threads *threads);
void cpu_probe_read(const void *buffer, size_t bytes, struct cpu_threads *threads); /* all of it once */

#endif
