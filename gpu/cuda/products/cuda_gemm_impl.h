/* Inside of cuda_gemm: one product by a given way, and how long ways take. */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_GEMM_IMPL_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_GEMM_IMPL_H

#include "gpu/cuda/products/cuda_gemm.h"
#include "gpu/cuda/products/gemm_table.h"

struct cuda_gemm {
    struct ts_cuda *cuda; /* whose memory it is */
    struct cuda_gemm_options options;
    bool bf16;
    uint32_t multiprocessors;
    struct cuda_blaslt *blaslt; /* NULL: own kernels alone */
    char library[640];
    uint32_t shared_bytes_max; /* of a block of the device */
    struct gemm_table table;
    ts_cuda_address widened; /* an int8 matrix as T, for the library */
    size_t widened_bytes;
};

/* A product as it is asked for. */
struct gemm_product {
    const struct cuda_matrix *w;
    ts_cuda_address x, y, scratch; /* scratch: SWIGLU alone */
    uint32_t m;
    enum cuda_gemm_y kind;
};

/* Into the stream of `cuda`. The library must take as many rows. */
enum ts_status gemm_do(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct gemm_choice *choice,
                       const struct gemm_product *product, struct ts_error *err);

/* What the library is asked for: SWIGLU is a product in 16 bits and a kernel of ours behind it, int8 is T. */
struct cuda_blaslt_product gemm_library_product(const struct cuda_gemm *gemm, const struct cuda_matrix *w,
                                                uint32_t m, enum cuda_gemm_y kind);

/* Whether it can do this matrix: int8 needs room. */
bool gemm_has_library(const struct cuda_gemm *gemm, const struct cuda_matrix *w);

/* More rows than this go to the kernels for many: two slices of the ones for few read the weights twice and
 * are as slow as memory, a tile of 128 rows reads them once. An estimate: no GPU has measured it. */
#define GEMM_SLICE_ROWS 64u

struct gemm_choice gemm_guess(const struct cuda_gemm *gemm, const struct cuda_matrix *w, uint32_t m);

/* Fills in what the table does not have for the shape of `matrices`, up to `m_max` rows: all are of one shape
 * and take turns. */
enum ts_status gemm_tune(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *matrices,
                         size_t count, enum cuda_gemm_y kind, uint32_t m_max, struct ts_error *err);

/* The best of each way for `rows` rows, one of gemm_buckets; UNKNOWN where there is none, or no memory for
 * trials. */
enum ts_status gemm_measure(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *matrices,
                            size_t count, enum cuda_gemm_y kind, uint32_t rows, struct gemm_choice *own,
                            struct gemm_choice *library, struct ts_error *err);

/* Room for an int8 matrix as T, if the library is there. Where there is no memory for it, own kernels do int8
 * for any number of rows. */
enum ts_status gemm_make_widened(struct cuda_gemm *gemm, const struct cuda_matrix *w, struct ts_error *err);

#endif
