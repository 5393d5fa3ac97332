#include "tests/wire/wire_golden.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/ts_assert.h"

static enum ts_msg_kind kind_by_name(const char *name)
{
    for (size_t i = 0; i < wire_kind_count; i++)
        if (strcmp(ts_msg_name(wire_kinds[i]), name) == 0)
            return wire_kinds[i];
    return TS_MSG_NONE;
}

static struct ts_bytes from_hex(const char *hex, struct ts_arena *arena)
{
    uint32_t count = (uint32_t)(strlen(hex) / 2);
    uint8_t *data = ts_arena_alloc(arena, count);
    for (uint32_t i = 0; i < count; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        data[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return (struct ts_bytes){data, count};
}

size_t wire_golden_load(const char *path, struct ts_arena *arena, struct wire_golden *out, size_t capacity)
{
    static char name[64], hex[8192];
    size_t count = 0;
    FILE *file = fopen(path, "r");
    TS_ASSERT(file);
    while (fscanf(file, "%63s %8191s", name, hex) == 2) {
        TS_ASSERT(count < capacity && strlen(hex) < sizeof hex - 1);
        out[count].kind = kind_by_name(name);
        out[count].bytes = from_hex(hex, arena);
        TS_ASSERT(out[count].kind != TS_MSG_NONE);
        count++;
    }
    fclose(file);
    return count;
}

void wire_golden_value(enum ts_msg_kind kind, struct ts_arena *arena, struct ts_envelope *envelope,
                       struct ts_msg *msg)
{
    struct ts_rng rng;
    ts_rng_init(&rng, 0x601d + (uint64_t)kind);
    wire_fill_message(kind, &rng, arena, envelope, msg);
}
