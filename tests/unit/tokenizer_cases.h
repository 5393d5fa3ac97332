/*
 * What the `tokenizers` library answers: the files of tests/data/tokenizers, unpacked. Their format is in the
 * README there. One case owns its memory and that of the strings, which it shares with no other.
 */
#ifndef TS_TESTS_TOKENIZER_CASES_H
#define TS_TESTS_TOKENIZER_CASES_H

#include <stddef.h>
#include <stdint.h>

#include "common/text/ts_tokenizer.h"

#define CASES_FULL_EVERY  16  /* the ids of every 16th string are stored, of the others only their sum */
#define CASES_SWEEP_BLOCK 256 /* code points of one text of the sweep */

#define CASES_FORGED 1 /* in user_sum: in the library special ids come out, or merges lead past them */

struct cases_column {
    const uint32_t *data;
    size_t count;
};

struct cases {
    const char *name;
    struct ts_tokenizer *tok;
    const char **strings;
    const uint32_t *bytes; /* of each string */
    size_t count;
    struct cases_column id_count, id_sum, user_sum, text_sum, skip_sum, ids, sweep_sum;
    char *string_data, *data;
};

void cases_open(struct cases *cases,
                const char *name); /* fails the test on a file that is not as described */
void cases_close(struct cases *cases);

/* The texts of the sweep, in order; NULL after the last. ts_free. */
char *cases_sweep_text(size_t index, size_t *bytes);

uint32_t cases_sum(const void *data, size_t bytes); /* CRC-32 as of zlib */

#endif
