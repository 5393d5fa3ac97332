/*
 * Macros that write the rows of schema tables, private to common/core (ts_msg_*.c, ts_event.c) and
 * proto/ts_wire.c. The type of a plain field is taken from the member itself, so a table cannot
 * disagree with its struct; sizes of enums and lists are checked by the compiler. TS_SCHEMA_* take the
 * struct's name without `struct ts_`.
 */
#ifndef TS_CORE_SCHEMA_TABLE_H
#define TS_CORE_SCHEMA_TABLE_H

#include "common/core/ts_msg.h"

#define TS_FIELD_LOOK(s, member) (((struct ts_##s *)0)->member)

/* offsetof, refused by the compiler unless `cond` holds. */
#define TS_FIELD_AT(s, member, cond)                                                                         \
    ((uint32_t)(offsetof(struct ts_##s, member) + 0 * sizeof(char[(cond) ? 1 : -1])))

#define TS_FIELD_SCALAR_TYPE(s, member)                                                                      \
    _Generic(TS_FIELD_LOOK(s, member), bool                                                                  \
             : TS_FIELD_BOOL, uint32_t                                                                       \
             : TS_FIELD_U32, uint64_t                                                                        \
             : TS_FIELD_U64, int64_t                                                                         \
             : TS_FIELD_I64, float                                                                           \
             : TS_FIELD_F32, double                                                                          \
             : TS_FIELD_F64)

#define TS_FIELD_SPAN_TYPE(s, member)                                                                        \
    _Generic(TS_FIELD_LOOK(s, member), struct ts_str                                                         \
             : TS_FIELD_STR, struct ts_bytes                                                                 \
             : TS_FIELD_BYTES, struct ts_u32s                                                                \
             : TS_FIELD_U32S, struct ts_u64s                                                                 \
             : TS_FIELD_U64S)

/* A scalar. Floats must be finite. */
#define TS_F(s, member)                                                                                      \
    {                                                                                                        \
#member, TS_FIELD_SCALAR_TYPE(s, member), TS_FIELD_AT(s, member, 1), 0, NULL, 0                      \
    }
/* A float that may be anything: an engine's log probability must not make a message unsendable. */
#define TS_F_ANY(s, member)                                                                                  \
    {                                                                                                        \
#member, TS_FIELD_SCALAR_TYPE(s, member), TS_FIELD_AT(s, member, 1), 1, NULL, 0                      \
    }
/* A string, bytes or list of numbers of at most `most` items. */
#define TS_F_SPAN(s, member, most)                                                                           \
    {                                                                                                        \
#member, TS_FIELD_SPAN_TYPE(s, member), TS_FIELD_AT(s, member, 1), (most), NULL, 0                   \
    }
#define TS_F_ID(s, member)   TS_F_SPAN(s, member, TS_ID_BYTES_MAX)
#define TS_F_TEXT(s, member) TS_F_SPAN(s, member, TS_TEXT_BYTES_MAX)
#define TS_F_ENUM(s, member, last)                                                                           \
    {                                                                                                        \
#member, TS_FIELD_ENUM, TS_FIELD_AT(s, member, sizeof TS_FIELD_LOOK(s, member) == 4), (last), NULL,  \
            0                                                                                                \
    }
#define TS_F_MSG(s, member, sub)                                                                             \
    {                                                                                                        \
#member, TS_FIELD_MSG, TS_FIELD_AT(s, member, 1), 0, &(sub), 0                                       \
    }
#define TS_F_LIST(s, member, most, sub)                                                                      \
    {                                                                                                        \
#member, TS_FIELD_MSGS,                                                                              \
            TS_FIELD_AT(s, member, sizeof TS_FIELD_LOOK(s, member) == sizeof(struct ts_list)), (most),       \
            &(sub), 0                                                                                        \
    }
/* A member of a one-of, present when the discriminator is `kind`. */
#define TS_F_CASE(s, member, kind, sub)                                                                      \
    {                                                                                                        \
#member, TS_FIELD_MSG, TS_FIELD_AT(s, member, 1), 0, &(sub), (kind)                                  \
    }

#define TS_SCHEMA(s, proto_name, table)                                                                      \
    {                                                                                                        \
        .name = (proto_name), .size = sizeof(struct ts_##s), .field_count = TS_ARRAY_SIZE(table),            \
        .fields = (table)                                                                                    \
    }

/* The message structs one by one; ts_msg.c joins them. */
#define TS_MSG_DECLARE(KIND, number, member, suffix) extern const struct ts_schema ts_msg_##suffix##_schema;
TS_MSG_KINDS(TS_MSG_DECLARE)
#undef TS_MSG_DECLARE

/* Parts of messages of more than one file. */
extern const struct ts_schema ts_load_schema;
extern const struct ts_schema ts_stage_item_schema;
extern const struct ts_schema ts_measured_schema;
extern const struct ts_schema ts_link_item_schema;

#endif
