#include "relay_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    relay_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return relay_core_deadline(core);
}

static bool check(const void *core, struct ts_error *err)
{
    return relay_core_check(core, err);
}

struct relay_settings relay_test_settings(void)
{
    struct relay_settings s = relay_settings_defaults();
    s.id = "r0";
    s.routers[0] = "tcp://router";
    s.router_count = 1;
    s.heartbeat_ms = s.timeout_ms = s.idle_link_ms = 100000000;
    s.probe_every_ms = s.link_report_ms = 0;
    return s;
}

struct core_fixture *relay_begin_alone(const struct relay_settings *settings)
{
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_text_router = 500;
    core_begin(f, (struct core_driver){relay_core_new(settings, 700), step, deadline, check});
    return f;
}

struct core_fixture *relay_begin_with(const struct relay_settings *settings)
{
    static const struct core_step join[] = {
        {0, "start", "relay:1 connect endpoint=tcp://router\nrelay:1 hello role=relay id=r0"},
        {0, "as=500 relay:1 welcome", ""},
        {0, "pool:1 hello role=worker id=p0", "pool:1 welcome id=r0"},
        {0, "pool:1 " POOL, "map_pool pool=1 layout.path=/p layout.kv_blocks=8"},
        {0, "pool:1 " POOL, ""}, /* announced already */
        {0, "pool_mapped pool=1", "pool:1 pool_reply reason=none"},
    };
    struct core_fixture *f = relay_begin_alone(settings);
    CORE_RUN(f, "join", join);
    return f;
}

struct core_fixture *relay_begin_encoding(const struct relay_settings *settings)
{
    static const struct core_step join[] = {
        {0, "start", "relay:1 connect endpoint=tcp://router\nrelay:1 hello role=relay id=r0"},
        {0, "as=500 relay:1 welcome", ""},
        {0, "pool:1 hello role=worker id=p0", "pool:1 welcome id=r0"},
    };
    struct core_fixture *f = relay_begin_alone(settings);
    CORE_RUN(f, "join", join);
    if (settings->workers_encode) {
        core_step_one(f, 0, "pool:1 " POOL " encodes=1", "pool:1 pool_reply reason=none");
        return f;
    }
    core_step_one(f, 0, "pool:1 " POOL " encodes=1", "map_pool pool=1 layout.path=/p");
    core_step_one(f, 0, "pool_mapped pool=1", "pool:1 pool_reply reason=none text=");
    return f;
}

struct core_fixture *relay_begin(void)
{
    struct relay_settings settings = relay_test_settings();
    return relay_begin_with(&settings);
}

void relay_end(struct core_fixture **f)
{
    struct relay_core *core = (*f)->driver.core;
    if (!relay_core_idle(core))
        fail_msg("%s: a transfer is left", (*f)->name);
    core_end(*f);
    relay_core_destroy(&core);
    ts_free(*f);
    *f = NULL;
}
