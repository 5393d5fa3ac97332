#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_report.h"

#define LINKS_SHOWN 20 /* the busiest */

static const char *const slo_names[TSCTL_SLO_COUNT] = {"ttft", "tpot", "e2e", "all"};
static const char *const latency_names[TSCTL_LATENCY_COUNT] = {"ttft", "tpot", "e2e", "gap01"};

/* --- For people --- */

static void print_ends(const struct tsctl_report *r, FILE *to)
{
    fprintf(
        to,
        "Requests    %llu sent, %llu completed, %llu refused, %llu failed, %llu cancelled, %llu unfinished\n",
        (unsigned long long)r->requests, (unsigned long long)r->completed, (unsigned long long)r->refused,
        (unsigned long long)r->failed, (unsigned long long)r->cancelled, (unsigned long long)r->unfinished);
    for (int i = 0; i <= TS_REASON_LAST; i++)
        if (r->reasons[i] > 0)
            fprintf(to, "            %s: %llu\n", ts_reason_name((enum ts_reason)i),
                    (unsigned long long)r->reasons[i]);
    fprintf(to,
            "Load        %.4g requests/s offered over %.4g s; %.4g requests/s, %.5g prompt and %.5g output "
            "tokens/s done\n",
            r->offered_per_s, r->to_s - r->from_s, r->requests_per_s, r->prompt_tokens_per_s,
            r->output_tokens_per_s);
    fprintf(to, "Goodput     %.4g requests/s within all deadlines at SLO scale %g", r->goodput_per_s,
            r->options.slo_scale);
    if (r->options.gpus > 0)
        fprintf(to, "; %.4g per GPU (%u)", r->per_gpu, r->options.gpus);
    if (r->options.price_per_hour > 0)
        fprintf(to, "; %.5g for a dollar (%.4g $/h)", r->per_dollar, r->options.price_per_hour);
    fprintf(to, "\n");
}

static void print_shares(const struct tsctl_share shares[TSCTL_SLO_COUNT], FILE *to)
{
    for (int k = 0; k < TSCTL_SLO_COUNT; k++)
        fprintf(to, "  %6.2f [%6.2f, %6.2f]", 100 * shares[k].share, 100 * shares[k].low,
                100 * shares[k].high);
    fprintf(to, "\n");
}

static void print_attainment(const struct tsctl_report *r, FILE *to)
{
    fprintf(to, "\nIn time, %% of all requests [95 %% interval]\n%10s", "SLO scale");
    for (int k = 0; k < TSCTL_SLO_COUNT; k++)
        fprintf(to, "  %-23s", slo_names[k]);
    fprintf(to, "\n");
    for (size_t i = 0; i < r->options.scale_count; i++) {
        fprintf(to, "%10g", r->options.scales[i]);
        print_shares(r->attained[i], to);
    }
}

static void print_latency(const struct tsctl_report *r, FILE *to)
{
    fprintf(to, "\n%-10s %10s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p95", "p99", "max");
    for (int i = 0; i < TSCTL_LATENCY_COUNT; i++) {
        const struct tsctl_latency *l = &r->latency[i];
        fprintf(to, "%-10s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", latency_names[i], 1e3 * l->mean,
                1e3 * l->p50, 1e3 * l->p90, 1e3 * l->p95, 1e3 * l->p99, 1e3 * l->max);
    }
}

static void print_parts(const struct tsctl_report *r, FILE *to)
{
    double all = r->latency[TSCTL_LATENCY_E2E].mean;
    fprintf(to, "\nWhere the time goes, mean of completed requests\n");
    for (int i = 0; i < TSCTL_PART_COUNT; i++)
        fprintf(to, "%-22s %10.2f ms %7.2f %%\n", tsctl_part_words((enum tsctl_part)i), 1e3 * r->parts_s[i],
                all > 0 ? 100 * r->parts_s[i] / all : 0);
    fprintf(to, "%-22s %10.2f ms  (during prefill)\n", "KV transfer, hidden", 1e3 * r->hidden_s);
    if (r->kv_bytes_raw > 0)
        fprintf(to, "KV of a prompt: %.4g MB, %.4g MB sent\n", r->kv_bytes_raw / 1e6, r->kv_bytes_sent / 1e6);
}

static void print_replicas(const struct tsctl_report *r, FILE *to)
{
    int wide = 7;
    for (size_t i = 0; i < r->replica_count; i++)
        if ((int)strlen(r->replicas[i].what) > wide)
            wide = (int)strlen(r->replicas[i].what);
    if (r->replica_count > 0)
        fprintf(to, "\n%-8s %-9s %-*s %7s %7s %7s %7s %10s %10s %9s\n", "replica", "phase", wide, "devices",
                "busy %", "stages", "KV %", "KV max", "in tok/s", "out tok/s", "batches");
    for (size_t i = 0; i < r->replica_count; i++) {
        const struct tsctl_replica *p = &r->replicas[i];
        fprintf(to, "%-8s %-9s %-*s %7.2f %7.2f %7.2f %7.2f %10.1f %10.1f %9llu\n", p->name,
                p->phase == TS_PHASE_BOTH ? "colocated" : ts_phase_name(p->phase), wide, p->what,
                100 * p->busy, 100 * p->busy_mean, 100 * p->kv_mean, 100 * p->kv_max, p->prompt_tokens_per_s,
                p->output_tokens_per_s, (unsigned long long)p->batches);
    }
}

static int by_busy(const void *a, const void *b)
{
    const struct tsctl_link *x = *(const struct tsctl_link *const *)a,
                            *y = *(const struct tsctl_link *const *)b;
    if (x->busy != y->busy)
        return x->busy > y->busy ? -1 : 1;
    return (x > y) - (x < y);
}

static void print_links(const struct tsctl_report *r, FILE *to)
{
    const struct tsctl_link **order = ts_xcalloc(r->link_count + 1, sizeof *order);
    size_t shown = r->link_count < LINKS_SHOWN ? r->link_count : LINKS_SHOWN;
    for (size_t i = 0; i < r->link_count; i++)
        order[i] = &r->links[i];
    qsort(order, r->link_count, sizeof *order, by_busy);
    if (shown > 0)
        fprintf(to, "\n%-20s %-20s %7s %12s %12s\n", "link from", "to", "busy %", "MB/s", "of MB/s");
    for (size_t i = 0; i < shown; i++) {
        const struct tsctl_link *l = order[i];
        fprintf(to, "%-20s %-20s %7.2f %12.2f %12.1f\n", l->from,
                strcmp(l->from, l->to) == 0 ? "(its network card)" : l->to, 100 * l->busy,
                l->bytes_per_s / 1e6, l->capacity_bytes_per_s / 1e6);
    }
    if (shown < r->link_count)
        fprintf(to, "and %zu less busy ones\n", r->link_count - shown);
    ts_free(order);
}

void tsctl_report_print(const struct tsctl_report *report, FILE *to)
{
    print_ends(report, to);
    print_attainment(report, to);
    print_latency(report, to);
    print_parts(report, to);
    print_replicas(report, to);
    print_links(report, to);
    fprintf(to, "\nBottleneck  %s\n", report->bottleneck);
}

/* --- For scripts --- */

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

static void put_count(struct ts_json *object, const char *key, uint64_t count)
{
    ts_json_put_integer(object, key, (int64_t)count);
}

static void put_shares(struct ts_json *object, const struct tsctl_share shares[TSCTL_SLO_COUNT])
{
    for (int k = 0; k < TSCTL_SLO_COUNT; k++) {
        struct ts_json *item = ts_json_new_object();
        ts_json_put_number(item, "share", shares[k].share);
        ts_json_put_number(item, "low", shares[k].low);
        ts_json_put_number(item, "high", shares[k].high);
        ts_json_put(object, slo_names[k], &item);
    }
}

static void put_attainment(const struct tsctl_report *r, struct ts_json *into)
{
    struct ts_json *list = ts_json_new_array(), *slo = ts_json_new_object();
    for (size_t i = 0; i < r->options.scale_count; i++) {
        struct ts_json *item = ts_json_new_object();
        ts_json_put_number(item, "scale", r->options.scales[i]);
        put_shares(item, r->attained[i]);
        ts_json_put(list, NULL, &item);
    }
    ts_json_put_number(slo, "scale", r->options.slo_scale);
    put_shares(slo, r->at_slo);
    ts_json_put(into, "slo", &slo);
    ts_json_put(into, "attainment", &list);
}

static void put_latency(const struct tsctl_report *r, struct ts_json *into)
{
    struct ts_json *all = ts_json_new_object();
    for (int i = 0; i < TSCTL_LATENCY_COUNT; i++) {
        const struct tsctl_latency *l = &r->latency[i];
        struct ts_json *item = ts_json_new_object();
        put_count(item, "count", l->count);
        ts_json_put_number(item, "mean", 1e3 * l->mean);
        ts_json_put_number(item, "p50", 1e3 * l->p50);
        ts_json_put_number(item, "p90", 1e3 * l->p90);
        ts_json_put_number(item, "p95", 1e3 * l->p95);
        ts_json_put_number(item, "p99", 1e3 * l->p99);
        ts_json_put_number(item, "max", 1e3 * l->max);
        ts_json_put(all, latency_names[i], &item);
    }
    ts_json_put(into, "latency_ms", &all);
}

static void put_rates(const struct tsctl_report *r, struct ts_json *into)
{
    ts_json_put_number(into, "from_s", r->from_s);
    ts_json_put_number(into, "to_s", r->to_s);
    ts_json_put_number(into, "offered_per_s", r->offered_per_s);
    ts_json_put_number(into, "requests_per_s", r->requests_per_s);
    ts_json_put_number(into, "prompt_tokens_per_s", r->prompt_tokens_per_s);
    ts_json_put_number(into, "output_tokens_per_s", r->output_tokens_per_s);
    ts_json_put_number(into, "goodput_per_s", r->goodput_per_s);
    if (r->options.gpus > 0) {
        put_count(into, "gpus", r->options.gpus);
        ts_json_put_number(into, "goodput_per_gpu", r->per_gpu);
    }
    if (r->options.price_per_hour > 0) {
        ts_json_put_number(into, "price_per_hour", r->options.price_per_hour);
        ts_json_put_number(into, "goodput_per_dollar", r->per_dollar);
    }
}

static void put_parts(const struct tsctl_report *r, struct ts_json *into)
{
    double all = r->latency[TSCTL_LATENCY_E2E].mean;
    struct ts_json *parts = ts_json_new_object();
    for (int i = 0; i < TSCTL_PART_COUNT; i++) {
        struct ts_json *item = ts_json_new_object();
        ts_json_put_number(item, "mean_ms", 1e3 * r->parts_s[i]);
        ts_json_put_number(item, "share", all > 0 ? r->parts_s[i] / all : 0);
        ts_json_put(parts, tsctl_part_name((enum tsctl_part)i), &item);
    }
    ts_json_put(into, "time", &parts);
    ts_json_put_number(into, "transfer_hidden_ms", 1e3 * r->hidden_s);
    ts_json_put_number(into, "kv_bytes_raw", r->kv_bytes_raw);
    ts_json_put_number(into, "kv_bytes_sent", r->kv_bytes_sent);
}

static void put_places(const struct tsctl_report *r, struct ts_json *into)
{
    struct ts_json *replicas = ts_json_new_array(), *links = ts_json_new_array();
    for (size_t i = 0; i < r->replica_count; i++) {
        const struct tsctl_replica *p = &r->replicas[i];
        struct ts_json *item = ts_json_new_object();
        put_text(item, "name", p->name);
        put_text(item, "devices", p->what);
        put_text(item, "phase", p->phase == TS_PHASE_BOTH ? "both" : ts_phase_name(p->phase));
        ts_json_put_number(item, "lived_s", p->lived_s);
        ts_json_put_number(item, "busy", p->busy);
        ts_json_put_number(item, "busy_stages", p->busy_mean);
        ts_json_put_number(item, "kv_mean", p->kv_mean);
        ts_json_put_number(item, "kv_max", p->kv_max);
        ts_json_put_number(item, "prompt_tokens_per_s", p->prompt_tokens_per_s);
        ts_json_put_number(item, "output_tokens_per_s", p->output_tokens_per_s);
        put_count(item, "batches", p->batches);
        ts_json_put(replicas, NULL, &item);
    }
    for (size_t i = 0; i < r->link_count; i++) {
        const struct tsctl_link *l = &r->links[i];
        struct ts_json *item = ts_json_new_object();
        put_text(item, "from", l->from);
        put_text(item, "to", l->to);
        ts_json_put_number(item, "busy", l->busy);
        ts_json_put_number(item, "bytes_per_s", l->bytes_per_s);
        ts_json_put_number(item, "capacity_bytes_per_s", l->capacity_bytes_per_s);
        ts_json_put(links, NULL, &item);
    }
    ts_json_put(into, "replicas", &replicas);
    ts_json_put(into, "links", &links);
}

void tsctl_report_json(const struct tsctl_report *report, struct ts_json *into)
{
    struct ts_json *reasons = ts_json_new_object();
    put_count(into, "requests", report->requests);
    put_count(into, "completed", report->completed);
    put_count(into, "refused", report->refused);
    put_count(into, "failed", report->failed);
    put_count(into, "cancelled", report->cancelled);
    put_count(into, "unfinished", report->unfinished);
    for (int i = 0; i <= TS_REASON_LAST; i++)
        if (report->reasons[i] > 0)
            put_count(reasons, ts_reason_name((enum ts_reason)i), report->reasons[i]);
    ts_json_put(into, "reasons", &reasons);
    put_rates(report, into);
    put_attainment(report, into);
    put_latency(report, into);
    put_parts(report, into);
    put_places(report, into);
    put_text(into, "bottleneck", report->bottleneck);
}
