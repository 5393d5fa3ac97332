#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "planner_core_fixture.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    planner_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return planner_core_deadline(core);
}

static bool check(const void *core, struct ts_error *err)
{
    return planner_core_check(core, err);
}

struct core_driver planner_driver(struct planner_core *core)
{
    return (struct core_driver){core, step, deadline, check};
}

struct planner_settings planner_test_settings(void)
{
    struct planner_settings s = planner_settings_defaults();
    s.id = "pl0";
    s.routers[0] = "tcp://router";
    s.router_count = 1;
    s.heartbeat_ms = s.timeout_ms = 1000000000;
    return s;
}

struct core_fixture *planner_begin(const struct planner_settings *settings)
{
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_text_router = 500;
    core_begin(f, planner_driver(planner_core_new(settings, 600)));
    return f;
}

void planner_end(struct core_fixture **f)
{
    struct planner_core *core = (*f)->driver.core;
    assert_true(planner_core_idle(core));
    core_end(*f);
    planner_core_destroy(&core);
    ts_free(*f);
    *f = NULL;
}
