/*
 * Byte pair encoding (Sennrich et al., ACL 2016): a vocabulary, ranked merges of two tokens into one, and the
 * greedy application of the lowest rank first. A heap of candidate merges keeps a word of n code points at
 * O(n log n), so that a text without breaks is no way to stop a worker. One of these per tokenizer, filled
 * once, then read by any number of threads.
 */
#ifndef TS_TEXT_BPE_H
#define TS_TEXT_BPE_H

#include <stdbool.h>

#include "common/text/ts_textbuf.h"

#define TS_TOKEN_ID_MAX (UINT32_C(1) << 20) /* vocabularies in use end at 2^18 */

struct ts_bpe_entry;
struct ts_bpe_merge;

struct ts_bpe {
    struct ts_textbuf text;       /* the spellings, one after another */
    struct ts_bpe_entry *entries; /* in the order of insertion */
    size_t entry_count, entry_capacity;
    uint32_t *slots; /* hash of the spelling -> entry + 1 */
    size_t slot_count;
    uint32_t *entry_of_id; /* id -> entry + 1 */
    size_t id_count;
    struct ts_bpe_merge *merges; /* hash of (left, right) */
    size_t merge_count, merge_slots;

    bool byte_fallback, fuse_unk, ignore_merges;
    uint32_t unk_id;         /* TS_TOKEN_NONE: unknown characters vanish */
    uint32_t byte_ids[256];  /* of <0x00> to <0xFF>; set by ts_bpe_seal */
    uint32_t low_ids[0x200]; /* of code points below 0x200, the alphabet of byte-level vocabularies */
    const uint8_t *special; /* one flag per id; such ids come out only where the caller allows it; borrowed */
};

/* Working memory of ts_bpe_encode, reused from word to word. */
struct ts_bpe_scratch {
    struct ts_bpe_symbol *symbols;
    size_t symbol_capacity;
    struct ts_bpe_candidate *heap;
    size_t heap_count, heap_capacity;
};

void ts_bpe_init(struct ts_bpe *bpe);
void ts_bpe_fini(struct ts_bpe *bpe);
void ts_bpe_reserve(struct ts_bpe *bpe, size_t tokens, size_t merges); /* once, before the first addition */

/* False: the spelling or the id is taken. id < TS_TOKEN_ID_MAX. */
bool ts_bpe_add_token(struct ts_bpe *bpe, const char *text, size_t bytes, uint32_t id);
/* A pair that is added again takes the later rank. False: one of the three spellings is not in the
 * vocabulary. */
bool ts_bpe_add_merge(struct ts_bpe *bpe, const char *left, size_t left_bytes, const char *right,
                      size_t right_bytes, uint32_t rank);
void ts_bpe_seal(struct ts_bpe *bpe); /* after the last token */

uint32_t ts_bpe_find(const struct ts_bpe *bpe, const char *text, size_t bytes); /* TS_TOKEN_NONE if absent */
const char *ts_bpe_spelling(const struct ts_bpe *bpe, uint32_t id,
                            size_t *bytes); /* NULL if absent; not NUL-terminated */

/* Appends the ids of one word: valid UTF-8, fewer than 2^30 bytes. Without `allow_special` no id marked
   special is the result of a lookup or a merge. */
void ts_bpe_encode(const struct ts_bpe *bpe, struct ts_bpe_scratch *scratch, const char *word, size_t bytes,
                   bool allow_special, struct ts_idbuf *out);
void ts_bpe_scratch_fini(struct ts_bpe_scratch *scratch);

#endif
