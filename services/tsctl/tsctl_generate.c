#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_msg_common.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_record.h"

static int run(const struct tsctl_request *r, struct ts_client *client)
{
    char why[TS_CLIENT_ERROR_BYTES];
    struct ts_client_stream *stream = NULL;
    struct ts_client_event event;
    if (ts_client_start(client, &r->request, NULL, &stream, why) != 0)
        return tsctl_fail("generate", 1, why);
    do {
        ts_client_poll(client, -1, &event);
        if (event.kind == TS_CLIENT_TOKEN && !r->json) {
            fwrite(event.token.text, 1, event.token.text_bytes, stdout);
            fflush(stdout);
        }
    } while (event.kind != TS_CLIENT_END);
    const struct ts_client_result *result = ts_client_result(stream);
    bool failed = strcmp(result->finish, "error") == 0;
    if (r->json)
        tsctl_print_json(result);
    else if (result->token_count)
        putchar('\n');
    fflush(stdout);
    if (failed)
        tsctl_fail("generate", 1, result->error && *result->error ? result->error : result->reason);
    else if (!r->json)
        tsctl_print_summary(result);
    ts_client_release(&stream);
    return failed ? 1 : 0;
}

struct many {
    const struct tsctl_batch *batch;
    struct ts_client_stream **streams; /* of those that were started */
    size_t *order;                     /* by at_ms, then as in the file */
    double *sent_ms;                   /* of each, after the start */
    size_t count, started, first, ended, failed;
    ts_time began, shown;
};

static void show_progress(struct many *m, bool on)
{
    ts_time now = ts_clock_now();
    if (!on || (now - m->shown < 5 * TS_MS && m->ended < m->count))
        return;
    m->shown = now;
    fprintf(stderr, "{\"streams\": %zu, \"first\": %zu, \"ended\": %zu}\n", m->count, m->first, m->ended);
}

static void take_event(struct many *m, const struct ts_client_event *event)
{
    if (event->kind == TS_CLIENT_TOKEN && event->token.index == 0)
        m->first++;
    if (event->kind != TS_CLIENT_END)
        return;
    const struct ts_client_result *result = ts_client_result(event->stream);
    m->ended++;
    m->failed += strcmp(result->finish, "error") == 0;
}

/* Starts what is due; returns the milliseconds until the next one is, at most 20. */
static int start_due(struct many *m, struct ts_client *client, int *code)
{
    char why[TS_CLIENT_ERROR_BYTES];
    while (m->started < m->count && *code == 0) {
        size_t i = m->order[m->started];
        double wait = m->batch->items[i].at_ms - (double)(ts_clock_now() - m->began) / TS_MS;
        if (wait > 0)
            return wait < 20 ? (int)wait : 20;
        m->sent_ms[i] = (double)(ts_clock_now() - m->began) / TS_MS;
        if (ts_client_start(client, &m->batch->items[i].request, NULL, &m->streams[i], why) != 0)
            *code = tsctl_fail("generate", 1, why);
        m->started++;
    }
    return 20;
}

static void order_by_time(struct many *m) /* insertion: files are in order, or nearly so */
{
    for (size_t i = 0, at; i < m->count; i++) {
        for (at = i; at > 0 && m->batch->items[m->order[at - 1]].at_ms > m->batch->items[i].at_ms; at--)
            m->order[at] = m->order[at - 1];
        m->order[at] = i;
    }
}

static float seconds(double ms)
{
    return ms < 0 ? -1.0F : (float)(ms * 1e-3);
}

static void add_record(struct tsctl_records *records, const struct ts_client_result *from, double sent_ms)
{
    struct tsctl_record *r = tsctl_records_add(records);
    const struct ts_client_trace *t = &from->trace;
    double rest_ms = from->tpot_ms > 0 ? from->tpot_ms * (double)(from->token_count - 1) : 0;
    *r = (struct tsctl_record){.number = records->count - 1,
                               .at_s = sent_ms * 1e-3,
                               .kv_bytes_raw = from->kv_bytes_raw,
                               .kv_bytes_sent = from->kv_bytes_sent,
                               .prompt_tokens = from->prompt_tokens,
                               .output_tokens = (uint32_t)from->token_count,
                               .attempts = from->attempts,
                               .finish = tsctl_record_finish(from->finish),
                               .reason = tsctl_record_reason(from->reason),
                               .ttft_s = seconds(from->ttft_ms),
                               .tpot_s = seconds(from->tpot_ms),
                               .gap01_s = seconds(from->gap01_ms),
                               .max_gap_s = seconds(from->max_gap_ms),
                               .e2e_s = seconds(from->ttft_ms < 0 ? -1 : from->ttft_ms + rest_ms),
                               .assigned_s = seconds(t->assigned_ms),
                               .prefill_begin_s = seconds(t->prefill_begin_ms),
                               .prefill_end_s = seconds(t->prefill_end_ms),
                               .first_token_s = seconds(t->first_token_ms),
                               .kv_open_s = seconds(t->kv_open_ms),
                               .kv_commit_s = seconds(t->kv_commit_ms),
                               .decode_begin_s = seconds(t->decode_begin_ms),
                               .end_s = seconds(t->end_ms)};
    r->prefill = tsctl_records_name(records, from->prefill, strlen(from->prefill));
    r->relay = tsctl_records_name(records, from->relay, strlen(from->relay));
    r->decode = tsctl_records_name(records, from->decode, strlen(from->decode));
    r->codec = tsctl_records_name(records, from->codec, strlen(from->codec));
}

static int save_records(const struct many *m, const char *path)
{
    struct tsctl_records records;
    struct ts_error err = {0};
    tsctl_records_init(&records);
    for (size_t i = 0; i < m->count; i++)
        add_record(&records, ts_client_result(m->streams[i]), m->sent_ms[i]);
    tsctl_records_sort(&records);
    enum ts_status status = tsctl_records_save(&records, path, &err);
    tsctl_records_fini(&records);
    return status == TS_OK ? 0 : tsctl_fail("generate", 1, err.text);
}

static int run_many(const struct tsctl_request *r, const struct tsctl_batch *batch, struct ts_client *client)
{
    struct ts_client_event event;
    struct many m = {.batch = batch,
                     .count = batch->count,
                     .streams = ts_xcalloc(batch->count + 1, sizeof *m.streams),
                     .order = ts_xcalloc(batch->count + 1, sizeof *m.order),
                     .sent_ms = ts_xcalloc(batch->count + 1, sizeof *m.sent_ms),
                     .began = ts_clock_now()};
    int code = 0;
    order_by_time(&m);
    while (code == 0 && m.ended < m.count) {
        int wait = start_due(&m, client, &code);
        if (m.started == m.ended && code == 0) /* poll returns at once without streams */
            poll(NULL, 0, wait);
        ts_client_poll(client, wait, &event);
        take_event(&m, &event);
        show_progress(&m, r->progress);
    }
    if (code == 0 && *r->csv)
        code = save_records(&m, r->csv);
    for (size_t i = 0; i < batch->count; i++) {
        if (code == 0)
            tsctl_print_json(ts_client_result(m.streams[i]));
        ts_client_release(&m.streams[i]);
    }
    ts_free(m.streams);
    ts_free(m.order);
    ts_free(m.sent_ms);
    return code ? code : m.failed ? 1 : 0;
}

/* What would end the run in its middle, with all results lost, is said before anything is sent. */
static enum ts_status check_ids(const struct tsctl_request *r, const struct tsctl_batch *batch,
                                struct ts_error *err)
{
    struct ts_map *seen = ts_map_new();
    enum ts_status status = TS_OK;
    for (size_t i = 0; status == TS_OK && i < batch->count; i++) {
        const char *id = batch->items[i].request.request_id;
        size_t bytes = id ? strlen(id) : 0;
        if (bytes > TS_ID_BYTES_MAX)
            status = ts_error_set(err, TS_EINVAL, "%s line %zu: request_id has %zu bytes, at most %d go",
                                  r->requests, i + 1, bytes, TS_ID_BYTES_MAX);
        else if (id && ts_map_get(seen, id, bytes))
            status = ts_error_set(err, TS_EINVAL, "%s line %zu: another line has the request_id \"%s\", too",
                                  r->requests, i + 1, id);
        else if (id)
            ts_map_put(seen, id, bytes, seen);
    }
    ts_map_destroy(&seen);
    return status;
}

static int run_requests(const struct tsctl_request *r, struct ts_client *client)
{
    struct tsctl_batch batch;
    struct ts_error err = {0};
    int code = 0;
    if (tsctl_batch_load(r, &batch, &err) != TS_OK || check_ids(r, &batch, &err) != TS_OK)
        code = tsctl_fail("generate", 2, err.text);
    else
        code = run_many(r, &batch, client);
    tsctl_batch_free(&batch);
    return code;
}

int tsctl_generate(int argc, char **argv)
{
    struct tsctl_request r;
    struct ts_client *client = NULL;
    char why[TS_CLIENT_ERROR_BYTES];
    int code = 0;
    if (tsctl_request_parse("generate", argc, argv, &r, &code) != 0) {
        tsctl_request_free(&r);
        return code;
    }
    struct ts_client_options options = {.routers = r.routers.items,
                                        .router_count = r.routers.count,
                                        .client = *r.client ? r.client : NULL,
                                        .give_up_ms = r.give_up_ms};
    if (ts_client_open(&options, &client, why) != 0)
        code = tsctl_fail("generate", 1, why);
    else
        code = *r.requests ? run_requests(&r, client) : run(&r, client);
    ts_client_close(&client);
    tsctl_request_free(&r);
    return code;
}
