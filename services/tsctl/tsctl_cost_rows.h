/*
 * Measurements to hold the cost model against: rows of measured_dev.csv, splitwise_dev.csv, network_dev.csv
 * and serving_dev.csv (tests/data/profiles/README.md), told apart by their headers. A malformed file is an
 * error with its line; a name that neither catalogue nor conf/models knows is listed, and its rows are left
 * out. A table owns its rows, models and lists. One thread.
 */
#ifndef TSCTL_COST_ROWS_H
#define TSCTL_COST_ROWS_H

#include "common/inputs/ts_inputs.h"

enum cost_phase { COST_LINEAR, COST_PREFILL, COST_DECODE, COST_ALL_REDUCE, COST_SEND_RECV, COST_PHASE_COUNT };

/* What a measurement ran on. Each departs from the planner's figures in ways of its own: struct cost_stack.
 */
enum cost_source {
    COST_KERNELS,   /* sums of kernel measurements: aiconfigurator */
    COST_VIDUR,     /* the products of a layer one by one under PyTorch; NCCL */
    COST_HELIX,     /* vLLM 0.4, whole layers */
    COST_SPLITWISE, /* whole forward passes */
    COST_NCCL,      /* NCCL's own test */
    COST_OTHER,     /* the planner's figures as they are */
    COST_SOURCE_COUNT
};

enum cost_link {                  /* what a row's all-reduce goes through */
                 COST_LINK_PEER,  /* of its device */
                 COST_LINK_PCIE,  /* pairs by NVLink, PCIe between them */
                 COST_LINK_FABRIC /* between machines */
};

struct cost_row {
    char gpu[64], model_name[96]; /* as the file has them; of a collective: device, node */
    enum cost_phase phase;
    enum cost_source source;
    enum cost_link link;
    uint32_t device, model; /* index in the catalogue, in the table's models */
    uint32_t tp;            /* ranks */
    uint32_t tp_node;       /* of those, in one machine */
    bool whole;             /* all layers and what comes once: not one layer */
    double batch, tokens;   /* prefill: prompts, tokens of each. decode: sequences, context of each */
    double bytes;           /* of a collective */
    double seconds;
};

struct cost_serving { /* one closed loop against an OpenAI-style server */
    uint32_t device, model;
    double batch, context, token_s; /* median time between tokens */
};

struct cost_table {
    struct cost_row *rows;
    size_t row_count, row_capacity;
    struct cost_serving *serving;
    size_t serving_count, serving_capacity;
    struct ts_model *models;
    char **model_names; /* of models, as first met */
    size_t model_count, model_capacity, name_capacity;
    char **unknown; /* 'gpu "X"', 'model "Y"', each once, in the order of the file */
    size_t unknown_count, unknown_capacity;
};

const char *cost_phase_name(enum cost_phase phase);

/* Adds the rows of a file; may be called for several. */
enum ts_status cost_table_read(struct cost_table *table, const struct ts_catalogue *catalogue,
                               const char *conf_dir, const char *path, struct ts_error *err);
void cost_table_free(struct cost_table *table);

#endif
