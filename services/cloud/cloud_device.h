/*
 * Between the files of modelled devices: cloud_device.c has what workers and relays hold and small jobs,
 * cloud_batch.c the engine, cloud_codec.c encoding and scattering. See cloud_device.c for the idea.
 */
#ifndef CLOUD_DEVICE_H
#define CLOUD_DEVICE_H

#include "services/cloud/cloud_impl.h"

struct cell { /* one token of one layer */
    uint64_t before, chain;
};

struct block_use {       /* by rows of batches under way */
    uint64_t tag, batch; /* of the last of them */
    uint32_t rows;
    bool written; /* by one of them */
};

struct kv_pool {
    struct cloud_node *owner; /* a node outlives its pools */
    uint32_t refs, layers, blocks;
    uint32_t *generations;  /* [blocks] */
    struct block_use *uses; /* [blocks]; NULL without checks, and so are cells */
    struct cell *cells;     /* [layer][block][token] */
};

struct stream { /* the text of one sequence: counts */
    struct ts_sampling sampling;
    uint32_t count;
    enum ts_finish complete; /* how the produced tokens end it, if they do */
};

struct cloud_device {
    struct cloud_node *node;
    struct kv_pool *pool;   /* of a worker */
    struct ts_map *streams; /* tag -> stream; with checks */
    struct ts_map *mapped;  /* relay: pool id -> kv_pool */
    uint32_t batches;       /* under way */
    ts_time free_at;        /* of the engine by coefficients */
    ts_time codec_free_at;  /* one thread, jobs one after the other */
    struct ts_arena arena;  /* of one event */
};

void kv_pool_unref(struct kv_pool *pool); /* null-safe */
void device_batch(struct cloud_node *node, const struct ts_action_batch *a);
void device_encode(struct cloud_node *node, const struct ts_action_encode *a);
void device_scatter(struct cloud_node *node, const struct ts_action_scatter *a);

static inline struct cell *cell_at(struct kv_pool *pool, uint32_t layer, const uint32_t *blocks,
                                   uint32_t token)
{
    uint32_t block = blocks[token / TS_KV_BLOCK_TOKENS];
    return &pool->cells[((size_t)layer * pool->blocks + block) * TS_KV_BLOCK_TOKENS +
                        token % TS_KV_BLOCK_TOKENS];
}

#endif
