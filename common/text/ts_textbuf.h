/* Growing byte and id buffers of this folder. Zero is empty; the owner frees `data` (ts_free). */
#ifndef TS_TEXT_TEXTBUF_H
#define TS_TEXT_TEXTBUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/ts_mem.h"

struct ts_textbuf {
    char *data;
    size_t bytes, capacity;
};

struct ts_idbuf {
    uint32_t *data;
    size_t count, capacity;
};

static inline void ts_textbuf_append(struct ts_textbuf *buf, const char *text, size_t bytes)
{
    ts_array_reserve((void **)&buf->data, &buf->capacity, buf->bytes + bytes + 1,
                     1); /* room for a terminator */
    if (bytes)
        memcpy(buf->data + buf->bytes, text, bytes);
    buf->bytes += bytes;
}

static inline void ts_idbuf_append(struct ts_idbuf *buf, uint32_t id)
{
    ts_array_reserve((void **)&buf->data, &buf->capacity, buf->count + 1, sizeof *buf->data);
    buf->data[buf->count++] = id;
}

#endif
