/*
 * The part of cuBLASLt's interface that cuda_blaslt.c loads: types as they are in memory, functions that all
 * versions from CUDA 12 on have with these signatures. Only those that create objects are used, none that
 * fills in one of ours: their sizes differ between versions. test_cuda_gemm compares with cublasLt.h.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_CUDA_BLASLT_API_H
#define TS_GPU_CUDA_PRODUCTS_CUDA_BLASLT_API_H

#include <stddef.h>
#include <stdint.h>

#if !defined(TS_CUBLASLT_HEADER) /* cublasLt.h was included before: it has them */
typedef int cublasStatus_t;
typedef int cublasComputeType_t;
typedef int cudaDataType_t;
typedef int cublasLtMatmulDescAttributes_t;
typedef int cublasLtMatmulPreferenceAttributes_t;
typedef struct cublasLtContext *cublasLtHandle_t;
typedef struct cuda_blaslt_desc *cublasLtMatmulDesc_t;
typedef struct cuda_blaslt_layout *cublasLtMatrixLayout_t;
typedef struct cuda_blaslt_preference *cublasLtMatmulPreference_t;
typedef struct CUstream_st *cudaStream_t;
typedef struct {
    uint64_t data[8];
} cublasLtMatmulAlgo_t;
typedef struct {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
} cublasLtMatmulHeuristicResult_t;
#endif

/* As the toolkit numbers them: CUDA_R_*, CUBLAS_COMPUTE_32F, CUBLAS_OP_T, CUBLASLT_MATMUL_DESC_TRANSA,
 * CUBLASLT_MATMUL_PREF_*, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE. */
enum {
    BLASLT_R_32F = 0,
    BLASLT_R_16F = 2,
    BLASLT_R_16BF = 14,
    BLASLT_COMPUTE_32F = 68,
    BLASLT_OP_T = 1,
    BLASLT_DESC_TRANSA = 3,
    BLASLT_PREF_WORKSPACE = 1,
    BLASLT_PREF_REDUCTION = 3,
    BLASLT_PREF_ALIGNMENT_A = 5, /* and those of B, C and D after it */
    BLASLT_REDUCTION_COMPUTE_TYPE = 2,
};

struct cuda_blaslt_api {
    size_t (*version)(void);
    const char *(*status_name)(cublasStatus_t status);
    cublasStatus_t (*create)(cublasLtHandle_t *handle);
    cublasStatus_t (*destroy)(cublasLtHandle_t handle);
    cublasStatus_t (*layout_create)(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                    uint64_t columns, int64_t ld);
    cublasStatus_t (*layout_destroy)(cublasLtMatrixLayout_t layout);
    cublasStatus_t (*desc_create)(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                  cudaDataType_t scale);
    cublasStatus_t (*desc_destroy)(cublasLtMatmulDesc_t desc);
    cublasStatus_t (*desc_set)(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                               const void *value, size_t bytes);
    cublasStatus_t (*preference_create)(cublasLtMatmulPreference_t *preference);
    cublasStatus_t (*preference_destroy)(cublasLtMatmulPreference_t preference);
    cublasStatus_t (*preference_set)(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                     size_t bytes);
    cublasStatus_t (*heuristic)(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                cublasLtMatmulPreference_t preference, int wanted,
                                cublasLtMatmulHeuristicResult_t results[], int *count);
    cublasStatus_t (*check)(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                            cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                            const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result);
    cublasStatus_t (*matmul)(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                             const void *a_data, cublasLtMatrixLayout_t a, const void *b_data,
                             cublasLtMatrixLayout_t b, const void *beta, const void *c_data,
                             cublasLtMatrixLayout_t c, void *d_data, cublasLtMatrixLayout_t d,
                             const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                             cudaStream_t stream);
};

/* X(function of the library, member) */
#define CUDA_BLASLT_FUNCTIONS(X)                                                                             \
    X(cublasLtGetVersion, version)                                                                           \
    X(cublasLtGetStatusName, status_name)                                                                    \
    X(cublasLtCreate, create)                                                                                \
    X(cublasLtDestroy, destroy)                                                                              \
    X(cublasLtMatrixLayoutCreate, layout_create)                                                             \
    X(cublasLtMatrixLayoutDestroy, layout_destroy)                                                           \
    X(cublasLtMatmulDescCreate, desc_create)                                                                 \
    X(cublasLtMatmulDescDestroy, desc_destroy)                                                               \
    X(cublasLtMatmulDescSetAttribute, desc_set)                                                              \
    X(cublasLtMatmulPreferenceCreate, preference_create)                                                     \
    X(cublasLtMatmulPreferenceDestroy, preference_destroy)                                                   \
    X(cublasLtMatmulPreferenceSetAttribute, preference_set)                                                  \
    X(cublasLtMatmulAlgoGetHeuristic, heuristic)                                                             \
    X(cublasLtMatmulAlgoCheck, check)                                                                        \
    X(cublasLtMatmul, matmul)

#endif
