/*
 * A worker's paged KV pool, wherever it lies: in memory that processes of this host share, on a device, or
 * nowhere (modelled). Its worker opens it as its own (ts_pool_own) and restores into it; the relay of the
 * host maps it as the worker announced it (ts_pool_map) and encodes from it. Both see the same two functions,
 * ts_pool_give and ts_pool_take, and the same bytes: those of gpu/codec.
 *
 * A *piece* is a chunk of a sequence: one layer, a range of heads, a range of tokens; layers and heads as the
 * model counts them. ts_pool_fits is to be asked before anything is done with what others announced.
 *
 * Generations are counted by the worker in shared memory, for each block: how often it was given back. Who
 * gives a piece reads them again when it is encoded, so that what was overwritten meanwhile is not believed.
 *
 * Mapped memory is the pool's; blocks, generations, payloads and sums are the caller's. Give and take may be
 * called by several threads at once.
 */
#ifndef TS_GPU_POOL_H
#define TS_GPU_POOL_H

#include "common/core/ts_event.h"
#include "gpu/codec/ts_codec.h"

struct ts_pool;
struct ts_cuda;

struct ts_pool_shape {
    struct ts_shard shard; /* layers and heads of the model that lie there */
    uint32_t blocks, head_dim;
    enum ts_dtype dtype;
    const float *inverse_frequencies; /* [head_dim / 2], radians for each position; NULL = keys do not turn */
};

/* Where a worker says that it is. */
struct ts_pool_place {
    /* Of its memfd as others can open it: the pool, unless it is on a device, then the generations of its
     * blocks; "" = modelled. */
    const char *path;
    uint64_t bytes;         /* of the memfd */
    const char *device;     /* uuid of the device; NULL or "" = the pool is in the memfd */
    const uint8_t *share;   /* [64] by which it is mapped there; NULL: its worker cannot share it */
    uint64_t device_offset; /* of the pool in what is mapped so */
};

/* The devices that a process has opened for pools of others, each once, with memory and streams for `lanes`
 * pieces at a time: whoever comes beyond them waits. A device is opened with the first pool that lies on it,
 * and stays open until the end; one that has failed stays so. Any thread. */
struct ts_pool_devices;
struct ts_pool_devices *ts_pool_devices_new(uint32_t lanes);
void ts_pool_devices_free(struct ts_pool_devices **devices); /* its pools are closed before; null-safe */

/* TS_EINVAL: what is announced contradicts itself. Any other failure: this process cannot have it. */
enum ts_status ts_pool_map(struct ts_pool_devices *devices, const struct ts_pool_shape *shape,
                           const struct ts_pool_place *place, struct ts_pool **out, struct ts_error *err);
/* The caller's own: `base` NULL = modelled. Nothing of it is copied. */
struct ts_pool *ts_pool_own(const struct ts_pool_shape *shape, void *base, const uint32_t *generations);
/* The same on a device, at an address there. Forks `cuda`, which is used by nobody else meanwhile and
 * outlives the pool. */
enum ts_status ts_pool_own_device(const struct ts_pool_shape *shape, struct ts_cuda *cuda, uint64_t at,
                                  const uint32_t *generations, uint32_t lanes, struct ts_pool **out,
                                  struct ts_error *err);

/* An engine's, wherever it computes; closed before it. */
struct ts_engine_info;
enum ts_status ts_pool_of_engine(const struct ts_engine_info *info, uint32_t lanes, struct ts_pool **out,
                                 struct ts_error *err);

/* What a worker announces of its own pool's device; of one that is on none `device` is empty. A failure,
 * which the caller tells, leaves `shared` unset: then nobody else maps it. */
struct ts_pool_share {
    char device[40];
    bool shared;
    uint8_t bytes[64];
    uint64_t offset;
};
enum ts_status ts_pool_share(struct ts_pool *pool, struct ts_pool_share *out, struct ts_error *err);
void ts_pool_close(struct ts_pool **pool); /* null-safe; no give or take may be under way */

struct ts_pool_piece {
    struct ts_codec codec; /* of this layer */
    uint32_t layer, head_begin, head_count, token_begin, token_count;
    const uint32_t *blocks;      /* of the sequence, from token 0 */
    const uint32_t *generations; /* of these blocks as they were announced, to give; to take nobody asks */
    uint32_t block_count;
};

/* As a core asks for it, with blocks and generations of its own: the action does not outlive its step. */
struct ts_pool_piece ts_pool_piece_to_give(const struct ts_action_encode *a);
struct ts_pool_piece ts_pool_piece_to_take(const struct ts_action_scatter *a);
void ts_pool_piece_fini(struct ts_pool_piece *piece);

/* Layer, heads, tokens and blocks lie inside, and the codec takes the shape. */
bool ts_pool_fits(const struct ts_pool *pool, const struct ts_pool_piece *piece);

/* Whether giving and taking mostly wait for a device: several at a time take little longer than one. Else
 * they keep a core busy. */
bool ts_pool_on_device(const struct ts_pool *pool);

/* Whether this process and the pool's worker take turns on the device, since no MPS daemon serves both: a
 * launch then waits for a time slice. */
bool ts_pool_takes_turns(const struct ts_pool *pool);

/* Room that ts_pool_give wants for the payload; 0 when modelled. */
size_t ts_pool_give_bytes(const struct ts_pool *pool, const struct ts_pool_piece *piece);

struct ts_pool_given {
    size_t bytes;            /* of the payload; 0 when modelled */
    uint64_t declared_bytes; /* when modelled: what it would have */
    uint32_t crc, escapes;
};

/* Encodes a piece into `out` (ts_pool_give_bytes, 16-byte aligned) and sets `digests` [head_count]. */
enum ts_status ts_pool_give(struct ts_pool *pool, const struct ts_pool_piece *piece, void *out,
                            uint64_t *digests, struct ts_pool_given *given, struct ts_error *err);
/* Restores a payload whose crc32c is `crc`, and sets `digests`. A modelled pool looks at nothing. */
enum ts_status ts_pool_take(struct ts_pool *pool, const struct ts_pool_piece *piece, const void *payload,
                            size_t bytes, uint32_t crc, uint64_t *digests, struct ts_error *err);

/*
 * What they return besides TS_OK, and what a core hears of it:
 *   TS_EAGAIN    take: the sum is wrong, nothing was written, the peer can be asked again (KV_CORRUPT)
 *   TS_ECORRUPT  take: no encoder writes such a payload. give: a block was given back meanwhile (KV_CORRUPT)
 *   TS_ENOMEM    no room on the device for what passes; another piece, or later, there may be (KV_NO_MEMORY)
 *   others       the device is lost, and so is every later piece (ENGINE)
 */
enum ts_reason ts_pool_reason(enum ts_status status);

#endif
