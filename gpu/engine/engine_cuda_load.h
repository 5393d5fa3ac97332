/*
 * Bringing a folder's tensors to a device: several threads read the mapped files into a ring of pinned
 * buffers, in the order and the type in which the device wants them, and the thread of the device copies
 * each buffer when it is full. Reading and copying overlap.
 *
 * What is loaded is a list of matrices, each put together from rows of parts (engine_tensors.h).
 */
#ifndef TS_GPU_ENGINE_CUDA_LOAD_H
#define TS_GPU_ENGINE_CUDA_LOAD_H

#include "gpu/cuda/products/cuda_gemm.h"
#include "gpu/engine/engine_tensors.h"

#define CUDA_LOAD_PARTS 3u
#define CUDA_LOAD_RUN   8u /* rows of one part that lie together when parts take turns */

struct cuda_load {
    const struct cuda_matrix *to;
    struct engine_part parts[CUDA_LOAD_PARTS]; /* of equal columns */
    uint32_t part_count;
    bool take_turns; /* 8 rows of the first part, 8 of the second, and so on; else one part after the other */
};

struct cuda_load_options {
    enum ts_dtype dtype; /* T: what is of another type is rounded to it */
    uint32_t threads;    /* 0 = all cores */
    bool random;         /* made on the device instead: parts have no tensors */
};

/* The row of a load: its part, and its place there (0 = the part's first row). */
const struct engine_part *cuda_load_row(const struct cuda_load *load, uint64_t row, uint64_t *place);

/* Done when it returns. */
enum ts_status cuda_load_all(struct ts_cuda *cuda, const struct cuda_load_options *options,
                             const struct cuda_load *loads, size_t count, struct ts_error *err);

#endif
