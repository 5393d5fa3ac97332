#include "common/text/ts_bpe.h"

#include <stdio.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_rng.h"
#include "common/text/ts_tokenizer.h"
#include "common/text/ts_utf8.h"

struct ts_bpe_entry {
    size_t offset;
    uint32_t bytes, id;
};

struct ts_bpe_merge {
    uint32_t left, right; /* left is TS_TOKEN_NONE in an empty slot */
    uint32_t rank, result;
};

struct ts_bpe_symbol {
    uint32_t id; /* TS_TOKEN_NONE: merged into the one before */
    int32_t prev, next;
};

struct ts_bpe_candidate {
    uint64_t key; /* rank, then position of the left symbol */
    uint32_t result;
};

void ts_bpe_init(struct ts_bpe *bpe)
{
    *bpe = (struct ts_bpe){.unk_id = TS_TOKEN_NONE};
}

void ts_bpe_fini(struct ts_bpe *bpe)
{
    ts_free(bpe->text.data);
    ts_free(bpe->entries);
    ts_free(bpe->slots);
    ts_free(bpe->entry_of_id);
    ts_free(bpe->merges);
    *bpe = (struct ts_bpe){0};
}

/* A power of two that leaves a hash table of `count` items at most half full. */
static size_t table_size(size_t count)
{
    size_t size = 16;
    while (size < count * 2)
        size *= 2;
    return size;
}

void ts_bpe_reserve(struct ts_bpe *bpe, size_t tokens, size_t merges)
{
    TS_ASSERT(!bpe->slots);
    bpe->slot_count = table_size(tokens);
    bpe->slots = ts_xcalloc(bpe->slot_count, sizeof *bpe->slots);
    bpe->merge_slots = table_size(merges);
    bpe->merges = ts_xmalloc(bpe->merge_slots * sizeof *bpe->merges);
    for (size_t i = 0; i < bpe->merge_slots; i++)
        bpe->merges[i].left = TS_TOKEN_NONE;
}

/* The slot of this spelling, or the empty one where it belongs. */
static size_t find_slot(const struct ts_bpe *bpe, const char *text, size_t bytes)
{
    size_t slot = (size_t)ts_hash64(text, bytes, 0) & (bpe->slot_count - 1);
    while (bpe->slots[slot]) {
        const struct ts_bpe_entry *entry = &bpe->entries[bpe->slots[slot] - 1];
        if (entry->bytes == bytes && memcmp(bpe->text.data + entry->offset, text, bytes) == 0)
            break;
        slot = (slot + 1) & (bpe->slot_count - 1);
    }
    return slot;
}

bool ts_bpe_add_token(struct ts_bpe *bpe, const char *text, size_t bytes, uint32_t id)
{
    TS_ASSERT(id < TS_TOKEN_ID_MAX && (bpe->entry_count + 1) * 2 <= bpe->slot_count);
    size_t slot = find_slot(bpe, text, bytes);
    if (bpe->slots[slot] || (id < bpe->id_count && bpe->entry_of_id[id]))
        return false;
    if (id >= bpe->id_count) {
        size_t count = id + 1 > bpe->id_count * 2 ? id + 1 : bpe->id_count * 2;
        bpe->entry_of_id = ts_xrealloc(bpe->entry_of_id, count * sizeof *bpe->entry_of_id);
        memset(bpe->entry_of_id + bpe->id_count, 0, (count - bpe->id_count) * sizeof *bpe->entry_of_id);
        bpe->id_count = count;
    }
    ts_array_reserve((void **)&bpe->entries, &bpe->entry_capacity, bpe->entry_count + 1,
                     sizeof *bpe->entries);
    bpe->entries[bpe->entry_count++] =
        (struct ts_bpe_entry){.offset = bpe->text.bytes, .bytes = (uint32_t)bytes, .id = id};
    ts_textbuf_append(&bpe->text, text, bytes);
    bpe->slots[slot] = (uint32_t)bpe->entry_count;
    bpe->entry_of_id[id] = (uint32_t)bpe->entry_count;
    return true;
}

uint32_t ts_bpe_find(const struct ts_bpe *bpe, const char *text, size_t bytes)
{
    size_t slot = find_slot(bpe, text, bytes);
    return bpe->slots[slot] ? bpe->entries[bpe->slots[slot] - 1].id : TS_TOKEN_NONE;
}

const char *ts_bpe_spelling(const struct ts_bpe *bpe, uint32_t id, size_t *bytes)
{
    *bytes = 0;
    if (id >= bpe->id_count || !bpe->entry_of_id[id])
        return NULL;
    const struct ts_bpe_entry *entry = &bpe->entries[bpe->entry_of_id[id] - 1];
    *bytes = entry->bytes;
    return bpe->text.data + entry->offset;
}

static struct ts_bpe_merge *merge_slot(const struct ts_bpe *bpe, uint32_t left, uint32_t right)
{
    size_t slot = (size_t)ts_splitmix64((uint64_t)left << 32 | right) & (bpe->merge_slots - 1);
    while (bpe->merges[slot].left != TS_TOKEN_NONE &&
           (bpe->merges[slot].left != left || bpe->merges[slot].right != right))
        slot = (slot + 1) & (bpe->merge_slots - 1);
    return &bpe->merges[slot];
}

bool ts_bpe_add_merge(struct ts_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                      size_t right_bytes, uint32_t rank)
{
    struct ts_textbuf joined = {0};
    ts_textbuf_append(&joined, left, left_bytes);
    ts_textbuf_append(&joined, right, right_bytes);
    uint32_t a = ts_bpe_find(bpe, left, left_bytes), b = ts_bpe_find(bpe, right, right_bytes);
    uint32_t result = ts_bpe_find(bpe, joined.data, joined.bytes);
    ts_free(joined.data);
    if (a == TS_TOKEN_NONE || b == TS_TOKEN_NONE || result == TS_TOKEN_NONE)
        return false;
    struct ts_bpe_merge *merge = merge_slot(bpe, a, b);
    if (merge->left == TS_TOKEN_NONE) {
        bpe->merge_count++;
        TS_ASSERT(bpe->merge_count * 2 <= bpe->merge_slots);
    }
    *merge = (struct ts_bpe_merge){.left = a, .right = b, .rank = rank, .result = result};
    return true;
}

void ts_bpe_seal(struct ts_bpe *bpe)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        int length = snprintf(name, sizeof name, "<0x%02X>", byte);
        bpe->byte_ids[byte] = ts_bpe_find(bpe, name, (size_t)length);
    }
    for (uint32_t code = 0; code < TS_ARRAY_SIZE(bpe->low_ids); code++) {
        char text[4];
        bpe->low_ids[code] = ts_bpe_find(bpe, text, ts_utf8_put(code, text));
    }
}

static bool allowed(const struct ts_bpe *bpe, uint32_t id, bool allow_special)
{
    return id != TS_TOKEN_NONE && (allow_special || !bpe->special[id]);
}

static void heap_push(struct ts_bpe_scratch *scratch, struct ts_bpe_candidate item)
{
    ts_array_reserve((void **)&scratch->heap, &scratch->heap_capacity, scratch->heap_count + 1, sizeof item);
    size_t at = scratch->heap_count++;
    while (at > 0 && scratch->heap[(at - 1) / 2].key > item.key) {
        scratch->heap[at] = scratch->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    scratch->heap[at] = item;
}

static struct ts_bpe_candidate heap_pop(struct ts_bpe_scratch *scratch)
{
    struct ts_bpe_candidate top = scratch->heap[0], last = scratch->heap[--scratch->heap_count];
    size_t at = 0, child;
    while ((child = at * 2 + 1) < scratch->heap_count) {
        if (child + 1 < scratch->heap_count && scratch->heap[child + 1].key < scratch->heap[child].key)
            child++;
        if (scratch->heap[child].key >= last.key)
            break;
        scratch->heap[at] = scratch->heap[child];
        at = child;
    }
    scratch->heap[at] = last;
    return top;
}

/* Enters the merge of the symbol at `at` with its successor, if there is one. */
static void consider(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, int32_t at, bool allow_special)
{
    const struct ts_bpe_symbol *left = &scratch->symbols[at];
    if (left->next < 0)
        return;
    const struct ts_bpe_merge *merge = merge_slot(bpe, left->id, scratch->symbols[left->next].id);
    if (merge->left != TS_TOKEN_NONE && allowed(bpe, merge->result, allow_special))
        heap_push(scratch,
                  (struct ts_bpe_candidate){(uint64_t)merge->rank << 32 | (uint32_t)at, merge->result});
}

/* Applies merges until none is left. A candidate is stale, and skipped, when its pair no longer gives its
 * result. */
static void merge_symbols(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, size_t count,
                          bool allow_special)
{
    struct ts_bpe_symbol *symbols = scratch->symbols;
    scratch->heap_count = 0;
    for (size_t i = 0; i + 1 < count; i++)
        consider(bpe, scratch, (int32_t)i, allow_special);
    while (scratch->heap_count > 0) {
        struct ts_bpe_candidate top = heap_pop(scratch);
        int32_t at = (int32_t)(uint32_t)top.key, next = symbols[at].next;
        if (symbols[at].id == TS_TOKEN_NONE || next < 0)
            continue;
        const struct ts_bpe_merge *merge = merge_slot(bpe, symbols[at].id, symbols[next].id);
        if (merge->left == TS_TOKEN_NONE || merge->result != top.result)
            continue;
        symbols[at].id = top.result;
        symbols[at].next = symbols[next].next;
        symbols[next].id = TS_TOKEN_NONE;
        if (symbols[at].next >= 0)
            symbols[symbols[at].next].prev = at;
        if (symbols[at].prev >= 0)
            consider(bpe, scratch, symbols[at].prev, allow_special);
        consider(bpe, scratch, at, allow_special);
    }
}

static void add_symbol(struct ts_bpe_scratch *scratch, size_t *count, uint32_t id)
{
    ts_array_reserve((void **)&scratch->symbols, &scratch->symbol_capacity, *count + 1,
                     sizeof *scratch->symbols);
    scratch->symbols[*count] = (struct ts_bpe_symbol){.id = id, .prev = (int32_t)*count - 1, .next = -1};
    if (*count > 0)
        scratch->symbols[*count - 1].next = (int32_t)*count;
    ++*count;
}

/* A character without a token becomes byte tokens if all of its bytes have one. */
static bool add_bytes(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, size_t *count,
                      const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (bpe->byte_ids[(uint8_t)text[i]] == TS_TOKEN_NONE)
            return false;
    for (size_t i = 0; i < bytes; i++)
        add_symbol(scratch, count, bpe->byte_ids[(uint8_t)text[i]]);
    return true;
}

/* One symbol for each code point. An unknown one waits as `unk` for the next known one, so that neighbours
   can be fused; byte tokens do not end the waiting, as in the reference. */
static size_t split_symbols(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, const char *word,
                            size_t bytes, bool allow_special)
{
    size_t count = 0;
    bool unk = false;
    for (size_t at = 0, length; at < bytes; at += length) {
        uint32_t code;
        length = ts_utf8_next(word + at, bytes - at, &code);
        uint32_t id =
            code < TS_ARRAY_SIZE(bpe->low_ids) ? bpe->low_ids[code] : ts_bpe_find(bpe, word + at, length);
        if (allowed(bpe, id, allow_special)) {
            if (unk)
                add_symbol(scratch, &count, bpe->unk_id);
            unk = false;
            add_symbol(scratch, &count, id);
        } else if (!(bpe->byte_fallback && add_bytes(bpe, scratch, &count, word + at, length)) &&
                   bpe->unk_id != TS_TOKEN_NONE) {
            if (unk && !bpe->fuse_unk)
                add_symbol(scratch, &count, bpe->unk_id);
            unk = true;
        }
    }
    if (unk)
        add_symbol(scratch, &count, bpe->unk_id);
    return count;
}

void ts_bpe_encode(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, const char *word, size_t bytes,
                   bool allow_special, struct ts_idbuf *out)
{
    TS_ASSERT(bytes < (size_t)1 << 30);
    if (bpe->ignore_merges) {
        uint32_t id = ts_bpe_find(bpe, word, bytes);
        if (allowed(bpe, id, allow_special)) {
            ts_idbuf_append(out, id);
            return;
        }
    }
    size_t count = split_symbols(bpe, scratch, word, bytes, allow_special);
    merge_symbols(bpe, scratch, count, allow_special);
    for (size_t i = 0; i < count; i++)
        if (scratch->symbols[i].id != TS_TOKEN_NONE)
            ts_idbuf_append(out, scratch->symbols[i].id);
}

void ts_bpe_scratch_fini(struct ts_bpe_scratch *scratch)
{
    ts_free(scratch->symbols);
    ts_free(scratch->heap);
    *scratch = (struct ts_bpe_scratch){0};
}
