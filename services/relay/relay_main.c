#include <unistd.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_main.h"
#include "services/relay/relay_conf.h"
#include "services/relay/relay_run.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    relay_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return relay_core_deadline(core);
}

static enum ts_status serve(const struct relay_conf *conf, struct ts_net *net, int *code,
                            struct ts_error *err)
{
    uint64_t incarnation = ts_random_u64();
    struct relay_core *core = relay_core_new(&conf->settings, incarnation);
    struct relay_run *run = relay_run_new((int)conf->encode_threads, (int)conf->settings.encode_jobs_max);
    struct ts_service_core driven = {core, step, deadline};
    struct ts_service_hooks hooks = relay_run_hooks(run);
    struct ts_service *service = NULL;
    size_t flag_bytes, bytes;
    char *flags = relay_conf_flags(conf, &flag_bytes);
    void *packed = ts_main_pack(conf->settings.pid, flags, flag_bytes, NULL, NULL, &bytes);
    struct ts_service_options options = {.name = conf->id,
                                         .record = conf->record,
                                         .record_kind = "relay",
                                         .record_settings = packed,
                                         .record_settings_bytes = bytes,
                                         .incarnation = incarnation};
    enum ts_status status = ts_service_new(&options, net, &driven, &hooks, &service, err);
    if (status == TS_OK)
        *code = ts_service_run(service);
    relay_run_destroy(&run);
    ts_service_destroy(&service);
    relay_core_destroy(&core);
    ts_free(packed);
    ts_free(flags);
    return status;
}

int main(int argc, char **argv)
{
    struct relay_conf conf;
    struct ts_error err = {0};
    int code = 0;
    switch (relay_conf_load(argc, argv, (uint32_t)getpid(), &conf, &err)) {
    case TS_CONF_EXIT:
        ts_conf_destroy(&conf.conf);
        return 0;
    case TS_CONF_ERROR:
        return ts_main_fail("relay", 2, &err);
    case TS_CONF_RUN:
        break;
    }
    ts_service_prepare();
    struct ts_net *net = NULL;
    enum ts_status status = ts_main_log("relay", conf.log_level, &err);
    if (status == TS_OK) {
        net = ts_net_new(1);
        status = ts_net_bind(net, TS_CHANNEL_POOL, conf.listen, NULL, &err);
    }
    if (status == TS_OK)
        status = serve(&conf, net, &code, &err);
    ts_net_destroy(&net);
    if (status != TS_OK)
        code = ts_main_fail("relay", 1, &err);
    ts_conf_destroy(&conf.conf);
    return code;
}
