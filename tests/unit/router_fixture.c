#include "router_fixture.h"

#include "common/base/ts_mem.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    router_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return router_core_deadline(core);
}

static bool check(const void *core, struct ts_error *err)
{
    return router_core_check(core, err);
}

struct router_settings router_test_settings(void)
{
    struct router_settings s = router_settings_defaults();
    s.id = "router0";
    s.pid = 77;
    s.codec = "auto";
    s.heartbeat_ms = s.timeout_ms = s.client_timeout_ms = 100000000;
    return s;
}

struct core_fixture *router_begin(const struct router_settings *settings)
{
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_text_router = ROUTER;
    core_begin(f, (struct core_driver){router_core_new(settings, ROUTER), step, deadline, check});
    return f;
}

struct core_fixture *router_begin_cluster(const struct router_settings *settings)
{
    static const struct core_step join[] = {
        {0, "start", ""},
        {0, HELLO_R0, "relay:1 welcome id=router0"},
        {0, HELLO_P0, "worker:1 welcome id=router0"},
        {0, "worker:1 resync", "worker:1 resync_reply items="},
        {0, HELLO_D0, "worker:2 welcome id=router0"},
        {0, "worker:2 resync", "worker:2 resync_reply items="},
    };
    struct core_fixture *f = router_begin(settings);
    CORE_RUN(f, "cluster", join);
    return f;
}

struct router_core *router_of(const struct core_fixture *f)
{
    return f->driver.core;
}

void router_end(struct core_fixture **f)
{
    struct router_core *core = (*f)->driver.core;
    core_end(*f);
    router_core_destroy(&core);
    ts_free(*f);
    *f = NULL;
}
