#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/model/hf_impl.h"

/* Ids outside of the vocabulary can never be drawn and are passed over. */
static enum ts_status add_eos(struct ts_model *m, int64_t id, struct ts_error *err)
{
    if (id < 0 || id >= m->vocab)
        return TS_OK;
    for (uint32_t i = 0; i < m->eos_count; i++) {
        if (m->eos[i] == (uint32_t)id)
            return TS_OK;
    }
    if (m->eos_count == TS_MODEL_EOS_MAX)
        return ts_error_set(err, TS_ELIMIT, "eos_token_id: more than %d ids in all files", TS_MODEL_EOS_MAX);
    m->eos[m->eos_count++] = (uint32_t)id;
    return TS_OK;
}

/* eos_token_id is a number or a list. */
enum ts_status hf_read_eos(const struct ts_json *object, struct ts_model *model, struct ts_error *err)
{
    const struct ts_json *eos = ts_json_get(object, "eos_token_id");
    int64_t id;
    char words[64];
    if (ts_json_is_null(eos))
        return TS_OK;
    if (ts_json_integer(eos, &id))
        return add_eos(model, id, err);
    if (ts_json_type(eos) != TS_JSON_ARRAY)
        return ts_error_set(err, TS_EINVAL, "eos_token_id %s: expected a token id or a list of them",
                            ts_json_describe(eos, words, sizeof words));
    enum ts_status status = TS_OK;
    for (size_t i = 0; status == TS_OK && i < ts_json_count(eos); i++) {
        if (!ts_json_integer(ts_json_at(eos, i), &id))
            return ts_error_set(err, TS_EINVAL, "eos_token_id[%zu] %s is not a token id", i,
                                ts_json_describe(ts_json_at(eos, i), words, sizeof words));
        status = add_eos(model, id, err);
    }
    return status;
}

/* Whether the model means to sample (do_sample) is not asked, as in vLLM: a key that is there counts. */
enum ts_status hf_read_generation(const struct ts_json *generation, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_sampling *s = &hf->defaults;
    const struct {
        const char *key;
        float *to;
        uint32_t bit;
        double min, max;
    } numbers[] = {
        {"temperature", &s->temperature, TS_SAMPLING_TEMPERATURE, 0, 1000},
        {"top_p", &s->top_p, TS_SAMPLING_TOP_P, 1e-6, 1},
        {"min_p", &s->min_p, TS_SAMPLING_MIN_P, 0, 1},
        {"repetition_penalty", &s->repetition_penalty, TS_SAMPLING_REPETITION_PENALTY, 0.01, 100},
    };
    enum ts_status status = hf_read_eos(generation, &hf->model, err);
    for (size_t i = 0; status == TS_OK && i < TS_ARRAY_SIZE(numbers); i++) {
        double value = *numbers[i].to;
        status =
            hf_read_number(generation, numbers[i].key, numbers[i].min, numbers[i].max, false, &value, err);
        *numbers[i].to = (float)value;
        if (!ts_json_is_null(ts_json_get(generation, numbers[i].key)))
            s->given |= numbers[i].bit;
    }
    if (status == TS_OK)
        status = hf_read_u32(generation, "top_k", 0, 1 << 20, false, &s->top_k, err);
    if (!ts_json_is_null(ts_json_get(generation, "top_k")))
        s->given |= TS_SAMPLING_TOP_K;
    return status;
}

/* tokenizer_config.json names its eos_token by text; the id stands in added_tokens_decoder, where newer files
 * have it. Older files leave the id to config.json. */
enum ts_status hf_read_tokenizer_config(const struct ts_json *tokenizer, struct ts_hf *hf,
                                        struct ts_error *err)
{
    const struct ts_json *eos = ts_json_get(tokenizer, "eos_token");
    const char *text = ts_json_string(eos, NULL), *key;
    void *cursor = NULL;
    if (!text)
        text = ts_json_string(ts_json_get(eos, "content"), NULL);
    if (!text)
        return TS_OK;
    for (const struct ts_json *added;
         (added = ts_json_next(ts_json_get(tokenizer, "added_tokens_decoder"), &cursor, &key, NULL));) {
        const char *content = ts_json_string(ts_json_get(added, "content"), NULL);
        if (content && strcmp(content, text) == 0)
            return add_eos(&hf->model, strtoll(key, NULL, 10), err);
    }
    return TS_OK;
}
