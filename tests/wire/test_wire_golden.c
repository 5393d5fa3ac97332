/*
 * Bytes on the wire do not change by accident, and bytes of other versions still decode. `--rewrite` writes
 * golden.txt and the seeds of the fuzzer anew, for a change that is meant; old.txt is never rewritten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "proto/ts_wire.h"
#include "tests/wire/wire_golden.h"

#define LINES_MAX 512
#define CORPUS    TS_TEST_DATA "/../fuzz/corpus/fuzz_wire/"

static struct ts_arena arena;
static struct wire_golden lines[LINES_MAX];

static int reset_arena(void **state)
{
    (void)state;
    ts_arena_reset(&arena);
    return 0;
}

static void check_unpack(const struct wire_golden *line, struct ts_bytes bytes, struct ts_envelope *envelope,
                         struct ts_msg *msg)
{
    struct ts_error err = {0};
    enum ts_channel channel = wire_channel_of(line->kind);
    if (ts_wire_unpack(bytes.data, bytes.count, channel, &arena, envelope, msg, NULL, &err) != TS_OK)
        fail_msg("%s: %s", ts_msg_name(line->kind), err.text);
}

static void test_golden(void **state)
{
    (void)state;
    size_t count = wire_golden_load(WIRE_GOLDEN, &arena, lines, LINES_MAX);
    assert_int_equal(count, wire_kind_count);
    for (size_t i = 0; i < count; i++) {
        struct ts_envelope envelope, envelope_back;
        struct ts_msg msg, msg_back;
        struct ts_bytes bytes;
        assert_int_equal(lines[i].kind, wire_kinds[i]);
        wire_golden_value(lines[i].kind, &arena, &envelope, &msg);
        assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
        if (bytes.count != lines[i].bytes.count || memcmp(bytes.data, lines[i].bytes.data, bytes.count) != 0)
            fail_msg("%s: other bytes than in golden.txt", ts_msg_name(lines[i].kind));
        check_unpack(&lines[i], lines[i].bytes, &envelope_back, &msg_back);
        assert_true(ts_schema_equal(&ts_envelope_schema, &envelope, &envelope_back));
        assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
    }
}

/* Bytes of a time before the seal, with it: of a peer that has it, but nothing else that came later. */
static size_t load_old(void)
{
    size_t count = wire_golden_load(WIRE_OLD, &arena, lines, LINES_MAX);
    for (size_t i = 0; i < count; i++) {
        uint32_t bytes = lines[i].bytes.count;
        uint8_t *data = ts_arena_alloc(&arena, bytes + TS_WIRE_SEAL_BYTES);
        memcpy(data, lines[i].bytes.data, bytes);
        ts_wire_seal(data, bytes);
        lines[i].bytes = (struct ts_bytes){data, bytes + TS_WIRE_SEAL_BYTES};
    }
    return count;
}

/* Kinds that have lost a field: where a codec was named, it is described. */
static bool retired(enum ts_msg_kind kind)
{
    return kind == TS_MSG_KV_BEGIN || kind == TS_MSG_KV_OPEN;
}

/* A field that came later is zero in old bytes, and zero takes no bytes: what was read must come out as it
 * went in. A field that is gone is skipped. */
static void test_old_bytes(void **state)
{
    (void)state;
    size_t count = load_old();
    assert_true(count >= 54);
    for (size_t i = 0; i < count; i++) {
        struct ts_envelope envelope;
        struct ts_msg msg;
        struct ts_bytes bytes;
        check_unpack(&lines[i], lines[i].bytes, &envelope, &msg);
        assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
        if (retired(lines[i].kind)) {
            assert_true(bytes.count < lines[i].bytes.count);
            continue;
        }
        assert_int_equal(bytes.count, lines[i].bytes.count);
        assert_memory_equal(bytes.data, lines[i].bytes.data, bytes.count);
    }
}

/* Appends `extra` inside the body (the last field of the envelope but the seal) and again after it. */
static struct ts_bytes with_unknown(struct ts_bytes bytes, const uint8_t *extra, uint32_t extra_bytes)
{
    uint8_t *data = ts_arena_alloc(&arena, bytes.count + 2 * extra_bytes + 16);
    bytes.count -= TS_WIRE_SEAL_BYTES;
    uint32_t at = 0, body = 0, length = 0, shift = 0;
    while (at < bytes.count) { /* to the body: version, incarnation, session and seq come first */
        uint32_t key = bytes.data[at++];
        if (key & 0x80)
            key = (key & 0x7f) | (uint32_t)bytes.data[at++] << 7;
        if (key >> 3 >= 10) {
            body = at;
            break;
        }
        if ((key & 7) == 1)
            at += 8;
        else
            while (bytes.data[at++] & 0x80)
                ;
    }
    TS_ASSERT(body > 0);
    do
        length |= (uint32_t)(bytes.data[at] & 0x7f) << shift, shift += 7;
    while (bytes.data[at++] & 0x80);
    TS_ASSERT(at + length == bytes.count);
    uint32_t n = body, grown = length + extra_bytes;
    memcpy(data, bytes.data, body);
    for (; grown >= 0x80; grown >>= 7)
        data[n++] = (uint8_t)(grown | 0x80);
    data[n++] = (uint8_t)grown;
    memcpy(data + n, bytes.data + at, length);
    memcpy(data + n + length, extra, extra_bytes);
    memcpy(data + n + length + extra_bytes, extra, extra_bytes);
    n += length + 2 * extra_bytes;
    ts_wire_seal(data, n);
    return (struct ts_bytes){data, n + TS_WIRE_SEAL_BYTES};
}

static void test_bytes_of_a_newer_peer(void **state)
{
    (void)state;
    /* Fields 500 (varint), 501 (text), 502 (fixed64) and 503 (fixed32), which nobody here knows. */
    static const uint8_t extra[] = {0xa0, 0x1f, 0xff, 0x01, 0xaa, 0x1f, 0x02, 'h',  'i', 0xb1, 0x1f, 1, 2,
                                    3,    4,    5,    6,    7,    8,    0xbd, 0x1f, 9,   9,    9,    9};
    size_t count = load_old();
    for (size_t i = 0; i < count; i++) {
        struct ts_envelope envelope, envelope_back;
        struct ts_msg msg, msg_back;
        check_unpack(&lines[i], lines[i].bytes, &envelope, &msg);
        check_unpack(&lines[i], with_unknown(lines[i].bytes, extra, sizeof extra), &envelope_back, &msg_back);
        assert_true(ts_schema_equal(&ts_envelope_schema, &envelope, &envelope_back));
        assert_true(ts_schema_equal(&ts_msg_schema, &msg, &msg_back));
    }
}

/* Written down by hand from the encoding rules of protobuf, so that pack and unpack cannot err together. */
static void test_by_hand(void **state)
{
    (void)state;
    /* clang-format off */
    static const uint8_t expected[] = {
        0x08, 0x01,                          /* version 1 */
        0x11, 8, 7, 6, 5, 4, 3, 2, 1,        /* incarnation, fixed64 */
        0x18, 0x2a,                          /* session 42 */
        0x20, 0xac, 0x02,                    /* seq 300 */
        0x9a, 0x05, 18,                      /* field 83, kv_credit, of 18 bytes */
        0x0a, 13,                            /* its rid, of 13 bytes */
        0x09, 0xff, 0, 0, 0, 0, 0, 0, 0x80,  /* router, fixed64 */
        0x10, 5,                             /* request */
        0x18, 1,                             /* attempt */
        0x10, 0x80, 0x01,                    /* bytes 128 */
        0xfd, 0x7f, 0, 0, 0, 0,              /* field 2047, crc32c, fixed32: bit by bit below */
    };
    /* clang-format on */
    struct ts_envelope envelope = {
        .version = 1, .incarnation = 0x0102030405060708, .session = 42, .seq = 300};
    struct ts_msg msg = {
        .kind = TS_MSG_KV_CREDIT,
        .kv_credit = {.rid = {.router = 0x80000000000000ff, .request = 5, .attempt = 1}, .bytes = 0x80}};
    struct ts_bytes bytes;
    assert_int_equal(ts_wire_pack(&envelope, &msg, &arena, &bytes), TS_OK);
    assert_int_equal(bytes.count, sizeof expected);
    assert_memory_equal(bytes.data, expected, sizeof expected - 4);
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < sizeof expected - TS_WIRE_SEAL_BYTES; i++) {
        crc ^= expected[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(bytes.data[sizeof expected - 4 + i], (uint8_t)(~crc >> 8 * i));
}

/* --- rewriting ----------------------------------------------------------------------------------------- */

static void write_seed(const char *name, uint8_t selector, struct ts_bytes bytes)
{
    char path[512];
    snprintf(path, sizeof path, CORPUS "%s", name);
    FILE *file = fopen(path, "wb");
    TS_ASSERT(file);
    fputc(selector, file);
    fwrite(bytes.data, 1, bytes.count, file);
    fclose(file);
}

static void rewrite_records(void)
{
    for (uint32_t kind = TS_RECORD_HEADER; kind <= TS_RECORD_STEP; kind++) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            struct ts_record_entry entry;
            struct ts_bytes bytes;
            struct ts_rng rng;
            char name[32];
            ts_rng_init(&rng, seed);
            wire_fill(&ts_record_schema, &entry, kind, &rng, &arena);
            TS_ASSERT(ts_wire_pack_record(&entry, &arena, &bytes) == TS_OK);
            snprintf(name, sizeof name, "record_%u_%u", (unsigned)kind, (unsigned)seed);
            write_seed(name, 0, bytes);
        }
    }
}

static int rewrite(void)
{
    FILE *file = fopen(WIRE_GOLDEN, "w");
    TS_ASSERT(file);
    for (size_t i = 0; i < wire_kind_count; i++) {
        struct ts_envelope envelope;
        struct ts_msg msg;
        struct ts_bytes bytes;
        wire_golden_value(wire_kinds[i], &arena, &envelope, &msg);
        TS_ASSERT(ts_wire_pack(&envelope, &msg, &arena, &bytes) == TS_OK);
        fprintf(file, "%s ", ts_msg_name(wire_kinds[i]));
        for (uint32_t j = 0; j < bytes.count; j++)
            fprintf(file, "%02x", bytes.data[j]);
        fputc('\n', file);
        bytes.count -= TS_WIRE_SEAL_BYTES; /* the fuzzer seals what it changed */
        write_seed(ts_msg_name(wire_kinds[i]), (uint8_t)wire_channel_of(wire_kinds[i]), bytes);
    }
    fclose(file);
    rewrite_records();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_golden, reset_arena),
        cmocka_unit_test_setup(test_old_bytes, reset_arena),
        cmocka_unit_test_setup(test_bytes_of_a_newer_peer, reset_arena),
        cmocka_unit_test_setup(test_by_hand, reset_arena),
    };
    ts_arena_init(&arena);
    int failed =
        argc > 1 && strcmp(argv[1], "--rewrite") == 0 ? rewrite() : cmocka_run_group_tests(tests, NULL, NULL);
    ts_arena_fini(&arena);
    return failed;
}
