/* Rows of a batch as the kernels of sample.cu take them, and what they answer. */
#include "gpu/cuda/sample/cuda_sample.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cuda/sample/sample_args.h"
#include "gpu/engine/ts_sampler.h"

#define EDITS_DEFAULT 65536u

_Static_assert(SAMPLE_TOP == TS_LOGPROBS_MAX, "as many as a sample holds");

/* The same memory on host and device. */
struct pair {
    void *here;
    ts_cuda_address there;
};

struct cuda_sample {
    const struct ts_model *model;
    uint32_t ids, rows_max, edits_max, edits_count;
    uint32_t scan_threads, cells_each; /* of the first kernel: how a row is divided */
    struct pair row_pair, edit_pair, result_pair;
    struct sample_row *rows;       /* [rows_max], and so on: the host's sides of the pairs */
    struct sample_edit *edits;     /* [edits_max] */
    struct sample_result *results; /* [rows_max] */
    uint32_t *place;               /* [ids]: of a token's edit in the row under way, from 1; else 0 */
    ts_cuda_address cells;
};

static enum ts_status take(struct ts_cuda *cuda, size_t bytes, struct pair *p, struct ts_error *err)
{
    enum ts_status status = ts_cuda_pin(cuda, bytes, &p->here, err);
    return status == TS_OK ? ts_cuda_alloc(cuda, bytes, &p->there, err) : status;
}

static void give_back(struct ts_cuda *cuda, struct pair *p)
{
    ts_cuda_unpin(cuda, &p->here);
    ts_cuda_free(cuda, &p->there);
}

enum ts_status cuda_sample_new(struct ts_cuda *cuda, const struct cuda_sample_options *options,
                               struct cuda_sample **out, struct ts_error *err)
{
    struct cuda_sample *s = ts_xcalloc(1, sizeof *s);
    uint32_t vocab = options->model->vocab, rows = options->rows_max;
    TS_ASSERT(rows > 0 && vocab > 0 && vocab <= 1u << 19); /* sampling_math.h: sums of weights */
    s->model = options->model;
    s->ids = options->token_ids && options->token_ids < vocab ? options->token_ids : vocab;
    s->rows_max = rows;
    s->edits_max = options->edits_max ? options->edits_max : EDITS_DEFAULT;
    s->scan_threads = s->ids > 64 * SAMPLE_SCAN_EACH ? SAMPLE_SCAN_THREADS : 64;
    s->cells_each = (s->ids + s->scan_threads * SAMPLE_SCAN_EACH - 1) / (s->scan_threads * SAMPLE_SCAN_EACH);
    s->place = ts_xcalloc(s->ids, sizeof *s->place);
    enum ts_status status = take(cuda, rows * sizeof *s->rows, &s->row_pair, err);
    if (status == TS_OK)
        status = take(cuda, s->edits_max * sizeof *s->edits, &s->edit_pair, err);
    if (status == TS_OK)
        status = take(cuda, rows * sizeof *s->results, &s->result_pair, err);
    if (status == TS_OK)
        status =
            ts_cuda_alloc(cuda, (size_t)rows * s->cells_each * sizeof(struct sample_cell), &s->cells, err);
    if (status == TS_OK) {
        s->rows = s->row_pair.here;
        s->edits = s->edit_pair.here;
        s->results = s->result_pair.here;
        cuda_sample_begin(s);
    } else {
        cuda_sample_free(cuda, &s);
    }
    *out = s;
    return status;
}

void cuda_sample_free(struct ts_cuda *cuda, struct cuda_sample **sample)
{
    struct cuda_sample *s = *sample;
    if (!s)
        return;
    give_back(cuda, &s->row_pair);
    give_back(cuda, &s->edit_pair);
    give_back(cuda, &s->result_pair);
    ts_cuda_free(cuda, &s->cells);
    ts_free(s->place);
    ts_free(s);
    *sample = NULL;
}

/* --- rows ----------------------------------------------------------------------------------------------- */

void cuda_sample_begin(struct cuda_sample *sample)
{
    memset(sample->rows, 0, sample->rows_max * sizeof *sample->rows);
    sample->edits_count = 0;
}

/* The token's edit in this row, a new one if it has none; NULL: there is no room. */
static struct sample_edit *edit_of(struct cuda_sample *s, uint32_t token)
{
    if (s->place[token] == 0) {
        if (s->edits_count == s->edits_max)
            return NULL;
        s->edits[s->edits_count++] = (struct sample_edit){token, 0};
        s->place[token] = s->edits_count;
    }
    return &s->edits[s->place[token] - 1];
}

static bool edit_history(struct cuda_sample *s, const struct ts_engine_row *row)
{
    for (uint32_t i = 0; i < row->prompt_count; i++) {
        if (row->prompt_ids[i] < s->ids && !edit_of(s, row->prompt_ids[i]))
            return false;
    }
    for (uint32_t i = 0; i < row->output_count; i++) {
        if (row->output_ids[i] >= s->ids)
            continue;
        struct sample_edit *edit = edit_of(s, row->output_ids[i]);
        if (!edit)
            return false;
        edit->count++;
    }
    return true;
}

static bool edit_eos(struct cuda_sample *s)
{
    for (uint32_t i = 0; i < s->model->eos_count; i++) {
        struct sample_edit *edit = s->model->eos[i] < s->ids ? edit_of(s, s->model->eos[i]) : NULL;
        if (edit)
            edit->count = SAMPLE_MASKED;
        else if (s->model->eos[i] < s->ids)
            return false;
    }
    return true;
}

/* What changes of the row's logits, from edits_count on; false: there is no room for it. */
static bool edit_row(struct cuda_sample *s, const struct ts_engine_row *row)
{
    const struct ts_sampling *p = row->sampling;
    uint32_t begin = s->edits_count;
    bool fits = (!ts_sampler_penalises(p) || edit_history(s, row)) &&
                (row->sample_index >= p->min_tokens || edit_eos(s));
    for (uint32_t i = begin; i < s->edits_count; i++)
        s->place[s->edits[i].token] = 0;
    if (!fits)
        s->edits_count = begin;
    return fits;
}

bool cuda_sample_set(struct cuda_sample *sample, uint32_t index, const struct ts_engine_row *row)
{
    const struct ts_sampling *p = row->sampling;
    uint32_t begin = sample->edits_count;
    TS_ASSERT(index < sample->rows_max && row->sample && p);
    if (!edit_row(sample, row))
        return false;
    sample->rows[index] = (struct sample_row){.unit = ts_philox_unit(p->seed, row->sample_index),
                                              .coldness = ts_sampler_coldness(p),
                                              .log_min_p = ts_sampler_log_min_p(p),
                                              .top_p = p->top_p,
                                              .repetition = p->repetition_penalty,
                                              .presence = p->presence_penalty,
                                              .frequency = p->frequency_penalty,
                                              .top_k = p->top_k,
                                              .logprobs = p->logprobs < SAMPLE_TOP ? p->logprobs : SAMPLE_TOP,
                                              .edits_begin = begin,
                                              .edits_count = sample->edits_count - begin};
    return true;
}

/* --- batches -------------------------------------------------------------------------------------------- */

enum ts_status cuda_sample_upload(struct cuda_sample *sample, struct ts_cuda *cuda, uint32_t rows,
                                  struct ts_error *err)
{
    enum ts_status status = TS_OK;
    TS_ASSERT(rows <= sample->rows_max);
    if (rows > 0)
        status = ts_cuda_upload(cuda, sample->row_pair.there, sample->rows, rows * sizeof *sample->rows, err);
    if (status == TS_OK && sample->edits_count > 0)
        status = ts_cuda_upload(cuda, sample->edit_pair.there, sample->edits,
                                sample->edits_count * sizeof *sample->edits, err);
    return status;
}

static void *at(ts_cuda_address address)
{
    return (void *)(uintptr_t)address;
}

enum ts_status cuda_sample_run(struct cuda_sample *sample, struct ts_cuda *cuda, ts_cuda_address logits,
                               uint32_t rows, struct ts_error *err)
{
    struct sample_args args = {.logits = at(logits),
                               .rows = at(sample->row_pair.there),
                               .edits = at(sample->edit_pair.there),
                               .cells = at(sample->cells),
                               .results = at(sample->result_pair.there),
                               .vocab = sample->model->vocab,
                               .ids = sample->ids,
                               .cells_each = sample->cells_each};
    uint32_t threads = 64; /* a small vocabulary does not fill more */
    TS_ASSERT(rows <= sample->rows_max);
    if (rows == 0)
        return TS_OK;
    while (threads < SAMPLE_PICK_THREADS && threads * 16 < sample->ids)
        threads *= 2;
    enum ts_status status =
        ts_cuda_launch(cuda, "cuda_sample_scan", (struct ts_cuda_dim){rows * sample->cells_each, 1, 1},
                       (struct ts_cuda_dim){sample->scan_threads, 1, 1}, 0, &args, sizeof args, err);
    if (status == TS_OK)
        status = ts_cuda_launch(cuda, "cuda_sample_pick", (struct ts_cuda_dim){rows, 1, 1},
                                (struct ts_cuda_dim){threads, 1, 1}, 0, &args, sizeof args, err);
    return status;
}

enum ts_status cuda_sample_download(struct cuda_sample *sample, struct ts_cuda *cuda, uint32_t rows,
                                    struct ts_error *err)
{
    TS_ASSERT(rows <= sample->rows_max);
    return rows == 0 ? TS_OK
                     : ts_cuda_download(cuda, sample->results, sample->result_pair.there,
                                        rows * sizeof *sample->results, err);
}

void cuda_sample_get(const struct cuda_sample *sample, uint32_t index, struct ts_engine_sample *out)
{
    const struct sample_result *r = &sample->results[index];
    TS_ASSERT(index < sample->rows_max && r->top_count <= SAMPLE_TOP);
    double norm = r->best + log(r->sum > 0.5f ? (double)r->sum : 1);
    out->token = r->token;
    out->logprob = (float)(r->logit - norm);
    out->top_count = r->top_count;
    for (uint32_t i = 0; i < r->top_count; i++)
        out->top[i] = (struct ts_engine_logprob){r->top[i].token, (float)(r->top[i].logit - norm)};
}
