#include "gpu/engine/engine_pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

uint64_t engine_pool_block_bytes(const struct ts_engine_info *info)
{
    const struct ts_shard *s = &info->shard;
    return (uint64_t)ts_model_kv_layer_block_bytes(&info->model, s->head_end - s->head_begin) *
           (s->layer_end - s->layer_begin);
}

enum ts_status engine_pool_size(struct ts_engine_info *info, uint64_t blocks, uint64_t bytes,
                                struct ts_error *err)
{
    uint64_t block = engine_pool_block_bytes(info);
    if (blocks == 0)
        blocks = bytes / block;
    if (blocks == 0 || blocks > UINT32_MAX / 2)
        return ts_error_set(err, TS_EINVAL, "a KV pool of %llu bytes holds no block of %llu: raise it",
                            (unsigned long long)bytes, (unsigned long long)block);
    info->kv_blocks = (uint32_t)blocks;
    info->pool_bytes = blocks * block;
    return TS_OK;
}

/* Memory is taken page by page as KV comes, so that too large a pool would be noticed by a signal, hours
 * later. */
static enum ts_status fits_here(uint64_t bytes, struct ts_error *err)
{
    uint64_t here = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes <= here)
        return TS_OK;
    return ts_error_set(err, TS_EINVAL,
                        "the KV pool needs %llu MiB, and this machine has %llu: lower kv_cache_mib",
                        (unsigned long long)(bytes >> 20), (unsigned long long)(here >> 20));
}

enum ts_status engine_pool_map(struct ts_engine_info *info, uint64_t pool_bytes, struct ts_error *err)
{
    info->file_bytes = pool_bytes + info->kv_blocks * sizeof *info->generations;
    if (fits_here(info->file_bytes, err) != TS_OK)
        return TS_EINVAL;
    info->pool_fd = memfd_create("thunderserve-kv", MFD_CLOEXEC);
    if (info->pool_fd < 0 || ftruncate(info->pool_fd, (off_t)info->file_bytes) != 0)
        return ts_error_set(err, TS_EIO, "cannot make a KV pool of %llu bytes: %s; lower kv_cache_mib",
                            (unsigned long long)info->file_bytes, strerror(errno));
    void *base = mmap(NULL, info->file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, info->pool_fd, 0);
    if (base == MAP_FAILED)
        return ts_error_set(err, TS_EIO, "cannot map a KV pool of %llu bytes: %s",
                            (unsigned long long)info->file_bytes, strerror(errno));
    info->pool = pool_bytes > 0 ? base : NULL;
    info->generations = (uint32_t *)(void *)((char *)base + pool_bytes);
    return TS_OK;
}

void engine_pool_unmap(struct ts_engine_info *info)
{
    if (info->generations)
        munmap(info->pool ? info->pool : (void *)info->generations, info->file_bytes);
    if (info->pool_fd >= 0)
        close(info->pool_fd);
}
