#include "common/run/ts_service.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_record.h"
#include "proto/ts_wire.h"

/* Messages taken before the deadline and the other descriptors are looked at again. */
#define SERVICE_BURST 64
/* Steps after which an idle service gives free memory back: a burst must not stay resident for ever. */
#define SERVICE_TRIM_STEPS 4096

struct pending {
    enum ts_channel channel;
    uint64_t peer;
};

struct ts_service {
    const char *name;
    struct ts_net *net;
    struct ts_service_core core;
    struct ts_service_hooks hooks;
    struct ts_bulk_table *bulks;
    struct ts_actions actions;
    struct ts_arena in, out; /* decoded message, packed message */
    struct ts_wire_counters counters;
    uint64_t malformed_frames;
    ts_time now;            /* of the last step: never goes back */
    struct pending *failed; /* sends that failed during this step */
    size_t failed_count, failed_capacity;
    struct ts_frame *filler;
    struct ts_recorder *recorder;
    FILE *trace;
    int signal_fd;
    int signals;
    bool stop, ended;
    bool stepping;
    uint32_t untrimmed; /* steps since free memory was given back */
};

static sigset_t stop_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

void ts_service_prepare(void)
{
    sigset_t set = stop_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    /* Messages are allocated by socket threads and freed by the loop: with one heap for all, memory does not
     * scatter over many. */
    mallopt(M_ARENA_MAX, 1);
}

enum ts_status ts_service_new(const struct ts_service_options *options, struct ts_net *net,
                              const struct ts_service_core *core, const struct ts_service_hooks *hooks,
                              struct ts_service **out, struct ts_error *err)
{
    struct ts_service *s = ts_xcalloc(1, sizeof *s);
    s->name = options->name;
    s->net = net;
    s->core = *core;
    if (hooks)
        s->hooks = *hooks;
    s->bulks = ts_bulk_table_new();
    ts_actions_init(&s->actions);
    ts_arena_init(&s->in);
    ts_arena_init(&s->out);
    sigset_t set = stop_signals();
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    enum ts_status status = TS_OK;
    if (options->record && *options->record)
        status =
            ts_recorder_open(options->record, options->record_kind, options->incarnation,
                             options->record_settings, options->record_settings_bytes, &s->recorder, err);
    if (status == TS_OK && options->trace && *options->trace && !(s->trace = fopen(options->trace, "a")))
        status = ts_error_set(err, TS_EIO, "cannot write the trace file %s: %s; give another --trace",
                              options->trace, strerror(errno));
    if (status != TS_OK) {
        ts_service_destroy(&s);
        return status;
    }
    *out = s;
    return TS_OK;
}

void ts_service_destroy(struct ts_service **service)
{
    struct ts_service *s = *service;
    if (!s)
        return;
    ts_recorder_close(&s->recorder);
    if (s->trace)
        fclose(s->trace);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    ts_bulk_table_destroy(&s->bulks);
    ts_frame_unref(&s->filler);
    ts_actions_fini(&s->actions);
    ts_arena_fini(&s->in);
    ts_arena_fini(&s->out);
    ts_free(s->failed);
    ts_free(s);
    *service = NULL;
}

struct ts_bulk_table *ts_service_bulks(struct ts_service *service)
{
    return service->bulks;
}

static void note_failed(struct ts_service *s, enum ts_channel channel, uint64_t peer)
{
    for (size_t i = 0; i < s->failed_count; i++) {
        if (s->failed[i].channel == channel && s->failed[i].peer == peer)
            return;
    }
    ts_array_reserve((void **)&s->failed, &s->failed_capacity, s->failed_count + 1, sizeof *s->failed);
    s->failed[s->failed_count++] = (struct pending){channel, peer};
}

/* One for all sends of that size. Bytes that no compressing tunnel on the way makes less of. */
static struct ts_frame *filler_of(struct ts_service *s, uint64_t bytes)
{
    struct ts_rng rng;
    TS_ASSERT(bytes <= TS_FILLER_BYTES_MAX);
    if (s->filler && s->filler->bytes == bytes)
        return s->filler;
    ts_frame_unref(&s->filler);
    s->filler = ts_frame_new((size_t)bytes);
    ts_rng_init(&rng, 1);
    for (size_t i = 0; i < bytes; i++)
        s->filler->data[i] = (uint8_t)ts_rng_u64(&rng);
    return s->filler;
}

static void perform_send(struct ts_service *s, struct ts_action_send *send)
{
    if (send->msg.kind == TS_MSG_STATUS_REPLY) /* only the loop sees what never reached the core */
        send->msg.status_reply.malformed = ts_wire_refused(&s->counters) + s->malformed_frames;
    struct ts_bytes bytes;
    ts_arena_reset(&s->out);
    if (ts_wire_pack(&send->envelope, &send->msg, &s->out, &bytes) != TS_OK) {
        ts_log(TS_LOG_ERROR, "event=unsendable kind=%s reason=out_of_bounds", ts_msg_name(send->msg.kind));
        note_failed(s, send->channel, send->peer);
        return;
    }
    struct ts_frame *frame = ts_bulk_frame(s->bulks, send->bulk);
    TS_ASSERT(frame || send->bulk.slot == 0);
    if (send->filler_bytes > 0)
        frame = filler_of(s, send->filler_bytes);
    if (ts_net_send(s->net, send->channel, send->peer, bytes.data, bytes.count, frame) != TS_OK)
        note_failed(s, send->channel, send->peer);
}

static void perform_connect(struct ts_service *s, const struct ts_action_connect *connect)
{
    char endpoint[TS_ENDPOINT_BYTES];
    struct ts_error err = {0};
    snprintf(endpoint, sizeof endpoint, "%.*s", (int)connect->endpoint.count, connect->endpoint.data);
    if (ts_net_dial(s->net, connect->channel, connect->peer, endpoint, &err) != TS_OK) {
        ts_log(TS_LOG_ERROR, "event=dial_failed channel=%s text=\"%s\"", ts_channel_name(connect->channel),
               err.text);
        note_failed(s, connect->channel, connect->peer);
    }
}

static void write_trace(struct ts_service *s, const struct ts_trace *trace)
{
    char line[4096];
    if (!s->trace)
        return;
    ts_schema_print(&ts_trace_schema, trace, line, sizeof line);
    if (fprintf(s->trace, "%s\n", line) >= 0 && fflush(s->trace) == 0)
        return;
    ts_log(TS_LOG_ERROR, "event=trace_ended reason=write_failed errno=%d", errno);
    fclose(s->trace);
    s->trace = NULL;
}

static void perform(struct ts_service *s, struct ts_action *action)
{
    switch (action->kind) {
    case TS_ACTION_SEND:
        perform_send(s, &action->send);
        break;
    case TS_ACTION_CONNECT:
        perform_connect(s, &action->connect);
        break;
    case TS_ACTION_DISCONNECT:
        ts_net_forget(s->net, action->disconnect.channel, action->disconnect.peer);
        break;
    case TS_ACTION_DROP: {
        enum ts_status status = ts_bulk_drop(s->bulks, action->drop.bulk);
        TS_ASSERT(status == TS_OK);
        break;
    }
    case TS_ACTION_TRACE:
        write_trace(s, &action->trace.trace);
        break;
    case TS_ACTION_LOG:
        ts_log((enum ts_log_level)action->log.level, "%.*s", (int)action->log.text.count,
               action->log.text.data);
        break;
    case TS_ACTION_STOP:
        s->stop = true;
        break;
    default:
        TS_ASSERT(s->hooks.perform);
        s->hooks.perform(s->hooks.context, s, action);
    }
}

static void step_once(struct ts_service *s, const struct ts_event *event)
{
    ts_time now = ts_clock_now();
    if (now > s->now)
        s->now = now;
    ts_actions_clear(&s->actions);
    s->untrimmed++;
    s->core.step(s->core.core, s->now, event, &s->actions);
    if (s->recorder)
        ts_recorder_write(s->recorder, s->now, event, &s->actions);
    for (size_t i = 0; i < s->actions.count; i++)
        perform(s, &s->actions.items[i]);
}

void ts_service_step(struct ts_service *service, const struct ts_event *event)
{
    struct ts_service *s = service;
    TS_ASSERT(!s->stepping);
    s->stepping = true;
    step_once(s, event);
    while (s->failed_count > 0) {
        struct pending p = s->failed[0];
        s->failed_count--;
        memmove(s->failed, s->failed + 1, s->failed_count * sizeof *s->failed);
        struct ts_event failed = {.kind = TS_EVENT_SEND_FAILED,
                                  .send_failed = {.channel = p.channel, .peer = p.peer}};
        step_once(s, &failed);
    }
    s->stepping = false;
}

static void deliver(struct ts_service *s, struct ts_net_message *in)
{
    struct ts_event event = {.kind = TS_EVENT_MESSAGE};
    struct ts_event_message *m = &event.message;
    struct ts_error err = {0};
    ts_arena_reset(&s->in);
    enum ts_status status =
        ts_wire_unpack(in->data, in->bytes, in->channel, &s->in, &m->envelope, &m->msg, &s->counters, &err);
    if (status != TS_OK) {
        ts_log(TS_LOG_DEBUG, "event=refused_message channel=%s text=\"%s\"", ts_channel_name(in->channel),
               err.text);
        ts_frame_unref(&in->frame);
        return;
    }
    m->channel = in->channel;
    m->peer = in->peer;
    m->wire_bytes = in->bytes + (in->frame ? in->frame->bytes : 0);
    if (in->frame)
        m->bulk = ts_bulk_put(s->bulks, &in->frame);
    ts_service_step(s, &event);
}

static void take_messages(struct ts_service *s)
{
    struct ts_net_message in;
    int taken = 0;
    while (taken < SERVICE_BURST && !s->stop && ts_net_receive(s->net, &in, &s->malformed_frames) == TS_OK) {
        deliver(s, &in);
        taken++;
    }
    if (taken == 0 && s->untrimmed >= SERVICE_TRIM_STEPS) {
        s->untrimmed = 0;
        malloc_trim(0);
    }
}

static void take_signals(struct ts_service *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (++s->signals > 1) {
            ts_log(TS_LOG_WARN, "event=killed reason=second_signal");
            s->stop = true;
            return;
        }
        ts_log(TS_LOG_INFO, "event=draining reason=signal");
        struct ts_event event = {.kind = TS_EVENT_DRAIN};
        ts_service_step(s, &event);
    }
}

static int timeout_of(const struct ts_service *s)
{
    ts_time deadline = s->core.deadline(s->core.core);
    if (deadline == TS_TIME_NEVER)
        return 1000;
    ts_time left = deadline - ts_clock_now();
    if (left <= 0)
        return 0;
    return left > 1000 * TS_MS ? 1000 : (int)((left + TS_MS - 1) / TS_MS);
}

void ts_service_end(struct ts_service *service)
{
    service->stop = service->ended = true;
}

int ts_service_run(struct ts_service *service)
{
    struct ts_service *s = service;
    struct ts_event start = {.kind = TS_EVENT_START};
    const struct ts_event tick = {.kind = TS_EVENT_TICK};
    struct ts_net_fd fds[TS_SERVICE_FDS_MAX + 1] = {{.fd = s->signal_fd}};
    for (size_t i = 0; i < s->hooks.fd_count; i++)
        fds[1 + i].fd = s->hooks.fds[i];
    ts_service_step(s, &start);
    while (!s->stop) {
        if (ts_net_poll(s->net, fds, 1 + s->hooks.fd_count, timeout_of(s)) != TS_OK) {
            ts_log(TS_LOG_ERROR, "event=poll_failed errno=%d", errno);
            return 1;
        }
        take_messages(s);
        for (size_t i = 0; i < s->hooks.fd_count && !s->stop; i++) {
            if (fds[1 + i].readable)
                s->hooks.readable(s->hooks.context, s);
        }
        if (fds[0].readable)
            take_signals(s);
        if (!s->stop && s->core.deadline(s->core.core) <= ts_clock_now())
            ts_service_step(s, &tick);
    }
    return s->signals > 1 || s->ended ? 1 : 0;
}
