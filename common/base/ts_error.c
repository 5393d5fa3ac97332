#include "common/base/ts_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A text that comes from outside (a file name, a value) must not make two lines of one. */
static void keep_one_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ')
            *text = ' ';
    }
}

/* The arguments may point into err->text, so the new text is built aside. */
enum ts_status ts_error_set(struct ts_error *err, enum ts_status status, const char *format, ...)
{
    if (!err) {
        return status;
    }
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0) {
        text[0] = '\0';
    }
    keep_one_line(text);
    memcpy(err->text, text, strlen(text) + 1);
    err->status = status;
    return status;
}

enum ts_status ts_error_prefix(struct ts_error *err, const char *format, ...)
{
    if (!err) {
        return TS_OK;
    }
    char text[sizeof err->text];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0) {
        return err->status;
    }
    /* What does not fit is cut at its end: the context says more than the tail. */
    strncat(text, ": ", sizeof text - 1 - strlen(text));
    strncat(text, err->text, sizeof text - 1 - strlen(text));
    keep_one_line(text);
    memcpy(err->text, text, strlen(text) + 1);
    return err->status;
}
