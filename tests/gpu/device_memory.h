/* Memory of a device in tests: between guards, which must hold. A failure ends the test. Include cmocka
 * before. */
#ifndef TS_TESTS_GPU_DEVICE_MEMORY_H
#define TS_TESTS_GPU_DEVICE_MEMORY_H

#include <string.h>

#include "common/base/ts_mem.h"
#include "gpu/cuda/device/ts_cuda.h"

#define DEVICE_GUARD      256u
#define DEVICE_GUARD_BYTE 0x5a

static inline void device_ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

static inline void device_wait(struct ts_cuda *cuda)
{
    struct ts_error err = {0};
    device_ok(ts_cuda_wait(cuda, &err), &err);
}

/* `from` NULL: holds 0xa5. */
static inline ts_cuda_address device_new(struct ts_cuda *cuda, const void *from, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address at;
    uint8_t *all = ts_xmalloc(bytes + 2 * (size_t)DEVICE_GUARD);
    memset(all, DEVICE_GUARD_BYTE, bytes + 2 * (size_t)DEVICE_GUARD);
    if (from)
        memcpy(all + DEVICE_GUARD, from, bytes);
    else
        memset(all + DEVICE_GUARD, 0xa5, bytes);
    device_ok(ts_cuda_alloc(cuda, bytes + 2 * (size_t)DEVICE_GUARD, &at, &err), &err);
    device_ok(ts_cuda_upload(cuda, at, all, bytes + 2 * (size_t)DEVICE_GUARD, &err), &err);
    device_wait(cuda);
    ts_free(all);
    return at + DEVICE_GUARD;
}

static inline void device_read(struct ts_cuda *cuda, void *to, ts_cuda_address at, size_t bytes)
{
    struct ts_error err = {0};
    uint8_t *all = ts_xmalloc(bytes + 2 * (size_t)DEVICE_GUARD);
    device_ok(ts_cuda_download(cuda, all, at - DEVICE_GUARD, bytes + 2 * (size_t)DEVICE_GUARD, &err), &err);
    device_wait(cuda);
    for (size_t i = 0; i < DEVICE_GUARD; i++) {
        if (all[i] != DEVICE_GUARD_BYTE || all[DEVICE_GUARD + bytes + i] != DEVICE_GUARD_BYTE)
            fail_msg("bytes outside of an array of %zu are written", bytes);
    }
    memcpy(to, all + DEVICE_GUARD, bytes);
    ts_free(all);
}

static inline void device_free(struct ts_cuda *cuda, ts_cuda_address at)
{
    at -= DEVICE_GUARD;
    ts_cuda_free(cuda, &at);
}

#endif
