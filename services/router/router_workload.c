#include "services/router/router_workload.h"

#include <string.h>

#include "common/base/ts_mem.h"

#define PROMPT_FIRST 32  /* the first range ends there, each other at half as much again as the one before */
#define OUTPUT_FIRST 32  /* the first range ends there, each other at eight times the one before */
#define PROMPT_MOST  1e8 /* the end of the last one */
#define USED_PROMPT  32  /* of the coarser grid: at four times the one before */
#define USED_OUTPUT  8
#define ALLOWED_MAX  1e6 /* tokens: what was learned earlier then counts half */
#define BURST_LEAST  10  /* seconds and arrivals: with less there is no telling */

void workload_init(struct workload *w, uint32_t window_ms)
{
    *w = (struct workload){.first_at = -1, .window_ns = window_ms * TS_MS};
    w->bucket_ns = (w->window_ns + WORKLOAD_BUCKETS - 1) / WORKLOAD_BUCKETS;
    w->buckets = ts_xcalloc(WORKLOAD_BUCKETS, sizeof *w->buckets);
}

void workload_fini(struct workload *w)
{
    ts_free(w->buckets);
    w->buckets = NULL;
}

static uint32_t step_of(uint32_t tokens, uint32_t first, uint32_t factor, uint32_t count)
{
    uint32_t step = 0;
    for (uint64_t end = first; tokens >= end && step < count - 1; end *= factor)
        step++;
    return step;
}

/* Where a range of prompts ends, and the next one begins. */
static uint32_t prompt_end(uint32_t range)
{
    uint32_t end = PROMPT_FIRST;
    for (uint32_t i = 0; i < range; i++)
        end += end / 2;
    return end;
}

static uint32_t cell_of(uint32_t prompt_tokens, uint32_t output_tokens)
{
    uint32_t range = 0;
    for (uint32_t end = PROMPT_FIRST; prompt_tokens >= end && range < WORKLOAD_PROMPTS - 1; end += end / 2)
        range++;
    return range * WORKLOAD_OUTPUTS + step_of(output_tokens, OUTPUT_FIRST, 8, WORKLOAD_OUTPUTS);
}

static uint32_t used_cell(uint32_t prompt_tokens, uint32_t max_tokens)
{
    return step_of(prompt_tokens, USED_PROMPT, 4, WORKLOAD_SIDE) * WORKLOAD_SIDE +
           step_of(max_tokens, USED_OUTPUT, 4, WORKLOAD_SIDE);
}

/* What has left the window is forgotten. */
static struct workload_bucket *newest(struct workload *w, ts_time now)
{
    int64_t bucket = now / w->bucket_ns;
    int64_t from = bucket - w->bucket > WORKLOAD_BUCKETS ? bucket - WORKLOAD_BUCKETS : w->bucket;
    while (from < bucket)
        memset(&w->buckets[++from % WORKLOAD_BUCKETS], 0, sizeof *w->buckets);
    w->bucket = bucket;
    return &w->buckets[bucket % WORKLOAD_BUCKETS];
}

static void count_second(struct workload *w, ts_time now, uint32_t arrivals)
{
    int64_t second = now / TS_S;
    int64_t from = second - w->second > WORKLOAD_SECONDS ? second - WORKLOAD_SECONDS : w->second;
    while (from < second)
        w->seconds[++from % WORKLOAD_SECONDS] = 0;
    w->second = second;
    w->seconds[second % WORKLOAD_SECONDS] += arrivals;
}

static void add(struct workload_bucket *bucket, const struct workload_entry *e)
{
    struct workload_cell *c = &bucket->cells[cell_of(e->prompt, e->output)];
    c->count++;
    c->prompt += e->prompt;
    c->prompt_sq += (uint64_t)e->prompt * e->prompt;
    c->output += e->output;
    c->output_sq += (uint64_t)e->output * e->output;
}

static void take(struct workload_bucket *bucket, const struct workload_entry *e)
{
    struct workload_cell *c = &bucket->cells[cell_of(e->prompt, e->output)];
    c->count--;
    c->prompt -= e->prompt;
    c->prompt_sq -= (uint64_t)e->prompt * e->prompt;
    c->output -= e->output;
    c->output_sq -= (uint64_t)e->output * e->output;
}

uint32_t workload_expected(const struct workload *w, uint32_t prompt_tokens, uint32_t max_tokens)
{
    uint32_t cell = used_cell(prompt_tokens, max_tokens);
    double share = w->allowed[cell] > 0 ? w->used[cell] / w->allowed[cell] : 1;
    double tokens = share * max_tokens + 0.5;
    return tokens < 1 ? 1 : tokens < max_tokens ? (uint32_t)tokens : max_tokens;
}

struct workload_entry workload_arrived(struct workload *w, ts_time now, uint32_t prompt_tokens,
                                       uint32_t output_tokens)
{
    struct workload_bucket *bucket = newest(w, now);
    struct workload_entry entry = {w->bucket, prompt_tokens, output_tokens};
    if (w->first_at < 0)
        w->first_at = now;
    add(bucket, &entry);
    count_second(w, now, 1);
    return entry;
}

void workload_refused(struct workload *w, ts_time now)
{
    newest(w, now)->refused++;
}

void workload_correct(struct workload *w, ts_time now, struct workload_entry *entry, uint32_t prompt_tokens,
                      uint32_t output_tokens)
{
    newest(w, now);
    if (entry->bucket <= w->bucket - WORKLOAD_BUCKETS)
        return;
    struct workload_bucket *bucket = &w->buckets[entry->bucket % WORKLOAD_BUCKETS];
    take(bucket, entry);
    entry->prompt = prompt_tokens;
    entry->output = output_tokens;
    add(bucket, entry);
}

void workload_learn(struct workload *w, uint32_t prompt_tokens, uint32_t output_tokens, uint32_t max_tokens)
{
    uint32_t cell = used_cell(prompt_tokens, max_tokens);
    w->used[cell] += output_tokens;
    w->allowed[cell] += max_tokens;
    if (w->allowed[cell] > ALLOWED_MAX) {
        w->used[cell] /= 2;
        w->allowed[cell] /= 2;
    }
}

void workload_judged(struct workload *w, ts_time now, bool attained)
{
    struct workload_bucket *bucket = newest(w, now);
    bucket->judged++;
    bucket->attained += attained;
}

bool workload_idle(struct workload *w, ts_time now)
{
    newest(w, now);
    for (size_t b = 0; b < WORKLOAD_BUCKETS; b++) {
        for (size_t c = 0; c < WORKLOAD_CELLS; c++) {
            if (w->buckets[b].cells[c].count > 0)
                return false;
        }
    }
    return true;
}

/* Variance over mean of the arrivals in whole seconds; of Poisson arrivals it is 1. */
static double burst_of(struct workload *w, ts_time now, ts_time from)
{
    double sum = 0, sum_sq = 0, n = 0;
    count_second(w, now, 0);
    int64_t first = (from + TS_S - 1) / TS_S;
    if (first <= w->second - WORKLOAD_SECONDS)
        first = w->second - WORKLOAD_SECONDS + 1;
    for (int64_t s = first; s < w->second; s++, n++) {
        double arrivals = w->seconds[s % WORKLOAD_SECONDS];
        sum += arrivals;
        sum_sq += arrivals * arrivals;
    }
    if (n < BURST_LEAST || sum < BURST_LEAST)
        return 1;
    return (sum_sq - sum * sum / n) / (n - 1) / (sum / n);
}

static struct ts_workload_class class_of(const struct workload_cell *sum, uint32_t range, double window_s)
{
    double n = (double)sum->count;
    bool last = range == WORKLOAD_PROMPTS - 1;
    return (struct ts_workload_class){.rate = n / window_s,
                                      .prompt_tokens = (double)sum->prompt / n,
                                      .prompt_tokens_sq = (double)sum->prompt_sq / n,
                                      .output_tokens = (double)sum->output / n,
                                      .output_tokens_sq = (double)sum->output_sq / n,
                                      .prompt_begin = range ? prompt_end(range - 1) : 0,
                                      .prompt_end = last ? PROMPT_MOST : prompt_end(range)};
}

static struct workload_cell cell_sum(const struct workload *w, size_t cell)
{
    struct workload_cell sum = {0};
    for (size_t b = 0; b < WORKLOAD_BUCKETS; b++) {
        const struct workload_cell *c = &w->buckets[b].cells[cell];
        sum.count += c->count;
        sum.prompt += c->prompt;
        sum.prompt_sq += c->prompt_sq;
        sum.output += c->output;
        sum.output_sq += c->output_sq;
    }
    return sum;
}

struct ts_workload workload_of(struct workload *w, ts_time now, struct ts_arena *arena)
{
    struct ts_workload out = {.burst = 1, .attained = -1};
    if (w->first_at < 0)
        return out;
    newest(w, now);
    ts_time from = (w->bucket - WORKLOAD_BUCKETS + 1) * w->bucket_ns;
    from = from > w->first_at ? from : w->first_at;
    double window_s = now - from > TS_S ? (double)(now - from) / TS_S : 1, arrivals = 0;
    struct ts_workload_class *classes = ts_arena_zalloc(arena, WORKLOAD_CELLS * sizeof *classes);
    uint64_t refused = 0, judged = 0, attained = 0;
    uint32_t count = 0;
    for (size_t c = 0; c < WORKLOAD_CELLS; c++) {
        const struct workload_cell sum = cell_sum(w, c);
        if (sum.count == 0)
            continue;
        classes[count++] = class_of(&sum, (uint32_t)(c / WORKLOAD_OUTPUTS), window_s);
        arrivals += (double)sum.count;
        out.prompt_tokens_mean += (double)sum.prompt;
        out.output_tokens_mean += (double)sum.output;
    }
    for (size_t b = 0; b < WORKLOAD_BUCKETS; b++) {
        refused += w->buckets[b].refused;
        judged += w->buckets[b].judged;
        attained += w->buckets[b].attained;
    }
    out.arrivals_per_s = arrivals / window_s;
    out.prompt_tokens_mean /= arrivals > 0 ? arrivals : 1;
    out.output_tokens_mean /= arrivals > 0 ? arrivals : 1;
    out.window_s = window_s;
    out.burst = burst_of(w, now, from);
    out.refused_per_s = (double)refused / window_s;
    out.attained = judged ? (double)attained / (double)judged : -1;
    out.classes = (struct ts_workload_classes){classes, count};
    return out;
}
