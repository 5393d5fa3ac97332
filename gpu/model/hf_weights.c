#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "gpu/model/ts_hf.h"

#define HEADER_BYTES_MAX (100u << 20)
#define NAME_BYTES_MAX   512

struct ts_hf_map {
    void *base;
    size_t bytes;
};

/* One tensor's span in its file, to find overlaps and holes. */
struct span {
    uint64_t begin, end;
};

static enum ts_status map_file(const char *path, struct ts_hf *hf, struct ts_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        ts_error_set(err, TS_ENOTFOUND,
                     "cannot read %s: %s; a model folder has model.safetensors or shards with an index", path,
                     strerror(errno));
        if (fd >= 0)
            close(fd);
        return TS_ENOTFOUND;
    }
    void *base = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (base == MAP_FAILED)
        return ts_error_set(err, TS_EIO, "cannot map %s (%lld bytes): %s", path, (long long)st.st_size,
                            strerror(errno));
    size_t capacity = hf->map_count;
    ts_array_reserve((void **)&hf->maps, &capacity, hf->map_count + 1, sizeof *hf->maps);
    hf->maps[hf->map_count++] = (struct ts_hf_map){base, (size_t)st.st_size};
    return TS_OK;
}

static bool parse_dtype(const char *name, enum ts_dtype *out)
{
    static const struct {
        const char *name;
        enum ts_dtype dtype;
    } table[] = {{"F32", TS_DTYPE_F32}, {"F16", TS_DTYPE_F16}, {"BF16", TS_DTYPE_BF16}};
    for (size_t i = 0; name && i < TS_ARRAY_SIZE(table); i++) {
        if (strcmp(name, table[i].name) == 0) {
            *out = table[i].dtype;
            return true;
        }
    }
    return false;
}

static enum ts_status parse_shape(const struct ts_json *shape, struct ts_hf_tensor *t, uint64_t *elements,
                                  struct ts_error *err)
{
    *elements = 1;
    t->dims = (uint32_t)ts_json_count(shape);
    if (ts_json_type(shape) != TS_JSON_ARRAY || t->dims > 2)
        return ts_error_set(err, TS_EUNSUPPORTED, "tensor %s has %u dimensions: expected at most 2", t->name,
                            t->dims);
    for (uint32_t i = 0; i < t->dims; i++) {
        int64_t n;
        if (!ts_json_integer(ts_json_at(shape, i), &n) || n < 0 || n > (1ll << 40))
            return ts_error_set(err, TS_EINVAL, "tensor %s: shape[%u] is not a size", t->name, i);
        t->shape[i] = (uint64_t)n;
        if (__builtin_mul_overflow(*elements, t->shape[i], elements))
            return ts_error_set(err, TS_EINVAL, "tensor %s: its shape overflows", t->name);
    }
    return TS_OK;
}

static enum ts_status parse_tensor(const char *name, const struct ts_json *value, const struct ts_hf_map *map,
                                   uint64_t data_begin, struct ts_hf_tensor *t, struct span *span,
                                   struct ts_error *err)
{
    const struct ts_json *offsets = ts_json_get(value, "data_offsets");
    const char *dtype = ts_json_string(ts_json_get(value, "dtype"), NULL);
    int64_t begin, end;
    uint64_t elements;
    t->name = ts_xstrndup(name, NAME_BYTES_MAX);
    if (!parse_dtype(dtype, &t->dtype))
        return ts_error_set(err, TS_EUNSUPPORTED, "tensor %s has dtype %s: expected F32, F16 or BF16", name,
                            dtype ? dtype : "(none)");
    enum ts_status status = parse_shape(ts_json_get(value, "shape"), t, &elements, err);
    if (status != TS_OK)
        return status;
    if (!ts_json_integer(ts_json_at(offsets, 0), &begin) || !ts_json_integer(ts_json_at(offsets, 1), &end) ||
        begin < 0 || end < begin)
        return ts_error_set(err, TS_EINVAL, "tensor %s: data_offsets are not a span", name);
    if ((uint64_t)end > map->bytes - data_begin)
        return ts_error_set(
            err, TS_EINVAL,
            "tensor %s ends at byte %lld of the data, but the file holds %llu: it is truncated, get it again",
            name, (long long)end, (unsigned long long)(map->bytes - data_begin));
    if ((uint64_t)(end - begin) / ts_dtype_bytes(t->dtype) != elements ||
        (uint64_t)(end - begin) % ts_dtype_bytes(t->dtype) != 0)
        return ts_error_set(err, TS_EINVAL, "tensor %s: %lld bytes do not fit its shape and dtype", name,
                            (long long)(end - begin));
    t->data = (const uint8_t *)map->base + data_begin + begin;
    *span = (struct span){(uint64_t)begin, (uint64_t)end};
    return TS_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : (x->end > y->end) - (x->end < y->end);
}

static enum ts_status check_spans(struct span *spans, size_t count, uint64_t data_bytes, struct ts_error *err)
{
    uint64_t at = 0;
    qsort(spans, count, sizeof *spans, by_begin);
    for (size_t i = 0; i < count; i++) {
        if (spans[i].begin != at)
            return ts_error_set(err, TS_EINVAL, "tensors %s at byte %llu of the data",
                                spans[i].begin < at ? "overlap" : "leave a hole",
                                (unsigned long long)spans[i].begin);
        at = spans[i].end;
    }
    if (at != data_bytes)
        return ts_error_set(err, TS_EINVAL, "%llu bytes at the end belong to no tensor",
                            (unsigned long long)(data_bytes - at));
    return TS_OK;
}

static enum ts_status read_tensors(const struct ts_json *header, const struct ts_hf_map *map,
                                   uint64_t data_begin, struct ts_hf *hf, struct ts_error *err)
{
    size_t count = ts_json_count(header), added = 0;
    struct span *spans = ts_xcalloc(count + 1, sizeof *spans);
    void *cursor = NULL;
    const char *name;
    enum ts_status status = TS_OK;
    hf->tensors = ts_xrealloc(hf->tensors, (hf->tensor_count + count + 1) * sizeof *hf->tensors);
    for (const struct ts_json *value;
         status == TS_OK && (value = ts_json_next(header, &cursor, &name, NULL));) {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct ts_hf_tensor *t = &hf->tensors[hf->tensor_count++];
        *t = (struct ts_hf_tensor){.name = NULL};
        status = parse_tensor(name, value, map, data_begin, t, &spans[added++], err);
    }
    if (status == TS_OK)
        status = check_spans(spans, added, map->bytes - data_begin, err);
    ts_free(spans);
    return status;
}

static enum ts_status open_file(const char *path, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_json *header = NULL;
    enum ts_status status = map_file(path, hf, err);
    if (status != TS_OK)
        return status;
    const struct ts_hf_map *map = &hf->maps[hf->map_count - 1];
    uint64_t header_bytes = 0;
    if (map->bytes >= 8)
        memcpy(&header_bytes, map->base, 8);
    if (map->bytes < 8 || header_bytes > HEADER_BYTES_MAX || header_bytes > map->bytes - 8)
        return ts_error_set(
            err, TS_EINVAL,
            "%s: not a safetensors file, or truncated: its header claims %llu of %zu bytes; get it again",
            path, (unsigned long long)header_bytes, map->bytes);
    status = ts_json_parse((const char *)map->base + 8, header_bytes, path, &header, err);
    if (status == TS_OK)
        status = read_tensors(header, map, 8 + header_bytes, hf, err);
    ts_json_destroy(&header);
    if (status != TS_OK)
        ts_error_prefix(err, "%s", path);
    return status;
}

/* Opens each shard that the index names, once. */
static enum ts_status open_shards(const char *dir, const struct ts_json *index, struct ts_hf *hf,
                                  struct ts_error *err)
{
    const struct ts_json *weights = ts_json_get(index, "weight_map");
    const char *seen[1024], *name;
    size_t seen_count = 0;
    void *cursor = NULL;
    char path[8192];
    for (const struct ts_json *value; (value = ts_json_next(weights, &cursor, &name, NULL));) {
        const char *file = ts_json_string(value, NULL);
        size_t i = 0;
        if (!file || strchr(file, '/'))
            return ts_error_set(err, TS_EINVAL,
                                "model.safetensors.index.json: weight_map of %s is not a file of the folder",
                                name);
        while (i < seen_count && strcmp(seen[i], file) != 0)
            i++;
        if (i < seen_count)
            continue;
        if (seen_count == TS_ARRAY_SIZE(seen))
            return ts_error_set(err, TS_ELIMIT, "model.safetensors.index.json names more than %zu files",
                                TS_ARRAY_SIZE(seen));
        seen[seen_count++] = file;
        snprintf(path, sizeof path, "%s/%s", dir, file);
        enum ts_status status = open_file(path, hf, err);
        if (status != TS_OK)
            return status;
    }
    return seen_count ? TS_OK
                      : ts_error_set(err, TS_EINVAL, "model.safetensors.index.json: weight_map is empty");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ts_hf_tensor *)a)->name, ((const struct ts_hf_tensor *)b)->name);
}

enum ts_status ts_hf_map_weights(const char *dir, struct ts_hf *hf, struct ts_error *err)
{
    char path[4096];
    struct ts_json *index = NULL;
    enum ts_status status;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    if (access(path, F_OK) == 0) {
        status = ts_json_load(path, &index, err);
        if (status == TS_OK)
            status = open_shards(dir, index, hf, err);
        ts_json_destroy(&index);
    } else {
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        status = open_file(path, hf, err);
    }
    if (status != TS_OK)
        return status;
    qsort(hf->tensors, hf->tensor_count, sizeof *hf->tensors, by_name);
    for (size_t i = 1; i < hf->tensor_count; i++) {
        if (strcmp(hf->tensors[i - 1].name, hf->tensors[i].name) == 0)
            return ts_error_set(err, TS_EINVAL, "tensor %s stands in two shards", hf->tensors[i].name);
    }
    return TS_OK;
}

enum ts_status ts_hf_tensor(const struct ts_hf *hf, const char *name, uint64_t rows, uint64_t columns,
                            const struct ts_hf_tensor **out, struct ts_error *err)
{
    struct ts_hf_tensor key = {.name = (char *)(uintptr_t)name};
    const struct ts_hf_tensor *t = bsearch(&key, hf->tensors, hf->tensor_count, sizeof *hf->tensors, by_name);
    if (!t)
        return ts_error_set(err, TS_ENOTFOUND, "the weights have no tensor %s", name);
    if (t->shape[0] != rows || t->dims != (columns ? 2u : 1u) || (columns && t->shape[1] != columns))
        return ts_error_set(err, TS_EINVAL,
                            "tensor %s has shape [%llu, %llu], config.json asks for [%llu, %llu]", name,
                            (unsigned long long)t->shape[0], (unsigned long long)t->shape[1],
                            (unsigned long long)rows, (unsigned long long)columns);
    *out = t;
    return TS_OK;
}

/* fp16 bits to fp32, exact. */
static float widen_f16(uint16_t bits)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint32_t exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
    if (exponent == 0) {
        v.f = (float)fraction * 0x1p-24f;
        v.u |= (uint32_t)(bits & 0x8000) << 16;
        return v.f;
    }
    v.u = (uint32_t)(bits & 0x8000) << 16 | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) |
          fraction << 13;
    return v.f;
}

float ts_hf_element(const struct ts_hf_tensor *tensor, uint64_t index)
{
    union {
        uint32_t u;
        float f;
    } v;
    uint16_t half;
    if (tensor->dtype == TS_DTYPE_F32) {
        memcpy(&v.u, tensor->data + index * 4, 4);
        return v.f;
    }
    memcpy(&half, tensor->data + index * 2, 2);
    v.u = (uint32_t)half << 16;
    return tensor->dtype == TS_DTYPE_BF16 ? v.f : widen_f16(half);
}

static uint64_t fingerprint(const struct ts_hf *hf)
{
    const struct ts_model *m = &hf->model;
    uint64_t words[] = {m->layers,    m->hidden,   m->intermediate, m->heads,         m->kv_heads,
                        m->head_dim,  m->vocab,    m->kv_dtype,     m->weight_dtype,  hf->rope.kind,
                        hf->qkv_bias, hf->qk_norm, hf->tied,        m->sliding_window};
    double numbers[] = {hf->rope.theta, hf->rope.factor, hf->rope.original_context, hf->rms_eps};
    uint64_t hash = ts_hash64(words, sizeof words, 1);
    hash = ts_hash64(numbers, sizeof numbers, hash);
    for (size_t i = 0; i < hf->tensor_count;
         i++) { /* names, and the first bytes of each tensor, so that a fine-tune differs */
        const struct ts_hf_tensor *t = &hf->tensors[i];
        uint64_t bytes = ts_dtype_bytes(t->dtype) * t->shape[0] * (t->dims == 2 ? t->shape[1] : 1);
        hash = ts_hash64(t->name, strlen(t->name), hash);
        hash = ts_hash64(t->data, bytes < 4096 ? bytes : 4096, hash);
    }
    return hash;
}

enum ts_status ts_hf_open(const char *dir, struct ts_hf **out, struct ts_error *err)
{
    struct ts_hf *hf = ts_xcalloc(1, sizeof *hf);
    enum ts_status status = ts_hf_read_config(dir, hf, err);
    if (status == TS_OK)
        status = ts_hf_map_weights(dir, hf, err);
    if (status != TS_OK) {
        ts_hf_close(&hf);
        return status;
    }
    const struct ts_hf_tensor *head;
    if (ts_hf_tensor(hf, "lm_head.weight", hf->model.vocab, hf->model.hidden, &head, NULL) == TS_ENOTFOUND)
        hf->tied = true; /* a missing lm_head means tied, whatever the config says */
    const char *slash = strrchr(dir, '/');
    snprintf(hf->model.name, sizeof hf->model.name, "%.100s", slash && slash[1] ? slash + 1 : dir);
    hf->model.fingerprint = fingerprint(hf);
    *out = hf;
    return TS_OK;
}

void ts_hf_close(struct ts_hf **hf)
{
    struct ts_hf *h = *hf;
    if (!h)
        return;
    for (size_t i = 0; i < h->tensor_count; i++)
        ts_free(h->tensors[i].name);
    for (size_t i = 0; i < h->map_count; i++)
        munmap(h->maps[i].base, h->maps[i].bytes);
    ts_free(h->tensors);
    ts_free(h->maps);
    ts_free(h);
    *hf = NULL;
}
