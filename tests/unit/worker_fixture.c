#include "worker_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    worker_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return worker_core_deadline(core);
}

static bool check(const void *core, struct ts_error *err)
{
    return worker_core_check(core, err);
}

struct worker_settings worker_test_settings(enum ts_phase phase)
{
    struct worker_settings s = worker_settings_defaults();
    s.id = "w0";
    s.routers[0] = "tcp://router";
    s.router_count = 1;
    s.relay_endpoint = "ipc://relay";
    s.heartbeat_ms = s.timeout_ms = 100000000;
    s.max_rows = 4;
    s.max_batch_tokens = 64;
    s.credit_bytes = 1000;
    s.profile = (struct ts_profile){.phases = TS_PHASE_BOTH,
                                    .phase = phase,
                                    .fingerprint = 7,
                                    .layers = 2,
                                    .kv_heads = 2,
                                    .head_dim = 64,
                                    .vocab = 1000,
                                    .context_tokens = 100,
                                    .kv_dtype = TS_DTYPE_BF16,
                                    .layer_end = 2,
                                    .head_end = 2,
                                    .relay = ts_str_of("r0")};
    s.pool = (struct ts_msg_pool){.fingerprint = 7,
                                  .layer_end = 2,
                                  .head_end = 2,
                                  .kv_blocks = 8,
                                  .head_dim = 64,
                                  .kv_dtype = TS_DTYPE_BF16,
                                  .layers = 2,
                                  .kv_heads = 2};
    return s;
}

struct core_fixture *worker_begin(const struct worker_settings *settings)
{
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_text_router = 500;
    core_begin(f, (struct core_driver){worker_core_new(settings, 800), step, deadline, check});
    return f;
}

struct core_fixture *worker_begin_joined(const struct worker_settings *settings)
{
    static const struct core_step join[] = {
        {0, "start",
         "worker:1 connect endpoint=tcp://router\npool:1 connect endpoint=ipc://relay\n"
         "worker:1 hello role=worker id=w0 profile.fingerprint=7\npool:1 hello role=worker id=w0"},
        {0, "worker:1 welcome", "worker:1 resync items="},
        {0, "pool:1 welcome", "pool:1 pool kv_blocks=8 fingerprint=7"},
        {0, "pool:1 pool_reply reason=none", ""},
    };
    struct core_fixture *f = worker_begin(settings);
    CORE_RUN(f, "join", join);
    return f;
}

struct core_fixture *worker_begin_alone(const struct worker_settings *settings)
{
    struct core_fixture *f = worker_begin(settings);
    core_step_one(f, 0, "start", "worker:1 connect endpoint=tcp://router\nworker:1 hello role=worker id=w0");
    core_step_one(f, 0, "worker:1 welcome", "worker:1 resync items=");
    return f;
}

struct worker_core *worker_of(const struct core_fixture *f)
{
    return f->driver.core;
}

void worker_end(struct core_fixture **f)
{
    struct worker_core *core = (*f)->driver.core;
    if (!worker_core_idle(core) || worker_core_blocks_used(core) > 0)
        fail_msg("%s: %u blocks are left in use", (*f)->name, worker_core_blocks_used(core));
    core_end(*f);
    worker_core_destroy(&core);
    ts_free(*f);
    *f = NULL;
}
