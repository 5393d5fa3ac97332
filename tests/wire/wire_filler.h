/*
 * Random values for any table: every field set, every list between 1 and 3 items, text of several UTF-8
 * lengths, extremes of numbers among the ordinary ones. The same seed gives the same value on every machine,
 * which the golden bytes rely on.
 */
#ifndef TESTS_WIRE_FILLER_H
#define TESTS_WIRE_FILLER_H

#include "common/base/ts_rng.h"
#include "common/core/ts_msg.h"

/* `kind` chooses the case of a one-of; 0 draws one. Spans lie in the arena. */
void wire_fill(const struct ts_schema *schema, void *value, uint32_t kind, struct ts_rng *rng,
               struct ts_arena *arena);

/* Both halves of a message of that kind; version and numbers as a session stamps them. */
void wire_fill_message(enum ts_msg_kind kind, struct ts_rng *rng, struct ts_arena *arena,
                       struct ts_envelope *envelope, struct ts_msg *msg);

/* A channel on which that kind may arrive. */
enum ts_channel wire_channel_of(enum ts_msg_kind kind);

extern const enum ts_msg_kind wire_kinds[];
extern const size_t wire_kind_count;

#endif
