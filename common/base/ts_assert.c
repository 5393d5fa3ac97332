#include "common/base/ts_assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* No heap and no stdio stream: the fault may be in either. */
_Noreturn void ts_assert_failed(const char *cond, const char *file, int line)
{
    char text[512];
    int length = snprintf(text, sizeof text, "%s:%d: assertion failed: %s\n", file, line, cond);
    if (length >= (int)sizeof text) {
        length = (int)sizeof text - 1;
    }
    if (length > 0 && write(STDERR_FILENO, text, (size_t)length) < 0) {
        abort();
    }
    abort();
}
