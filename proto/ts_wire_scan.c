#include "common/base/ts_assert.h"
#include "proto/ts_wire_pair.h"

/* Fields of one message, nested ones included. protobuf-c keeps some ten machine words for each while it
 * unpacks. */
#define TAGS_MAX (2u << 20)

struct scan {
    uint32_t tags_left;
    struct ts_error *err;
};

static bool read_varint(struct ts_wire_reader *r, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70 && r->data < r->end; shift += 7) {
        uint8_t byte = *r->data++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_bytes(struct ts_wire_reader *r, struct ts_wire_tag *tag, uint64_t bytes)
{
    if (bytes > (uint64_t)(r->end - r->data))
        return false;
    tag->data = r->data;
    tag->bytes = (size_t)bytes;
    r->data += bytes;
    return true;
}

bool ts_wire_next(struct ts_wire_reader *reader, struct ts_wire_tag *tag)
{
    uint64_t key, bytes;
    *tag = (struct ts_wire_tag){.number = 0};
    if (!read_varint(reader, &key) || key >> 3 == 0 || key > UINT32_MAX)
        return false;
    tag->number = (uint32_t)(key >> 3);
    tag->type = (ProtobufCWireType)(key & 7);
    switch (tag->type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(reader, &tag->value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return read_bytes(reader, tag, 8);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return read_bytes(reader, tag, 4);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return read_varint(reader, &bytes) && read_bytes(reader, tag, bytes);
    default:
        return false;
    }
}

static ProtobufCWireType wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* Numbers in one occurrence of a repeated number field. */
static uint64_t numbers_in(const struct ts_wire_tag *tag, ProtobufCWireType single)
{
    uint64_t count = 0;
    if (tag->type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
        return 1;
    if (single == PROTOBUF_C_WIRE_TYPE_32BIT)
        return tag->bytes / 4;
    if (single == PROTOBUF_C_WIRE_TYPE_64BIT)
        return tag->bytes / 8;
    for (size_t i = 0; i < tag->bytes; i++)
        count += tag->data[i] < 0x80;
    return count;
}

static enum ts_status malformed(struct scan *scan, const struct ts_wire_type *type, const char *field)
{
    return ts_error_set(scan->err, TS_EINVAL, "%s.%s: malformed", type->wire->short_name, field);
}

static enum ts_status scan_message(struct scan *scan, const struct ts_wire_type *type, const uint8_t *data,
                                   size_t bytes);

/* `seen` counts the items of this field so far, in this message. */
static enum ts_status scan_field(struct scan *scan, const struct ts_wire_type *type, size_t index,
                                 const struct ts_wire_tag *tag, uint64_t *seen)
{
    const ProtobufCFieldDescriptor *wire = &type->wire->fields[index];
    const struct ts_field *field = type->fields[index];
    ProtobufCWireType single = wire_type_of(wire->type);
    bool list = wire->label == PROTOBUF_C_LABEL_REPEATED;
    bool packed = list && !type->subs[index] && tag->type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    if (tag->type != single && !packed)
        return malformed(scan, type, wire->name);
    if (type->subs[index]) {
        if (++*seen > (list ? field->max : 1))
            return list ? ts_error_set(scan->err, TS_ELIMIT, "%s.%s: more than %u items",
                                       type->wire->short_name, wire->name, field->max)
                        : malformed(scan, type, wire->name);
        return scan_message(scan, type->subs[index], tag->data, tag->bytes);
    }
    if (!list && single != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
        return TS_OK;
    *seen = list ? *seen + numbers_in(tag, single) : tag->bytes;
    if (*seen > field->max)
        return ts_error_set(scan->err, TS_ELIMIT, "%s.%s: more than %u items", type->wire->short_name,
                            wire->name, field->max);
    /* protobuf-c ends a string at its first NUL, which would turn two ids into one. */
    if (wire->type == PROTOBUF_C_TYPE_STRING && memchr(tag->data, 0, tag->bytes))
        return malformed(scan, type, wire->name);
    return TS_OK;
}

/* The recursion is as deep as our tables nest, which is not for the peer to choose: unknown fields are not
 * entered. */
static enum ts_status scan_message(struct scan *scan, const struct ts_wire_type *type, const uint8_t *data,
                                   size_t bytes)
{
    struct ts_wire_reader reader = {data, data + bytes};
    uint64_t seen[TS_WIRE_FIELDS_MAX] = {0};
    while (reader.data < reader.end) {
        struct ts_wire_tag tag;
        if (!ts_wire_next(&reader, &tag))
            return malformed(scan, type, "(tag)");
        if (scan->tags_left-- == 0)
            return ts_error_set(scan->err, TS_ELIMIT, "more than %u fields", TAGS_MAX);
        const ProtobufCFieldDescriptor *wire =
            protobuf_c_message_descriptor_get_field(type->wire, tag.number);
        if (!wire)
            continue;
        size_t index = (size_t)(wire - type->wire->fields);
        enum ts_status status = scan_field(scan, type, index, &tag, &seen[index]);
        if (status)
            return status;
    }
    return TS_OK;
}

enum ts_status ts_wire_scan(const struct ts_wire_type *type, const uint8_t *data, size_t bytes,
                            struct ts_error *err)
{
    struct scan scan = {.tags_left = TAGS_MAX, .err = err};
    return scan_message(&scan, type, data, bytes);
}
