/*
 * The cost model: seconds and bytes of prefill, decode and KV transfer, from a device type, a model's shape
 * and a link. Pure functions. planner.md section 4; the README of this folder states each formula and its
 * error on measurements (scripts/fit-devices, tsctl cost eval).
 *
 * For the planner two shapes matter and are kept by every term: prefill of a batch depends on its tokens and
 * on the sum of squares of its prompt lengths only; a decode step is f(batch) + g * context with f convex and
 * increasing, context = the sum of the tokens that the batch attends to.
 */
#ifndef TS_CORE_COST_H
#define TS_CORE_COST_H

#include "common/core/ts_cluster.h"
#include "common/core/ts_model.h"

struct ts_measured; /* common/core/ts_msg_common.h */

/* What a device is taken for of which nothing but the data sheet is known. */
struct ts_device_fit ts_cost_fit_generic(void);

/* A device as it was measured, with all efficiencies in its rates; name and price are the caller's. False:
 * figures that no device has. */
bool ts_cost_measured(const struct ts_measured *measured, struct ts_device_type *out);

/* --- One layer on one rank of a tensor-parallel group of `tp` (1 = alone; `link` may be NULL then) --- */

/* Without attention core and all-reduce: norms, projections, MLP over `tokens` rows. */
double ts_cost_linear_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                        double tokens);
/* The share of it that reads and writes activations only: norms, rotation, residual sums, the MLP's function.
 */
double ts_cost_passes_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                        double tokens);
/* Whole layer over prompts of `tokens` in all whose squared lengths sum up to `tokens_sq`. */
double ts_cost_layer_prefill_s(const struct ts_device_type *device, const struct ts_model *model,
                               const struct ts_link *link, uint32_t tp, double tokens, double tokens_sq);
/* Whole layer of one step for `batch` sequences that attend to `context` tokens together. */
double ts_cost_layer_decode_s(const struct ts_device_type *device, const struct ts_model *model,
                              const struct ts_link *link, uint32_t tp, double batch, double context);

/* --- What comes once per forward pass --- */

double ts_cost_head_s(const struct ts_device_type *device, const struct ts_model *model, uint32_t tp,
                      double rows); /* embedding, last norm, output projection, sampling: the last stage */
double ts_cost_step_s(const struct ts_device_type *device); /* software constant, of each stage */

/* --- Links --- */

double ts_cost_send_s(const struct ts_link *link, double bytes); /* infinite when not connected */
double ts_cost_allreduce_s(const struct ts_link *link, uint32_t tp, double bytes); /* of one message */
double ts_cost_hop_bytes(const struct ts_model *model, double tokens); /* activations between two stages */

/* --- Memory of one rank --- */

double ts_cost_layer_weight_bytes(const struct ts_model *model); /* all ranks together */
double ts_cost_head_weight_bytes(const struct ts_model *model); /* embedding and output, all ranks together */
/* One stage of a pipeline, all ranks together: the first holds the embedding, the last the output projection;
 * a tied matrix is there once when they are one stage. */
double ts_cost_stage_weight_bytes(const struct ts_model *model, bool first, bool last, uint32_t layers);
double ts_cost_kv_layer_token_bytes(const struct ts_model *model, uint32_t tp); /* one layer, one rank */
/* What weights and KV of one rank may take: memory less runtime, activations and workspace. */
double ts_cost_usable_bytes(const struct ts_device_type *device);

/* --- KV transfer of one prompt --- */

enum ts_cost_codec { TS_COST_CODEC_NONE, TS_COST_CODEC_I4, TS_COST_CODEC_COUNT };

const char *ts_cost_codec_name(enum ts_cost_codec codec); /* as in the plan: "none", "i4" */
/* Bytes on the wire over bytes of KV (kernels.md section 1; measured by tests of gpu/codec). */
double ts_cost_codec_ratio(enum ts_cost_codec codec, double prompt_tokens);
/* Time between the end of prefill and the end of the transfer: layers are sent while later ones are computed,
 * so max(last layer's share, whole transfer - prefill time of all but the first layer). `bytes` on the wire.
 */
double ts_cost_kv_visible_s(const struct ts_link *link, const struct ts_model *model, double bytes,
                            double prefill_s);

#endif
