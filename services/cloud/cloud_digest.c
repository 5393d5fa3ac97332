#include "services/cloud/cloud_impl.h"

#include <string.h>

#include "common/base/ts_hash.h"

uint64_t digest_mix(uint64_t digest, uint64_t word)
{
    return ts_splitmix64(digest ^ ts_splitmix64(word));
}

static uint64_t number_at(const void *at, size_t bytes)
{
    uint64_t word = 0;
    memcpy(&word, at, bytes);
    return word;
}

static uint64_t digest_list(uint64_t digest, const struct ts_field *field, const void *at)
{
    struct ts_list list;
    memcpy(&list, at, sizeof list);
    digest = digest_mix(digest, list.count);
    if (list.count == 0)
        return digest;
    size_t size = field->type == TS_FIELD_U32S ? 4 : field->type == TS_FIELD_U64S ? 8 : 1;
    if (field->type != TS_FIELD_MSGS)
        return digest_mix(digest, ts_hash64(list.data, size * list.count, 0));
    for (uint32_t i = 0; i < list.count; i++)
        digest = digest_struct(digest, field->sub, (const char *)list.data + (size_t)i * field->sub->size);
    return digest;
}

uint64_t digest_struct(uint64_t digest, const struct ts_schema *schema, const void *value)
{
    uint64_t kind = schema->one_of ? number_at(value, 4) : 0;
    digest = digest_mix(digest, kind);
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        const void *at = (const char *)value + field->offset;
        if (field->when && field->when != kind)
            continue;
        switch (field->type) {
        case TS_FIELD_BOOL:
            digest = digest_mix(digest, *(const bool *)at);
            break;
        case TS_FIELD_U32:
        case TS_FIELD_F32:
        case TS_FIELD_ENUM:
            digest = digest_mix(digest, number_at(at, 4));
            break;
        case TS_FIELD_U64:
        case TS_FIELD_I64:
        case TS_FIELD_F64:
            digest = digest_mix(digest, number_at(at, 8));
            break;
        case TS_FIELD_MSG:
            digest = digest_struct(digest, field->sub, at);
            break;
        default:
            digest = digest_list(digest, field, at);
        }
    }
    return digest;
}
