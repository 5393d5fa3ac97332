#include <math.h>
#include <string.h>

#include "gpu/model/hf_impl.h"

static enum ts_status read_llama3(const struct ts_json *scaling, struct ts_rope *rope, struct ts_error *err)
{
    enum ts_status status =
        hf_read_number(scaling, "low_freq_factor", 1e-6, 1e6, true, &rope->low_freq_factor, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "high_freq_factor", 1e-6, 1e6, true, &rope->high_freq_factor, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "original_max_position_embeddings", 1, HF_CONTEXT_MAX, true,
                                &rope->original_context, err);
    if (status == TS_OK && rope->high_freq_factor <= rope->low_freq_factor)
        return ts_error_set(err, TS_EINVAL, "rope: high_freq_factor %g must exceed low_freq_factor %g",
                            rope->high_freq_factor, rope->low_freq_factor);
    return status;
}

static enum ts_status read_yarn(const struct ts_json *scaling, struct ts_rope *rope, struct ts_error *err)
{
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->truncate = true;
    enum ts_status status = hf_read_number(scaling, "beta_fast", 1e-6, 1e6, false, &rope->beta_fast, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "beta_slow", 1e-6, 1e6, false, &rope->beta_slow, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "attention_factor", 1e-6, 1e6, false, &rope->attention_factor, err);
    if (status == TS_OK)
        status = hf_read_bool(scaling, "truncate", &rope->truncate, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "original_max_position_embeddings", 1, HF_CONTEXT_MAX, false,
                                &rope->original_context, err);
    return status;
}

/* The words of `rope_type`, or of `type` in older files; absent means default in rope_parameters only. */
static enum ts_status read_type(const struct ts_json *scaling, bool newer, const char **type,
                                struct ts_error *err)
{
    const char *name = NULL, *older = NULL;
    enum ts_status status = hf_read_string(scaling, "rope_type", &name, err);
    if (status == TS_OK)
        status = hf_read_string(scaling, "type", &older, err);
    if (status != TS_OK)
        return status;
    if (name && older && strcmp(name, older) != 0)
        return ts_error_set(err, TS_EINVAL,
                            "rope: rope_type \"%.64s\" and type \"%.64s\" contradict each other", name,
                            older);
    if (!name && !older && !newer)
        return ts_error_set(err, TS_EINVAL, "rope_scaling has neither rope_type nor type");
    if (name || older)
        *type = name ? name : older;
    return TS_OK;
}

static enum ts_status read_scaling(const struct ts_json *scaling, bool newer, struct ts_rope *rope,
                                   struct ts_error *err)
{
    const char *type = "default";
    double partial = 1;
    enum ts_status status = hf_check_rope_keys(scaling, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "rope_theta", 1.001, 1e12, false, &rope->theta, err);
    if (status == TS_OK)
        status = hf_read_number(scaling, "partial_rotary_factor", 0, 1, false, &partial, err);
    if (status == TS_OK && partial != 1)
        return ts_error_set(err, TS_EUNSUPPORTED, "partial_rotary_factor %g is not supported: expected 1",
                            partial);
    if (status == TS_OK)
        status = read_type(scaling, newer, &type, err);
    if (status != TS_OK || strcmp(type, "default") == 0)
        return status;
    if (strcmp(type, "linear") == 0)
        rope->kind = TS_ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        rope->kind = TS_ROPE_LLAMA3;
    else if (strcmp(type, "yarn") == 0)
        rope->kind = TS_ROPE_YARN;
    else
        return ts_error_set(err, TS_EUNSUPPORTED,
                            "rope type \"%.64s\" is not supported: expected default, linear, llama3 or yarn",
                            type);
    status = hf_read_number(scaling, "factor", 1, 1e6, true, &rope->factor, err);
    if (status == TS_OK && rope->kind == TS_ROPE_LLAMA3)
        status = read_llama3(scaling, rope, err);
    if (status == TS_OK && rope->kind == TS_ROPE_YARN)
        status = read_yarn(scaling, rope, err);
    return status;
}

/* rope_theta and rope_scaling, or the newer rope_parameters that holds both. */
enum ts_status hf_read_rope(const struct ts_json *config, struct ts_hf *hf, struct ts_error *err)
{
    const struct ts_json *newer = ts_json_get(config, "rope_parameters"),
                         *older = ts_json_get(config, "rope_scaling");
    const struct ts_json *scaling = ts_json_is_null(newer) ? older : newer;
    char words[64];
    hf->rope = (struct ts_rope){.theta = 10000, .factor = 1, .original_context = hf->model.context_tokens};
    enum ts_status status = hf_read_number(config, "rope_theta", 1.001, 1e12, false, &hf->rope.theta, err);
    if (status != TS_OK || ts_json_is_null(scaling))
        return status;
    if (!ts_json_is_null(newer) && !ts_json_is_null(older))
        return ts_error_set(err, TS_EINVAL, "rope_parameters and rope_scaling: expected one of them");
    if (ts_json_type(scaling) != TS_JSON_OBJECT)
        return ts_error_set(err, TS_EINVAL, "%s %s: expected an object",
                            scaling == newer ? "rope_parameters" : "rope_scaling",
                            ts_json_describe(scaling, words, sizeof words));
    return read_scaling(scaling, scaling == newer, &hf->rope, err);
}

static void llama3(const struct ts_rope *r, uint32_t half, double *inv)
{
    double low = r->original_context / r->low_freq_factor, high = r->original_context / r->high_freq_factor;
    for (uint32_t i = 0; i < half; i++) {
        double wavelength = 2 * M_PI / inv[i];
        if (wavelength > low) {
            inv[i] /= r->factor;
        } else if (wavelength >= high) {
            double smooth = (r->original_context / wavelength - r->low_freq_factor) /
                            (r->high_freq_factor - r->low_freq_factor);
            inv[i] = (1 - smooth) * inv[i] / r->factor + smooth * inv[i];
        }
    }
}

/* The dimension whose wavelength makes `rotations` turns over the original context. */
static double correction(const struct ts_rope *r, uint32_t head_dim, double rotations)
{
    return head_dim * log(r->original_context / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

static void yarn(const struct ts_rope *r, uint32_t head_dim, double *inv)
{
    double low = correction(r, head_dim, r->beta_fast), high = correction(r, head_dim, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1.0);
    if (high == low)
        high += 0.001;
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double ramp = fmin(1, fmax(0, (i - low) / (high - low)));
        inv[i] = inv[i] / r->factor * ramp + inv[i] * (1 - ramp);
    }
}

void ts_rope_table(const struct ts_rope *rope, uint32_t head_dim, double *inverse_frequencies,
                   double *attention_factor)
{
    uint32_t half = head_dim / 2;
    *attention_factor = 1;
    for (uint32_t i = 0; i < half; i++)
        inverse_frequencies[i] = pow(rope->theta, -2.0 * i / head_dim);
    switch (rope->kind) {
    case TS_ROPE_DEFAULT:
        break;
    case TS_ROPE_LINEAR:
        for (uint32_t i = 0; i < half; i++)
            inverse_frequencies[i] /= rope->factor;
        break;
    case TS_ROPE_LLAMA3:
        llama3(rope, half, inverse_frequencies);
        break;
    case TS_ROPE_YARN:
        yarn(rope, head_dim, inverse_frequencies);
        *attention_factor = rope->attention_factor > 0 ? rope->attention_factor
                            : rope->factor > 1         ? 0.1 * log(rope->factor) + 1
                                                       : 1;
        break;
    }
}
