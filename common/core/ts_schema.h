/*
 * Descriptions of our plain structs: name, type, offset and bound of each field. One table per struct serves
 * deep copy, comparison, validation, printing, and (in proto/ts_wire) conversion from and to the generated
 * protobuf types, which are paired by field name. So a message is written down twice only: as a C struct with
 * its table, and in the .proto file; a test proves that the two agree.
 *
 * Variable-length fields are borrowed spans (pointer and count). Who owns the bytes is said where the struct
 * is used: usually an arena that lives for one turn of the loop. `max` bounds strings and lists and is
 * checked before anything is allocated.
 */
#ifndef TS_CORE_SCHEMA_H
#define TS_CORE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_error.h"

struct ts_str { /* UTF-8, not terminated */
    const char *data;
    uint32_t count;
};

struct ts_bytes {
    const uint8_t *data;
    uint32_t count;
};

struct ts_u32s {
    const uint32_t *data;
    uint32_t count;
};

struct ts_u64s {
    const uint64_t *data;
    uint32_t count;
};

struct ts_list { /* items of a sub-schema; every typed list struct has this layout */
    const void *data;
    uint32_t count;
};

enum ts_field_type {
    TS_FIELD_BOOL, /* bool */
    TS_FIELD_U32,
    TS_FIELD_U64,
    TS_FIELD_I64,
    TS_FIELD_F32,
    TS_FIELD_F64,
    TS_FIELD_ENUM,  /* a C enum, 4 bytes; max = largest legal value */
    TS_FIELD_STR,   /* struct ts_str */
    TS_FIELD_BYTES, /* struct ts_bytes */
    TS_FIELD_U32S,
    TS_FIELD_U64S,
    TS_FIELD_MSG, /* a struct in place */
    TS_FIELD_MSGS /* struct ts_list of structs */
};

struct ts_schema;

struct ts_field {
    const char *name;
    enum ts_field_type type;
    uint32_t offset;
    uint32_t max;                /* strings, lists: most items; enums: largest value; else unused */
    const struct ts_schema *sub; /* TS_FIELD_MSG, TS_FIELD_MSGS */
    uint32_t
        when; /* in a one-of: the value of the discriminator for which this field is present; 0 = always */
};

struct ts_schema {
    const char *name; /* of the protobuf message */
    uint32_t size;
    bool one_of; /* the struct begins with a 4-byte discriminator `kind` */
    uint32_t field_count;
    const struct ts_field *fields;
};

/* Deep copy of `*from` into `*to`; spans are copied into the arena. */
void ts_schema_copy(const struct ts_schema *schema, void *to, const void *from, struct ts_arena *arena);
bool ts_schema_equal(const struct ts_schema *schema, const void *a, const void *b);
/* Checks bounds, enum ranges and UTF-8 of strings. TS_EINVAL names "message.field". */
enum ts_status ts_schema_check(const struct ts_schema *schema, const void *value, struct ts_error *err);
/* One line `field=value ...` for people; truncates safely. Returns the length. */
size_t ts_schema_print(const struct ts_schema *schema, const void *value, char *out, size_t capacity);

static inline struct ts_str ts_str_of(const char *text)
{
    return (struct ts_str){.data = text, .count = text ? (uint32_t)strlen(text) : 0};
}

static inline bool ts_str_equal(struct ts_str a, struct ts_str b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.data, b.data, a.count) == 0);
}

#endif
