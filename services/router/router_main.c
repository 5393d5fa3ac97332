#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_main.h"
#include "common/run/ts_service.h"
#include "services/router/router_conf.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    router_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return router_core_deadline(core);
}

static enum ts_status bind_all(struct ts_net *net, const char *listen, struct ts_error *err)
{
    static const enum ts_channel channels[] = {TS_CHANNEL_CLIENT, TS_CHANNEL_ADMIN, TS_CHANNEL_WORKER,
                                               TS_CHANNEL_RELAY, TS_CHANNEL_PLANNER};
    for (size_t i = 0; i < TS_ARRAY_SIZE(channels); i++) {
        char endpoint[TS_ENDPOINT_BYTES];
        enum ts_status status = ts_endpoint_of(listen, channels[i], endpoint, err);
        if (status == TS_OK)
            status = ts_net_bind(net, channels[i], endpoint, NULL, err);
        if (status != TS_OK)
            return status;
    }
    return TS_OK;
}

static enum ts_status serve(const struct router_conf *conf, struct ts_net *net, int *code,
                            struct ts_error *err)
{
    struct router_settings settings = router_conf_settings(conf, (uint32_t)getpid());
    uint64_t incarnation = ts_random_u64();
    struct router_core *core = router_core_new(&settings, incarnation);
    struct ts_service_core driven = {core, step, deadline};
    struct ts_service *service = NULL;
    size_t flag_bytes, bytes;
    char *flags = router_conf_flags(conf, &flag_bytes);
    void *packed = ts_main_pack(settings.pid, flags, flag_bytes, NULL, NULL, &bytes);
    struct ts_service_options options = {.name = conf->id,
                                         .record = conf->record,
                                         .record_kind = "router",
                                         .record_settings = packed,
                                         .record_settings_bytes = bytes,
                                         .incarnation = incarnation,
                                         .trace = conf->trace};
    enum ts_status status = ts_service_new(&options, net, &driven, NULL, &service, err);
    if (status == TS_OK) {
        ts_log(TS_LOG_INFO, "event=ready listen=%s incarnation=%016llx", conf->listen,
               (unsigned long long)incarnation);
        *code = ts_service_run(service);
    }
    ts_service_destroy(&service);
    router_core_destroy(&core);
    ts_free(packed);
    ts_free(flags);
    return status;
}

int main(int argc, char **argv)
{
    struct router_conf conf;
    struct ts_error err = {0};
    int code = 0;
    switch (router_conf_load(argc, argv, &conf, &err)) {
    case TS_CONF_EXIT:
        router_conf_free(&conf);
        return 0;
    case TS_CONF_ERROR:
        return ts_main_fail("router", 2, &err);
    case TS_CONF_RUN:
        break;
    }
    ts_service_prepare();
    struct ts_net *net = NULL;
    enum ts_status status = ts_main_log("router", conf.log_level, &err);
    if (status == TS_OK) {
        net = ts_net_new(1);
        status = bind_all(net, conf.listen, &err);
    }
    if (status == TS_OK)
        status = serve(&conf, net, &code, &err);
    ts_net_destroy(&net);
    if (status != TS_OK)
        code = ts_main_fail("router", 1, &err);
    router_conf_free(&conf);
    return code;
}
