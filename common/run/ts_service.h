/*
 * Drives one core in a process: one thread, one loop. It receives messages, decodes them, steps the core,
 * performs the actions, watches the deadline and the signals (first SIGTERM or SIGINT drains, the second ends
 * at once). What is special to a service (engine, codec, jobs) is performed by its hooks, whose completions
 * come back through a file descriptor and ts_service_step.
 *
 * With a record file every event (with its `now`) and the actions that followed are appended (ts_record.h):
 * `tsctl replay` feeds them to a fresh core and demands the same actions.
 */
#ifndef TS_RUN_SERVICE_H
#define TS_RUN_SERVICE_H

#include "common/core/ts_event.h"
#include "common/run/ts_net.h"

struct ts_service;

struct ts_service_core {
    void *core;
    void (*step)(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out);
    ts_time (*deadline)(const void *core);
};

#define TS_SERVICE_FDS_MAX 4

struct ts_service_hooks {
    void *context;
    /* An action the loop does not know: TOKENISE, TEXT_*, BATCH, ENCODE, SCATTER, MAP_POOL, UNMAP_POOL. NULL
     * if the core emits none. */
    void (*perform)(void *context, struct ts_service *service, const struct ts_action *action);
    int fds[TS_SERVICE_FDS_MAX];
    size_t fd_count;
    /* One of the fds may be readable: take all completions and step them. */
    void (*readable)(void *context, struct ts_service *service);
};

struct ts_service_options {
    const char *name;            /* service id, for logs */
    const char *record;          /* file or NULL */
    const char *record_kind;     /* "router", "worker", ...: which core to replay with */
    const void *record_settings; /* packed settings the replay needs to build an equal core */
    size_t record_settings_bytes;
    uint64_t incarnation;
    const char *trace; /* file for trace records, or NULL */
};

/* First thing in main, before any thread starts: the stop signals are read by the loop and must not end
 * another thread. */
void ts_service_prepare(void);

enum ts_status ts_service_new(const struct ts_service_options *options, struct ts_net *net,
                              const struct ts_service_core *core, const struct ts_service_hooks *hooks,
                              struct ts_service **out, struct ts_error *err);
void ts_service_destroy(struct ts_service **service);
/* Steps the core with an event and performs what it asks. Not from within `perform`. */
void ts_service_step(struct ts_service *service, const struct ts_event *event);
struct ts_bulk_table *ts_service_bulks(struct ts_service *service);
/* For hooks: the loop ends after this turn, and ts_service_run returns 1. */
void ts_service_end(struct ts_service *service);
/* Runs until the core stops or a second signal comes. Returns the exit code. */
int ts_service_run(struct ts_service *service);

#endif
