/*
 * What the KV of a request travels as, fixed by its first attempt, so that all encode alike: `none` when that
 * one is colocated and draws from exact KV. Else decide, in this order, the request (its wish), the operator
 * (setting `codec` other than "auto"), and the router, by the operator's `accuracy`, the speed of the link
 * from relay to decode worker, and what the prefill worker says its model bears:
 *
 *     lossless   none; lz16 where the link is slower than lz16 restores
 *     safe       i8; k8v4h where the link is slow
 *     normal     the model's 4-bit codec, by its calibration; none where the link is faster than codecs are,
 *                or where the plan says so
 *
 * A link that nobody has measured and no cluster file describes counts as slow. The words say what decided.
 */
#ifndef ROUTER_CODEC_H
#define ROUTER_CODEC_H

#include "services/router/router_impl.h"

/* `plan_codec` is empty where the plan does not name one. */
void router_codec_fix(const struct router_core *core, struct record *r, const struct member *prefill,
                      const struct member *decode, const char *plan_codec);
/* Codec and words of the trace: a short prompt went as the preset's rule says. */
void router_codec_trace(const struct record *r, struct ts_trace *out);

#endif
