#include "common/text/ts_split.h"

#include "common/text/ts_unicode.h"
#include "common/text/ts_utf8.h"

static void swap_text(struct ts_textbuf *a, struct ts_textbuf *b)
{
    struct ts_textbuf keep = *a;
    *a = *b;
    *b = keep;
}

/* Stops early once `out` has more than `bytes_max`. */
static void replace_all(const struct ts_norm_step *step, const struct ts_textbuf *text, size_t bytes_max,
                        struct ts_textbuf *out)
{
    const char *at = text->data, *end = text->data + text->bytes, *hit;
    while (out->bytes <= bytes_max &&
           (hit = memmem(at, (size_t)(end - at), step->from.data, step->from.bytes)) != NULL) {
        ts_textbuf_append(out, at, (size_t)(hit - at));
        ts_textbuf_append(out, step->to.data, step->to.bytes);
        at = hit + step->from.bytes;
    }
    ts_textbuf_append(out, at, (size_t)(end - at));
}

enum ts_status ts_normalize(const struct ts_norm_step *steps, size_t count, size_t bytes_max,
                            struct ts_textbuf *text)
{
    struct ts_textbuf next = {0};
    enum ts_status status = TS_OK;
    for (size_t i = 0; i < count && text->bytes > 0 && status == TS_OK; i++) {
        const struct ts_norm_step *step = &steps[i];
        next.bytes = 0;
        switch (step->kind) {
        case TS_NORM_NFC: {
            size_t bytes;
            char *composed = ts_unicode_nfc(text->data, text->bytes, &bytes);
            ts_textbuf_append(&next, composed, bytes);
            ts_free(composed);
            break;
        }
        case TS_NORM_PREPEND:
            ts_textbuf_append(&next, step->to.data, step->to.bytes);
            ts_textbuf_append(&next, text->data, text->bytes);
            break;
        case TS_NORM_REPLACE:
            replace_all(step, text, bytes_max, &next);
            break;
        }
        swap_text(text, &next);
        if (text->bytes > bytes_max)
            status = TS_ELIMIT;
    }
    ts_free(next.data);
    return status;
}

/* The alphabet of byte-level vocabularies: printable Latin-1 stands for itself, the other 68 bytes for U+0100
 * and up, in order. */
static bool prints_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

static uint32_t code_of_byte(unsigned byte)
{
    if (prints_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

int ts_byte_of_code(uint32_t code)
{
    if (code < 0x100)
        return prints_itself(code) ? (int)code : -1;
    if (code <= 0x120)
        return (int)(code - 0x100);
    if (code <= 0x142)
        return (int)(code - 0x121 + 0x7F);
    return code == 0x143 ? 0xAD : -1;
}

static void end_piece(struct ts_pieces *out, size_t end)
{
    if (end == (out->count ? out->ends[out->count - 1] : 0))
        return;
    ts_array_reserve((void **)&out->ends, &out->capacity, out->count + 1, sizeof *out->ends);
    out->ends[out->count++] = end;
}

/* Cuts of one piece at `from`..`to` of the text; the last one is made by the caller. */
static void cut_numeric(const char *text, size_t from, size_t to, bool each, struct ts_pieces *out)
{
    bool before = false;
    for (size_t at = from, length; at < to; at += length) {
        uint32_t code;
        length = ts_utf8_next(text + at, to - at, &code);
        bool numeric = ts_unicode_class(code) & TS_UC_NUMERIC;
        if (at > from && (numeric != before || (numeric && each)))
            end_piece(out, at);
        before = numeric;
    }
}

static void cut_before(const char *text, size_t from, size_t to, struct ts_slice mark, struct ts_pieces *out)
{
    const char *hit = text + from;
    while ((hit = memmem(hit, (size_t)(text + to - hit), mark.data, mark.bytes)) != NULL) {
        end_piece(out, hit > text + from ? (size_t)(hit - text) : from);
        hit += mark.bytes;
    }
}

static void cut(const struct ts_split_step *step, const char *text, size_t from, size_t to,
                struct ts_pieces *out)
{
    if (step->kind == TS_SPLIT_BEFORE_MARK) {
        cut_before(text, from, to, step->mark, out);
    } else if (step->kind == TS_SPLIT_SCAN) {
        for (size_t at = from; at < to;) {
            at += ts_scan_next(step->scan, text + at, to - at);
            end_piece(out, at);
        }
    } else {
        cut_numeric(text, from, to, step->kind == TS_SPLIT_DIGITS, out);
    }
    end_piece(out, to);
}

static void append_bytes_printable(const char *text, size_t bytes, struct ts_textbuf *out)
{
    /* the alphabet lies below U+0800: at most two bytes for one */
    ts_array_reserve((void **)&out->data, &out->capacity, out->bytes + bytes * 2 + 4, 1);
    for (size_t i = 0; i < bytes; i++)
        out->bytes += ts_utf8_put(code_of_byte((uint8_t)text[i]), out->data + out->bytes);
}

static void append_marked(const struct ts_split_step *step, bool first, const char *text, size_t bytes,
                          struct ts_textbuf *out)
{
    bool has =
        text[0] == ' ' || (bytes >= step->mark.bytes && memcmp(text, step->mark.data, step->mark.bytes) == 0);
    if (!has && (step->prefix == TS_PREFIX_ALWAYS || (step->prefix == TS_PREFIX_FIRST && first)))
        ts_textbuf_append(out, step->mark.data, step->mark.bytes);
    const struct ts_norm_step spaces = {.kind = TS_NORM_REPLACE, .from = {" ", 1}, .to = step->mark};
    struct ts_textbuf piece = {0};
    ts_textbuf_append(&piece, text, bytes);
    replace_all(&spaces, &piece, SIZE_MAX, out);
    ts_free(piece.data);
}

/* One step from `in` to `out`: either the text changes and the cuts stay, or the reverse. */
static void apply(const struct ts_split_step *step, bool at_start, const struct ts_pieces *in,
                  struct ts_pieces *out)
{
    out->text.bytes = 0;
    out->count = 0;
    bool cuts = step->kind == TS_SPLIT_SCAN || step->kind == TS_SPLIT_DIGITS ||
                step->kind == TS_SPLIT_DIGIT_RUNS || step->kind == TS_SPLIT_BEFORE_MARK;
    if (cuts)
        ts_textbuf_append(&out->text, in->text.data, in->text.bytes);
    for (size_t i = 0, from = 0; i < in->count; from = in->ends[i++]) {
        const char *piece = in->text.data + from;
        size_t bytes = in->ends[i] - from;
        if (cuts) {
            cut(step, in->text.data, from, in->ends[i], out);
            continue;
        }
        if (step->kind == TS_SPLIT_BYTES) {
            append_bytes_printable(piece, bytes, &out->text);
        } else if (step->kind == TS_SPLIT_SPACE_MARK) {
            append_marked(step, at_start && i == 0, piece, bytes, &out->text);
        } else {
            ts_textbuf_append(&out->text, " ", piece[0] == ' ' ? 0 : 1);
            ts_textbuf_append(&out->text, piece, bytes);
        }
        end_piece(out, out->text.bytes);
    }
}

void ts_split(const struct ts_split_step *steps, size_t count, const char *text, size_t bytes, bool at_start,
              struct ts_pieces *pieces, struct ts_pieces *spare)
{
    pieces->text.bytes = 0;
    pieces->count = 0;
    ts_textbuf_append(&pieces->text, text, bytes);
    end_piece(pieces, bytes);
    for (size_t i = 0; i < count; i++) {
        apply(&steps[i], at_start, pieces, spare);
        struct ts_pieces keep = *pieces;
        *pieces = *spare;
        *spare = keep;
    }
}

void ts_pieces_fini(struct ts_pieces *pieces)
{
    ts_free(pieces->text.data);
    ts_free(pieces->ends);
    *pieces = (struct ts_pieces){0};
}
