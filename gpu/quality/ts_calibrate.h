/*
 * Which 4-bit codec a model's keys bear, found out when it is loaded: a fixed text of drawn ids is computed
 * once, and tokens that may follow it are scored on its KV as computed and as it is behind i4h. That is the
 * codec of models whose logits hardly change. Of the others the keys are looked at as they were before their
 * rotation: a channel whose mean is far from zero against what the others spread makes a large error for all
 * of its group, with and without a Hadamard transform (kernels.md 1.3). Where there is one, i4hc is scored
 * too, and taken when centring pays; Qwen2 is such a model. Where even so the logits change too much, keys
 * keep 8 bits.
 *
 * Drawn ids are harder than text: with them the divergence is larger, up to 45 times (README.md), hence the
 * last limit.
 *
 * Takes the engine for itself, before it serves: writes to blocks of its pool. Equal engines give equal
 * verdicts.
 */
#ifndef TS_GPU_CALIBRATE_H
#define TS_GPU_CALIBRATE_H

#include "gpu/ts_engine.h"

#define TS_CALIBRATE_KL_GOOD    0.02 /* mean, nats: i4h is good enough (the gate of kernels.md 6) */
#define TS_CALIBRATE_OFFSET_MAX 8.0  /* beyond, centring is tried (kernels.md 1.6) */
#define TS_CALIBRATE_GAIN       2.0  /* and taken when it divides the divergence by more than this */
#define TS_CALIBRATE_KL_MAX     0.1  /* beyond, keys keep 8 bits */

#define TS_CALIBRATE_BLOCKS 32u /* of the pool; with fewer the text is shorter */

struct ts_calibration {
    const char *codec;     /* i4h, i4hc or k8v4h; i4h when nothing could be measured; none when the model's
                              heads are not such that 4 bits can hold them */
    double offset;         /* worst head: the largest |mean| of a channel / the median deviation */
    uint32_t layer, head;  /* where */
    double kl, kl_centred; /* with i4h and, where it was tried, with i4hc */
    uint32_t tokens;       /* of the text; 0 = not measured */
    uint32_t batches;      /* what it cost */
    ts_time ns;
    char why[128]; /* in words; empty = nobody could say */
};

/* What one batch may hold. */
struct ts_calibrate_room {
    uint32_t batch_tokens, batch_rows;
};

/* Only an engine of a whole model whose pool is in reach can be measured; others are no error. */
enum ts_status ts_calibrate(struct ts_engine *engine, struct ts_calibrate_room room,
                            struct ts_calibration *out, struct ts_error *err);

#endif
