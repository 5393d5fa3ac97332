#include "gpu/cuda/products/cuda_blaslt.h"

#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/products/cuda_blaslt_api.h"

/* NVIDIA's recommendation; sm_90's kernels want more. */
#define WORKSPACE_BYTES    ((size_t)4 << 20)
#define WORKSPACE_BYTES_90 ((size_t)32 << 20)

#define ALIGNMENT 16u /* of x and y, at least */

struct cuda_blaslt {
    struct ts_cuda *cuda;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulPreference_t preference;
    ts_cuda_address workspace;
    size_t workspace_bytes;
    char name[320];
};

/* --- loading, once in a process ------------------------------------------------------------------------- */

static struct cuda_blaslt_api api;
static char path_of_library[256], reason[512];

/* Versions, newest first; folders of the toolkit, then those of PyTorch's packages. */
static const char *const sonames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
static const char *const folders[] = {
    "/usr/local/cuda/lib64",
    "/usr/local/cuda-1[23]*/lib64",
    "/usr/local/lib/python3*/*-packages/nvidia/c*/lib",
    "/usr/lib/python3*/*-packages/nvidia/c*/lib",
    "/opt/*/lib/python3*/site-packages/nvidia/c*/lib",
    "~/.local/lib/python3*/site-packages/nvidia/c*/lib",
};

static void *open_at(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library)
        snprintf(path_of_library, sizeof path_of_library, "%s", path);
    else
        snprintf(reason, sizeof reason, "%s", dlerror());
    return library;
}

static void *open_in(const char *folder, const char *soname)
{
    char pattern[256];
    glob_t found = {0};
    void *library = NULL;
    snprintf(pattern, sizeof pattern, "%s/%s", folder, soname);
    if (glob(pattern, GLOB_TILDE, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && !library; i++)
            library = open_at(found.gl_pathv[i]);
    }
    globfree(&found);
    return library;
}

static void *open_library(void)
{
    const char *wish = getenv("TS_CUBLASLT");
    void *library = NULL;
    if (wish && strcmp(wish, "off") == 0) {
        snprintf(reason, sizeof reason, "TS_CUBLASLT=off");
        return NULL;
    }
    if (wish && *wish)
        return open_at(wish);
    for (size_t s = 0; s < sizeof sonames / sizeof *sonames && !library; s++)
        library = open_at(sonames[s]);
    for (size_t i = 0; i < sizeof folders / sizeof *folders * 2 && !library; i++)
        library = open_in(folders[i / 2], sonames[i % 2]);
    return library;
}

static void load(void)
{
    void *library = open_library();
    if (!library)
        return;
    reason[0] = 0;
#define LOAD(symbol, field)                                                                                  \
    *(void **)(void *)&api.field = dlsym(library, #symbol);                                                  \
    if (!api.field)                                                                                          \
        snprintf(reason, sizeof reason, "%s has no " #symbol, path_of_library);
    CUDA_BLASLT_FUNCTIONS(LOAD)
#undef LOAD
}

static enum ts_status check(cublasStatus_t status, const char *function, struct ts_error *err)
{
    if (status == 0)
        return TS_OK;
    return ts_error_set(err, TS_EIO, "%s: %s (%d)", function, api.status_name(status), (int)status);
}

/* --- handles -------------------------------------------------------------------------------------------- */

static enum ts_status make_preference(struct cuda_blaslt *b, struct ts_error *err)
{
    const uint32_t reduction = BLASLT_REDUCTION_COMPUTE_TYPE, alignment = ALIGNMENT;
    enum ts_status status =
        check(api.preference_create(&b->preference), "cublasLtMatmulPreferenceCreate", err);
    if (status != TS_OK)
        return status;
    cublasStatus_t result =
        api.preference_set(b->preference, BLASLT_PREF_WORKSPACE, &b->workspace_bytes, sizeof(size_t));
    if (result == 0)
        result = api.preference_set(b->preference, BLASLT_PREF_REDUCTION, &reduction, sizeof reduction);
    for (int operand = 1; operand < 4 && result == 0; operand++) /* B, C and D; W is aligned better */
        result = api.preference_set(b->preference, BLASLT_PREF_ALIGNMENT_A + operand, &alignment,
                                    sizeof alignment);
    return check(result, "cublasLtMatmulPreferenceSetAttribute", err);
}

static enum ts_status make_handle(struct cuda_blaslt *b, struct ts_error *err)
{
    const int32_t transposed = BLASLT_OP_T;
    enum ts_status status = check(api.create(&b->handle), "cublasLtCreate", err);
    if (status == TS_OK)
        status = check(api.desc_create(&b->desc, BLASLT_COMPUTE_32F, BLASLT_R_32F),
                       "cublasLtMatmulDescCreate", err);
    if (status == TS_OK)
        status = check(api.desc_set(b->desc, BLASLT_DESC_TRANSA, &transposed, sizeof transposed),
                       "cublasLtMatmulDescSetAttribute", err);
    if (status == TS_OK)
        status = make_preference(b, err);
    return status;
}

enum ts_status cuda_blaslt_open(struct ts_cuda *cuda, struct cuda_blaslt **out, struct ts_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = NULL;
    if (ts_cuda_properties(cuda)->emulated || !ts_cuda_native_stream(cuda))
        return ts_error_set(err, TS_EUNSUPPORTED, "the CPU does it");
    pthread_once(&once, load);
    if (reason[0])
        return ts_error_set(err, TS_EUNSUPPORTED, "%s", reason);
    struct cuda_blaslt *b = ts_xcalloc(1, sizeof *b);
    b->cuda = cuda;
    b->workspace_bytes = ts_cuda_properties(cuda)->capability >= 90 ? WORKSPACE_BYTES_90 : WORKSPACE_BYTES;
    size_t version = api.version(), major = version / 10000, minor = version / 100 % 100;
    snprintf(b->name, sizeof b->name, "cuBLASLt %zu.%zu.%zu, %s", major, minor, version % 100,
             path_of_library);
    enum ts_status status = ts_cuda_alloc(cuda, b->workspace_bytes, &b->workspace, err);
    if (status == TS_OK && make_handle(b, err) != TS_OK)
        status = ts_error_set(err, TS_EUNSUPPORTED, "%s cannot be used", b->name);
    *out = b;
    if (status != TS_OK)
        cuda_blaslt_close(out);
    return status;
}

void cuda_blaslt_close(struct cuda_blaslt **blaslt)
{
    struct cuda_blaslt *b = *blaslt;
    if (!b)
        return;
    if (b->preference)
        api.preference_destroy(b->preference);
    if (b->desc)
        api.desc_destroy(b->desc);
    if (b->handle)
        api.destroy(b->handle);
    ts_cuda_free(b->cuda, &b->workspace);
    ts_free(b);
    *blaslt = NULL;
}

const char *cuda_blaslt_name(const struct cuda_blaslt *blaslt)
{
    return blaslt->name;
}

size_t cuda_blaslt_version(const struct cuda_blaslt *blaslt)
{
    (void)blaslt;
    return api.version();
}

/* --- products ------------------------------------------------------------------------------------------- */

struct layouts {
    cublasLtMatrixLayout_t w, x, y;
};

static void layouts_fini(struct layouts *l)
{
    if (l->w)
        api.layout_destroy(l->w);
    if (l->x)
        api.layout_destroy(l->x);
    if (l->y)
        api.layout_destroy(l->y);
}

/* Column-major: W is inputs x outputs, x inputs x m, y outputs x m. */
static enum ts_status layouts_init(struct layouts *l, const struct cuda_blaslt_product *p,
                                   struct ts_error *err)
{
    const cudaDataType_t type = p->bf16 ? BLASLT_R_16BF : BLASLT_R_16F;
    *l = (struct layouts){NULL, NULL, NULL};
    TS_ASSERT(p->kind != CUDA_GEMM_SWIGLU);
    cublasStatus_t result = api.layout_create(&l->w, type, p->inputs, p->outputs, p->inputs);
    if (result == 0)
        result = api.layout_create(&l->x, type, p->inputs, p->m, p->inputs);
    if (result == 0)
        result = api.layout_create(&l->y, p->kind == CUDA_GEMM_Y_16 ? type : (cudaDataType_t)BLASLT_R_32F,
                                   p->outputs, p->m, p->outputs);
    if (result != 0)
        layouts_fini(l);
    return check(result, "cublasLtMatrixLayoutCreate", err);
}

enum ts_status cuda_blaslt_query(struct cuda_blaslt *b, const struct cuda_blaslt_product *product,
                                 struct cuda_blaslt_algorithm *out, uint32_t max, uint32_t *count,
                                 struct ts_error *err)
{
    cublasLtMatmulHeuristicResult_t results[16];
    struct layouts l;
    int found = 0;
    *count = 0;
    enum ts_status status = layouts_init(&l, product, err);
    if (status != TS_OK)
        return status;
    ts_cuda_native_stream(b->cuda); /* makes the device the thread's */
    cublasStatus_t result = api.heuristic(b->handle, b->desc, l.w, l.x, l.y, l.y, b->preference,
                                          max < 16 ? (int)max : 16, results, &found);
    layouts_fini(&l);
    for (int i = 0; i < found && result == 0; i++) {
        if (results[i].state == 0 && results[i].workspaceSize <= b->workspace_bytes)
            memcpy(&out[(*count)++], &results[i].algo, sizeof *out);
    }
    if (*count == 0)
        return ts_error_set(err, TS_EUNSUPPORTED, "%s: no algorithm for %u x %u and %u rows: %s", b->name,
                            product->outputs, product->inputs, product->m, api.status_name(result));
    return TS_OK;
}

bool cuda_blaslt_takes(struct cuda_blaslt *b, const struct cuda_blaslt_product *product,
                       const struct cuda_blaslt_algorithm *algorithm)
{
    cublasLtMatmulHeuristicResult_t result;
    cublasLtMatmulAlgo_t algo;
    struct layouts l;
    if (layouts_init(&l, product, NULL) != TS_OK)
        return false;
    memcpy(&algo, algorithm, sizeof algo);
    memset(&result, 0, sizeof result);
    bool takes = api.check(b->handle, b->desc, l.w, l.x, l.y, l.y, &algo, &result) == 0 &&
                 result.workspaceSize <= b->workspace_bytes;
    layouts_fini(&l);
    return takes;
}

enum ts_status cuda_blaslt_run(struct cuda_blaslt *b, struct ts_cuda *cuda,
                               const struct cuda_blaslt_product *product,
                               const struct cuda_blaslt_algorithm *algorithm, ts_cuda_address w,
                               ts_cuda_address x, ts_cuda_address y, struct ts_error *err)
{
    const float one = 1, beta = product->kind == CUDA_GEMM_Y_ADD_F32 ? 1 : 0;
    void *d = (void *)(uintptr_t)y;
    cublasLtMatmulAlgo_t algo;
    struct layouts l;
    enum ts_status status = layouts_init(&l, product, err);
    if (status != TS_OK)
        return status;
    memcpy(&algo, algorithm, sizeof algo);
    cublasStatus_t result = api.matmul(
        b->handle, b->desc, &one, (const void *)(uintptr_t)w, l.w, (const void *)(uintptr_t)x, l.x, &beta, d,
        l.y, d, l.y, &algo, (void *)(uintptr_t)b->workspace, b->workspace_bytes, ts_cuda_native_stream(cuda));
    layouts_fini(&l);
    return check(result, "cublasLtMatmul", err);
}
