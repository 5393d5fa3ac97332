#include "services/cloud/cloud_copy.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define KINDS_MAX 128 /* numbers of messages are below */

struct layout;

struct span { /* of a struct: where it is, and what its items are */
    uint32_t offset, item_size;
    const struct layout *items; /* that have spans of their own; NULL = plain bytes */
};

struct layout {
    const struct ts_schema *schema;
    struct layout *next;
    struct span *spans;
    size_t count, capacity;
};

struct member { /* of the message union */
    uint32_t offset, size;
    const struct layout *layout;
};

struct copier {
    struct layout *layouts;
    struct member members[KINDS_MAX];
};

static const struct layout *layout_of(struct copier *copier, const struct ts_schema *schema);

static void add_span(struct layout *layout, struct span span)
{
    void *spans = layout->spans;
    ts_array_reserve(&spans, &layout->capacity, layout->count + 1, sizeof *layout->spans);
    layout->spans = spans;
    layout->spans[layout->count++] = span;
}

static void add_fields(struct copier *copier, struct layout *layout, const struct ts_schema *schema,
                       uint32_t offset)
{
    TS_ASSERT(!schema->one_of);
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        struct span span = {.offset = offset + field->offset};
        switch (field->type) {
        case TS_FIELD_MSG:
            add_fields(copier, layout, field->sub, span.offset);
            continue;
        case TS_FIELD_MSGS:
            span.item_size = field->sub->size;
            span.items = layout_of(copier, field->sub);
            span.items = span.items->count > 0 ? span.items : NULL;
            break;
        case TS_FIELD_U32S:
            span.item_size = sizeof(uint32_t);
            break;
        case TS_FIELD_U64S:
            span.item_size = sizeof(uint64_t);
            break;
        case TS_FIELD_STR:
        case TS_FIELD_BYTES:
            span.item_size = 1;
            break;
        default:
            continue;
        }
        add_span(layout, span);
    }
}

static const struct layout *layout_of(struct copier *copier, const struct ts_schema *schema)
{
    struct layout *layout = copier->layouts;
    while (layout && layout->schema != schema)
        layout = layout->next;
    if (layout)
        return layout;
    layout = ts_xcalloc(1, sizeof *layout);
    layout->schema = schema;
    add_fields(copier, layout, schema, 0);
    layout->next = copier->layouts;
    copier->layouts = layout;
    return layout;
}

struct copier *copier_new(void)
{
    struct copier *copier = ts_xcalloc(1, sizeof *copier);
    for (uint32_t i = 0; i < ts_msg_schema.field_count; i++) {
        const struct ts_field *field = &ts_msg_schema.fields[i];
        TS_ASSERT(field->when < KINDS_MAX);
        copier->members[field->when] =
            (struct member){field->offset, field->sub->size, layout_of(copier, field->sub)};
    }
    return copier;
}

void copier_destroy(struct copier **copier)
{
    struct layout *next;
    if (!*copier)
        return;
    for (struct layout *layout = (*copier)->layouts; layout; layout = next) {
        next = layout->next;
        ts_free(layout->spans);
        ts_free(layout);
    }
    ts_free(*copier);
    *copier = NULL;
}

/* `value` is a copy of the bytes; its spans still point to what was copied. */
static void move_spans(const struct layout *layout, char *value, struct ts_arena *arena)
{
    for (size_t i = 0; i < layout->count; i++) {
        const struct span *span = &layout->spans[i];
        struct ts_list list;
        memcpy(&list, value + span->offset, sizeof list);
        if (list.count == 0) {
            list.data = NULL;
        } else {
            char *items = ts_arena_copy(arena, list.data, (size_t)list.count * span->item_size);
            for (uint32_t k = 0; span->items && k < list.count; k++)
                move_spans(span->items, items + (size_t)k * span->item_size, arena);
            list.data = items;
        }
        memcpy(value + span->offset, &list, sizeof list);
    }
}

void copier_copy(const struct copier *copier, struct ts_msg *to, const struct ts_msg *from,
                 struct ts_arena *arena)
{
    to->kind = from->kind;
    if ((uint32_t)from->kind >= KINDS_MAX)
        return;
    const struct member *member = &copier->members[from->kind];
    if (!member->layout)
        return;
    memcpy((char *)to + member->offset, (const char *)from + member->offset, member->size);
    move_spans(member->layout, (char *)to + member->offset, arena);
}
