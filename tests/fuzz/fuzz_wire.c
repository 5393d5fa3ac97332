/*
 * The first byte chooses: 0 a record entry, 1..8 a message on that channel, 65..72 one without its seal,
 * which all others get here: no change of bytes would find its way past a checksum. What unpacks must be
 * within its bounds, and packing it must reach a fixed point: the bytes of what was read, read again, give
 * the same bytes.
 */
#include <stdlib.h>

#include "common/base/ts_assert.h"
#include "proto/ts_wire.h"

#define UNSEALED 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_record(const uint8_t *data, size_t size, struct ts_arena *arena)
{
    struct ts_record_entry entry;
    struct ts_bytes once, twice;
    if (ts_wire_unpack_record(data, size, arena, &entry, NULL) != TS_OK)
        return;
    TS_ASSERT(ts_schema_check(&ts_record_schema, &entry, NULL) == TS_OK);
    TS_ASSERT(ts_wire_pack_record(&entry, arena, &once) == TS_OK);
    TS_ASSERT(ts_wire_unpack_record(once.data, once.count, arena, &entry, NULL) == TS_OK);
    TS_ASSERT(ts_wire_pack_record(&entry, arena, &twice) == TS_OK);
    TS_ASSERT(once.count == twice.count && memcmp(once.data, twice.data, once.count) == 0);
}

static void fuzz_message(const uint8_t *data, size_t size, enum ts_channel channel, struct ts_arena *arena)
{
    struct ts_wire_counters counters = {0};
    struct ts_envelope envelope;
    struct ts_msg msg;
    struct ts_bytes once, twice;
    enum ts_status status = ts_wire_unpack(data, size, channel, arena, &envelope, &msg, &counters, NULL);
    TS_ASSERT(ts_wire_refused(&counters) == (status != TS_OK));
    if (status != TS_OK)
        return;
    TS_ASSERT(ts_msg_allowed(channel, msg.kind));
    TS_ASSERT(ts_schema_check(&ts_msg_schema, &msg, NULL) == TS_OK);
    TS_ASSERT(ts_wire_pack(&envelope, &msg, arena, &once) == TS_OK);
    TS_ASSERT(ts_wire_unpack(once.data, once.count, channel, arena, &envelope, &msg, NULL, NULL) == TS_OK);
    TS_ASSERT(ts_wire_pack(&envelope, &msg, arena, &twice) == TS_OK);
    TS_ASSERT(once.count == twice.count && memcmp(once.data, twice.data, once.count) == 0);
}

static void fuzz_sealed(const uint8_t *data, size_t size, enum ts_channel channel, struct ts_arena *arena)
{
    uint8_t *copy = malloc(size + TS_WIRE_SEAL_BYTES); /* of just that size: a sanitizer sees reads past it */
    TS_ASSERT(copy);
    if (size > 0)
        memcpy(copy, data, size);
    ts_wire_seal(copy, size);
    fuzz_message(copy, size + TS_WIRE_SEAL_BYTES, channel, arena);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ts_arena arena;
    if (size == 0)
        return 0;
    ts_arena_init(&arena);
    if (data[0] == 0)
        fuzz_record(data + 1, size - 1, &arena);
    else if (data[0] > UNSEALED)
        fuzz_message(data + 1, size - 1, (enum ts_channel)(data[0] - UNSEALED), &arena);
    else
        fuzz_sealed(data + 1, size - 1, (enum ts_channel)data[0], &arena);
    ts_arena_fini(&arena);
    return 0;
}
