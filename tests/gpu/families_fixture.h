/*
 * The random models of tests/data/models that come with logits of another implementation
 * (scripts/make-test-models): one folder per family.
 */
#ifndef TS_TESTS_FAMILIES_FIXTURE_H
#define TS_TESTS_FAMILIES_FIXTURE_H

#include "tests/gpu/model_fixture.h"

/* What expected.bin says. */
struct family {
    const char *name;
    uint32_t token_count, vocab, position_count;
    uint32_t *tokens;    /* [token_count] */
    uint32_t *positions; /* [position_count], ascending */
    float *logits;       /* [position_count][vocab] */
    void *file;
};

/* Calls `check` for each family. Skips when TS_CPU_LEVEL names a level that this processor lacks. */
void families_each(void (*check)(const struct family *family));

/* A row that computes tokens begin..end-1 of the family's text over the blocks 0, 1, 2... */
struct ts_engine_row family_row(const struct family *family, uint32_t begin, uint32_t end);

#endif
