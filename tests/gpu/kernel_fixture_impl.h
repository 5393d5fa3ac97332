/* Inside the tests of the codec's kernels: a device with a pool and a payload, and what is compared. */
#ifndef TS_TESTS_GPU_KERNEL_FIXTURE_IMPL_H
#define TS_TESTS_GPU_KERNEL_FIXTURE_IMPL_H

#include "gpu/cuda/codec/ts_cuda_codec.h"
#include "tests/gpu/codec_fixture.h"
#include "tests/gpu/kernel_fixture.h"

/* The pool and a payload of a fixture, in memory of the device. */
struct device {
    struct ts_cuda_codec_view view;
    ts_cuda_address payload, workspace;
    size_t capacity, workspace_bytes;
    uint8_t *bytes; /* what came back: guard, payload, guard */
    uint8_t *pool;  /* likewise */
};

struct variant {
    const char *codec; /* a preset, or keys of one and values of another: "lz16+i4h" */
    uint32_t head_dim;
    uint16_t group; /* 0 = as the preset has it */
    uint32_t raw_tokens;
};

void kernel_variant_init(struct fixture *f, struct device *d, const struct variant *v, enum ts_dtype dtype);
void kernel_device_init(struct device *d, const struct fixture *f); /* what kernel_variant_init calls */
void kernel_device_fini(struct device *d);

/* Encoded and restored here and there: the same bytes, and no other byte is touched. */
void kernel_check_both(struct device *d, struct fixture *f);
/* f->payload, `bytes` of it: both must say the same. Returns whether they refuse it. */
bool kernel_refused_alike(struct device *d, struct fixture *f, size_t bytes);

/* Each tile of the pool of another kind of numbers, special ones among them. */
void kernel_fill_kinds(struct fixture *f, uint64_t seed);

/* Cases of their tests for one codec: pieces of a sequence; launches of several layers; escaped tiles, a
 * share of 0 to 100 of all. */
void kernel_check_shapes(const struct variant *v, enum ts_dtype dtype);
void kernel_check_launch(const struct variant *v, uint32_t seed);
void kernel_check_escapes(const struct variant *v, uint32_t share, uint64_t seed);

#endif
