#include <math.h>
#include <stdio.h>

#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/inputs/ts_inputs_workload.h"

static enum ts_status read_file(const char *conf_dir, const char *name, struct ts_demand *out,
                                struct ts_error *err)
{
    struct inputs_workload workload = {.step_count = 0};
    char *path = NULL;
    enum ts_status status = inputs_find(conf_dir, "workloads", name, &path, err);
    if (status == TS_OK)
        status = inputs_workload_read(path, &workload, err);
    *out = workload.demand;
    inputs_workload_fini(&workload);
    ts_free(path);
    return status;
}

static enum ts_status read_trace(const char *path, struct ts_demand *out, struct ts_error *err)
{
    struct ts_trace trace;
    enum ts_status status = ts_trace_load(path, &trace, err);
    if (status != TS_OK)
        return status;
    status = ts_trace_demand(&trace, TS_TRACE_PROMPT_BANDS, TS_TRACE_OUTPUT_BANDS, out, err);
    ts_trace_fini(&trace);
    inputs_stem(path, out->name, sizeof out->name);
    return status == TS_OK ? status : ts_error_prefix(err, "%s", path);
}

enum ts_status ts_inputs_demand(const char *conf_dir, const char *name, double rate, struct ts_demand *out,
                                struct ts_error *err)
{
    *out = (struct ts_demand){.burst = 1};
    if (!(rate >= 0 && rate <= 1e9))
        return ts_error_set(err, TS_EINVAL,
                            "rate = %g: expected requests/s from 0 (as the workload says) to 1e9", rate);
    enum ts_status status =
        inputs_is_trace(name) ? read_trace(name, out, err) : read_file(conf_dir, name, out, err);
    if (status == TS_OK)
        status = ts_demand_check(out, err);
    if (status != TS_OK || rate == 0)
        return status;
    double present = ts_demand_rate(out);
    if (!(present > 0))
        return ts_error_set(err, TS_EINVAL, "workload \"%s\": all rates are 0, so it cannot be scaled to %g",
                            out->name, rate);
    ts_demand_scale_rate(out, rate / present);
    return TS_OK;
}

static double cv(double mean, double mean_sq)
{
    return sqrt(fmax(0, mean_sq / (mean * mean) - 1));
}

char *ts_inputs_demand_text(const struct ts_demand *demand)
{
    char *text = ts_xasprintf("name = \"%s\";\nburst = %.6f;\nclasses = (\n", demand->name, demand->burst);
    for (uint32_t k = 0; k < demand->class_count; k++) {
        const struct ts_class *c = &demand->classes[k];
        char range[80] = "";
        if (c->prompt_end > 0)
            (void)snprintf(range, sizeof range, " prompt_begin = %.1f; prompt_end = %.1f;", c->prompt_begin,
                           c->prompt_end);
        char *longer = ts_xasprintf(
            "%s  { rate = %.9f; prompt_tokens = %.6f; prompt_cv = %.9f;%s output_tokens = %.6f; output_cv = "
            "%.9f; }%s\n",
            text, c->rate, c->prompt_tokens, cv(c->prompt_tokens, c->prompt_tokens_sq), range,
            c->output_tokens, cv(c->output_tokens, c->output_tokens_sq),
            k + 1 < demand->class_count ? "," : "");
        ts_free(text);
        text = longer;
    }
    char *whole = ts_xasprintf("%s);\n", text);
    ts_free(text);
    return whole;
}
