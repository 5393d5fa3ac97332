/*
 * safetensors: u64 length of a JSON header, the header, then the data. The header gives each tensor a dtype,
 * a shape and a span of the data; the spans tile the data without hole or overlap.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/model/hf_impl.h"

#define HEADER_BYTES_MAX TS_JSON_BYTES_MAX
#define NAME_BYTES_MAX   512

/* One tensor's place in the data of its file. */
struct span {
    uint64_t begin, end;
    const char *name;
};

static enum ts_status parse_dtype(const struct ts_json *value, struct ts_hf_tensor *t, struct ts_error *err)
{
    static const struct {
        const char *name;
        enum ts_dtype dtype;
    } table[] = {{"F32", TS_DTYPE_F32}, {"F16", TS_DTYPE_F16}, {"BF16", TS_DTYPE_BF16}};
    const char *name = ts_json_string(value, NULL);
    char words[64];
    for (size_t i = 0; name && i < TS_ARRAY_SIZE(table); i++) {
        if (strcmp(name, table[i].name) == 0) {
            t->dtype = table[i].dtype;
            return TS_OK;
        }
    }
    return ts_error_set(err, TS_EUNSUPPORTED,
                        "tensor %s has dtype %s: expected F32, F16 or BF16; convert the model to one of them",
                        t->name, ts_json_describe(value, words, sizeof words));
}

static enum ts_status parse_shape(const struct ts_json *shape, struct ts_hf_tensor *t, struct ts_error *err)
{
    char words[128];
    uint64_t elements = 1;
    t->dims = (uint32_t)ts_json_count(shape);
    if (ts_json_type(shape) != TS_JSON_ARRAY || t->dims > 2)
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "tensor %s has shape %s: expected a list of at most 2 sizes", t->name,
                            ts_json_describe(shape, words, sizeof words));
    for (uint32_t i = 0; i < t->dims; i++) {
        int64_t n;
        if (!ts_json_integer(ts_json_at(shape, i), &n) || n < 0 ||
            __builtin_mul_overflow(elements, (uint64_t)n, &elements) || elements > (1ull << 60))
            return ts_error_set(err, TS_EINVAL, "tensor %s has shape %s: it is no size", t->name,
                                ts_json_describe(shape, words, sizeof words));
        t->shape[i] = (uint64_t)n;
    }
    return TS_OK;
}

static enum ts_status parse_span(const struct ts_json *offsets, uint64_t data_bytes,
                                 const struct ts_hf_tensor *t, struct span *span, struct ts_error *err)
{
    int64_t begin, end;
    char words[128];
    if (ts_json_count(offsets) != 2 || !ts_json_integer(ts_json_at(offsets, 0), &begin) ||
        !ts_json_integer(ts_json_at(offsets, 1), &end) || begin < 0 || end < begin)
        return ts_error_set(err, TS_EINVAL, "tensor %s: data_offsets %s are not a span", t->name,
                            ts_json_describe(offsets, words, sizeof words));
    if ((uint64_t)end > data_bytes)
        return ts_error_set(
            err, TS_EINVAL,
            "tensor %s ends at byte %lld of the data, but the file holds %llu: it is truncated, get it "
            "again",
            t->name, (long long)end, (unsigned long long)data_bytes);
    if ((uint64_t)(end - begin) != ts_hf_tensor_bytes(t))
        return ts_error_set(err, TS_EINVAL,
                            "tensor %s has %lld bytes, its shape and dtype need %llu: get the file again",
                            t->name, (long long)(end - begin), (unsigned long long)ts_hf_tensor_bytes(t));
    *span = (struct span){(uint64_t)begin, (uint64_t)end, t->name};
    return TS_OK;
}

static enum ts_status parse_tensor(const struct ts_json *value, const uint8_t *data, uint64_t data_bytes,
                                   struct ts_hf_tensor *t, struct span *span, struct ts_error *err)
{
    enum ts_status status = parse_dtype(ts_json_get(value, "dtype"), t, err);
    if (status == TS_OK)
        status = parse_shape(ts_json_get(value, "shape"), t, err);
    if (status == TS_OK)
        status = parse_span(ts_json_get(value, "data_offsets"), data_bytes, t, span, err);
    if (status == TS_OK)
        t->data = data + span->begin;
    return status;
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
    for (size_t i = 0; i < count; at = spans[i++].end) {
        if (spans[i].begin < at)
            return ts_error_set(err, TS_EINVAL, "tensors %s and %s overlap: get the file again",
                                spans[i - 1].name, spans[i].name);
        if (spans[i].begin > at)
            return ts_error_set(err, TS_EINVAL, "bytes %llu to %llu, before tensor %s, belong to no tensor",
                                (unsigned long long)at, (unsigned long long)spans[i].begin, spans[i].name);
    }
    if (at != data_bytes)
        return ts_error_set(err, TS_EINVAL, "%llu bytes at the end belong to no tensor",
                            (unsigned long long)(data_bytes - at));
    return TS_OK;
}

static enum ts_status read_tensors(const struct ts_json *header, const uint8_t *data, uint64_t data_bytes,
                                   struct ts_hf *hf, struct ts_error *err)
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
        if (strlen(name) > NAME_BYTES_MAX) {
            status = ts_error_set(err, TS_ELIMIT, "tensor %.64s...: its name has more than %d bytes", name,
                                  NAME_BYTES_MAX);
            break;
        }
        struct ts_hf_tensor *t = &hf->tensors[hf->tensor_count++];
        *t = (struct ts_hf_tensor){.name = ts_xstrdup(name), .file = (uint32_t)(hf->map_count - 1)};
        status = parse_tensor(value, data, data_bytes, t, &spans[added++], err);
    }
    if (status == TS_OK)
        status = check_spans(spans, added, data_bytes, err);
    ts_free(spans);
    return status;
}

enum ts_status hf_read_safetensors(struct ts_hf *hf, struct ts_error *err)
{
    const struct ts_hf_map *map = &hf->maps[hf->map_count - 1];
    struct ts_json *header = NULL;
    uint64_t header_bytes = 0;
    if (map->bytes >= 8)
        memcpy(&header_bytes, map->base, 8);
    if (map->bytes < 8 || header_bytes > map->bytes - 8)
        return ts_error_set(
            err, TS_EINVAL,
            "not a safetensors file, or truncated: its header claims %llu of %zu bytes; get it again",
            (unsigned long long)header_bytes, map->bytes);
    if (header_bytes > HEADER_BYTES_MAX)
        return ts_error_set(err, TS_ELIMIT,
                            "its header of %llu bytes is larger than %zu: not a file of this kind",
                            (unsigned long long)header_bytes, HEADER_BYTES_MAX);
    enum ts_status status =
        ts_json_parse((const char *)map->base + 8, header_bytes, "its header", &header, err);
    if (status == TS_OK && ts_json_type(header) != TS_JSON_OBJECT)
        status = ts_error_set(err, TS_EINVAL, "its header is not a JSON object");
    if (status == TS_OK)
        status = read_tensors(header, map->base + 8 + header_bytes, map->bytes - 8 - header_bytes, hf, err);
    ts_json_destroy(&header);
    return status;
}
