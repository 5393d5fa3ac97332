/*
 * The coarse seam: what prefill and decode workers call. An engine owns the weights of a layer range and
 * KV-head range of one model and a paged KV pool, and computes ragged batches. There are two kinds behind
 * this header: real (gpu/engine over a backend) and modelled (gpu/sim: computes nothing, takes the time of a
 * cost model, returns tokens that are a pure function of their history).
 *
 * A batch is a list of rows. A row computes `token_count` new tokens of one sequence at absolute positions
 * position..position+count-1, reading and writing the sequence's KV blocks; when `sample` is set it also
 * draws the token that follows. So a prefill chunk, a decode step and the replay of produced tokens are the
 * same operation, and the logits of a position depend on that sequence's tokens alone: not on the batch,
 * chunk cuts, thread count or phase (one summation order everywhere).
 *
 * Asynchronous: submit returns at once, one batch at a time; results come by poll. `fd` of ts_engine_event_fd
 * becomes readable when poll has something. All calls from one thread. Memory: the engine borrows the batch's
 * arrays until BATCH_DONE was polled.
 */
#ifndef TS_GPU_ENGINE_H
#define TS_GPU_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_error.h"
#include "common/core/ts_model.h"
#include "common/core/ts_sampling.h"

struct ts_engine;
struct ts_cuda; /* gpu/cuda/device/ts_cuda.h */

struct ts_engine_options {
    const char *model_dir;     /* Hugging Face folder */
    const char *device;        /* "cpu", "auto", "cuda:0" or "modelled" */
    const char *modelled_conf; /* coefficients file, only with device "modelled" */
    uint32_t kv_blocks;        /* blocks in the pool; 0 = from kv_bytes */
    uint64_t kv_bytes;         /* pool size when kv_blocks is 0 */
    uint32_t threads;          /* 0 = all cores */
    uint32_t max_batch_tokens; /* workspace is allocated for that many tokens per batch */
    uint32_t max_batch_rows;
    uint32_t token_ids;    /* ids from here on are padding of the vocabulary and never drawn; 0 = none */
    struct ts_shard shard; /* all zero = the whole model */
    /* --- of a CUDA device alone; refused or ignored elsewhere as said --- */
    const char *weights; /* NULL, "" or "16": as stored; "int8": quantised at load; the CPU refuses it */
    /* What a row gets does not depend on its neighbours, bit for bit: one path for all rows, fixed splits and
     * algorithms. The CPU engine is so always. */
    bool batch_invariant;
    bool random_weights;    /* for measurements: the folder needs no more than config.json; the CPU refuses */
    uint64_t reserve_bytes; /* left free in the device's memory when the pool takes the rest (kv_blocks and
                               kv_bytes 0); 0 = 1 GiB */
};

struct ts_engine_row {
    uint64_t tag;           /* the caller's, returned with the result */
    uint32_t position;      /* absolute position of tokens[0] */
    uint32_t token_count;   /* >= 1 */
    const uint32_t *tokens; /* the input ids (ignored by a stage that does not own layer 0) */
    const uint32_t *blocks; /* block table covering positions 0 .. position+token_count-1 */
    uint32_t block_count;
    bool sample;                        /* draw the next token from the last position's logits */
    uint32_t sample_index;              /* output index of the drawn token: 0 for the first one */
    const struct ts_sampling *sampling; /* NULL unless sample */
    /* History for penalties, borrowed: prompt ids and the output ids drawn so far. May be empty when no
     * penalty is set. */
    const uint32_t *prompt_ids;
    uint32_t prompt_count;
    const uint32_t *output_ids;
    uint32_t output_count;
};

struct ts_engine_batch {
    uint64_t id;
    const struct ts_engine_row *rows;
    uint32_t row_count;
    /* Stage links: hidden states [sum of token_count][hidden] fp32 in for a stage that does not own layer 0,
     * out for one that does not own the last layer; NULL otherwise. */
    const float *hidden_in;
    float *hidden_out;
    /* For tests and quality measurements: logits of the last position of each row [row_count][vocab] fp32, or
     * NULL. */
    float *logits_out;
    bool report_layers; /* deliver TS_ENGINE_LAYER_DONE events */
};

struct ts_engine_logprob {
    uint32_t token;
    float logprob; /* natural log of the model's distribution before temperature and truncation, after
                      penalties */
};

struct ts_engine_sample {
    uint64_t tag;
    uint32_t token;
    float logprob;
    uint32_t top_count;
    struct ts_engine_logprob top[TS_LOGPROBS_MAX];
};

enum ts_engine_event_kind {
    TS_ENGINE_LAYER_DONE, /* KV of `layer` is in the pool for every row of the batch */
    TS_ENGINE_BATCH_DONE  /* samples are valid until the next submit */
};

struct ts_engine_event {
    enum ts_engine_event_kind kind;
    uint64_t batch;
    uint32_t layer;
    enum ts_status status; /* of BATCH_DONE */
    const struct ts_engine_sample *samples;
    uint32_t sample_count; /* one for each row with sample set, in row order */
    ts_time compute_ns;    /* how long the batch took */
};

struct ts_engine_info {
    struct ts_model model;
    struct ts_shard shard;
    uint32_t kv_blocks;
    uint64_t pool_bytes;
    uint64_t file_bytes; /* of the memfd: the pool, unless it is on a device, then the generations */
    int pool_fd;         /* memfd of pool and generations; -1 when modelled */
    void *pool;          /* mapped pool, NULL when modelled or on a device */
    /* The pool on a device: pool_bytes at this ts_cuda_address, the same layout. 0 and NULL elsewhere. The
     * engine's thread uses `device` while a batch runs: others take a ts_cuda_fork of it, once, at the start,
     * and close that before the engine. */
    uint64_t device_pool;
    struct ts_cuda *device;
    /* [kv_blocks], behind the pool in the memfd: how often each block was given back. The worker counts here,
     * the relay looks here whether what it read was still what it was told. NULL when modelled. */
    uint32_t *generations;
    bool modelled;
    /* [head_dim / 2], radians for each position: how the keys in the pool are turned. NULL when modelled. */
    const float *inverse_frequencies;
    struct ts_sampling defaults; /* of the model's generation_config.json; `given` = what it names */
    const char *kind; /* "cpu avx512bf16", "cuda NVIDIA H100", "modelled", ...: for logs and status */
    /* Why device "auto" took the CPU, for the one line that programs say of it; NULL otherwise. */
    const char *why_cpu;
};

enum ts_status ts_engine_open(const struct ts_engine_options *options, struct ts_engine **out,
                              struct ts_error *err);
void ts_engine_close(struct ts_engine **engine); /* waits for a running batch; null-safe */
const struct ts_engine_info *ts_engine_info(const struct ts_engine *engine);
/* TS_EAGAIN while a batch runs; TS_EINVAL names the row that is malformed. */
enum ts_status ts_engine_submit(struct ts_engine *engine, const struct ts_engine_batch *batch,
                                struct ts_error *err);
enum ts_status ts_engine_poll(struct ts_engine *engine,
                              struct ts_engine_event *out); /* TS_EAGAIN when there is nothing */
int ts_engine_event_fd(const struct ts_engine *engine);
/* NULL; or why the engine computes nothing any more: its device has failed for good. The batch under way then
 * ends with TS_EIO, and every later submit is refused with TS_EIO and this text. The engine has to be given
 * up, and the process with it. */
const char *ts_engine_fault(const struct ts_engine *engine);
/* Blocks until the next event: for tools and tests, not for services. */
enum ts_status ts_engine_wait(struct ts_engine *engine, struct ts_engine_event *out);

#endif
