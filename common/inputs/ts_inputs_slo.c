#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_cost.h"
#include "common/core/ts_plan.h"
#include "common/inputs/ts_inputs_catalogue.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/inputs/ts_slo.h"
#include "common/run/ts_conf_text.h"
#include "common/run/ts_conf_tree.h"

#define WORD_BYTES TS_CLUSTER_NAME_BYTES

/* The keys of a text and of a file, as words; empty = not given. */
enum slo_key { SLO_TTFT, SLO_TPOT, SLO_E2E, SLO_SCALE, SLO_REFERENCE, SLO_TP, SLO_KEYS };

static const char *const key_names[SLO_KEYS] = {"ttft", "tpot", "e2e", "scale", "reference", "tp"};

struct ts_slo {
    char *where; /* for errors: the text, or the file */
    char words[SLO_KEYS][WORD_BYTES];
    double deadline_s[3]; /* ttft, tpot, e2e; 0 = none */
    double scale;         /* 0 = none */
    uint32_t tp;
    const struct ts_device_type *device; /* of the reference; NULL without a scale */
    struct ts_model model;
};

/* --- Words --- */

static enum ts_status split_text(const char *text, struct ts_slo *slo, struct ts_error *err)
{
    char *copy = ts_xstrdup(text), *save = NULL;
    enum ts_status status = TS_OK;
    for (char *item = strtok_r(copy, ",", &save); item && status == TS_OK;
         item = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(item, '=');
        item += strspn(item, " ");
        if (equals)
            *equals = '\0';
        struct ts_nearest nearest = ts_nearest_to(item);
        for (int i = 0; i < SLO_KEYS; i++)
            ts_nearest_offer(&nearest, key_names[i]);
        int key = 0;
        while (key < SLO_KEYS && strcmp(key_names[key], item) != 0)
            key++;
        if (key == SLO_KEYS)
            status = ts_error_set(err, TS_EINVAL,
                                  "%.200s: unknown key \"%.40s\"%s%s; keys are ttft, tpot, e2e, "
                                  "scale, reference, tp",
                                  slo->where, item, nearest.best ? "; did you mean " : "",
                                  nearest.best ? nearest.best : "");
        else if (!equals || !equals[1] || strlen(equals + 1) >= WORD_BYTES || *slo->words[key])
            status = ts_error_set(err, TS_EINVAL, "%.200s: %s: expected %s=VALUE, once", slo->where,
                                  key_names[key], key_names[key]);
        else
            snprintf(slo->words[key], WORD_BYTES, "%s", equals + 1);
    }
    ts_free(copy);
    return status;
}

struct file_row {
    char words[SLO_KEYS][WORD_BYTES];
    double scale;
    uint32_t tp;
};

static enum ts_status read_file(const char *path, struct ts_slo *slo, struct ts_error *err)
{
#define WORD(key)                                                                                            \
    {                                                                                                        \
        .name = key_names[key], TS_FIELD_TEXT, offsetof(struct file_row, words[key]), .size = WORD_BYTES     \
    }
    const struct ts_field fields[] = {
        WORD(SLO_TTFT),
        WORD(SLO_TPOT),
        WORD(SLO_E2E),
        WORD(SLO_REFERENCE),
        {.name = key_names[SLO_SCALE],
         TS_FIELD_F64,
         offsetof(struct file_row, scale),
         .min = 0.01,
         .max = 1e6},
        {.name = key_names[SLO_TP], TS_FIELD_U32, offsetof(struct file_row, tp), .min = 1, .max = TS_TP_MAX},
    };
#undef WORD
    struct ts_conf_tree *tree = NULL;
    struct file_row row = {.tp = 0};
    enum ts_status status = ts_conf_tree_load(path, &tree, err);
    if (status == TS_OK)
        status = ts_conf_node_fill(ts_conf_tree_root(tree), fields, TS_ARRAY_SIZE(fields), &row, err);
    ts_conf_tree_destroy(&tree);
    memcpy(slo->words, row.words, sizeof slo->words);
    if (row.scale > 0)
        snprintf(slo->words[SLO_SCALE], WORD_BYTES, "%.17g", row.scale);
    if (row.tp > 0)
        snprintf(slo->words[SLO_TP], WORD_BYTES, "%u", row.tp);
    return status;
}

/* --- Values --- */

static enum ts_status bad_word(const struct ts_slo *slo, enum slo_key key, const char *expected,
                               struct ts_error *err)
{
    return ts_error_set(err, TS_EINVAL, "%.200s: %s = %s: expected %s", slo->where, key_names[key],
                        slo->words[key], expected);
}

static bool read_number(const char *word, double *out, const char **rest)
{
    char *end;
    errno = 0;
    *out = strtod(word, &end);
    *rest = end;
    return end != word && !errno && isfinite(*out);
}

static enum ts_status read_deadline(struct ts_slo *slo, enum slo_key key, struct ts_error *err)
{
    const char *unit;
    double value;
    if (!*slo->words[key])
        return TS_OK;
    bool good = read_number(slo->words[key], &value, &unit);
    unit += strspn(unit, " ");
    if (strcmp(unit, "ms") == 0)
        value *= 1e-3;
    else
        good = good && strcmp(unit, "s") == 0;
    if (!good || !(value > 0 && value <= 1e6))
        return bad_word(slo, key, "a time above 0 with its unit, as 500ms or 10s", err);
    slo->deadline_s[key] = value;
    return TS_OK;
}

static enum ts_status read_words(struct ts_slo *slo, struct ts_error *err)
{
    const char *rest;
    double tp = 1;
    for (enum slo_key key = SLO_TTFT; key <= SLO_E2E; key++) {
        if (read_deadline(slo, key, err) != TS_OK)
            return TS_EINVAL;
    }
    if (*slo->words[SLO_SCALE] && (!read_number(slo->words[SLO_SCALE], &slo->scale, &rest) || *rest ||
                                   !(slo->scale >= 0.01 && slo->scale <= 1e6)))
        return bad_word(slo, SLO_SCALE, "a number from 0.01 to 1000000", err);
    if (*slo->words[SLO_TP] &&
        (!read_number(slo->words[SLO_TP], &tp, &rest) || *rest || (tp != 1 && tp != 2 && tp != 4 && tp != 8)))
        return bad_word(slo, SLO_TP, "1, 2, 4 or 8", err);
    slo->tp = (uint32_t)tp;
    if ((slo->scale > 0) != (*slo->words[SLO_REFERENCE] != 0))
        return ts_error_set(err, TS_EINVAL,
                            "%.200s: scale and reference go together: scale=5,reference=A100-80G",
                            slo->where);
    if (slo->scale == 0 && slo->deadline_s[0] + slo->deadline_s[1] + slo->deadline_s[2] == 0)
        return ts_error_set(err, TS_EINVAL,
                            "\"%.200s\" sets no deadline: give ttft, tpot or e2e, or scale and "
                            "reference",
                            slo->where);
    return TS_OK;
}

/* --- What the reference takes --- */

struct reference {
    const struct ts_device_type *device;
    const struct ts_model *model;
    uint32_t tp, stages;
};

/* The least number of stages in which weights and the KV cache of one request fit. */
static enum ts_status find_stages(struct reference *r, double tokens, struct ts_error *err)
{
    double usable = ts_cost_usable_bytes(r->device);
    double layer =
        ts_cost_layer_weight_bytes(r->model) / r->tp + tokens * ts_cost_kv_layer_token_bytes(r->model, r->tp);
    double head = ts_cost_head_weight_bytes(r->model) / r->tp;
    uint32_t most = r->model->layers < TS_STAGES_MAX ? r->model->layers : TS_STAGES_MAX;
    for (r->stages = 1; r->stages <= most; r->stages++) {
        if (ceil((double)r->model->layers / r->stages) * layer + head <= usable)
            return TS_OK;
    }
    return ts_error_set(
        err, TS_EINVAL,
        "reference %s with tp = %u: %s does not fit into %u stages of it; take a larger device or a "
        "higher tp",
        r->device->name, r->tp, r->model->name, most);
}

/* One pass over `tokens` rows, alone: all layers, the head for one row, and what stages add. */
static double pass_s(const struct reference *r, double layer_s, double tokens)
{
    double hop = ts_cost_send_s(&r->device->peer, ts_cost_hop_bytes(r->model, tokens));
    return r->model->layers * layer_s + ts_cost_head_s(r->device, r->model, r->tp, 1) +
           r->stages * ts_cost_step_s(r->device) + (r->stages > 1 ? (r->stages - 1) * hop : 0);
}

/* Of one request on the reference, times the scale. */
static enum ts_status set_scaled(const struct ts_slo *slo, double prompt, double output,
                                 struct ts_deadlines *out, struct ts_error *err)
{
    struct reference r = {.device = slo->device, .model = &slo->model, .tp = slo->tp};
    const struct ts_link *peer = &r.device->peer;
    enum ts_status status = find_stages(&r, prompt + output, err);
    if (status != TS_OK)
        return status;
    double ttft =
        pass_s(&r, ts_cost_layer_prefill_s(r.device, r.model, peer, r.tp, prompt, prompt * prompt), prompt);
    double step =
        pass_s(&r, ts_cost_layer_decode_s(r.device, r.model, peer, r.tp, 1, prompt + output / 2), 1);
    if (!isfinite(ttft + step))
        return ts_error_set(err, TS_EINVAL,
                            "reference %s: the catalogue gives it no peer link, so it can stand only alone",
                            r.device->name);
    out->ttft_s = slo->scale * ttft;
    out->tpot_s = slo->scale * step;
    out->e2e_s = slo->scale * (ttft + (output > 1 ? output - 1 : 0) * step);
    return TS_OK;
}

static enum ts_status find_reference(struct ts_slo *slo, const struct ts_catalogue *catalogue,
                                     struct ts_error *err)
{
    const char *name = slo->words[SLO_REFERENCE];
    slo->device = ts_catalogue_device(catalogue, name);
    if (!slo->device) {
        const char *nearest = inputs_catalogue_nearest_device(catalogue, name);
        return ts_error_set(err, TS_EINVAL, "%.200s: reference = %s: the catalogue has no such device%s%s",
                            slo->where, name, nearest ? "; did you mean " : "", nearest ? nearest : "");
    }
    if (slo->model.heads % slo->tp != 0)
        return bad_word(slo, SLO_TP, "a divisor of the model's heads", err);
    return TS_OK;
}

/* --- Opening, and use --- */

enum ts_status ts_slo_open(const struct ts_catalogue *catalogue, const char *conf_dir, const char *text,
                           const struct ts_model *model, struct ts_slo **out, struct ts_error *err)
{
    struct ts_slo *slo = ts_xcalloc(1, sizeof *slo);
    enum ts_status status = TS_OK;
    slo->model = *model;
    if (strchr(text, '=')) {
        slo->where = ts_xstrdup(text);
        status = split_text(text, slo, err);
    } else {
        status = inputs_find(conf_dir, "slo", text, &slo->where, err);
        if (status == TS_OK)
            status = read_file(slo->where, slo, err);
    }
    if (status == TS_OK)
        status = read_words(slo, err);
    if (status == TS_OK && slo->scale > 0)
        status = find_reference(slo, catalogue, err);
    if (status != TS_OK)
        ts_slo_close(&slo);
    *out = slo;
    return status;
}

void ts_slo_close(struct ts_slo **slo)
{
    if (*slo)
        ts_free((*slo)->where);
    ts_free(*slo);
    *slo = NULL;
}

double ts_slo_scale(const struct ts_slo *slo)
{
    return slo->scale > 0 ? slo->scale : 1;
}

enum ts_status ts_slo_of(const struct ts_slo *slo, double prompt_tokens, double output_tokens,
                         struct ts_deadlines *out, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    *out = (struct ts_deadlines){.ttft_s = 0};
    if (slo->scale > 0)
        status = set_scaled(slo, prompt_tokens, output_tokens, out, err);
    double *const into[] = {&out->ttft_s, &out->tpot_s, &out->e2e_s};
    for (size_t i = 0; i < TS_ARRAY_SIZE(into); i++) {
        if (slo->deadline_s[i] > 0) /* as given beats the scale */
            *into[i] = slo->deadline_s[i];
    }
    return status;
}

enum ts_status ts_inputs_slo(const struct ts_catalogue *catalogue, const char *conf_dir, const char *text,
                             const struct ts_model *model, struct ts_demand *demand, struct ts_error *err)
{
    struct ts_slo *slo = NULL;
    enum ts_status status = ts_slo_open(catalogue, conf_dir, text, model, &slo, err);
    for (uint32_t k = 0; k < demand->class_count && status == TS_OK; k++) {
        struct ts_class *c = &demand->classes[k];
        struct ts_deadlines d;
        status = ts_slo_of(slo, c->prompt_tokens, c->output_tokens, &d, err);
        if (d.ttft_s > 0)
            c->ttft_s = d.ttft_s;
        if (d.tpot_s > 0)
            c->tpot_s = d.tpot_s;
        if (d.e2e_s > 0)
            c->e2e_s = d.e2e_s;
    }
    ts_slo_close(&slo);
    return status;
}
