/* All kernels of gpu/cuda compiled for the CPU: one line for each *_host.cc. */
#include <stddef.h>
#include <string.h>

#include "gpu/cuda/host/kernel_host.h"

static const struct kernel_host_entry *const all[] = {
    codec_host_kernels, lossless_host_kernels, weights_host_kernels, skinny_host_kernels,
    gemv_host_kernels,  widen_host_kernels,    prefill_host_kernels, decode_host_kernels,
    rows_host_kernels,  sample_host_kernels,   tile_host_kernels,
};

const struct kernel_host_entry *kernel_host_find(const struct kernel_host_entry *kernels, const char *name)
{
    for (size_t i = 0; i < (kernels ? 1 : sizeof all / sizeof *all); i++) {
        for (const struct kernel_host_entry *k = kernels ? kernels : all[i]; k->name; k++) {
            if (strcmp(k->name, name) == 0)
                return k;
        }
    }
    return NULL;
}
