/* A configuration file of unknown origin: refused in one line, or settings within their ranges. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/core/ts_codec_spec.h"
#include "services/router/router_conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void); /* NOLINT: the sanitizer's name */

/* libconfig 1.5 loses the text of a string that no closing quote follows. */
const char *__lsan_default_suppressions(void) /* NOLINT */
{
    return "leak:libconfig";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    char *argv[] = {(char *)"ts-router", (char *)"--config", path, NULL};
    struct router_conf conf;
    struct ts_error err = {0};
    int fd = memfd_create("conf", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    switch (router_conf_load(3, argv, &conf, &err)) {
    case TS_CONF_RUN:
        if (conf.queue_max < 1 || conf.queue_max > 1000000 || conf.heartbeat_ms < 10 ||
            conf.heartbeat_ms > 60000 || ts_codec_check_option(conf.codec, &err) != TS_OK)
            abort();
        router_conf_free(&conf);
        break;
    case TS_CONF_ERROR:
        if (!*err.text || strchr(err.text, '\n'))
            abort();
        break;
    case TS_CONF_EXIT: /* no file asks for that */
        abort();
    }
    close(fd);
    return 0;
}
