#include "proto/ts_wire_pair.h"

#include <pthread.h>
#include <stdio.h>

#include "common/base/ts_assert.h"
#include "proto/ts_envelope.pb-c.h"
#include "proto/ts_record.pb-c.h"
#include "proto/ts_wire.h"

#define TYPES_MAX 160

static struct ts_wire_type types[TYPES_MAX];
static struct ts_wire_pair pairs[TYPES_MAX];
static size_t type_count, pair_count;
static struct ts_wire_pairs roots;

static _Noreturn void disagree(const struct ts_schema *schema, const char *field, const char *why)
{
    fprintf(stderr, "proto: %s.%s: %s\n", schema->name, field, why);
    ts_assert_failed("tables and .proto files agree", __FILE__, __LINE__);
}

static struct ts_wire_type *type_of(const ProtobufCMessageDescriptor *wire)
{
    for (size_t i = 0; i < type_count; i++)
        if (types[i].wire == wire)
            return &types[i];
    TS_ASSERT(type_count < TYPES_MAX && wire->n_fields <= TS_WIRE_FIELDS_MAX);
    types[type_count].wire = wire;
    return &types[type_count++];
}

static bool same_number(const struct ts_field *field, ProtobufCType wire)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        return wire == PROTOBUF_C_TYPE_BOOL;
    case TS_FIELD_U32:
    case TS_FIELD_U32S:
        return wire == PROTOBUF_C_TYPE_UINT32 || wire == PROTOBUF_C_TYPE_FIXED32;
    case TS_FIELD_U64:
    case TS_FIELD_U64S:
        return wire == PROTOBUF_C_TYPE_UINT64 || wire == PROTOBUF_C_TYPE_FIXED64;
    case TS_FIELD_I64:
        return wire == PROTOBUF_C_TYPE_SINT64;
    case TS_FIELD_F32:
        return wire == PROTOBUF_C_TYPE_FLOAT;
    case TS_FIELD_F64:
        return wire == PROTOBUF_C_TYPE_DOUBLE;
    default:
        return false;
    }
}

static bool same_type(const struct ts_field *field, const ProtobufCFieldDescriptor *wire)
{
    bool list = field->type == TS_FIELD_U32S || field->type == TS_FIELD_U64S || field->type == TS_FIELD_MSGS;
    const ProtobufCEnumDescriptor *names;
    if ((wire->label == PROTOBUF_C_LABEL_REPEATED) != list)
        return false;
    switch (field->type) {
    case TS_FIELD_ENUM:
        names = wire->descriptor;
        return wire->type == PROTOBUF_C_TYPE_ENUM && names->values[0].value == 0 &&
               names->values[names->n_values - 1].value == (int)field->max;
    case TS_FIELD_STR: /* bytes where the text may hold U+0000 */
        return wire->type == PROTOBUF_C_TYPE_STRING || wire->type == PROTOBUF_C_TYPE_BYTES;
    case TS_FIELD_BYTES:
        return wire->type == PROTOBUF_C_TYPE_BYTES;
    case TS_FIELD_MSG:
    case TS_FIELD_MSGS:
        return wire->type == PROTOBUF_C_TYPE_MESSAGE;
    default:
        return same_number(field, wire->type);
    }
}

static const struct ts_wire_pair *pair_of(const struct ts_schema *schema,
                                          const ProtobufCMessageDescriptor *wire)
{
    for (size_t i = 0; i < pair_count; i++)
        if (pairs[i].schema == schema)
            return &pairs[i];
    TS_ASSERT(pair_count < TYPES_MAX && schema->field_count <= TS_WIRE_FIELDS_MAX);
    if (strcmp(schema->name, wire->short_name) != 0)
        disagree(schema, wire->short_name, "the type has another name");
    struct ts_wire_pair *pair = &pairs[pair_count++];
    struct ts_wire_type *type = type_of(wire);
    pair->schema = schema;
    pair->type = type;
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        const ProtobufCFieldDescriptor *twin =
            protobuf_c_message_descriptor_get_field_by_name(wire, field->name);
        if (!twin)
            disagree(schema, field->name, "missing in the .proto file");
        else if (!same_type(field, twin))
            disagree(schema, field->name, "of another type in the .proto file");
        if (field->when != 0 && field->when != twin->id)
            disagree(schema, field->name, "its kind is not its field number");
        size_t index = (size_t)(twin - wire->fields);
        pair->fields[i] = twin;
        type->fields[index] = field;
        if (field->sub) {
            pair->subs[i] = pair_of(field->sub, twin->descriptor);
            type->subs[index] = pair->subs[i]->type;
        }
    }
    return pair;
}

static void build(void)
{
    roots.envelope = pair_of(&ts_envelope_schema, &thunderserve__envelope__descriptor);
    roots.msg = pair_of(&ts_msg_schema, &thunderserve__envelope__descriptor);
    roots.record = pair_of(&ts_record_schema, &thunderserve__record_entry__descriptor);
    for (size_t i = 0; i < pair_count; i++) {
        const struct ts_wire_type *type = pairs[i].type;
        for (unsigned j = 0; j < type->wire->n_fields; j++)
            if (!type->fields[j] && type->wire->fields[j].id != TS_WIRE_CRC)
                disagree(pairs[i].schema, type->wire->fields[j].name, "missing in the table");
    }
}

const struct ts_wire_pairs *ts_wire_pairs(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build);
    return &roots;
}
