/*
 * Host memory. Exhaustion aborts: a process restarts and its requests are routed elsewhere, which is simpler
 * and safer than unwinding from every call. Device memory is different: it is a scheduled resource, see
 * TS_ENOMEM.
 */
#ifndef TS_BASE_MEM_H
#define TS_BASE_MEM_H

#include <stddef.h>

void *ts_xmalloc(size_t size);
void *ts_xcalloc(size_t count, size_t size); /* zeroed; count * size is checked for overflow */
void *ts_xrealloc(void *ptr, size_t size);
void *ts_xaligned(size_t align, size_t size); /* release with ts_free */
char *ts_xstrdup(const char *text);
char *ts_xstrndup(const char *text, size_t length); /* to the first NUL, if one comes before */
char *ts_xmemdup(const void *data, size_t size);    /* all of it, and a NUL after it */
char *ts_xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ts_free(void *ptr);

/* Grows a heap array so that it holds at least `need` items; doubles. `*items` may be NULL with `*capacity`
 * 0. */
void ts_array_reserve(void **items, size_t *capacity, size_t need, size_t item_size);

#endif
