/*
 * Events and actions of the cores as lines of text, so that a case reads as a table. A line names a kind and
 * its fields as `field=value`, both taken from the schema tables; nested fields are written with a dot.
 *
 *     worker:1 output rid=1.2 role=prefill items=5      a message on a channel from or to a peer
 *     batch_done batch=1 samples=3:7:stop               any other event or action
 *
 * Values: numbers; names of enums; `rid=REQUEST.ATTEMPT` (the router is core_text_router); lists with commas,
 * whose elements give their first fields in order with colons; `*N` for any N items, and in an event the
 * items 1..N; `whole` for UINT64_MAX. `#SLOT/BYTES` is the bulk handle. An event leaves out what is zero; an
 * expectation leaves out what does not matter.
 */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include "common/core/ts_event.h"

extern uint64_t core_text_router; /* rid.router of every rid that is written down */

struct core_head {           /* the first words of a line */
    enum ts_channel channel; /* 0 = not a message */
    uint64_t peer;
    char kind[32];
    const char *rest;
};

/* Reads "channel:peer kind" or "kind"; returns false when the line is not understood. */
bool core_text_head(const char *line, struct core_head *out);
/* Fills the fields named by `text` in a struct of that schema. Spans live in the arena. Fails the test on an
 * unknown field or value. */
void core_text_fill(const struct ts_schema *schema, void *base, const char *text, struct ts_arena *arena);
/* Whether every field named by `text` has that value; `why` names the first that has not. */
bool core_text_match(const struct ts_schema *schema, const void *base, const char *text,
                     struct ts_arena *arena, const char **why);
/* The case of a one-of by name: its discriminator and schema. NULL when unknown. */
const struct ts_field *core_text_case(const struct ts_schema *one_of, const char *kind);
const char *core_text_print(const struct ts_action *action, struct ts_arena *arena); /* for failures */

#endif
