/*
 * Feeds a recording to a fresh core of the same kind and settings: the same events must give the same
 * actions, byte for byte. --print shows both.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/run/ts_main.h"
#include "common/run/ts_record.h"
#include "services/planner/planner_conf.h"
#include "services/relay/relay_conf.h"
#include "services/router/router_conf.h"
#include "services/tsctl/tsctl.h"
#include "services/worker/worker_conf.h"

struct replayed {
    void *core;
    struct ts_conf *conf;
    struct planner_world *world; /* of a planner */
    struct ts_cluster *links;    /* of a router */
    union {                      /* what the cores borrow strings from */
        struct planner_conf planner;
        struct relay_conf relay;
        struct router_conf router;
        struct worker_conf worker;
    };
};

static enum ts_status open_router(const struct ts_main_settings *s, uint64_t incarnation, struct replayed *r,
                                  struct ts_error *err)
{
    if (router_conf_load(s->argc, s->argv, &r->router, err) != TS_CONF_RUN)
        return TS_EINVAL;
    struct router_settings settings = router_conf_settings(&r->router, s->pid);
    r->conf = r->router.conf;
    r->links = r->router.links;
    r->core = router_core_new(&settings, incarnation);
    return TS_OK;
}

static void step_router(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    router_core_step(core, now, event, out);
}

static void close_router(void *core)
{
    struct router_core *c = core;
    router_core_destroy(&c);
}

static enum ts_status open_planner(const struct ts_main_settings *s, uint64_t incarnation, struct replayed *r,
                                   struct ts_error *err)
{
    if (planner_conf_load(s->argc, s->argv, s->pid, &r->planner, err) != TS_CONF_RUN)
        return TS_EINVAL;
    r->conf = r->planner.conf;
    r->world = r->planner.world;
    r->core = planner_core_new(&r->planner.settings, incarnation);
    return TS_OK;
}

static void step_planner(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    planner_core_step(core, now, event, out);
}

static void close_planner(void *core)
{
    struct planner_core *c = core;
    planner_core_destroy(&c);
}

static enum ts_status open_relay(const struct ts_main_settings *s, uint64_t incarnation, struct replayed *r,
                                 struct ts_error *err)
{
    if (relay_conf_load(s->argc, s->argv, s->pid, &r->relay, err) != TS_CONF_RUN)
        return TS_EINVAL;
    r->conf = r->relay.conf;
    r->core = relay_core_new(&r->relay.settings, incarnation);
    return TS_OK;
}

static void step_relay(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    relay_core_step(core, now, event, out);
}

static void close_relay(void *core)
{
    struct relay_core *c = core;
    relay_core_destroy(&c);
}

static enum ts_status open_worker(const struct ts_main_settings *s, uint64_t incarnation, struct replayed *r,
                                  struct ts_error *err)
{
    if (worker_conf_load(s->argv[0], s->argc, s->argv, s->pid, &r->worker, err) != TS_CONF_RUN)
        return TS_EINVAL;
    r->conf = r->worker.conf;
    r->worker.settings.profile = s->hello.hello.profile;
    r->worker.settings.pool = s->pool.pool;
    r->core = worker_core_new(&r->worker.settings, incarnation);
    return TS_OK;
}

static void step_worker(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    worker_core_step(core, now, event, out);
}

static void close_worker(void *core)
{
    struct worker_core *c = core;
    worker_core_destroy(&c);
}

static const struct {
    const char *kind;
    enum ts_status (*open)(const struct ts_main_settings *s, uint64_t incarnation, struct replayed *r,
                           struct ts_error *err);
    void (*step)(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out);
    void (*close)(void *core);
} kinds[] = {
    {"router", open_router, step_router, close_router},
    {"planner", open_planner, step_planner, close_planner},
    {"relay", open_relay, step_relay, close_relay},
    {"prefill", open_worker, step_worker, close_worker},
    {"decode", open_worker, step_worker, close_worker},
};

static void print_step(ts_time now, const struct ts_event *event, const struct ts_actions *out)
{
    char line[2000];
    ts_schema_print(&ts_event_schema, event, line, sizeof line);
    printf("%.6f < %s\n", (double)now / 1e9, line);
    for (size_t i = 0; i < out->count; i++) {
        ts_schema_print(&ts_action_schema, &out->items[i], line, sizeof line);
        printf("    > %s\n", line);
    }
}

static enum ts_status feed(struct ts_record_reader *reader, size_t kind, bool print, void *core,
                           uint64_t *steps, uint64_t *actions, struct ts_error *err)
{
    struct ts_actions out;
    struct ts_event event;
    ts_time now;
    char difference[2200];
    enum ts_status status;
    ts_actions_init(&out);
    while ((status = ts_record_next(reader, &now, &event, err)) == TS_OK) {
        ts_actions_clear(&out);
        kinds[kind].step(core, now, &event, &out);
        if (print)
            print_step(now, &event, &out);
        if (!ts_record_same(reader, &out, difference, sizeof difference)) {
            status = ts_error_set(err, TS_ECORRUPT, "step %llu differs: %.500s", (unsigned long long)*steps,
                                  difference);
            break;
        }
        (*steps)++;
        *actions += out.count;
    }
    ts_actions_fini(&out);
    return status == TS_ECLOSED ? TS_OK : status;
}

static enum ts_status replay(const char *path, bool print, struct ts_error *err)
{
    struct ts_record_reader *reader = NULL;
    struct ts_record_header header;
    struct ts_main_settings settings;
    struct replayed r = {.core = NULL};
    struct ts_arena arena;
    uint64_t steps = 0, actions = 0;
    size_t kind = 0;
    enum ts_status status = ts_record_open(path, &reader, &header, err);
    if (status != TS_OK)
        return status;
    ts_arena_init(&arena);
    while (kind < TS_ARRAY_SIZE(kinds) && strcmp(kinds[kind].kind, header.kind) != 0)
        kind++;
    if (kind == TS_ARRAY_SIZE(kinds))
        status = ts_error_set(err, TS_EUNSUPPORTED,
                              "%s records a core \"%s\" that this version does not know", path, header.kind);
    else if (ts_main_unpack(header.kind, header.settings, header.settings_bytes, &arena, &settings) != TS_OK)
        status = ts_error_set(err, TS_ECORRUPT, "%s: the settings of the recording cannot be read", path);
    else
        status = kinds[kind].open(&settings, header.incarnation, &r, err);
    if (status == TS_OK)
        status = feed(reader, kind, print, r.core, &steps, &actions, err);
    if (r.core)
        kinds[kind].close(r.core);
    planner_world_free(&r.world);
    ts_cluster_destroy(&r.links);
    ts_conf_destroy(&r.conf);
    ts_arena_fini(&arena);
    ts_record_close(&reader);
    if (status == TS_OK)
        printf("%s: %s, %llu events, %llu actions, all equal\n", path, header.kind, (unsigned long long)steps,
               (unsigned long long)actions);
    return status;
}

int tsctl_replay(int argc, char **argv)
{
    struct ts_error err = {0};
    bool print = argc > 1 && strcmp(argv[1], "--print") == 0;
    int first = print ? 2 : 1;
    if (argc <= first || strncmp(argv[first], "--", 2) == 0) {
        bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: tsctl replay [--print] FILE ...\n");
        return help ? 0 : 2;
    }
    for (int i = first; i < argc; i++) {
        if (replay(argv[i], print, &err) != TS_OK)
            return tsctl_fail("replay", 1, err.text);
    }
    return 0;
}
