#include "common/core/ts_schema.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/base/ts_assert.h"

/* A list longer than this is cut when printed. */
#define PRINT_ITEMS_MAX 8
#define PRINT_TEXT_MAX  64

static const void *field_at(const struct ts_field *field, const void *value)
{
    return (const char *)value + field->offset;
}

static uint32_t kind_of(const void *value)
{
    uint32_t kind;
    memcpy(&kind, value, sizeof kind);
    return kind;
}

static bool field_present(const struct ts_field *field, const void *value)
{
    return field->when == 0 || field->when == kind_of(value);
}

/* Bytes of a field that is one plain number; 0 for the others. */
static size_t scalar_size(enum ts_field_type type)
{
    switch (type) {
    case TS_FIELD_BOOL:
        return sizeof(bool);
    case TS_FIELD_U32:
    case TS_FIELD_F32:
    case TS_FIELD_ENUM:
        return 4;
    case TS_FIELD_U64:
    case TS_FIELD_I64:
    case TS_FIELD_F64:
        return 8;
    default:
        return 0;
    }
}

/* Bytes of one item of a span or list field. */
static size_t item_size(const struct ts_field *field)
{
    switch (field->type) {
    case TS_FIELD_U32S:
        return 4;
    case TS_FIELD_U64S:
        return 8;
    case TS_FIELD_MSGS:
        return field->sub->size;
    default:
        return 1;
    }
}

/* Every span type has the layout of struct ts_list (asserted below), but not its type: copied out, never
 * aliased. */
_Static_assert(sizeof(struct ts_str) == sizeof(struct ts_list), "spans share one layout");
_Static_assert(sizeof(struct ts_bytes) == sizeof(struct ts_list), "spans share one layout");
_Static_assert(sizeof(struct ts_u32s) == sizeof(struct ts_list), "spans share one layout");
_Static_assert(sizeof(struct ts_u64s) == sizeof(struct ts_list), "spans share one layout");
_Static_assert(offsetof(struct ts_str, count) == offsetof(struct ts_list, count), "spans share one layout");

static struct ts_list list_at(const struct ts_field *field, const void *value)
{
    struct ts_list list;
    memcpy(&list, field_at(field, value), sizeof list);
    return list;
}

/* --- copy -------------------------------------------------------------------------------------------- */

static void copy_list(const struct ts_field *field, void *to, const void *from, struct ts_arena *arena)
{
    struct ts_list list = list_at(field, from);
    size_t size = item_size(field);
    if (list.count == 0) {
        list.data = NULL;
    } else if (field->type != TS_FIELD_MSGS) {
        list.data = ts_arena_copy(arena, list.data, size * list.count);
    } else {
        char *items = ts_arena_alloc(arena, size * list.count);
        for (uint32_t i = 0; i < list.count; i++)
            ts_schema_copy(field->sub, items + i * size, (const char *)list.data + i * size, arena);
        list.data = items;
    }
    memcpy((char *)to + field->offset, &list, sizeof list);
}

void ts_schema_copy(const struct ts_schema *schema, void *to, const void *from, struct ts_arena *arena)
{
    TS_ASSERT(to != from);
    memset(to, 0, schema->size);
    if (schema->one_of)
        memcpy(to, from, sizeof(uint32_t));
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        if (!field_present(field, from))
            continue;
        size_t size = scalar_size(field->type);
        if (size > 0)
            memcpy((char *)to + field->offset, field_at(field, from), size);
        else if (field->type == TS_FIELD_MSG)
            ts_schema_copy(field->sub, (char *)to + field->offset, field_at(field, from), arena);
        else
            copy_list(field, to, from, arena);
    }
}

/* --- compare ----------------------------------------------------------------------------------------- */

static bool equal_list(const struct ts_field *field, const void *a, const void *b)
{
    struct ts_list x = list_at(field, a), y = list_at(field, b);
    size_t size = item_size(field);
    if (x.count != y.count)
        return false;
    if (x.count == 0)
        return true;
    if (field->type != TS_FIELD_MSGS)
        return memcmp(x.data, y.data, size * x.count) == 0;
    for (uint32_t i = 0; i < x.count; i++)
        if (!ts_schema_equal(field->sub, (const char *)x.data + i * size, (const char *)y.data + i * size))
            return false;
    return true;
}

bool ts_schema_equal(const struct ts_schema *schema, const void *a, const void *b)
{
    if (schema->one_of && kind_of(a) != kind_of(b))
        return false;
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        if (!field_present(field, a))
            continue;
        size_t size = scalar_size(field->type);
        bool equal;
        if (size > 0)
            equal = memcmp(field_at(field, a), field_at(field, b), size) == 0;
        else if (field->type == TS_FIELD_MSG)
            equal = ts_schema_equal(field->sub, field_at(field, a), field_at(field, b));
        else
            equal = equal_list(field, a, b);
        if (!equal)
            return false;
    }
    return true;
}

/* --- check ------------------------------------------------------------------------------------------- */

/* Length of the well-formed UTF-8 sequence at `s` (Unicode 15, table 3-7), 0 when there is none. */
static uint32_t utf8_sequence(const unsigned char *s, uint32_t left)
{
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    uint32_t length;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        length = 2;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        length = 3;
        low = s[0] == 0xe0 ? 0xa0 : 0x80;
        high = s[0] == 0xed ? 0x9f : 0xbf;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        length = 4;
        low = s[0] == 0xf0 ? 0x90 : 0x80;
        high = s[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (left < length || s[1] < low || s[1] > high)
        return 0;
    for (uint32_t i = 2; i < length; i++)
        if (s[i] < 0x80 || s[i] > 0xbf)
            return 0;
    return length;
}

static bool utf8_valid(const unsigned char *text, uint32_t count)
{
    for (uint32_t i = 0; i < count;) {
        uint32_t length = utf8_sequence(text + i, count - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

static enum ts_status refuse(const struct ts_schema *schema, const struct ts_field *field,
                             struct ts_error *err, const char *why)
{
    return ts_error_set(err, TS_EINVAL, "%s.%s: %s", schema->name, field->name, why);
}

static bool finite_field(const struct ts_field *field, const void *value)
{
    float single;
    double wide;
    if (field->max)
        return true;
    if (field->type == TS_FIELD_F32) {
        memcpy(&single, field_at(field, value), sizeof single);
        return isfinite(single);
    }
    memcpy(&wide, field_at(field, value), sizeof wide);
    return isfinite(wide);
}

static enum ts_status check_list(const struct ts_schema *schema, const struct ts_field *field,
                                 const void *value, struct ts_error *err)
{
    struct ts_list list = list_at(field, value);
    if (list.count > field->max)
        return ts_error_set(err, TS_EINVAL, "%s.%s: %" PRIu32 " items, at most %" PRIu32 " are allowed",
                            schema->name, field->name, list.count, field->max);
    if (list.count > 0 && !list.data)
        return refuse(schema, field, err, "items without data");
    if (field->type == TS_FIELD_STR && !utf8_valid(list.data, list.count))
        return refuse(schema, field, err, "not valid UTF-8");
    if (field->type == TS_FIELD_MSGS) {
        for (uint32_t i = 0; i < list.count; i++) {
            const char *item = (const char *)list.data + (size_t)i * field->sub->size;
            enum ts_status status = ts_schema_check(field->sub, item, err);
            if (status)
                return status;
        }
    }
    return TS_OK;
}

static bool kind_known(const struct ts_schema *schema, uint32_t kind)
{
    for (uint32_t i = 0; i < schema->field_count; i++)
        if (schema->fields[i].when == kind)
            return true;
    return kind == 0;
}

enum ts_status ts_schema_check(const struct ts_schema *schema, const void *value, struct ts_error *err)
{
    if (schema->one_of && !kind_known(schema, kind_of(value)))
        return ts_error_set(err, TS_EINVAL, "%s.kind: %" PRIu32 " is not known", schema->name,
                            kind_of(value));
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        enum ts_status status = TS_OK;
        if (!field_present(field, value))
            continue;
        switch (field->type) {
        case TS_FIELD_BOOL:
        case TS_FIELD_U32:
        case TS_FIELD_U64:
        case TS_FIELD_I64:
            break;
        case TS_FIELD_F32:
        case TS_FIELD_F64:
            if (!finite_field(field, value))
                status = refuse(schema, field, err, "not a finite number");
            break;
        case TS_FIELD_ENUM:
            if (kind_of(field_at(field, value)) > field->max)
                status = refuse(schema, field, err, "not a known value");
            break;
        case TS_FIELD_MSG:
            status = ts_schema_check(field->sub, field_at(field, value), err);
            break;
        default:
            status = check_list(schema, field, value, err);
        }
        if (status)
            return status;
    }
    return TS_OK;
}

/* --- print ------------------------------------------------------------------------------------------- */

struct printer {
    char *out;
    size_t capacity, length;
};

static void put(struct printer *p, const char *format, ...) TS_PRINTF(2, 3);

static void put(struct printer *p, const char *format, ...)
{
    size_t left = p->capacity - p->length;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(p->out + p->length, left, format, args);
    va_end(args);
    if (length > 0)
        p->length += (size_t)length < left ? (size_t)length : left - 1;
}

static void put_text(struct printer *p, struct ts_list list)
{
    const unsigned char *text = list.data;
    uint32_t count = list.count < PRINT_TEXT_MAX ? list.count : PRINT_TEXT_MAX;
    put(p, "\"");
    for (uint32_t i = 0; i < count; i++)
        put(p, isprint(text[i]) && text[i] != '"' && text[i] != '\\' ? "%c" : "\\x%02x", text[i]);
    put(p, count < list.count ? "\"..." : "\"");
}

static void put_schema(struct printer *p, const struct ts_schema *schema, const void *value);

static void put_list(struct printer *p, const struct ts_field *field, struct ts_list list)
{
    uint32_t count = list.count < PRINT_ITEMS_MAX ? list.count : PRINT_ITEMS_MAX;
    put(p, "[");
    for (uint32_t i = 0; i < count; i++) {
        const char *space = i ? " " : "";
        if (field->type == TS_FIELD_U32S) {
            put(p, "%s%" PRIu32, space, ((const uint32_t *)list.data)[i]);
        } else if (field->type == TS_FIELD_U64S) {
            put(p, "%s%" PRIu64, space, ((const uint64_t *)list.data)[i]);
        } else {
            put(p, "%s{", space);
            put_schema(p, field->sub, (const char *)list.data + (size_t)i * field->sub->size);
            put(p, "}");
        }
    }
    if (count < list.count)
        put(p, " ... of %" PRIu32, list.count);
    put(p, "]");
}

static void put_scalar(struct printer *p, const struct ts_field *field, const void *value)
{
    union {
        bool b;
        uint32_t u32;
        uint64_t u64;
        int64_t i64;
        float f32;
        double f64;
    } v = {.u64 = 0};
    memcpy(&v, field_at(field, value), scalar_size(field->type));
    switch (field->type) {
    case TS_FIELD_BOOL:
        put(p, "%s", v.b ? "true" : "false");
        break;
    case TS_FIELD_U64:
        put(p, "%" PRIu64, v.u64);
        break;
    case TS_FIELD_I64:
        put(p, "%" PRId64, v.i64);
        break;
    case TS_FIELD_F32:
        put(p, "%.9g", (double)v.f32);
        break;
    case TS_FIELD_F64:
        put(p, "%.17g", v.f64);
        break;
    default:
        put(p, "%" PRIu32, v.u32);
    }
}

static void put_schema(struct printer *p, const struct ts_schema *schema, const void *value)
{
    bool first = true;
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        if (!field_present(field, value))
            continue;
        put(p, "%s%s=", first ? "" : " ", field->name);
        first = false;
        if (scalar_size(field->type) > 0) {
            put_scalar(p, field, value);
        } else if (field->type == TS_FIELD_MSG) {
            put(p, "{");
            put_schema(p, field->sub, field_at(field, value));
            put(p, "}");
        } else if (field->type == TS_FIELD_STR) {
            put_text(p, list_at(field, value));
        } else if (field->type == TS_FIELD_BYTES) {
            put(p, "<%" PRIu32 " bytes>", list_at(field, value).count);
        } else {
            put_list(p, field, list_at(field, value));
        }
    }
}

size_t ts_schema_print(const struct ts_schema *schema, const void *value, char *out, size_t capacity)
{
    struct printer p = {.out = out, .capacity = capacity};
    if (capacity == 0)
        return 0;
    out[0] = '\0';
    put_schema(&p, schema, value);
    return p.length;
}
