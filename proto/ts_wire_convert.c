#include "common/base/ts_arena.h"
#include "proto/ts_wire_pair.h"

static void *wire_at(const ProtobufCMessage *message, unsigned offset)
{
    return (char *)message + offset;
}

static uint32_t kind_of(const void *value)
{
    uint32_t kind;
    memcpy(&kind, value, sizeof kind);
    return kind;
}

static bool present(const struct ts_field *field, const void *value)
{
    return field->when == 0 || field->when == kind_of(value);
}

ProtobufCMessage *ts_wire_message(const struct ts_wire_type *type, struct ts_arena *arena)
{
    ProtobufCMessage *message = ts_arena_alloc(arena, type->wire->sizeof_message);
    protobuf_c_message_init(type->wire, message);
    return message;
}

/* --- ours to wire -------------------------------------------------------------------------------------- */

static enum ts_status to_text(const struct ts_list *text, const ProtobufCFieldDescriptor *wire, void *at,
                              struct ts_arena *arena)
{
    if (wire->type == PROTOBUF_C_TYPE_BYTES) {
        *(ProtobufCBinaryData *)at = (ProtobufCBinaryData){.len = text->count, .data = (uint8_t *)text->data};
        return TS_OK;
    }
    if (text->count == 0)
        return TS_OK;
    if (memchr(text->data, 0, text->count))
        return TS_EINVAL;
    char *copy = ts_arena_alloc(arena, (size_t)text->count + 1);
    memcpy(copy, text->data, text->count);
    copy[text->count] = '\0';
    *(char **)at = copy;
    return TS_OK;
}

static enum ts_status to_messages(const struct ts_wire_pair *sub, const struct ts_list *list, void *at,
                                  struct ts_arena *arena)
{
    ProtobufCMessage **items = ts_arena_alloc(arena, list->count * sizeof *items);
    for (uint32_t i = 0; i < list->count; i++) {
        items[i] = ts_wire_message(sub->type, arena);
        enum ts_status status =
            ts_wire_to(sub, (const char *)list->data + (size_t)i * sub->schema->size, items[i], arena);
        if (status)
            return status;
    }
    *(ProtobufCMessage ***)at = items;
    return TS_OK;
}

/* A struct of zeroes and empty spans is left out, but never the body that says which kind a message is. */
static enum ts_status to_message(const struct ts_wire_pair *sub, const void *from, bool body, void *at,
                                 struct ts_arena *arena)
{
    ProtobufCMessage *item = ts_wire_message(sub->type, arena);
    enum ts_status status = ts_wire_to(sub, from, item, arena);
    if (status == TS_OK && (body || protobuf_c_message_get_packed_size(item) > 0))
        *(ProtobufCMessage **)at = item;
    return status;
}

static enum ts_status to_field(const struct ts_wire_pair *pair, uint32_t index, const void *value,
                               ProtobufCMessage *message, struct ts_arena *arena)
{
    const struct ts_field *field = &pair->schema->fields[index];
    const ProtobufCFieldDescriptor *wire = pair->fields[index];
    const char *from = (const char *)value + field->offset;
    void *at = wire_at(message, wire->offset);
    struct ts_list list;
    switch (field->type) {
    case TS_FIELD_BOOL:
        *(protobuf_c_boolean *)at = *(const bool *)from;
        return TS_OK;
    case TS_FIELD_U32:
    case TS_FIELD_F32:
    case TS_FIELD_ENUM:
        memcpy(at, from, 4);
        return TS_OK;
    case TS_FIELD_U64:
    case TS_FIELD_I64:
    case TS_FIELD_F64:
        memcpy(at, from, 8);
        return TS_OK;
    case TS_FIELD_MSG:
        if (field->when != 0)
            *(uint32_t *)wire_at(message, wire->quantifier_offset) = wire->id;
        return to_message(pair->subs[index], from, field->when != 0, at, arena);
    default:
        break;
    }
    memcpy(&list, from, sizeof list);
    if (field->type == TS_FIELD_STR || field->type == TS_FIELD_BYTES)
        return to_text(&list, wire, at, arena);
    *(size_t *)wire_at(message, wire->quantifier_offset) = list.count;
    if (field->type == TS_FIELD_MSGS)
        return to_messages(pair->subs[index], &list, at, arena);
    *(const void **)at = list.data;
    return TS_OK;
}

enum ts_status ts_wire_to(const struct ts_wire_pair *pair, const void *value, ProtobufCMessage *message,
                          struct ts_arena *arena)
{
    for (uint32_t i = 0; i < pair->schema->field_count; i++) {
        if (!present(&pair->schema->fields[i], value))
            continue;
        enum ts_status status = to_field(pair, i, value, message, arena);
        if (status)
            return status;
    }
    return TS_OK;
}

/* --- wire to ours -------------------------------------------------------------------------------------- */

static struct ts_list from_text(const ProtobufCFieldDescriptor *wire, const void *at)
{
    struct ts_list list = {NULL, 0};
    if (wire->type == PROTOBUF_C_TYPE_BYTES) {
        const ProtobufCBinaryData *bytes = at;
        list.data = bytes->data;
        list.count = (uint32_t)bytes->len;
    } else {
        const char *text = *(char *const *)at;
        list.data = text;
        list.count = text ? (uint32_t)strlen(text) : 0;
    }
    if (list.count == 0)
        list.data = NULL;
    return list;
}

static struct ts_list from_messages(const struct ts_wire_pair *sub, size_t count, const void *at,
                                    struct ts_arena *arena)
{
    ProtobufCMessage *const *items = *(ProtobufCMessage * *const *)at;
    size_t size = sub->schema->size;
    char *values = count ? ts_arena_alloc(arena, count * size) : NULL;
    for (size_t i = 0; i < count; i++)
        ts_wire_from(sub, items[i], values + i * size, arena);
    return (struct ts_list){values, (uint32_t)count};
}

static void from_list(const struct ts_wire_pair *pair, uint32_t index, const ProtobufCMessage *message,
                      char *to, struct ts_arena *arena)
{
    const struct ts_field *field = &pair->schema->fields[index];
    const ProtobufCFieldDescriptor *wire = pair->fields[index];
    const void *at = wire_at(message, wire->offset);
    struct ts_list list;
    if (field->type == TS_FIELD_STR || field->type == TS_FIELD_BYTES) {
        list = from_text(wire, at);
    } else {
        size_t count = *(const size_t *)wire_at(message, wire->quantifier_offset);
        if (field->type == TS_FIELD_MSGS)
            list = from_messages(pair->subs[index], count, at, arena);
        else
            list = (struct ts_list){count ? *(const void *const *)at : NULL, (uint32_t)count};
    }
    memcpy(to, &list, sizeof list);
}

static void from_field(const struct ts_wire_pair *pair, uint32_t index, const ProtobufCMessage *message,
                       void *value, struct ts_arena *arena)
{
    const struct ts_field *field = &pair->schema->fields[index];
    const ProtobufCFieldDescriptor *wire = pair->fields[index];
    const void *at = wire_at(message, wire->offset);
    char *to = (char *)value + field->offset;
    const ProtobufCMessage *sub;
    switch (field->type) {
    case TS_FIELD_BOOL:
        *(bool *)to = *(const protobuf_c_boolean *)at != 0;
        break;
    case TS_FIELD_U32:
    case TS_FIELD_F32:
    case TS_FIELD_ENUM:
        memcpy(to, at, 4);
        break;
    case TS_FIELD_U64:
    case TS_FIELD_I64:
    case TS_FIELD_F64:
        memcpy(to, at, 8);
        break;
    case TS_FIELD_MSG:
        if (field->when != 0) {
            if (*(const uint32_t *)wire_at(message, wire->quantifier_offset) != wire->id)
                break;
            memcpy(value, &field->when, sizeof field->when);
        }
        sub = *(ProtobufCMessage *const *)at;
        if (sub)
            ts_wire_from(pair->subs[index], sub, to, arena);
        break;
    default:
        from_list(pair, index, message, to, arena);
    }
}

void ts_wire_from(const struct ts_wire_pair *pair, const ProtobufCMessage *message, void *value,
                  struct ts_arena *arena)
{
    memset(value, 0, pair->schema->size);
    for (uint32_t i = 0; i < pair->schema->field_count; i++)
        from_field(pair, i, message, value, arena);
}
