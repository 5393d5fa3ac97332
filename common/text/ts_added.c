#include "common/text/ts_added.h"

#include "common/text/ts_tokenizer.h"
#include "common/text/ts_unicode.h"
#include "common/text/ts_utf8.h"

struct ts_added_node {
    uint32_t child, sibling; /* 0 = none */
    uint32_t token;          /* index + 1; 0 = no pattern ends here */
    uint8_t byte;
};

static uint32_t find_child(const struct ts_added_set *set, uint32_t node, uint8_t byte)
{
    uint32_t child = set->nodes[node].child;
    while (child && set->nodes[child].byte != byte)
        child = set->nodes[child].sibling;
    return child;
}

static uint32_t add_node(struct ts_added_set *set, uint8_t byte, uint32_t sibling)
{
    ts_array_reserve((void **)&set->nodes, &set->node_capacity, set->node_count + 1, sizeof *set->nodes);
    set->nodes[set->node_count] = (struct ts_added_node){.byte = byte, .sibling = sibling};
    return (uint32_t)set->node_count++;
}

void ts_added_put(struct ts_added_set *set, const struct ts_added_token *token)
{
    if (set->node_count == 0)
        add_node(set, 0, 0);
    ts_array_reserve((void **)&set->tokens, &set->capacity, set->count + 1, sizeof *set->tokens);
    set->tokens[set->count++] = *token;
    uint32_t node = 0;
    for (size_t i = 0; i < token->bytes; i++) {
        uint8_t byte = (uint8_t)token->pattern[i];
        uint32_t child = find_child(set, node, byte);
        if (!child) {
            child = add_node(set, byte, set->nodes[node].child);
            set->nodes[node].child = child;
        }
        node = child;
    }
    set->nodes[node].token = (uint32_t)set->count;
}

void ts_added_fini(struct ts_added_set *set)
{
    ts_free(set->tokens);
    ts_free(set->nodes);
    *set = (struct ts_added_set){0};
}

/* The longest token at the start of `text`, or NULL. */
static const struct ts_added_token *match_at(const struct ts_added_set *set, const char *text, size_t bytes)
{
    const struct ts_added_token *best = NULL;
    uint32_t node = 0;
    for (size_t i = 0; i < bytes && (node = find_child(set, node, (uint8_t)text[i])) != 0; i++)
        if (set->nodes[node].token)
            best = &set->tokens[set->nodes[node].token - 1];
    return best;
}

/* Start of the code point that ends before `at`. */
static size_t step_back(const char *text, size_t at)
{
    do
        at--;
    while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80);
    return at;
}

static unsigned class_at(const char *text, size_t at, size_t bytes, size_t *length)
{
    uint32_t code;
    *length = ts_utf8_next(text + at, bytes - at, &code);
    return ts_unicode_class(code);
}

static bool stands_alone(const char *text, size_t bytes, size_t start, size_t end)
{
    size_t length;
    if (start > 0 && (class_at(text, step_back(text, start), bytes, &length) & TS_UC_WORD))
        return false;
    return end == bytes || !(class_at(text, end, bytes, &length) & TS_UC_WORD);
}

/* Start of the white space that ends at `at`, but not before `least`. */
static size_t space_before(const char *text, size_t bytes, size_t at, size_t least)
{
    size_t length;
    while (at > least) {
        size_t back = step_back(text, at);
        if (!(class_at(text, back, bytes, &length) & TS_UC_SPACE))
            break;
        at = back;
    }
    return at;
}

static size_t space_after(const char *text, size_t bytes, size_t at)
{
    size_t length;
    while (at < bytes && (class_at(text, at, bytes, &length) & TS_UC_SPACE))
        at += length;
    return at;
}

static void take_found(struct ts_added_cursor *cursor, struct ts_added_part *out)
{
    *out = (struct ts_added_part){.id = cursor->found->id, .from = cursor->done, .to = cursor->found_end};
    cursor->done = cursor->found_end;
    cursor->found = NULL;
}

bool ts_added_next(const struct ts_added_set *set, struct ts_added_cursor *cursor, bool parse_special,
                   struct ts_added_part *out)
{
    const char *text = cursor->text;
    size_t bytes = cursor->bytes;
    if (cursor->found) {
        take_found(cursor, out);
        return true;
    }
    while (set->count > 0 && cursor->search < bytes) {
        size_t start = cursor->search;
        const struct ts_added_token *token = match_at(set, text + start, bytes - start);
        if (!token) {
            cursor->search++;
            continue;
        }
        size_t end = start + token->bytes;
        cursor->search = end; /* a token that is passed over still hides those that overlap it */
        if ((token->special && !parse_special) ||
            (token->single_word && !stands_alone(text, bytes, start, end)))
            continue;
        if (token->rstrip) /* what the one before has taken beyond its pattern is white space to its end */
            end = end < cursor->done ? cursor->done : space_after(text, bytes, end);
        if (token->lstrip)
            start = space_before(text, bytes, start > cursor->done ? start : cursor->done, cursor->done);
        if (start >= end)
            continue; /* a token of white space that the one before has taken */
        cursor->found = token;
        cursor->found_end = end;
        if (start > cursor->done) {
            *out = (struct ts_added_part){.id = TS_TOKEN_NONE, .from = cursor->done, .to = start};
            cursor->done = start;
        } else {
            take_found(cursor, out);
        }
        return true;
    }
    if (cursor->done >= bytes)
        return false;
    *out = (struct ts_added_part){.id = TS_TOKEN_NONE, .from = cursor->done, .to = bytes};
    cursor->done = bytes;
    return true;
}
