/*
 * From tokens to the text events of a request. The event of token i is a pure function of (tokenizer,
 * parameters, tokens 0..i), so that any worker that takes a request over emits the same text, cut at the same
 * places.
 *
 * Held back: the bytes of an unfinished character, and the longest tail that may still become a stop string.
 * At the finish what is held comes out; an unfinished character becomes U+FFFD. The first of the stop strings
 * to be complete ends the text; it and what follows are not emitted. Special tokens give no text. Without a
 * tokenizer (NULL) there is no text and only eos and length end the stream.
 *
 *     new -> push, push, ... until finish is not NONE -> destroy
 *
 * Keeps the tokenizer; copies the parameters. One thread.
 */
#ifndef TS_TEXT_TEXTSTREAM_H
#define TS_TEXT_TEXTSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text/ts_tokenizer.h"

struct ts_textstream;

enum ts_text_finish { TS_TEXT_NONE, TS_TEXT_STOP, TS_TEXT_LENGTH };

struct ts_text_stop {
    const char *text; /* one that is empty or not UTF-8 is never found */
    size_t bytes;
};

struct ts_textstream_params {
    const struct ts_text_stop *stops;
    size_t stop_count;
    const uint32_t *eos;
    size_t eos_count;
    bool ignore_eos;
    uint32_t min_tokens; /* before that many tokens neither eos nor a stop string ends the stream, and their
                            text is not searched */
    uint32_t max_tokens; /* >= 1 */
};

struct ts_text_event {
    const char *text; /* valid UTF-8, borrowed until the next push; not NUL-terminated */
    size_t bytes;
    enum ts_text_finish finish;
};

struct ts_textstream *ts_textstream_new(const struct ts_tokenizer *tok,
                                        const struct ts_textstream_params *params);
void ts_textstream_destroy(struct ts_textstream **stream);
void ts_textstream_push(struct ts_textstream *stream, uint32_t token, struct ts_text_event *out);

#endif
