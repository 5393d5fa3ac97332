/*
 * Domain structs <-> bytes. Our structs (ts_msg.h, ts_event.h) are paired with the generated protobuf types
 * by the names of their fields, once per process; after that one converter serves every message. Generated
 * types never leave this folder.
 *
 * Bytes of a peer are judged before anything is allocated for them: size, version, checksum, kind, channel,
 * then every length and count against the bounds of our tables. What passes is unpacked into the caller's
 * arena, which afterwards owns all spans of the result. Nothing here asserts on input. Thread-safe; arenas
 * and counters belong to the caller.
 */
#ifndef TS_PROTO_WIRE_H
#define TS_PROTO_WIRE_H

#include "common/core/ts_event.h"

#define TS_WIRE_BYTES_MAX        (16u << 20) /* of an envelope, without its bulk frame */
#define TS_WIRE_RECORD_BYTES_MAX (64u << 20) /* of one record entry */
#define TS_WIRE_SETTINGS_MAX     (1u << 20)
#define TS_WIRE_SEAL_BYTES       6 /* the last field of every envelope: CRC-32C of all before it */

/* Messages refused since the start, by kind of fault. */
struct ts_wire_counters {
    uint64_t malformed;     /* not protobuf, damaged, or a value that its field cannot have */
    uint64_t oversized;     /* the message, a string or a list exceeds its bound */
    uint64_t unknown;       /* no body, or of a kind this version does not know */
    uint64_t wrong_channel; /* a known kind that has no business on this channel */
    uint64_t bad_version;
};

static inline uint64_t ts_wire_refused(const struct ts_wire_counters *c)
{
    return c->malformed + c->oversized + c->unknown + c->wrong_channel + c->bad_version;
}

/* Writes the seal of data[0 .. bytes) behind them. ts_wire_pack does it for what it packs. */
void ts_wire_seal(uint8_t *data, size_t bytes);

/* The first call of any of these pairs tables and descriptors, and stops the process where they disagree.
 *
 * TS_EINVAL: a value outside of its bounds, or no kind. TS_ELIMIT: larger than TS_WIRE_BYTES_MAX. `out`
 * points into the arena. */
enum ts_status ts_wire_pack(const struct ts_envelope *envelope, const struct ts_msg *msg,
                            struct ts_arena *arena, struct ts_bytes *out);
/* A wrong seal is refused everywhere; a missing one on all channels but those that clients and operators use.
 * TS_EINVAL, TS_ELIMIT (oversized) or TS_EUNSUPPORTED (unknown, bad version). Counts each refusal once;
 * `counters` may be NULL. */
enum ts_status ts_wire_unpack(const void *data, size_t bytes, enum ts_channel channel, struct ts_arena *arena,
                              struct ts_envelope *envelope, struct ts_msg *msg,
                              struct ts_wire_counters *counters, struct ts_error *err);

/* --- records of cores (ts_record.proto) ---------------------------------------------------------------- */

enum ts_record_kind { TS_RECORD_HEADER = 1, TS_RECORD_STEP };

struct ts_record_begin {
    struct ts_str kind; /* of the core */
    uint64_t incarnation;
    struct ts_bytes settings;
};

struct ts_record_actions {
    const struct ts_action *data;
    uint32_t count;
};

struct ts_record_step {
    int64_t now;
    struct ts_event event;
    struct ts_record_actions actions;
};

struct ts_record_entry {
    enum ts_record_kind kind;
    union {
        struct ts_record_begin header;
        struct ts_record_step step;
    };
};

extern const struct ts_schema ts_record_schema;

enum ts_status ts_wire_pack_record(const struct ts_record_entry *entry, struct ts_arena *arena,
                                   struct ts_bytes *out);
enum ts_status ts_wire_unpack_record(const void *data, size_t bytes, struct ts_arena *arena,
                                     struct ts_record_entry *entry, struct ts_error *err);

#endif
