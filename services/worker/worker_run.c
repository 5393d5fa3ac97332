#include "services/worker/worker_run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/run/ts_jobs.h"
#include "common/text/ts_textstream.h"

/* Those beside the first wait for a device to restore. */
#define WORKER_JOB_THREADS        1
#define WORKER_JOB_THREADS_DEVICE 4

struct stream {
    struct ts_textstream *text;
    enum ts_text_finish complete; /* how the produced tokens end it, if they do */
};

struct worker_run {
    struct ts_engine *engine;
    const struct ts_engine_info *info;
    struct ts_pool *pool;           /* the engine's */
    struct ts_tokenizer *tokenizer; /* NULL: token ids only */
    struct ts_jobs *jobs;
    struct ts_map *streams; /* tag -> struct stream */
    struct ts_engine_row *rows;
    size_t row_capacity;
    struct ts_arena arena; /* texts of one BATCH_DONE */
    struct ts_error fault; /* of its device, which is lost: the core drains */
};

struct tokenise_job {
    struct ts_job job;
    uint64_t id;
    struct worker_run *run;
    enum ts_prompt_kind kind;
    struct ts_frame *frame;
    uint32_t *ids;
    size_t count;
    enum ts_reason reason;
    struct ts_error err;
};

struct scatter_job {
    struct ts_job job;
    uint64_t id;
    struct worker_run *run;
    struct ts_frame *frame;
    struct ts_pool_piece piece;
    uint32_t crc;
    uint64_t *digests;
    enum ts_reason reason;
    struct ts_error err;
};

struct encode_job {
    struct ts_job job;
    uint64_t id;
    struct ts_pool *pool;
    struct ts_pool_piece piece;
    struct ts_frame *frame;
    struct ts_pool_given given;
    uint64_t *digests;
    enum ts_reason reason;
    struct ts_error err;
};

struct refused_job { /* a batch that the engine does not take any more */
    struct ts_job job;
    uint64_t batch;
};

enum ts_status worker_run_open(const struct ts_engine_options *options, struct worker_run **out,
                               struct ts_error *err)
{
    struct worker_run *run = ts_xcalloc(1, sizeof *run);
    char path[4096];
    ts_arena_init(&run->arena);
    run->streams = ts_map_new();
    struct ts_engine_options with_ids = *options;
    enum ts_status status = TS_OK;
    snprintf(path, sizeof path, "%s/tokenizer.json", options->model_dir ? options->model_dir : "");
    if (access(path, F_OK) == 0)
        status = ts_tokenizer_open(path, &run->tokenizer, err);
    if (status == TS_OK && run->tokenizer)
        with_ids.token_ids = ts_tokenizer_vocab_size(run->tokenizer);
    if (status == TS_OK)
        status = ts_engine_open(&with_ids, &run->engine, err);
    if (status == TS_OK) {
        run->info = ts_engine_info(run->engine);
        status = ts_pool_of_engine(run->info, WORKER_JOB_THREADS_DEVICE, &run->pool, err);
    }
    if (status == TS_OK) {
        bool waits = ts_pool_on_device(run->pool);
        run->jobs = ts_jobs_new(waits ? WORKER_JOB_THREADS_DEVICE : WORKER_JOB_THREADS);
    }
    if (status != TS_OK)
        worker_run_close(&run);
    *out = run;
    return status;
}

static void free_job(struct ts_job *job);
static void free_stream(struct stream *stream);

void worker_run_close(struct worker_run **run)
{
    struct worker_run *r = *run;
    if (!r)
        return;
    if (r->jobs)
        ts_jobs_settle(r->jobs);
    for (struct ts_job *job; r->jobs && (job = ts_jobs_take(r->jobs));)
        free_job(job);
    ts_jobs_destroy(&r->jobs);
    ts_pool_close(&r->pool);
    ts_engine_close(&r->engine);
    size_t cursor = 0;
    struct stream *stream;
    while ((stream = ts_map_next(r->streams, &cursor, NULL, NULL)))
        free_stream(stream);
    ts_map_destroy(&r->streams);
    ts_tokenizer_destroy(&r->tokenizer);
    ts_arena_fini(&r->arena);
    ts_free(r->rows);
    ts_free(r);
    *run = NULL;
}

const struct ts_engine_info *worker_run_info(const struct worker_run *run)
{
    return run->info;
}

struct ts_pool *worker_run_pool(struct worker_run *run)
{
    return run->pool;
}

struct ts_engine *worker_run_engine(struct worker_run *run)
{
    return run->engine;
}

bool worker_run_has_tokenizer(const struct worker_run *run)
{
    return run->tokenizer != NULL;
}

static void tokenise_ids(struct tokenise_job *job)
{
    const struct ts_frame *f = job->frame;
    uint32_t vocab = job->run->info->model.vocab;
    if (f->bytes == 0 || f->bytes % 4 != 0) {
        ts_error_set(&job->err, TS_EINVAL, "a token prompt of %zu bytes is not a list of 32-bit ids",
                     f->bytes);
        return;
    }
    job->count = f->bytes / 4;
    job->ids = ts_xmalloc(f->bytes);
    memcpy(job->ids, f->data, f->bytes);
    for (size_t i = 0; i < job->count; i++) {
        if (job->ids[i] >= vocab) {
            ts_error_set(&job->err, TS_EINVAL, "prompt token %zu is %u, but the model has %u ids", i,
                         job->ids[i], vocab);
            return;
        }
    }
}

static void run_tokenise(struct ts_job *base)
{
    struct tokenise_job *job = (struct tokenise_job *)base;
    struct ts_tokenizer *tokenizer = job->run->tokenizer;
    if (job->kind == TS_PROMPT_TOKENS)
        tokenise_ids(job);
    else if (job->kind == TS_PROMPT_CHAT)
        ts_error_set(
            &job->err, TS_EUNSUPPORTED,
            "chat prompts need a chat template, which this version does not apply: send text or tokens");
    else if (!tokenizer)
        ts_error_set(&job->err, TS_EUNSUPPORTED, "the model folder has no tokenizer.json: send token ids");
    else if (ts_tokenizer_encode(tokenizer, (const char *)job->frame->data, job->frame->bytes,
                                 TS_ENCODE_ADD_SPECIAL, &job->ids, &job->count, &job->err) == TS_OK &&
             job->count == 0)
        ts_error_set(&job->err, TS_EINVAL, "the prompt is empty: send at least one token");
    if (job->err.status != TS_OK)
        job->reason = job->err.status == TS_EUNSUPPORTED ? TS_REASON_UNSUPPORTED : TS_REASON_BAD_REQUEST;
}

static void perform_tokenise(struct worker_run *run, struct ts_service *service,
                             const struct ts_action_tokenise *a)
{
    struct tokenise_job *job = ts_xcalloc(1, sizeof *job);
    job->job.run = run_tokenise;
    job->id = a->job;
    job->run = run;
    job->kind = a->prompt_kind;
    struct ts_frame *frame = ts_bulk_frame(ts_service_bulks(service), a->bulk);
    job->frame = frame ? ts_frame_ref(frame) : ts_frame_new(0);
    ts_jobs_submit(run->jobs, &job->job);
}

static void free_stream(struct stream *stream)
{
    if (stream)
        ts_textstream_destroy(&stream->text);
    ts_free(stream);
}

static void close_stream(struct worker_run *run, uint64_t tag)
{
    free_stream(ts_map_remove_u64(run->streams, tag));
}

static void perform_text_open(struct worker_run *run, const struct ts_action_text_open *a)
{
    struct ts_text_stop stops[TS_STOPS_MAX];
    const struct ts_model *model = &run->info->model;
    struct ts_textstream_params params = {.eos = model->eos,
                                          .eos_count = model->eos_count,
                                          .ignore_eos = a->sampling.ignore_eos,
                                          .min_tokens = a->sampling.min_tokens,
                                          .max_tokens = a->sampling.max_tokens,
                                          .stops = stops};
    for (uint32_t i = 0; i < a->stops.count && i < TS_STOPS_MAX; i++) {
        struct ts_str text = a->stops.data[i].text;
        if (text.count > 0)
            stops[params.stop_count++] = (struct ts_text_stop){text.data, text.count};
    }
    close_stream(run, a->tag);
    struct stream *stream = ts_xcalloc(1, sizeof *stream);
    stream->text = ts_textstream_new(run->tokenizer, &params);
    for (uint32_t i = 0; i < a->produced.count && stream->complete == TS_TEXT_NONE; i++) {
        struct ts_text_event delivered;
        ts_textstream_push(stream->text, a->produced.data[i], &delivered);
        stream->complete = delivered.finish;
    }
    ts_map_put_u64(run->streams, a->tag, stream);
}

static void run_refused(struct ts_job *base)
{
    (void)base; /* nothing to do but to come back */
}

static void perform_batch(struct worker_run *run, const struct ts_action_batch *a)
{
    ts_array_reserve((void **)&run->rows, &run->row_capacity, a->rows.count, sizeof *run->rows);
    for (uint32_t i = 0; i < a->rows.count; i++) {
        const struct ts_batch_row *from = &a->rows.data[i];
        run->rows[i] = (struct ts_engine_row){.tag = from->tag,
                                              .position = from->position,
                                              .token_count = from->tokens.count,
                                              .tokens = from->tokens.data,
                                              .blocks = from->blocks.data,
                                              .block_count = from->blocks.count,
                                              .sample = from->sample,
                                              .sample_index = from->sample_index,
                                              .sampling = from->sample ? &from->sampling : NULL,
                                              .prompt_ids = from->prompt_ids.data,
                                              .prompt_count = from->prompt_ids.count,
                                              .output_ids = from->output_ids.data,
                                              .output_count = from->output_ids.count};
    }
    struct ts_engine_batch batch = {
        .id = a->batch, .rows = run->rows, .row_count = a->rows.count, .report_layers = a->report_layers};
    struct ts_error err = {0};
    enum ts_status status = ts_engine_submit(run->engine, &batch, &err);
    if (status == TS_EIO) { /* its device is lost: the batch has failed, once this action is performed */
        struct refused_job *job = ts_xcalloc(1, sizeof *job);
        job->job.run = run_refused;
        job->batch = a->batch;
        ts_jobs_submit(run->jobs, &job->job);
        return;
    }
    if (status != TS_OK)
        fprintf(stderr, "engine refused a batch: %s\n", err.text);
    TS_ASSERT(status == TS_OK); /* the core builds batches within the engine's announced limits */
}

static void run_scatter(struct ts_job *base)
{
    struct scatter_job *job = (struct scatter_job *)base;
    const struct ts_frame *frame = job->frame;
    if (job->reason == TS_REASON_NONE)
        job->reason =
            ts_pool_reason(ts_pool_take(job->run->pool, &job->piece, frame ? frame->data : NULL,
                                        frame ? frame->bytes : 0, job->crc, job->digests, &job->err));
}

static void perform_scatter(struct worker_run *run, struct ts_service *service,
                            const struct ts_action_scatter *a)
{
    struct scatter_job *job = ts_xcalloc(1, sizeof *job);
    struct ts_frame *frame = ts_bulk_frame(ts_service_bulks(service), a->bulk);
    job->job.run = run_scatter;
    job->id = a->job;
    job->run = run;
    job->frame = frame ? ts_frame_ref(frame) : NULL;
    job->crc = a->crc32c;
    job->piece = ts_pool_piece_to_take(a);
    if (!ts_pool_fits(run->pool, &job->piece)) {
        job->reason = TS_REASON_KV_MISMATCH;
        job->piece.head_count = 0;
    }
    job->digests = ts_xcalloc((size_t)job->piece.head_count + 1, sizeof *job->digests);
    ts_jobs_submit(run->jobs, &job->job);
}

static void run_encode(struct ts_job *base)
{
    struct encode_job *job = (struct encode_job *)base;
    if (job->reason != TS_REASON_NONE)
        return;
    size_t room = ts_pool_give_bytes(job->pool, &job->piece);
    job->frame = room ? ts_frame_new(room) : NULL;
    enum ts_status status = ts_pool_give(job->pool, &job->piece, room ? job->frame->data : NULL, job->digests,
                                         &job->given, &job->err);
    job->reason = ts_pool_reason(status);
    if (job->frame)
        job->frame->bytes = job->given.bytes;
}

static void perform_encode(struct worker_run *run, const struct ts_action_encode *a)
{
    struct encode_job *job = ts_xcalloc(1, sizeof *job);
    job->job.run = run_encode;
    job->id = a->job;
    job->pool = run->pool;
    job->piece = ts_pool_piece_to_give(a);
    if (!ts_pool_fits(run->pool, &job->piece)) {
        job->reason = TS_REASON_KV_MISMATCH;
        job->piece.head_count = 0;
    }
    job->digests = ts_xcalloc((size_t)job->piece.head_count + 1, sizeof *job->digests);
    ts_jobs_submit(run->jobs, &job->job);
}

/* Before anything else is written to them: a relay that still reads compares (relay_run.c). */
static void perform_free_blocks(struct worker_run *run, const struct ts_action_free_blocks *a)
{
    for (uint32_t i = 0; run->info->generations && i < a->blocks.count; i++)
        __atomic_add_fetch(&run->info->generations[a->blocks.data[i]], 1, __ATOMIC_SEQ_CST);
}

static void perform(void *context, struct ts_service *service, const struct ts_action *action)
{
    struct worker_run *run = context;
    switch (action->kind) {
    case TS_ACTION_TOKENISE:
        perform_tokenise(run, service, &action->tokenise);
        break;
    case TS_ACTION_TEXT_OPEN:
        perform_text_open(run, &action->text_open);
        break;
    case TS_ACTION_TEXT_CLOSE:
        close_stream(run, action->text_close.tag);
        break;
    case TS_ACTION_BATCH:
        perform_batch(run, &action->batch);
        break;
    case TS_ACTION_SCATTER:
        perform_scatter(run, service, &action->scatter);
        break;
    case TS_ACTION_ENCODE:
        perform_encode(run, &action->encode);
        break;
    case TS_ACTION_FREE_BLOCKS:
        perform_free_blocks(run, &action->free_blocks);
        break;
    default:
        TS_ASSERT(!"an action that a worker does not perform");
    }
}

static void fill_sample(struct worker_run *run, const struct ts_engine_sample *from,
                        struct ts_batch_sample *to)
{
    static const enum ts_finish finish[] = {[TS_TEXT_NONE] = TS_FINISH_NONE,
                                            [TS_TEXT_STOP] = TS_FINISH_STOP,
                                            [TS_TEXT_LENGTH] = TS_FINISH_LENGTH};
    struct stream *stream = ts_map_get_u64(run->streams, from->tag);
    struct ts_top *top = ts_arena_alloc(&run->arena, sizeof *top * (from->top_count + 1));
    to->tag = from->tag;
    to->item =
        (struct ts_token_item){.token = from->token, .logprob = from->logprob, .top = {top, from->top_count}};
    for (uint32_t i = 0; i < from->top_count; i++)
        top[i] = (struct ts_top){.token = from->top[i].token, .logprob = from->top[i].logprob};
    if (!stream) /* closed while the batch ran: nobody will look at it */
        return;
    to->complete = stream->complete != TS_TEXT_NONE;
    to->finish = finish[stream->complete];
    if (to->complete)
        return;
    struct ts_text_event text;
    ts_textstream_push(stream->text, from->token, &text);
    to->item.text = (struct ts_str){ts_arena_copy(&run->arena, text.text, text.bytes), (uint32_t)text.bytes};
    to->finish = finish[text.finish];
}

/* Whoever can go on does so elsewhere: the core takes nothing new, what it has fails batch by batch, and then
 * it stops. */
static void device_lost(struct worker_run *run, struct ts_service *service, const char *why)
{
    struct ts_event event = {.kind = TS_EVENT_DRAIN};
    if (run->fault.status != TS_OK)
        return;
    ts_error_set(&run->fault, TS_EIO, "%s", why);
    ts_log(TS_LOG_ERROR, "event=device_lost text=\"%s\"", run->fault.text);
    ts_service_step(service, &event);
}

static void finish_batch(struct worker_run *run, struct ts_service *service,
                         const struct ts_engine_event *from)
{
    ts_arena_reset(&run->arena);
    struct ts_batch_sample *samples =
        ts_arena_zalloc(&run->arena, sizeof *samples * (from->sample_count + 1));
    bool ok = from->status == TS_OK;
    const char *fault = ok ? NULL : ts_engine_fault(run->engine);
    for (uint32_t i = 0; ok && i < from->sample_count; i++)
        fill_sample(run, &from->samples[i], &samples[i]);
    struct ts_event event = {.kind = TS_EVENT_BATCH_DONE,
                             .batch_done = {.batch = from->batch,
                                            .reason = ok ? TS_REASON_NONE : TS_REASON_ENGINE,
                                            .text = ts_str_of(ok      ? ""
                                                              : fault ? fault
                                                                      : ts_status_name(from->status)),
                                            .samples = {samples, ok ? from->sample_count : 0},
                                            .compute_ns = from->compute_ns}};
    if (fault)
        device_lost(run, service, fault);
    ts_service_step(service, &event);
}

static void free_job(struct ts_job *base)
{
    if (base->run == run_tokenise) {
        struct tokenise_job *job = (struct tokenise_job *)base;
        ts_frame_unref(&job->frame);
        ts_free(job->ids);
    } else if (base->run == run_scatter) {
        struct scatter_job *job = (struct scatter_job *)base;
        ts_frame_unref(&job->frame);
        ts_pool_piece_fini(&job->piece);
        ts_free(job->digests);
    } else if (base->run == run_encode) {
        struct encode_job *job = (struct encode_job *)base;
        ts_frame_unref(&job->frame);
        ts_pool_piece_fini(&job->piece);
        ts_free(job->digests);
    }
    ts_free(base);
}

static struct ts_event tokenised(const struct tokenise_job *job)
{
    return (struct ts_event){
        .kind = TS_EVENT_TOKENISED,
        .tokenised = {.job = job->id,
                      .reason = job->reason,
                      .text = ts_str_of(job->err.text),
                      .ids = {job->ids, job->reason == TS_REASON_NONE ? (uint32_t)job->count : 0}}};
}

static struct ts_event scattered(const struct scatter_job *job)
{
    return (struct ts_event){.kind = TS_EVENT_SCATTERED,
                             .scattered = {.job = job->id,
                                           .reason = job->reason,
                                           .digests = {job->digests, job->piece.head_count}}};
}

static struct ts_event encoded(struct encode_job *job, struct ts_service *service)
{
    struct ts_event event = {.kind = TS_EVENT_ENCODED,
                             .encoded = {.job = job->id,
                                         .reason = job->reason,
                                         .text = ts_str_of(job->err.text),
                                         .declared_bytes = job->given.declared_bytes,
                                         .crc32c = job->given.crc,
                                         .escapes = job->given.escapes,
                                         .digests = {job->digests, job->piece.head_count}}};
    if (job->frame)
        event.encoded.bulk = ts_bulk_put(ts_service_bulks(service), &job->frame);
    return event;
}

/* Of a pool job that the device could not do, and never will again. */
static const char *lost_by(const struct ts_job *base)
{
    if (base->run == run_scatter && ((const struct scatter_job *)base)->reason == TS_REASON_ENGINE)
        return ((const struct scatter_job *)base)->err.text;
    if (base->run == run_encode && ((const struct encode_job *)base)->reason == TS_REASON_ENGINE)
        return ((const struct encode_job *)base)->err.text;
    return NULL;
}

static void finish_job(struct worker_run *run, struct ts_job *base, struct ts_service *service)
{
    struct ts_event event;
    const char *lost = lost_by(base);
    if (base->run == run_refused) {
        finish_batch(
            run, service,
            &(struct ts_engine_event){.batch = ((struct refused_job *)base)->batch, .status = TS_EIO});
        free_job(base);
        return;
    }
    event = base->run == run_tokenise  ? tokenised((struct tokenise_job *)base)
            : base->run == run_scatter ? scattered((struct scatter_job *)base)
                                       : encoded((struct encode_job *)base, service);
    if (lost)
        device_lost(run, service, lost);
    ts_service_step(service, &event);
    free_job(base);
}

static void readable(void *context, struct ts_service *service)
{
    struct worker_run *run = context;
    struct ts_engine_event from;
    struct ts_job *job;
    while ((job = ts_jobs_take(run->jobs)))
        finish_job(run, job, service);
    while (ts_engine_poll(run->engine, &from) == TS_OK) {
        if (from.kind == TS_ENGINE_BATCH_DONE) {
            finish_batch(run, service, &from);
            continue;
        }
        struct ts_event event = {.kind = TS_EVENT_LAYER_DONE,
                                 .layer_done = {.batch = from.batch, .layer = from.layer}};
        ts_service_step(service, &event);
    }
}

const char *worker_run_fault(const struct worker_run *run)
{
    return run->fault.status != TS_OK ? run->fault.text : NULL;
}

struct ts_service_hooks worker_run_hooks(struct worker_run *run)
{
    return (struct ts_service_hooks){.context = run,
                                     .perform = perform,
                                     .fds = {ts_jobs_fd(run->jobs), ts_engine_event_fd(run->engine)},
                                     .fd_count = 2,
                                     .readable = readable};
}
