/*
 * The time that a replica on given devices takes: a pipeline of stages (ts_group) under the cost model
 * (ts_cost.h). Batches enter in order; stage i works on one batch at a time, so that up to `stage_count`
 * batches are under way. Mixed batches (prompt chunks and decode rows together) share the linear part.
 * Optional noise: each batch's time is multiplied by exp(noise * normal - noise^2 / 2), drawn from a
 * generator of the replica's own.
 *
 * Borrows cluster, model and group. One thread.
 */
#ifndef CLOUD_REPLICA_H
#define CLOUD_REPLICA_H

#include "common/base/ts_clock.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_plan.h"

struct cloud_replica;

struct cloud_replica_load { /* of one batch */
    uint32_t sampled;
    double prompt_tokens,
        prompt_pairs; /* tokens of chunks; sum over chunks of end^2 - begin^2: pairs attended to, twice */
    double decode_rows, decode_context; /* sequences; sum of the tokens they attend to */
};

struct cloud_replica *cloud_replica_new(const struct ts_cluster *cluster, const struct ts_model *model,
                                        const struct ts_group *group, double noise, uint64_t seed);
void cloud_replica_destroy(struct cloud_replica **replica);
/* A row of `tokens` at `position`. One token that is not the first of its sequence is a decode row, more are
 * a chunk of a prompt (or a replay of produced tokens, which costs the same). */
void cloud_replica_load_row(const struct cloud_replica *replica, struct cloud_replica_load *load,
                            uint32_t position, uint32_t tokens, bool sampled);
/* The batch enters at `now` or once the first stage is free. Writes when each of `parts` equal parts of the
 * layers is done (its KV is in the pool) and returns when the last stage and the way of the token back are
 * over. */
ts_time cloud_replica_enter(struct cloud_replica *replica, ts_time now, const struct cloud_replica_load *load,
                            uint32_t parts, ts_time *part_done);
uint32_t cloud_replica_kv_blocks(const struct cloud_replica *replica); /* of TS_KV_BLOCK_TOKENS, all stages */
double cloud_replica_busy_s(const struct cloud_replica *replica, uint32_t stage); /* of all batches entered */
void cloud_replica_clear(struct cloud_replica *replica); /* its process died: nothing is under way */
/* Node of the stage that owns part `part` of `parts`; where its KV lies. */
uint32_t cloud_replica_node(const struct cloud_replica *replica, uint32_t part, uint32_t parts);

#endif
