#include "common/base/ts_mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"

static _Noreturn void memory_exhausted(size_t size)
{
    char text[96];
    int length = snprintf(text, sizeof text, "out of memory: %zu bytes were asked for\n", size);
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0) {
        abort();
    }
    abort();
}

void *ts_xmalloc(size_t size)
{
    void *ptr = malloc(size ? size : 1);
    if (!ptr) {
        memory_exhausted(size);
    }
    return ptr;
}

void *ts_xcalloc(size_t count, size_t size)
{
    /* calloc itself refuses a product that overflows. */
    void *ptr = count && size ? calloc(count, size) : calloc(1, 1);
    if (!ptr) {
        size_t total;
        memory_exhausted(__builtin_mul_overflow(count, size, &total) ? SIZE_MAX : total);
    }
    return ptr;
}

void *ts_xrealloc(void *ptr, size_t size)
{
    void *moved = realloc(ptr, size ? size : 1);
    if (!moved) {
        memory_exhausted(size);
    }
    return moved;
}

void *ts_xaligned(size_t align, size_t size)
{
    void *ptr = NULL;
    TS_ASSERT(align >= sizeof(void *) && (align & (align - 1)) == 0);
    if (posix_memalign(&ptr, align, size ? size : 1) != 0) {
        memory_exhausted(size);
    }
    return ptr;
}

char *ts_xstrdup(const char *text)
{
    return ts_xstrndup(text, strlen(text));
}

char *ts_xstrndup(const char *text, size_t length)
{
    length = strnlen(text, length);
    TS_ASSERT(length < SIZE_MAX);
    char *copy = ts_xmalloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *ts_xmemdup(const void *data, size_t size)
{
    TS_ASSERT(size < SIZE_MAX);
    char *copy = ts_xmalloc(size + 1);
    if (size > 0)
        memcpy(copy, data, size);
    copy[size] = '\0';
    return copy;
}

char *ts_xasprintf(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        memory_exhausted(strlen(format));
    }
    return text;
}

void ts_free(void *ptr)
{
    free(ptr);
}

void ts_array_reserve(void **items, size_t *capacity, size_t need, size_t item_size)
{
    if (need <= *capacity) {
        return;
    }
    size_t grown = *capacity ? *capacity : 8;
    while (grown < need) {
        grown = grown > SIZE_MAX / 2 ? need : grown * 2;
    }
    size_t bytes;
    if (__builtin_mul_overflow(grown, item_size, &bytes)) {
        memory_exhausted(SIZE_MAX);
    }
    *items = ts_xrealloc(*items, bytes);
    *capacity = grown;
}
