/*
 * The pool of an engine: how many blocks, and the memfd that other processes map. In it lie the pool itself,
 * unless that is on a device, and how often each block was given back (ts_engine.h, generations).
 */
#ifndef TS_GPU_ENGINE_POOL_H
#define TS_GPU_ENGINE_POOL_H

#include "gpu/ts_engine.h"

/* Bytes of a block over all layers of the shard. */
uint64_t engine_pool_block_bytes(const struct ts_engine_info *info);
/* kv_blocks and pool_bytes: `blocks` if not 0, else as many as `bytes` hold. */
enum ts_status engine_pool_size(struct ts_engine_info *info, uint64_t blocks, uint64_t bytes,
                                struct ts_error *err);
/* pool_fd and what is mapped of it; `pool_bytes` of the pool lie in it: all or none. */
enum ts_status engine_pool_map(struct ts_engine_info *info, uint64_t pool_bytes, struct ts_error *err);
void engine_pool_unmap(struct ts_engine_info *info);

#endif
