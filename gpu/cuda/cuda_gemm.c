#include "gpu/cuda/cuda_gemm.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cuda/cuda_skinny.h"

struct cuda_gemm {
    struct cuda_gemm_options options;
    bool bf16;
    uint32_t multiprocessors;
};

enum ts_status cuda_gemm_new(struct ts_cuda *cuda, const struct cuda_gemm_options *options,
                             struct cuda_gemm **out, struct ts_error *err)
{
    (void)err;
    TS_ASSERT(options->activations == TS_DTYPE_F16 || options->activations == TS_DTYPE_BF16);
    *out = ts_xcalloc(1, sizeof **out);
    (*out)->options = *options;
    (*out)->bf16 = options->activations == TS_DTYPE_BF16;
    (*out)->multiprocessors = ts_cuda_properties(cuda)->multiprocessors;
    return TS_OK;
}

void cuda_gemm_free(struct cuda_gemm **gemm)
{
    ts_free(*gemm);
    *gemm = NULL;
}

const char *cuda_gemm_library(const struct cuda_gemm *gemm)
{
    (void)gemm;
    return "none";
}

static enum ts_status check(const struct cuda_gemm *gemm, const struct cuda_gemm_use *use,
                            struct ts_error *err)
{
    enum cuda_matrix_type t = gemm->bf16 ? CUDA_MATRIX_BF16 : CUDA_MATRIX_F16;
    const struct cuda_matrix *w = &use->w;
    uint32_t step = w->type == CUDA_MATRIX_I8 ? 16 : 8;
    if (w->type != CUDA_MATRIX_I8 && w->type != t)
        return ts_error_set(err, TS_EINVAL, "weights and activations are of two 16-bit types");
    if (w->outputs == 0 || w->inputs == 0 || w->inputs % step)
        return ts_error_set(err, TS_EINVAL, "a matrix of %u x %u: inputs must be a multiple of %u",
                            w->outputs, w->inputs, step);
    if (use->y == CUDA_GEMM_SWIGLU && w->outputs % 16)
        return ts_error_set(err, TS_EINVAL, "gate and up of %u outputs are no runs of 8", w->outputs);
    return TS_OK;
}

enum ts_status cuda_gemm_prepare(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                 const struct cuda_gemm_use *uses, size_t count, uint32_t m_max,
                                 struct ts_error *err)
{
    (void)cuda, (void)m_max;
    for (size_t i = 0; i < count; i++) {
        enum ts_status status = check(gemm, &uses[i], err);
        if (status != TS_OK)
            return status;
    }
    return TS_OK;
}

static enum ts_status run(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *w,
                          ts_cuda_address x, uint32_t m, ts_cuda_address y, enum cuda_gemm_y y_kind,
                          struct ts_error *err)
{
    struct cuda_skinny_choice choice = cuda_skinny_guess(w->outputs, m, gemm->multiprocessors);
    return cuda_skinny_launch(cuda, choice, gemm->bf16, w, x, m, y, y_kind, err);
}

enum ts_status cuda_gemm_run(struct cuda_gemm *gemm, struct ts_cuda *cuda, const struct cuda_matrix *w,
                             ts_cuda_address x, uint32_t m, ts_cuda_address y, enum cuda_gemm_y y_kind,
                             struct ts_error *err)
{
    TS_ASSERT(y_kind != CUDA_GEMM_SWIGLU);
    return run(gemm, cuda, w, x, m, y, y_kind, err);
}

enum ts_status cuda_gemm_swiglu(struct cuda_gemm *gemm, struct ts_cuda *cuda,
                                const struct cuda_matrix *gate_up, ts_cuda_address x, uint32_t m,
                                ts_cuda_address out, ts_cuda_address scratch, struct ts_error *err)
{
    (void)scratch;
    return run(gemm, cuda, gate_up, x, m, out, CUDA_GEMM_SWIGLU, err);
}
