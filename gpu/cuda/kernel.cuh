/*
 * What every kernel source includes. A kernel is written once, in the words of CUDA, and compiled twice: by
 * nvcc for devices and, with TS_KERNEL_HOST, by the C++ compiler for the CPU, where kernel_host.h gives
 * threads, barriers and warps (its head says how, and what it cannot show). This is the only place that tells
 * the two apart: kernel sources have no conditional, and scripts/layers refuses one.
 *
 *     TS_KERNEL(name, threads, type) { ... args.field ... }
 *         a kernel by that name for blocks of at most so many threads; it gets one struct, `args`, by value
 *     TS_SHARED(type, name);
 *         the shared memory of a block: one struct for each kernel, not initialised
 *     TS_SHARED_LARGE(type, name);
 *         the same beyond 48 KiB: the launch names its size
 */
#ifndef TS_GPU_CUDA_KERNEL_CUH
#define TS_GPU_CUDA_KERNEL_CUH

#include <stdint.h>

#if defined(TS_KERNEL_HOST)
#include "gpu/cuda/host/kernel_host.cuh"
#else
#include "gpu/cuda/kernel_ptx.cuh"
#endif

#define KERNEL_FULL_WARP 0xffffffffu

#endif
