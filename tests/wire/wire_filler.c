#include "tests/wire/wire_filler.h"

#include "common/base/ts_assert.h"

const enum ts_msg_kind wire_kinds[] = {
#define KIND(K, number, member, suffix) TS_MSG_##K,
    TS_MSG_KINDS(KIND)
#undef KIND
};
const size_t wire_kind_count = TS_ARRAY_SIZE(wire_kinds);

/* Never 0: a zero would hide that a field is not carried. */
static uint64_t draw(struct ts_rng *rng, uint64_t most)
{
    switch (ts_rng_below(rng, 8)) {
    case 0:
        return most;
    case 1:
        return 1;
    default:
        return 1 + ts_rng_below(rng, most < 100000 ? most : 100000);
    }
}

static struct ts_list draw_text(uint32_t most, struct ts_rng *rng, struct ts_arena *arena)
{
    static const char *const pieces[] = {
        "a", "Z9", " ", "\n", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    char *text = ts_arena_alloc(arena, 32);
    uint32_t count = 0;
    for (uint64_t i = 1 + ts_rng_below(rng, 5); i > 0; i--) {
        const char *piece = pieces[ts_rng_below(rng, TS_ARRAY_SIZE(pieces))];
        size_t bytes = strlen(piece);
        if (count + bytes <= most) {
            memcpy(text + count, piece, bytes);
            count += (uint32_t)bytes;
        }
    }
    return (struct ts_list){text, count};
}

static struct ts_list draw_list(const struct ts_field *field, struct ts_rng *rng, struct ts_arena *arena)
{
    uint32_t count = 1 + (uint32_t)ts_rng_below(rng, 3);
    count = count < field->max ? count : field->max;
    uint8_t *bytes;
    uint32_t *words;
    uint64_t *longs;
    char *items;
    switch (field->type) {
    case TS_FIELD_STR:
        return draw_text(field->max, rng, arena);
    case TS_FIELD_BYTES:
        bytes = ts_arena_alloc(arena, count);
        for (uint32_t i = 0; i < count; i++)
            bytes[i] = (uint8_t)ts_rng_u64(rng);
        return (struct ts_list){bytes, count};
    case TS_FIELD_U32S:
        words = ts_arena_alloc(arena, count * sizeof *words);
        for (uint32_t i = 0; i < count; i++)
            words[i] = (uint32_t)draw(rng, UINT32_MAX) - 1;
        return (struct ts_list){words, count};
    case TS_FIELD_U64S:
        longs = ts_arena_alloc(arena, count * sizeof *longs);
        for (uint32_t i = 0; i < count; i++)
            longs[i] = ts_rng_u64(rng);
        return (struct ts_list){longs, count};
    default:
        items = ts_arena_alloc(arena, (size_t)count * field->sub->size);
        for (uint32_t i = 0; i < count; i++)
            wire_fill(field->sub, items + (size_t)i * field->sub->size, 0, rng, arena);
        return (struct ts_list){items, count};
    }
}

static void fill_field(const struct ts_field *field, char *at, struct ts_rng *rng, struct ts_arena *arena)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        *(bool *)at = true;
        break;
    case TS_FIELD_U32:
        *(uint32_t *)at = (uint32_t)draw(rng, UINT32_MAX);
        break;
    case TS_FIELD_U64:
        *(uint64_t *)at = draw(rng, UINT64_MAX);
        break;
    case TS_FIELD_I64:
        *(int64_t *)at = ts_rng_below(rng, 4) ? (int64_t)draw(rng, INT64_MAX) : -1;
        break;
    case TS_FIELD_F32:
        *(float *)at = (float)draw(rng, 1 << 20) / -64.0f;
        break;
    case TS_FIELD_F64:
        *(double *)at = (double)draw(rng, 1u << 30) / 1024.0;
        break;
    case TS_FIELD_ENUM:
        *(uint32_t *)at = 1 + (uint32_t)ts_rng_below(rng, field->max);
        break;
    case TS_FIELD_MSG:
        wire_fill(field->sub, at, 0, rng, arena);
        break;
    default:
        *(struct ts_list *)at = draw_list(field, rng, arena);
    }
}

void wire_fill(const struct ts_schema *schema, void *value, uint32_t kind, struct ts_rng *rng,
               struct ts_arena *arena)
{
    memset(value, 0, schema->size);
    if (schema->one_of && kind == 0)
        kind = schema->fields[ts_rng_below(rng, schema->field_count)].when;
    if (schema->one_of)
        memcpy(value, &kind, sizeof kind);
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        if (field->when == 0 || field->when == kind)
            fill_field(field, (char *)value + field->offset, rng, arena);
    }
}

void wire_fill_message(enum ts_msg_kind kind, struct ts_rng *rng, struct ts_arena *arena,
                       struct ts_envelope *envelope, struct ts_msg *msg)
{
    wire_fill(&ts_envelope_schema, envelope, 0, rng, arena);
    envelope->version = TS_PROTOCOL_VERSION;
    wire_fill(&ts_msg_schema, msg, kind, rng, arena);
}

enum ts_channel wire_channel_of(enum ts_msg_kind kind)
{
    unsigned channel = 1;
    while (channel < TS_CHANNEL_LAST && !ts_msg_allowed((enum ts_channel)channel, kind))
        channel++;
    return (enum ts_channel)channel;
}
