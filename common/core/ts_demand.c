#include "common/core/ts_demand.h"

#include <stddef.h>

#include "common/base/ts_assert.h"

double ts_demand_rate(const struct ts_demand *demand)
{
    double rate = 0;
    for (uint32_t k = 0; k < demand->class_count; k++)
        rate += demand->classes[k].rate;
    return rate;
}

void ts_demand_scale_rate(struct ts_demand *demand, double factor)
{
    for (uint32_t k = 0; k < demand->class_count; k++)
        demand->classes[k].rate *= factor;
}

void ts_demand_scale_lengths(struct ts_demand *demand, double factor)
{
    for (uint32_t k = 0; k < demand->class_count; k++) {
        struct ts_class *c = &demand->classes[k];
        c->prompt_tokens *= factor;
        c->prompt_tokens_sq *= factor * factor;
        c->output_tokens *= factor;
        c->output_tokens_sq *= factor * factor;
        c->prompt_begin *= factor;
        c->prompt_end *= factor;
    }
}

static enum ts_status check_class(const struct ts_class *c, uint32_t k, struct ts_error *err)
{
    const struct {
        const char *key;
        double value, min, max;
    } ranges[] = {
        {"rate", c->rate, 0, 1e9},
        {"prompt_tokens", c->prompt_tokens, 1, 1e8},
        {"output_tokens", c->output_tokens, 1, 1e8},
        {"prompt_begin", c->prompt_begin, 0, c->prompt_tokens * (1 + 1e-6)},
        {"prompt_end", c->prompt_end, c->prompt_end > 0 ? c->prompt_tokens * (1 - 1e-6) : 0, 1e9},
        {"ttft_s", c->ttft_s, 0, 1e9},
        {"tpot_s", c->tpot_s, 0, 1e9},
        {"e2e_s", c->e2e_s, 0, 1e9},
        /* A mean square is at least the square of the mean; a part in a million for rounding. */
        {"prompt_tokens_sq", c->prompt_tokens_sq, c->prompt_tokens * c->prompt_tokens * (1 - 1e-6), 1e17},
        {"output_tokens_sq", c->output_tokens_sq, c->output_tokens * c->output_tokens * (1 - 1e-6), 1e17},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(ranges); i++) {
        if (!(ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max))
            return ts_error_set(err, TS_EINVAL, "length class %u: %s is %g; it must lie in %g to %g", k,
                                ranges[i].key, ranges[i].value, ranges[i].min, ranges[i].max);
    }
    return TS_OK;
}

enum ts_status ts_demand_check(const struct ts_demand *demand, struct ts_error *err)
{
    if (demand->class_count == 0 || demand->class_count > TS_CLASSES_MAX)
        return ts_error_set(err, TS_EINVAL, "workload \"%s\": %u length classes; it must have 1 to %d",
                            demand->name, demand->class_count, TS_CLASSES_MAX);
    if (!(demand->burst >= 0 && demand->burst <= 1e6))
        return ts_error_set(err, TS_EINVAL,
                            "workload \"%s\": burst is %g; it must lie in 0 to 1e6 (1 = Poisson)",
                            demand->name, demand->burst);
    for (uint32_t k = 0; k < demand->class_count; k++) {
        if (check_class(&demand->classes[k], k, err) != TS_OK)
            return ts_error_prefix(err, "workload \"%s\"", demand->name);
    }
    return TS_OK;
}
