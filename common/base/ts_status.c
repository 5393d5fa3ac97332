#include "common/base/ts_status.h"

static const char *const status_names[TS_STATUS_COUNT] = {
    [TS_OK] = "ok",
    [TS_EINVAL] = "invalid",
    [TS_ENOTFOUND] = "not_found",
    [TS_EIO] = "io",
    [TS_ENOMEM] = "no_memory",
    [TS_EAGAIN] = "again",
    [TS_EUNSUPPORTED] = "unsupported",
    [TS_ECORRUPT] = "corrupt",
    [TS_ETIMEOUT] = "timeout",
    [TS_ECLOSED] = "closed",
    [TS_ELIMIT] = "limit",
};

const char *ts_status_name(enum ts_status status)
{
    if ((unsigned)status >= TS_STATUS_COUNT) {
        return "unknown";
    }
    return status_names[status];
}
