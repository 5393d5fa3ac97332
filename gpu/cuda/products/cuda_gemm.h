/*
 * Products of activations and weights on a device: y[m][outputs] = x[m][inputs] times the transpose of
 * w[outputs][inputs], all row-major and dense, sums in fp32. T, the type of activations, is fp16 or bf16 and
 * chosen once; weights are of type T or int8 with a scale for each output (kernels.md, 3.5 and 3.6).
 *
 * Three ways: own kernels that read the weights once (skinny.cu), for few rows; own kernels for many
 * (tile.cu), wherever the library is missing; and cuBLASLt, loaded at run time (cuda_blaslt.h). Which is the
 * faster one is measured for each shape and number of rows by cuda_gemm_prepare, and kept on disk. Nothing is
 * measured, allocated or asked for when rows are multiplied, so that it may be captured into a graph; for
 * more than 128 rows a number of rows that comes for the first time costs some microseconds of the host.
 *
 * The result of a row does not depend on its neighbours nor, as long as one kernel serves, on their number:
 * all own MMA kernels with the same split of a sum over warps add in the same order. Which kernel serves
 * changes with m. With `batch_invariant` one split serves every m, that of tile.cu, and the library none: the
 * same bits in any batch, slower for many rows.
 *
 * A struct cuda_gemm has one workspace, so its calls must be in one stream of commands, or in streams that
 * wait for each other. One thread at a time. Matrices are aligned to 256 bytes, `x` and `y` to 16.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_GEMM_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_GEMM_H

#include <stdbool.h>

#include "common/core/ts_model.h"
#include "gpu/cuda/device/ts_cuda.h"

enum cuda_matrix_type { CUDA_MATRIX_F16, CUDA_MATRIX_BF16, CUDA_MATRIX_I8 };

struct cuda_matrix {
    enum cuda_matrix_type type;
    ts_cuda_address data;   /* [outputs][inputs] */
    ts_cuda_address scales; /* I8: float [outputs]; else 0 */
    uint32_t outputs;       /* any number */
    uint32_t inputs;        /* a multiple of 8; I8: of 16 */
};

enum cuda_gemm_y {
    CUDA_GEMM_Y_16,      /* y of type T */
    CUDA_GEMM_Y_F32,     /* y of fp32 */
    CUDA_GEMM_Y_ADD_F32, /* y of fp32, added to what is there */
    CUDA_GEMM_SWIGLU     /* cuda_gemm_swiglu */
};

struct cuda_gemm_options {
    enum ts_dtype activations; /* T: F16 or BF16 */
    bool batch_invariant;
    bool no_library;          /* own kernels alone, as environment TS_CUBLASLT=off has it */
    const char *cache_folder; /* of measured choices; NULL: $XDG_CACHE_HOME/thunderserve or
                                 ~/.cache/thunderserve; "": none is kept */
    bool measure_always;      /* on an emulated device too, where it means nothing: for tests */
};

struct cuda_gemm;

/* Loads the library where it is allowed and found; without it own kernels serve all. */
enum ts_status cuda_gemm_new(struct ts_cuda *cuda, const struct cuda_gemm_options *options,
                             struct cuda_gemm **out, struct ts_error *err);
void cuda_gemm_free(struct cuda_gemm **gemm); /* waits */

/* One line for people: the library and its version, or why there is none. */
const char *cuda_gemm_library(const struct cuda_gemm *gemm);

/* What a matrix is used for. */
struct cuda_gemm_use {
    struct cuda_matrix w;
    enum cuda_gemm_y y;
};

/* Chooses for every shape and use among `uses`, for 1 .. m_max rows; call it once, with the matrices of all
 * layers in their places (those of the same shape take turns, so that they are read from memory and not from
 * the cache), before anything is captured. Takes memory for the time of the call and, with int8, for good a
 * matrix of type T. A shape that was not prepared goes by a rule of thumb and never to the library.
 * TS_EINVAL: a matrix that no kernel takes. */
enum ts_status cuda_gemm_prepare(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                 const struct cuda_gemm_use *uses, size_t count, uint32_t m_max,
                                 struct ts_error *err);

/* y[m][outputs] of the kind `y_kind`, which is not SWIGLU. m = 0 does nothing. */
enum ts_status cuda_gemm_run(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *w,
                             ts_cuda_address x, uint32_t m, ts_cuda_address y, enum cuda_gemm_y y_kind,
                             struct ts_error *err);

/* `gate_up` has 2 x intermediate outputs in runs of 8: 8 of the gate, the 8 of up that belong to them, and so
 * on; intermediate is a multiple of 8. `out`: T [m][intermediate], silu(gate) x up, both in fp32 (own kernel)
 * or rounded to T (library). `scratch`: T [m][2 x intermediate]. */
enum ts_status cuda_gemm_swiglu(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                const struct cuda_matrix *gate_up, ts_cuda_address x, uint32_t m,
                                ts_cuda_address out, ts_cuda_address scratch, struct ts_error *err);

#endif
