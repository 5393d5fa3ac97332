#include <math.h>

#include "gpu/model/ts_hf.h"

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
