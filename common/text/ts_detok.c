#include "common/text/ts_detok.h"

#include "common/text/ts_tokenizer.h"
#include "common/text/ts_utf8.h"

void ts_detok_init(struct ts_detok *detok, const struct ts_piece_table *table, unsigned flags)
{
    bool begins = !(flags & TS_DECODE_CONTINUE);
    *detok = (struct ts_detok){.table = table,
                               .skip_special = flags & TS_DECODE_SKIP_SPECIAL,
                               .first = begins && table->strip_marks,
                               .strip_left = begins ? table->strip_count : 0};
}

static void emit(struct ts_detok *detok, const char *text, size_t bytes, struct ts_textbuf *out)
{
    while (bytes > 0 && detok->strip_left > 0) {
        if (*text != detok->table->strip) {
            detok->strip_left = 0;
            break;
        }
        detok->strip_left--;
        text++;
        bytes--;
    }
    ts_textbuf_append(out, text, bytes);
}

static void emit_bad(struct ts_detok *detok, size_t bytes, struct ts_textbuf *out)
{
    char text[4];
    size_t length = ts_utf8_put(TS_UTF8_REPLACEMENT, text);
    for (size_t i = 0; i < (detok->table->bad_each_byte ? bytes : 1); i++)
        emit(detok, text, length, out);
}

/* Adds one byte to what is held and lets go of all that is decided by it. */
static void push_byte(struct ts_detok *detok, char byte, struct ts_textbuf *out)
{
    detok->hold[detok->held++] = byte;
    while (detok->held > 0) {
        uint32_t code;
        size_t length = ts_utf8_next(detok->hold, detok->held, &code);
        if (code == TS_UTF8_CUT)
            return;
        if (code == TS_UTF8_BAD)
            emit_bad(detok, length, out);
        else
            emit(detok, detok->hold, length, out);
        detok->held -= length;
        memmove(detok->hold, detok->hold + length, detok->held);
    }
}

void ts_detok_flush(struct ts_detok *detok, struct ts_textbuf *out)
{
    if (detok->held > 0)
        emit_bad(detok, detok->held, out);
    detok->held = 0;
}

void ts_detok_push(struct ts_detok *detok, uint32_t id, struct ts_textbuf *out)
{
    const struct ts_piece_table *table = detok->table;
    const struct ts_piece *piece = id < table->count ? &table->pieces[id] : NULL;
    if (!piece || !(piece->flags & TS_PIECE_PRESENT) ||
        (detok->skip_special && (piece->flags & TS_PIECE_SPECIAL)))
        return;
    const char *text = table->text.data + piece->offset;
    if (piece->flags & TS_PIECE_BYTES) {
        for (size_t i = 0; i < piece->bytes; i++)
            push_byte(detok, text[i], out);
    } else {
        ts_detok_flush(detok, out);
        if (detok->first && (piece->flags & TS_PIECE_MARKED)) {
            for (size_t i = 0; i < piece->bytes; i++)
                if (text[i] != ' ')
                    emit(detok, text + i, 1, out);
        } else {
            emit(detok, text, piece->bytes, out);
        }
    }
    detok->first = false;
}
