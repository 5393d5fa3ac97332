/* A report on records of requests from a file. */
#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_report.h"

struct flags {
    struct ts_conf *conf;
    const char *scales;
    double slo_scale, warmup, price;
    uint32_t gpus;
    bool json;
};

static const struct ts_option options[] = {
    {"scales", TS_OPTION_STRING, offsetof(struct flags, scales), "", 0, 0,
     "SLO scales to state attainment at, as 1,2,5"},
    {"slo_scale", TS_OPTION_F64, offsetof(struct flags, slo_scale), "1", 1e-6, 1e6,
     "scale of the deadlines at which goodput is counted"},
    {"warmup", TS_OPTION_F64, offsetof(struct flags, warmup), "0", 0, 0.45,
     "share of the sending time at either end whose requests do not count"},
    {"gpus", TS_OPTION_U32, offsetof(struct flags, gpus), "0", 0, 1e6, "devices in use, for goodput per GPU"},
    {"price", TS_OPTION_F64, offsetof(struct flags, price), "0", 0, 1e9,
     "$/h of them, for goodput per dollar"},
    {"json", TS_OPTION_BOOL, offsetof(struct flags, json), "false", 0, 0, "print one document"},
};

static enum ts_status report(const struct flags *f, const char *path, struct ts_error *err)
{
    struct tsctl_report_options o = tsctl_report_defaults();
    struct tsctl_records records;
    struct tsctl_report made;
    o.slo_scale = f->slo_scale;
    o.warmup = f->warmup;
    o.gpus = f->gpus;
    o.price_per_hour = f->price;
    if (*f->scales && tsctl_report_scales(f->scales, &o, err) != TS_OK)
        return err->status;
    tsctl_records_init(&records);
    enum ts_status status = tsctl_records_load(&records, path, err);
    if (status == TS_OK) {
        tsctl_records_sort(&records);
        tsctl_report_make(&records, &o, &made);
        if (f->json) {
            struct ts_json *doc = ts_json_new_object();
            tsctl_report_json(&made, doc);
            char *text = ts_json_dump(doc, true);
            puts(text);
            ts_free(text);
            ts_json_destroy(&doc);
        } else {
            tsctl_report_print(&made, stdout);
        }
        tsctl_report_fini(&made);
    }
    tsctl_records_fini(&records);
    return status;
}

int tsctl_report(int argc, char **argv)
{
    struct flags f = {.conf = NULL};
    struct ts_conf_strings arguments = {.count = 0};
    struct ts_error err = {0};
    int code = 0;
    switch (
        ts_conf_load("report", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("report", 2, err.text);
    case TS_CONF_RUN:
        if (arguments.count != 1)
            code =
                tsctl_fail("report", 2,
                           "usage: tsctl report FILE.csv: records of tsctl simulate --csv or generate --csv");
        else if (report(&f, arguments.items[0], &err) != TS_OK)
            code = tsctl_fail("report", 1, err.text);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
