#include "gpu/sim/ts_sim_model.h"

#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_hash.h"
#include "common/text/ts_json.h"

static const struct {
    const char *key;
    size_t offset;
    double fallback;
} numbers[] = {
    {"step_ns", offsetof(struct ts_sim_costs, step), 200000},
    {"prefill_token_ns", offsetof(struct ts_sim_costs, prefill_token), 20000},
    {"prefill_token2_ns", offsetof(struct ts_sim_costs, prefill_token2), 2},
    {"decode_row_ns", offsetof(struct ts_sim_costs, decode_row), 20000},
    {"decode_context_ns", offsetof(struct ts_sim_costs, decode_context), 20},
};

static const struct {
    const char *key;
    size_t offset;
    uint32_t fallback, max;
} shapes[] = {
    {"layers", offsetof(struct ts_model, layers), 4, TS_MODEL_LAYERS_MAX},
    {"hidden", offsetof(struct ts_model, hidden), 256, 1u << 20},
    {"heads", offsetof(struct ts_model, heads), 4, 4096},
    {"kv_heads", offsetof(struct ts_model, kv_heads), 2, 4096},
    {"head_dim", offsetof(struct ts_model, head_dim), 64, 512},
    {"vocab", offsetof(struct ts_model, vocab), 1024, 1u << 22},
    {"context_tokens", offsetof(struct ts_model, context_tokens), 4096, 1u << 20},
};

static enum ts_status read_conf(const struct ts_json *doc, struct ts_sim_model *out, struct ts_error *err)
{
    struct ts_model *m = &out->model;
    enum ts_status status = TS_OK;
    for (size_t i = 0; i < TS_ARRAY_SIZE(numbers) && status == TS_OK; i++) {
        void *place = (char *)&out->costs + numbers[i].offset;
        double *at = place;
        *at = numbers[i].fallback;
        if (!ts_json_is_null(ts_json_get(doc, numbers[i].key)))
            status = ts_json_read_number(doc, numbers[i].key, 0, 1e12, at, err);
    }
    for (size_t i = 0; i < TS_ARRAY_SIZE(shapes) && status == TS_OK; i++) {
        uint32_t *at = (uint32_t *)((char *)m + shapes[i].offset);
        int64_t value = shapes[i].fallback;
        if (!ts_json_is_null(ts_json_get(doc, shapes[i].key)))
            status = ts_json_read_integer(doc, shapes[i].key, 1, shapes[i].max, &value, err);
        *at = (uint32_t)value;
    }
    m->intermediate = 4 * m->hidden;
    m->weight_dtype = m->kv_dtype = TS_DTYPE_BF16;
    m->fingerprint = ts_hash64(m, offsetof(struct ts_model, fingerprint), 1) ^ m->layers << 8 ^ m->vocab;
    strcpy(m->name, "modelled");
    return status;
}

enum ts_status ts_sim_model_load(const char *path, struct ts_sim_model *out, struct ts_error *err)
{
    struct ts_json *doc = NULL;
    enum ts_status status = TS_OK;
    *out = (struct ts_sim_model){.model = {.layers = 0}};
    if (path && *path)
        status = ts_json_load(path, &doc, err);
    if (status == TS_OK)
        status = read_conf(doc, out, err);
    ts_json_destroy(&doc);
    return status;
}

double ts_sim_row_ns(const struct ts_sim_costs *costs, uint32_t position, uint32_t token_count)
{
    double n = token_count, context = position + n;
    return token_count > 1 ? n * costs->prefill_token + n * context * costs->prefill_token2
                           : costs->decode_row + context * costs->decode_context;
}
