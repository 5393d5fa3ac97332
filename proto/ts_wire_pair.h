/*
 * Private to proto/: which field of our tables is which field of a generated type. A `type` stands for one
 * protobuf message and the bounds of its fields, a `pair` for one of our structs that is converted from and
 * to it. Two structs may share a type: Envelope is filled by struct ts_envelope and struct ts_msg. Built
 * once, then only read.
 */
#ifndef TS_PROTO_WIRE_PAIR_H
#define TS_PROTO_WIRE_PAIR_H

#include <protobuf-c/protobuf-c.h>

#include "common/core/ts_schema.h"

#define TS_WIRE_FIELDS_MAX 96 /* of one message */
#define TS_WIRE_CRC                                                                                          \
    2047 /* the number of Envelope.crc32c, which no table has: ts_wire.c writes and checks it */

struct ts_wire_type {
    const ProtobufCMessageDescriptor *wire;
    const struct ts_field *fields[TS_WIRE_FIELDS_MAX]; /* by index in the descriptor */
    const struct ts_wire_type *subs[TS_WIRE_FIELDS_MAX];
};

struct ts_wire_pair {
    const struct ts_schema *schema;
    const struct ts_wire_type *type;
    const ProtobufCFieldDescriptor *fields[TS_WIRE_FIELDS_MAX]; /* by index in the schema */
    const struct ts_wire_pair *subs[TS_WIRE_FIELDS_MAX];
};

struct ts_wire_pairs {
    const struct ts_wire_pair *envelope, *msg, *record;
};

const struct ts_wire_pairs *ts_wire_pairs(void);

/* ts_wire_convert.c */
enum ts_status ts_wire_to(const struct ts_wire_pair *pair, const void *value, ProtobufCMessage *message,
                          struct ts_arena *arena);
void ts_wire_from(const struct ts_wire_pair *pair, const ProtobufCMessage *message, void *value,
                  struct ts_arena *arena);
ProtobufCMessage *ts_wire_message(const struct ts_wire_type *type,
                                  struct ts_arena *arena); /* a new, empty one */

/* ts_wire_scan.c: bytes as they came, nothing allocated. */
struct ts_wire_reader {
    const uint8_t *data, *end;
};

struct ts_wire_tag {
    uint32_t number;
    ProtobufCWireType type;
    uint64_t value;      /* of a varint */
    const uint8_t *data; /* of a length-delimited field */
    size_t bytes;
};

/* Reads the next field. False when the bytes are not protobuf; call only while data < end. */
bool ts_wire_next(struct ts_wire_reader *reader, struct ts_wire_tag *tag);
/* TS_OK: unpacking needs no more than a bounded multiple of the bytes, and no length or count exceeds its
 * bound. TS_EINVAL: malformed. TS_ELIMIT: oversized. */
enum ts_status ts_wire_scan(const struct ts_wire_type *type, const uint8_t *data, size_t bytes,
                            struct ts_error *err);

#endif
