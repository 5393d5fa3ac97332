/* A trace cut into length classes, as a file for conf/workloads. */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_trace.h"
#include "services/tsctl/tsctl.h"

#define TEXT_OF(x) #x
#define DEFAULT(x) TEXT_OF(x)

struct flags {
    struct ts_conf *conf;
    const char *name;
    uint32_t prompt_bands, output_bands;
    double rate;
};

static const struct ts_option options[] = {
    {"name", TS_OPTION_STRING, offsetof(struct flags, name), "trace", 0, 0, "what the workload is called"},
    {"prompt_bands", TS_OPTION_U32, offsetof(struct flags, prompt_bands), DEFAULT(TS_TRACE_PROMPT_BANDS), 1,
     TS_CLASSES_MAX, "bands of prompt length with equally many requests"},
    {"output_bands", TS_OPTION_U32, offsetof(struct flags, output_bands), DEFAULT(TS_TRACE_OUTPUT_BANDS), 1,
     TS_CLASSES_MAX, "bands of output length within each"},
    {"rate", TS_OPTION_F64, offsetof(struct flags, rate), "0", 0, 1e9,
     "requests/s to scale to; 0 = the trace's"},
};

static enum ts_status print_workload(const struct flags *f, const char *path, struct ts_error *err)
{
    struct ts_trace trace;
    struct ts_demand demand;
    enum ts_status status = ts_trace_load(path, &trace, err);
    if (status != TS_OK)
        return status;
    status = ts_trace_demand(&trace, f->prompt_bands, f->output_bands, &demand, err);
    if (status == TS_OK) {
        snprintf(demand.name, sizeof demand.name, "%s", f->name);
        if (f->rate > 0)
            ts_demand_scale_rate(&demand, f->rate / ts_demand_rate(&demand));
        char *text = ts_inputs_demand_text(&demand);
        fputs(text, stdout);
        ts_free(text);
    }
    ts_trace_fini(&trace);
    return status;
}

int tsctl_workload(int argc, char **argv)
{
    struct flags f = {.conf = NULL};
    struct ts_conf_strings arguments = {.count = 0};
    struct ts_error err = {0};
    int code = 0;
    switch (ts_conf_load("workload", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf,
                         &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("workload", 2, err.text);
    case TS_CONF_RUN:
        if (arguments.count != 1)
            code = tsctl_fail("workload", 2, "usage: tsctl workload TRACE.csv [--name NAME] > FILE.conf");
        else if (print_workload(&f, arguments.items[0], &err) != TS_OK)
            code = tsctl_fail("workload", 1, err.text);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
