#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_simulate.h"

#define SLICE_S  10.0 /* between two looks at whether it is over */
#define NOT_EVER (-1.0F)

/* --- Requests out, records in --- */

static void no_times(struct tsctl_record *r)
{
    r->ttft_s = r->tpot_s = r->gap01_s = r->max_gap_s = r->e2e_s = NOT_EVER;
    r->assigned_s = r->prefill_begin_s = r->prefill_end_s = r->first_token_s = NOT_EVER;
    r->kv_open_s = r->kv_commit_s = r->decode_begin_s = r->end_s = NOT_EVER;
}

static uint32_t milliseconds(double s)
{
    return (uint32_t)fmin(4e9, ceil(s * 1e3));
}

/* Of this very request: in its record at scale 1, in the request, if it carries them, as asked. */
static enum ts_status set_deadlines(struct tsctl_simulation *s, const struct ts_request_item *item,
                                    struct tsctl_record *r, struct cloud_request *out)
{
    struct ts_deadlines d = {.ttft_s = 0};
    enum ts_status status =
        s->slo ? ts_slo_of(s->slo, item->prompt_tokens, item->output_tokens, &d, &s->err) : TS_OK;
    double scale = s->slo ? ts_slo_scale(s->slo) : 1;
    r->want_ttft_s = (float)(d.ttft_s / scale);
    r->want_tpot_s = (float)(d.tpot_s / scale);
    r->want_e2e_s = (float)(d.e2e_s / scale);
    if (s->admission) {
        out->ttft_ms = milliseconds(d.ttft_s);
        out->tpot_ms = milliseconds(d.tpot_s);
    }
    return status;
}

/* The request's number travels as its seed: nothing else of it comes back. */
static bool next_request(void *context, struct cloud_request *out)
{
    struct tsctl_simulation *s = context;
    struct ts_request_item item;
    if (s->err.status != TS_OK || !s->next(s->stream, &item)) {
        s->dry = true;
        return false;
    }
    if (item.prompt_tokens > TS_PROMPT_TOKENS_MAX) {
        ts_error_set(&s->err, TS_EINVAL, "request %zu has a prompt of %u tokens; at most %u can be sent",
                     s->records.count, item.prompt_tokens, TS_PROMPT_TOKENS_MAX);
        s->dry = true;
        return false;
    }
    struct tsctl_record *r = tsctl_records_add(&s->records);
    r->number = s->records.count - 1;
    r->at_s = item.at_s;
    r->prompt_tokens = item.prompt_tokens;
    no_times(r);
    if (set_deadlines(s, &item, r, out) != TS_OK) {
        s->records.count--;
        s->dry = true;
        return false;
    }
    out->at = (ts_time)(item.at_s * (double)TS_S);
    out->prompt_count = item.prompt_tokens;
    out->sampling.seed = r->number;
    out->sampling.max_tokens = out->sampling.min_tokens = item.output_tokens;
    out->sampling.ignore_eos = true;
    s->last_s = item.at_s;
    s->open++;
    return true;
}

static float seconds(int64_t ns)
{
    return ns < 0 ? NOT_EVER : (float)((double)ns * 1e-9);
}

static uint16_t name_of(struct tsctl_simulation *s, struct ts_str name)
{
    return tsctl_records_name(&s->records, name.data ? (const char *)name.data : "", name.count);
}

static void take_trace(struct tsctl_simulation *s, const struct ts_trace *t, struct tsctl_record *r)
{
    r->attempts = t->attempts;
    r->kv_bytes_raw = t->kv_bytes_raw;
    r->kv_bytes_sent = t->kv_bytes_sent;
    r->prefill = name_of(s, t->prefill);
    r->relay = name_of(s, t->relay);
    r->decode = name_of(s, t->decode);
    r->codec = name_of(s, t->codec);
    r->assigned_s = seconds(t->assigned_ns);
    r->prefill_begin_s = seconds(t->prefill_begin_ns);
    r->prefill_end_s = seconds(t->prefill_end_ns);
    r->first_token_s = seconds(t->first_token_ns);
    r->kv_open_s = seconds(t->kv_open_ns);
    r->kv_commit_s = seconds(t->kv_commit_ns);
    r->decode_begin_s = seconds(t->decode_begin_ns);
    r->end_s = seconds(t->end_ns);
}

static void request_ended(void *context, const struct cloud_request *request,
                          const struct cloud_outcome *outcome)
{
    struct tsctl_simulation *s = context;
    struct tsctl_record *r = &s->records.items[request->sampling.seed];
    const struct ts_metrics *m = &outcome->metrics;
    r->finish = (uint8_t)(outcome->refused ? TS_FINISH_ERROR : outcome->finish);
    r->reason = (uint8_t)outcome->reason;
    r->output_tokens = outcome->token_count;
    r->ttft_s = seconds(m->ttft_ns);
    r->tpot_s = seconds(m->tpot_ns);
    r->gap01_s = seconds(m->gap01_ns);
    r->max_gap_s = seconds(m->gap_max_ns);
    if (m->ttft_ns >= 0)
        r->e2e_s = seconds(m->ttft_ns + (m->tpot_ns > 0 ? m->tpot_ns * (outcome->token_count - 1) : 0));
    if (outcome->trace)
        take_trace(s, outcome->trace, r);
    s->open--;
}

/* --- The run --- */

static void show(const struct tsctl_simulation *s, double now_s)
{
    if (s->progress)
        fprintf(stderr, "tsctl simulate: %.0f s, %zu requests sent, %zu under way\n", now_s, s->records.count,
                s->open);
}

static bool over(const struct tsctl_simulation *s, double now_s)
{
    return s->dry && (s->open == 0 || now_s >= s->last_s + s->patience_s);
}

static void drop_unsent(struct tsctl_simulation *s)
{
    while (s->records.count > 0 && s->records.items[s->records.count - 1].at_s > s->end_s)
        s->records.count--;
}

enum ts_status tsctl_simulation_run(struct tsctl_simulation *s, struct ts_error *err)
{
    const struct cloud_source source = {.context = s, .next = next_request, .ended = request_ended};
    enum ts_status status = cloud_site_new(&s->site, &source, &s->running, err);
    double now_s = 0;
    if (status == TS_OK && s->events)
        status = tsctl_events_load(s, err);
    tsctl_records_init(&s->records);
    while (status == TS_OK && !over(s, now_s)) {
        double slice = s->timeline.step_s > 0 ? s->timeline.step_s : SLICE_S;
        now_s += slice;
        status = cloud_site_run(s->running, (ts_time)(now_s * (double)TS_S), err);
        if (status == TS_OK && s->timeline.step_s > 0)
            tsctl_timeline_sample(&s->timeline, s->running, now_s);
        show(s, now_s);
    }
    if (status == TS_OK && s->err.status != TS_OK) {
        status = s->err.status;
        *err = s->err;
    }
    if (status != TS_OK)
        return status;
    struct cloud *cloud = cloud_site_cloud(s->running);
    s->end_s = now_s;
    s->counts = cloud_counts(cloud);
    s->steps = cloud_steps(cloud);
    s->digest = s->site.cloud.checks ? cloud_digest(cloud) : 0;
    drop_unsent(s);
    return TS_OK;
}

void tsctl_simulation_fini(struct tsctl_simulation *s)
{
    cloud_site_destroy(&s->running);
    tsctl_events_fini(s);
    tsctl_records_fini(&s->records);
    tsctl_timeline_fini(&s->timeline);
}
