#include "core_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"

uint64_t core_text_router;

struct slice {
    const char *data;
    size_t count;
};

static struct slice slice_of(const char *text)
{
    return (struct slice){text, strlen(text)};
}

static bool slice_is(struct slice s, const char *text)
{
    return strlen(text) == s.count && memcmp(s.data, text, s.count) == 0;
}

/* Cuts off what lies before the first of `marks`; false at the end. */
static bool next_part(struct slice *rest, const char *marks, struct slice *part)
{
    size_t n = 0;
    if (!rest->data)
        return false;
    while (n < rest->count && !strchr(marks, rest->data[n]))
        n++;
    *part = (struct slice){rest->data, n};
    if (n < rest->count)
        *rest = (struct slice){rest->data + n + 1, rest->count - n - 1};
    else
        rest->data = NULL;
    return true;
}

static size_t parts_in(struct slice text, const char *marks)
{
    struct slice part;
    size_t count = 0;
    while (next_part(&text, marks, &part))
        count++;
    return count;
}

/* --- names of enums --- */

static const char *reason_name(uint32_t value)
{
    return ts_reason_name((enum ts_reason)value);
}

static const char *finish_name(uint32_t value)
{
    return ts_finish_name((enum ts_finish)value);
}

static const char *phase_name(uint32_t value)
{
    return ts_phase_name((enum ts_phase)value);
}

static const char *role_name(uint32_t value)
{
    return ts_role_name((enum ts_role)value);
}

static const char *resync_name(uint32_t value)
{
    static const char *const names[] = {"", "keep", "cancel", "resend"};
    return value < TS_ARRAY_SIZE(names) ? names[value] : "";
}

static const char *plan_name(uint32_t value)
{
    static const char *const names[] = {"", "accepted", "refused", "applied", "aborted"};
    return value < TS_ARRAY_SIZE(names) ? names[value] : "";
}

static const char *prompt_name(uint32_t value)
{
    static const char *const names[] = {"", "text", "tokens", "chat"};
    return value < TS_ARRAY_SIZE(names) ? names[value] : "";
}

/* A name is looked for in the tables that fit the field: some names stand in two of them. */
static uint32_t enum_value(const struct ts_field *field, struct slice text)
{
    static const struct {
        const char *field;
        const char *(*name)(uint32_t);
    } tables[] = {{"reason", reason_name}, {"finish", finish_name},     {"role", phase_name},
                  {"role", role_name},     {"phase", phase_name},       {"verdict", resync_name},
                  {"verdict", plan_name},  {"prompt_kind", prompt_name}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(tables); i++) {
        if (strcmp(tables[i].field, field->name) != 0)
            continue;
        for (uint32_t value = 0; value <= field->max; value++) {
            if (slice_is(text, tables[i].name(value)))
                return value;
        }
    }
    fail_msg("%s has no value \"%.*s\"", field->name, (int)text.count, text.data);
    return 0;
}

/* --- values --- */

static uint64_t number(const struct ts_field *field, struct slice text)
{
    char digits[40], *end;
    if (slice_is(text, "whole"))
        return UINT64_MAX;
    snprintf(digits, sizeof digits, "%.*s", (int)text.count, text.data);
    uint64_t value =
        digits[0] == '-' ? (uint64_t)strtoll(digits, &end, 0) : (uint64_t)strtoull(digits, &end, 0);
    if (text.count == 0 || *end)
        fail_msg("%s is no number: \"%s\"", field->name, digits);
    return value;
}

static double real(struct slice text)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.*s", (int)text.count, text.data);
    return strtod(digits, NULL);
}

static struct ts_rid rid_value(const struct ts_field *field, struct slice text)
{
    struct slice request, attempt = {NULL, 0};
    if (!next_part(&text, ".", &request) || !next_part(&text, ".", &attempt))
        fail_msg("a rid is REQUEST.ATTEMPT");
    return (struct ts_rid){core_text_router, number(field, request), (uint32_t)number(field, attempt)};
}

/* "*N": N items; -1 when the text is something else. */
static int64_t any_count(const struct ts_field *field, struct slice text)
{
    if (text.count < 2 || text.data[0] != '*')
        return -1;
    return (int64_t)number(field, (struct slice){text.data + 1, text.count - 1});
}

static struct ts_list integers(const struct ts_field *field, struct slice text, size_t size,
                               struct ts_arena *arena)
{
    int64_t any = any_count(field, text);
    size_t count = any >= 0 ? (size_t)any : text.count ? parts_in(text, ",+") : 0;
    uint64_t *wide = ts_arena_zalloc(arena, (count + 1) * sizeof *wide);
    uint32_t *narrow = ts_arena_zalloc(arena, (count + 1) * sizeof *narrow);
    struct slice part;
    for (size_t i = 0; i < count; i++) {
        wide[i] = any >= 0 ? i + 1 : next_part(&text, ",+", &part) ? number(field, part) : 0;
        narrow[i] = (uint32_t)wide[i];
    }
    return (struct ts_list){size == sizeof *wide ? (const void *)wide : narrow, (uint32_t)count};
}

static void set_value(const struct ts_field *field, struct slice text, void *at, struct ts_arena *arena);

/* An element of a list: its first fields in order. Returns how many were given. */
static size_t set_element(const struct ts_schema *schema, struct slice text, void *base,
                          struct ts_arena *arena)
{
    struct slice part;
    size_t i = 0;
    for (; next_part(&text, ":", &part); i++) {
        if (i >= schema->field_count)
            fail_msg("%s has no field number %zu", schema->name, i);
        set_value(&schema->fields[i], part, (char *)base + schema->fields[i].offset, arena);
    }
    return i;
}

static struct ts_list elements(const struct ts_field *field, struct slice text, struct ts_arena *arena)
{
    size_t count = text.count ? parts_in(text, ",") : 0;
    char *data = ts_arena_zalloc(arena, (count + 1) * field->sub->size);
    struct slice part;
    for (size_t i = 0; i < count && next_part(&text, ",", &part); i++)
        set_element(field->sub, part, data + i * field->sub->size, arena);
    return (struct ts_list){data, (uint32_t)count};
}

static void set_value(const struct ts_field *field, struct slice text, void *at, struct ts_arena *arena)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        *(bool *)at = number(field, text) != 0;
        break;
    case TS_FIELD_U32:
        *(uint32_t *)at = (uint32_t)number(field, text);
        break;
    case TS_FIELD_U64:
        *(uint64_t *)at = number(field, text);
        break;
    case TS_FIELD_I64:
        *(int64_t *)at = (int64_t)number(field, text);
        break;
    case TS_FIELD_F32:
        *(float *)at = (float)real(text);
        break;
    case TS_FIELD_F64:
        *(double *)at = real(text);
        break;
    case TS_FIELD_ENUM:
        *(uint32_t *)at = enum_value(field, text);
        break;
    case TS_FIELD_STR:
    case TS_FIELD_BYTES:
        *(struct ts_str *)at =
            (struct ts_str){ts_arena_copy(arena, text.data, text.count), (uint32_t)text.count};
        break;
    case TS_FIELD_U32S:
        *(struct ts_list *)at = integers(field, text, sizeof(uint32_t), arena);
        break;
    case TS_FIELD_U64S:
        *(struct ts_list *)at = integers(field, text, sizeof(uint64_t), arena);
        break;
    case TS_FIELD_MSG:
        if (field->sub == &ts_rid_schema)
            *(struct ts_rid *)at = rid_value(field, text);
        else
            set_element(field->sub, text, at, arena);
        break;
    case TS_FIELD_MSGS:
        *(struct ts_list *)at = elements(field, text, arena);
        break;
    }
}

static bool same(const struct ts_field *field, struct slice text, const void *at, struct ts_arena *arena);

static bool same_element(const struct ts_schema *schema, struct slice text, const void *base,
                         struct ts_arena *arena)
{
    struct slice part;
    for (size_t i = 0; next_part(&text, ":", &part); i++) {
        if (i >= schema->field_count)
            fail_msg("%s has no field number %zu", schema->name, i);
        if (!same(&schema->fields[i], part, (const char *)base + schema->fields[i].offset, arena))
            return false;
    }
    return true;
}

static bool same_elements(const struct ts_field *field, struct slice text, const struct ts_list *list,
                          struct ts_arena *arena)
{
    int64_t any = any_count(field, text);
    struct slice part;
    if (any >= 0)
        return list->count == any;
    if (list->count != (text.count ? parts_in(text, ",") : 0))
        return false;
    for (size_t i = 0; i < list->count && next_part(&text, ",", &part); i++) {
        if (!same_element(field->sub, part, (const char *)list->data + i * field->sub->size, arena))
            return false;
    }
    return true;
}

/* Spans compare by content, everything else by its bytes. */
static bool same(const struct ts_field *field, struct slice text, const void *at, struct ts_arena *arena)
{
    static const size_t sizes[] = {[TS_FIELD_BOOL] = sizeof(bool),
                                   [TS_FIELD_U32] = 4,
                                   [TS_FIELD_U64] = 8,
                                   [TS_FIELD_I64] = 8,
                                   [TS_FIELD_F32] = 4,
                                   [TS_FIELD_F64] = 8,
                                   [TS_FIELD_ENUM] = 4};
    const struct ts_list *list = at;
    union {
        uint64_t word;
        struct ts_list list;
        struct ts_rid rid;
    } wanted = {.word = 0};
    if (field->type == TS_FIELD_MSGS)
        return same_elements(field, text, list, arena);
    if (field->type == TS_FIELD_MSG && field->sub != &ts_rid_schema)
        return same_element(field->sub, text, at, arena);
    if ((field->type == TS_FIELD_U32S || field->type == TS_FIELD_U64S) && any_count(field, text) >= 0)
        return list->count == any_count(field, text);
    set_value(field, text, &wanted, arena);
    if (field->type == TS_FIELD_MSG)
        return ts_rid_equal(wanted.rid, *(const struct ts_rid *)at);
    if (field->type < TS_ARRAY_SIZE(sizes) && sizes[field->type])
        return memcmp(&wanted, at, sizes[field->type]) == 0;
    size_t size = field->type == TS_FIELD_U32S ? 4 : field->type == TS_FIELD_U64S ? 8 : 1;
    return wanted.list.count == list->count &&
           (list->count == 0 || memcmp(wanted.list.data, list->data, list->count * size) == 0);
}

/* --- lines --- */

/* Follows "a.b.c" to its field. */
static const struct ts_field *find_field(const struct ts_schema *schema, struct slice path, size_t *offset)
{
    const struct ts_field *field = NULL;
    struct slice name;
    *offset = 0;
    while (next_part(&path, ".", &name)) {
        field = NULL;
        for (uint32_t i = 0; schema && i < schema->field_count; i++) {
            if (slice_is(name, schema->fields[i].name))
                field = &schema->fields[i];
        }
        if (!field)
            fail_msg("%s has no field \"%.*s\"", schema ? schema->name : "?", (int)name.count, name.data);
        *offset += field->offset;
        schema = field->type == TS_FIELD_MSG ? field->sub : NULL;
    }
    return field;
}

static struct ts_bulk bulk_value(struct slice text)
{
    struct slice rest = {text.data + 1, text.count - 1}, slot, bytes = {"64", 2};
    const struct ts_field field = {.name = "bulk"};
    next_part(&rest, "/", &slot);
    next_part(&rest, "/", &bytes); /* 64 bytes unless it says otherwise */
    return (struct ts_bulk){(uint32_t)number(&field, slot), 1, number(&field, bytes)};
}

/* A word of a line: `name=value` or `#bulk`. */
static const struct ts_field *word_field(const struct ts_schema *schema, struct slice word, size_t *offset,
                                         struct slice *value)
{
    struct slice name;
    if (word.data[0] == '#') {
        *value = word;
        return find_field(schema, slice_of("bulk"), offset);
    }
    *value = word;
    next_part(value, "=", &name);
    if (!value->data)
        fail_msg("\"%.*s\" is not field=value", (int)word.count, word.data);
    return find_field(schema, name, offset);
}

void core_text_fill(const struct ts_schema *schema, void *base, const char *text, struct ts_arena *arena)
{
    struct slice rest = slice_of(text), word, value;
    size_t offset;
    while (next_part(&rest, " ", &word)) {
        if (word.count == 0)
            continue;
        const struct ts_field *field = word_field(schema, word, &offset, &value);
        if (word.data[0] == '#')
            *(struct ts_bulk *)((char *)base + offset) = bulk_value(word);
        else
            set_value(field, value, (char *)base + offset, arena);
    }
}

bool core_text_match(const struct ts_schema *schema, const void *base, const char *text,
                     struct ts_arena *arena, const char **why)
{
    struct slice rest = slice_of(text), word, value;
    size_t offset;
    while (next_part(&rest, " ", &word)) {
        if (word.count == 0)
            continue;
        const struct ts_field *field = word_field(schema, word, &offset, &value);
        const void *at = (const char *)base + offset;
        bool equal = word.data[0] == '#' ? ((const struct ts_bulk *)at)->slot == bulk_value(word).slot
                                         : same(field, value, at, arena);
        if (!equal) {
            *why = ts_arena_printf(arena, "%.*s", (int)word.count, word.data);
            return false;
        }
    }
    return true;
}

bool core_text_head(const char *line, struct core_head *out)
{
    struct slice rest = slice_of(line), word, channel, kind;
    const struct ts_field field = {.name = "peer"};
    *out = (struct core_head){.rest = ""};
    if (!next_part(&rest, " ", &word))
        return false;
    kind = word;
    if (memchr(word.data, ':', word.count)) {
        next_part(&word, ":", &channel);
        for (int c = 1; c <= TS_CHANNEL_LAST; c++) {
            if (slice_is(channel, ts_channel_name((enum ts_channel)c)))
                out->channel = (enum ts_channel)c;
        }
        if (!out->channel || !word.data || !next_part(&rest, " ", &kind))
            return false;
        out->peer = number(&field, word);
    }
    snprintf(out->kind, sizeof out->kind, "%.*s", (int)kind.count, kind.data);
    out->rest = rest.data ? rest.data : "";
    return true;
}

const struct ts_field *core_text_case(const struct ts_schema *one_of, const char *kind)
{
    for (uint32_t i = 0; i < one_of->field_count; i++) {
        if (strcmp(one_of->fields[i].name, kind) == 0)
            return &one_of->fields[i];
    }
    return NULL;
}

const char *core_text_print(const struct ts_action *action, struct ts_arena *arena)
{
    char line[1500];
    if (action->kind != TS_ACTION_SEND) {
        ts_schema_print(&ts_action_schema, action, line, sizeof line);
        return ts_arena_printf(arena, "%s", line);
    }
    const struct ts_action_send *s = &action->send;
    ts_schema_print(&ts_msg_schema, &s->msg, line, sizeof line);
    return ts_arena_printf(arena, "%s:%llu %s #%u/%llu", ts_channel_name(s->channel),
                           (unsigned long long)s->peer, line, s->bulk.slot,
                           (unsigned long long)s->bulk.bytes);
}
