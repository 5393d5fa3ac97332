#include <unistd.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_main.h"
#include "common/run/ts_service.h"
#include "services/planner/planner_conf.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    planner_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return planner_core_deadline(core);
}

static enum ts_status serve(const struct planner_conf *conf, int *code, struct ts_error *err)
{
    uint64_t incarnation = ts_random_u64();
    struct ts_net *net = ts_net_new(1);
    struct planner_core *core = planner_core_new(&conf->settings, incarnation);
    struct ts_service_core driven = {core, step, deadline};
    struct ts_service *service = NULL;
    size_t flag_bytes, bytes;
    char *flags = planner_conf_flags(conf, &flag_bytes);
    void *packed = ts_main_pack(conf->settings.pid, flags, flag_bytes, NULL, NULL, &bytes);
    struct ts_service_options options = {.name = conf->id,
                                         .record = conf->record,
                                         .record_kind = "planner",
                                         .record_settings = packed,
                                         .record_settings_bytes = bytes,
                                         .incarnation = incarnation};
    enum ts_status status = ts_service_new(&options, net, &driven, NULL, &service, err);
    if (status == TS_OK)
        *code = ts_service_run(service);
    ts_service_destroy(&service);
    planner_core_destroy(&core);
    ts_net_destroy(&net);
    ts_free(packed);
    ts_free(flags);
    return status;
}

int main(int argc, char **argv)
{
    struct planner_conf conf;
    struct ts_error err = {0};
    int code = 0;
    switch (planner_conf_load(argc, argv, (uint32_t)getpid(), &conf, &err)) {
    case TS_CONF_EXIT:
        planner_conf_free(&conf);
        return 0;
    case TS_CONF_ERROR:
        return ts_main_fail("planner", 2, &err);
    case TS_CONF_RUN:
        break;
    }
    ts_service_prepare();
    enum ts_status status = ts_main_log("planner", conf.log_level, &err);
    if (status == TS_OK)
        status = serve(&conf, &code, &err);
    if (status != TS_OK)
        code = ts_main_fail("planner", 1, &err);
    planner_conf_free(&conf);
    return code;
}
