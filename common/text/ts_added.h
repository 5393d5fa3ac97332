/*
 * The added tokens of a tokenizer, and the search for them in a text: at each place the longest one, from
 * left to right. There are two sets, as in the reference: tokens looked for in the text as given, and tokens
 * looked for (in normalised spelling) after normalisation. Immutable after sealing; any thread.
 */
#ifndef TS_TEXT_ADDED_H
#define TS_TEXT_ADDED_H

#include <stdbool.h>

#include "common/text/ts_textbuf.h"

struct ts_added_token {
    uint32_t id;
    const char *pattern; /* what is searched; kept */
    size_t bytes;
    bool special;
    bool lstrip, rstrip; /* takes the white space before, after it */
    bool single_word;    /* not beside a letter, digit or underscore */
};

struct ts_added_node;

struct ts_added_set { /* zero is empty */
    struct ts_added_token *tokens;
    size_t count, capacity;
    struct ts_added_node *nodes; /* a trie; node 0 is the root */
    size_t node_count, node_capacity;
};

struct ts_added_cursor { /* set text and bytes, leave the rest zero */
    const char *text;
    size_t bytes;
    size_t search, done;
    const struct ts_added_token *found; /* waiting behind the text before it */
    size_t found_end;
};

struct ts_added_part {
    uint32_t id; /* TS_TOKEN_NONE: text */
    size_t from, to;
};

void ts_added_put(struct ts_added_set *set,
                  const struct ts_added_token *token); /* the later of equal patterns wins */
void ts_added_fini(struct ts_added_set *set);

/* The next part of the text; false at its end. Without `parse_special` special tokens stay text. */
bool ts_added_next(const struct ts_added_set *set, struct ts_added_cursor *cursor, bool parse_special,
                   struct ts_added_part *out);

#endif
