/*
 * What the kernels of sample.cu are told and answer, made and read by cuda_sample.c. Read by C and C++, by
 * the compilers of host and device.
 */
#ifndef TS_GPU_CUDA_SAMPLE_SAMPLE_ARGS_H
#define TS_GPU_CUDA_SAMPLE_SAMPLE_ARGS_H

#include <stdint.h>

#define SAMPLE_SCAN_THREADS 256u /* at most, of the first kernel */
#define SAMPLE_SCAN_EACH    16u  /* tokens that a thread of it has; those of a block are a cell */
#define SAMPLE_PICK_THREADS 512u /* at most, of the second */
#define SAMPLE_MASKED       UINT32_MAX
#define SAMPLE_TOP          20u

/* A row's parameters: those of struct ts_sampling as sampling_math.h takes them. All zeros: greedy. */
struct sample_row {
    double unit;     /* the random number */
    float coldness;  /* 1 / temperature; 0 = greedy */
    float log_min_p; /* log(min_p) * temperature, or minus infinity */
    float top_p;
    float repetition, presence, frequency;
    uint32_t top_k, logprobs;          /* 0 = none; at most SAMPLE_TOP */
    uint32_t edits_begin, edits_count; /* in the batch's list */
};

/* One token of a row whose logit changes; no token comes twice in a row. */
struct sample_edit {
    uint32_t token;
    uint32_t count; /* how often the output has it; SAMPLE_MASKED: it cannot be chosen */
};

/* What the first kernel leaves of each cell. */
struct sample_cell {
    uint64_t best; /* the order of its best token */
    float sum;     /* of exp(logit - best) */
    uint32_t unused;
};

struct sample_top {
    uint32_t token;
    float logit;
};

struct sample_result {
    uint32_t token;
    float logit;     /* its own */
    float best, sum; /* the best logit, and the sum of exp(logit - best) over the vocabulary */
    uint32_t top_count;
    struct sample_top top[SAMPLE_TOP];
};

struct sample_args {
    float *logits; /* [rows][vocab] */
    const struct sample_row *rows;
    const struct sample_edit *edits;
    struct sample_cell *cells; /* [rows][cells_each] */
    struct sample_result *results;
    uint32_t vocab, ids; /* ids: those that are no padding */
    uint32_t cells_each;
};

#endif
