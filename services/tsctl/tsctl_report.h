/*
 * A report on requests, computed from their records (tsctl_record.h) alone, so that simulated and real runs
 * are judged by the same code; what is known besides, of replicas and links, is added by whoever knows it.
 *
 * Refused, failed and unfinished requests are misses of every deadline. Intervals are Wilson's score
 * intervals at 95 % (E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
 * JASA 22, 1927): of the share as if requests were independent, which those of one busy spell are not.
 *
 * Plain data; the arrays of places are the report's. One thread.
 */
#ifndef TSCTL_REPORT_H
#define TSCTL_REPORT_H

#include <stdio.h>

#include "common/core/ts_plan.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl_record.h"

#define TSCTL_SCALES_MAX 64

enum tsctl_slo { TSCTL_TTFT, TSCTL_TPOT, TSCTL_E2E, TSCTL_ALL, TSCTL_SLO_COUNT };

struct tsctl_share {
    uint64_t hits, of;
    double share, low, high; /* 0 to 1; of nothing: all 0 */
};

struct tsctl_share tsctl_share_of(uint64_t hits, uint64_t of);

struct tsctl_report_options {
    double scales[TSCTL_SCALES_MAX];
    size_t scale_count;
    double slo_scale;      /* for goodput */
    double warmup;         /* requests sent in this share of the sending time at either end do not count */
    uint32_t gpus;         /* 0 = not known */
    double price_per_hour; /* 0 = not known */
};

struct tsctl_latency { /* of completed requests for which it is defined; quantiles by nearest rank */
    uint64_t count;
    double mean, p50, p90, p95, p99, max; /* seconds */
};

enum tsctl_latency_kind {
    TSCTL_LATENCY_TTFT,
    TSCTL_LATENCY_TPOT,
    TSCTL_LATENCY_E2E,
    TSCTL_LATENCY_GAP01,
    TSCTL_LATENCY_COUNT
};

enum tsctl_part {                           /* of the time from sending to the last token; they add up */
                  TSCTL_PART_ROUTER,        /* until it was assigned, lost attempts included */
                  TSCTL_PART_PREFILL_QUEUE, /* until its first batch began */
                  TSCTL_PART_PREFILL,
                  TSCTL_PART_TRANSFER,     /* visible: from the end of prefill until its KV was complete */
                  TSCTL_PART_DECODE_QUEUE, /* until the first token of decode, its batch included */
                  TSCTL_PART_DECODE,
                  TSCTL_PART_REST, /* between client and router */
                  TSCTL_PART_COUNT
};

struct tsctl_replica { /* over its life in the run */
    char name[24], what[120];
    enum ts_phase phase;
    double lived_s, busy, busy_mean; /* shares: of its busiest stage, of all stages */
    double kv_mean, kv_max;          /* shares of its KV blocks */
    double prompt_tokens_per_s, output_tokens_per_s;
    uint64_t batches;
};

struct tsctl_link {
    char from[TS_CLUSTER_NAME_BYTES], to[TS_CLUSTER_NAME_BYTES]; /* equal: the node's network card, out */
    double busy, bytes_per_s, capacity_bytes_per_s;
};

struct tsctl_report {
    struct tsctl_report_options options;
    uint64_t requests, completed, refused, failed, cancelled, unfinished;
    uint64_t reasons[TS_REASON_LAST + 1]; /* of refused, failed and cancelled ones */
    double from_s, to_s, sending_s; /* the time that is counted; of it, that in which requests were sent */
    struct tsctl_share attained[TSCTL_SCALES_MAX][TSCTL_SLO_COUNT], at_slo[TSCTL_SLO_COUNT];
    struct tsctl_latency latency[TSCTL_LATENCY_COUNT];
    double offered_per_s, requests_per_s, prompt_tokens_per_s, output_tokens_per_s;
    double goodput_per_s, per_gpu, per_dollar;  /* per dollar: requests in time */
    double parts_s[TSCTL_PART_COUNT], hidden_s; /* means; transfer during prefill */
    double kv_bytes_raw, kv_bytes_sent;         /* means over completed requests */
    struct tsctl_replica *replicas;
    size_t replica_count;
    struct tsctl_link *links;
    size_t link_count;
    char bottleneck[300];
};

/* The curves of the literature: 0.5 to 50. */
struct tsctl_report_options tsctl_report_defaults(void);
/* "1,2,5": rising numbers above 0. */
enum ts_status tsctl_report_scales(const char *text, struct tsctl_report_options *options,
                                   struct ts_error *err);

/* The records are sorted by time sent. */
void tsctl_report_make(const struct tsctl_records *records, const struct tsctl_report_options *options,
                       struct tsctl_report *out);
/* Says what requests wait for most, once replicas and links are known. */
void tsctl_report_bottleneck(struct tsctl_report *report);
void tsctl_report_fini(struct tsctl_report *report);

const char *tsctl_part_name(enum tsctl_part part);  /* "router_queue", ... */
const char *tsctl_part_words(enum tsctl_part part); /* "queue at the router", ... */

void tsctl_report_print(const struct tsctl_report *report, FILE *to);            /* tsctl_report_print.c */
void tsctl_report_json(const struct tsctl_report *report, struct ts_json *into); /* adds keys: README.md */

#endif
