/* Bytes nobody meant well: each refusal is counted once, under its kind, and costs no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "proto/ts_wire.h"
#include "tests/wire/wire_golden.h"

#define LINES_MAX 512

static struct ts_arena arena;
static struct wire_golden lines[LINES_MAX];

static int reset_arena(void **state)
{
    (void)state;
    ts_arena_reset(&arena);
    return 0;
}

/* The bytes move to a block of just that size, so that a sanitizer sees a read past the end. */
static enum ts_status unpack(const void *data, size_t bytes, enum ts_channel channel, struct ts_arena *into,
                             struct ts_wire_counters *counters)
{
    struct ts_envelope envelope;
    struct ts_msg msg;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    if (bytes)
        memcpy(copy, data, bytes);
    enum ts_status status = ts_wire_unpack(copy, bytes, channel, into, &envelope, &msg, counters, NULL);
    if (status == TS_OK) {
        assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_OK);
        assert_true(ts_msg_allowed(channel, msg.kind));
    }
    free(copy);
    return status;
}

static void check_counted(const void *data, size_t bytes, enum ts_channel channel)
{
    struct ts_wire_counters counters = {0};
    struct ts_arena into;
    ts_arena_init(&into);
    enum ts_status status = unpack(data, bytes, channel, &into, &counters);
    assert_int_equal(ts_wire_refused(&counters), status != TS_OK);
    ts_arena_fini(&into);
}

/* A copy with the seal behind it; the caller frees it. */
static struct ts_bytes sealed(const void *data, size_t bytes)
{
    uint8_t *copy = malloc(bytes + TS_WIRE_SEAL_BYTES);
    if (bytes)
        memcpy(copy, data, bytes);
    ts_wire_seal(copy, bytes);
    return (struct ts_bytes){copy, (uint32_t)(bytes + TS_WIRE_SEAL_BYTES)};
}

/* One on which the seal is required, if that kind may come on such a one. */
static enum ts_channel service_channel_of(enum ts_msg_kind kind)
{
    for (unsigned c = 1; c <= TS_CHANNEL_LAST; c++)
        if (c != TS_CHANNEL_CLIENT && c != TS_CHANNEL_ADMIN && ts_msg_allowed((enum ts_channel)c, kind))
            return (enum ts_channel)c;
    return wire_channel_of(kind);
}

static void test_truncated_anywhere(void **state)
{
    (void)state;
    size_t count = wire_golden_load(WIRE_GOLDEN, &arena, lines, LINES_MAX);
    for (size_t i = 0; i < count; i++)
        for (uint32_t bytes = 0; bytes < lines[i].bytes.count; bytes++)
            check_counted(lines[i].bytes.data, bytes, wire_channel_of(lines[i].kind));
}

/* Damage that the checksum cannot know of, since it came before: what is behind it must hold by itself. */
static void test_flipped_bytes(void **state)
{
    (void)state;
    uint8_t data[4096];
    struct ts_rng rng;
    ts_rng_init(&rng, 99);
    size_t count = wire_golden_load(WIRE_GOLDEN, &arena, lines, LINES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint32_t bytes = lines[i].bytes.count - TS_WIRE_SEAL_BYTES;
        assert_true(bytes <= sizeof data - TS_WIRE_SEAL_BYTES);
        for (int round = 0; round < 300; round++) {
            memcpy(data, lines[i].bytes.data, bytes);
            for (uint64_t flips = 1 + ts_rng_below(&rng, 3); flips > 0; flips--)
                data[ts_rng_below(&rng, bytes)] = (uint8_t)ts_rng_u64(&rng);
            ts_wire_seal(data, bytes);
            check_counted(data, bytes + TS_WIRE_SEAL_BYTES, wire_channel_of(lines[i].kind));
        }
    }
}

/* --- the seal ------------------------------------------------------------------------------------------ */

static void test_damage_is_found(void **state)
{
    (void)state;
    size_t count = wire_golden_load(WIRE_GOLDEN, &arena, lines, LINES_MAX);
    for (size_t i = 0; i < count; i++) {
        enum ts_channel channel = service_channel_of(lines[i].kind);
        bool required = channel != TS_CHANNEL_CLIENT && channel != TS_CHANNEL_ADMIN;
        uint32_t body = lines[i].bytes.count - TS_WIRE_SEAL_BYTES;
        struct ts_bytes copy = sealed(lines[i].bytes.data, body);
        uint8_t *data = (uint8_t *)copy.data;
        assert_memory_equal(data, lines[i].bytes.data, copy.count);
        for (uint32_t bit = 0; bit < 8 * (required ? copy.count : body); bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            struct ts_wire_counters counters = {0};
            assert_int_not_equal(unpack(data, copy.count, channel, &arena, &counters), TS_OK);
            assert_int_equal(counters.malformed + counters.bad_version, 1);
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_int_equal(unpack(data, copy.count, channel, &arena, NULL), TS_OK);
        assert_int_equal(unpack(data, body, channel, &arena, NULL), required ? TS_EINVAL : TS_OK);
        free(data);
    }
}

static void test_every_channel(void **state)
{
    (void)state;
    size_t count = wire_golden_load(WIRE_GOLDEN, &arena, lines, LINES_MAX);
    for (size_t i = 0; i < count; i++) {
        for (unsigned c = 1; c <= TS_CHANNEL_LAST; c++) {
            struct ts_wire_counters counters = {0};
            bool allowed = ts_msg_allowed((enum ts_channel)c, lines[i].kind);
            enum ts_status status =
                unpack(lines[i].bytes.data, lines[i].bytes.count, (enum ts_channel)c, &arena, &counters);
            assert_int_equal(status, allowed ? TS_OK : TS_EINVAL);
            assert_int_equal(counters.wrong_channel, !allowed);
            assert_int_equal(ts_wire_refused(&counters), !allowed);
        }
    }
}

/* --- refusals by kind ---------------------------------------------------------------------------------- */

struct crafted {
    const char *name;
    enum ts_channel channel;
    uint8_t bytes[24];
    uint32_t count;
    struct ts_wire_counters counters;
};

#define MALFORMED                                                                                            \
    {                                                                                                        \
        .malformed = 1                                                                                       \
    }
#define BYTES(...) {__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static const struct crafted crafted[] = {
    {"nothing", TS_CHANNEL_KV, {0}, 0, {.bad_version = 1}},
    {"no version", TS_CHANNEL_WORKER, BYTES(0x6a, 0), {.bad_version = 1}},
    {"version 2", TS_CHANNEL_WORKER, BYTES(0x08, 2, 0x6a, 0), {.bad_version = 1}},
    {"no body", TS_CHANNEL_WORKER, BYTES(0x08, 1), {.unknown = 1}},
    {"a kind to come", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0xa2, 0x1f, 0), {.unknown = 1}},
    {"a reset for a client", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0x6a, 0), {.wrong_channel = 1}},
    {"no channel", 0, BYTES(0x08, 1, 0x6a, 0), {.wrong_channel = 1}},
    {"a reset", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6a, 2, 0x10, TS_REASON_LAST), {0}},
    {"unknown reason", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6a, 2, 0x10, TS_REASON_LAST + 1), MALFORMED},
    {"negative reason", TS_CHANNEL_WORKER,
     BYTES(0x08, 1, 0x6a, 11, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), MALFORMED},
    {"two bodies", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6a, 0, 0x62, 0), MALFORMED},
    {"one body twice", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6a, 0, 0x6a, 0), MALFORMED},
    {"body not a message", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x68, 0), MALFORMED},
    {"body cut", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6a, 2, 0x10), MALFORMED},
    {"length of 2^63", TS_CHANNEL_WORKER,
     BYTES(0x08, 1, 0x6a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1), MALFORMED},
    {"field 0", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x02, 0, 0x6a, 0), MALFORMED},
    {"a group", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x6b, 0x6c), MALFORMED},
    {"endless varint", TS_CHANNEL_WORKER,
     BYTES(0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), MALFORMED},
    {"session as text", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x1a, 1, 'x', 0x6a, 0), MALFORMED},
    {"rid twice", TS_CHANNEL_KV, BYTES(0x08, 1, 0xb2, 0x05, 4, 0x0a, 0, 0x0a, 0), MALFORMED},
    {"an id of bad UTF-8", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x52, 3, 0x12, 1, 0xff), MALFORMED},
    {"an id with a NUL", TS_CHANNEL_WORKER, BYTES(0x08, 1, 0x52, 5, 0x12, 3, 'a', 0, 'b'), MALFORMED},
    {"temperature NaN", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0xa2, 0x01, 7, 0x32, 5, 0x0d, 0, 0, 0xc0, 0x7f),
     MALFORMED},
    {"temperature infinite", TS_CHANNEL_CLIENT,
     BYTES(0x08, 1, 0xa2, 0x01, 7, 0x32, 5, 0x0d, 0, 0, 0x80, 0x7f), MALFORMED},
    {"temperature 1", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0xa2, 0x01, 7, 0x32, 5, 0x0d, 0, 0, 0x80, 0x3f), {0}},
    {"a seal before the end", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0xfd, 0x7f, 0x69, 0x37, 0x1e, 0x9e, 0x62, 0),
     MALFORMED},
    {"a seal of eight bytes", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0xf9, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8),
     MALFORMED},
    {"packed numbers cut", TS_CHANNEL_CLIENT, BYTES(0x08, 1, 0xda, 0x01, 3, 0x1a, 1, 0x80), MALFORMED},
};

static void test_crafted(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(crafted); i++) {
        const struct crafted *c = &crafted[i];
        struct ts_wire_counters counters = {0};
        struct ts_bytes bytes = sealed(c->bytes, c->count);
        unpack(bytes.data, bytes.count, c->channel, &arena, &counters);
        free((void *)bytes.data);
        if (memcmp(&counters, &c->counters, sizeof counters) != 0)
            fail_msg("%s: malformed %lu oversized %lu unknown %lu channel %lu version %lu", c->name,
                     (unsigned long)counters.malformed, (unsigned long)counters.oversized,
                     (unsigned long)counters.unknown, (unsigned long)counters.wrong_channel,
                     (unsigned long)counters.bad_version);
    }
}

/* --- oversized ----------------------------------------------------------------------------------------- */

static size_t put_varint(uint8_t *out, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    return n;
}

/* version 1 and a body of that kind with `bytes` of `fill` taken over and over */
static struct ts_bytes flood(enum ts_msg_kind kind, const uint8_t *head, size_t head_bytes,
                             const uint8_t *fill, size_t fill_bytes, size_t times)
{
    size_t body = head_bytes + fill_bytes * times;
    uint8_t *data = malloc(body + 32 + TS_WIRE_SEAL_BYTES);
    size_t n = 0;
    data[n++] = 0x08;
    data[n++] = 1;
    n += put_varint(data + n, (uint64_t)kind << 3 | 2);
    n += put_varint(data + n, body);
    memcpy(data + n, head, head_bytes);
    n += head_bytes;
    for (size_t i = 0; i < times; i++, n += fill_bytes)
        memcpy(data + n, fill, fill_bytes);
    ts_wire_seal(data, n);
    return (struct ts_bytes){data, (uint32_t)n + TS_WIRE_SEAL_BYTES};
}

/* Takes the bytes. Returns what unpacking cost, which must be nothing when refused. */
static size_t check_flood(struct ts_bytes bytes, enum ts_msg_kind kind, bool refused)
{
    struct ts_wire_counters counters = {0};
    struct ts_arena into;
    ts_arena_init(&into);
    enum ts_status status = unpack(bytes.data, bytes.count, wire_channel_of(kind), &into, &counters);
    size_t used = into.used_bytes;
    ts_arena_fini(&into);
    free((void *)bytes.data);
    assert_int_equal(status, refused ? TS_ELIMIT : TS_OK);
    assert_int_equal(counters.oversized, refused);
    assert_int_equal(ts_wire_refused(&counters), refused);
    if (refused)
        assert_int_equal(used, 0);
    return used;
}

static void test_whole_too_large(void **state)
{
    (void)state;
    static const uint8_t head[] = {0x0a};
    struct ts_bytes bytes = flood(TS_MSG_DRAIN, head, 0, head, 1, TS_WIRE_BYTES_MAX);
    check_flood(bytes, TS_MSG_DRAIN, true);
}

static void test_string_too_long(void **state)
{
    (void)state;
    uint8_t head[8] = {0x0a}; /* Drain.service */
    size_t n = 1 + put_varint(head + 1, TS_ID_BYTES_MAX);
    check_flood(flood(TS_MSG_DRAIN, head, n, (const uint8_t *)"x", 1, TS_ID_BYTES_MAX), TS_MSG_DRAIN, false);
    n = 1 + put_varint(head + 1, TS_ID_BYTES_MAX + 1);
    check_flood(flood(TS_MSG_DRAIN, head, n, (const uint8_t *)"x", 1, TS_ID_BYTES_MAX + 1), TS_MSG_DRAIN,
                true);
}

static void test_list_too_long(void **state)
{
    (void)state;
    static const uint8_t item[] = {0x0a, 0}; /* Resync.items, an empty one: two bytes that claim a struct */
    size_t used = check_flood(flood(TS_MSG_RESYNC, item, 0, item, 2, TS_LIST_MAX), TS_MSG_RESYNC, false);
    assert_in_range(used, 1, 200 * TS_LIST_MAX);
    check_flood(flood(TS_MSG_RESYNC, item, 0, item, 2, TS_LIST_MAX + 1), TS_MSG_RESYNC, true);
}

static void test_numbers_too_many(void **state)
{
    (void)state;
    static const uint8_t one[] = {7}, single[] = {0x18, 7};
    uint8_t head[8] = {0x1a}; /* Detokenize.tokens, packed */
    size_t n = 1 + put_varint(head + 1, TS_PROMPT_TOKENS_MAX);
    check_flood(flood(TS_MSG_DETOKENIZE, head, n, one, 1, TS_PROMPT_TOKENS_MAX), TS_MSG_DETOKENIZE, false);
    n = 1 + put_varint(head + 1, TS_PROMPT_TOKENS_MAX + 1);
    check_flood(flood(TS_MSG_DETOKENIZE, head, n, one, 1, TS_PROMPT_TOKENS_MAX + 1), TS_MSG_DETOKENIZE, true);
    /* One by one they are as many. */
    check_flood(flood(TS_MSG_DETOKENIZE, head, 0, single, 2, TS_PROMPT_TOKENS_MAX + 1), TS_MSG_DETOKENIZE,
                true);
}

static void test_digests_too_many(void **state)
{
    (void)state;
    static const uint8_t digest[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t head[8] = {0x4a}; /* KvEnd.digests, packed fixed64 */
    size_t n = 1 + put_varint(head + 1, 8 * TS_LIST_MAX);
    check_flood(flood(TS_MSG_KV_END, head, n, digest, 8, TS_LIST_MAX), TS_MSG_KV_END, false);
    n = 1 + put_varint(head + 1, 8 * (TS_LIST_MAX + 1));
    check_flood(flood(TS_MSG_KV_END, head, n, digest, 8, TS_LIST_MAX + 1), TS_MSG_KV_END, true);
}

static void test_unknown_fields_too_many(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {0x78, 0}; /* field 15 of Drain */
    check_flood(flood(TS_MSG_DRAIN, unknown, 0, unknown, 2, 1000), TS_MSG_DRAIN, false);
    check_flood(flood(TS_MSG_DRAIN, unknown, 0, unknown, 2, 3u << 20), TS_MSG_DRAIN, true);
}

static void test_records(void **state)
{
    (void)state;
    struct ts_record_entry entry, back;
    struct ts_bytes bytes;
    struct ts_rng rng;
    ts_rng_init(&rng, 5);
    for (int round = 0; round < 60; round++) {
        wire_fill(&ts_record_schema, &entry, TS_RECORD_STEP, &rng, &arena);
        assert_int_equal(ts_wire_pack_record(&entry, &arena, &bytes), TS_OK);
        for (uint32_t cut = 0; cut < bytes.count; cut++) {
            uint8_t *copy = malloc(bytes.count);
            memcpy(copy, bytes.data, bytes.count);
            copy[cut] ^= (uint8_t)(1 + ts_rng_below(&rng, 255));
            ts_wire_unpack_record(copy, bytes.count, &arena, &back, NULL);
            free(copy);
            copy = malloc(cut + 1);
            memcpy(copy, bytes.data, cut);
            ts_wire_unpack_record(copy, cut, &arena, &back, NULL);
            free(copy);
        }
        ts_arena_reset(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_truncated_anywhere, reset_arena),
        cmocka_unit_test_setup(test_flipped_bytes, reset_arena),
        cmocka_unit_test_setup(test_damage_is_found, reset_arena),
        cmocka_unit_test_setup(test_every_channel, reset_arena),
        cmocka_unit_test_setup(test_crafted, reset_arena),
        cmocka_unit_test_setup(test_whole_too_large, reset_arena),
        cmocka_unit_test_setup(test_string_too_long, reset_arena),
        cmocka_unit_test_setup(test_list_too_long, reset_arena),
        cmocka_unit_test_setup(test_numbers_too_many, reset_arena),
        cmocka_unit_test_setup(test_digests_too_many, reset_arena),
        cmocka_unit_test_setup(test_unknown_fields_too_many, reset_arena),
        cmocka_unit_test_setup(test_records, reset_arena),
    };
    ts_arena_init(&arena);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ts_arena_fini(&arena);
    return failed;
}
