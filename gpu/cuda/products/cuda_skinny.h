/*
 * Launches of the own kernels for few rows of x (skinny.cu, gemv.cu). A *variant* is a kernel but for its
 * types, of which there are four of each; together with a number of warps it is what cuda_gemm_prepare times
 * and chooses. A variant takes so many rows at a time; more are done in slices.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_SKINNY_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_SKINNY_H

#include "gpu/cuda/products/cuda_gemm.h"

#define CUDA_SKINNY_VARIANTS        13u
#define CUDA_SKINNY_INVARIANT_WARPS 8u /* of variants without `gemv`: then all of them give the same bits */

struct cuda_skinny_variant {
    bool gemv;           /* without tensor cores */
    uint32_t rows;       /* of the weights: of a block, GEMV: of a warp */
    uint32_t tokens;     /* at a time */
    uint32_t warps_max;  /* of a block */
    uint32_t ring_bytes; /* of shared memory for what of x is loaded ahead; half of that of int8 */
};
extern const struct cuda_skinny_variant cuda_skinny_variants[CUDA_SKINNY_VARIANTS];

struct cuda_skinny_choice {
    uint32_t variant, warps;
};

/* Whether a block of a device may have as much shared memory as the variant needs: those for many rows of x
 * need up to 128 KiB with int8, devices have 99 (sm_86, 89), 163 (sm_80) or 227 (sm_90). */
bool cuda_skinny_fits(uint32_t variant, bool int8, uint32_t shared_bytes_max);

/* A rule of thumb for what was not measured: of those that fit, as few rows of weights in a block as keep all
 * multiprocessors busy. Never a GEMV, always CUDA_SKINNY_INVARIANT_WARPS. */
struct cuda_skinny_choice cuda_skinny_guess(uint32_t outputs, uint32_t m, bool int8, uint32_t multiprocessors,
                                            uint32_t shared_bytes_max);

/* One launch for each slice of rows. `bf16`: T. */
enum ts_status cuda_skinny_launch(struct ts_cuda *cuda, struct cuda_skinny_choice choice, bool bf16,
                                  const struct cuda_matrix *w, ts_cuda_address x, uint32_t m,
                                  ts_cuda_address y, enum cuda_gemm_y y_kind, struct ts_error *err);

/* int8 weights as T into `out`, scales included. */
enum ts_status cuda_skinny_widen(struct ts_cuda *cuda, bool bf16, const struct cuda_matrix *w,
                                 ts_cuda_address out, struct ts_error *err);

#endif
