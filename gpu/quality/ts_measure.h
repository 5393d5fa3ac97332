/*
 * What a device does with a model, measured as a worker starts, in the form in which the planner's cost model
 * takes it (common/core/ts_cost.h): prompts of several lengths and decode steps of several batches and
 * contexts are computed through the engine, whatever it runs on, and the coefficients are those with which
 * ts_cost_* come closest to the times. Two of them that one model does not tell apart (a layer's constant and
 * the reading of weights, when all batches are small) stay near where they began; so does what was not seen.
 * The constant of a step counts as one of its layers.
 *
 * Takes the engine for itself, before it serves: writes to blocks of its pool. Seconds, bytes, FLOP.
 */
#ifndef TS_GPU_MEASURE_H
#define TS_GPU_MEASURE_H

#include "common/core/ts_cost.h"
#include "common/core/ts_msg_common.h"
#include "gpu/quality/ts_calibrate.h"

#define TS_MEASURE_POINTS_MAX 32u

/* One batch: prompts from their beginning, or a decode step. */
struct ts_measure_point {
    bool decode;
    uint32_t rows, tokens; /* rows; of the prompt (of one row), or in the context of each row */
    double seconds;
};

struct ts_measure_room {
    struct ts_calibrate_room batch;
    ts_time budget; /* of all; a batch that takes most of it ends the row of longer ones */
};

/* What the cost model says the point takes. */
double ts_measure_predict(const struct ts_engine_info *info, const struct ts_measured *measured,
                          const struct ts_measure_point *point);

/* Coefficients for the points, of `count` >= 2 with a prompt and a step among them; memory and links are not
 * touched. */
void ts_measure_fit(const struct ts_engine_info *info, const struct ts_measure_point *points, uint32_t count,
                    struct ts_measured *out);

/* TS_EUNSUPPORTED: an engine that computes nothing, or has no room for a prompt and a step. */
enum ts_status ts_measure(struct ts_engine *engine, struct ts_measure_room room, struct ts_measured *out,
                          struct ts_error *err);

/* The same, or as the last time: from a file in `folder` (NULL: $XDG_CACHE_HOME/thunderserve or
 * ~/.cache/thunderserve; "": nothing is kept), if that was the same device, driver, model, `settings` and
 * version. A file that is not whole is measured anew; one that cannot be written is no error, but told.
 * Processes of a host that share the folder measure a device one after the other. */
enum ts_measure_from {
    TS_MEASURE_NOW,  /* and kept, or not to be kept */
    TS_MEASURE_LOST, /* now, and no file could be written */
    TS_MEASURE_CACHE,
};
enum ts_status ts_measure_cached(struct ts_engine *engine, struct ts_measure_room room, const char *folder,
                                 const char *settings, struct ts_measured *out, enum ts_measure_from *from,
                                 struct ts_error *err);

#endif
