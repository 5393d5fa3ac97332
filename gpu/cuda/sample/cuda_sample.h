/*
 * From logits to tokens on a device (sample.cu): what ts_sample (gpu/engine) does on the CPU, for the rows of
 * a batch in two launches. The arithmetic that decides is in gpu/engine/sampling_math.h, which both include:
 * weights are whole numbers, whose sums do not depend on their order. So for equal logits both choose the
 * same token, always; log-probabilities agree within rounding (1e-5).
 *
 * On the device: penalties, the mask of eos before min_tokens, greedy choice (lowest id of equals),
 * temperature, min-p, top-k, top-p, the draw with ts_philox_unit(seed, index), log-probabilities of the
 * chosen and of the best tokens. Ids from token_ids on are padding: never chosen and never among the best.
 * Penalties concern the different tokens of a row's history, each an entry in a list that the batch shares; a
 * row for which the list has no room is declined, and its logits go to the host and to ts_sample.
 *
 * A batch: begin, set for each row, upload, run, download, wait for the device, get for each row. Run and
 * download may be captured into a graph for a number of rows: all addresses stay. What is not set since the
 * last begin is chosen greedily and means nothing. One thread at a time; set and begin must not be called
 * while an upload is under way.
 */
#ifndef TS_GPU_CUDA_SAMPLE_CUDA_SAMPLE_H
#define TS_GPU_CUDA_SAMPLE_CUDA_SAMPLE_H

#include <stdbool.h>

#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/ts_engine.h"

struct cuda_sample;

struct cuda_sample_options {
    const struct ts_model *model; /* vocab, eos; kept */
    uint32_t token_ids;           /* as of struct ts_engine_options; 0 = the whole vocabulary */
    uint32_t rows_max;
    uint32_t edits_max; /* entries of the list, 8 bytes each; 0 = 65536 */
};

enum ts_status cuda_sample_new(struct ts_cuda *cuda, const struct cuda_sample_options *options,
                               struct cuda_sample **out, struct ts_error *err);
void cuda_sample_free(struct ts_cuda *cuda, struct cuda_sample **sample); /* null-safe */

void cuda_sample_begin(struct cuda_sample *sample);
/* `index`: of the row's logits; `row->sample` is set. False: declined, and as if it had not been set. */
bool cuda_sample_set(struct cuda_sample *sample, uint32_t index, const struct ts_engine_row *row);

enum ts_status cuda_sample_upload(struct cuda_sample *sample, struct ts_cuda *cuda, uint32_t rows,
                                  struct ts_error *err);
/* `logits`: fp32 [rows][vocab], changed where penalties and masks change them. */
enum ts_status cuda_sample_run(struct cuda_sample *sample, struct ts_cuda *cuda, ts_cuda_address logits,
                               uint32_t rows, struct ts_error *err);
enum ts_status cuda_sample_download(struct cuda_sample *sample, struct ts_cuda *cuda, uint32_t rows,
                                    struct ts_error *err);

/* Of a row that was set, once its download is over. `out->tag` is left to the caller. */
void cuda_sample_get(const struct cuda_sample *sample, uint32_t index, struct ts_engine_sample *out);

#endif
