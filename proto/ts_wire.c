#include "proto/ts_wire.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_crc32c.h"
#include "common/core/ts_schema_table.h"
#include "proto/ts_wire_pair.h"

#define RECORD_ACTIONS_MAX (4 * TS_LIST_MAX)

/* Numbers of struct ts_envelope's fields in ts_envelope.proto. */
enum { ENVELOPE_VERSION = 1, ENVELOPE_SEQ = 4 };

/* --- records ------------------------------------------------------------------------------------------- */

static const struct ts_field header_fields[] = {
    TS_F_ID(record_begin, kind),
    TS_F(record_begin, incarnation),
    TS_F_SPAN(record_begin, settings, TS_WIRE_SETTINGS_MAX),
};
static const struct ts_schema header_schema = TS_SCHEMA(record_begin, "RecordHeader", header_fields);

static const struct ts_field step_fields[] = {
    TS_F(record_step, now),
    TS_F_MSG(record_step, event, ts_event_schema),
    TS_F_LIST(record_step, actions, RECORD_ACTIONS_MAX, ts_action_schema),
};
static const struct ts_schema step_schema = TS_SCHEMA(record_step, "RecordStep", step_fields);

static const struct ts_field record_fields[] = {
    TS_F_CASE(record_entry, header, TS_RECORD_HEADER, header_schema),
    TS_F_CASE(record_entry, step, TS_RECORD_STEP, step_schema),
};

const struct ts_schema ts_record_schema = {
    .name = "RecordEntry",
    .size = sizeof(struct ts_record_entry),
    .one_of = true,
    .field_count = TS_ARRAY_SIZE(record_fields),
    .fields = record_fields,
};

/* --- both ---------------------------------------------------------------------------------------------- */

static void *arena_alloc(void *arena, size_t size)
{
    return ts_arena_alloc(arena, size);
}

static void arena_free(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

/* `room` is left free behind the bytes. */
static enum ts_status pack(const ProtobufCMessage *message, size_t most, size_t room, struct ts_arena *arena,
                           struct ts_bytes *out)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (bytes + room > most)
        return TS_ELIMIT;
    uint8_t *data = ts_arena_alloc(arena, bytes + room);
    protobuf_c_message_pack(message, data);
    *out = (struct ts_bytes){data, (uint32_t)bytes};
    return TS_OK;
}

static enum ts_status unpack(const struct ts_wire_type *type, const void *data, size_t bytes,
                             struct ts_arena *arena, ProtobufCMessage **out, struct ts_error *err)
{
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
    enum ts_status status = ts_wire_scan(type, data, bytes, err);
    if (status)
        return status;
    *out = protobuf_c_message_unpack(type->wire, &allocator, bytes, data);
    return *out ? TS_OK : ts_error_set(err, TS_EINVAL, "%s: malformed", type->wire->short_name);
}

/* --- messages ------------------------------------------------------------------------------------------ */

void ts_wire_seal(uint8_t *data, size_t bytes)
{
    const uint32_t tag = TS_WIRE_CRC << 3 | PROTOBUF_C_WIRE_TYPE_32BIT;
    uint32_t crc = ts_crc32c(0, data, bytes);
    uint8_t *seal = data + bytes;
    seal[0] = (uint8_t)(tag | 0x80);
    seal[1] = (uint8_t)(tag >> 7);
    for (unsigned i = 0; i < 4; i++)
        seal[2 + i] = (uint8_t)(crc >> 8 * i);
}

enum ts_status ts_wire_pack(const struct ts_envelope *envelope, const struct ts_msg *msg,
                            struct ts_arena *arena, struct ts_bytes *out)
{
    const struct ts_wire_pairs *pairs = ts_wire_pairs();
    if (msg->kind == TS_MSG_NONE || ts_schema_check(&ts_msg_schema, msg, NULL) != TS_OK)
        return TS_EINVAL;
    ProtobufCMessage *message = ts_wire_message(pairs->envelope->type, arena);
    enum ts_status status = ts_wire_to(pairs->envelope, envelope, message, arena);
    if (status == TS_OK)
        status = ts_wire_to(pairs->msg, msg, message, arena);
    if (status == TS_OK)
        status = pack(message, TS_WIRE_BYTES_MAX, TS_WIRE_SEAL_BYTES, arena, out);
    if (status == TS_OK) {
        ts_wire_seal((uint8_t *)out->data, out->count);
        out->count += TS_WIRE_SEAL_BYTES;
    }
    return status;
}

static enum ts_status refuse(uint64_t *counter, struct ts_error *err, enum ts_status status, const char *why)
{
    ++*counter;
    return ts_error_set(err, status, "%s", why);
}

/* Clients in other languages and operators' tools may leave the seal out. */
static bool seal_required(enum ts_channel channel)
{
    return channel != TS_CHANNEL_CLIENT && channel != TS_CHANNEL_ADMIN;
}

static bool sealed(const uint8_t *data, size_t bytes)
{
    const uint8_t *crc = data + bytes - 4;
    uint32_t told = crc[0] | (uint32_t)crc[1] << 8 | (uint32_t)crc[2] << 16 | (uint32_t)crc[3] << 24;
    return told == ts_crc32c(0, data, bytes - TS_WIRE_SEAL_BYTES);
}

/* Looks at the outermost fields only: the cheapest reason to refuse a message comes first. Another version
 * may seal in another way, so its number is looked at before. */
static enum ts_status peek(const void *data, size_t bytes, enum ts_channel channel,
                           struct ts_wire_counters *counters, struct ts_error *err)
{
    struct ts_wire_reader reader = {data, (const uint8_t *)data + bytes};
    uint64_t version = 0;
    uint32_t kind = TS_MSG_NONE;
    struct ts_wire_tag tag = {.number = 0};
    while (reader.data < reader.end) {
        if (!ts_wire_next(&reader, &tag))
            return refuse(&counters->malformed, err, TS_EINVAL, "the envelope is malformed");
        if (tag.number == ENVELOPE_VERSION)
            version = tag.value;
        if (tag.number == TS_WIRE_CRC && (reader.data < reader.end || tag.bytes != 4))
            return refuse(&counters->malformed, err, TS_EINVAL, "the checksum is not the last field");
        if (tag.number <= ENVELOPE_SEQ || tag.number == TS_WIRE_CRC ||
            !protobuf_c_message_descriptor_get_field(ts_wire_pairs()->msg->type->wire, tag.number))
            continue;
        if (kind != TS_MSG_NONE)
            return refuse(&counters->malformed, err, TS_EINVAL, "the envelope has two bodies");
        kind = tag.number;
    }
    if (version != TS_PROTOCOL_VERSION)
        return refuse(&counters->bad_version, err, TS_EUNSUPPORTED, "another protocol version");
    if (tag.number == TS_WIRE_CRC ? !sealed(data, bytes) : seal_required(channel))
        return refuse(&counters->malformed, err, TS_EINVAL,
                      tag.number == TS_WIRE_CRC ? "damaged: its checksum is wrong" : "no checksum");
    if (kind == TS_MSG_NONE)
        return refuse(&counters->unknown, err, TS_EUNSUPPORTED, "no body of a known kind");
    if (!ts_msg_allowed(channel, (enum ts_msg_kind)kind))
        return refuse(&counters->wrong_channel, err, TS_EINVAL, "a message of another channel");
    return TS_OK;
}

enum ts_status ts_wire_unpack(const void *data, size_t bytes, enum ts_channel channel, struct ts_arena *arena,
                              struct ts_envelope *envelope, struct ts_msg *msg,
                              struct ts_wire_counters *counters, struct ts_error *err)
{
    const struct ts_wire_pairs *pairs = ts_wire_pairs();
    struct ts_wire_counters unused;
    ProtobufCMessage *message;
    if (!counters)
        counters = memset(&unused, 0, sizeof unused);
    if (bytes > TS_WIRE_BYTES_MAX)
        return refuse(&counters->oversized, err, TS_ELIMIT, "the envelope is too large");
    enum ts_status status = peek(data, bytes, channel, counters, err);
    if (status)
        return status;
    status = unpack(pairs->msg->type, data, bytes, arena, &message, err);
    if (status == TS_OK) {
        ts_wire_from(pairs->envelope, message, envelope, arena);
        ts_wire_from(pairs->msg, message, msg, arena);
        status = ts_schema_check(&ts_msg_schema, msg, err);
    }
    if (status)
        ++*(status == TS_ELIMIT ? &counters->oversized : &counters->malformed);
    return status;
}

enum ts_status ts_wire_pack_record(const struct ts_record_entry *entry, struct ts_arena *arena,
                                   struct ts_bytes *out)
{
    const struct ts_wire_pair *pair = ts_wire_pairs()->record;
    ProtobufCMessage *message = ts_wire_message(pair->type, arena);
    enum ts_status status = ts_wire_to(pair, entry, message, arena);
    return status == TS_OK ? pack(message, TS_WIRE_RECORD_BYTES_MAX, 0, arena, out) : status;
}

enum ts_status ts_wire_unpack_record(const void *data, size_t bytes, struct ts_arena *arena,
                                     struct ts_record_entry *entry, struct ts_error *err)
{
    const struct ts_wire_pair *pair = ts_wire_pairs()->record;
    ProtobufCMessage *message;
    if (bytes > TS_WIRE_RECORD_BYTES_MAX)
        return ts_error_set(err, TS_ELIMIT, "a record entry of more than %u bytes", TS_WIRE_RECORD_BYTES_MAX);
    enum ts_status status = unpack(pair->type, data, bytes, arena, &message, err);
    if (status)
        return status;
    ts_wire_from(pair, message, entry, arena);
    return ts_schema_check(&ts_record_schema, entry, err);
}
