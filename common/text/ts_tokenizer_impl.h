/* The inside of struct ts_tokenizer, for the loader and the encoder. Everything in it is filled at load and
 * constant afterwards. */
#ifndef TS_TEXT_TOKENIZER_IMPL_H
#define TS_TEXT_TOKENIZER_IMPL_H

#include "common/base/ts_arena.h"
#include "common/text/ts_added.h"
#include "common/text/ts_bpe.h"
#include "common/text/ts_detok.h"
#include "common/text/ts_json.h"
#include "common/text/ts_split.h"
#include "common/text/ts_tokenizer.h"

struct ts_tokenizer {
    struct ts_arena arena; /* owns the strings of steps and patterns */
    struct ts_bpe bpe;
    struct ts_norm_step norms[TS_STEPS_MAX];
    size_t norm_count;
    struct ts_split_step splits[TS_STEPS_MAX];
    size_t split_count;
    struct ts_added_set raw_added;        /* looked for in the text as given */
    struct ts_added_set normalized_added; /* looked for in the normalised text */
    struct ts_map *added_ids;             /* spelling -> id + 1 of every added token */
    struct ts_idbuf prefix, suffix;       /* what the post-processor puts around a text */
    struct ts_piece_table table;
    uint8_t *special; /* by id */
};

/* Fills an empty tokenizer. On failure the caller destroys it. */
enum ts_status ts_tokenizer_load(struct ts_tokenizer *tok, const struct ts_json *root, struct ts_error *err);

#endif
