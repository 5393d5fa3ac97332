/* Devices of any kind. */
#include "gpu/cuda/ts_cuda.h"

void ts_cuda_close(struct ts_cuda **cuda)
{
    if (*cuda)
        (*cuda)->ops->close(*cuda);
    *cuda = NULL;
}

const char *ts_cuda_name(const struct ts_cuda *cuda)
{
    return cuda->name;
}

enum ts_status ts_cuda_alloc(struct ts_cuda *cuda, size_t bytes, ts_cuda_address *out, struct ts_error *err)
{
    *out = 0;
    return cuda->ops->alloc(cuda, bytes, out, err);
}

void ts_cuda_free(struct ts_cuda *cuda, ts_cuda_address *address)
{
    if (*address)
        cuda->ops->free(cuda, *address);
    *address = 0;
}

enum ts_status ts_cuda_clear(struct ts_cuda *cuda, ts_cuda_address at, size_t bytes, struct ts_error *err)
{
    return cuda->ops->clear(cuda, at, bytes, err);
}

enum ts_status ts_cuda_upload(struct ts_cuda *cuda, ts_cuda_address to, const void *from, size_t bytes,
                              struct ts_error *err)
{
    return cuda->ops->upload(cuda, to, from, bytes, err);
}

enum ts_status ts_cuda_download(struct ts_cuda *cuda, void *to, ts_cuda_address from, size_t bytes,
                                struct ts_error *err)
{
    return cuda->ops->download(cuda, to, from, bytes, err);
}

enum ts_status ts_cuda_wait(struct ts_cuda *cuda, struct ts_error *err)
{
    return cuda->ops->wait(cuda, err);
}

enum ts_status ts_cuda_launch(struct ts_cuda *cuda, const char *kernel, struct ts_cuda_dim grid,
                              struct ts_cuda_dim block, const void *args, size_t args_bytes,
                              struct ts_error *err)
{
    return cuda->ops->launch(cuda, kernel, grid, block, args, args_bytes, err);
}
