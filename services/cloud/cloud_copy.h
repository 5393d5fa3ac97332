/*
 * Deep copies of messages, compiled once from the schema tables: a message is copied as bytes, then its spans
 * are moved into the arena one after the other. The same as ts_schema_copy but for padding and for the
 * members of the union that its kind has not, which are left as they were.
 */
#ifndef CLOUD_COPY_H
#define CLOUD_COPY_H

#include "common/core/ts_msg.h"

struct copier;

struct copier *copier_new(void);
void copier_destroy(struct copier **copier); /* null-safe */
void copier_copy(const struct copier *copier, struct ts_msg *to, const struct ts_msg *from,
                 struct ts_arena *arena);

#endif
