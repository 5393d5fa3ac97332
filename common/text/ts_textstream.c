#include "common/text/ts_textstream.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_tokenizer_impl.h"
#include "common/text/ts_utf8.h"

/* One stop string and how much of it the text so far ends with (Knuth, Morris, Pratt). */
struct stop {
    char *text;
    size_t bytes;
    size_t *fallback; /* longest proper prefix of text[0..i] that is also its suffix */
    size_t matched;
};

struct ts_textstream {
    const struct ts_tokenizer *tok;
    struct ts_detok detok;
    struct stop *stops;
    size_t stop_count;
    uint32_t *eos;
    size_t eos_count;
    uint32_t min_tokens, max_tokens;
    uint32_t count; /* tokens so far */
    bool ignore_eos, finished;
    struct ts_textbuf fresh; /* text of this push */
    struct ts_textbuf
        kept; /* searched text that was not emitted before this push; ends with what is held back */
    struct ts_textbuf event; /* what the last push gave out */
};

static void stop_init(struct stop *stop, const struct ts_text_stop *from)
{
    *stop = (struct stop){.text = ts_xmalloc(from->bytes), .bytes = from->bytes};
    memcpy(stop->text, from->text, from->bytes);
    stop->fallback = ts_xcalloc(from->bytes, sizeof *stop->fallback);
    for (size_t i = 1, length = 0; i < from->bytes; i++) {
        while (length > 0 && stop->text[i] != stop->text[length])
            length = stop->fallback[length - 1];
        if (stop->text[i] == stop->text[length])
            length++;
        stop->fallback[i] = length;
    }
}

/* True when `byte` completes the stop string. */
static bool stop_step(struct stop *stop, char byte)
{
    while (stop->matched > 0 && stop->text[stop->matched] != byte)
        stop->matched = stop->fallback[stop->matched - 1];
    if (stop->text[stop->matched] == byte)
        stop->matched++;
    return stop->matched == stop->bytes;
}

struct ts_textstream *ts_textstream_new(const struct ts_tokenizer *tok,
                                        const struct ts_textstream_params *params)
{
    struct ts_textstream *stream = ts_xcalloc(1, sizeof *stream);
    TS_ASSERT(params->max_tokens >= 1);
    stream->tok = tok;
    stream->ignore_eos = params->ignore_eos;
    stream->min_tokens = params->min_tokens;
    stream->max_tokens = params->max_tokens;
    stream->eos = ts_xcalloc(params->eos_count, sizeof *stream->eos);
    stream->eos_count = params->eos_count;
    for (size_t i = 0; i < params->eos_count; i++)
        stream->eos[i] = params->eos[i];
    stream->stops = ts_xcalloc(params->stop_count, sizeof *stream->stops);
    for (size_t i = 0; i < params->stop_count; i++)
        if (params->stops[i].bytes > 0 && ts_utf8_valid(params->stops[i].text, params->stops[i].bytes))
            stop_init(&stream->stops[stream->stop_count++], &params->stops[i]);
    if (tok)
        ts_detok_init(&stream->detok, &tok->table, TS_DECODE_SKIP_SPECIAL | TS_DECODE_CONTINUE);
    return stream;
}

void ts_textstream_destroy(struct ts_textstream **stream)
{
    struct ts_textstream *s = *stream;
    if (!s)
        return;
    for (size_t i = 0; i < s->stop_count; i++) {
        ts_free(s->stops[i].text);
        ts_free(s->stops[i].fallback);
    }
    ts_free(s->stops);
    ts_free(s->eos);
    ts_free(s->fresh.data);
    ts_free(s->kept.data);
    ts_free(s->event.data);
    ts_free(s);
    *stream = NULL;
}

static bool is_eos(const struct ts_textstream *stream, uint32_t token)
{
    for (size_t i = 0; i < stream->eos_count; i++)
        if (stream->eos[i] == token)
            return true;
    return false;
}

/*
 * Moves the fresh text to the kept one and looks for the stop string that is complete first; of several that
 * end at the same byte the longest counts. On a hit the kept text is cut where the stop string begins.
 */
static bool search(struct ts_textstream *stream)
{
    for (size_t i = 0; i < stream->fresh.bytes; i++) {
        size_t longest = 0;
        char byte = stream->fresh.data[i];
        ts_textbuf_append(&stream->kept, &byte, 1);
        for (size_t k = 0; k < stream->stop_count; k++)
            if (stop_step(&stream->stops[k], byte) && stream->stops[k].bytes > longest)
                longest = stream->stops[k].bytes;
        if (longest > 0) {
            stream->kept.bytes -= longest;
            return true;
        }
    }
    return false;
}

/* How much of the end of the kept text may still become a stop string. */
static size_t held_back(const struct ts_textstream *stream)
{
    size_t held = 0;
    for (size_t k = 0; k < stream->stop_count; k++)
        if (stream->stops[k].matched > held)
            held = stream->stops[k].matched;
    return held;
}

/* Gives the kept text out, but for the last `held` bytes. */
static void release(struct ts_textstream *stream, size_t held, struct ts_text_event *out)
{
    size_t bytes = stream->kept.bytes - held;
    ts_textbuf_append(&stream->event, stream->kept.data, bytes);
    stream->kept.bytes -= bytes;
    if (stream->kept.bytes > 0)
        memmove(stream->kept.data, stream->kept.data + bytes, stream->kept.bytes);
    out->text = stream->event.data;
    out->bytes = stream->event.bytes;
}

void ts_textstream_push(struct ts_textstream *stream, uint32_t token, struct ts_text_event *out)
{
    TS_ASSERT(!stream->finished);
    stream->count++;
    *out = (struct ts_text_event){.text = "", .finish = TS_TEXT_NONE};
    bool may_stop = stream->count > stream->min_tokens;
    if (may_stop && !stream->ignore_eos && is_eos(stream, token))
        out->finish = TS_TEXT_STOP;
    else if (stream->count >= stream->max_tokens)
        out->finish = TS_TEXT_LENGTH;
    stream->finished = out->finish != TS_TEXT_NONE;
    if (!stream->tok)
        return;

    stream->fresh.bytes = stream->event.bytes = 0;
    if (out->finish != TS_TEXT_STOP) /* an end token may be an ordinary one; it has no text either way */
        ts_detok_push(&stream->detok, token, &stream->fresh);
    if (stream->finished)
        ts_detok_flush(&stream->detok, &stream->fresh);
    if (!may_stop) {
        ts_textbuf_append(&stream->event, stream->fresh.data, stream->fresh.bytes);
        release(stream, 0, out);
    } else if (search(stream)) {
        out->finish = TS_TEXT_STOP;
        stream->finished = true;
        release(stream, 0, out);
    } else {
        release(stream, stream->finished ? 0 : held_back(stream), out);
    }
}
