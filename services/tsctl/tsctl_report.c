#include "services/tsctl/tsctl_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

#define NORMAL_975 1.959963984540054 /* quantile of the normal law: 95 % lie within plus and minus */

struct tsctl_share tsctl_share_of(uint64_t hits, uint64_t of)
{
    struct tsctl_share out = {.hits = hits, .of = of};
    if (of == 0)
        return out;
    double n = (double)of, p = (double)hits / n, z = NORMAL_975;
    double middle = p + z * z / (2 * n), half = z * sqrt((p * (1 - p) + z * z / (4 * n)) / n);
    out.share = p;
    out.low = hits == 0 ? 0 : (middle - half) / (1 + z * z / n);
    out.high = hits == of ? 1 : (middle + half) / (1 + z * z / n);
    return out;
}

struct tsctl_report_options tsctl_report_defaults(void)
{
    static const double scales[] = {0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12.5, 15, 20, 25, 30, 40, 50};
    struct tsctl_report_options out = {.scale_count = TS_ARRAY_SIZE(scales), .slo_scale = 1};
    memcpy(out.scales, scales, sizeof scales);
    return out;
}

enum ts_status tsctl_report_scales(const char *text, struct tsctl_report_options *options,
                                   struct ts_error *err)
{
    double last = 0;
    options->scale_count = 0;
    for (const char *at = text;;) {
        char *end;
        double scale = strtod(at, &end);
        if (end == at || !(scale > last && scale <= 1e6) || (*end && *end != ',') ||
            options->scale_count == TSCTL_SCALES_MAX)
            return ts_error_set(err, TS_EINVAL,
                                "scales \"%.100s\": expected at most %d rising numbers above 0, as in 1,2,5",
                                text, TSCTL_SCALES_MAX);
        options->scales[options->scale_count++] = last = scale;
        if (!*end)
            return TS_OK;
        at = end + 1;
    }
}

/* --- Counting --- */

static bool counts(const struct tsctl_report *r, const struct tsctl_record *record)
{
    return record->at_s >= r->from_s && record->at_s <= r->to_s;
}

/* A time that is not defined, as that between the tokens of a single one, is in time. */
static bool in_time(float value, float want, double scale)
{
    return want == 0 || value < 0 || (double)value <= (double)want * scale;
}

static void attainment(const struct tsctl_record *record, double scale, uint64_t hits[TSCTL_SLO_COUNT])
{
    if (!tsctl_record_completed(record))
        return;
    bool ttft = in_time(record->ttft_s, record->want_ttft_s, scale);
    bool tpot = in_time(record->tpot_s, record->want_tpot_s, scale);
    bool e2e = in_time(record->e2e_s, record->want_e2e_s, scale);
    hits[TSCTL_TTFT] += ttft;
    hits[TSCTL_TPOT] += tpot;
    hits[TSCTL_E2E] += e2e;
    hits[TSCTL_ALL] += ttft && tpot && e2e;
}

static void count_attained(const struct tsctl_records *records, const struct tsctl_report *r, double scale,
                           struct tsctl_share out[TSCTL_SLO_COUNT])
{
    uint64_t hits[TSCTL_SLO_COUNT] = {0};
    for (size_t i = 0; i < records->count; i++)
        if (counts(r, &records->items[i]))
            attainment(&records->items[i], scale, hits);
    for (int k = 0; k < TSCTL_SLO_COUNT; k++)
        out[k] = tsctl_share_of(hits[k], r->requests);
}

/* A request that no attempt was made for was refused, or waited in vain. */
static void count_ends(const struct tsctl_record *record, struct tsctl_report *r)
{
    r->requests++;
    if (tsctl_record_completed(record)) {
        r->completed++;
        return;
    }
    if (record->finish == TS_FINISH_NONE) {
        r->unfinished++;
        return;
    }
    if (record->finish == TS_FINISH_CANCELLED)
        r->cancelled++;
    else if (record->finish == TS_FINISH_ERROR && record->attempts == 0)
        r->refused++;
    else
        r->failed++;
    r->reasons[record->reason]++;
}

/* --- Latencies --- */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double nearest_rank(const float *sorted, size_t count, double share)
{
    size_t rank = (size_t)ceil(share * (double)count);
    return sorted[rank > 0 ? rank - 1 : 0];
}

static struct tsctl_latency latency_of(const struct tsctl_records *records, const struct tsctl_report *r,
                                       size_t offset, float *values)
{
    struct tsctl_latency out = {.count = 0};
    size_t count = 0;
    for (size_t i = 0; i < records->count; i++) {
        const struct tsctl_record *record = &records->items[i];
        const void *at = (const char *)record + offset;
        float value = *(const float *)at;
        if (!counts(r, record) || !tsctl_record_completed(record) || value < 0)
            continue;
        values[count++] = value;
        out.mean += (double)value;
    }
    if (count == 0)
        return out;
    qsort(values, count, sizeof *values, by_value);
    out.count = count;
    out.mean /= (double)count;
    out.p50 = nearest_rank(values, count, 0.5);
    out.p90 = nearest_rank(values, count, 0.9);
    out.p95 = nearest_rank(values, count, 0.95);
    out.p99 = nearest_rank(values, count, 0.99);
    out.max = values[count - 1];
    return out;
}

/* --- Where the time went --- */

static double span(double from, double to)
{
    return to > from ? to - from : 0;
}

/* A mark that was not set, or set out of order, is where the one before was. */
static double mark(float value, double before)
{
    return (double)value > before ? (double)value : before;
}

static void add_parts(const struct tsctl_record *record, struct tsctl_report *r)
{
    double assigned = mark(record->assigned_s, 0), begin = mark(record->prefill_begin_s, assigned);
    double prefilled = mark(record->prefill_end_s, begin), granted = mark(record->kv_open_s, prefilled);
    double moved = mark(record->kv_commit_s, granted);
    double decoding = mark(record->decode_begin_s, moved), end = mark(record->end_s, decoding);
    r->parts_s[TSCTL_PART_ROUTER] += assigned;
    r->parts_s[TSCTL_PART_PREFILL_QUEUE] += begin - assigned;
    r->parts_s[TSCTL_PART_PREFILL] += prefilled - begin;
    r->parts_s[TSCTL_PART_TRANSFER] += moved - granted;
    r->parts_s[TSCTL_PART_DECODE_QUEUE] += granted - prefilled + decoding - moved;
    r->parts_s[TSCTL_PART_DECODE] += end - decoding;
    r->parts_s[TSCTL_PART_REST] += (double)record->e2e_s - end;
    if (record->kv_open_s >= 0 && record->kv_commit_s >= 0)
        r->hidden_s += span((double)record->kv_open_s, fmin((double)record->kv_commit_s, prefilled));
}

static void set_means(struct tsctl_report *r)
{
    double n = r->completed > 0 ? (double)r->completed : 1, seconds = r->to_s - r->from_s;
    for (int i = 0; i < TSCTL_PART_COUNT; i++)
        r->parts_s[i] /= n;
    r->hidden_s /= n;
    r->kv_bytes_raw /= n;
    r->kv_bytes_sent /= n;
    r->requests_per_s = seconds > 0 ? (double)r->completed / seconds : 0;
    r->prompt_tokens_per_s = seconds > 0 ? r->prompt_tokens_per_s / seconds : 0;
    r->output_tokens_per_s = seconds > 0 ? r->output_tokens_per_s / seconds : 0;
    r->goodput_per_s = seconds > 0 ? (double)r->at_slo[TSCTL_ALL].hits / seconds : 0;
    if (r->options.gpus > 0)
        r->per_gpu = r->goodput_per_s / r->options.gpus;
    if (r->options.price_per_hour > 0)
        r->per_dollar = r->goodput_per_s * 3600 / r->options.price_per_hour;
}

/* All of the run, to the last end; or what was sent in the middle, over the time in which it was sent. */
static void set_window(const struct tsctl_records *records, struct tsctl_report *r)
{
    double first = records->count > 0 ? records->items[0].at_s : 0, end = tsctl_records_end(records);
    double sent = records->count > 0 ? records->items[records->count - 1].at_s : 0;
    double cut = r->options.warmup * (sent - first);
    r->from_s = first + cut;
    r->to_s = cut > 0 ? sent - cut : end;
    r->sending_s = sent - first - 2 * cut;
}

void tsctl_report_make(const struct tsctl_records *records, const struct tsctl_report_options *options,
                       struct tsctl_report *out)
{
    static const size_t offsets[TSCTL_LATENCY_COUNT] = {
        offsetof(struct tsctl_record, ttft_s), offsetof(struct tsctl_record, tpot_s),
        offsetof(struct tsctl_record, e2e_s), offsetof(struct tsctl_record, gap01_s)};
    *out = (struct tsctl_report){.options = *options};
    set_window(records, out);
    for (size_t i = 0; i < records->count; i++) {
        const struct tsctl_record *record = &records->items[i];
        if (!counts(out, record))
            continue;
        count_ends(record, out);
        if (!tsctl_record_completed(record))
            continue;
        add_parts(record, out);
        out->prompt_tokens_per_s += record->prompt_tokens;
        out->output_tokens_per_s += record->output_tokens;
        out->kv_bytes_raw += (double)record->kv_bytes_raw;
        out->kv_bytes_sent += (double)record->kv_bytes_sent;
    }
    out->offered_per_s = out->sending_s > 0 ? (double)out->requests / out->sending_s : 0;
    for (size_t i = 0; i < options->scale_count; i++)
        count_attained(records, out, options->scales[i], out->attained[i]);
    count_attained(records, out, options->slo_scale, out->at_slo);
    float *values = ts_xmalloc((records->count + 1) * sizeof *values);
    for (int i = 0; i < TSCTL_LATENCY_COUNT; i++)
        out->latency[i] = latency_of(records, out, offsets[i], values);
    ts_free(values);
    set_means(out);
    tsctl_report_bottleneck(out);
}

void tsctl_report_fini(struct tsctl_report *report)
{
    ts_free(report->replicas);
    ts_free(report->links);
    *report = (struct tsctl_report){.requests = 0};
}

/* --- The bottleneck --- */

const char *tsctl_part_name(enum tsctl_part part)
{
    static const char *const names[TSCTL_PART_COUNT] = {
        "router_queue", "prefill_queue", "prefill", "transfer_visible", "decode_queue", "decode", "rest"};
    return names[part];
}

const char *tsctl_part_words(enum tsctl_part part)
{
    static const char *const words[TSCTL_PART_COUNT] = {
        "queue at the router",  "queue for prefill", "prefill",
        "KV transfer, visible", "queue for decode",  "decode",
        "client and network"};
    return words[part];
}

/* "; prefill replicas are busy 97 %, g2 most (99 %)" */
static void add_busy(struct tsctl_report *r, enum ts_phase phase, const char *name)
{
    double sum = 0;
    size_t count = 0, used = strlen(r->bottleneck);
    const struct tsctl_replica *most = NULL;
    for (size_t i = 0; i < r->replica_count; i++) {
        const struct tsctl_replica *replica = &r->replicas[i];
        if (!(replica->phase & phase))
            continue;
        sum += replica->busy;
        count++;
        if (!most || replica->busy > most->busy)
            most = replica;
    }
    if (most)
        (void)snprintf(
            r->bottleneck + used, sizeof r->bottleneck - used,
            "; %s replicas are busy %.1f %% of the time, %s most (%.1f %%, KV memory %.0f %% full)", name,
            100 * sum / (double)count, most->name, 100 * most->busy, 100 * most->kv_mean);
}

static void add_link(struct tsctl_report *r)
{
    const struct tsctl_link *most = NULL;
    size_t used = strlen(r->bottleneck);
    for (size_t i = 0; i < r->link_count; i++)
        if (!most || r->links[i].busy > most->busy)
            most = &r->links[i];
    if (most)
        (void)snprintf(r->bottleneck + used, sizeof r->bottleneck - used,
                       "; the link from %s to %s is busy %.1f %%", most->from,
                       strcmp(most->from, most->to) == 0 ? "all others" : most->to, 100 * most->busy);
}

void tsctl_report_bottleneck(struct tsctl_report *r)
{
    static const enum tsctl_part waits[] = {TSCTL_PART_ROUTER, TSCTL_PART_PREFILL_QUEUE, TSCTL_PART_TRANSFER,
                                            TSCTL_PART_DECODE_QUEUE};
    enum tsctl_part most = waits[0];
    double all = r->latency[TSCTL_LATENCY_E2E].mean;
    for (size_t i = 1; i < TS_ARRAY_SIZE(waits); i++)
        if (r->parts_s[waits[i]] > r->parts_s[most])
            most = waits[i];
    if (r->completed == 0 || all <= 0) {
        (void)snprintf(r->bottleneck, sizeof r->bottleneck, "no request completed");
        return;
    }
    if (r->parts_s[most] < 0.05 * all)
        (void)snprintf(r->bottleneck, sizeof r->bottleneck,
                       "nothing: requests hardly wait; prefill takes %.1f %%, decode %.1f %% of their time",
                       100 * r->parts_s[TSCTL_PART_PREFILL] / all, 100 * r->parts_s[TSCTL_PART_DECODE] / all);
    else
        (void)snprintf(r->bottleneck, sizeof r->bottleneck, "%s: %.4g s of %.4g s on average (%.1f %%)",
                       tsctl_part_words(most), r->parts_s[most], all, 100 * r->parts_s[most] / all);
    if (most == TSCTL_PART_TRANSFER)
        add_link(r);
    else if (most == TSCTL_PART_DECODE_QUEUE)
        add_busy(r, TS_PHASE_DECODE, "decode");
    else
        add_busy(r, TS_PHASE_PREFILL, "prefill");
}
