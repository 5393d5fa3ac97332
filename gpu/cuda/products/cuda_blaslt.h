/*
 * cuBLASLt, loaded at run time: products in 16 bits with sums in fp32. y^T = W x^T in its column-major terms,
 * so A is W transposed, B is x (kernels.md, 3.10). Algorithms that add parts of a sum in 16 bits are
 * excluded.
 *
 * It is looked for as libcublasLt.so.13 and .12 where the loader looks, then in the toolkit's and PyTorch's
 * usual folders. Environment TS_CUBLASLT=off refuses it, any other value is the path to take. The library
 * stays loaded; a handle and a workspace belong to one stream of commands.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_BLASLT_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_BLASLT_H

#include "gpu/cuda/products/cuda_gemm.h"

struct cuda_blaslt;

/* TS_EUNSUPPORTED, with the reason: there is none, or it cannot be used with this device. */
enum ts_status cuda_blaslt_open(struct ts_cuda *cuda, struct cuda_blaslt **out, struct ts_error *err);
void cuda_blaslt_close(struct cuda_blaslt **blaslt); /* its stream is at rest */

const char *cuda_blaslt_name(const struct cuda_blaslt *blaslt); /* with version and path */
size_t cuda_blaslt_version(const struct cuda_blaslt *blaslt);

/* A way of multiplying, opaque; it fits a shape, a type, a kind and a number of rows. */
struct cuda_blaslt_algorithm {
    uint64_t data[8];
};

struct cuda_blaslt_product {
    uint32_t outputs, inputs, m;
    bool bf16;             /* of w and x, else fp16 */
    enum cuda_gemm_y kind; /* not SWIGLU */
};

/* At most `max` algorithms, the best guess first. TS_EUNSUPPORTED: there is none. Not while a graph is
 * captured. */
enum ts_status cuda_blaslt_query(struct cuda_blaslt *blaslt, const struct cuda_blaslt_product *product,
                                 struct cuda_blaslt_algorithm *out, uint32_t max, uint32_t *count,
                                 struct ts_error *err);

/* Whether an algorithm found for another number of rows does it too. */
bool cuda_blaslt_takes(struct cuda_blaslt *blaslt, const struct cuda_blaslt_product *product,
                       const struct cuda_blaslt_algorithm *algorithm);

/* Into the stream of `cuda`. */
enum ts_status cuda_blaslt_run(struct cuda_blaslt *blaslt, struct ts_cuda *cuda,
                               const struct cuda_blaslt_product *product,
                               const struct cuda_blaslt_algorithm *algorithm, ts_cuda_address w,
                               ts_cuda_address x, ts_cuda_address y, struct ts_error *err);

#endif
